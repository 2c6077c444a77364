"""Designs of 16x16 units that end sums which will be below 0 before a ReLU, at 500 MHz."""

from __future__ import annotations

from dataclasses import replace

from accelerators.accelerator import Accelerator
from accelerators.presets.lanes import lanes_16x16
from accelerators.presets.size_16x16 import dense_16x16
from accelerators.units import SumPredictor

# our choice: a sixteenth of the array
_MULTIPLIERS = _ADDERS = 16


def predictor_16x16() -> Accelerator:
    """A systolic array: what is not computed saves energy, and no cycle."""
    return replace(
        dense_16x16(),
        name="predictor_16x16",
        sum_predictor=SumPredictor(multipliers=_MULTIPLIERS, adders=_ADDERS),
    )


def predictor_lanes_16x16() -> Accelerator:
    """Independent lanes, each of which goes on to its next sum."""
    return replace(
        lanes_16x16(),
        name="predictor_lanes_16x16",
        sum_predictor=SumPredictor(multipliers=_MULTIPLIERS, adders=_ADDERS),
    )
