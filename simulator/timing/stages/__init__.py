"""The stages that tiles pass, a file each; `register` adds one of a user's own."""

from simulator.timing.stages.adding import Adding
from simulator.timing.stages.address_list import Addressing
from simulator.timing.stages.array import Multiplying
from simulator.timing.stages.differencing import Differencing
from simulator.timing.stages.following import Following
from simulator.timing.stages.hashing import Hashing
from simulator.timing.stages.matching import Matching
from simulator.timing.stages.reconstructor import HandingOut
from simulator.timing.stages.stage import STAGES, Stage, Work, register

__all__ = [
    "STAGES",
    "Adding",
    "Addressing",
    "Differencing",
    "Following",
    "HandingOut",
    "Hashing",
    "Matching",
    "Multiplying",
    "Stage",
    "Work",
    "register",
]
