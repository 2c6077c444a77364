"""How far rows lie from what stands for them: the input error of deep reuse."""

import numpy as np
from numba import njit

from simulator.decisions.box import Decisions


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def squared_distances(columns, order, clusters, representatives):
    """Sum of squared distances of the sub-vectors of one sub-matrix to their representatives.

    Args:
        columns: `(k, m)` float32.
        order: `(L or fewer,)` int64, the columns that the sub-matrix is cut from.
        clusters: `(m,)` int64, row in `representatives` of each one's; -1 for zeros, which stand
            for themselves.
        representatives: `(clusters, L)` float32.
    """
    total = 0.0
    for place in range(order.size):
        values, of_cluster = columns[order[place]], representatives[:, place]
        partial = np.float64(0.0)
        for row in range(clusters.size):
            if clusters[row] >= 0:
                # In doubles: the difference of near equals keeps all its digits.
                distance = np.float64(values[row]) - np.float64(of_cluster[clusters[row]])
                partial += distance * distance
        total += partial
    return total


def centroid_error(decisions: Decisions, rows: np.ndarray) -> float:
    """Err_c of a layer (Deep Reuse, section IV): sum of ||x - representative of x||^2.

    Taken directly, not as sum x^2 - sum |c| ||c||^2: that cancels where clusters are tight, and
    holds only for means. A pixel that is looked at once counts for each row and tap that meet it.

    Args:
        decisions: with their centroids.
        rows: `(count, m, k)` float32 activations that they were made on.

    Returns:
        The sum over all GEMMs, rows and sub-vectors.

    Raises:
        ValueError: the centroids were dropped.
    """
    shared, looks = decisions.shared, decisions.shared.looks
    if shared.centroids is None:
        raise ValueError(f"decisions of layer {decisions.layer!r} hold no centroids any more")
    order = shared.column_order
    places = np.arange(decisions.gemm.k) if order is None else order
    widths = looks.widths[looks.view_of]
    total = 0.0
    for i in range(decisions.gemm.count):
        columns = np.ascontiguousarray(rows[i].T, dtype=np.float32)
        for j, (first, width) in enumerate(zip(looks.firsts, widths, strict=True)):
            total += squared_distances(
                columns, places[first : first + width], shared.clusters_met(i, j), shared.centroids
            )
    return total
