"""Ready designs: dense arrays and the same with reuse, in a few sizes; published reuse units."""

from accelerators.accelerator import Accelerator
from accelerators.presets.lanes import lanes_16x16, merging_16x16, tables_16x16
from accelerators.presets.predicting import predictor_16x16, predictor_lanes_16x16
from accelerators.presets.published import cicek_design_b, focus_32x32
from accelerators.presets.size_16x16 import (
    columns_16x16,
    dense_16x16,
    difference_16x16,
    gated_16x16,
    listed_16x16,
    ranging_16x16,
    remembering_16x16,
    reuse_16x16,
    reuse_16x16_int8,
)
from accelerators.presets.size_32x32 import (
    change_32x32,
    dense_32x32,
    leader_32x32,
    motion_32x32,
    neighbour_32x32,
    reuse_32x32,
)
from accelerators.presets.size_64x64 import every_64x64
from accelerators.rules import named

_BUILDERS = (
    dense_16x16,
    columns_16x16,
    difference_16x16,
    gated_16x16,
    listed_16x16,
    ranging_16x16,
    remembering_16x16,
    reuse_16x16,
    reuse_16x16_int8,
    lanes_16x16,
    tables_16x16,
    merging_16x16,
    predictor_16x16,
    predictor_lanes_16x16,
    dense_32x32,
    reuse_32x32,
    neighbour_32x32,
    leader_32x32,
    change_32x32,
    motion_32x32,
    every_64x64,
    cicek_design_b,
    focus_32x32,
)


def presets() -> dict[str, Accelerator]:
    """Every ready design by name, in a new dictionary."""
    designs = (build() for build in _BUILDERS)
    return {design.name: design for design in designs}


def preset(name: str) -> Accelerator:
    """One ready design.

    Raises:
        ConfigError: no design has this name; the message names the nearest.
    """
    return named("preset name", name, presets())


__all__ = [
    "change_32x32",
    "columns_16x16",
    "dense_16x16",
    "dense_32x32",
    "difference_16x16",
    "every_64x64",
    "gated_16x16",
    "lanes_16x16",
    "leader_32x32",
    "listed_16x16",
    "merging_16x16",
    "motion_32x32",
    "neighbour_32x32",
    "predictor_16x16",
    "predictor_lanes_16x16",
    "preset",
    "presets",
    "ranging_16x16",
    "remembering_16x16",
    "reuse_16x16",
    "reuse_16x16_int8",
    "reuse_32x32",
    "tables_16x16",
]
