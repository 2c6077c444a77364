"""The parts of an accelerator: what each block is, with the rules its numbers must keep.

A part does not check itself: :class:`accelerators.Accelerator` checks the whole tree when it is
built, so that all broken rules come in one error. Vary a part with ``dataclasses.replace``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.dram import dram_kinds
from accelerators.rules import Relation, flag, integer, one_of, real

DATAFLOWS = ("weight_stationary", "output_stationary", "input_stationary")
"""Which operand stays in the array."""

FOLD_TIMINGS = ("sequential", "overlapped")
"""How consecutive folds of a product follow each other, see :class:`SystolicArray`."""

PROJECTIONS = ("sign", "sparse", "int8")
"""What a hash multiplies an element by: +1 or -1, for a third of the elements in ``sparse``."""

REPLACEMENTS = ("lru", "fifo", "random")
"""Which entry of a full set makes room: least recently used, oldest, or any."""

MAX_BUFFER_BYTES = 2**30  # 1 GiB, a thousand times any on-chip buffer: catches bytes given as bits

MAX_WAYS = 1024


def _dataflows() -> tuple[str, ...]:
    return DATAFLOWS


def _fold_timings() -> tuple[str, ...]:
    return FOLD_TIMINGS


def _projections() -> tuple[str, ...]:
    return PROJECTIONS


def _replacements() -> tuple[str, ...]:
    return REPLACEMENTS


@dataclass(frozen=True, kw_only=True)
class SystolicArray:
    """A grid of multiply-accumulate units; each holds a weight, an activation and a partial sum.

    Attributes:
        rows: units along the reduction dimension, 1 to 4096.
        columns: units along the output dimension, 1 to 4096.
        dataflow: which operand stays, ``"weight_stationary"``, ``"output_stationary"`` or
            ``"input_stationary"``.
        fold_timing: ``"sequential"``: a fold starts when the one before has left the array, and a
            partial fold costs a full one, as SCALE-Sim counts. ``"overlapped"``, this project's
            own model: a second register a unit takes the next fold's stationary operand while the
            array works, results leave while the next fold starts, and a partial fold costs what it
            uses.
    """

    rows: int = field(metadata=integer(1, 4096))
    columns: int = field(metadata=integer(1, 4096))
    dataflow: str = field(default="weight_stationary", metadata=one_of(_dataflows))
    fold_timing: str = field(default="sequential", metadata=one_of(_fold_timings))


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
class SramBuffer:
    """An on-chip memory between two blocks, double-buffered by its user.

    Attributes:
        capacity_bytes: all of it, both halves of a double buffer, 1 byte to 1 GiB.
        width_bits: bits moved by one access, a multiple of 8 from 8 to 4096.
        ports: accesses a cycle, 1 to 64; each is a bank of its own.
    """

    capacity_bytes: int = field(metadata=integer(1, MAX_BUFFER_BYTES))
    width_bits: int = field(default=64, metadata=integer(8, 4096, multiple_of=8))
    ports: int = field(default=1, metadata=integer(1, 64))

    @property
    def bytes_per_cycle(self) -> int:
        """Bytes that all ports move in a cycle."""
        return self.ports * self.width_bits // 8

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("capacity_bytes", "width_bits", "ports"), _holds_one_access),
    )


@dataclass(frozen=True, kw_only=True)
class Dram:
    """Memory outside the chip: a bandwidth, a latency, a burst and an energy per byte.

    Rows, banks, refresh and standby power are not modelled; its area is not on the chip. Transfers
    follow each other without a gap: the latency delays the arrival of data, not the next transfer.

    Attributes:
        bandwidth_bytes_per_cycle: in cycles of the accelerator's clock, 0.001 to 65536.
        kind: a row of ``data/dram.csv``, which prices a byte.
        latency_cycles: from a transfer's last byte on the bus to its use on the chip, 0 to 100000.
        burst_bytes: a transfer moves whole bursts, 1 to 65536.
    """

    bandwidth_bytes_per_cycle: float = field(metadata=real(0.001, 65536))
    kind: str = field(default="focus_2026", metadata=one_of(dram_kinds))
    latency_cycles: int = field(default=0, metadata=integer(0, 100_000))
    burst_bytes: int = field(default=1, metadata=integer(1, 65536))


@dataclass(frozen=True, kw_only=True)
class LshFrontEnd:
    """Hashes sub-vectors: every lane takes one sub-vector a cycle, or several short ones.

    A lane is ``max_hashes x max_length`` adders (``"sign"``), a third of that (``"sparse"``, whose
    coefficients are fixed in the wiring) or int8 multipliers with adders (``"int8"``); fewer hashes
    leave units idle, and so do shorter sub-vectors unless they are packed.

    Attributes:
        max_hashes: bits of the longest signature, 1 to 62 (a signature is one signed 64-bit word).
        max_length: elements of the longest sub-vector, 1 to 4096.
        lanes: sub-vectors hashed a cycle, 1 to 256.
        projection: ``"sign"`` (+-1 coefficients), ``"sparse"`` (+-1 for a third of the elements,
            else 0: Achlioptas, J. Comput. Syst. Sci. 66(4), 2003) or ``"int8"``.
        packing: whether a lane takes ``max_length // L`` sub-vectors of length L a cycle.
        latency_cycles: from a sub-vector to its signature, 0 to 10000; pipelined, its registers
            are not priced.
    """

    max_hashes: int = field(metadata=integer(1, 62))
    max_length: int = field(metadata=integer(1, 4096))
    lanes: int = field(default=1, metadata=integer(1, 256))
    projection: str = field(default="sign", metadata=one_of(_projections))
    packing: bool = field(default=False, metadata=flag())
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


def _banks_divide_sets(cache: CentroidCache) -> list[str]:
    sets = cache.entries // cache.ways
    if cache.entries % cache.ways or sets % cache.banks == 0:
        return []
    return [
        f"banks must divide the entries / ways = {sets} sets, got {cache.banks}; "
        f"use {_divisors_beside(sets, cache.banks)}"
    ]


@dataclass(frozen=True, kw_only=True)
class CentroidCache:
    """A set-associative table from signatures to running sums of the rows that share them.

    The set of a signature is, of 2^b sets, its remainder by a polynomial of degree b over GF(2), a
    few XOR gates for each bit; of another number of sets, the remainder by that number. Set i lies
    in bank i mod ``banks``. Signatures come in groups, as many as the front-end makes in a cycle; a
    group is dispatched in order, every cycle all of it that finds its bank free.

    Attributes:
        entries: clusters held at once, 1 to 16777216.
        ways: entries of one set, 1 to 1024; must divide ``entries``.
        banks: each takes one access a cycle and has its own tags, comparators and adders, 1 to 64;
            must divide the number of sets.
        update_cycles: for which an access goes on after its first cycle (reading, adding,
            writing back), 0 to 64.
        pipelined: ``False``: the bank is held for all of ``update_cycles``; ``True``: only another
            access to the same cluster waits (a read-after-write hazard).
        replacement: which entry of a full set makes room, ``"lru"``, ``"fifo"`` or ``"random"``.
        clear_entries_per_cycle: valid bits cleared a cycle between sub-vectors, 1 to 16777216.
        miss_cycles: that fetching an evicted entry back holds its bank, 0 to 10000.
    """

    entries: int = field(metadata=integer(1, 2**24))
    ways: int = field(metadata=integer(1, 1024))
    banks: int = field(default=1, metadata=integer(1, 64))
    update_cycles: int = field(default=0, metadata=integer(0, 64))
    pipelined: bool = field(default=False, metadata=flag())
    replacement: str = field(default="lru", metadata=one_of(_replacements))
    clear_entries_per_cycle: int = field(default=1, metadata=integer(1, 2**24))
    miss_cycles: int = field(default=20, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "ways"), _ways_divide_entries),
        Relation(("entries", "ways", "banks"), _banks_divide_sets),
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
