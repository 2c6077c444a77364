"""Stages above the layers: units that look at whole frames, or work on them, around the layers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from accelerators import Accelerator
from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.frames import FrameDecisions
from simulator.timing.stages.stage import Work, enter
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class AboveStage(ABC):
    """What a unit does above the layers, frame after frame.

    Each kind of evidence of `FrameDecisions` passes the stages of its units. What a stage does is
    a row of its own in reports, beside the layers, under the name of its first unit; totals have it
    in them. A stage of a user's own is a subclass under `@register_above`.

    Attributes:
        units: fields of an `Accelerator` whose units work in it.
        evidence: what was looked at.
        frames: what was decided by it.
        layers: of the model, as they were captured.
        accelerator: the design, which has the units.
    """

    units: ClassVar[tuple[str, ...]]

    evidence: FrameEvidence
    frames: FrameDecisions
    layers: Sequence[Layer]
    accelerator: Accelerator

    def check(self) -> None:
        """Whether the units can do what was decided.

        Raises:
            ConfigError: they are too small.
        """

    @abstractmethod
    def work(self) -> Work:
        """What the stage does.

        Returns:
            Work whose numbers are of each frame, `(frames,)` int64 or such that broadcast to it;
            those of transfers are `(frames,)`. What it loads arrives while it works, and its
            frames do not overlap with each other or with any layer. The actions of transfers that
            name a buffer, and the DRAM's own, are counted for it.
        """


ABOVE: dict[str, type[AboveStage]] = {}
"""Field of an `Accelerator` -> the stage above the layers that its unit works in."""


Registered = TypeVar("Registered", bound=type[AboveStage])


def register_above(kind: Registered) -> Registered:
    """Let a unit work above the layers where evidence of frames asks for it; a decorator.

    Raises:
        ConfigError: a unit works in another such stage.
    """
    enter(kind, kind.units, ABOVE)
    return kind
