"""What samplers have in common that choose all parameters at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

# Points before a model of the objectives takes over; start settings count among them.
STARTUP_TRIALS = 10


class WholeSpaceSampler(BaseSampler):
    """Chooses all parameters at once, also before any trial has told which there are.

    Args:
        distributions: of all parameters.
        seed: of what is drawn.
    """

    def __init__(self, *, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        self._distributions = distributions
        self._seed = seed
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that have a choice."""
        return {name: each for name, each in self._distributions.items() if not each.single()}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value, where the sampler answers nothing."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)
