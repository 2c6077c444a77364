"""Sums that end where their sign is known: a column's products in its own order, row after row."""

import numpy as np
from numba import njit, vectorize

# Rows whose sums are held at a time: their part of the rows fits the second-level cache.
_ROWS = 256


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def ended_terms(
    columns: np.ndarray,
    weights: np.ndarray,
    order: np.ndarray,
    shift: np.ndarray,
    prefix: np.ndarray,
    threshold: np.ndarray,
    falling: np.ndarray,
    terms: np.ndarray,
) -> None:
    """How many products of each output are computed.

    A sum begins with its shift. After `prefix` products it ends if it is below the threshold. Once
    only products that can't be above 0 are left, it ends as soon as it is below 0.

    Args:
        columns: `(k, m)` float32, C-contiguous; at least 0 unless no sum falls.
        weights: `(n, k)` float32, in each column's order.
        order: `(n, k)` int64, the element of k at each place.
        shift: `(n,)` float32.
        prefix: `(n,)` int64, 0 for no prediction.
        threshold: `(n,)` float32.
        falling: `(n,)` int64, products after which only such are left; k where it never ends so.
        terms: `(n, m)` int32, is filled.
    """
    k, m = columns.shape
    sums = np.empty(_ROWS, np.float32)
    done = np.empty(_ROWS, np.int32)
    dead = np.empty(_ROWS, np.bool_)
    for first in range(0, m, _ROWS):
        size = min(_ROWS, m - first)
        end = first + size
        for j in range(len(weights)):
            least = max(falling[j], prefix[j])
            sums[:] = shift[j]
            dead[:] = False
            if prefix[j] > 0:
                _add(columns, first, end, weights[j], order[j], 0, prefix[j], sums)
                for i in range(size):
                    dead[i] = sums[i] < threshold[j]
            _add(columns, first, end, weights[j], order[j], prefix[j], least, sums)
            done[:] = least
            place = least
            while place + 1 < k:  # two at a time, which saves loads and stores
                first_weight, second_weight = weights[j, place], weights[j, place + 1]
                first_row = columns[order[j, place], first:end]
                second_row = columns[order[j, place + 1], first:end]
                for i in range(size):
                    before = sums[i]
                    between = before + first_weight * first_row[i]
                    done[i] += np.int32(before >= 0) + np.int32(between >= 0)
                    sums[i] = between + second_weight * second_row[i]
                place += 2
            if place < k:
                for i in range(size):
                    done[i] += np.int32(sums[i] >= 0)
            for i in range(size):
                terms[j, first + i] = prefix[j] if dead[i] else done[i]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _add(
    columns: np.ndarray,
    first: int,
    last: int,
    weights: np.ndarray,
    order: np.ndarray,
    begin: int,
    end: int,
    sums: np.ndarray,
) -> None:
    """Add some places' products to the sums, four at a time."""
    size = last - first
    place = begin
    while place + 3 < end:
        w0, w1, w2, w3 = weights[place], weights[place + 1], weights[place + 2], weights[place + 3]
        r0, r1 = columns[order[place], first:last], columns[order[place + 1], first:last]
        r2, r3 = columns[order[place + 2], first:last], columns[order[place + 3], first:last]
        for i in range(size):
            sums[i] += (w0 * r0[i] + w1 * r1[i]) + (w2 * r2[i] + w3 * r3[i])
        place += 4
    while place < end:
        weight, row = weights[place], columns[order[place], first:last]
        for i in range(size):
            sums[i] += weight * row[i]
        place += 1


@vectorize(cache=True, nopython=True)
def cut_bits(value, step, cut):
    """A value on a grid of 255 steps and a sign, of which what is less than a cut is left out.

    Args:
        value: float32, as all.
        step: of the grid.
        cut: steps that what stays is a multiple of.
    """
    whole = min(max(np.rint(np.abs(value) / step), np.float32(0)), np.float32(255))
    return np.sign(value) * np.floor(whole / cut) * cut * step
