"""The centroid cache: clusters found by their signature, and their running sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, flag, integer, one_of
from accelerators.units.unit import (
    COUNT_BITS,
    Design,
    Item,
    Unit,
    member_sum_bits,
    memory,
    register_byte_pj,
)

REPLACEMENTS = ("lru", "fifo", "random", "none")
"""Which entry of a full set makes room: least recently used, oldest, any, or none, so that what
finds its set full is not kept."""

MAX_WAYS = 1024


def _replacements() -> tuple[str, ...]:
    return REPLACEMENTS


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


def _a_front_end_makes_signatures(design: Any) -> list[str]:
    if design.front_end is not None:
        return []
    return [
        "front_end must be given with a cache, whose rows are as long as its sub-vectors, "
        "got None; add LshFrontEnd(...), or leave out the cache"
    ]


@dataclass(frozen=True, kw_only=True)
class CentroidCache(Unit):
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
        replacement: which entry of a full set makes room, ``"lru"``, ``"fifo"``, ``"random"`` or
            ``"none"``: clusters that find their set full are kept behind the cache, from where each
            access to them fetches, and to where it writes back.
        clear_entries_per_cycle: valid bits cleared a cycle between sub-vectors, 1 to 16777216.
        miss_cycles: that fetching an evicted entry back holds its bank, 0 to 10000.
    """

    words = "centroid cache"
    colour = "#2a9d84"
    exploits = True

    entries: int = field(metadata=integer(1, 2**24))
    ways: int = field(metadata=integer(1, MAX_WAYS))
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
    OWNER_RELATIONS: ClassVar[tuple[Relation, ...]] = (Relation((), _a_front_end_makes_signatures),)

    def bill(self, design: Design) -> list[Item]:
        """One bank per access a cycle, each with its share of rows and tags and its own arithmetic.

        Valid bits are registers, so that several can be cleared a cycle.
        """
        banks, tag = self.banks, self._tag_bits(design)
        arithmetic = banks * design.units["front_end"].max_length
        width = member_sum_bits(design)
        items = [
            Item(banks, "sram", self._rows(design)),
            Item(1, "register", {"bits": self.entries}),
            Item(arithmetic, "int_adder", {"bits": width}),
            Item(arithmetic, "int_multiplier", {"bits": width}),
        ]
        if tag:
            items.append(Item(banks, "sram", self._tags(tag)))
            items.append(Item(banks * self.ways, "comparator", {"bits": tag}))
        return items

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``lookup``: the tags and valid bits of one set read and compared; ``read_row`` and
        ``write_row``: the running sums and the count of one entry; ``accumulate``: one element
        added to its running sum; ``divide``: one running sum scaled by a reciprocal;
        ``clear_entry``: one valid bit cleared, priced as a register byte.
        """
        tag, rows, width = self._tag_bits(design), self._rows(design), member_sum_bits(design)
        lookup = table.energy_pj("register", "read", bits=self.ways)  # the valid bits of the set
        if tag:
            lookup += table.energy_pj("sram", "read", **self._tags(tag))
            lookup += self.ways * table.energy_pj("comparator", "compare", bits=tag)
        return {
            "lookup": lookup,
            "read_row": table.energy_pj("sram", "read", **rows),
            "write_row": table.energy_pj("sram", "write", **rows),
            "accumulate": table.energy_pj("int_adder", "add", bits=width),
            "divide": table.energy_pj("int_multiplier", "multiply", bits=width),
            "clear_entry": register_byte_pj(table),
        }

    def _rows(self, design: Design) -> Size:
        """A bank's rows: of each entry a running sum per element and a 16-bit count."""
        bits = design.units["front_end"].max_length * member_sum_bits(design) + COUNT_BITS
        return memory(self.entries * bits / self.banks, bits)

    def _tags(self, tag_bits: int) -> Size:
        """A bank's tags, read a set at a time."""
        return memory(self.entries * tag_bits / self.banks, self.ways * tag_bits)

    def _tag_bits(self, design: Design) -> int:
        """Bits of a signature that its set does not give away; 0 if the set says it all."""
        hashes = design.units["front_end"].max_hashes
        return max(0, hashes - (self.entries // self.ways).bit_length() + 1)
