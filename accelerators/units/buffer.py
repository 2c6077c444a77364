"""An on-chip memory between two blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer
from accelerators.units.unit import Design, Item, Unit, memory

MAX_BUFFER_BYTES = 2**30  # 1 GiB, a thousand times any on-chip buffer: catches bytes given as bits


def _holds_one_access(buffer: SramBuffer) -> list[str]:
    needed = buffer.bytes_per_cycle
    if buffer.capacity_bytes >= needed:
        return []
    ports = "" if buffer.ports == 1 else f"on each of ports={buffer.ports} "
    return [
        f"capacity_bytes must hold one access {ports}of width_bits={buffer.width_bits}, "
        f"got {buffer.capacity_bytes}; use {needed} or more"
    ]


@dataclass(frozen=True, kw_only=True)
class SramBuffer(Unit):
    """An on-chip memory between two blocks, double-buffered by its user.

    Attributes:
        capacity_bytes: all of it, both halves of a double buffer, 1 byte to 1 GiB.
        width_bits: bits moved by one access, a multiple of 8 from 8 to 4096.
        ports: accesses a cycle, 1 to 1024; each is a bank of its own.
    """

    words = "buffer"
    colour = "#86b0e0"

    capacity_bytes: int = field(metadata=integer(1, MAX_BUFFER_BYTES))
    width_bits: int = field(default=64, metadata=integer(8, 4096, multiple_of=8))
    ports: int = field(default=1, metadata=integer(1, 1024))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("capacity_bytes", "width_bits", "ports"), _holds_one_access),
    )

    @property
    def bytes_per_cycle(self) -> int:
        """Bytes that all ports move in a cycle."""
        return self.ports * self.width_bits // 8

    def bill(self, design: Design) -> list[Item]:
        """A memory a port."""
        return [Item(self.ports, "sram", self._bank)]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``read_byte`` and ``write_byte``: an access of the full width over its bytes, so a partly
        used access must be counted in full by the caller."""
        return {
            f"{action}_byte": table.energy_pj("sram", action, **self._bank) * 8 / self.width_bits
            for action in ("read", "write")
        }

    @property
    def _bank(self) -> Size:
        """One port's share."""
        return memory(8 * self.capacity_bytes / self.ports, self.width_bits)
