"""The result cache: signatures that the array makes, and which results they have already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer
from accelerators.units.cache import MAX_WAYS
from accelerators.units.unit import (
    THRESHOLD_BITS,
    Design,
    Item,
    Unit,
    memory,
    register_byte_pj,
)


def _ways_divide_entries(cache: ResultCache) -> list[str]:
    if cache.entries % cache.ways == 0:
        return []
    return [
        f"ways must divide entries={cache.entries}, got {cache.ways}; use a power of two, or "
        "another number of entries"
    ]


@dataclass(frozen=True, kw_only=True)
class ResultCache(Unit):
    """A set-associative table of signatures beside an array that makes them (MERCURY, HPCA 2023).

    The array multiplies each sub-vector by as many hyperplanes as a signature has bits, as if they
    were filters; no front-end hashes. The unit compares each sum with its threshold, looks the
    signature up and, where it is new, keeps it while its set has room: nothing is replaced, and a
    sub-vector that finds its set full is multiplied and not kept. Results of what is kept lie in
    the centroid buffer. A signature is looked up a cycle, as fast as the array can make them.

    Attributes:
        entries: signatures held at once, 1 to 16777216.
        ways: entries of one set, 1 to 1024; must divide ``entries``.
        max_hashes: bits of the longest signature, 1 to 62.
        clear_entries_per_cycle: valid bits cleared a cycle between sub-vectors, 1 to 16777216.
    """

    words = "result cache"
    colour = "#37a3b8"
    exploits = True

    entries: int = field(metadata=integer(1, 2**24))
    ways: int = field(metadata=integer(1, MAX_WAYS))
    max_hashes: int = field(default=20, metadata=integer(1, 62))
    clear_entries_per_cycle: int = field(default=64, metadata=integer(1, 2**24))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "ways"), _ways_divide_entries),
    )

    def bill(self, design: Design) -> list[Item]:
        """Tags, valid bits that are registers, comparators of a set and of thresholds."""
        return [
            Item(1, "sram", self._tags),
            Item(1, "register", {"bits": self.entries + THRESHOLD_BITS * self.max_hashes}),
            Item(self.ways, "comparator", {"bits": self._tag_bits}),
            Item(self.max_hashes, "comparator", {"bits": THRESHOLD_BITS}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``compare``: one sum against its threshold; ``lookup``: the tags and valid bits of one set
        read and compared; ``write``: one set's tags written, one of them new; ``clear_entry``: one
        valid bit cleared, priced as a register byte.
        """
        return {
            "compare": table.energy_pj("comparator", "compare", bits=THRESHOLD_BITS),
            "lookup": table.energy_pj("register", "read", bits=self.ways)
            + table.energy_pj("sram", "read", **self._tags)
            + self.ways * table.energy_pj("comparator", "compare", bits=self._tag_bits),
            "write": table.energy_pj("sram", "write", **self._tags),
            "clear_entry": register_byte_pj(table),
        }

    @property
    def _tag_bits(self) -> int:
        """Bits of a signature that its set does not give away, at least 1."""
        return max(1, self.max_hashes - (self.entries // self.ways).bit_length() + 1)

    @property
    def _tags(self) -> Size:
        """The memory of tags, read a set at a time."""
        return memory(self.entries * self._tag_bits, self.ways * self._tag_bits)
