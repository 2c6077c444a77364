"""Compiled loops that cluster a feature map where it lies and add up its results on the way."""

import time
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from simulator.kernels.gathering import gather_add, make_whole, multiply, result_rows
from simulator.kernels.hashing import accumulate, average, number_clusters, project, sign
from simulator.kernels.lanes import LANES, aligned_empty, padded, transpose_lanes

MAP_BLOCK = 512
# Columns that are multiplied and gathered at a time: the results stay in the second-level cache.
RESULT_COLUMNS = 64
_MONOTONIC = time.CLOCK_MONOTONIC
# Its type is that of a declaration, not of a call.
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


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
def _close_group(
    tables, first, last, group, found, flat_sums, capacity, width, bases, names, rows, reached,
    clusters,
):  # fmt: skip
    """Average the clusters that a family's tables found in a group, and write them down."""
    target = flat_sums.ctypes.data
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
        tables: `Tables`, as many as a family has, which all families take in turn.
        generation: of the tables, so far.
        scratch: `map_scratch`; the caller's, as Numba frees arrays known by their address alone.
        sums: out, `(t or more, capacity, L padded)` float32, see `feature_maps.Clustered`.
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
    signatures, found = np.empty(MAP_BLOCK, np.uint64), np.zeros(len(rows), np.int64)
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
                        count = (end - top) * columns
                        origin = image * places.image_step + top * places.row_step + left
                        _line_up(
                            source, origin, end - top, places.row_step, columns, offsets,
                            family * width, width, segments,
                        )  # fmt: skip
                        project(segments, count, width, lengths[family], weights, projected)
                        for table in range(first, last):
                            y = max(0, top - shifts[table])
                            size = (min(places.height, end - shifts[table]) - y) * columns
                            if size <= 0:
                                continue
                            skip = (y + shifts[table] - top) * columns
                            place = (image * places.height + y) * places.width + left
                            place += rows[table] * m
                            sign(projected, skip, size, bits, limits, table * bits, signatures)
                            start = (table * capacity + bases[table]) * width
                            after = number_clusters(
                                signatures, size, tables, table - first, generation, found[table],
                                flat_ids, place,
                            )  # fmt: skip
                            for x in range(start + found[table] * width, start + after * width):
                                flat_sums[x] = np.float32(0.0)
                            accumulate(segments, skip, size, flat_ids, place, target, start, width)
                            found[table] = after
            _close_group(
                tables, first, last, group, found, flat_sums, capacity, width, bases, names, rows,
                reached, clusters,
            )  # fmt: skip
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
        offsets, bounds, total = result_rows(clusters, first, last)
        totals = bases - origins
        if product.whole:
            make_whole(sums, origins, totals, product.factors)
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
