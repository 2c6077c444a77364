"""Compiled loops of the table that keeps a stream's clusters; hardware's cache shares some."""

import numpy as np
from numba import njit

# Multiplier and increment of a 64-bit linear congruential generator (Knuth, MMIX): the random
# replacement.
LCG_MULTIPLIER = 6364136223846793005
LCG_INCREMENT = 1442695040888963407
# Odd 64-bit constant nearest 2^64 / golden ratio (Knuth, TAOCP 3, 6.4): spreads signatures.
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Primitive polynomials over GF(2) of degree 1, 2, ... 24, after one of degree 0; bit i is x^i's.
POLYNOMIALS = (
    0x1, 0x3, 0x7, 0xB, 0x13, 0x25, 0x43, 0x83, 0x11D, 0x211, 0x409, 0x805, 0x1053, 0x201B, 0x4443,
    0x8003, 0x1100B, 0x20009, 0x40081, 0x80027, 0x100009, 0x200005, 0x400003, 0x800021, 0x1000087,
)  # fmt: skip
_POLYNOMIALS = np.array(POLYNOMIALS, np.uint64)


@njit(cache=True, nogil=True)
def set_index(signature, sets):
    """The set in which a cache keeps a signature; the hardware's cache and the table's.

    For 2^b sets, the remainder of the signature by a polynomial of degree b over GF(2), in which
    each bit of the set is the XOR of some of the signature's; else the remainder of the numbers.
    The b low bits alone take few values: few hyperplanes part short sub-vectors. The bits above
    them still tell the members of a set apart, so tags are no longer. After Gonzalez et al.,
    "Eliminating cache conflict misses through XOR-based placement functions", ICS 1997.
    """
    sets = np.uint64(sets)
    one = np.uint64(1)
    mask = sets - one
    if sets & mask:
        return np.int64(signature % sets)
    bits = np.uint64(0)
    while sets >> bits > one:
        bits += one
    index = signature & mask
    polynomial = _POLYNOMIALS[bits]
    power = polynomial ^ sets  # x^b's remainder, then those of higher powers
    above = signature >> bits if bits else np.uint64(0)
    while above:
        if above & one:
            index ^= power
        power <<= one
        if power & sets:
            power ^= polynomial
        above >>= one
    return np.int64(index)


@njit(cache=True, nogil=True)
def random_way(random, ways):
    """Any way of a full set, from the 31 highest bits of the next state."""
    random[0] = random[0] * np.uint64(LCG_MULTIPLIER) + np.uint64(LCG_INCREMENT)
    return np.int64((random[0] >> np.uint64(33)) % np.uint64(ways))


@njit(cache=True, nogil=True)
def _probe(slots, pool_signatures, signature):
    """The slot that holds a signature, or the free one for it: open addressing."""
    mask = np.uint64(slots.size - 1)
    slot = ((signature * _MIX) >> np.uint64(32)) & mask  # the product's high bits are mixed best
    while slots[slot] >= 0 and pool_signatures[slots[slot]] != signature:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@njit(cache=True, nogil=True)
def enter(slots, pool_signatures, old):
    """Enter the clusters of earlier batches into a table without end."""
    for cluster in range(old):
        slots[_probe(slots, pool_signatures, pool_signatures[cluster])] = cluster


@njit(cache=True, nogil=True)
def _entry(slots, pool_signatures, stamps, signature, sets, ways, replacement, random):
    """The entry of a set that holds a signature, else a free one, else the one to be replaced; -1
    where none is."""
    first = set_index(signature, sets) * ways
    for entry in range(first, first + ways):
        if slots[entry] < 0 or pool_signatures[slots[entry]] == signature:
            return entry
    if replacement == 2:
        return first + random_way(random, ways)
    if replacement == 3:
        return np.int64(-1)
    leaving = first
    for entry in range(first + 1, first + ways):
        if stamps[slots[entry]] < stamps[slots[leaving]]:
            leaving = entry
    return leaving


@njit(cache=True, nogil=True)
def look_up(
    signatures, old, slots, pool_signatures, uses, stamps, number, used, ids, sets, ways,
    replacement, refresh_after, warming, clock, random,
):  # fmt: skip
    """Algorithm 1 of Deep Reuse, line 6 on, with a table that may forget.

    Args:
        signatures: `(m,)` uint64, in stream order.
        old: clusters of earlier batches, the first of the pool.
        slots: in and out, cluster of each slot or entry, -1 for none.
        pool_signatures: in and out, `(pool,)` uint64; the pool has room for m more clusters.
        uses: in and out, `(pool,)` int64.
        stamps: in and out, `(pool,)` int64.
        number: out, `(pool,)` int32, -1 on entry: the cluster's number in this batch.
        used: out, `(m,)` int64, the pool's cluster for each number.
        ids: out, `(m,)` int32, number of each row's cluster.
        sets: of the table.
        ways: of a set; 0 for a table without end.
        replacement: index into `REPLACEMENTS`.
        refresh_after: uses after which a cluster is stale.
        warming: whether clusters of earlier batches are stale.
        clock: accesses before this batch.
        random: in and out, `(1,)` uint64.

    Returns:
        Clusters used in this batch.
    """
    pool, found = old, 0
    for row in range(signatures.size):
        signature = signatures[row]
        if ways:
            slot = _entry(
                slots, pool_signatures, stamps, signature, sets, ways, replacement, random
            )
        else:
            slot = _probe(slots, pool_signatures, signature)
        cluster = slots[slot] if slot >= 0 else np.int64(-1)
        known = cluster >= 0 and pool_signatures[cluster] == signature
        if not known or uses[cluster] >= refresh_after or (warming and cluster < old):
            # A refreshed cluster stays where it stands in the order of insertion.
            stamps[pool] = stamps[cluster] if known else clock + row
            cluster = pool
            pool += 1
            if slot >= 0:
                slots[slot] = cluster
            pool_signatures[cluster] = signature
        uses[cluster] += 1
        if replacement == 0:
            stamps[cluster] = clock + row
        if number[cluster] < 0:
            number[cluster] = found
            used[found] = cluster
            found += 1
        ids[row] = number[cluster]
    return found


@njit(cache=True, nogil=True)
def keep_first(signatures, order, bounds, sets, ways, ids, clusters, firsts, kept):
    """Number the clusters of every tile of one view, as a table that replaces nothing finds them.

    The table is empty at the start of a tile. A signature that it holds has that entry's cluster;
    another is a new cluster, which takes an entry while its set has one free.

    Args:
        signatures: `(p,)` uint64.
        order: `(vectors,)` int64, the vectors tile after tile.
        bounds: `(tiles + 1,)` int64, each tile's first of them.
        sets: of the table.
        ways: of a set.
        ids: out, `(p,)` int32.
        clusters: out, `(tiles,)` int32.
        firsts: out, `(vectors,)` int64, the first vector of each cluster.
        kept: out, `(vectors,)` bool, clusters that took an entry.

    Returns:
        Clusters of all tiles.
    """
    entries = np.empty(sets * ways, np.int64)  # cluster of each
    tags = np.empty(sets * ways, np.uint64)
    held = np.empty(sets, np.int64)
    total = 0
    for tile in range(bounds.size - 1):
        held[:] = 0
        start = total
        for place in range(bounds[tile], bounds[tile + 1]):
            vector = order[place]
            signature = signatures[vector]
            chosen = set_index(signature, sets)
            first = chosen * ways
            found = -1
            for entry in range(first, first + held[chosen]):
                if tags[entry] == signature:
                    found = entries[entry]
                    break
            if found < 0:
                found = total
                firsts[total] = vector
                kept[total] = held[chosen] < ways
                if kept[total]:
                    entries[first + held[chosen]] = total
                    tags[first + held[chosen]] = signature
                    held[chosen] += 1
                total += 1
            ids[vector] = found - start
        clusters[tile] = total - start
    return total


@njit(cache=True, nogil=True)
def average_fresh(columns, ids, fresh, representatives):
    """Write the mean of the rows of every fresh cluster.

    Args:
        columns: `(L or fewer, m)` float32, the sub-matrix, column by column.
        ids: `(m,)` int32, cluster of each row.
        fresh: `(clusters,)` bool.
        representatives: out, `(clusters, L)` float32, zero where fresh.
    """
    sizes = np.zeros(fresh.size, np.int64)
    for row in range(ids.size):
        sizes[ids[row]] += 1
    sums = np.empty(fresh.size, np.float32)
    for column in range(columns.shape[0]):
        sums[:] = np.float32(0.0)
        values = columns[column]
        for row in range(ids.size):
            sums[ids[row]] += values[row]
        for cluster in range(fresh.size):
            if fresh[cluster]:
                scale = np.float32(1.0) / np.float32(sizes[cluster])
                representatives[cluster, column] = sums[cluster] * scale
