"""The address list: which rows are computed, and from which the skipped ones are filled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, flag, integer
from accelerators.units.unit import Design, Item, Unit, memory


def _an_entry_for_each_port(unit: AddressList) -> list[str]:
    if unit.entries >= unit.ports:
        return []
    return [
        f"entries must be at least one for each of ports={unit.ports}, got {unit.entries}; "
        f"use {unit.ports} or more"
    ]


@dataclass(frozen=True, kw_only=True)
class AddressList(Unit):
    """An on-chip memory with an entry for each output position of a layer, chosen beforehand.

    An entry is the addresses of the computed rows whose results the position takes, in equal
    shares: a computed position names its own row alone, a skipped one the rows around it. Fewer
    than ``taps`` rows are named repeatedly, unless an entry says how many of its addresses count.
    The list is loaded before a layer, read in order of its positions, and a port is a bank of its
    own. What adds the results up, and shifts their sum to make it a mean, is another unit.

    Attributes:
        entries: output positions, 1 to 16777216.
        address_bits: of one row's address, 1 to 64.
        taps: rows that an entry names, 1 to 64.
        counted: whether an entry says how many of its addresses count: 1, 2, 4, ... up to ``taps``,
            so that the sum of their results is shifted by 0, 1, 2, ... bits.
        ports: entries read or written a cycle, 1 to 64; at most ``entries``.
    """

    words = "address list"
    colour = "#a8745a"
    exploits = True

    entries: int = field(metadata=integer(1, 2**24))
    address_bits: int = field(default=16, metadata=integer(1, 64))
    taps: int = field(default=1, metadata=integer(1, 64))
    counted: bool = field(default=False, metadata=flag())
    ports: int = field(default=1, metadata=integer(1, 64))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "ports"), _an_entry_for_each_port),
    )

    @property
    def entry_bits(self) -> int:
        """Bits of one entry, which an access moves."""
        # The number of addresses is told by its logarithm, 0 to log2(taps).
        count = (self.taps.bit_length() - 1).bit_length() if self.counted else 0
        return self.taps * self.address_bits + count

    def bill(self, design: Design) -> list[Item]:
        """A memory a port."""
        return [Item(self.ports, "sram", self._bank)]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``read`` and ``write``: all of one entry; writing is loading the list."""
        return {
            action: table.energy_pj("sram", action, **self._bank) for action in ("read", "write")
        }

    @property
    def _bank(self) -> Size:
        """One port's share."""
        return memory(self.entries * self.entry_bits / self.ports, self.entry_bits)
