"""Cycles of a systolic array."""

from accelerators import SystolicArray


def ceil_div(a, b):
    """Smallest integer of at least a / b; also element by element."""
    return -(-a // b)


def folds(array: SystolicArray, k, n):
    """How often the array is filled with weights for a `(k, n)` weight matrix."""
    return ceil_div(k, array.rows) * ceil_div(n, array.columns)


def gemm_cycles(array: SystolicArray, m, n, k):
    """Cycles of an `(m, k)` by `(k, n)` product; m, n and k may be arrays of integers.

    Weight stationary, as SCALE-Sim 3.0.0 counts it: a fold loads R rows of weights (R cycles),
    streams m rows through the skewed array (R + C + m - 2 cycles); folds do not overlap and a
    partial fold costs a full one: ceil(k/R) ceil(n/C) (2R + C + m - 2). No rows cost nothing.
    """
    if array.dataflow != "weight_stationary":
        raise ValueError(f"unknown dataflow {array.dataflow!r}")
    fold = 2 * array.rows + array.columns + m - 2
    return folds(array, k, n) * fold * (m > 0)
