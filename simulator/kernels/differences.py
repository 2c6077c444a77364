"""Compiled loops over differences: which are none, and results that others are added to."""

import numpy as np
from numba import njit

# Rows whose bytes of marks stay in a first-level cache while eight columns are looked at.
_BLOCK = 4096


@njit(cache=True, nogil=True)
def _mark(columns, marks):
    """Set the bits of one product's elements that are not 0.

    Args:
        columns: `(k, m)` float32.
        marks: `(ceil(k / 8), m)` uint8, zeros; written.
    """
    k, m = columns.shape
    for first in range(0, m, _BLOCK):
        last = min(m, first + _BLOCK)
        for column in range(k):
            bit = np.uint8(1 << (column % 8))
            values, found = columns[column, first:last], marks[column // 8, first:last]
            for row in range(found.size):
                found[row] |= bit if values[row] != np.float32(0) else np.uint8(0)


def bits_of_terms(columns: np.ndarray, anew: np.ndarray) -> np.ndarray:
    """`(count, ceil(k / 8), m)` uint8, a bit for each element that is multiplied.

    Args:
        columns: `(count, k, m)` float32 differences.
        anew: `(count, m)` bool, rows of which all elements are.
    """
    count, k, m = columns.shape
    marks = np.zeros((count, -(-k // 8), m), np.uint8)
    whole = np.packbits(np.ones(k, np.uint8), bitorder="little")[:, None]
    for index in range(count):
        if not anew[index].all():
            _mark(columns[index], marks[index])
        marks[index][:, anew[index]] = whole
    return marks


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


@njit(cache=True, nogil=True)
def _count(marks, ones_of, found):
    """Add up the bits of one product's bytes.

    Args:
        marks: `(bytes, m)` uint8.
        ones_of: `(256,)` uint8, bits set in a byte.
        found: `(m,)` int64, zeros; written.
    """
    for first in range(0, found.size, _BLOCK):
        counted = found[first : first + _BLOCK]
        for line in marks:
            own = line[first : first + _BLOCK]
            for row in range(own.size):
                counted[row] += ones_of[own[row]]


def ones(marks: np.ndarray) -> np.ndarray:
    """`(count, m)` int64, bits set in each column of bytes `(count, bytes, m)`."""
    found = np.zeros((len(marks), marks.shape[2]), np.int64)
    for own, counted in zip(marks, found, strict=True):
        _count(np.ascontiguousarray(own), _ONES, counted)
    return found


@njit(cache=True, nogil=True)
def add_sources(sums, anew, lag, before):
    """Add to each row's sum the result of the row `lag` before it, from the first row on.

    Args:
        sums: `(m, n)` floats; written.
        anew: `(m,)` bool, rows that nothing is added to.
        lag: rows back.
        before: `(lag, n)` floats, results of the rows before the first; any where none needs them.
    """
    m, n = sums.shape
    for row in range(m):
        if anew[row]:
            continue
        source = row - lag
        for column in range(n):
            if source < 0:
                sums[row, column] += before[row, column]
            else:
                sums[row, column] += sums[source, column]


@njit(cache=True, nogil=True)
def packed_line_bits(lines, group, width_bits):
    """Bits of lines stored as differences, each group of them in the width of the widest.

    In two's complement: of x >= 0 the bits of x, of x < 0 those of -x - 1, and a sign; of zeros
    alone, none.

    Args:
        lines: `(lines, width)` int32; the first of a line stands for itself.
        group: differences that have a width together.
        width_bits: that tell it.
    """
    total, width = 0, lines.shape[1]
    for line in lines:
        before = np.int64(0)
        for first in range(0, width, group):
            size = min(group, width - first)
            largest, differs = np.int64(0), False
            for place in range(first, first + size):
                difference = np.int64(line[place]) - before
                before = np.int64(line[place])
                differs |= difference != 0
                largest = max(largest, difference if difference >= 0 else -difference - 1)
            bits = 1 if differs else 0
            while largest:
                largest >>= 1
                bits += 1
            total += bits * size + width_bits
    return total
