"""Compiled loops that cluster vectors within tiles of any shape, and hand results to many taps."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from simulator.kernels.grouping import Clusters
from simulator.kernels.hashing import (
    Tables,
    hash_rows,
    lane_thresholds,
    lane_weights,
    new_tables,
    number_clusters,
)
from simulator.kernels.lanes import LANES, aligned_empty, gather_narrow, gather_wide, padded

# Rows of output that are gathered for together.
_GATHER_BLOCK = 64


@njit(cache=True, nogil=True)
def _number_tiles(signatures, order, bounds, tables, generation, ids, clusters, names):
    """Number the clusters of every tile; `names` is filled with their signatures.

    Returns:
        The generation reached, and the clusters of all tiles.
    """
    largest = 0
    for tile in range(bounds.size - 1):
        largest = max(largest, bounds[tile + 1] - bounds[tile])
    own, numbers = np.empty(largest, np.uint64), np.empty(largest, np.int32)
    total = 0
    for tile in range(bounds.size - 1):
        first, last = bounds[tile], bounds[tile + 1]
        for place in range(first, last):
            own[place - first] = signatures[order[place]]
        generation += 1
        found = number_clusters(own, last - first, tables, 0, generation, 0, numbers, 0)
        for place in range(first, last):
            ids[order[place]] = numbers[place - first]
        for cluster in range(found):
            names[total + cluster] = tables.signatures[cluster]
        clusters[tile] = found
        total += found
    return generation, total


@njit(cache=True, nogil=True)
def mean_in_tiles(columns, channels, order, bounds, ids, clusters, first_only, found):
    """Fill `found` with the mean, or the first, of each cluster of one view.

    Args:
        columns: `(c, p)` float32, the vectors' elements.
        channels: `(L or fewer,)` int64, which of them a vector has.
        order: `(vectors,)` int64, the vectors tile after tile.
        bounds: `(tiles + 1,)` int64, each tile's first of them.
        ids: `(p,)` int32.
        clusters: `(tiles,)` int32.
        first_only: whether the first member stands for a cluster.
        found: out, `(clusters of all tiles, L)` float32, zeros before.
    """
    most = np.int64(0)
    for tile in range(clusters.size):
        most = max(most, np.int64(clusters[tile]))
    sizes = np.empty(most, np.float32)
    sums = np.empty(most, np.float32)
    start = 0
    for tile in range(clusters.size):
        count = clusters[tile]
        sizes[:count] = np.float32(0.0)
        for place in range(bounds[tile], bounds[tile + 1]):
            sizes[ids[order[place]]] += np.float32(1.0)
        for element in range(channels.size):
            values = columns[channels[element]]
            sums[:count] = np.float32(0.0)
            if first_only:
                for place in range(bounds[tile + 1] - 1, bounds[tile] - 1, -1):
                    sums[ids[order[place]]] = values[order[place]]
            else:
                for place in range(bounds[tile], bounds[tile + 1]):
                    sums[ids[order[place]]] += values[order[place]]
                for cluster in range(count):
                    sums[cluster] *= np.float32(1.0) / sizes[cluster]
            for cluster in range(count):
                found[start + cluster, element] = sums[cluster]
        start += count


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
    signatures = np.empty(positions, np.uint64)
    names, found = [], []
    largest = max(1, *(int(np.diff(bounds).max()) for _, _, bounds in kinds))
    tables: Tables = new_tables(1, largest, hashes)
    generation, view = 0, 0
    for columns, order, bounds in kinds:
        for channels in orders:
            hash_rows(
                columns, channels, 0, channels.size, padded(length), weights, limits[view],
                signatures,
            )  # fmt: skip
            own = np.empty(order.size, np.uint64)
            generation, total = _number_tiles(
                signatures, order, bounds, tables, generation, ids[view], clusters[view], own
            )
            means = np.zeros((total, length), np.float32)
            mean_in_tiles(
                columns, channels, order, bounds, ids[view], clusters[view], first_only, means
            )
            names.append(own[:total])
            found.append(means)
            view += 1
    return Clusters(
        ids=ids,
        clusters=clusters,
        signatures=np.concatenate(names),
        representatives=np.concatenate(found),
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
