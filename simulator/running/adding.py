"""Products of differences, added to the results of earlier rows."""

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.incremental import IncrementalRows
from simulator.kernels.differences import add_sources


def added(decisions: Decisions, made: IncrementalRows, weights: np.ndarray) -> np.ndarray:
    """Multiply the differences, and add what comes of them to the results of their sources.

    Args:
        decisions: on the layer.
        made: its rows, with their operands.
        weights: `(count, k, n)` float32.

    Returns:
        `(count, m, n)` float32; float64 where sums of integers are exact.

    Raises:
        ConfigError: the operands were dropped.
    """
    if made.differences is None or (made.needs_results and made.results is None):
        raise ConfigError(
            f"decisions of layer {decisions.layer!r} that add to earlier results must hold the "
            "differences and those results, got them without; decide again"
        )
    gemm, kind = made.gemm, np.float64 if made.exact else np.float32
    if made.anew.all():
        return np.matmul(made.differences.astype(kind, copy=False), weights)
    output = np.zeros((gemm.count, gemm.m, gemm.n), kind)
    nothing = np.zeros((made.lag, gemm.n), kind)
    for index, sums in enumerate(output):
        given, matrix = made.differences[index], weights[index]
        rows, elements = np.flatnonzero(made.is_computed[index]), made.elements_of(index)
        if len(rows) < gemm.m:
            given = np.take(given.T, rows, axis=1).T
        if len(elements) < gemm.k:
            given, matrix = given[:, elements], matrix[elements]
        if len(rows):
            sums[rows] = np.matmul(given.astype(kind, copy=False), matrix)
        before = nothing if made.results is None else made.results[index].astype(kind, copy=False)
        add_sources(sums, made.anew[index], made.lag, before)
    return output
