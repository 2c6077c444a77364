"""The reconstructor: results of centroids, handed out to the rows that share them."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit


@dataclass(frozen=True, kw_only=True)
class Reconstructor(Unit):
    """Gathers result rows of centroids and adds them up into the rows that share them.

    Attributes:
        ports: rows gathered a cycle, 1 to 64.
        width: partial sums of one row gathered a cycle, 1 to 4096.
    """

    words = "reconstructor"
    colour = "#b3589f"
    exploits = True

    ports: int = field(default=1, metadata=integer(1, 64))
    width: int = field(default=64, metadata=integer(1, 4096))

    def bill(self, design: Design) -> list[Item]:
        """An adder for each partial sum of a cycle."""
        return [Item(self.ports * self.width, "int_adder", {"bits": design.accumulator_bits})]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``add``: one partial sum added."""
        return {"add": table.energy_pj("int_adder", "add", bits=design.accumulator_bits)}
