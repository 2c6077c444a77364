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


def map_sums(trace: WorkloadTrace, name: str, path: str) -> tuple[np.ndarray, int]:
    """`(images, channels)` float64 sums of each map of a layer's input, and positions of a map.

    Of a layer whose input has no maps, each column of its rows is one.

    Args:
        trace: the workload.
        name: of the layer.
        path: of what asks, for messages.

    Raises:
        ConfigError: the input does not belong to one image each.
    """
    given, layer = trace.given(name), trace.layer(name)
    if layer.row_images == trace.images:
        if layer.convolution is not None:
            maps = given.reshape(*given.shape[:2], -1)
            return maps.sum(axis=2, dtype=np.float64), maps.shape[2]
        if given.shape[0] == 1:
            rows = given.reshape(trace.images, -1, given.shape[2])
            return rows.sum(axis=1, dtype=np.float64), rows.shape[1]
    raise ConfigError(
        f"{path} must name layers whose input belongs to one image each, got "
        f"{name!r} with an input of shape {given.shape}; name a convolution or a linear layer"
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
