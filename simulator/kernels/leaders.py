"""A compiled loop that lets each vector join the nearest of a few leaders, or become one."""

import numpy as np
from numba import njit

from simulator.kernels.vectors import take

# Vectors that are lined up together, while their elements are in a near cache.
_BLOCK = 512


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def follow_leaders(
    columns, channels, order, bounds, tolerance, floor, entries, first_only, ids, clusters, found
):  # fmt: skip
    """Number the clusters of every tile of one view, and represent them.

    Args:
        columns: `(c, p)` float32, the vectors' elements.
        channels: `(L or fewer,)` int64, which of them a vector has.
        order: `(vectors,)` int64, the vectors tile after tile.
        bounds: `(tiles + 1,)` int64, each tile's first of them.
        tolerance: of the squared distance to a leader, over the vector's squared length.
        floor: squared distance that is near enough whatever the length.
        entries: leaders that are held at a time; the oldest makes room.
        first_only: whether a cluster's leader stands for it; else the mean of its members.
        ids: out, `(p,)` int32.
        clusters: out, `(tiles,)` int32.
        found: out, `(vectors, L)` float32, representatives in the order (tile, cluster).

    Returns:
        Clusters of all tiles.
    """
    length, largest = channels.size, 0
    for tile in range(bounds.size - 1):
        largest = max(largest, bounds[tile + 1] - bounds[tile])
    values, elements = columns.ravel(), channels * columns.shape[1]
    lined_up = np.empty(min(largest, _BLOCK) * length, np.float32)
    vectors, sizes = lined_up.reshape(-1, length), np.empty(largest, np.float32)
    held = min(entries, largest)
    leaders, numbers = np.empty((held, length), np.float32), np.empty(held, np.int32)
    total = 0
    for tile in range(bounds.size - 1):
        first, count = bounds[tile], bounds[tile + 1] - bounds[tile]
        made = 0
        for place in range(count):
            if place % _BLOCK == 0:
                end = first + min(place + _BLOCK, count)
                take(values, elements, order[first + place : end], lined_up, length)
            own = vectors[place % _BLOCK]
            square = np.float32(0.0)
            for element in range(length):
                square += own[element] * own[element]
            nearest, least = -1, np.float32(np.inf)
            for entry in range(min(made, entries)):
                # Of differences, not of lengths and a product: exactly 0 between equal vectors.
                other, distance = leaders[entry], np.float32(0.0)
                for element in range(length):
                    apart = own[element] - other[element]
                    distance += apart * apart
                # The earliest of several; the table is a ring.
                tied = distance == least and nearest >= 0
                if distance < least or (tied and numbers[entry] < numbers[nearest]):
                    nearest, least = entry, distance
            if nearest >= 0 and least <= max(tolerance * square, floor):
                number = numbers[nearest]
                sizes[number] += np.float32(1.0)
                if not first_only:
                    for element in range(length):
                        found[total + number, element] += own[element]
            else:
                number, entry = np.int32(made), made % entries
                leaders[entry], numbers[entry] = own, number
                sizes[number] = np.float32(1.0)
                found[total + made] = np.float32(0.0)
                for element in range(length):
                    found[total + made, element] = own[element]
                made += 1
            ids[order[first + place]] = number
        if not first_only:
            for number in range(made):
                scale = np.float32(1.0) / sizes[number]
                for element in range(length):
                    found[total + number, element] *= scale
        clusters[tile] = made
        total += made
    return total
