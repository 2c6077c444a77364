"""The result adder: what comes of differences, added to the results that they are taken from."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit


@dataclass(frozen=True, kw_only=True)
class ResultAdder(Unit):
    """Adds partial sums of a row to those of an earlier row, in the accumulators' width.

    Attributes:
        width: partial sums of one row a cycle, 1 to 4096.
    """

    words = "result adder"
    colour = "#9a7f4f"
    exploits = True

    width: int = field(default=64, metadata=integer(1, 4096))

    def bill(self, design: Design) -> list[Item]:
        """An adder for each partial sum of a cycle."""
        return [Item(self.width, "int_adder", {"bits": design.accumulator_bits})]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``add``: one partial sum added."""
        return {"add": table.energy_pj("int_adder", "add", bits=design.accumulator_bits)}
