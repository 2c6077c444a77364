"""Energy of a byte moved to or from memory outside the chip, by kind (``data/dram.csv``)."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

from accelerators.rules import ConfigError, choose, quoted, show


@cache
def _prices() -> dict[str, float]:
    """``{kind: pJ per byte}`` in the file's order."""
    text = (resources.files("accelerators") / "data" / "dram.csv").read_text(encoding="utf-8")
    return {
        row["kind"]: float(row["energy_pj_per_byte"]) for row in csv.DictReader(text.splitlines())
    }


@cache
def dram_kinds() -> tuple[str, ...]:
    """Every kind that :class:`accelerators.Dram` may name."""
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
