"""Points of a Sobol sequence, spread evenly over the space."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from codesign.optimisers.cube import UnitCube
from codesign.optimisers.optimiser import Problem, SamplerOptimiser
from codesign.optimisers.whole_space import WholeSpaceSampler


class SobolOptimiser(SamplerOptimiser):
    """`sobol`."""

    words = "scrambled Sobol sequence (SciPy's)"

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> SobolSampler:
        """See `SamplerOptimiser`."""
        return SobolSampler(problem, seed=seed)


class SobolSampler(WholeSpaceSampler):
    """Points of a scrambled Sobol sequence: trial n is its n-th point, whatever was found before.

    Optuna's QMCSampler counts in the study itself, and starts only after a trial has finished.

    Args:
        problem: what is searched.
        seed: of the scrambling; the same for all trials of a search.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point of this trial's number."""
        from scipy.stats import qmc

        if not search_space:
            return {}
        cube = UnitCube(search_space)
        engine = qmc.Sobol(len(cube), rng=np.random.default_rng(self._seed))
        if trial.number:  # zero steps are an error
            engine.fast_forward(trial.number)
        with warnings.catch_warnings():  # it warns of counts that are no power of two
            warnings.simplefilter("ignore", UserWarning)
            return cube.decode(engine.random(1)[0])
