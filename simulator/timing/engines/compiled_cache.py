"""Replaying a layer's signatures on a finite, set-associative, banked centroid cache."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from accelerators import REPLACEMENTS, CentroidCache
from simulator.decisions.box import Decisions
from simulator.decisions.rows import SharedRows
from simulator.kernels.tables import random_way, set_index

# Later than any cycle.
_NEVER = 2**62
# Where a cluster is that is in no way of its set.
_UNSEEN, _EVICTED = -1, -2
# A bank's number, below 64, and a mark beside it: the cluster's set overflows. The numbers of a
# group, added up, stay below the mark.
_BANK, _CROWDED = 63, 2**40


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
    decisions: Decisions,
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
    (`fifo`) longest ago, by the cycle in which that happened; or, of `none`, what was just accessed
    itself. An access to a cluster written back
    before refills it, which holds the bank for `miss_cycles` more. Decisions do not change: the
    backing store keeps every cluster, so a small cache costs time and energy, never accuracy.

    Args:
        decisions: the layer's.
        cache: the cache.
        vectors_per_group: `(v,)` int64, signatures that the front-end makes at once.
        cycles_per_group: `(v,)` int64, how often.
    """
    sets = cache.entries // cache.ways
    shared, looks = decisions.shared, decisions.shared.looks
    clusters = shared.clusters.reshape(-1)
    starts = np.zeros(clusters.size + 1, np.int64)
    np.cumsum(clusters, out=starts[1:])
    found = np.zeros((4, clusters.size), np.int64)
    _replay(
        streamed(shared), np.concatenate([[0], np.cumsum(looks.vectors)]), starts,
        decisions.signatures.values, vectors_per_group, cycles_per_group, sets, cache.ways,
        cache.banks, cache.update_cycles, cache.pipelined,
        REPLACEMENTS.index(cache.replacement), cache.miss_cycles, found,
    )  # fmt: skip
    cycles, waiting, refills, evictions = found.reshape(4, *shared.clusters.shape)
    return CacheReplay(cycles=cycles, waiting_cycles=waiting, refills=refills, evictions=evictions)


def streamed(shared: SharedRows) -> np.ndarray:
    """`(count, vectors)` int32, the clusters of each GEMM's vectors as they come: view after view,
    and of each tile after tile."""
    looks = shared.looks
    if looks.tile_of is None:
        return shared.ids.reshape(len(shared.ids), -1)
    orders = [order for order, _ in looks.orders for _ in range(looks.segments)]
    return np.stack(
        [
            np.concatenate([ids[order] for ids, order in zip(of_gemm, orders, strict=True)])
            for of_gemm in shared.ids
        ]
    )


@njit(cache=True, nogil=True)
def _replay(
    ids, bounds, starts, signatures, vectors_per_group, cycles_per_group, sets, ways, banks,
    update_cycles, pipelined, replacement, miss_cycles, found,
):  # fmt: skip
    """Fill `found`: cycles, waiting cycles, refills, evictions of every segment (tile)."""
    segments = bounds.size - 1  # of a GEMM
    tiles = segments // vectors_per_group.size
    rows = 1
    for segment in range(segments):
        rows = max(rows, bounds[segment + 1] - bounds[segment])
    occupancy = np.zeros(sets, np.int64)
    held_by = np.empty((sets, ways), np.int64)
    used = np.empty((sets, ways), np.int64)
    set_of = np.empty(rows, np.int64)
    bank_of = np.empty(rows, np.int64)
    way_of = np.empty(rows, np.int64)
    cluster_free = np.zeros(rows, np.int64)
    bank_free = np.zeros(banks, np.int64)
    asked = np.zeros(banks, np.int64)
    waiting = np.empty(vectors_per_group.max(), np.int64)
    random = np.ones(1, np.uint64)
    for segment in range(starts.size - 1):
        first, last = starts[segment], starts[segment + 1]
        place = segment % segments
        size, interval = vectors_per_group[place // tiles], cycles_per_group[place // tiles]
        fits = _place(signatures[first:last], ways, banks, set_of, bank_of, occupancy)
        stream = ids[segment // segments, bounds[place] : bounds[place + 1]]
        if stream.size == 0:
            continue
        if fits and update_cycles == 0:
            if size == 1 or banks == 1:
                # One at a time: groups follow each other by their arrival or their size.
                full = (stream.size - 1) // size  # groups before the last
                end = interval - 1 + full * max(interval, size) + stream.size - full * size
                idle = end - stream.size
            else:
                _, end, idle = _flow(stream, 0, size, interval, 0, bank_of, asked)
            found[0, segment], found[1, segment] = end, idle
            continue
        occupancy[:] = 0
        bank_free[:] = 0
        way_of[: last - first] = _UNSEEN
        cluster_free[: last - first] = 0
        random[0] = 1
        found[0, segment], found[1, segment] = _dispatch(
            stream, size, interval, update_cycles, pipelined, replacement, miss_cycles, set_of,
            bank_of, way_of, occupancy, held_by, used, random, cluster_free, bank_free, asked,
            waiting, found[2:, segment],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _place(signatures, ways, banks, set_of, bank_of, occupancy):
    """Fill in each cluster's set (`set_index`) and bank; whether no set overflows.

    Leaves `occupancy` used. A bank's number is marked `_CROWDED` where the cluster's set overflows:
    only there does it matter what was evicted.
    """
    sets = np.uint64(occupancy.size)
    # Divisions take long; most tables have a power of two of sets, and then of banks, which divide
    # them.
    is_power = sets & (sets - np.uint64(1)) == 0
    occupancy[:] = 0
    fullest = 0
    for cluster in range(signatures.size):
        signature = signatures[cluster]
        chosen = set_index(signature, sets)
        set_of[cluster] = chosen
        bank_of[cluster] = chosen & (banks - 1) if is_power else chosen % banks
        occupancy[chosen] += 1
        fullest = max(fullest, occupancy[chosen])
    if fullest > ways:
        for cluster in range(signatures.size):
            if occupancy[set_of[cluster]] > ways:
                bank_of[cluster] |= _CROWDED
    return fullest <= ways


@njit(cache=True, nogil=True)
def _dispatch(
    stream, size, interval, update_cycles, pipelined, replacement, miss_cycles, set_of, bank_of,
    way_of, occupancy, held_by, used, random, cluster_free, bank_free, asked, waiting, counts,
):  # fmt: skip
    """Cycles, and waiting ones, of any tile; counts refills and evictions in `counts`."""
    begin = now = end = waited = 0
    all_free = 0  # when all banks are
    while begin < stream.size:
        arrival = (begin // size + 1) * interval - 1
        if update_cycles == 0 and all_free <= max(now, arrival):
            begin, now, idle = _flow(stream, begin, size, interval, now, bank_of, asked)
            waited += idle
            end = max(end, now)
            arrival = (begin // size + 1) * interval - 1
        if begin < stream.size and arrival > now:
            waited += arrival - now
            now = arrival
        left = min(size, stream.size - begin)
        for offset in range(left):
            waiting[offset] = stream[begin + offset]
        while left > 0:
            soonest = _NEVER
            kept = 0
            for offset in range(left):
                cluster = waiting[offset]
                bank = bank_of[cluster] & _BANK
                free = bank_free[bank]
                if pipelined:
                    free = max(free, cluster_free[cluster])
                if free > now:
                    soonest = min(soonest, free)
                    waiting[kept] = cluster
                    kept += 1
                    continue
                held = 1
                if bank_of[cluster] & _CROWDED:
                    if way_of[cluster] < 0:
                        held += miss_cycles * _enter(
                            cluster, set_of[cluster], now, replacement, way_of, occupancy,
                            held_by, used, random, counts,
                        )  # fmt: skip
                    elif replacement == 0:
                        # A bank takes one access a cycle: no two ages in a set are alike.
                        used[set_of[cluster], way_of[cluster]] = now
                done = now + held + update_cycles
                cluster_free[cluster] = done
                bank_free[bank] = now + held if pipelined else done
                all_free = max(all_free, bank_free[bank])
                end = max(end, done)
            left = kept
            now = max(now + 1, soonest) if left > 0 else now + 1
        begin += size
    return end, waited


@njit(cache=True, nogil=True)
def _flow(stream, begin, size, interval, now, bank_of, asked):
    """Take groups as long as every bank is free again in the next cycle; none is held at first.

    A group then takes as many cycles as it has signatures for the bank that it asks most.

    Returns:
        The place of the first group with a cluster of a crowded set; cycles until it is looked at;
        how many of them since the first group nothing was there to be taken.
    """
    first = now
    busy = most = asked_banks = 0
    arrival = (begin // size + 1) * interval - 1
    last = min(begin + size, stream.size) - 1
    # One loop over all signatures: groups are often too short for a loop of their own.
    for i in range(begin, stream.size):
        bank = bank_of[np.uint64(stream[i])]
        asked_banks += bank
        if asked.size > 2:
            asked[bank & _BANK] += 1
            most = max(most, asked[bank & _BANK])
        if i == last:
            if asked.size > 2:
                for taken in range(begin, i + 1):
                    asked[bank_of[stream[taken]] & _BANK] = 0
            else:
                most = max(asked_banks, i + 1 - begin - asked_banks)
            if asked_banks >= _CROWDED:
                break
            now = max(now, arrival) + most
            busy += most
            arrival += interval
            begin = i + 1
            last = min(begin + size, stream.size) - 1
            most = asked_banks = 0
    return begin, now, now - first - busy


@njit(cache=True, nogil=True)
def _enter(
    cluster, chosen, now, replacement, way_of, occupancy, held_by, used, random, counts
):  # fmt: skip
    """Put a cluster into a way of set `chosen` at cycle `now`; whether it had been evicted.

    Counts a refill in `counts[0]` and an eviction in `counts[1]`.
    """
    refilled = way_of[cluster] == _EVICTED
    counts[0] += refilled
    ways = used.shape[1]
    place = occupancy[chosen]
    if place < ways:
        occupancy[chosen] += 1
    else:
        counts[1] += 1
        if replacement == 3:  # it is written back itself
            way_of[cluster] = _EVICTED
            return refilled
        place = 0
        if replacement == 2:
            place = random_way(random, ways)
        else:
            for way in range(1, ways):
                if used[chosen, way] < used[chosen, place]:
                    place = way
        way_of[held_by[chosen, place]] = _EVICTED
    held_by[chosen, place] = cluster
    way_of[cluster] = place
    used[chosen, place] = now
    return refilled
