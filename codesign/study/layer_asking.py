"""Asks for the settings of a layer: random ones, then Optuna's Gaussian process in logarithms."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from codesign.evaluation.layers import LAYER_OBJECTIVES, LayerSpace
from codesign.evaluation.threads import single_thread
from codesign.study.asking import Asks

# Random settings of a layer before the Gaussian process takes over.
STARTUP_TRIALS = 8
# Hashes H and length L of the first setting tried, or the nearest: those of Deep Reuse's conv2.
START = {"hashes": 10, "length": 10, "thresholds": "spread", "order": "channels_first"}
# A smaller error is as good as none: squares of float32 rounding are of this size.
_LEAST_ERROR = 1e-12
# Of the sum in the augmented Chebyshev function (Knowles, IEEE Trans. Evol. Comput. 10(1), 2006).
_RHO = 0.05


def logarithms(values: Mapping[str, float]) -> tuple[float, float]:
    """Logarithms of error and inverse compression, both to be made small."""
    error, compression = (values[objective.name] for objective in LAYER_OBJECTIVES)
    return math.log10(max(error, _LEAST_ERROR)), -math.log10(compression)


@dataclass(frozen=True, kw_only=True)
class LayerAsker(Asks):
    """Asks for the trials of a layer, never for a setting twice.

    Attributes:
        space: what to choose from.
        seed: of the search.
        acquisition: see `nested_search`.
    """

    space: LayerSpace
    seed: int
    acquisition: str

    def next(
        self, stored: Sequence[FrozenTrial], known: int
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Origin and values of the trial after those stored, of which so many are known."""
        with single_thread():
            return "sampler" if stored else "start", self.ask(stored[:known]), {}

    def job(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What `LayerEvaluator` takes."""
        return {"layer": self.space.layer, "settings": dict(parameters)}

    def key(self, parameters: Mapping[str, Any]) -> str:
        """Equal for equal settings."""
        return json.dumps(dict(parameters), sort_keys=True)

    def ask(self, told: Sequence[FrozenTrial]) -> dict[str, Any]:
        """The next setting of a layer."""
        parameters = self.space.parameters
        if not told:
            return {p.name: p.nearest(START[p.name]) for p in parameters}
        tried = {self.key(self.space.decode(trial.params)) for trial in told}
        # Of a name, the checksum is the same on every machine.
        checksum = zlib.crc32(self.space.layer.encode())
        rng = np.random.default_rng([self.seed, checksum, len(told)])
        asked = self._suggest(told, rng)
        if self.key(asked) not in tried:
            return asked
        # The Gaussian process likes to repeat itself on a discrete space: look elsewhere.
        every = itertools.product(*(p.choices for p in parameters))
        names = [p.name for p in parameters]
        settings = [dict(zip(names, values, strict=True)) for values in every]
        left = [each for each in settings if self.key(each) not in tried]
        return left[rng.integers(len(left))]

    def _suggest(self, told: Sequence[FrozenTrial], rng: np.random.Generator) -> dict[str, Any]:
        names = [objective.name for objective in LAYER_OBJECTIVES]
        complete = [trial for trial in told if trial.state == TrialState.COMPLETE]
        points = [logarithms(dict(zip(names, t.values, strict=True))) for t in complete]
        values = np.array(points).reshape(-1, 2)
        if self.acquisition == "ei":
            values = chebyshev(values, rng)
        sampler = optuna.samplers.GPSampler(
            seed=int(rng.integers(2**32)),
            n_startup_trials=STARTUP_TRIALS,
            warn_independent_sampling=False,
        )
        view = optuna.create_study(directions=["minimize"] * values.shape[1], sampler=sampler)
        distributions = self.space.distributions
        for trial, point in zip(complete, values, strict=True):
            view.add_trial(
                create_trial(params=trial.params, distributions=distributions, values=list(point))
            )
        return self.space.decode(view.ask(distributions).params)


def chebyshev(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`(trials, 1)`: the worse of two weighted objectives, and a little of their sum (ParEGO)."""
    low, high = values.min(axis=0, initial=np.inf), values.max(axis=0, initial=-np.inf)
    weights = rng.dirichlet([1.0, 1.0])
    weighted = weights * (values - low) / np.where(high > low, high - low, 1.0)
    return (weighted.max(axis=1) + _RHO * weighted.sum(axis=1))[:, None]
