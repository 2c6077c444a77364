"""Hardware descriptions, checked when they are built, and what their silicon costs.

Describing hardware needs no PyTorch. ``Accelerator`` and its units are frozen dataclasses; vary one
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
from accelerators.presets import preset, presets
from accelerators.processor import Processor, processor_preset, processor_presets
from accelerators.rules import ConfigError
from accelerators.scale_sim import read_scale_sim_config
from accelerators.silicon import PARTS, area_by_part, energy_per_action, leakage_by_part
from accelerators.units import (
    AddressList,
    CentroidCache,
    ChangeDetector,
    ChannelGate,
    DifferenceUnit,
    Dram,
    FeatureCache,
    FrameDifferencer,
    IndependentLanes,
    LeaderTable,
    LshFrontEnd,
    MotionEstimator,
    NeighbourMatcher,
    RangeTable,
    Reconstructor,
    ResultAdder,
    ResultCache,
    SramBuffer,
    SumPredictor,
    SystolicArray,
    Unit,
    Warper,
    WeightTables,
)
from accelerators.units.array import DATAFLOWS, FOLD_TIMINGS
from accelerators.units.cache import REPLACEMENTS
from accelerators.units.dram import dram_energy_pj_per_byte, dram_kinds
from accelerators.units.front_end import PROJECTIONS

__all__ = [
    "BASELINE_COLUMNS",
    "BUILT_IN_TABLES",
    "DATAFLOWS",
    "FOLD_TIMINGS",
    "PARTS",
    "PROJECTIONS",
    "REPLACEMENTS",
    "Accelerator",
    "AddressList",
    "Baseline",
    "CentroidCache",
    "ChangeDetector",
    "ChannelGate",
    "ConfigError",
    "CostTable",
    "DifferenceUnit",
    "Dram",
    "FeatureCache",
    "FrameDifferencer",
    "IndependentLanes",
    "LeaderTable",
    "LshFrontEnd",
    "MotionEstimator",
    "NeighbourMatcher",
    "Processor",
    "RangeTable",
    "Reconstructor",
    "ResultAdder",
    "ResultCache",
    "SramBuffer",
    "SumPredictor",
    "SystolicArray",
    "Unit",
    "Warper",
    "WeightTables",
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
