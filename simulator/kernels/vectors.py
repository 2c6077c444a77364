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
def _lie_side_by_side(places, first):
    """Whether 16 vectors from `first` on do, as most do; places ascend."""
    last = first + LANES - 1
    return last < places.size and places[last] == places[first] + LANES - 1


@njit(cache=True, nogil=True)
def take(values, elements, places, vectors, width):
    """Copy the elements of the vectors at `places` to `(vectors, width)`."""
    length, whole = elements.size, elements.size // LANES * LANES
    source, offsets, target = values.ctypes.data, elements.ctypes.data, vectors.ctypes.data
    row = 0
    while row < places.size:
        beside = _lie_side_by_side(places, row)
        for first in range(0, whole if beside else 0, LANES):
            transpose_lanes(target, row * width + first, width, source, places[row], offsets, first)
        last = row + (LANES if beside else 1)
        for element in range(whole if beside else 0, length):
            for own in range(row, last):
                vectors[own * width + element] = values[places[own] + elements[element]]
        row = last


@njit(cache=True, nogil=True)
def stand_in(ids, firsts, representatives, length, order, bounds, places, step, values):
    """Write what stands for each vector of a view to where the vector lies.

    Args:
        ids: `(p,)` int32, the cluster of each vector in its tile.
        firsts: `(tiles,)` int64, of each tile the first row in `representatives`.
        representatives: `(clusters, L)` float32.
        length: elements of a vector, L or fewer.
        order: `(vectors,)` int64, the vectors tile after tile.
        bounds: `(tiles + 1,)` int64, each tile's first of them.
        places: `(vectors,)` int64, where the first element of each of them lies in `values`:
            ascending in a tile.
        step: from an element of a vector to the next.
        values: out, flat float32.
    """
    whole, flat = length // LANES * LANES, representatives.ravel()
    starts = np.empty(order.size, np.int64)
    source, target, addresses = flat.ctypes.data, values.ctypes.data, starts.ctypes.data
    for tile in range(firsts.size):
        end = bounds[tile + 1]
        for vector in range(bounds[tile], end):
            starts[vector] = (firsts[tile] + ids[order[vector]]) * representatives.shape[1]
        vector = bounds[tile]
        while vector < end:
            beside = _lie_side_by_side(places[:end], vector)
            for first in range(0, whole if beside else 0, LANES):
                at = places[vector] + first * step
                transpose_lanes(target, at, step, source, first, addresses, vector)
            last = min(vector + LANES, end)
            for element in range(whole if beside else 0, length):
                for own in range(vector, last):  # in few lines of memory, if not beside each other
                    values[places[own] + element * step] = flat[starts[own] + element]
            vector = last


@njit(cache=True, nogil=True)
def _cluster_view(
    values, elements, places, order, bounds, weights, limits, tables, generation, first_only, ids,
    clusters, names, sums, start,
):  # fmt: skip
    """Cluster the vectors of one view tile by tile; see `cluster_vectors`.

    Args:
        values: flat float32.
        elements: `(L or fewer,)` int64, where the elements of a vector lie from its place on.
        places: `(vectors,)` int64, where they lie in `values`, in this order: ascending in a tile.
        order: `(vectors,)` int64, the vectors tile after tile.
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
            end = min(begin + ROW_BLOCK, bounds[tile + 1])
            size, before = end - begin, found
            take(values, elements, places[begin:end], segments, width)
            project(
                segments.ctypes.data, size, width, weights.shape[0], weights, projected.ctypes.data
            )
            sign(projected.ctypes.data, 0, size, bits, limits.ctypes.data, 0, signatures)
            found = number_clusters(signatures, size, tables, 0, generation, found, numbers, 0)
            for row in range(size):
                ids[order[begin + row]] = numbers[row]
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
    kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    positions: int,
    elements: np.ndarray,
    hashing: tuple[np.ndarray, np.ndarray],
    *,
    first_only: bool,
) -> Clusters:
    """Cluster the vectors of every view of one GEMM by equal signatures, within tiles.

    Args:
        kinds: of each kind of taps the flat float32 values that its vectors lie in, their
            `(vectors,)` int64 places there, the `(vectors,)` int64 vectors tile after tile, and
            `(tiles + 1,)` int64 first ones.
        positions: p, that may hold a vector.
        elements: `(c,)` int64, where the elements of a vector lie from its place on; segments are
            cut from them.
        hashing: `(H, L)` float32 hyperplanes and `(v, H)` float32 thresholds.
        first_only: whether the first member stands for a cluster; else their mean.
    """
    projections, thresholds = hashing
    hashes, length = projections.shape
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    cuts = [elements[first : first + length] for first in range(0, elements.size, length)]
    sizes = np.array([np.diff(bounds) for *_, bounds in kinds])
    ids = np.full((len(kinds) * len(cuts), positions), -1, np.int32)
    clusters = np.empty((len(ids), sizes.shape[1]), np.int32)
    capacity = len(cuts) * int(np.minimum(sizes, 2**hashes).sum())
    names, sums = np.empty(capacity, np.uint64), aligned_empty((capacity, padded(length)))
    tables = new_tables(1, max(1, int(sizes.max())), hashes)
    generation, start, view = 0, 0, 0
    for values, places, order, bounds in kinds:
        for own in cuts:
            generation, start = _cluster_view(
                values, own, places, order, bounds, weights, limits[view], tables, generation,
                first_only, ids[view], clusters[view], names, sums, start,
            )  # fmt: skip
            view += 1
    return Clusters(
        ids=ids,
        clusters=clusters,
        signatures=names[:start].copy(),
        representatives=np.ascontiguousarray(sums[:start, :length]),
    )


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
