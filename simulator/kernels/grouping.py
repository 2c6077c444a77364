"""From the keys of sub-vectors to numbered clusters and their representatives."""

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """The clusters of one GEMM; arrays are those of `SharedRows` without their first axis.

    Attributes:
        ids: `(s, m)` int32, numbered from 0 in each (sub-matrix, group) in stream order.
        clusters: `(s, groups)` int32, clusters of each.
        signatures: `(total clusters,)` uint64, in the order (sub-matrix, group, id).
        representatives: `(total clusters, L)` float32 in that order, zero beyond a short
            sub-vector.
        scales: `(s, m)` float32 by which each sub-vector's share of the result is multiplied, or
            `None` for 1.
    """

    ids: np.ndarray
    clusters: np.ndarray
    signatures: np.ndarray
    representatives: np.ndarray
    scales: np.ndarray | None = None


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays one behind the other; no copy of a single one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays along a new first axis; no copy of a single one."""
    return joined([each[None] for each in parts])


def group_equal(
    keys: np.ndarray, columns: np.ndarray, length: int, groups: int, representative: str
) -> Clusters:
    """Sub-vectors of one (sub-matrix, group) with equal keys form a cluster.

    Args:
        keys: `(s, m)` uint64.
        columns: `(k, m)` float32, C-contiguous.
        length: sub-vector length L.
        groups: runs of rows that are clustered apart; divides m.
        representative: `centroid` or `first`.
    """
    sub_matrices, m = keys.shape
    ids = np.empty((sub_matrices, m), np.int32)
    clusters = np.empty((sub_matrices, groups), np.int32)
    signatures = []
    rows = m // groups
    for j in range(sub_matrices):
        for group in range(groups):
            part = slice(group * rows, (group + 1) * rows)
            distinct, first, inverse = np.unique(
                keys[j, part], return_index=True, return_inverse=True
            )
            seen = np.argsort(first)  # distinct keys in the order in which they appear
            number = np.empty(len(seen), np.int32)
            number[seen] = np.arange(len(seen))
            ids[j, part] = number[inverse]
            clusters[j, group] = len(seen)
            signatures.append(distinct[seen])
    return Clusters(
        ids=ids,
        clusters=clusters,
        signatures=np.concatenate(signatures),
        representatives=represent(columns, length, ids, clusters, representative),
    )


def represent(
    columns: np.ndarray, length: int, ids: np.ndarray, clusters: np.ndarray, representative: str
) -> np.ndarray:
    """`(total clusters, L)` float32: the mean of each cluster, or the first row seen."""
    found = np.zeros((int(clusters.sum(dtype=np.int64)), length), np.float32)
    _represent(columns, length, ids, clusters, representative == "first", found)
    return found


@njit(cache=True, nogil=True)
def _represent(columns, length, ids, clusters, first_only, found):
    """Fill `found`, zeros before, cluster by cluster in the order (sub-matrix, group, id)."""
    k, m = columns.shape
    groups = clusters.shape[1]
    rows = m // groups
    sizes = np.zeros(found.shape[0], np.int64)
    start = 0
    for j in range(ids.shape[0]):
        first = j * length
        last = min(first + length, k)
        for group in range(groups):
            for row in range(group * rows, (group + 1) * rows):
                cluster = start + ids[j, row]
                sizes[cluster] += 1
                if first_only and sizes[cluster] > 1:
                    continue
                for column in range(first, last):
                    found[cluster, column - first] += columns[column, row]
            start += clusters[j, group]
    if not first_only:
        for cluster in range(start):
            scale = np.float32(1.0) / np.float32(sizes[cluster])
            for offset in range(length):
                found[cluster, offset] *= scale
