"""What every unit of an accelerator gives: fields with rules, a bill, prices, words and a colour.

A unit is one file here and one field of :class:`accelerators.Accelerator`, or of a subclass of it
in a file of your own, as ``docs/own_unit.md`` shows: a class ``Sorter(Unit)``, and the field ::

    sorter: Sorter | None = field(default=None, metadata=part(Sorter, optional=True))

Its costs, its description and its sweep follow; ``accelerators.testing.UnitSuite`` checks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Protocol

from accelerators.cost_table import CostTable, Size
from accelerators.rules import ConfigError, Relation

THRESHOLD_BITS = 16
COUNT_BITS = 16
# Of a dot product or squared length, the leading bits that are multiplied on.
LEADING_BITS = 16
# A dot product of up to 65,536 elements, each a product of two operands.
_DOT_GROWTH_BITS = 16


class Design(Protocol):
    """What a unit reads of the accelerator that it is in, beside whatever else that has."""

    @property
    def operand_bits(self) -> int:
        """Bits of weights and activations."""

    @property
    def accumulator_bits(self) -> int:
        """Bits of partial sums."""

    @property
    def units(self) -> Mapping[str, Any]:
        """Field -> unit, of those that the design has."""


@dataclass(frozen=True)
class Item:
    """A number of equal components, as :class:`accelerators.CostTable` names and sizes them."""

    count: float
    component: str
    size: Size


@dataclass(frozen=True, kw_only=True)
class Unit(ABC):
    """The base of all units: a frozen dataclass, each of whose fields carries its rule.

    A unit does not check itself: the accelerator checks the whole tree when it is built, so that
    all broken rules come in one error. Vary a unit with ``dataclasses.replace``.

    Attributes:
        words: how pages call the unit; a field may call its own otherwise, see :class:`Part`.
        colour: ``#rrggbb`` on pages, likewise.
        exploits: whether the unit serves redundancy in data; ``without_reuse`` leaves it out.
        on_chip: whether its area and leakage are the chip's.
        RELATIONS: rules over several of its fields.
        OWNER_RELATIONS: rules over the design that has it, such as another unit that it needs.
    """

    words: ClassVar[str]
    colour: ClassVar[str]
    exploits: ClassVar[bool] = False
    on_chip: ClassVar[bool] = True
    RELATIONS: ClassVar[tuple[Relation, ...]] = ()
    OWNER_RELATIONS: ClassVar[tuple[Relation, ...]] = ()

    @abstractmethod
    def bill(self, design: Design) -> list[Item]:
        """Its components, from which area and leakage are priced; none if it has no silicon."""

    @abstractmethod
    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of ONE action of each kind, by the action's name."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The place that a class of designs has for a unit: a field of it.

    Attributes:
        unit: the class.
        words: how pages call the part; the unit's own unless ``part(..., words=...)`` says other.
        colour: likewise.
        exploits: likewise.
    """

    unit: type[Unit]
    words: str
    colour: str
    exploits: bool


def parts_of(kind: type) -> dict[str, Part]:
    """Field -> part of every unit that a dataclass of designs may have, those on the chip first.

    Raises:
        ConfigError: a unit says neither words nor a colour.
    """
    return dict(_parts_of(kind))


@cache
def _parts_of(kind: type) -> dict[str, Part]:
    found = {}
    for entry in fields(kind):
        unit = entry.metadata.get("part")
        if isinstance(unit, type) and issubclass(unit, Unit):
            said = {
                name: entry.metadata.get(name, getattr(unit, name, None))
                for name in ("words", "colour", "exploits")
            }
            missing = [name for name, value in said.items() if value is None]
            if missing:
                raise ConfigError(
                    f"{unit.__name__}.{' and '.join(missing)} must be given for pages, got "
                    'nothing; add class attributes such as words = "sorter", colour = "#7a6fd0"'
                )
            found[entry.name] = Part(unit=unit, **said)
    return dict(sorted(found.items(), key=lambda item: not item[1].unit.on_chip))


def memory(size_bits: float, width_bits: float) -> Size:
    """The size of an ``sram`` of so many bits, of which an access moves ``width_bits``."""
    return {"size_bytes": size_bits / 8, "width_bits": width_bits}


def register_byte_pj(table: CostTable) -> float:
    """One byte moved; the mean of a read and a write, which the built-in tables price the same."""
    return sum(table.energy_pj("register", action, bits=8) for action in ("read", "write")) / 2


def dot_bits(design: Design) -> int:
    """Width of the adders of a dot product of two vectors of operands."""
    return 2 * design.operand_bits + _DOT_GROWTH_BITS


def member_sum_bits(design: Design) -> int:
    """Width of a running sum of a cluster's members: 8 bits more than an operand (our choice).

    More than 256 equal rows of full-scale values would overflow a plain sum; design A of
    nmcicek/deepreuse-soc avoids it with a running mean, ``c += (x - c) / count``.
    """
    return design.operand_bits + 8
