"""The neighbour matcher: vectors that are like one of their earlier neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, flag, integer
from accelerators.units.unit import (
    COUNT_BITS,
    LEADING_BITS,
    Design,
    Item,
    Unit,
    dot_bits,
    member_sum_bits,
    memory,
)

_EXPONENT_BITS = 8
# Of one comparison: dot^2, (t |a|)^2 |b|^2, r^2 times the greater square, and two that tell which
# of two neighbours is the more similar.
_MULTIPLIERS_OF_TEST = 5
# Of one comparison: similar enough, of like length, the most similar so far.
_COMPARATORS_OF_TEST = 3


def _an_entry_for_each_lane(unit: NeighbourMatcher) -> list[str]:
    if unit.line_entries >= unit.lanes:
        return []
    return [
        f"line_entries must be at least one for each of lanes={unit.lanes}, got "
        f"{unit.line_entries}; use {unit.lanes} or more"
    ]


@dataclass(frozen=True, kw_only=True)
class NeighbourMatcher(Unit):
    """Compares each vector with a few earlier ones, which a line buffer keeps, by their cosine.

    Vectors of up to ``width`` elements enter one a cycle; a longer one takes a cycle for each
    ``width`` elements, and as many entries. A lane multiplies ``width`` elements of the vector by
    those of one neighbour and adds them up in a tree. Whether the cosine of a and b is at least t
    and the shorter at least r times as long takes no division and no root::

        a.b >= 0   and   (a.b)^2 >= (t^2 |a|^2) |b|^2   and   min(|a|^2, |b|^2) >= r^2 max(...)

    Squared lengths are found once a vector, as it enters, and kept beside it; of two neighbours the
    more similar has the greater (a.b)^2 / |b|^2, told by products crosswise. Such a vector takes
    its neighbour's number, so that pointers are followed as they are made. While a cluster can
    still grow, which is as long as one of its members is in the line buffer, the sum of its
    members stays in a table of as many entries as that buffer; after that it is divided and handed
    on.

    Tests work on the 16 leading bits of dot products and squared lengths, with an exponent; what
    finds the leading bits is not priced, nor are pipeline registers. Banks of the line buffer hold
    neighbours apart, as Focus places them; their conflicts are not modelled.

    Attributes:
        width: elements of a vector compared at once, 1 to 4096.
        lanes: neighbours that a vector is compared with at once, 1 to 64; each has a bank of the
            line buffer.
        line_entries: vectors of ``width`` elements that the line buffer holds, 1 to 16777216; at
            least ``lanes``.
        means: whether members are summed up, so that a cluster has its mean; else its first member.
        latency_cycles: from a vector to its cluster's number, 0 to 10000; pipelined.
    """

    words = "neighbour matcher"
    colour = "#c9586a"
    exploits = True

    width: int = field(default=32, metadata=integer(1, 4096))
    lanes: int = field(default=1, metadata=integer(1, 64))
    line_entries: int = field(metadata=integer(1, 2**24))
    means: bool = field(default=True, metadata=flag())
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("lanes", "line_entries"), _an_entry_for_each_lane),
    )

    def bill(self, design: Design) -> list[Item]:
        """Dot products a lane, and one more for squared lengths; tests; line buffer; means."""
        dots, operand = (self.lanes + 1) * self.width, design.operand_bits
        items = [
            Item(dots, "int_multiplier", {"bits": operand}),
            Item(dots, "int_adder", {"bits": dot_bits(design)}),
            # One more multiplies a square by t^2.
            Item(self.lanes * _MULTIPLIERS_OF_TEST + 1, "int_multiplier", {"bits": LEADING_BITS}),
            Item(self.lanes * _COMPARATORS_OF_TEST, "comparator", {"bits": 2 * LEADING_BITS}),
            Item(self.lanes, "sram", self._line_bank(design)),
        ]
        if self.means:
            items += [
                Item(1, "sram", self._sums(design)),
                Item(self.width, "int_adder", {"bits": member_sum_bits(design)}),
                Item(self.width, "int_multiplier", {"bits": member_sum_bits(design)}),
            ]
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``correlate``: one element of a vector times one of another, or itself, added up; ``test``:
        one comparison judged; ``read_line`` and ``write_line``: one entry of the line buffer. With
        means also ``read_sums`` and ``write_sums``: one entry of the table; ``accumulate``: one
        element added to its sum; ``divide``: one sum scaled by a reciprocal.
        """
        multiply = table.energy_pj("int_multiplier", "multiply", bits=LEADING_BITS)
        compare = table.energy_pj("comparator", "compare", bits=2 * LEADING_BITS)
        prices = {
            "correlate": table.energy_pj("int_multiplier", "multiply", bits=design.operand_bits)
            + table.energy_pj("int_adder", "add", bits=dot_bits(design)),
            "test": _MULTIPLIERS_OF_TEST * multiply + _COMPARATORS_OF_TEST * compare,
        }
        memories = {"line": self._line_bank(design)}
        if self.means:
            memories["sums"] = self._sums(design)
            bits = member_sum_bits(design)
            prices["accumulate"] = table.energy_pj("int_adder", "add", bits=bits)
            prices["divide"] = table.energy_pj("int_multiplier", "multiply", bits=bits)
        for name, size in memories.items():
            for action in ("read", "write"):
                prices[f"{action}_{name}"] = table.energy_pj("sram", action, **size)
        return prices

    def _line_bank(self, design: Design) -> Size:
        """A lane's share of the line buffer: vectors, each with its squared length and number."""
        bits = self.width * design.operand_bits + LEADING_BITS + _EXPONENT_BITS + COUNT_BITS
        return memory(self.line_entries * bits / self.lanes, bits)

    def _sums(self, design: Design) -> Size:
        """The table: of each cluster a sum per element, its members, and those within reach."""
        bits = self.width * member_sum_bits(design) + 2 * COUNT_BITS
        return memory(self.line_entries * bits, bits)
