"""The stages that tiles pass, a file each; `register` adds one of a user's own."""

from simulator.timing.stages.above import ABOVE, AboveStage, register_above
from simulator.timing.stages.adding import Adding
from simulator.timing.stages.address_list import Addressing
from simulator.timing.stages.array import Multiplying
from simulator.timing.stages.channel_gate import Gating
from simulator.timing.stages.feature_cache import Summing
from simulator.timing.stages.following import Following
from simulator.timing.stages.frame_differencer import Differencing
from simulator.timing.stages.hashing import Hashing
from simulator.timing.stages.lanes import Independent
from simulator.timing.stages.matching import Matching
from simulator.timing.stages.motion import EstimatingMotion
from simulator.timing.stages.predicting import Predicting
from simulator.timing.stages.range_table import Ranging
from simulator.timing.stages.reconstructor import HandingOut
from simulator.timing.stages.result_cache import HashingOnArray
from simulator.timing.stages.stage import STAGES, Stage, Work, register
from simulator.timing.stages.subtracting import Subtracting
from simulator.timing.stages.warping import Warping
from simulator.timing.stages.watching import Watching
from simulator.timing.stages.weight_tables import Factorised

__all__ = [
    "ABOVE",
    "STAGES",
    "AboveStage",
    "Adding",
    "Addressing",
    "Differencing",
    "EstimatingMotion",
    "Factorised",
    "Following",
    "Gating",
    "HandingOut",
    "Hashing",
    "HashingOnArray",
    "Independent",
    "Matching",
    "Multiplying",
    "Predicting",
    "Ranging",
    "Stage",
    "Subtracting",
    "Summing",
    "Warping",
    "Watching",
    "Work",
    "register",
    "register_above",
]
