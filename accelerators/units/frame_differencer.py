"""The frame differencer: how much a whole frame differs from one that was held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer
from accelerators.units.unit import LEADING_BITS, Design, Item, Unit, dot_bits, memory

# An access moves an element for each lane, of 16 bits at most.
_ELEMENT_BYTES = 2


def _holds_one_access(unit: FrameDifferencer) -> list[str]:
    needed = unit.lanes * _ELEMENT_BYTES
    if unit.held_bytes == 0 or unit.held_bytes >= needed:
        return []
    return [
        f"held_bytes must be 0 or hold an element for each of lanes={unit.lanes}, got "
        f"{unit.held_bytes}; use 0 or at least {needed}"
    ]


@dataclass(frozen=True, kw_only=True)
class FrameDifferencer(Unit):
    """Sums up squared differences of a frame to one that was held, element by element.

    A lane subtracts, squares and adds. Sums of blocks are then weighted, one a cycle, in their 16
    leading bits; what finds these is not priced. It is the difference detector of NoScope (Kang et
    al., VLDB 2017), which measures the mean squared error to an empty scene or to an earlier frame;
    there it is software.

    Attributes:
        lanes: elements compared a cycle, 1 to 4096.
        held_bytes: of a memory for held frames, 0 to 1 GiB; where they do not fit, or with 0, they
            are read from the DRAM for each comparison.
        latency_cycles: from a frame's last element to the decision, 0 to 10000.
    """

    words = "frame differencer"
    colour = "#4f8f8b"
    exploits = True

    lanes: int = field(default=16, metadata=integer(1, 4096))
    held_bytes: int = field(default=0, metadata=integer(0, 2**30))
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("lanes", "held_bytes"), _holds_one_access),
    )

    def bill(self, design: Design) -> list[Item]:
        """A subtractor, a multiplier and an adder a lane; what weighs and compares; the memory."""
        items = [
            Item(self.lanes, "int_adder", {"bits": design.operand_bits + 1}),
            Item(self.lanes, "int_multiplier", {"bits": design.operand_bits + 1}),
            Item(self.lanes, "int_adder", {"bits": dot_bits(design)}),
            Item(1, "int_multiplier", {"bits": LEADING_BITS}),
            Item(1, "int_adder", {"bits": 2 * LEADING_BITS}),
            Item(1, "comparator", {"bits": 2 * LEADING_BITS}),
        ]
        if self.held_bytes:
            items.append(Item(1, "sram", self._memory(design)))
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``square``: one element subtracted, squared and added up; ``weigh``: one block's sum times
        its weight, added up; ``compare``: one threshold. With a memory also ``read_byte`` and
        ``write_byte``, of accesses of an element for each lane.
        """
        wide, double = {"bits": design.operand_bits + 1}, {"bits": 2 * LEADING_BITS}
        prices = {
            "square": table.energy_pj("int_adder", "add", **wide)
            + table.energy_pj("int_multiplier", "multiply", **wide)
            + table.energy_pj("int_adder", "add", bits=dot_bits(design)),
            "weigh": table.energy_pj("int_multiplier", "multiply", bits=LEADING_BITS)
            + table.energy_pj("int_adder", "add", **double),
            "compare": table.energy_pj("comparator", "compare", **double),
        }
        if self.held_bytes:
            size = self._memory(design)
            for action in ("read", "write"):
                energy = table.energy_pj("sram", action, **size)
                prices[f"{action}_byte"] = energy * 8 / size["width_bits"]
        return prices

    def _memory(self, design: Design) -> Size:
        return memory(8 * self.held_bytes, self.lanes * design.operand_bits)
