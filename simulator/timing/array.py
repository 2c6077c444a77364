"""Cycles of a systolic array under each dataflow."""

from accelerators import SystolicArray


def ceil_div(a, b):
    """Smallest integer of at least a / b; also element by element."""
    return -(-a // b)


def folds(array: SystolicArray, m, n, k):
    """How often the array takes a new stationary tile for an `(m, k)` by `(k, n)` product."""
    match array.dataflow:
        case "weight_stationary":
            return ceil_div(k, array.rows) * ceil_div(n, array.columns)
        case "output_stationary":
            return ceil_div(m, array.rows) * ceil_div(n, array.columns)
        case "input_stationary":
            return ceil_div(k, array.rows) * ceil_div(m, array.columns)
    raise ValueError(f"unknown dataflow {array.dataflow!r}")


def gemm_cycles(array: SystolicArray, m, n, k):
    """Cycles of an `(m, k)` by `(k, n)` product; m, n and k are at least 1, or arrays of such.

    `sequential` folds, as SCALE-Sim 3.0.0 counts them on R rows and C columns: a fold loads its
    stationary tile (R cycles; none for outputs), streams the rest through the skewed array, and is
    charged in full however little of the array it uses:

    - weight stationary: ceil(k/R) ceil(n/C) (2R + C + m - 2)
    - output stationary: ceil(m/R) ceil(n/C) (R + C + k - 2)
    - input stationary: ceil(k/R) ceil(m/C) (2R + C + n - 2)

    `overlapped` folds, this project's own model: with r rows and c columns in use, a fold takes as
    many cycles as it streams, or as its successor's stationary tile takes to load (r), whichever
    is longer; loading the first tile, and skew (r + c - 2), are paid once a product, and delay its
    results but not the next product. Finished outputs leave on wires of their own.

    Returns:
        (occupancy, latency): cycles until the array takes the next product, and cycles after that
        until the last result is there.
    """
    rows, columns = array.rows, array.columns
    match array.dataflow:
        case "weight_stationary":
            stationary, across, streamed, load = k, n, m, rows
        case "output_stationary":
            stationary, across, streamed, load = m, n, k, 0
        case "input_stationary":
            stationary, across, streamed, load = k, m, n, rows
        case _:
            raise ValueError(f"unknown dataflow {array.dataflow!r}")
    if array.fold_timing == "sequential":
        fold = load + rows + columns + streamed - 2
        return folds(array, m, n, k) * fold, 0 * fold
    # Folds that use all rows, and perhaps one that uses the rest.
    full, rest = stationary // rows, stationary % rows
    used_rows, used_columns = _smaller(stationary, rows), _smaller(across, columns)
    latency = used_rows + used_columns - 2
    if array.dataflow == "output_stationary":
        return (full + (rest > 0)) * streamed * ceil_div(across, columns), latency
    pace = full * _larger(streamed, rows) + (rest > 0) * _larger(streamed, rest)
    # The last fold's results do not wait for the next product's load.
    last = (rest > 0) * rest + (rest == 0) * rows
    latency = latency + used_rows - _larger(last - streamed, 0)
    return pace * ceil_div(across, columns), latency


def _larger(a, b):
    """Maximum of integers or arrays, without NumPy's cost for plain integers."""
    return (a > b) * a + (a <= b) * b


def _smaller(a, b):
    """Minimum of integers or arrays."""
    return (a < b) * a + (a >= b) * b
