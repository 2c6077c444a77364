"""Optuna's own samplers as optimisers."""

from __future__ import annotations

from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

from codesign.optimisers.optimiser import Problem, SamplerOptimiser
from codesign.optimisers.whole_space import STARTUP_TRIALS


class GpSamplerOptimiser(SamplerOptimiser):
    """`gpsampler`."""

    words = "Gaussian processes with expected hypervolume improvement (Optuna's GPSampler)"

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> GPSampler:
        """See `SamplerOptimiser`."""
        return GPSampler(
            seed=own_seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
        )


class TpeOptimiser(SamplerOptimiser):
    """`tpe`."""

    words = "tree-structured Parzen estimator (Optuna's TPESampler)"

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> TPESampler:
        """See `SamplerOptimiser`."""
        return TPESampler(seed=own_seed, n_startup_trials=STARTUP_TRIALS, constant_liar=True)


class NsgaIIOptimiser(SamplerOptimiser):
    """`nsga2`."""

    words = "genetic algorithm with non-dominated sorting (Optuna's NSGAIISampler)"

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> NSGAIISampler:
        """See `SamplerOptimiser`."""
        return NSGAIISampler(seed=own_seed)


class RandomOptimiser(SamplerOptimiser):
    """`random`."""

    words = "random points (Optuna's RandomSampler)"

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> RandomSampler:
        """See `SamplerOptimiser`."""
        return RandomSampler(seed=own_seed)
