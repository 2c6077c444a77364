"""NoScope's difference detectors: frames in which nothing changed give an earlier answer."""

from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, one_of, real, refuse, true_of, violations
from simulator.decisions.frame_evidence import FrameDifferences
from simulator.decisions.frames import FrameDecisions
from simulator.policies.frame_pixels import pixels_of, whole_frames
from simulator.policies.policy import LayerState, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

_AGAINST = ("earlier", "first", "answered")


@dataclass(frozen=True, kw_only=True)
class NoScope(ReusePolicy):
    """A frame whose pixels differ little from an earlier one's gives that one's answer.

    The difference detector of NoScope (Kang et al., VLDB 2017): the mean squared difference of a
    frame's pixels to those of a frame that was held, whole or as a weighted sum over blocks. The
    images of a batch are frames in a row; the first of each batch runs. Of `skip` frames one is
    looked at; those after it give its answer.

    The paper's cascade goes on with a small network for the one object that is asked for, which is
    trained for each video; none is here, so that what the detector lets pass runs the whole model.

    Against the frame `distance` before, a change that is slow enough never shows, however far it
    goes; against the latest frame that ran it does.

    Attributes:
        threshold: mean squared difference above which a frame runs, 0 to 1e30; in the units of the
            model's input, squared. Equal frames never run.
        against: `earlier`, the frame `distance` before, whatever gave its answer; `first`, the
            batch's first frame, which is to show the empty scene; or `answered`, the latest that
            ran.
        distance: frames (t_diff), 1 to 65536; for `earlier`. A frame that has fewer before it is
            compared with the first.
        skip: of so many frames one is looked at (t_skip), 1 to 65536.
        blocks: down and across that a frame is cut into, 1 to 64.
        weights: of the blocks' mean squared differences, `blocks` * `blocks` of them, row by row;
            none weighs all alike.

    Raises:
        ConfigError: at construction, with every broken rule; at `decide()`, where the inputs are
            not frames, or too small for the blocks.
    """

    threshold: float = field(metadata=real(0, 1e30))
    against: str = field(default="earlier", metadata=one_of(lambda: _AGAINST))
    distance: int = field(default=1, metadata=integer(1, 2**16))
    skip: int = field(default=1, metadata=integer(1, 2**16))
    blocks: int = field(default=1, metadata=integer(1, 64))
    weights: tuple[float, ...] = field(
        default=(),
        metadata=true_of(
            lambda given: (
                isinstance(given, tuple | list)
                and all(isinstance(each, int | float) and 0 <= each < 1e30 for each in given)
            ),
            "be numbers of at least 0",
            "give one for each block, or none",
        ),
    )

    def __post_init__(self) -> None:
        """Every block has its weight, or none has."""
        refuse(violations(self, "NoScope"))
        object.__setattr__(self, "weights", tuple(self.weights))
        if self.weights and len(self.weights) != self.blocks**2:
            raise ConfigError(
                f"NoScope.weights must be one for each of blocks={self.blocks} down and across, "
                f"got {len(self.weights)}; give {self.blocks**2}"
            )

    def applies_to(self, layer: Layer) -> bool:
        """To none: only frames are decided on."""
        return False

    def frames(self, trace: WorkloadTrace) -> FrameDecisions | None:
        """Frames that changed run; `None` of a single frame."""
        if trace.images == 1:
            return None
        pixels = pixels_of(trace, "NoScope")
        answers = np.arange(trace.images)
        compared = np.full(trace.images, -1)
        for frame in range(1, trace.images):
            looked = frame - frame % self.skip
            if looked != frame:
                answers[frame] = answers[looked]
                continue
            compared[frame] = other = self._other(frame, answers)
            if self.difference(pixels[frame], pixels[other]) <= self.threshold:
                answers[frame] = answers[other]
        held = np.isin(np.arange(trace.images), compared)
        looks = FrameDifferences(
            elements=pixels[0].size,
            blocks=self.blocks**2,
            comparisons=(compared >= 0).astype(np.int64),
            held=held,
            places=_places(compared),
        )
        return whole_frames(trace, answers, looks)

    def _other(self, frame: int, answers: np.ndarray) -> int:
        """The frame that one is compared with."""
        match self.against:
            case "earlier":
                return max(frame - self.distance, 0)
            case "first":
                return 0
            case "answered":
                return int(answers[frame - 1])
        raise AssertionError(self.against)

    def difference(self, one: np.ndarray, other: np.ndarray) -> float:
        """Weighted mean squared difference of two frames.

        Args:
            one: `(channels, height, width)`, or of any shape without blocks.
            other: likewise.
        """
        squared = np.subtract(one, other, dtype=np.float32)
        np.square(squared, out=squared)
        if self.blocks == 1:
            return float(squared.mean(dtype=np.float64)) * (self.weights or (1.0,))[0]
        if squared.ndim != 3 or min(squared.shape[1:]) < self.blocks:
            raise ConfigError(
                f"NoScope.blocks must be laid over frames of (channels, height, width), got "
                f"{self.blocks} for shape {squared.shape}; use fewer blocks"
            )
        down, across = (np.arange(self.blocks) * size // self.blocks for size in squared.shape[1:])
        sums = squared.sum(axis=0, dtype=np.float64)
        sums = np.add.reduceat(np.add.reduceat(sums, down, axis=0), across, axis=1)
        sizes = [
            np.diff([*starts, size])
            for starts, size in zip((down, across), squared.shape[1:], strict=True)
        ]
        means = sums / (np.outer(*sizes) * squared.shape[0])
        weights = self.weights or (1 / self.blocks**2,) * self.blocks**2
        return float(means.ravel() @ np.asarray(weights))

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions on the layers that run."""

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "noscope", **asdict(self), "weights": list(self.weights)}


def _places(compared: np.ndarray) -> int:
    """Frames that are held at a time, at most, each until it was compared for the last time.

    Args:
        compared: `(frames,)`, the frame that each is compared with; -1 for none.
    """
    last = np.zeros(len(compared), np.int64)
    looks = np.flatnonzero(compared >= 0)
    np.maximum.at(last, compared[looks], looks)
    held = np.flatnonzero(np.isin(np.arange(len(compared)), compared))
    return max((int(np.sum((held < at) & (last[held] >= at))) for at in looks), default=1)


register(
    Technique(
        name="noscope",
        title="NoScope's difference detector",
        axis="frames",
        word="keep",
        grain="frame",
        rule="A frame whose mean squared difference to an empty scene, or to an earlier frame, is "
        "no more than a threshold gives that one's answer, and no layer runs.",
        evidence="differences of pixels",
        source="Kang et al., NoScope, VLDB 2017",
        policy=NoScope,
        units=("frame_differencer",),
        trained="for the whole cascade a small network for each video, which is not here",
        published=("NoScope",),
        choices={
            "threshold": (0.003, 0.01, 0.03, 0.1, 0.3),
            "against": _AGAINST,
            "skip": (1, 2, 4),
        },
        start={"threshold": 0.03, "against": "answered"},
    )
)
