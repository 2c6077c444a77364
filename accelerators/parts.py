"""The parts of an accelerator: what each block is, with the rules its numbers must keep.

A part does not check itself: :class:`accelerators.Accelerator` checks the whole tree when it is
built, so that all broken rules come in one error. Vary a part with ``dataclasses.replace``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.dram import dram_kinds
from accelerators.rules import Relation, integer, one_of, real

DATAFLOWS = ("weight_stationary",)
"""Which operand stays in the array; one in this release."""

PROJECTIONS = ("sign", "int8")
"""What a hash multiplies an element by: +1 or -1 (an adder), or an int8 coefficient."""

MAX_BUFFER_BYTES = 2**30  # 1 GiB, a thousand times any on-chip buffer: catches bytes given as bits

MAX_WAYS = 1024


def _dataflows() -> tuple[str, ...]:
    return DATAFLOWS


def _projections() -> tuple[str, ...]:
    return PROJECTIONS


@dataclass(frozen=True, kw_only=True)
class SystolicArray:
    """A grid of multiply-accumulate units; each holds a weight, an activation and a partial sum.

    Attributes:
        rows: units along the reduction dimension, 1 to 4096.
        columns: units along the output dimension, 1 to 4096.
        dataflow: which operand stays, ``"weight_stationary"``.
    """

    rows: int = field(metadata=integer(1, 4096))
    columns: int = field(metadata=integer(1, 4096))
    dataflow: str = field(default="weight_stationary", metadata=one_of(_dataflows))


def _holds_one_access(buffer: SramBuffer) -> list[str]:
    needed = buffer.width_bits // 8
    if buffer.capacity_bytes >= needed:
        return []
    return [
        f"capacity_bytes must hold one access of width_bits={buffer.width_bits}, "
        f"got {buffer.capacity_bytes}; use {needed} or more"
    ]


@dataclass(frozen=True, kw_only=True)
class SramBuffer:
    """An on-chip memory between two blocks, double-buffered by its user.

    Attributes:
        capacity_bytes: all of it, both halves of a double buffer, 1 byte to 1 GiB.
        width_bits: bits moved by one access, a multiple of 8 from 8 to 4096.
    """

    capacity_bytes: int = field(metadata=integer(1, MAX_BUFFER_BYTES))
    width_bits: int = field(default=64, metadata=integer(8, 4096, multiple_of=8))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("capacity_bytes", "width_bits"), _holds_one_access),
    )


@dataclass(frozen=True, kw_only=True)
class Dram:
    """Memory outside the chip: a bandwidth and an energy per byte.

    Rows, banks, refresh and standby power are not modelled; its area is not on the chip.

    Attributes:
        bandwidth_bytes_per_cycle: in cycles of the accelerator's clock, 0.001 to 65536.
        kind: a row of ``data/dram.csv``, which prices a byte.
    """

    bandwidth_bytes_per_cycle: float = field(metadata=real(0.001, 65536))
    kind: str = field(default="focus_2026", metadata=one_of(dram_kinds))


@dataclass(frozen=True, kw_only=True)
class LshFrontEnd:
    """Hashes sub-vectors: every lane takes one sub-vector a cycle, whatever its length.

    A lane is ``max_hashes x max_length`` adders (``"sign"``) or int8 multipliers with adders
    (``"int8"``); shorter sub-vectors and fewer hashes leave units idle.

    Attributes:
        max_hashes: bits of the longest signature, 1 to 62 (a signature is one signed 64-bit word).
        max_length: elements of the longest sub-vector, 1 to 4096.
        lanes: sub-vectors hashed a cycle, 1 to 256.
        projection: ``"sign"`` (+-1 coefficients) or ``"int8"``.
        latency_cycles: from a sub-vector to its signature, 0 to 10000; pipelined, its registers
            are not priced.
    """

    max_hashes: int = field(metadata=integer(1, 62))
    max_length: int = field(metadata=integer(1, 4096))
    lanes: int = field(default=1, metadata=integer(1, 256))
    projection: str = field(default="sign", metadata=one_of(_projections))
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))


def _ways_divide_entries(cache: CentroidCache) -> list[str]:
    if cache.entries % cache.ways == 0:
        return []
    return [
        f"ways must divide entries={cache.entries}, got {cache.ways}; "
        f"use {_divisors_beside(cache.entries, cache.ways)}"
    ]


def _divisors_beside(entries: int, ways: int) -> str:
    """The nearest divisors of ``entries`` below and above ``ways``, even ones where there are.

    Sets are built from pairs of ways, so an even divisor is the better advice: 4 or 10 for 8 ways
    of 100 entries, where 5 divides too.
    """
    small = [number for number in range(1, int(entries**0.5) + 1) if entries % number == 0]
    every = {*small, *(entries // number for number in small)}
    divisors = sorted(number for number in every if number <= MAX_WAYS)
    beside: list[int] = []
    for side in ([d for d in divisors[::-1] if d < ways], [d for d in divisors if d > ways]):
        beside.extend(([d for d in side if d % 2 == 0] or side)[:1])
    return " or ".join(str(number) for number in beside)


@dataclass(frozen=True, kw_only=True)
class CentroidCache:
    """A set-associative table from signatures to running sums of the rows that share them.

    The least recently used entry of a set is replaced.

    Attributes:
        entries: clusters held at once, 1 to 16777216.
        ways: entries of one set, 1 to 1024; must divide ``entries``.
        accesses_per_cycle: banks, each with its own tags, comparators and adders, 1 to 64.
        clear_entries_per_cycle: valid bits cleared a cycle between sub-vectors, 1 to 16777216.
        miss_cycles: that one miss holds its entry, 0 to 10000.
    """

    entries: int = field(metadata=integer(1, 2**24))
    ways: int = field(metadata=integer(1, MAX_WAYS))
    accesses_per_cycle: int = field(default=1, metadata=integer(1, 64))
    clear_entries_per_cycle: int = field(default=1, metadata=integer(1, 2**24))
    miss_cycles: int = field(default=20, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "ways"), _ways_divide_entries),
    )


@dataclass(frozen=True, kw_only=True)
class Reconstructor:
    """Gathers result rows of centroids and adds them up into the rows that share them.

    Attributes:
        ports: rows gathered a cycle, 1 to 64.
        width: partial sums of one row gathered a cycle, 1 to 4096.
    """

    ports: int = field(default=1, metadata=integer(1, 64))
    width: int = field(default=64, metadata=integer(1, 4096))
