"""The difference unit: inputs less earlier ones, and which of them are none."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable, Size
from accelerators.rules import flag, integer
from accelerators.units.unit import Design, Item, Unit, register_byte_pj


@dataclass(frozen=True, kw_only=True)
class DifferenceUnit(Unit):
    """Subtracts an earlier input from each input, and marks what is left to multiply.

    A lane takes an input a cycle: where levels are told apart it scales and rounds it, subtracts
    what the results stand for, and compares the difference with a threshold. Marks of differences
    that count are gathered for rows, and for elements of k over the rows of a tile, so that the
    array is fed neither rows nor elements without any; this takes the lanes' width in bits a cycle.
    No silicon of such a unit is published: it is priced as its adders, comparators and multipliers.

    Not priced: the queue of places that marks become, pipeline registers.

    Attributes:
        lanes: inputs a cycle, 1 to 4096.
        quantises: whether it has the multipliers that bring inputs to levels.
        latency_cycles: from an input to its mark, 0 to 10000; pipelined.
    """

    words = "difference unit"
    colour = "#4f9a94"
    exploits = True

    lanes: int = field(default=64, metadata=integer(1, 4096))
    quantises: bool = field(default=True, metadata=flag())
    latency_cycles: int = field(default=4, metadata=integer(0, 10_000))

    def bill(self, design: Design) -> list[Item]:
        """A subtractor and a comparator a lane; to tell levels, a multiplier and a rounding adder.

        A difference has a bit more than an operand.
        """
        bits: Size = {"bits": design.operand_bits + 1}
        items = [
            Item(self.lanes, "int_adder", bits),
            Item(self.lanes, "comparator", bits),
        ]
        if self.quantises:
            items += [
                Item(self.lanes, "int_multiplier", {"bits": design.operand_bits}),
                Item(self.lanes, "int_adder", bits),
            ]
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``subtract``: one input, compared as well; ``mark``: a byte of marks gathered; and with
        levels ``quantise``: one input brought to its level.
        """
        bits = design.operand_bits + 1
        add = table.energy_pj("int_adder", "add", bits=bits)
        prices = {
            "subtract": add + table.energy_pj("comparator", "compare", bits=bits),
            "mark": register_byte_pj(table),
        }
        if self.quantises:
            multiply = table.energy_pj("int_multiplier", "multiply", bits=design.operand_bits)
            prices["quantise"] = multiply + add
        return prices
