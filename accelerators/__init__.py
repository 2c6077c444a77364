"""Hardware descriptions, checked when they are built, and what their silicon costs.

Describing hardware needs no PyTorch. ``Accelerator`` and its parts are frozen dataclasses; vary one
with ``dataclasses.replace``. ``accelerators.presets`` holds ready designs.
"""

from accelerators.accelerator import Accelerator
from accelerators.baselines import (
    BASELINE_COLUMNS,
    Baseline,
    baselines,
    read_baselines,
    write_baselines,
)
from accelerators.cost_table import BUILT_IN_TABLES, CostTable, cost_table
from accelerators.dram import dram_energy_pj_per_byte, dram_kinds
from accelerators.parts import (
    DATAFLOWS,
    FOLD_TIMINGS,
    PROJECTIONS,
    REPLACEMENTS,
    CentroidCache,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
)
from accelerators.presets import preset, presets
from accelerators.processor import Processor, processor_preset, processor_presets
from accelerators.rules import ConfigError
from accelerators.scale_sim import read_scale_sim_config
from accelerators.silicon import PARTS, area_by_part, energy_per_action, leakage_by_part

__all__ = [
    "BASELINE_COLUMNS",
    "BUILT_IN_TABLES",
    "DATAFLOWS",
    "FOLD_TIMINGS",
    "PARTS",
    "PROJECTIONS",
    "REPLACEMENTS",
    "Accelerator",
    "Baseline",
    "CentroidCache",
    "ConfigError",
    "CostTable",
    "Dram",
    "LshFrontEnd",
    "Processor",
    "Reconstructor",
    "SramBuffer",
    "SystolicArray",
    "area_by_part",
    "baselines",
    "cost_table",
    "dram_energy_pj_per_byte",
    "dram_kinds",
    "energy_per_action",
    "leakage_by_part",
    "preset",
    "presets",
    "processor_preset",
    "processor_presets",
    "read_baselines",
    "read_scale_sim_config",
    "write_baselines",
]
