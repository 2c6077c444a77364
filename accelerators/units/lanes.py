"""Independent lanes: every unit of the array sums an output of its own, at its own pace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer
from accelerators.units.unit import Design, Item, Unit, memory

ADDRESS_BITS = 24
"""Of an element's place in a buffer that units address by themselves: 16 Mi elements."""

DATAFLOW, FOLD_TIMING = "output_stationary", "overlapped"
"""Of an array whose units keep their sums and can be told apart: each has one output."""


def sums_stay_in_the_array(design: Any) -> list[str]:
    """What a unit asks of the array whose units it lets work by themselves."""
    return [
        f"array.{name} must be {wanted!r} for units that each have an output of their own, got "
        f"{given!r}; use {wanted!r}"
        for name, wanted, given in (
            ("dataflow", DATAFLOW, design.array.dataflow),
            ("fold_timing", FOLD_TIMING, design.array.fold_timing),
        )
        if given != wanted
    ]


@dataclass(frozen=True, kw_only=True)
class IndependentLanes(Unit):
    """Makes a lane of each unit of the array: it ends its sum when it likes and takes the next.

    A lane has an index into the order of its column's elements, and makes the addresses of its
    activations with it. It reads them one by one from the activation buffer, each port of which is
    a bank that any lane reaches; weights, which lie in the order of the sum, come a word of the
    weight buffer at a time, with as many indices from the order memory: the lane holds a word of
    both, and the next. No lane hands an operand on to another, so nothing that is read serves two.

    The order memory has an index for each weight that the weight buffer holds, in as many banks.

    Wires between banks and lanes are not priced.

    Attributes:
        index_bits: of an index into the k elements of a sum, 1 to 24.
    """

    words = "independent lanes"
    colour = "#c0563f"
    exploits = True

    index_bits: int = field(default=13, metadata=integer(1, ADDRESS_BITS))

    OWNER_RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("array",), sums_stay_in_the_array),
    )

    def bill(self, design: Design) -> list[Item]:
        """The order memory; of each lane a counter, an adder of addresses and words held."""
        lanes = design.units["array"].rows * design.units["array"].columns
        held = 2 * word_weights(design) * (design.operand_bits + self.index_bits)
        return [
            Item(design.units["weight_buffer"].ports, "sram", self._bank(design)),
            # Where in the order the lane is, and the address that this gives.
            Item(lanes, "int_adder", {"bits": self.index_bits}),
            Item(lanes, "int_adder", {"bits": ADDRESS_BITS}),
            Item(lanes, "register", {"bits": held + self.index_bits + ADDRESS_BITS}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``address``: one product's index counted up, read from its register and added;
        ``read_order``, ``write_order``: a word of indices from or to the order memory."""
        register = table.energy_pj("register", "read", bits=self.index_bits)
        return {
            "address": table.energy_pj("int_adder", "add", bits=self.index_bits)
            + table.energy_pj("int_adder", "add", bits=ADDRESS_BITS)
            + register,
            "read_order": table.energy_pj("sram", "read", **self._bank(design)),
            "write_order": table.energy_pj("sram", "write", **self._bank(design)),
        }

    def _bank(self, design: Design) -> Size:
        """Indices beside one bank of the weight buffer, of which an access moves a word."""
        buffer = design.units["weight_buffer"]
        weights = 8 * buffer.capacity_bytes / buffer.ports / design.operand_bits
        return memory(weights * self.index_bits, word_weights(design) * self.index_bits)


def word_weights(design: Design) -> int:
    """Weights that one access of the weight buffer moves."""
    return max(1, design.units["weight_buffer"].width_bits // design.operand_bits)
