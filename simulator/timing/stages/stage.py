"""A stage that tiles pass: which unit it is, what it takes, and the stages that there are."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from accelerators import Accelerator, ConfigError
from accelerators.rules import choose, show
from simulator.timing.engines.engine import Engine
from simulator.timing.remaining import Remaining
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer

Place = Literal["before", "beside", "after"]
Counts = Mapping[tuple[str, str], int]


def _nothing_done() -> Counts:
    return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What a stage does on a layer's tiles; numbers are of each tile, int64 or broadcast to it.

    Attributes:
        limits: name of a unit or buffer -> cycles that it alone would hold a tile up; the largest
            is the tile's occupancy, and its name is to blame, the first of several.
        occupancy_cycles: until the stage takes the next tile, where that is more than the largest;
            not beside the array.
        latency_cycles: after these, until the tile's results are there.
        busy_cycles: name of a unit -> cycles in which it works.
        transfers: what the stage itself loads from the DRAM, or stores there.
        actions: gives what is done for all tiles, (part, action) -> how often, as
            `accelerators.energy_per_action` prices it. Asked once, for the cut that is taken.
    """

    limits: Mapping[str, Any]
    occupancy_cycles: Any = None
    latency_cycles: Any = 0
    busy_cycles: Mapping[str, Any]
    transfers: tuple[Transfer, ...] = ()
    actions: Callable[[], Counts] = field(default=_nothing_done)


def beside(works: Sequence[Work]) -> Work:
    """The work of the array with what works beside it, as one."""
    if len(works) == 1:
        return works[0]
    limits: dict[str, Any] = {}
    for work in works:
        for name, cycles in work.limits.items():
            limits[name] = limits[name] + cycles if name in limits else cycles
    return Work(
        limits=limits,
        latency_cycles=sum(work.latency_cycles for work in works),
        busy_cycles={},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage(ABC):
    """One step on the way of every tile through a design, made anew for each layer.

    A layer's tiles pass the stages of the units that its decisions ask for (`Decisions.units`):
    those before the array, the array with those beside it, those after it; each in the order in
    which the units are asked for. Between two stages lies a double buffer. What works beside the
    array has none: it works on the array's own tile, in the same buffers, and what both take of
    one buffer's ports adds up; its latency, to the array's. A stage of a user's own is a subclass
    under `@register`.

    Attributes:
        units: fields of an `Accelerator` whose units work in it.
        track: its name in a schedule and on a timeline, where it is not beside the array.
        left: the layer, with what its decisions leave of it.
        accelerator: the design, which has the units.
        engine: finds cycles that depend on what comes when.
    """

    units: ClassVar[tuple[str, ...]]
    track: ClassVar[str]

    left: Remaining
    accelerator: Accelerator
    engine: Engine

    @property
    def place(self) -> Place:
        """Where tiles pass it: before, beside or after the array."""
        return "before"

    def check(self) -> None:
        """Whether the units can do what was decided.

        Raises:
            ConfigError: they are of another kind, or too small.
        """

    @abstractmethod
    def work(self, tiles: Tiles) -> Work:
        """What the stage does on the tiles of one cut."""


_SHIPPED = f"{__name__.rpartition('.')[0]}."


def work_of(stage: Stage, tiles: Tiles) -> Work:
    """The stage's work on the tiles; that of a user's own stage is checked.

    Raises:
        ConfigError: see `sound`.
    """
    return sound(stage.work(tiles), type(stage), stage.accelerator, tiles.shape, "the tiles'")


def sound(
    work: Work, kind: type, accelerator: Accelerator, shape: tuple[int, ...], whose: str
) -> Work:
    """A stage's work, which is checked where the stage is a user's own.

    Args:
        work: what it gave.
        kind: its class.
        accelerator: the design.
        shape: that of the numbers.
        whose: shape that is, for messages.

    Raises:
        ConfigError: the work is no `Work`, names what is no unit of the design, or holds cycles
            that are not whole, negative, or not of the shape.
    """
    if kind.__module__.startswith(_SHIPPED):
        return work
    path = f"{kind.__name__}.work"
    if not isinstance(work, Work):
        raise ConfigError(f"{path} must give Work, got {show(work)}; give Work(limits=...)")
    named = {"limits": work.limits, "busy_cycles": work.busy_cycles}
    single = {"occupancy_cycles": work.occupancy_cycles, "latency_cycles": work.latency_cycles}
    parts = accelerator.parts()
    problems = [
        f"{path}: {place} must name units of the design, got {show(name)}; "
        f"{choose(str(name), list(parts))}"
        for place, table in named.items()
        for name in table
        if name not in parts
    ]
    found = {f"{place}[{name!r}]": x for place, table in named.items() for name, x in table.items()}
    found |= {place: cycles for place, cycles in single.items() if cycles is not None}
    for place, cycles in found.items():
        given = np.asarray(cycles)
        told = f"{given.dtype} of shape {given.shape}"
        if given.dtype.kind in "iu" and _fits(given.shape, shape):
            told = f"{given.min()}" if given.size and given.min() < 0 else ""
        if told:
            problems.append(
                f"{path}: {place} must be whole cycles of at least 0, one number or of {whose} "
                f"shape {shape}, got {told}; use integers, as -(-a // b) rounds up"
            )
    if problems:
        raise ConfigError(problems)
    return work


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether an array broadcasts to a shape."""
    try:
        return np.broadcast_shapes(shape, whole) == whole
    except ValueError:
        return False


STAGES: dict[str, type[Stage]] = {}
"""Field of an `Accelerator` -> the stage that its unit works in."""


Registered = TypeVar("Registered", bound=type[Stage])


def register(kind: Registered) -> Registered:
    """Let tiles pass a stage where decisions ask for one of its units; a decorator of its class.

    Raises:
        ConfigError: a unit works in another stage. A class that is loaded again takes its own
            place.
    """
    enter(kind, kind.units, STAGES)
    return kind


def enter(kind: type, units: tuple[str, ...], known_stages: dict[str, Any]) -> None:
    """Enter a class of stages under each of its units; see `register`."""
    for unit in units:
        known = known_stages.get(unit)
        if known is not None and known.__qualname__ != kind.__qualname__:
            raise ConfigError(
                f"{kind.__name__}.units must be fields that no other stage has, got {unit!r}, "
                f"which works in {known.__name__}; give the unit a field of its own"
            )
    known_stages.update(dict.fromkeys(units, kind))
