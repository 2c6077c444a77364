"""Replaying a layer's signatures on a finite, set-associative, banked centroid cache."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from accelerators import REPLACEMENTS, CentroidCache
from simulator.reuse.decisions import ReuseDecisions
from simulator.reuse.stream import random_way, set_index

# Later than any cycle.
_NEVER = 2**62


@dataclass(frozen=True, kw_only=True)
class CacheReplay:
    """What the cache did, `(count, s, groups)` int64 each: a GEMM's sub-matrix and group.

    Attributes:
        cycles: from the first signature until the last access is done.
        waiting_cycles: of those, cycles in which no signature was there to be taken.
        refills: accesses to a cluster that had been evicted: its running sum is fetched again.
        evictions: running sums written back to make room.
    """

    cycles: np.ndarray
    waiting_cycles: np.ndarray
    refills: np.ndarray
    evictions: np.ndarray


def replay(
    decisions: ReuseDecisions,
    cache: CentroidCache,
    *,
    vectors_per_group: np.ndarray,
    cycles_per_group: np.ndarray,
) -> CacheReplay:
    """Send every signature through the cache, in stream order.

    Signatures arrive in groups, one group every `cycles_per_group`: group g of 0, 1, ... can be
    taken from cycle `(g + 1) * cycles_per_group - 1` on. In each cycle, those of the
    group that find their bank free are taken, in order; the next group waits until all are taken,
    in a queue that is never full.
    An access holds its bank for one cycle, or for `1 + update_cycles` if the bank is not pipelined;
    a pipelined bank makes only another access to the same cluster wait for the update.

    The table starts empty for each sub-matrix and group. A cluster that is seen first takes an
    entry; where its set is full, an entry is written back: the one accessed (`lru`) or taken
    (`fifo`) longest ago, by the cycle in which that happened. An access to a cluster written back
    before refills it, which holds the bank for `miss_cycles` more. Decisions do not change: the
    backing store keeps every cluster, so a small cache costs time and energy, never accuracy.

    Args:
        decisions: the layer's.
        cache: the cache.
        vectors_per_group: `(s,)` int64, signatures that the front-end makes at once.
        cycles_per_group: `(s,)` int64, how often.
    """
    sets = cache.entries // cache.ways
    count, sub_matrices, _ = decisions.ids.shape
    clusters = decisions.clusters.reshape(-1)
    starts = np.zeros(clusters.size + 1, np.int64)
    np.cumsum(clusters, out=starts[1:])
    found = np.zeros((4, clusters.size), np.int64)
    _replay(
        decisions.ids.reshape(count * sub_matrices, -1), starts, decisions.signatures,
        decisions.groups, vectors_per_group, cycles_per_group, sets, cache.ways, cache.banks,
        cache.update_cycles, cache.pipelined, REPLACEMENTS.index(cache.replacement),
        cache.miss_cycles, found,
    )  # fmt: skip
    cycles, waiting, refills, evictions = found.reshape(4, *decisions.clusters.shape)
    return CacheReplay(cycles=cycles, waiting_cycles=waiting, refills=refills, evictions=evictions)


@njit(cache=True, nogil=True)
def _enter(cluster, chosen, now, replacement, seen, occupancy, tags, used, random, counts):
    """Let an access at cycle `now` into set `chosen`; whether the cluster had been evicted.

    Counts a refill in `counts[0]` and an eviction in `counts[1]`.
    """
    filled, ways = occupancy[chosen], tags.shape[1]
    for way in range(filled):
        if tags[chosen, way] == cluster:
            if replacement == 0:
                # A bank takes one access a cycle, so no two ages in a set are alike.
                used[chosen, way] = now
            return False
    refilled = seen[cluster]
    seen[cluster] = True
    counts[0] += refilled
    place = filled
    if filled < ways:
        occupancy[chosen] += 1
    else:
        counts[1] += 1
        place = 0
        if replacement == 2:
            place = random_way(random, ways)
        else:
            for way in range(1, ways):
                if used[chosen, way] < used[chosen, place]:
                    place = way
    tags[chosen, place] = cluster
    used[chosen, place] = now
    return refilled


@njit(cache=True, nogil=True)
def _replay(
    ids, starts, signatures, groups, vectors_per_group, cycles_per_group, sets, ways, banks,
    update_cycles, pipelined, replacement, miss_cycles, found,
):  # fmt: skip
    """Fill `found`: cycles, waiting cycles, refills, evictions of every segment (tile)."""
    rows = ids.shape[1] // groups
    sub_matrices = vectors_per_group.size
    occupancy = np.zeros(sets, np.int64)
    tags = np.empty((sets, ways), np.int64)
    used = np.empty((sets, ways), np.int64)
    seen = np.zeros(rows, np.bool_)
    set_of = np.empty(rows, np.int64)
    cluster_free = np.zeros(rows, np.int64)
    bank_free = np.zeros(banks, np.int64)
    taken = np.zeros(vectors_per_group.max(), np.bool_)
    random = np.ones(1, np.uint64)  # started anew for each tile so that engines and runs agree
    for segment in range(starts.size - 1):
        first, last = starts[segment], starts[segment + 1]
        row_of_ids = segment // groups
        j = row_of_ids % sub_matrices
        size, interval = vectors_per_group[j], cycles_per_group[j]
        occupancy[:] = 0
        fits = True
        for each in range(last - first):
            set_of[each] = set_index(signatures[first + each], sets)
            occupancy[set_of[each]] += 1
            fits = fits and occupancy[set_of[each]] <= ways
        stream = ids[row_of_ids, (segment % groups) * rows : (segment % groups + 1) * rows]
        if fits and update_cycles == 0 and size == 1:
            # One signature at a time, and every bank is free again in the next cycle.
            found[0, segment] = rows * interval
            found[1, segment] = rows * (interval - 1)
            continue
        occupancy[:] = 0
        bank_free[:] = 0
        seen[: last - first] = False
        cluster_free[: last - first] = 0
        random[0] = 1
        now = 0
        end = 0
        for begin in range(0, rows, size):
            arrival = (begin // size + 1) * interval - 1
            if arrival > now:
                found[1, segment] += arrival - now
                now = arrival
            taken[:size] = False
            left = min(size, rows - begin)
            while left > 0:
                soonest = _NEVER
                for offset in range(min(size, rows - begin)):
                    if taken[offset]:
                        continue
                    cluster = np.int64(stream[begin + offset])
                    chosen = set_of[cluster]
                    bank = chosen % banks
                    free = bank_free[bank]
                    if pipelined:
                        free = max(free, cluster_free[cluster])
                    if free > now:
                        soonest = min(soonest, free)
                        continue
                    taken[offset] = True
                    left -= 1
                    held = np.int64(1)
                    if not fits and _enter(
                        cluster, chosen, now, replacement, seen, occupancy, tags, used, random,
                        found[2:, segment],
                    ):  # fmt: skip
                        held += miss_cycles
                    done = now + held + update_cycles
                    cluster_free[cluster] = done
                    bank_free[bank] = now + held if pipelined else done
                    end = max(end, done)
                if left > 0:
                    now = max(now + 1, soonest)
            now += 1
        found[0, segment] = end
