"""Key frames at a fixed distance: between them everything is remembered."""

from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators.rules import integer, refuse, violations
from simulator.decisions.frames import KEEP, RUN, FrameDecisions
from simulator.policies.policy import LayerState, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class EveryNthFrame(ReusePolicy):
    """All layers run in every n-th frame of a batch, whose answer the frames after it give too.

    The plainest choice of key frames (Zhu et al., "Deep feature flow", CVPR 2017, without the
    flow). The images of a batch are frames in a row; each batch starts with a key frame.

    Attributes:
        n: distance of two key frames, 1 (every frame runs) to 1048576.

    Raises:
        ConfigError: at construction, where n is no such number; at `decide()`, where the rows of a
            layer's frames can't be told apart, naming the layer.
    """

    n: int = field(metadata=integer(1, 2**20))

    def __post_init__(self) -> None:
        """Check the distance."""
        refuse(violations(self, "EveryNthFrame"))

    def applies_to(self, layer: Layer) -> bool:
        """To none: only frames are decided on."""
        return False

    def frames(self, trace: WorkloadTrace) -> FrameDecisions | None:
        """Every n-th frame from the first; `None` where all run."""
        places = np.arange(trace.images)
        if self.n == 1 or trace.images == 1:
            return None
        made = np.where(places % self.n, KEEP, RUN).astype(np.int8)
        return FrameDecisions(
            frames=trace.images,
            layers={layer.name: made for layer in trace.layers},
            answers=places - places % self.n,
        )

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions on the layers that run."""

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "every_nth_frame", **asdict(self)}


register(
    Technique(
        name="every_nth_frame",
        title="Key frames, answers remembered",
        axis="frames",
        word="keep",
        grain="frame",
        rule="Every n-th frame runs; the others give its answer.",
        evidence="nothing: frames are counted",
        source="The baseline of Zhu et al., Deep Feature Flow, CVPR 2017, without motion",
        policy=EveryNthFrame,
        choices={"n": (2, 3, 5, 10)},
        start={"n": 2},
    )
)
