"""Compiled loops that hash sub-vectors, number their clusters and average them.

`cluster_rows` reads unfolded activations column by column, `(k, m)` with the rows of one column
contiguous; `simulator.kernels.fused` reads them where they lie in a feature map, and shares all
that comes after. Functions here take and return plain arrays; their meaning is given in
`simulator.decisions`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from simulator.kernels.lanes import (
    LANES,
    add_lanes,
    aligned_empty,
    bits_above,
    padded,
    project_four,
    scale_lanes,
)

# Rows hashed at a time, in fours: a block's sums and sub-vectors stay in the first-level cache.
ROW_BLOCK = 512
# Odd 64-bit constant nearest 2^64 / golden ratio (Knuth, TAOCP 3, 6.4): spreads signatures.
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Signatures of up to so many bits index the table themselves; its 2 MB are touched sparsely.
_DIRECT_BITS = 16
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Tables(NamedTuple):
    """Clusters found so far in several (sub-matrix, group) pairs, each with its own row.

    Attributes:
        slots: flat `(tables, 2^slot_bits)` uint64: generation, then cluster in the low 32 bits. A
            slot of another generation than the current one is empty, so that nothing is ever
            cleared.
        signatures: flat `(tables, largest)` uint64, of each cluster.
        sizes: flat `(tables, largest)` int32, sub-vectors in each cluster.
        largest: clusters that a table has room for.
        slot_bits: log2 of the slots.
        direct: whether a signature is its own slot; else it is spread and probed.
    """

    slots: np.ndarray
    signatures: np.ndarray
    sizes: np.ndarray
    largest: int
    slot_bits: int
    direct: bool


def new_tables(tables: int, rows: int, hashes: int) -> Tables:
    """Empty tables for groups of `rows` rows; generations start at 1."""
    direct = hashes <= _DIRECT_BITS
    slot_bits = hashes if direct else max(1, (2 * rows - 1).bit_length())
    largest = min(rows, 2**hashes)
    return Tables(
        slots=np.zeros(tables << slot_bits, np.uint64),
        signatures=np.empty(tables * largest, np.uint64),
        sizes=np.empty(tables * largest, np.int32),
        largest=largest,
        slot_bits=slot_bits,
        direct=direct,
    )


@njit(cache=True, nogil=True)
def number_clusters(found_signatures, count, tables, table, generation, found, ids, first):
    """Give `count` sub-vectors the numbers of their clusters, new ones in order of appearance.

    Args:
        found_signatures: `(count or more,)` uint64.
        count: sub-vectors.
        tables: `Tables`.
        table: which of them.
        generation: of the current group.
        found: clusters before.
        ids: out, flat int32.
        first: where in `ids` to start.

    Returns:
        Clusters after.
    """
    slots, signatures, sizes = tables.slots, tables.signatures, tables.sizes
    base = np.uint64(table) << np.uint64(tables.slot_bits)
    mask = np.uint64((1 << tables.slot_bits) - 1)
    shift = np.uint64(64 - tables.slot_bits)
    members = np.uint64(table * tables.largest)
    current = np.uint64(generation)
    place = np.uint64(first)
    if tables.direct:
        # Without a branch, which a new cluster at every third sub-vector would mislead.
        for row in range(count):
            signature = found_signatures[row]
            entry = slots[base + signature]
            known = (entry >> _HALF) == current
            cluster = (entry & _LOW) if known else np.uint64(found)
            size = sizes[members + cluster] if known else np.int32(0)
            found += np.int64(not known)
            slots[base + signature] = (current << _HALF) | cluster
            signatures[members + cluster] = signature
            sizes[members + cluster] = size + np.int32(1)
            ids[place + np.uint64(row)] = np.int32(cluster)
        return found
    for row in range(count):
        signature = found_signatures[row]
        slot = base + ((signature * _MIX) >> shift)
        entry = slots[slot]
        while (entry >> _HALF) == current and (signatures[members + (entry & _LOW)] != signature):
            slot = base + ((slot + np.uint64(1)) & mask)
            entry = slots[slot]
        cluster = entry & _LOW
        if (entry >> _HALF) == current:
            sizes[members + cluster] += np.int32(1)
        else:
            cluster = np.uint64(found)
            found += 1
            slots[slot] = (current << _HALF) | cluster
            signatures[members + cluster] = signature
            sizes[members + cluster] = np.int32(1)
        ids[place + np.uint64(row)] = np.int32(cluster)
    return found


@njit(cache=True, nogil=True)
def accumulate(segments, skip, count, ids, first, sums, at, width):
    """Add `count` sub-vectors to the sums of their clusters.

    Args:
        segments: address of `(rows, width)` float32 sub-vectors.
        skip: rows to leave out before the first one.
        count: sub-vectors.
        ids: flat int32, their clusters.
        first: where in `ids` to start.
        sums: address of the sums.
        at: offset of cluster 0 in them.
        width: L padded to whole vectors.
    """
    place = np.uint64(first)
    # Two rows at a time from far apart: neighbours often share a cluster, and would wait for each
    # other's sum.
    half = count // 2
    for row in range(half):
        one = at + np.int64(ids[place + np.uint64(row)]) * width
        two = at + np.int64(ids[place + np.uint64(row + half)]) * width
        for lane in range(0, width, LANES):
            add_lanes(sums, one + lane, segments, (skip + row) * width + lane)
            add_lanes(sums, two + lane, segments, (skip + half + row) * width + lane)
    if count % 2:
        target = at + np.int64(ids[place + np.uint64(count - 1)]) * width
        for lane in range(0, width, LANES):
            add_lanes(sums, target + lane, segments, (skip + count - 1) * width + lane)


@njit(cache=True, nogil=True)
def average(tables, table, found, sums, at, width):
    """Divide the sums of `found` clusters by their sizes.

    Args:
        tables: `Tables`.
        table: which of them.
        found: clusters.
        sums: address of the sums.
        at: offset of cluster 0 in them.
        width: L padded to whole vectors.
    """
    first = np.uint64(table * tables.largest)
    for cluster in range(found):
        scale = np.float32(1.0) / np.float32(tables.sizes[first + np.uint64(cluster)])
        for lane in range(0, width, LANES):
            scale_lanes(sums, at + cluster * width + lane, scale)


@njit(cache=True, nogil=True)
def project(segments, count, width, length, weights, sums):
    """Project `count` sub-vectors on every hyperplane; up to three rows more are written."""
    bits = weights.shape[1]
    for row in range(0, count, 4):
        for h in range(0, bits, LANES):
            project_four(
                sums, row * bits + h, bits, segments, row * width, width, length,
                weights.ctypes.data, h, bits,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def sign(sums, skip, count, bits, thresholds, first, signatures):
    """Signatures of `count` sub-vectors from their projections.

    Bit h of a signature is 1 where projection h of the sub-vector exceeds its threshold
    (Deep Reuse, equation 1, with the mean folded into the threshold).
    """
    for row in range(count):
        signatures[row] = bits_above(sums, (skip + row) * bits, thresholds, first)
    for h in range(LANES, bits, LANES):
        for row in range(count):
            above = bits_above(sums, (skip + row) * bits + h, thresholds, first + h)
            signatures[row] |= above << np.uint64(h)


@njit(cache=True, nogil=True)
def _transpose_block(columns, order, first, last, start, size, width, segments):
    """Copy `size` rows of columns `order[first:last]` to `(rows, width)`."""
    for column in range(first, last):
        values = columns[order[column], start : start + size]
        place = np.uint64(column - first)
        for row in range(size):
            segments[place] = values[row]
            place += np.uint64(width)


@njit(cache=True, nogil=True)
def _cluster_rows(
    columns, order, length, groups, weights, thresholds, tables, ids, clusters, names, sums
):  # fmt: skip
    k, m = columns.shape
    rows = m // groups
    bits, width = weights.shape[1], sums.shape[1]
    projected = np.empty(ROW_BLOCK * bits, np.float32)
    segments = np.empty(ROW_BLOCK * width, np.float32)
    signatures = np.empty(ROW_BLOCK, np.uint64)
    flat_ids = ids.ravel()
    generation, total = 0, 0
    for j in range(ids.shape[0]):
        first, last = j * length, min((j + 1) * length, k)
        segments[:] = np.float32(0.0)  # beyond a short sub-vector they stay so
        for group in range(groups):
            generation += 1
            found = 0
            for start in range(group * rows, (group + 1) * rows, ROW_BLOCK):
                size = min(ROW_BLOCK, (group + 1) * rows - start)
                _transpose_block(columns, order, first, last, start, size, width, segments)
                project(segments.ctypes.data, size, width, length, weights, projected.ctypes.data)
                sign(
                    projected.ctypes.data, 0, size, bits, thresholds.ctypes.data, j * bits,
                    signatures,
                )  # fmt: skip
                before, place = found, j * m + start
                found = number_clusters(
                    signatures, size, tables, 0, generation, found, flat_ids, place
                )
                sums[total + before : total + found] = np.float32(0.0)
                accumulate(
                    segments.ctypes.data, 0, size, flat_ids, place,
                    sums.ctypes.data, total * width, width,
                )  # fmt: skip
            average(tables, 0, found, sums.ctypes.data, total * width, width)
            names[total : total + found] = tables.signatures[:found]
            clusters[j, group] = found
            total += found
    return total


@njit(cache=True, nogil=True)
def hash_rows(columns, order, first, last, width, weights, thresholds, signatures):
    """Write the `(m,)` signatures of the sub-matrix of columns `order[first:last]`.

    Args:
        columns: `(k, m)` float32.
        order: `(k,)` int64, the column at each place.
        first: first column.
        last: one past the last.
        width: a sub-vector's length, padded.
        weights: `lane_weights` of the hyperplanes.
        thresholds: `lane_thresholds` of the sub-matrix, `(H padded,)`.
        signatures: out, `(m,)` uint64.
    """
    bits = weights.shape[1]
    projected = np.empty(ROW_BLOCK * bits, np.float32)
    segments = np.zeros(ROW_BLOCK * width, np.float32)
    for start in range(0, signatures.size, ROW_BLOCK):
        size = min(ROW_BLOCK, signatures.size - start)
        _transpose_block(columns, order, first, last, start, size, width, segments)
        project(segments.ctypes.data, size, width, weights.shape[0], weights, projected.ctypes.data)
        sign(
            projected.ctypes.data, 0, size, bits, thresholds.ctypes.data, 0,
            signatures[start : start + size],
        )  # fmt: skip


def lane_weights(projections: np.ndarray) -> np.ndarray:
    """`(H, L)` hyperplanes as the kernels read them: `(L, H padded)`."""
    hashes, length = projections.shape
    weights = np.zeros((length, padded(hashes)), np.float32)
    weights[:, :hashes] = projections.T
    return weights


def lane_thresholds(thresholds: np.ndarray) -> np.ndarray:
    """`(..., H)` thresholds with infinite ones beyond H, which nothing exceeds."""
    hashes = thresholds.shape[-1]
    wide = np.full((*thresholds.shape[:-1], padded(hashes)), np.inf, np.float32)
    wide[..., :hashes] = thresholds
    return wide


def cluster_rows(columns, order, length, groups, projections, thresholds, ids, clusters):
    """Cluster every sub-matrix of one GEMM and average its clusters.

    Args:
        columns: `(k, m)` float32.
        order: `(k,)` int64, the column at each place of the rows that are cut.
        length: sub-vector length L.
        groups: row groups that are clustered apart; divides m.
        projections: `(H, L)` float32.
        thresholds: `(s, H)` float32.
        ids: out, `(s, m)` int32, cluster of each sub-vector, numbered from 0 in each group in
            the order in which the clusters are first seen.
        clusters: out, `(s, groups)` int32, number of clusters.

    Returns:
        `(total clusters,)` uint64 signatures, ordered (sub-matrix, group, id), and the clusters'
        `(total clusters, L)` float32 means.
    """
    rows, hashes = columns.shape[1] // groups, projections.shape[0]
    capacity = ids.shape[0] * groups * min(rows, 2**hashes)
    signatures = np.empty(capacity, np.uint64)
    sums = aligned_empty((capacity, padded(length)))
    total = _cluster_rows(
        columns, order, length, groups, lane_weights(projections), lane_thresholds(thresholds),
        new_tables(1, rows, hashes), ids, clusters, signatures, sums,
    )  # fmt: skip
    return signatures[:total].copy(), sums[:total, :length].copy()
