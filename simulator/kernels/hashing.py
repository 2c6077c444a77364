"""Compiled loops of deep reuse: hashing, clustering, accumulation and gathering.

Rows come in one of two forms, and share everything after hashing. `cluster_rows` reads unfolded
activations column by column, `(k, m)` with the rows of one column contiguous; `cluster_maps` reads
them where they lie in a feature map. Functions here take and return plain arrays; their
meaning is given in `decisions.Decisions`.
"""

import time
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from simulator.kernels.lanes import (
    LANES,
    add_lanes,
    aligned_empty,
    bits_above,
    gather_narrow,
    gather_wide,
    multiply_narrow,
    multiply_wide,
    padded,
    project_four,
    scale_lanes,
    transpose_lanes,
)

# Rows hashed at a time, in fours: a block's sums and sub-vectors stay in the first-level cache.
ROW_BLOCK = 512
MAP_BLOCK = 512
# Output rows that are gathered for together: where their results lie is found table by table.
GATHER_BLOCK = 64
# Odd 64-bit constant nearest 2^64 / golden ratio (Knuth, TAOCP 3, 6.4): spreads signatures.
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Signatures of up to so many bits index the table themselves; its 2 MB are touched sparsely.
_DIRECT_BITS = 16
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# Columns that are multiplied and gathered at a time: the results stay in the second-level cache.
RESULT_COLUMNS = 64
_MONOTONIC = time.CLOCK_MONOTONIC
# Its type is that of a declaration, not of a call.
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


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
def _project(segments, count, width, length, weights, sums):
    """Project `count` sub-vectors on every hyperplane; up to three rows more are written."""
    bits = weights.shape[1]
    for row in range(0, count, 4):
        for h in range(0, bits, LANES):
            project_four(
                sums, row * bits + h, bits, segments, row * width, width, length,
                weights.ctypes.data, h, bits,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _sign(sums, skip, count, bits, thresholds, first, signatures):
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
                _project(segments.ctypes.data, size, width, length, weights, projected.ctypes.data)
                _sign(
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
        _project(
            segments.ctypes.data, size, width, weights.shape[0], weights, projected.ctypes.data
        )
        _sign(
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


class Places(NamedTuple):
    """Output places of a convolution in a padded feature map, beside each other in memory.

    The element of a patch at offset o, at place (y, x) of an image, is the value at
    `image * image_step + y * row_step + x + o`.

    Attributes:
        images: images.
        height: places down.
        width: places across.
        image_step: floats from an image to the next.
        row_step: floats from a row of places to the one below.
    """

    images: int
    height: int
    width: int
    image_step: int
    row_step: int


class Families(NamedTuple):
    """Sub-matrices whose sub-vectors are the same values, some rows of places apart.

    Such are the kernel rows of a channel: what one meets at a place, the one above it meets at the
    place below. They are hashed once; a table clusters the sub-vectors of one sub-matrix.

    Attributes:
        offsets: `(families, L padded)` int64 of the elements of a sub-vector; the first one's in
            the padding.
        lengths: `(families,)` int64, elements; L, or fewer in the last sub-matrix.
        members: `(families + 1,)` int64, each one's first table.
        shifts: `(tables,)` int64, rows of places that a table lies below its family.
        numbers: `(tables,)` int64, the sub-matrix.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    members: np.ndarray
    shifts: np.ndarray
    numbers: np.ndarray


@njit(cache=True, nogil=True)
def _line_up(values, origin, rows, row_step, columns, offsets, first, width, segments):
    """Copy the sub-vectors of `rows` x `columns` places one behind the other.

    Up to 15 more are written behind each row, and then written over.
    """
    for lane in range(0, width, LANES):
        for row in range(rows):
            for column in range(0, columns, LANES):
                transpose_lanes(
                    segments, (row * columns + column) * width + lane, width,
                    values, origin + row * row_step + column, offsets, first + lane,
                )  # fmt: skip


@njit(cache=True, nogil=True)
def cluster_maps(
    values, places, families, groups, weights, thresholds, tables, generation, scratch, sums, bases,
    ids, names, rows, reached, clusters,
):  # fmt: skip
    """Cluster the sub-matrices of some families, in some groups, where they lie in a feature map.

    Args:
        values: flat float32, 16 more than the feature map's.
        places: `Places`.
        families: `Families`, of t tables.
        groups: first, one past the last, and images in each.
        weights: `(L, H padded)` float32 hyperplanes.
        thresholds: `(t, H padded)` float32, infinite in the padding.
        tables: `Tables`, as many as a family has; the next family takes the same, which are still
            in a cache.
        generation: of the tables, so far.
        scratch: `map_scratch`; not made here, because Numba frees an array of which only the
            address is left.
        sums: out, `(t or more, capacity, L padded)` float32, means of the clusters, group after
            group; beyond a sub-vector's length they hold no numbers of use.
        bases: in and out, `(t,)` int64, where to go on in `sums`.
        ids: out, `(any, m)` int32, as `cluster_rows` numbers them.
        names: out, `(any, any)` uint64, signatures of the clusters.
        rows: `(t,)` int64, the row of `ids` and `names` of each table.
        reached: in and out, `(t,)` int64, where to go on in `names`.
        clusters: out, `(t or more, all groups)` int32.

    Returns:
        The generation reached.
    """
    first_group, last_group, per_group = groups
    bits, (_, capacity, width) = weights.shape[1], sums.shape
    # Once here, not for every block: counting references takes longer than a small block.
    flat_ids, flat_sums, m = ids.ravel(), sums.ravel(), ids.shape[1]
    source, offsets = values.ctypes.data, families.offsets.ctypes.data
    limits, target = thresholds.ctypes.data, sums.ctypes.data
    shifts, lengths = families.shifts, families.lengths
    projected = scratch.ctypes.data
    segments = projected + (MAP_BLOCK + LANES) * bits * 4
    signatures = np.empty(MAP_BLOCK, np.uint64)
    found = np.zeros(len(rows), np.int64)
    step = min(places.width, MAP_BLOCK)
    block_rows = MAP_BLOCK // step if step == places.width else 1
    for family in range(len(families.lengths)):
        first, last = families.members[family], families.members[family + 1]
        bottom = places.height + shifts[last - 1]
        for group in range(first_group, last_group):
            generation += 1
            found[first:last] = 0
            for image in range(group * per_group, (group + 1) * per_group):
                for top in range(0, bottom, block_rows):
                    end = min(top + block_rows, bottom)
                    for left in range(0, places.width, step):
                        columns = min(step, places.width - left)
                        _line_up(
                            source, image * places.image_step + top * places.row_step + left,
                            end - top, places.row_step, columns, offsets, family * width, width,
                            segments,
                        )  # fmt: skip
                        _project(
                            segments, (end - top) * columns, width, lengths[family], weights,
                            projected,
                        )  # fmt: skip
                        for table in range(first, last):
                            y = max(0, top - shifts[table])
                            size = (min(places.height, end - shifts[table]) - y) * columns
                            if size <= 0:
                                continue
                            skip = (y + shifts[table] - top) * columns
                            place = (image * places.height + y) * places.width + left
                            place += rows[table] * m
                            _sign(projected, skip, size, bits, limits, table * bits, signatures)
                            before = found[table]
                            after = number_clusters(
                                signatures, size, tables, table - first, generation, before,
                                flat_ids, place,
                            )  # fmt: skip
                            start = (table * capacity + bases[table]) * width
                            for x in range(start + before * width, start + after * width):
                                flat_sums[x] = np.float32(0.0)
                            accumulate(segments, skip, size, flat_ids, place, target, start, width)
                            found[table] = after
            for table in range(first, last):
                at = (table * capacity + bases[table]) * width
                average(tables, table - first, found[table], target, at, width)
                own = names[rows[table], reached[table] : reached[table] + found[table]]
                known = np.uint64((table - first) * tables.largest)
                for cluster in range(found[table]):
                    own[cluster] = tables.signatures[known + np.uint64(cluster)]
                reached[table] += found[table]
                clusters[table, group] = found[table]
                bases[table] += found[table]
    return generation


def map_scratch(length: int, hashes: int) -> np.ndarray:
    """Room for the projections and the sub-vectors of a block."""
    return aligned_empty(((MAP_BLOCK + LANES) * (padded(hashes) + padded(length)),))


class Product(NamedTuple):
    """What the means are multiplied by, and what becomes of the results.

    Attributes:
        weights: `(k, n padded)` float32; of no columns if nothing is to be computed.
        firsts: `(t,)` int64, first row of each table in the weights.
        lengths: `(t,)` int64, elements of a table's sub-vectors.
        factors: the means that are multiplied: `sums` themselves, or room for whole ones.
        whole: whether to make them whole numbers.
        output: in and out, `(m, n padded)` float32.
    """

    weights: np.ndarray
    firsts: np.ndarray
    lengths: np.ndarray
    factors: np.ndarray
    whole: bool
    output: np.ndarray


@njit(cache=True, nogil=True)
def reuse_maps(
    values, places, families, groups, weights, thresholds, tables, generation, scratch, sums, ids,
    names, rows, clusters, keeps, product, seconds,
):  # fmt: skip
    """Cluster some sub-matrices, and add their means' results to the output.

    Some groups are taken at a time, and of them some columns.

    Args:
        values: see `cluster_maps`; likewise what is not named here.
        places: likewise.
        families: likewise.
        groups: how many, images in each, and groups that are taken together.
        weights: of the hyperplanes.
        thresholds: likewise.
        tables: likewise.
        generation: likewise.
        scratch: likewise.
        sums: likewise; with room for the clusters of all groups, or of those taken together.
        ids: likewise.
        names: likewise.
        rows: likewise.
        clusters: out, `(t, groups)` int32.
        keeps: whether the means of all groups are wanted.
        product: `Product`.
        seconds: in and out, `(3,)` float64: time spent on clusters, products and rebuilding.

    Returns:
        The generation reached, and whether the results were finite.
    """
    count, per_group, at_once = groups
    bases, reached = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    output, wide = product.output, product.weights.shape[1]
    of_group = ids.shape[1] // count
    results = np.empty(0, np.float32)
    clock = np.zeros(2, np.int64)
    finite = True
    start = _now(clock)
    for first in range(0, count, at_once):
        last = min(first + at_once, count)
        if not keeps:
            bases[:] = 0
        origins = bases.copy()
        generation = cluster_maps(
            values, places, families, (first, last, per_group), weights, thresholds, tables,
            generation, scratch, sums, bases, ids, names, rows, reached, clusters,
        )  # fmt: skip
        start = _lap(clock, start, seconds, 0)
        if wide == 0:
            continue
        offsets, bounds, total = _result_rows(clusters, first, last)
        totals = bases - origins
        if product.whole:
            _make_whole(sums, origins, totals, product.factors)
        if results.size < (total + 8) * RESULT_COLUMNS:
            results = np.empty((total + 8) * RESULT_COLUMNS, np.float32)
        for column in range(0, wide, RESULT_COLUMNS):
            columns = min(RESULT_COLUMNS, wide - column)
            part = results[: (total + 7) * columns].reshape(total + 7, columns)
            multiply(
                product.factors, origins, totals, product.lengths, product.firsts, product.weights,
                column, part, bounds,
            )  # fmt: skip
            if column == 0:
                for row in range(total):
                    finite &= np.isfinite(part[row, 0])
            start = _lap(clock, start, seconds, 1)
            rebuilt = output[first * of_group : last * of_group]
            gather_add(part, offsets, ids, rows, first * of_group, rebuilt, column)
            start = _lap(clock, start, seconds, 2)
    return generation, finite


@njit(cache=True, nogil=True)
def _now(clock):
    """Seconds of a clock that only goes forward; `clock` is `(2,)` int64."""
    _clock_gettime(_MONOTONIC, clock.ctypes.data)
    return clock[0] + clock[1] * 1e-9


@njit(cache=True, nogil=True)
def _lap(clock, start, seconds, step):
    """Add the time since `start` to a step's; the time now."""
    end = _now(clock)
    seconds[step] += end - start
    return end


@njit(cache=True, nogil=True)
def _result_rows(clusters, first, last):
    """First row among the results of each table in each group, of each table, and how many."""
    count = clusters.shape[0]
    offsets, bounds = np.empty((count, last - first), np.int64), np.empty(count, np.int64)
    total = 0
    for table in range(count):
        bounds[table] = total
        for group in range(first, last):
            offsets[table, group - first] = total
            total += clusters[table, group]
    return offsets, bounds, total


@njit(cache=True, nogil=True)
def _make_whole(sums, origins, totals, factors):
    """Round means to whole numbers, as an integer array gets them."""
    for table in range(len(totals)):
        for row in range(origins[table], origins[table] + totals[table]):
            for lane in range(sums.shape[2]):
                factors[table, row, lane] = np.rint(sums[table, row, lane])


@njit(cache=True, nogil=True)
def multiply(sums, origins, totals, lengths, firsts, weights, column, results, bounds):
    """Multiply the centroids of some sub-matrices by some columns of their weights.

    Args:
        sums: `(t or more, capacity, L padded)` float32; seven vectors more may be read.
        origins: `(t,)` int64, first row of each table in the sums.
        totals: `(t,)` int64, rows.
        lengths: `(t,)` int64, elements of a sub-vector.
        firsts: `(t,)` int64, first row of each table in the weights.
        weights: `(k, n padded)` float32.
        column: first of the columns.
        results: out, `(r, columns padded)` float32, with room for seven rows more than `bounds`
            asks.
        bounds: `(t,)` int64, first row of each table in the results.
    """
    _, capacity, width = sums.shape
    wide, columns = weights.shape[1], results.shape[1]
    whole = columns // (2 * LANES) * (2 * LANES)
    source, factors, target = sums.ctypes.data, weights.ctypes.data, results.ctypes.data
    for table in range(len(totals)):
        start = (table * capacity + origins[table]) * width
        first = firsts[table] * wide + column
        for row in range(0, totals[table], 8):
            at, own = (bounds[table] + row) * columns, start + row * width
            for x in range(0, whole, 2 * LANES):
                multiply_wide(
                    target, at + x, columns, source, own, width, lengths[table], factors, first + x,
                    wide,
                )  # fmt: skip
            if whole < columns:
                multiply_narrow(
                    target, at + whole, columns, source, own, width, lengths[table], factors,
                    first + whole, wide,
                )  # fmt: skip


@njit(cache=True, nogil=True)
def gather_add(results, offsets, ids, tables, first, output, column):
    """Add centroid results to the output rows that share them.

    Args:
        results: `(r, columns)` float32, centroid times weights.
        offsets: `(t, groups)` int64, first row in `results` of each sub-matrix and group.
        ids: `(any, any)` int32.
        tables: `(t,)` int64, the row of `ids` of each sub-matrix.
        first: column of `ids` of the first output row.
        output: in and out, `(m, n)` float32.
        column: of the output, to which the first column of the results is added.
    """
    (m, n), columns = output.shape, results.shape[1]
    whole, widest = columns // LANES * LANES, columns // (4 * LANES) * (4 * LANES)
    count = len(tables)
    rows = m // offsets.shape[1]
    flat = results.ravel()
    source, target = results.ctypes.data, output.ctypes.data
    starts = np.empty(GATHER_BLOCK * count, np.int64)
    places = starts.ctypes.data
    groups = np.empty(GATHER_BLOCK, np.int64)
    for begin in range(0, m, GATHER_BLOCK):
        size = min(GATHER_BLOCK, m - begin)
        for row in range(size):
            groups[row] = (begin + row) // rows
        for j in range(count):
            own, of_groups = ids[tables[j], first + begin : first + begin + size], offsets[j]
            for row in range(size):
                start = of_groups[groups[row]] + np.int64(own[row])
                starts[row * count + j] = start * columns
        for row in range(size):
            at, chosen = (begin + row) * n + column, row * count
            for x in range(0, widest, 4 * LANES):
                gather_wide(target, at + x, source, x, places, chosen, count)
            for x in range(widest, whole, LANES):
                gather_narrow(target, at + x, source, x, places, chosen, count)
            for x in range(whole, columns):
                for j in range(count):
                    output[begin + row, column + x] += flat[starts[chosen + j] + x]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def squared_sums(result, dense, bias):
    """Sums of (result - dense)^2 and (dense - bias)^2 of flat float32 arrays, in float64.

    In float64 the squares of large activations do not overflow.
    """
    error, power = 0.0, 0.0
    for place in range(len(dense)):
        exact = np.float64(dense[place])
        difference = np.float64(result[place]) - exact
        error += difference * difference
        without = exact - np.float64(bias[place])
        power += without * without
    return error, power
