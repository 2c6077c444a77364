"""Replaying a layer's signatures on a finite, set-associative centroid cache."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from accelerators import CentroidCache
from simulator.reuse.decisions import ReuseDecisions


@dataclass(frozen=True, kw_only=True)
class CacheReplay:
    """What the cache did, for each GEMM, sub-matrix and group.

    Attributes:
        refills: `(count, s, groups)` int64, accesses to a cluster that had been evicted: its
            running sum is fetched again.
        evictions: `(count, s, groups)` int64, running sums written back to make room.
    """

    refills: np.ndarray
    evictions: np.ndarray


def replay(decisions: ReuseDecisions, cache: CentroidCache) -> CacheReplay:
    """Send every signature through the cache, in stream order.

    The table is cleared before each sub-matrix and group. A cluster that is seen first takes an
    entry; where its set is full, the least recently used entry is written back. An access to a
    cluster written back before refills it. Decisions do not change: the backing store keeps every
    cluster, so a small cache costs time and energy, never accuracy.
    """
    sets = cache.entries // cache.ways
    count, sub_matrices, _ = decisions.ids.shape
    clusters = decisions.clusters.reshape(-1)
    starts = np.zeros(clusters.size + 1, np.int64)
    np.cumsum(clusters, out=starts[1:])
    refills = np.zeros(clusters.size, np.int64)
    evictions = np.zeros(clusters.size, np.int64)
    _replay(
        decisions.ids.reshape(count * sub_matrices, -1), starts, decisions.signatures,
        decisions.groups, sets, cache.ways, refills, evictions,
    )  # fmt: skip
    shape = decisions.clusters.shape
    return CacheReplay(refills=refills.reshape(shape), evictions=evictions.reshape(shape))


@njit(cache=True, nogil=True)
def _replay(ids, starts, signatures, groups, sets, ways, refills, evictions):
    """Fill `refills` and `evictions`; a segment is one sub-matrix and group."""
    rows = ids.shape[1] // groups
    occupancy = np.zeros(sets, np.int64)
    tags = np.empty((sets, ways), np.int64)
    used = np.empty((sets, ways), np.int64)
    seen = np.zeros(rows, np.bool_)
    for segment in range(refills.size):
        first, last = starts[segment], starts[segment + 1]
        occupancy[:] = 0
        fits = True
        for each in range(first, last):
            chosen = np.int64(signatures[each] % np.uint64(sets))
            occupancy[chosen] += 1
            if occupancy[chosen] > ways:
                fits = False
                break
        if fits:  # no set overflows, so nothing is ever evicted
            continue
        occupancy[:] = 0
        seen[: last - first] = False
        begin = (segment % groups) * rows
        stream = ids[segment // groups]
        for row in range(begin, begin + rows):
            cluster = np.int64(stream[row])
            chosen = np.int64(signatures[first + cluster] % np.uint64(sets))
            filled = occupancy[chosen]
            way = -1
            for candidate in range(filled):
                if tags[chosen, candidate] == cluster:
                    way = candidate
                    break
            if way < 0:
                if seen[cluster]:
                    refills[segment] += 1
                seen[cluster] = True
                if filled < ways:
                    way = filled
                    occupancy[chosen] += 1
                else:
                    way = 0
                    for candidate in range(1, ways):
                        if used[chosen, candidate] < used[chosen, way]:
                            way = candidate
                    evictions[segment] += 1
                tags[chosen, way] = cluster
            used[chosen, way] = row
