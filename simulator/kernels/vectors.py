"""Compiled loops that cluster vectors within tiles of any shape, and hand results to many taps."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from simulator.kernels.grouping import Clusters
from simulator.kernels.hashing import (
    ROW_BLOCK,
    accumulate,
    average,
    lane_thresholds,
    lane_weights,
    new_tables,
    number_clusters,
    project,
    sign,
)
from simulator.kernels.lanes import (
    LANES,
    aligned_empty,
    gather_narrow,
    gather_wide,
    padded,
    transpose_lanes,
)

# Rows of output that are gathered for together.
_GATHER_BLOCK = 64


@njit(cache=True, nogil=True)
def _turned(columns, channels, places, segments, width):
    """Copy elements `channels` of the vectors at `places` to `(vectors, width)`."""
    length, p = channels.size, columns.shape[1]
    whole, offsets = length // LANES * LANES, channels * p
    source, starts, target = columns.ctypes.data, offsets.ctypes.data, segments.ctypes.data
    row = 0
    while row < places.size:
        place = places[row]
        # Mostly 16 vectors lie side by side.
        beside = row + LANES <= places.size and places[row + LANES - 1] == place + LANES - 1
        for first in range(0, whole if beside else 0, LANES):
            transpose_lanes(target, row * width + first, width, source, place, starts, first)
        last = row + (LANES if beside else 1)
        for element in range(whole if beside else 0, length):
            values = columns[channels[element]]
            for own in range(row, last):
                segments[own * width + element] = values[places[own]]
        row = last


@njit(cache=True, nogil=True)
def _cluster_view(
    columns, channels, order, bounds, weights, limits, tables, generation, first_only, ids,
    clusters, names, sums, start,
):  # fmt: skip
    """Cluster the vectors of one view tile by tile; see `cluster_vectors`.

    Args:
        columns: `(c, p)` float32, the vectors' elements, C-contiguous.
        channels: `(L or fewer,)` int64, which of them a vector has.
        order: `(vectors,)` int64, the vectors tile after tile; ascending within a tile.
        bounds: `(tiles + 1,)` int64, each tile's first of them.
        weights: `lane_weights` of the hyperplanes.
        limits: `lane_thresholds` of the view, `(H padded,)`.
        tables: `Tables`, one for the largest tile.
        generation: of the tile before.
        first_only: whether the first member stands for a cluster; else their mean.
        ids: out, `(p,)` int32.
        clusters: out, `(tiles,)` int32.
        names: out, `(clusters or more,)` uint64, their signatures.
        sums: out, `(clusters or more, L padded)` float32, what stands for them.
        start: the view's first cluster in both.

    Returns:
        The generation reached, and one past the view's last cluster.
    """
    bits, width = weights.shape[1], sums.shape[1]
    projected = np.empty(ROW_BLOCK * bits, np.float32)
    segments = np.zeros(ROW_BLOCK * width, np.float32)  # and so beyond a short vector
    signatures, numbers = np.empty(ROW_BLOCK, np.uint64), np.empty(ROW_BLOCK, np.int32)
    for tile in range(bounds.size - 1):
        generation += 1
        found = 0
        for begin in range(bounds[tile], bounds[tile + 1], ROW_BLOCK):
            places = order[begin : min(begin + ROW_BLOCK, bounds[tile + 1])]
            size, before = places.size, found
            _turned(columns, channels, places, segments, width)
            project(
                segments.ctypes.data, size, width, weights.shape[0], weights, projected.ctypes.data
            )
            sign(projected.ctypes.data, 0, size, bits, limits.ctypes.data, 0, signatures)
            found = number_clusters(signatures, size, tables, 0, generation, found, numbers, 0)
            for row in range(size):
                ids[places[row]] = numbers[row]
            if first_only:
                for row in range(size):
                    if numbers[row] == before:  # new ones are numbered one by one
                        own = segments[row * width : (row + 1) * width]
                        sums[start + before] = own
                        before += 1
                continue
            sums[start + before : start + found] = np.float32(0.0)
            accumulate(
                segments.ctypes.data, 0, size, numbers, 0, sums.ctypes.data, start * width, width
            )
        if not first_only:
            average(tables, 0, found, sums.ctypes.data, start * width, width)
        names[start : start + found] = tables.signatures[:found]
        clusters[tile] = found
        start += found
    return generation, start


def cluster_vectors(
    kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    orders: list[np.ndarray],
    hashing: tuple[np.ndarray, np.ndarray],
    *,
    tiles: int,
    first_only: bool,
) -> Clusters:
    """Cluster the vectors of every view of one GEMM by equal signatures, within tiles.

    Args:
        kinds: of each kind of taps its `(c, p)` float32 vectors, `(vectors,)` int64 vectors tile
            after tile and `(tiles + 1,)` int64 first ones.
        orders: of each segment the `(L or fewer,)` int64 elements of c that it is cut from.
        hashing: `(H, L)` float32 hyperplanes and `(v, H)` float32 thresholds.
        tiles: tiles.
        first_only: whether the first member stands for a cluster; else their mean.
    """
    projections, thresholds = hashing
    hashes, length = projections.shape
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    views, positions = len(kinds) * len(orders), kinds[0][0].shape[1]
    ids = np.full((views, positions), -1, np.int32)
    clusters = np.empty((views, tiles), np.int32)
    sizes = [np.diff(bounds) for _, _, bounds in kinds]
    most = [int(np.minimum(each, 2**hashes).sum()) for each in sizes]
    capacity = len(orders) * sum(most)
    names, sums = np.empty(capacity, np.uint64), aligned_empty((capacity, padded(length)))
    tables = new_tables(1, max(1, *(int(each.max()) for each in sizes)), hashes)
    generation, start, view = 0, 0, 0
    for columns, order, bounds in kinds:
        for channels in orders:
            generation, start = _cluster_view(
                columns, channels, order, bounds, weights, limits[view], tables, generation,
                first_only, ids[view], clusters[view], names, sums, start,
            )  # fmt: skip
            view += 1
    return Clusters(
        ids=ids,
        clusters=clusters,
        signatures=names[:start].copy(),
        representatives=sums[:start, :length].copy(),
    )


@njit(cache=True, nogil=True)
def stand_in(numbers, representatives, pixels):
    """Write what stands for each vector, zeros where nothing does.

    Args:
        numbers: `(p,)` int64, rows of `representatives`, -1 for none.
        representatives: `(clusters, L)` float32.
        pixels: out, `(p, L or fewer)` float32.
    """
    width = pixels.shape[1]
    for place in range(numbers.size):
        number, own = numbers[place], pixels[place]
        if number < 0:
            own[:] = np.float32(0.0)
        else:
            source = representatives[number]
            for element in range(width):
                own[element] = source[element]


@njit(cache=True, nogil=True)
def gather_taps(results, columns, numbers, kinds, places, output, column):
    """Add the results that rows take from each tap.

    Args:
        results: `(clusters + 1, taps x columns)` float32, the last row zeros.
        columns: of a tap.
        numbers: `(p,)` int64, the row of results of each vector, -1 for none.
        kinds: `(own taps,)` int64, the taps that meet these vectors.
        places: `(t, m)` int32, the vector that each tap meets at each row, -1 for zeros.
        output: in and out, `(m, n)` float32.
        column: of the output, to which the first column of a tap is added.
    """
    m, n = output.shape
    count, wide, none = kinds.size, results.shape[1], results.shape[0] - 1
    whole, widest = columns // LANES * LANES, columns // (4 * LANES) * (4 * LANES)
    flat = results.ravel()
    source, target = results.ctypes.data, output.ctypes.data
    starts = np.empty(_GATHER_BLOCK * count, np.int64)
    addresses = starts.ctypes.data
    for begin in range(0, m, _GATHER_BLOCK):
        size = min(_GATHER_BLOCK, m - begin)
        for j in range(count):
            met = places[kinds[j]]
            for row in range(size):
                place = met[begin + row]
                number = none if place < 0 else numbers[place]
                starts[row * count + j] = number * wide + j * columns
        for row in range(size):
            at, chosen = (begin + row) * n + column, row * count
            for x in range(0, widest, 4 * LANES):
                gather_wide(target, at + x, source, x, addresses, chosen, count)
            for x in range(widest, whole, LANES):
                gather_narrow(target, at + x, source, x, addresses, chosen, count)
            for x in range(whole, columns):
                for j in range(count):
                    output[begin + row, column + x] += flat[starts[chosen + j] + x]


def results_of(centroids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`(clusters + 1, columns)` float32 products, and a row of zeros.

    Args:
        centroids: `(clusters, L)` float32.
        weights: `(L, columns)` float32.
    """
    found = aligned_empty((len(centroids) + 1, weights.shape[1]))
    np.matmul(centroids, weights, out=found[:-1])
    found[-1] = 0
    return found
