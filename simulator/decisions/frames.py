"""Above the layers: what runs in which frame, and whose answer a frame gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from accelerators.rules import integer, refuse
from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.motion import Motion

# What a layer does in a frame.
RUN, KEEP, WARP = range(3)


@dataclass(frozen=True, kw_only=True)
class FrameDecisions:
    """Which layers run in which frames of a batch; frames follow each other in time.

    Attributes:
        frames: in the batch.
        layers: layer name -> `(frames,)` int8: `RUN`; `KEEP`, its result is that of the frame
            before; or `WARP`, that of the key frame moved by motion. A layer that is not named
            runs in all; every layer runs in the first frame.
        answers: `(frames,)` int64, the frame whose answer each one gives: itself, or an earlier
            one where the answer is remembered.
        evidence: what was looked at to know all this, each kind with how often; none where nothing
            was, as at a fixed distance. A `Motion` moves results.

    Raises:
        ConfigError: a layer has marks for other frames, or does not run in the first; an answer is
            remembered before it is given; evidence does not fit the frames; a result is moved
            without motion, or is not the key frame's.
    """

    frames: int
    layers: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    answers: np.ndarray = field(repr=False)
    evidence: tuple[FrameEvidence, ...] = ()

    def __post_init__(self) -> None:
        """What is kept must have been computed before."""
        broken = integer(1, 2**40)["rule"](self.frames, "FrameDecisions.frames")
        refuse(broken)
        broken += [
            f"FrameDecisions.layers[{name!r}] must be RUN, KEEP or WARP for each of "
            f"{self.frames} frames, and RUN for the first, got shape {made.shape}"
            + (f" that starts with {made[0]}" if made.shape == (self.frames,) else "")
            + "; run the first frame of each batch"
            for name, made in self.layers.items()
            if made.shape != (self.frames,) or made[0] != RUN or not np.isin(made, (0, 1, 2)).all()
        ]
        answers = self.answers
        remembered = (
            answers.shape == (self.frames,)
            and ((answers >= 0) & (answers <= np.arange(self.frames))).all()
        )
        if not remembered or not (answers[answers] == answers).all():
            broken.append(
                f"FrameDecisions.answers must name for each of {self.frames} frames itself or an "
                f"earlier frame that gives its own answer, got {answers.tolist()}; name that frame"
            )
        refuse(broken)
        for each in self.evidence:
            each.check_frames(self.frames)
        refuse(self._wrongly_moved())

    def _wrongly_moved(self) -> list[str]:
        """Layers whose results can't be moved as they shall be."""
        motion, broken = self.motion, []
        for name, made in self.layers.items():
            moved = made == WARP
            if not moved.any():
                continue
            if motion is None:
                broken.append(
                    f"FrameDecisions.layers[{name!r}] must be RUN or KEEP, got WARP without the "
                    "Motion of the frames among evidence; add it, or keep the frame before"
                )
            elif (self.sources(name)[moved] != motion.keys[moved]).any():
                broken.append(
                    f"FrameDecisions.layers[{name!r}] must run in the key frame of each frame that "
                    "is WARP, and not after it, got another frame; run it in key frames"
                )
        return broken

    @property
    def motion(self) -> Motion | None:
        """What moves results, where anything does."""
        return next((each for each in self.evidence if isinstance(each, Motion)), None)

    def runs(self, layer: str) -> np.ndarray:
        """`(frames,)` bool, the frames in which a layer is computed."""
        made = self.layers.get(layer)
        return np.ones(self.frames, bool) if made is None else made == RUN

    def sources(self, layer: str) -> np.ndarray:
        """`(frames,)` int64, the frame in which each frame's result of a layer was computed."""
        return np.maximum.accumulate(np.where(self.runs(layer), np.arange(self.frames), 0))
