"""What projections must exceed for a bit of a signature to be 1."""

import math

import numpy as np

from simulator.policies.policy import LayerState

THRESHOLDS = ("zero", "mean", "spread")
# In a state: thresholds that training followed, in place of what calibration learns.
FOLLOWED = "thresholds"
# Calibration rows that are kept to know how widely projections vary.
SAMPLE_ROWS = 128
# Multiples of it, modulo 1, fill the interval evenly however many there are.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def sample_of(rows: np.ndarray) -> np.ndarray:
    """`(count, 128, k)` of a layer's `(count, m, k)` calibration rows, evenly."""
    kept = np.linspace(0, rows.shape[1] - 1, SAMPLE_ROWS).astype(np.int64)
    return rows[:, kept]


def places_of(hashes: int) -> np.ndarray:
    """`(H,)` float64, -1 to 1, where thresholds are spread to about the mean."""
    return 2 * ((np.arange(hashes) + 0.5) * _GOLDEN_RATIO % 1) - 1


def thresholds_of(
    kind: str, state: LayerState, projections: np.ndarray, columns: np.ndarray, spread: float
) -> np.ndarray:
    """`(count, v, H)` float32 thresholds of `mean` or `spread`.

    Args:
        kind: which of them.
        state: `mean` `(count, k)` and, to spread them, `sample` `(count, 128, k)`.
        projections: `(H, L)` float32 hyperplanes.
        columns: `(v, L)` int64, the columns that a vector's elements are found in; k beyond a
            short one.
        spread: standard deviations of v . x up to which thresholds are spread.
    """
    k, hashes = state["mean"].shape[1], len(projections)
    missing, taken = columns == k, np.minimum(columns, k - 1)

    def of_views(values: np.ndarray) -> np.ndarray:
        """`(..., k)` in the layer's order as `(..., v, L)`."""
        found = np.asarray(values, np.float32)[..., taken]
        found[..., missing] = 0
        return found

    mean = of_views(state["mean"])
    thresholds = mean @ projections.T
    if kind == "spread":
        distances = (of_views(state["sample"]) - mean[:, None]) @ projections.T
        # Squares of large activations need the wider exponent.
        deviation = np.sqrt(np.square(distances, dtype=np.float64).mean(axis=1))
        thresholds += (deviation * spread * places_of(hashes)).astype(np.float32)
    return thresholds
