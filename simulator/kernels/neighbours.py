"""Compiled loops that point each vector to the most similar of its earlier neighbours."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from simulator.kernels.grouping import Clusters

# Vectors that are compared together, while their elements are in a near cache.
_CHUNK = 512


@njit(cache=True, nogil=True)
def _squares(columns, channels, found):
    """Fill `found` with the squared lengths of vectors."""
    found[:] = np.float32(0.0)
    for element in range(channels.size):
        values = columns[channels[element]]
        for place in range(found.size):
            found[place] += values[place] * values[place]


@njit(cache=True, nogil=True)
def _dots(columns, channels, shift, first, last, found):
    """Fill `found` with the products of vectors `first` to `last` and those `shift` before."""
    found[:] = np.float32(0.0)
    for element in range(channels.size):
        values = columns[channels[element]]
        now, before = values[first:last], values[first - shift : last - shift]
        for place in range(now.size):
            found[place] += now[place] * before[place]


@njit(cache=True, nogil=True)
def point_to_roots(columns, channels, shifts, pairs, threshold, length_ratio, roots):
    """Fill `roots` with the vector that each one's pointers end at, itself where it has none.

    A vector points to the neighbour of greatest cosine, the earliest of several, among those whose
    cosine is at least `threshold` and whose length is at least `length_ratio` of its own, or its
    own of theirs. Two vectors of zeros are equal; one of zeros is like no other. What is not finite
    points nowhere.

    Args:
        columns: `(c, p)` float32, the vectors' elements.
        channels: `(L or fewer,)` int64, which of them a vector has.
        shifts: `(o,)` int64, places from each neighbour to the vector, descending, 1 or more.
        pairs: `(o, p)` bool, whether a vector is compared with that neighbour.
        threshold: 0 to 1.
        length_ratio: 0 to 1.
        roots: out, `(p,)` int64.
    """
    positions = roots.size
    squares = np.empty(positions, np.float32)
    _squares(columns, channels, squares)
    least, shortest = threshold * threshold, length_ratio * length_ratio
    dots = np.empty((shifts.size, _CHUNK), np.float32)
    for begin in range(0, positions, _CHUNK):
        end = min(begin + _CHUNK, positions)
        for number in range(shifts.size):
            first = max(begin, shifts[number])
            if first < end:
                own = dots[number, first - begin : end - begin]
                _dots(columns, channels, shifts[number], first, end, own)
        for place in range(begin, end):
            root, highest = place, -1.0
            length = np.float64(squares[place])
            for number in range(shifts.size):
                if not pairs[number, place]:
                    continue
                before = place - shifts[number]
                other = np.float64(squares[before])
                if length == 0.0 or other == 0.0:
                    if length == other and highest < 0.0:
                        root, highest = roots[before], 1.0
                    continue
                dot = np.float64(dots[number, place - begin])
                similar = dot >= 0.0 and dot * dot >= least * length * other
                if not (similar and min(length, other) >= shortest * max(length, other)):
                    continue
                if dot * dot / other > highest:
                    root, highest = roots[before], dot * dot / other
            roots[place] = root


@njit(cache=True, nogil=True)
def _number_roots(roots, order, bounds, ids, clusters, names):
    """Number the clusters of every tile; `names` is filled with their roots.

    Returns:
        The clusters of all tiles.
    """
    total = 0
    for tile in range(bounds.size - 1):
        count = 0
        for place in range(bounds[tile], bounds[tile + 1]):
            vector = order[place]
            root = roots[vector]
            if root == vector:
                ids[vector] = count
                names[total + count] = root
                count += 1
            else:
                ids[vector] = ids[root]
        clusters[tile] = count
        total += count
    return total


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


def cluster_neighbours(
    kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    segments: Sequence[np.ndarray],
    neighbours: tuple[np.ndarray, np.ndarray],
    *,
    length: int,
    threshold: float,
    length_ratio: float,
    first_only: bool,
) -> Clusters:
    """Cluster the vectors of every view of one GEMM by what they point to, within tiles.

    Args:
        kinds: of each kind of taps its `(c, p)` float32 vectors, `(vectors,)` int64 vectors tile
            after tile and `(tiles + 1,)` int64 first ones.
        segments: of each the `(L or fewer,)` int64 elements of c that it is cut from.
        neighbours: `(o,)` int64 shifts and `(u, o, p)` bool pairs of each kind, as for
            `point_to_roots`; both vectors of a pair are in one tile.
        length: L.
        threshold: as for `point_to_roots`.
        length_ratio: likewise.
        first_only: whether the first member stands for a cluster; else their mean.

    Returns:
        Clusters whose signatures are the places of their first members.
    """
    shifts, pairs = neighbours
    positions, tiles = kinds[0][0].shape[1], kinds[0][2].size - 1
    ids = np.full((len(kinds) * len(segments), positions), -1, np.int32)
    clusters = np.empty((len(ids), tiles), np.int32)
    roots = np.empty(positions, np.int64)
    names, found, view = [], [], 0
    for (columns, order, bounds), own in zip(kinds, pairs, strict=True):
        for channels in segments:
            point_to_roots(columns, channels, shifts, own, threshold, length_ratio, roots)
            firsts = np.empty(order.size, np.uint64)
            total = _number_roots(roots, order, bounds, ids[view], clusters[view], firsts)
            means = np.zeros((total, length), np.float32)
            mean_in_tiles(
                columns, channels, order, bounds, ids[view], clusters[view], first_only, means
            )
            names.append(firsts[:total])
            found.append(means)
            view += 1
    return Clusters(
        ids=ids,
        clusters=clusters,
        signatures=np.concatenate(names),
        representatives=np.concatenate(found),
    )
