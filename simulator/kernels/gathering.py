"""Compiled loops that multiply representatives and hand results to the rows that share them."""

import numpy as np
from numba import njit

from simulator.kernels.lanes import (
    LANES,
    gather_narrow,
    gather_wide,
    multiply_narrow,
    multiply_wide,
)

# Output rows that are gathered for together: where their results lie is found table by table.
GATHER_BLOCK = 64


@njit(cache=True, nogil=True)
def result_rows(clusters, first, last):
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
def make_whole(sums, origins, totals, factors):
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
