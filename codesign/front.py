"""The front of several objectives: who is on it, and how much it covers."""

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
