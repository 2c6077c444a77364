"""A layer's product under reuse, as the array computes it: in floating point or in integers."""

import numpy as np

from accelerators import ConfigError
from simulator.reuse.decisions import ReuseDecisions
from workloads.gemm import Layer


def rows_as_computed(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """Rows as the array sees them: a quantised layer's as whole steps from its zero point."""
    return rows if layer.quantisation is None else layer.quantisation.steps(rows)


def reused_product(layer: Layer, decisions: ReuseDecisions, weights: np.ndarray) -> np.ndarray:
    """The layer's GEMM result, `(count, m, n)` float32, under decisions on `rows_as_computed`.

    Args:
        layer: the layer.
        decisions: with their centroids, which a quantised layer rounds to integers.
        weights: `(count, k, n)` float32.

    Raises:
        ConfigError: rows were normalised, of a quantised layer.
    """
    grid = layer.quantisation
    if grid is None:
        return decisions.product(weights)
    if decisions.norms is not None:
        raise ConfigError(
            f"layer {layer.name!r} must not be normalised in 8 bits, got a policy with "
            "normalised=True: rounded directions mean nothing; use normalised=False, or a "
            "model that is not quantised"
        )
    return decisions.with_whole_centroids().product(weights) * np.float32(grid.scale)
