"""Sums of different lengths, handed to lanes that each work on one at a time."""

import numpy as np
from numba import njit


def scheduled(
    terms: np.ndarray,
    computed: np.ndarray,
    columns: np.ndarray,
    cuts: tuple[np.ndarray, np.ndarray],
    lanes: int,
    word: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cycles in which lanes compute the outputs of every tile, a product a cycle each.

    List scheduling: a tile's outputs are taken column after column, row by row within a column,
    each by the lane that is free first; an output without products takes no lane. So a tile takes
    at least its products over the lanes, rounded up, and as long as its longest sum; and less than
    these two together.

    Args:
        terms: `(count, m, n)` int32 products of each output.
        computed: `(1 or count, m)` bool, rows that are computed at all.
        columns: `(1 or count, n)` bool, columns that are.
        cuts: bounds of tiles of rows, and of computed columns: one more than there are tiles.
        lanes: number of lanes.
        word: products whose weights a lane reads at once.

    Returns:
        `(count, row tiles, column tiles)` int64 each: cycles; products; words of weights read.
    """
    row_bounds, column_bounds = (np.asarray(cut, np.int64) for cut in cuts)
    shape = (len(terms), len(row_bounds) - 1, len(column_bounds) - 1)
    cycles, products, words = (np.zeros(shape, np.int64) for _ in range(3))
    for index, of_product in enumerate(terms):
        own = np.flatnonzero(columns[index % len(columns)])
        _schedule(
            of_product, computed[index % len(computed)], own, row_bounds,
            np.minimum(column_bounds, len(own)),
            (lanes, word), cycles[index], products[index], words[index],
        )  # fmt: skip
    return cycles, products, words


@njit(cache=True, nogil=True)
def _schedule(terms, computed, columns, row_bounds, column_bounds, sizes, cycles, products, words):
    """Fill in a product's `(row tiles, column tiles)`."""
    lanes, word = sizes
    free = np.zeros(lanes, np.int64)  # a heap: when each lane is, the first one first
    for row_tile in range(cycles.shape[0]):
        for column_tile in range(cycles.shape[1]):
            free[:] = 0
            longest, total, read = 0, 0, 0
            for place in range(column_bounds[column_tile], column_bounds[column_tile + 1]):
                column = columns[place]
                for row in range(row_bounds[row_tile], row_bounds[row_tile + 1]):
                    length = terms[row, column]
                    if length == 0 or not computed[row]:
                        continue
                    total += length
                    read += (length + word - 1) // word
                    end = free[0] + length
                    longest = max(longest, end)
                    # The lane's new time sinks to its place.
                    at = 0
                    while True:
                        child = 2 * at + 1
                        if child >= lanes:
                            break
                        if child + 1 < lanes and free[child + 1] < free[child]:
                            child += 1
                        if free[child] >= end:
                            break
                        free[at] = free[child]
                        at = child
                    free[at] = end
            cycles[row_tile, column_tile] = longest
            products[row_tile, column_tile] = total
            words[row_tile, column_tile] = read
