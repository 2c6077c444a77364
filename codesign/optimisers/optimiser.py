"""What an optimiser is: asked for one point, knowing the points before it.

An optimiser of one's own is a class like this, in a file that `--optimiser file.py:Cma` names, or
given to `search`; `codesign.testing` has its tests. One of another kind is an `Optimiser`.

    class Cma(SamplerOptimiser):
        words = "covariance matrix adaptation (Optuna's CmaEsSampler)"

        def sampler(self, problem, *, seed, own_seed):
            return optuna.samplers.CmaEsSampler(seed=own_seed)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, create_trial

from codesign.space.parameters import Condition


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an optimiser is asked about.

    Attributes:
        distributions: parameter -> what Optuna samples: a position among its choices where they
            are ordered, else a choice.
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

    parameters: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)


class Optimiser(ABC):
    """A way to choose the next point.

    It keeps nothing from one question to the next: what it answers depends on nothing but what it
    is given, so that a search that was cut off goes on as if it had not been.

    Attributes:
        words: what it is, for a report.
        package: what must be installed for it beyond this program's own needs, also the name of the
            extra that brings it.
    """

    words: str = ""
    package: str | None = None

    @abstractmethod
    def ask(self, problem: Problem, trials: Sequence[FrozenTrial], *, seed: int) -> Answer:
        """The next point to try.

        Args:
            problem: what is searched.
            trials: all before it. Those that are being evaluated have no values; constraints, if
                any, are met where at most 0.
            seed: of the search, the same for all of its questions.
        """


class SamplerOptimiser(Optimiser):
    """One of Optuna's samplers, made anew for every question."""

    @abstractmethod
    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> BaseSampler:
        """The sampler for one question.

        Args:
            problem: what is searched.
            seed: of the search.
            own_seed: of the question: another for each trial.
        """

    def ask(self, problem: Problem, trials: Sequence[FrozenTrial], *, seed: int) -> Answer:
        """What the sampler suggests in a study of these trials."""
        own_seed = int(np.random.SeedSequence([seed, len(trials)]).generate_state(1)[0])
        view = optuna.create_study(
            directions=["maximize" if more else "minimize" for more in problem.maximise],
            sampler=self.sampler(problem, seed=seed, own_seed=own_seed),
        )
        for trial in trials:
            view.add_trial(
                create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=trial.params,
                    distributions=trial.distributions,
                    system_attrs=generation(trial),
                    constraints=trial.constraints,
                )
            )
        view.ask(dict(problem.distributions))
        asked = view.get_trials(deepcopy=False)[-1]
        return Answer(parameters=asked.params, notes=generation(asked))


def generation(trial: FrozenTrial) -> dict[str, Any]:
    """What a genetic algorithm notes at a trial; what others note follows from the parameters."""
    return {key: note for key, note in trial.system_attrs.items() if key.endswith(":generation")}
