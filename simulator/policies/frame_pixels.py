"""Frames of a trace as policies above the layers see them, and decisions on whole frames."""

import numpy as np

from accelerators import ConfigError
from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.frames import KEEP, RUN, FrameDecisions
from workloads.traces.trace import WorkloadTrace


def pixels_of(trace: WorkloadTrace, policy: str) -> np.ndarray:
    """The first input of a trace, a frame each along its first axis.

    Args:
        trace: the workload.
        policy: that looks at them, for messages.

    Returns:
        `(images, ...)`, as the model takes them; `(images, channels, height, width)` most often.

    Raises:
        ConfigError: the trace holds no inputs, or they are not one a frame.
    """
    given = trace.inputs
    if given and given[0].ndim > 1 and len(given[0]) == trace.images:
        return np.asarray(given[0])
    told = "none" if not given else f"shape {given[0].shape}"
    raise ConfigError(
        f"{policy} must look at inputs of {trace.images} frames, got {told}; capture the model on "
        "a batch of frames"
    )


def whole_frames(
    trace: WorkloadTrace, answers: np.ndarray, *evidence: FrameEvidence
) -> FrameDecisions:
    """All layers run in the frames that give their own answer, and in no other.

    Args:
        trace: the workload.
        answers: `(images,)` int64, the frame whose answer each gives.
        evidence: what was looked at.
    """
    made = np.where(answers == np.arange(trace.images), RUN, KEEP).astype(np.int8)
    return FrameDecisions(
        frames=trace.images,
        layers={layer.name: made for layer in trace.layers},
        answers=answers,
        evidence=evidence,
    )
