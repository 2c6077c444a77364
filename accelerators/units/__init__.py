"""The units of an accelerator, one a file, with what each costs and how pages call it.

A further unit is one file here and one field of :class:`accelerators.Accelerator`.
"""

from accelerators.units.address_list import AddressList
from accelerators.units.array import SystolicArray
from accelerators.units.buffer import SramBuffer
from accelerators.units.cache import CentroidCache
from accelerators.units.change_detector import ChangeDetector
from accelerators.units.channel_gate import ChannelGate
from accelerators.units.difference_unit import DifferenceUnit
from accelerators.units.dram import Dram
from accelerators.units.feature_cache import FeatureCache
from accelerators.units.frame_differencer import FrameDifferencer
from accelerators.units.front_end import LshFrontEnd
from accelerators.units.lanes import IndependentLanes
from accelerators.units.leader_table import LeaderTable
from accelerators.units.motion_estimator import MotionEstimator
from accelerators.units.neighbour_matcher import NeighbourMatcher
from accelerators.units.range_table import RangeTable
from accelerators.units.reconstructor import Reconstructor
from accelerators.units.result_adder import ResultAdder
from accelerators.units.result_cache import ResultCache
from accelerators.units.sum_predictor import SumPredictor
from accelerators.units.unit import Item, Part, Unit
from accelerators.units.warper import Warper
from accelerators.units.weight_tables import WeightTables

__all__ = [
    "AddressList",
    "CentroidCache",
    "ChangeDetector",
    "ChannelGate",
    "DifferenceUnit",
    "Dram",
    "FeatureCache",
    "FrameDifferencer",
    "IndependentLanes",
    "Item",
    "LeaderTable",
    "LshFrontEnd",
    "MotionEstimator",
    "NeighbourMatcher",
    "Part",
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
]
