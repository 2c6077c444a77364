"""Compiled loops that match blocks of pixels, and move maps by the vectors found."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def tile_differences(frame, padded, offsets, tile, sums):
    """Absolute differences of a frame and a moved one, summed up over each tile.

    Args:
        frame: `(height, width)` uint8.
        padded: `(height + 2 radius, width + 2 radius)` uint8, the other one with its border
            repeated.
        offsets: `(candidates, 2)` int64, rows and columns of `padded` to start from.
        tile: side of a tile.
        sums: out, `(candidates, rows, columns)` int32.
    """
    height, width = frame.shape
    _, rows, columns = sums.shape
    lines = np.empty(width, np.int32)  # summed up over the lines of a row of tiles
    for candidate in range(len(offsets)):
        down, across = offsets[candidate]
        for row in range(rows):
            lines[:] = 0
            for y in range(row * tile, min((row + 1) * tile, height)):
                own, other = frame[y], padded[y + down, across : across + width]
                for x in range(width):
                    lines[x] += abs(np.int32(own[x]) - np.int32(other[x]))
            for column in range(columns):
                total = np.int32(0)
                for x in range(column * tile, min((column + 1) * tile, width)):
                    total += lines[x]
                sums[candidate, row, column] = total


@njit(cache=True, nogil=True)
def least_differences(sums, reach, chosen):
    """The candidate with the least differences around each tile, the first of several.

    Args:
        sums: `(candidates, rows, columns)` int32, as `tile_differences` fills them.
        reach: tiles on each side that are summed up with a tile.
        chosen: out, `(rows, columns)` int64, numbers of candidates.

    Returns:
        Sum over all tiles of their own differences under their candidates.
    """
    candidates, rows, columns = sums.shape
    least = np.full((rows, columns), np.iinfo(np.int64).max)
    for candidate in range(candidates):
        of_candidate = sums[candidate]
        for row in range(rows):
            first, last = max(row - reach, 0), min(row + reach + 1, rows)
            for column in range(columns):
                total = np.int64(0)
                left, right = max(column - reach, 0), min(column + reach + 1, columns)
                for y in range(first, last):
                    for x in range(left, right):
                        total += of_candidate[y, x]
                if total < least[row, column]:
                    least[row, column] = total
                    chosen[row, column] = candidate
    found = np.int64(0)
    for row in range(rows):
        for column in range(columns):
            found += sums[chosen[row, column], row, column]
    return found


@njit(cache=True, nogil=True)
def move(source, taps, weights, moved):
    """Each position's values from four of a map's.

    Args:
        source: `(positions, channels)` float32.
        taps: `(positions, 4)` int32.
        weights: `(positions, 4)` float32; where the first is 1, it is the value, bit for bit.
        moved: out, `(positions, channels)` float32.
    """
    channels = source.shape[1]
    for place in range(len(taps)):
        a, b, c, d = taps[place]
        first, second, third, fourth = weights[place]
        if first == 1:
            moved[place] = source[a]
            continue
        for channel in range(channels):
            moved[place, channel] = (
                first * source[a, channel]
                + second * source[b, channel]
                + third * source[c, channel]
                + fourth * source[d, channel]
            )
