"""Weight tables: activations are summed first, by the value of their weight, then multiplied."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer
from accelerators.units.lanes import ADDRESS_BITS, sums_stay_in_the_array
from accelerators.units.unit import Design, Item, Unit, memory

SUM_GROWTH_BITS = 8
"""Of a finished sum beyond an operand: sums of up to 256 activations."""


@dataclass(frozen=True, kw_only=True)
class WeightTables(Unit):
    """Lets each unit of the array work a table off instead of multiplying every activation.

    A table says in which order the activations of a row are summed, where a sum ends, and what it
    is multiplied by; it stands for the weights of a few columns (``filters``) and lies in the
    weight buffer in their place. Units of one column of the array work the same table off, in step,
    each on a row of its own; each takes one operand of a sum a cycle, an activation from a bank of
    the activation buffer (a port) or a sum that it kept, and adds it by an adder of its own. A
    multiplier of its own, which takes sums that are 8 bits wider than an operand, multiplies a
    finished sum a cycle at most, beside the adder, and adds the product to one of ``filters``
    results. As UCNN's lanes do (Hegde et al., ISCA 2018), with more columns a table, and a memory
    of sums for tables that use one several times.

    Wires between banks and units are not priced; the array's own multipliers stand idle.

    Attributes:
        filters: columns of one table at most, 1 to 16.
        sums: that a unit keeps to use again, 0 to 65536. Sums of nested groups, one fewer than
            there are filters, have registers of their own.
    """

    words = "weight tables"
    colour = "#7a8f3c"
    exploits = True

    filters: int = field(default=1, metadata=integer(1, 16))
    sums: int = field(default=0, metadata=integer(0, 65536))

    OWNER_RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("array",), sums_stay_in_the_array),
    )

    def bill(self, design: Design) -> list[Item]:
        """Of each unit two adders, an adder of addresses, a multiplier, registers and kept sums; a
        word of the table, and the next, for each column of the array."""
        units = design.units["array"].rows * design.units["array"].columns
        accumulator = design.accumulator_bits
        # Results and sums of nested groups; the array's unit has one register already.
        kept = 2 * (self.filters - 1) * accumulator
        word = design.units["weight_buffer"].width_bits
        items = [
            Item(2 * units, "int_adder", {"bits": accumulator}),
            Item(units, "int_adder", {"bits": ADDRESS_BITS}),
            Item(units, "int_multiplier", {"bits": _multiplier_bits(design)}),
            Item(units, "register", {"bits": kept + accumulator + ADDRESS_BITS}),
            Item(design.units["array"].columns, "register", {"bits": 2 * word}),
        ]
        if self.sums:
            items.append(Item(units, "sram", self._sums(design)))
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``address``: an activation's place added up; ``add``: one added to a sum; ``multiply``: one
        finished sum multiplied and the product added to a result. Where sums are kept also
        ``read_sum`` and ``write_sum``.
        """
        add = table.energy_pj("int_adder", "add", bits=design.accumulator_bits)
        prices = {
            "address": table.energy_pj("int_adder", "add", bits=ADDRESS_BITS),
            "add": add,
            "multiply": add
            + table.energy_pj("int_multiplier", "multiply", bits=_multiplier_bits(design)),
        }
        if self.sums:
            prices |= {
                f"{action}_sum": table.energy_pj("sram", action, **self._sums(design))
                for action in ("read", "write")
            }
        return prices

    def _sums(self, design: Design) -> Size:
        """Sums that one unit keeps."""
        return memory(self.sums * design.accumulator_bits, design.accumulator_bits)


def _multiplier_bits(design: Design) -> float:
    """Of a square multiplier with as many cells as one of an operand and a finished sum."""
    return math.sqrt(design.operand_bits * (design.operand_bits + SUM_GROWTH_BITS))
