"""The leader table: vectors that are like one of a few leaders, which represent the rest."""

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
    register_byte_pj,
)


def _work_for_all_lanes(unit: LeaderTable) -> list[str]:
    most = unit.entries + unit.undecided
    if unit.lanes <= most:
        return []
    return [
        f"lanes must be at most what a vector is compared with, entries + undecided = {most}, got "
        f"{unit.lanes}; use {most} or less"
    ]


@dataclass(frozen=True, kw_only=True)
class LeaderTable(Unit):
    """Compares each vector with the leaders so far, which registers hold, by squared distance.

    Vectors come one after the other. A lane multiplies ``width`` elements of the vector by those of
    one leader and adds them up in a tree; a longer vector takes a step for each ``width`` elements,
    and more leaders than ``lanes`` take turns. The last few vectors may become leaders yet, as what
    they are is known ``latency_cycles`` after they came: a vector is compared with them as well,
    which counts if they do, and one that comes while ``undecided`` others wait has to wait itself.
    Whether c is near enough to x takes no division and no root::

        |x|^2 + |c|^2 - 2 x.c <= max(t |x|^2, floor)

    A leader's squared length is kept beside it; a vector's own is one more product, in a lane of
    its own. The nearest leader's cluster takes the vector; where none is near enough, the vector
    becomes a leader in place of the oldest, whose cluster is then complete. The sum of a cluster's
    members stays in a memory until then; it is divided and handed on. That memory has two places
    for each leader, so that the last sums of a tile are divided while the next one's vectors come.

    Pipeline registers are not priced, nor is what selects the leaders of a turn.

    Attributes:
        entries: leaders, 1 to 1024.
        max_length: elements of the longest vector that has a place, 1 to 4096.
        width: elements of a vector compared at once, 1 to 4096.
        lanes: comparisons at once, 1 to 1024; at most ``entries`` and ``undecided``, which is all.
        undecided: vectors before it that a vector is compared with before they are decided on, 0 to
            64; with 0 each waits for the one before it.
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
    undecided: int = field(default=1, metadata=integer(0, 64))
    means: bool = field(default=True, metadata=flag())
    divided_elements: int = field(default=8, metadata=integer(1, 4096))
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "lanes", "undecided"), _work_for_all_lanes),
    )

    def bill(self, design: Design) -> list[Item]:
        """Dot products a lane, and one more for squared lengths; tests; vectors kept; sums."""
        dots, operand = (self.lanes + 1) * self.width, design.operand_bits
        bits = dot_bits(design)
        # Leaders, vectors not decided on and the one that comes, each with its squared length and
        # its cluster's number.
        kept = self.entries + self.undecided + 1
        items = [
            Item(dots, "int_multiplier", {"bits": operand}),
            Item(dots, "int_adder", {"bits": bits}),
            # Of each lane the distance, and whether it is the least so far.
            Item(2 * self.lanes, "int_adder", {"bits": bits}),
            Item(self.lanes, "comparator", {"bits": bits}),
            # Whether the least is near enough.
            Item(1, "int_multiplier", {"bits": LEADING_BITS}),
            Item(1, "comparator", {"bits": bits}),
            Item(1, "register", {"bits": kept * (self.max_length * operand + bits + COUNT_BITS)}),
        ]
        if self.means:
            items += [
                Item(1, "sram", self._sums(design)),
                Item(self.width, "int_adder", {"bits": member_sum_bits(design)}),
                Item(self.divided_elements, "int_multiplier", {"bits": member_sum_bits(design)}),
            ]
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``correlate``: one element of a vector times one of a leader, read from its register, or of
        itself, added up; ``compare``: one distance, beside the least so far; ``judge``: the least
        of a vector's, whether it is near enough; ``keep``: one element of a vector written to a
        register, as it comes or as a leader's. With means also ``read_sums`` and ``write_sums``:
        ``width`` elements of one sum; ``accumulate``: one element added to its sum; ``divide``: one
        sum scaled by a reciprocal.
        """
        bits = dot_bits(design)
        register = register_byte_pj(table) * design.operand_bits / 8
        compare = table.energy_pj("comparator", "compare", bits=bits)
        prices = {
            "correlate": table.energy_pj("int_multiplier", "multiply", bits=design.operand_bits)
            + table.energy_pj("int_adder", "add", bits=bits)
            + register,
            "compare": 2 * table.energy_pj("int_adder", "add", bits=bits) + compare,
            "judge": table.energy_pj("int_multiplier", "multiply", bits=LEADING_BITS) + compare,
            "keep": register,
        }
        if self.means:
            sums, width = self._sums(design), member_sum_bits(design)
            prices |= {
                "read_sums": table.energy_pj("sram", "read", **sums),
                "write_sums": table.energy_pj("sram", "write", **sums),
                "accumulate": table.energy_pj("int_adder", "add", bits=width),
                "divide": table.energy_pj("int_multiplier", "multiply", bits=width),
            }
        return prices

    def _sums(self, design: Design) -> Size:
        """The memory of sums and members, of which an access moves ``width`` elements."""
        steps = -(-self.max_length // self.width)
        bits = self.width * member_sum_bits(design) + COUNT_BITS
        return memory(2 * self.entries * steps * bits, bits)
