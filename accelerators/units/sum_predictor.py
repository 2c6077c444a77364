"""The sum predictor: tells from a sum so far that the whole of it will not be above 0."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable, Size
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit, memory, register_byte_pj


@dataclass(frozen=True, kw_only=True)
class SumPredictor(Unit):
    """A comparator beside each unit of the array, and a small network where one predicts.

    A comparator holds its unit's sum against a threshold of the sum's column, or against 0, as
    often as it is asked, and then lets the unit end its sum. Thresholds lie in a memory, from which
    a unit's register takes that of the column that it works on, once an output. Where a network
    predicts instead, multipliers of its own compute it; where signs do, adders of its own add them.

    Orders in which columns are summed are no part of it: independent lanes have them.

    Attributes:
        thresholds: columns whose thresholds the memory holds, 1 to 1048576.
        multipliers: of the network, products a cycle, 0 to 65536; 0 for none.
        adders: of signs, signed numbers a cycle, 0 to 65536; 0 for none.
    """

    words = "sum predictor"
    colour = "#b98a2f"
    exploits = True

    thresholds: int = field(default=4096, metadata=integer(1, 2**20))
    multipliers: int = field(default=0, metadata=integer(0, 2**16))
    adders: int = field(default=0, metadata=integer(0, 2**16))

    def bill(self, design: Design) -> list[Item]:
        """Comparators and registers for units of the array, the memory; multipliers and adders."""
        array, bits = design.units["array"], design.accumulator_bits
        units = array.rows * array.columns
        items = [
            Item(units, "comparator", {"bits": bits}),
            Item(units, "register", {"bits": bits}),
            Item(1, "sram", self._memory(design)),
        ]
        if self.multipliers:
            items += [
                Item(self.multipliers, "int_multiplier", {"bits": design.operand_bits}),
                Item(self.multipliers, "int_adder", {"bits": bits}),
            ]
        if self.adders:
            items.append(Item(self.adders, "int_adder", {"bits": bits}))
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``check``: one sum against its threshold; ``threshold``: read and put into a register.
        With a network also ``multiply``: one product added; with adders ``add``: one signed number
        to a sum.
        """
        bits = design.accumulator_bits
        add = table.energy_pj("int_adder", "add", bits=bits)
        prices = {
            "check": table.energy_pj("comparator", "compare", bits=bits),
            "threshold": table.energy_pj("sram", "read", **self._memory(design))
            + register_byte_pj(table) * bits / 8,
        }
        if self.adders:
            prices["add"] = add
        if self.multipliers:
            multiply = table.energy_pj("int_multiplier", "multiply", bits=design.operand_bits)
            prices["multiply"] = multiply + add
        return prices

    def _memory(self, design: Design) -> Size:
        return memory(self.thresholds * design.accumulator_bits, design.accumulator_bits)
