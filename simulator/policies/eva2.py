"""EVA2: key frames where motion no longer explains the pixels; between them maps are moved."""

from dataclasses import dataclass, field

import numpy as np

from accelerators.rules import integer, optional, real
from simulator.policies.moved_frames import MovedFrames
from simulator.policies.technique import Technique, register


@dataclass(frozen=True, kw_only=True)
class Eva2(MovedFrames):
    """Activation motion compensation (Buckler et al., "EVA2", ISCA 2018).

    A frame whose pixels are not like those of the key frame, moved, becomes the next key frame. Its
    error is in grey levels (`luma`). Not built: the run-length coded store of the activation, and
    copying without motion for classification (`radius=0` copies).

    Attributes:
        max_error: mean absolute difference of a frame's pixels and those of the key frame, moved,
            above which it becomes a key frame, 0 to 255 grey levels.
        max_motion: mean length of its vectors, in pixels, above which it does too, 0 to 1024;
            `None`: whatever the motion.
        longest: frames from a key frame to the next at most, 1 (all are) to 1048576.
    """

    max_error: float = field(default=6.0, metadata=real(0, 255))
    max_motion: float | None = field(default=None, metadata=optional(real(0, 1024)))
    longest: int = field(default=16, metadata=integer(1, 2**20))

    def waits_for_key(self, since_key: int) -> bool:
        """After the longest time."""
        return since_key >= self.longest

    def is_key(self, error: float, vectors: np.ndarray) -> bool:
        """Where the error or the motion is too large."""
        length = float(np.hypot(vectors[..., 0], vectors[..., 1]).mean())
        return error > self.max_error or (self.max_motion is not None and length > self.max_motion)

    def describe(self) -> dict:
        """The policy as plain values."""
        return self.described("eva2")


register(
    Technique(
        name="eva2",
        title="EVA2 (activation motion compensation)",
        axis="frames",
        word="keep",
        grain="frame",
        rule="In a frame that is like the key frame but for motion, layers up to a target do not "
        "run: what follows gets the key frame's maps, moved by block motion on the pixels.",
        evidence="sums of absolute differences of pixels, block by block",
        source="Buckler, Bedoukian, Jayasuriya and Sampson, EVA2, ISCA 2018",
        policy=Eva2,
        units=("motion_estimator", "warper"),
        published=("EVA2",),
        choices={
            "max_error": (2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
            "longest": (2, 4, 8, 16),
            "step": (2, 1),
        },
        start={"max_error": 4.0, "longest": 8, "step": 2},
    )
)
