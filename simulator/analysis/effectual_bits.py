"""Bits that a bit-serial array works on: what values and their differences would take."""

import numpy as np


def effectual_bits(values: np.ndarray) -> float:
    """Mean number of signed digits of integers that are not 0: steps of a bit-serial multiply.

    In the form with the fewest (canonical signed digits): 7 = 8 - 1 has two. That is what Diffy
    (MICRO 2018) and the designs that it builds on take a cycle each for; where several lanes wait
    for the slowest of them, as there, time is more than the mean.

    Args:
        values: integers of any shape, below 2^40.
    """
    whole = np.abs(np.asarray(values, np.int64))
    # Digits of that form of x that are not 0 are the bits in which x and 3 x differ.
    digits = whole ^ (3 * whole)
    return float(np.unpackbits(digits.view(np.uint8)).sum() / max(1, whole.size))
