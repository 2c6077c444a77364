"""Expected hypervolume improvement in closed form, for objectives that are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from codesign.optimisers.boxes import boxes_beyond
from codesign.optimisers.gaussian_process import GaussianProcess

_LEAST = 1e-30  # of a factor, so that no product is 0 and the larger of two small ones still shows


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectiveModel:
    """What is expected of an objective.

    Attributes:
        process: of its values, or of their logarithms.
        columns: of a point, those that the objective depends on.
        logarithmic: whether of logarithms.
        maximise: whether more is better.
    """

    process: GaussianProcess
    columns: np.ndarray
    logarithmic: bool
    maximise: bool

    @classmethod
    def fit(
        cls,
        points: np.ndarray,
        values: np.ndarray,
        groups: np.ndarray,
        *,
        columns: np.ndarray | slice = slice(None),
        maximise: bool,
    ) -> ObjectiveModel:
        """Fit to `(n,)` values at `(n, columns)` points; see `GaussianProcess.fit`.

        Values are taken in logarithms where they are all positive and less skewed that way.
        """
        logarithmic = bool(values.min() > 0) and abs(_skew(np.log(values))) < abs(_skew(values))
        seen = np.log(values) if logarithmic else values
        chosen = np.arange(len(groups))[columns]
        own = np.unique(groups[chosen], return_inverse=True)[1]
        return cls(
            process=GaussianProcess.fit(np.ascontiguousarray(points[:, chosen]), seen, own),
            columns=chosen,
            logarithmic=logarithmic,
            maximise=maximise,
        )

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, of the logarithm where `logarithmic`, both `(n,)`."""
        return self.process.predict(points[:, self.columns])

    def believing(self, points: np.ndarray) -> ObjectiveModel:
        """The same, had its medians been found at these `(n, columns)` points."""
        return replace(self, process=self.process.believing(points[:, self.columns]))

    def likely(self, points: np.ndarray) -> np.ndarray:
        """`(n,)` medians of the objective."""
        mean, _ = self.predict(points)
        return np.exp(mean) if self.logarithmic else mean

    def excess(self, points: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """`(n, levels)` by how much it is expected to be better than each finite level.

        For logarithms it is the price of an option (Black and Scholes, J. Political Economy 81,
        1973).
        """
        mean, deviation = (each[:, None] for each in self.predict(points))
        sign = 1.0 if self.maximise else -1.0
        if not self.logarithmic:
            gain = sign * (mean - levels)
            z = gain / deviation
            return gain * ndtr(z) + deviation * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        positive = np.maximum(levels, _LEAST)  # as good as 0, where the level is below
        z = (mean - np.log(positive)) / deviation
        expected = np.exp(mean + 0.5 * deviation**2)
        beyond = sign * (expected * ndtr(sign * (z + deviation)) - positive * ndtr(sign * z))
        below = np.minimum(levels, 0.0)
        return beyond - below if self.maximise else np.where(levels > 0, beyond, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpectedImprovement:
    """How much a point is expected to add to the hypervolume, times the chance that it is feasible.

    Attributes:
        objectives: each with its model.
        constraints: what is expected of each, met where at most 0.
        levels: for each objective, `(levels,)` values where a box ends, in rising order. Boxes
            fill what is better than the reference point and not beaten by the front.
        worse: `(boxes, objectives)` position in `levels` of a box's worse end.
        better: the same of its better end; past the last where the box has none.
    """

    objectives: Sequence[ObjectiveModel]
    constraints: Sequence[GaussianProcess]
    levels: Sequence[np.ndarray]
    worse: np.ndarray
    better: np.ndarray

    @classmethod
    def beyond(
        cls,
        values: np.ndarray,
        reference: np.ndarray,
        *,
        objectives: Sequence[ObjectiveModel],
        constraints: Sequence[GaussianProcess],
    ) -> ExpectedImprovement:
        """Over a front.

        Args:
            values: `(n, objectives)`; those that are beaten or beyond the reference add nothing.
            reference: `(objectives,)` the worst values that count.
            objectives: see the attributes, as is the next.
            constraints: see there.
        """
        signs = np.array([-1.0 if each.maximise else 1.0 for each in objectives])
        worst = reference * signs
        losses = values * signs
        losses = losses[(losses < worst).all(axis=1)]
        if len(losses):
            best, last = boxes_beyond(losses, worst)
        else:
            best, last = np.full((1, len(worst)), -np.inf), worst[None]
        levels, worse, better = [], [], []
        for sign, tops, bottoms in zip(signs, best.T, last.T, strict=True):
            ends = np.unique(sign * np.concatenate([bottoms, tops[np.isfinite(tops)]]))
            levels.append(ends)
            worse.append(np.searchsorted(ends, sign * bottoms))
            places = np.searchsorted(ends, np.where(np.isfinite(tops), sign * tops, ends[0]))
            better.append(np.where(np.isfinite(tops), places, len(ends)))
        return cls(
            objectives=objectives,
            constraints=constraints,
            levels=levels,
            worse=np.array(worse).T,
            better=np.array(better).T,
        )

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """`(n,)` expected improvement at `(n, columns)` points."""
        product = np.ones((len(points), len(self.worse)))
        for objective, levels, worse, better in zip(
            self.objectives, self.levels, self.worse.T, self.better.T, strict=True
        ):
            excess = objective.excess(points, levels)
            excess = np.concatenate([excess, np.zeros((len(points), 1))], axis=1)
            product *= np.maximum(excess[:, worse] - excess[:, better], _LEAST)
        improvement = product.sum(axis=1)
        for constraint in self.constraints:
            mean, deviation = constraint.predict(points)
            improvement *= np.maximum(ndtr(-mean / deviation), _LEAST)
        return improvement


def _skew(values: np.ndarray) -> float:
    """Third standardised moment."""
    away = values - values.mean()
    return float((away**3).mean() / max((away**2).mean() ** 1.5, 1e-300))
