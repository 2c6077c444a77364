"""Deep Feature Flow: key frames at a fixed distance; between them maps are moved."""

from dataclasses import dataclass, field

from accelerators.rules import integer
from simulator.policies.moved_frames import MovedFrames
from simulator.policies.technique import Technique, register


@dataclass(frozen=True, kw_only=True)
class DeepFeatureFlow(MovedFrames):
    """Deep Feature Flow (Zhu et al., CVPR 2017), with block motion where no flow network is.

    The paper finds motion by a small network and multiplies the moved features by a scale map from
    the same; both are learned end to end with the network. Neither is here: vectors are found by
    block matching, and nothing is scaled. With F the cost of a key frame, and flow and tail those
    of motion and of what follows the target, a frame costs (F + (l - 1)(flow + tail)) / l.

    Attributes:
        interval: l, frames from a key frame to the next, 1 (all are) to 1048576.
    """

    interval: int = field(metadata=integer(1, 2**20))

    def waits_for_key(self, since_key: int) -> bool:
        """At the interval's end."""
        return since_key >= self.interval

    def describe(self) -> dict:
        """The policy as plain values."""
        return self.described("deep_feature_flow")


register(
    Technique(
        name="deep_feature_flow",
        title="Deep Feature Flow, with block motion",
        axis="frames",
        word="keep",
        grain="frame",
        rule="Layers up to a target run in every l-th frame; in the others what follows gets the "
        "key frame's maps, moved. Without the learned scale map.",
        evidence="block motion on the pixels, in place of a learned flow network",
        source="Zhu, Xiong, Dai, Yuan and Wei, Deep Feature Flow, CVPR 2017",
        policy=DeepFeatureFlow,
        units=("motion_estimator", "warper"),
        published=("Deep Feature Flow",),
        choices={"interval": (2, 3, 5, 10), "step": (2, 1)},
        start={"interval": 5, "step": 2},
    )
)
