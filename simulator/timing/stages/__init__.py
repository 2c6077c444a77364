"""The stages that tiles pass, a file each; `register` adds one of a user's own."""

from simulator.timing.stages.above import ABOVE, AboveStage, register_above
from simulator.timing.stages.address_list import Addressing
from simulator.timing.stages.array import Multiplying
from simulator.timing.stages.channel_gate import Gating
from simulator.timing.stages.following import Following
from simulator.timing.stages.frame_differencer import Differencing
from simulator.timing.stages.hashing import Hashing
from simulator.timing.stages.matching import Matching
from simulator.timing.stages.reconstructor import HandingOut
from simulator.timing.stages.stage import STAGES, Stage, Work, register

__all__ = [
    "ABOVE",
    "STAGES",
    "AboveStage",
    "Addressing",
    "Differencing",
    "Following",
    "Gating",
    "HandingOut",
    "Hashing",
    "Matching",
    "Multiplying",
    "Stage",
    "Work",
    "register",
    "register_above",
]
