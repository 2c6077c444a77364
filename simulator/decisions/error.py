"""How far rows lie from what stands for them: the input error of deep reuse."""

import numpy as np
from numba import njit

from simulator.decisions.box import Decisions


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def squared_distances(columns, length, ids, firsts, representatives):
    """Sum of squared distances of all sub-vectors of one GEMM to their representatives.

    Args:
        columns: `(k, m)` float32.
        length: sub-vector length L.
        ids: `(s, m)` int32, cluster of each sub-vector in its (sub-matrix, group).
        firsts: `(s, groups)` int64, row in `representatives` of each one's cluster 0.
        representatives: `(clusters, L)` float32.
    """
    k, m = columns.shape
    rows = m // firsts.shape[1]
    total = 0.0
    for j in range(ids.shape[0]):
        for group in range(firsts.shape[1]):
            begin = group * rows
            own = ids[j, begin : begin + rows]
            for column in range(j * length, min((j + 1) * length, k)):
                values = columns[column, begin : begin + rows]
                of_cluster = representatives[firsts[j, group] :, column - j * length]
                partial = np.float64(0.0)
                for row in range(rows):
                    # In doubles: the difference of near equals keeps all its digits.
                    distance = np.float64(values[row]) - np.float64(of_cluster[own[row]])
                    partial += distance * distance
                total += partial
    return total


def centroid_error(decisions: Decisions, rows: np.ndarray) -> float:
    """Err_c of a layer (Deep Reuse, section IV): sum of ||x - representative of x||^2.

    Taken directly, not as sum x^2 - sum |c| ||c||^2: that cancels where clusters are tight, and
    holds only for means.

    Args:
        decisions: with their centroids.
        rows: `(count, m, k)` float32 activations that they were made on.

    Returns:
        The sum over all GEMMs, rows and sub-vectors.

    Raises:
        ValueError: the centroids were dropped.
    """
    if decisions.shared.centroids is None:
        raise ValueError(f"decisions of layer {decisions.layer!r} hold no centroids any more")
    ends = np.cumsum(decisions.shared.clusters.ravel(), dtype=np.int64)
    firsts = (ends - decisions.shared.clusters.ravel()).reshape(decisions.shared.clusters.shape)
    return sum(
        squared_distances(
            np.ascontiguousarray(rows[i].T, dtype=np.float32),
            decisions.shared.sub_vector_length,
            decisions.shared.ids[i],
            firsts[i],
            decisions.shared.centroids,
        )
        for i in range(decisions.gemm.count)
    )
