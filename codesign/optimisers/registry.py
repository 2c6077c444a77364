"""The optimisers of a search: each is asked for one point, knowing the points before it.

An optimiser is made anew for every question and seeded by the search's seed and the number of the
trial, so what it answers depends on nothing but the trials that it is shown.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from accelerators import ConfigError
from codesign.evaluation.threads import single_thread
from codesign.optimisers.improvement_sampler import ImprovementSampler
from codesign.optimisers.optuna_samplers import STARTUP_TRIALS, QLogNehviSampler, SobolSampler
from codesign.space.parameters import Condition


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an optimiser is asked about.

    Attributes:
        distributions: parameter -> what Optuna samples.
        maximise: for each objective, whether more is better.
        reference_point: for each objective, the value beyond which a point is of interest. Used by
            `botorch` alone.
        hypervolume_point: for each objective, the value from which a search's hypervolume counts,
            by default `reference_point`. Used by `gp` alone; the others take theirs from the points
            they saw, or need none.
        conditions: parameter -> when it matters. Used by `gp` alone, as is the next.
        depends: for each objective, the parameters that it depends on, `None` for all; empty where
            nothing is known.
    """

    distributions: Mapping[str, BaseDistribution]
    maximise: tuple[bool, ...]
    reference_point: tuple[float, ...]
    hypervolume_point: tuple[float, ...] | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    depends: tuple[Collection[str] | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A point to try.

    Attributes:
        parameters: as Optuna stores them.
        notes: what the optimiser must find at the trial when it is asked again, such as the
            generation of a genetic algorithm; goes with the trial as Optuna's `system_attrs`.
    """

    parameters: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)


# Of (the search's seed, the trial's own seed, the problem).
_Make = Callable[[int, int, Problem], BaseSampler]


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """A way to choose the next point.

    Attributes:
        words: what it is, for a report.
        make: makes it for one question.
        package: what must be installed for it beyond this program's own needs, also the name of the
            extra that brings it.
    """

    words: str
    make: _Make
    package: str | None = None


OPTIMISERS: Mapping[str, Optimiser] = {
    "gp": Optimiser(
        words="Gaussian processes, in logarithms where values span decades, with expected "
        "hypervolume improvement in closed form",
        make=lambda seed, own, problem: ImprovementSampler(
            distributions=problem.distributions,
            seed=own,
            sobol_seed=seed,
            reference_point=problem.hypervolume_point or problem.reference_point,
            conditions=problem.conditions,
            depends=problem.depends,
        ),
    ),
    "gpsampler": Optimiser(
        words="Gaussian processes with expected hypervolume improvement (Optuna's GPSampler)",
        make=lambda _, own, problem: optuna.samplers.GPSampler(
            seed=own, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
        ),
    ),
    "botorch": Optimiser(
        words="Gaussian processes with noisy expected hypervolume improvement (BoTorch's "
        "qLogNEHVI) over the dense baseline",
        make=lambda _, own, problem: QLogNehviSampler(
            distributions=problem.distributions,
            seed=own,
            reference_point=problem.reference_point,
        ),
        package="botorch",
    ),
    "tpe": Optimiser(
        words="tree-structured Parzen estimator (Optuna's TPESampler)",
        make=lambda _, own, problem: optuna.samplers.TPESampler(
            seed=own, n_startup_trials=STARTUP_TRIALS, constant_liar=True
        ),
    ),
    "nsga2": Optimiser(
        words="genetic algorithm with non-dominated sorting (Optuna's NSGAIISampler)",
        make=lambda _, own, problem: optuna.samplers.NSGAIISampler(seed=own),
    ),
    "sobol": Optimiser(
        words="scrambled Sobol sequence (SciPy's)",
        make=lambda seed, own, problem: SobolSampler(
            distributions=problem.distributions, seed=seed
        ),
    ),
    "random": Optimiser(
        words="random points (Optuna's RandomSampler)",
        make=lambda _, own, problem: RandomSampler(seed=own),
    ),
}


def optimiser_problems(name: Any) -> list[str]:
    """What keeps a search from using the optimiser of that name; nothing if all is well."""
    if name not in OPTIMISERS:
        return [f"search optimiser must be one of {', '.join(OPTIMISERS)}, got {name!r}"]
    package = OPTIMISERS[name].package
    if package is not None and importlib.util.find_spec(package) is None:
        return [
            f"search optimiser {name!r} must have the package {package}, got none installed; "
            f"install it by: pip install 'similarity-codesign[{package}]'"
        ]
    return []


def ask(
    name: str,
    problem: Problem,
    stored: Sequence[FrozenTrial],
    *,
    seed: int,
    known: int | None = None,
) -> Answer:
    """The next point to try, after those stored.

    Args:
        name: a key of `OPTIMISERS`.
        problem: what is searched.
        stored: all trials so far. Their constraints, if any, are met where at most 0.
        seed: of the search.
        known: how many of `stored` may be seen with their values, by default all; the others count
            as running, whether they are or not.

    Raises:
        ConfigError: there is no such optimiser, or its package is not installed.
    """
    problems = optimiser_problems(name)
    if problems:
        raise ConfigError(problems)
    number = len(stored)
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    sampler = OPTIMISERS[name].make(seed, own_seed, problem)
    view = optuna.create_study(
        directions=["maximize" if more else "minimize" for more in problem.maximise],
        sampler=sampler,
    )
    for index, trial in enumerate(stored):
        seen = known is None or index < known
        view.add_trial(
            create_trial(
                state=trial.state if seen else TrialState.RUNNING,
                values=trial.values if seen else None,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=_generation(trial),
                constraints=trial.constraints if seen else None,
            )
        )
    with single_thread():
        view.ask(dict(problem.distributions))
    asked = view.get_trials(deepcopy=False)[-1]
    return Answer(parameters=asked.params, notes=_generation(asked))


def _generation(trial: FrozenTrial) -> dict[str, Any]:
    """What a genetic algorithm notes at a trial; what others note follows from the parameters."""
    return {key: note for key, note in trial.system_attrs.items() if key.endswith(":generation")}
