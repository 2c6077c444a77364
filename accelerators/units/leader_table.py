"""The leader table: vectors that are like one of a few leaders, which represent the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, flag, integer
from accelerators.units.unit import COUNT_BITS, Design, Item, Unit, memory, register_byte_pj

# A dot product of up to 65,536 elements, each a product of two operands.
_DOT_GROWTH_BITS = 16
# Of a squared length, the leading bits that the tolerance multiplies.
_LEADING_BITS = 16


def _leaders_for_all_lanes(unit: LeaderTable) -> list[str]:
    if unit.entries >= unit.lanes:
        return []
    return [
        f"lanes must be at most the leaders, entries={unit.entries}, got {unit.lanes}; "
        f"use {unit.entries} or less"
    ]


@dataclass(frozen=True, kw_only=True)
class LeaderTable(Unit):
    """Compares each vector with the leaders so far, which registers hold, by squared distance.

    Vectors come one after the other. A lane multiplies ``width`` elements of the vector by those of
    one leader and adds them up in a tree; a longer vector takes a step for each ``width`` elements,
    and more leaders than ``lanes`` take turns. Whether c is near enough to x takes no division and
    no root::

        |x|^2 + |c|^2 - 2 x.c <= max(t |x|^2, floor)

    A leader's squared length is kept beside it; a vector's own is one more product, in a lane of
    its own. The nearest leader's cluster takes the vector; where none is near enough, the vector
    becomes a leader in place of the oldest, whose cluster is then complete. The sum of a cluster's
    members stays in a memory with a place for each leader until then; it is divided and handed on.

    Pipeline registers are not priced.

    Attributes:
        entries: leaders, 1 to 1024.
        max_length: elements of the longest vector that has a place, 1 to 4096.
        width: elements of a vector compared at once, 1 to 4096.
        lanes: leaders that a vector is compared with at once, 1 to 1024; at most ``entries``.
        means: whether members are summed up, so that a cluster has its mean; else its leader.
        divided_elements: of a sum, divided a cycle as it is handed on, 1 to 4096.
        latency_cycles: from a vector to its cluster's number, 0 to 10000.
    """

    words = "leader table"
    colour = "#5f8dd3"
    exploits = True

    entries: int = field(default=16, metadata=integer(1, 1024))
    max_length: int = field(metadata=integer(1, 4096))
    width: int = field(default=64, metadata=integer(1, 4096))
    lanes: int = field(default=4, metadata=integer(1, 1024))
    means: bool = field(default=True, metadata=flag())
    divided_elements: int = field(default=8, metadata=integer(1, 4096))
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "lanes"), _leaders_for_all_lanes),
    )

    def bill(self, design: Design) -> list[Item]:
        """Dot products a lane, and one more for squared lengths; tests; leaders; sums."""
        dots, operand = (self.lanes + 1) * self.width, design.operand_bits
        bits = _dot_bits(design)
        items = [
            Item(dots, "int_multiplier", {"bits": operand}),
            Item(dots, "int_adder", {"bits": bits}),
            # The distance, and the nearest so far.
            Item(2 * self.lanes, "int_adder", {"bits": bits}),
            Item(self.lanes + 1, "comparator", {"bits": bits}),
            Item(1, "int_multiplier", {"bits": _LEADING_BITS}),
            Item(1, "register", {"bits": self.entries * (self.max_length * operand + bits)}),
        ]
        if self.means:
            items += [
                Item(1, "sram", self._sums(design)),
                Item(self.width, "int_adder", {"bits": _sum_bits(design)}),
                Item(self.divided_elements, "int_multiplier", {"bits": _sum_bits(design)}),
            ]
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``correlate``: one element of a vector times one of a leader, read from its register, or of
        itself, added up; ``test``: one comparison judged; ``lead``: one element of a vector kept as
        a leader's. With means also ``read_sums`` and ``write_sums``: ``width`` elements of one sum;
        ``accumulate``: one element added to its sum; ``divide``: one sum scaled by a reciprocal.
        """
        bits = _dot_bits(design)
        register = register_byte_pj(table) * design.operand_bits / 8
        prices = {
            "correlate": table.energy_pj("int_multiplier", "multiply", bits=design.operand_bits)
            + table.energy_pj("int_adder", "add", bits=bits)
            + register,
            "test": 2 * table.energy_pj("int_adder", "add", bits=bits)
            + table.energy_pj("comparator", "compare", bits=bits),
            "lead": register,
        }
        if self.means:
            sums = self._sums(design)
            prices |= {
                "read_sums": table.energy_pj("sram", "read", **sums),
                "write_sums": table.energy_pj("sram", "write", **sums),
                "accumulate": table.energy_pj("int_adder", "add", bits=_sum_bits(design)),
                "divide": table.energy_pj("int_multiplier", "multiply", bits=_sum_bits(design)),
            }
        return prices

    def _sums(self, design: Design) -> Size:
        """The memory of sums and members, of which an access moves ``width`` elements."""
        steps = -(-self.max_length // self.width)
        bits = self.width * _sum_bits(design) + COUNT_BITS
        return memory(self.entries * steps * bits, bits)


def _dot_bits(design: Design) -> int:
    """Width of the adders of a dot product."""
    return 2 * design.operand_bits + _DOT_GROWTH_BITS


def _sum_bits(design: Design) -> int:
    """Width of a sum of members, as in the centroid cache."""
    return design.operand_bits + 8
