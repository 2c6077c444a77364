"""A stage that frames pass as a whole: work that belongs to no product."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from accelerators import Accelerator, ConfigError
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.moved_maps import MovedMap
from simulator.timing.stages.stage import Work


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameStage(ABC):
    """What a unit does frame after frame, whatever the layers; a report has a line of it.

    Frames pass it one after the other, loads and stores of the next and the last beside it. As
    layers do not overlap, neither do these stages overlap with them. A stage of a user's own is a
    subclass under `@register`.

    Attributes:
        units: fields of an `Accelerator` whose units work in it.
        name: of its line in a report.
        track: its name in a schedule and on a timeline.
        frames: what was decided on frames.
        moved: the maps that hardware moves.
        accelerator: the design, which has the units.
    """

    units: ClassVar[tuple[str, ...]]
    name: ClassVar[str]
    track: ClassVar[str]

    frames: FrameDecisions
    moved: tuple[MovedMap, ...]
    accelerator: Accelerator

    def check(self) -> None:
        """Whether the units can do what was decided.

        Raises:
            ConfigError: they are too small.
        """

    @abstractmethod
    def work(self) -> Work:
        """What the stage does; numbers are `(frames,)` int64 or one for all frames."""


FRAME_STAGES: dict[str, type[FrameStage]] = {}
"""Field of an `Accelerator` -> the stage that frames pass in its unit."""

Registered = TypeVar("Registered", bound=type[FrameStage])


def register(kind: Registered) -> Registered:
    """Let frames pass a stage where decisions on them ask for one of its units.

    Raises:
        ConfigError: a unit works in another stage. A class that is loaded again takes its own
            place.
    """
    for unit in kind.units:
        known = FRAME_STAGES.get(unit)
        if known is not None and known.__qualname__ != kind.__qualname__:
            raise ConfigError(
                f"{kind.__name__}.units must be fields that no other stage has, got {unit!r}, "
                f"which works in {known.__name__}; give the unit a field of its own"
            )
    FRAME_STAGES.update(dict.fromkeys(kind.units, kind))
    return kind
