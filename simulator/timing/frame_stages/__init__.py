"""The stages that whole frames pass, above all layers; `register` adds one of a user's own."""

from simulator.timing.frame_stages.frame_stage import FRAME_STAGES, FrameStage, register
from simulator.timing.frame_stages.motion import EstimatingMotion
from simulator.timing.frame_stages.warping import Warping

__all__ = ["FRAME_STAGES", "EstimatingMotion", "FrameStage", "Warping", "register"]
