"""What samplers have in common that choose all parameters at once."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from codesign.optimisers.optimiser import Problem

# Points before a model of the objectives takes over; start settings count among them.
STARTUP_TRIALS = 10


class WholeSpaceSampler(BaseSampler):
    """Chooses all parameters at once, also before any trial has told which there are.

    Args:
        problem: what is searched.
        seed: of what is drawn.
    """

    def __init__(self, problem: Problem, *, seed: int) -> None:
        self._problem = problem
        self._seed = seed
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that have a choice."""
        every = self._problem.distributions
        return {name: each for name, each in every.items() if not each.single()}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value, where the sampler answers nothing."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)
