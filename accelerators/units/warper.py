"""The warper: maps of the key frame, moved by motion vectors."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable, Size
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit, memory

TAPS = 4
"""Values that one moved value comes from, bilinearly."""


@dataclass(frozen=True, kw_only=True)
class Warper(Unit):
    """Makes each value of a moved map from four of the key frame's, by bilinear weights.

    A lane takes four multiplications and three additions a cycle; lanes work on neighbouring
    channels of one position. The memory has a bank for each tap, and holds the key frame's maps, or
    a band of rows of one, which is then loaded from the DRAM for each frame. Values are kept as
    they are: EVA2 (Buckler et al., ISCA 2018) codes their zeros by run length.

    That two taps may lie in one bank is not modelled; what finds weights and places is not priced.

    Attributes:
        lanes: values a cycle, 1 to 4096.
        capacity_bytes: of the memory, 1 byte to 1 GiB.
        latency_cycles: from a map's last taps to its last value, 0 to 10000.
    """

    words = "warper"
    colour = "#c08a4e"
    exploits = True

    lanes: int = field(default=32, metadata=integer(1, 4096))
    capacity_bytes: int = field(metadata=integer(1, 2**30))
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    def bill(self, design: Design) -> list[Item]:
        """Multipliers and adders of all lanes, and a memory a tap."""
        bits = design.operand_bits
        return [
            Item(TAPS * self.lanes, "int_multiplier", {"bits": bits}),
            Item((TAPS - 1) * self.lanes, "int_adder", {"bits": 2 * bits}),
            Item(TAPS, "sram", self._bank(design)),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``interpolate``: one value; ``read_map`` and ``write_map``: a word of ``lanes`` values of
        one bank."""
        bits, bank = design.operand_bits, self._bank(design)
        return {
            "interpolate": TAPS * table.energy_pj("int_multiplier", "multiply", bits=bits)
            + (TAPS - 1) * table.energy_pj("int_adder", "add", bits=2 * bits),
            "read_map": table.energy_pj("sram", "read", **bank),
            "write_map": table.energy_pj("sram", "write", **bank),
        }

    def _bank(self, design: Design) -> Size:
        """One tap's share."""
        return memory(8 * self.capacity_bytes / TAPS, self.lanes * design.operand_bits)
