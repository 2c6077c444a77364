"""The front of several objectives: who is on it, how much it covers, where it bends."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np


def non_dominated(points: np.ndarray, maximise: Sequence[bool]) -> np.ndarray:
    """Whether no other point is at least as good in every objective and better in one.

    Args:
        points: `(n, objectives)` finite values.
        maximise: for each objective, whether more is better.

    Returns:
        `(n,)` bool; of equal points only the first is kept.
    """
    if not len(points):
        return np.zeros(0, bool)
    return np.asarray(moocore.is_nondominated(points, maximise=list(maximise)), dtype=bool)


def hypervolumes(
    points: np.ndarray, reference: np.ndarray, maximise: Sequence[bool]
) -> list[float]:
    """Volume dominated by the first 1, 2, ... n points, bounded by a reference point.

    Args:
        points: `(n, objectives)` values in the order in which they were found.
        reference: `(objectives,)`; points that are worse in any objective add nothing.
        maximise: for each objective, whether more is better.
    """
    if not len(points):
        return []
    indicator = moocore.Hypervolume(ref=reference, maximise=list(maximise))
    return [float(indicator(points[: index + 1])) for index in range(len(points))]


def knee(front: np.ndarray, maximise: Sequence[bool]) -> int | None:
    """Where a front bends most: beyond it, a gain in one objective costs most in the others.

    Every objective is scaled over the front to 0 at its worst and 1 at its best. The knee is the
    point that lies farthest to the good side of the plane whose normal is (1, ..., 1). With two
    objectives that is the point farthest from the chord between the front's ends (Das, Structural
    Optimization 18, 1999, doi:10.1007/BF01195985). An objective that is the same all over the
    front does not count.

    Args:
        front: `(n, objectives)` finite values, none dominated by another.
        maximise: for each objective, whether more is better.

    Returns:
        Index of the point, the first of equals; `None` of no points.
    """
    if not len(front):
        return None
    gains = np.where(maximise, front, -front)
    spread = np.ptp(gains, axis=0)
    scaled = (gains - gains.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    return int(scaled.sum(axis=1).argmax())
