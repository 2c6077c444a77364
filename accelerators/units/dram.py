"""The memory outside the chip, and what a byte moved to or from it takes (``data/dram.csv``)."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from accelerators.cost_table import CostTable
from accelerators.rules import ConfigError, choose, integer, one_of, quoted, real, show
from accelerators.units.unit import Design, Item, Unit


@cache
def _prices() -> dict[str, float]:
    """``{kind: pJ per byte}`` in the file's order."""
    text = (resources.files("accelerators") / "data" / "dram.csv").read_text(encoding="utf-8")
    return {
        row["kind"]: float(row["energy_pj_per_byte"]) for row in csv.DictReader(text.splitlines())
    }


@cache
def dram_kinds() -> tuple[str, ...]:
    """Every kind that :class:`Dram` may name."""
    return tuple(_prices())


def dram_energy_pj_per_byte(kind: str) -> float:
    """Energy of one byte read from or written to DRAM, in pJ.

    Args:
        kind: a row of ``data/dram.csv``, with its citation there.

    Raises:
        ConfigError: the kind is unknown; the message names the nearest one.
    """
    if isinstance(kind, str) and kind in _prices():
        return _prices()[kind]
    raise ConfigError(
        f"Dram.kind must be {quoted(dram_kinds())}, got {show(kind, str)}; "
        f"{choose(kind, dram_kinds())}"
    )


@dataclass(frozen=True, kw_only=True)
class Dram(Unit):
    """Memory outside the chip: a bandwidth, a latency, a burst and an energy per byte.

    Rows, banks, refresh and standby power are not modelled; its area is not on the chip. Transfers
    follow each other without a gap: the latency delays the arrival of data, not the next transfer.

    Attributes:
        bandwidth_bytes_per_cycle: in cycles of the accelerator's clock, 0.001 to 65536.
        kind: a row of ``data/dram.csv``, which prices a byte.
        latency_cycles: from a transfer's last byte on the bus to its use on the chip, 0 to 100000.
        burst_bytes: a transfer moves whole bursts, 1 to 65536.
    """

    words = "DRAM"
    colour = "#8b929c"
    on_chip = False

    bandwidth_bytes_per_cycle: float = field(metadata=real(0.001, 65536))
    kind: str = field(default="focus_2026", metadata=one_of(dram_kinds))
    latency_cycles: int = field(default=0, metadata=integer(0, 100_000))
    burst_bytes: int = field(default=1, metadata=integer(1, 65536))

    def bill(self, design: Design) -> list[Item]:
        """Nothing on the chip."""
        return []

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``read_byte`` and ``write_byte``, which cost the same, whatever the cost table."""
        return dict.fromkeys(("read_byte", "write_byte"), dram_energy_pj_per_byte(self.kind))
