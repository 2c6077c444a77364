"""The optimisers that have a name, and asking one of them or of a user's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from accelerators import ConfigError
from codesign.evaluation.threads import single_thread
from codesign.optimisers.gp import ImprovementOptimiser
from codesign.optimisers.of_optuna import (
    GpSamplerOptimiser,
    NsgaIIOptimiser,
    RandomOptimiser,
    TpeOptimiser,
)
from codesign.optimisers.optimiser import Answer, Optimiser, Problem, generation
from codesign.optimisers.qlognehvi import QLogNehviOptimiser
from codesign.optimisers.sobol import SobolOptimiser
from codesign.space.lookup import find
from workloads.errors import show, told
from workloads.user_files import is_located

OPTIMISERS: Mapping[str, Optimiser] = {
    "gp": ImprovementOptimiser(),
    "gpsampler": GpSamplerOptimiser(),
    "botorch": QLogNehviOptimiser(),
    "tpe": TpeOptimiser(),
    "nsga2": NsgaIIOptimiser(),
    "sobol": SobolOptimiser(),
    "random": RandomOptimiser(),
}

# A key of `OPTIMISERS`, `file.py:NAME` or `package.module:NAME`, or an optimiser or its class.
Chosen = str | Optimiser | type[Optimiser]


def find_optimiser(chosen: Chosen) -> Optimiser:
    """The optimiser that was chosen.

    Raises:
        ConfigError: there is none, or its package is not installed.
    """
    if isinstance(chosen, str):
        found = find("search optimiser", chosen, OPTIMISERS, Optimiser)  # type: ignore[type-abstract]
    elif isinstance(chosen, type) and issubclass(chosen, Optimiser):
        found = chosen()
    elif isinstance(chosen, Optimiser):
        found = chosen
    else:
        raise ConfigError(
            f"search optimiser must be a name, an Optimiser or its class, got {show(chosen)}; use "
            "'gp'"
        )
    if found.package is not None and importlib.util.find_spec(found.package) is None:
        raise ConfigError(
            f"search optimiser {optimiser_name(chosen)!r} must have the package {found.package}, "
            f"got none installed; install it by: pip install 'similarity-codesign[{found.package}]'"
        )
    return found


def optimiser_name(chosen: Chosen) -> str:
    """The name by which a study knows it: as it was chosen, or its class and its settings."""
    if isinstance(chosen, str):
        return chosen
    owner = chosen if isinstance(chosen, type) else type(chosen)
    settings = {} if isinstance(chosen, type) else vars(chosen)
    shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"{owner.__module__}:{owner.__qualname__}" + (f"({shown})" if shown else "")


def is_optimiser_name(name: Any) -> bool:
    """Whether a study may know an optimiser by it; one of a user's own need not be there."""
    return isinstance(name, str) and (name in OPTIMISERS or is_located(name))


def optimiser_words(name: str) -> str:
    """What an optimiser is, for a report; of a user's own, its name."""
    return OPTIMISERS[name].words if name in OPTIMISERS else name


def optimiser_problems(chosen: Any) -> list[str]:
    """What keeps a search from using an optimiser; nothing if all is well."""
    try:
        find_optimiser(chosen)
    except ConfigError as error:
        return list(error.violations)
    return []


def ask(
    chosen: Chosen,
    problem: Problem,
    stored: Sequence[FrozenTrial],
    *,
    seed: int,
    known: int | None = None,
) -> Answer:
    """The next point to try, after those stored.

    Args:
        chosen: which optimiser, see `find_optimiser`.
        problem: what is searched.
        stored: all trials so far. Their constraints, if any, are met where at most 0.
        seed: of the search.
        known: how many of `stored` may be seen with their values, by default all; the others count
            as running, whether they are or not.

    Raises:
        ConfigError: there is no such optimiser, its package is not installed, or what it answers is
            no point of the space.
    """
    optimiser = find_optimiser(chosen)
    seen = list(stored[:known])
    under_way = [_running(trial) for trial in stored[len(seen) :]]
    with single_thread():
        answer = optimiser.ask(problem, [*seen, *under_way], seed=seed)
    return replace(answer, parameters=_checked(optimiser_name(chosen), problem, answer))


def _running(trial: FrozenTrial) -> FrozenTrial:
    """The trial without what was found."""
    return create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=generation(trial),
    )


def _checked(name: str, problem: Problem, answer: Answer) -> dict[str, Any]:
    """What was answered as plain values, in the space's order.

    Raises:
        ConfigError: it is no point of the space.
    """
    given, space = answer.parameters, problem.distributions
    try:
        if {*given} != {*space}:
            raise ValueError(f"parameters {', '.join(map(str, {*given} ^ {*space}))} are odd")
        plain = {
            name: each.to_external_repr(each.to_internal_repr(given[name]))
            for name, each in space.items()
        }
        create_trial(state=TrialState.RUNNING, params=plain, distributions=dict(space))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"search optimiser {name!r} must answer a value of the space for each parameter, got "
            f"{show(dict(given))} ({told(error)}); mend its `ask`"
        ) from error
    return plain
