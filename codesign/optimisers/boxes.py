"""Boxes that fill the part of a space of objectives which a front does not beat.

Lacour, Klamroth and Fonseca, A Box Decomposition Algorithm to Compute the Hypervolume Indicator
(Computers & Operations Research 79, 2017), here L17; turned round to what is not beaten as in
Daulton, Balandat and Bakshy, Differentiable Expected Hypervolume Improvement (NeurIPS 2020).
"""

from __future__ import annotations

import numpy as np

from codesign.evaluation.front import non_dominated


def boxes_beyond(losses: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that together are all that is better than a reference and not beaten by any point.

    Args:
        losses: `(n, objectives)` finite float64, n and objectives - 1 at least 1; less is better.
        reference: `(objectives,)` float64, worse than each of them in every objective.

    Returns:
        Two arrays `(boxes, objectives)`: their better ends, -inf where they have none, and their
        worse ends.
    """
    bounds, _ = _upper_bounds(_front(losses), reference)
    # What is beaten, turned round, is what a front of these bounds does not beat.
    infinity = np.full_like(reference, np.inf)
    bounds, defining = _upper_bounds(_front(-bounds), infinity)
    # L17, equation 2.
    low, high = np.empty_like(bounds), np.empty_like(bounds)
    low[:, 0], high[:, 0] = defining[:, 0, 0], infinity[0]
    before = np.arange(len(reference) - 1)
    low[:, 1:] = np.maximum.accumulate(defining, axis=1)[:, before, before + 1]
    high[:, 1:] = bounds[:, 1:]
    kept = (high > low).all(axis=1)
    return -high[kept], -low[kept]


def _front(losses: np.ndarray) -> np.ndarray:
    """Those that no other beats, each once, in lexical order."""
    losses = np.unique(losses, axis=0)
    return losses[non_dominated(losses, [False] * losses.shape[1])]


def _upper_bounds(front: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L17's algorithm 2.

    Args:
        front: `(n, objectives)` in lexical order.
        reference: `(objectives,)`.

    Returns:
        `(bounds, objectives)` upper bounds of what is not beaten, and for each the
        `(objectives, objectives)` points that define it.
    """
    count = len(reference)
    skipped = np.eye(count, dtype=bool)
    bounds, defining = reference[None], np.full((1, count, count), -np.inf)
    defining[0][skipped] = reference
    skipped[:, 0] = True  # the front is sorted by it
    for point in front:
        beaten = (point < bounds).all(axis=1)
        if not beaten.any():
            continue
        old = defining[beaten]
        # A bound gives way to one for each objective in which the point is beyond the others'.
        which, objective = np.nonzero(point >= np.where(skipped, -np.inf, old).max(axis=1))
        each = np.arange(len(which))
        points, ends = old[which], bounds[beaten][which]
        points[each, objective] = point
        ends[each, objective] = point[objective]
        bounds = np.concatenate([bounds[~beaten], ends])
        defining = np.concatenate([defining[~beaten], points])
    return bounds, defining
