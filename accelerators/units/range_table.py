"""The range table: sub-vectors by the ranges of their elements, and the results that these have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer, one_of
from accelerators.units.cache import MAX_WAYS, REPLACEMENTS
from accelerators.units.unit import Design, Item, Unit, memory


def _ways_divide_entries(table: RangeTable) -> list[str]:
    if table.entries % table.ways == 0:
        return []
    return [
        f"ways must divide entries={table.entries}, got {table.ways}; use a power of two, or "
        "another number of entries"
    ]


@dataclass(frozen=True, kw_only=True)
class RangeTable(Unit):
    """A set-associative table whose tags are the ranges of all elements of a sub-vector.

    After de Moura et al. (SAMOS 2019), who keep such tables in a processor's memory. ``width``
    elements are multiplied by the reciprocal of a range's width a cycle; the leading ``range_bits``
    are the range, and all of a sub-vector's ranges together its key, which is compared whole with
    those of a set. Results lie in the DRAM; the first sub-vector of a key is computed.

    Attributes:
        entries: keys held at once, 1 to 16777216.
        ways: entries of one set, 1 to 1024; must divide ``entries``.
        max_length: elements of the longest sub-vector, 1 to 4096.
        range_bits: of one element's range, 1 to 16.
        width: elements that become ranges a cycle, 1 to 4096.
        replacement: which entry of a full set makes room, as of ``CentroidCache``.
    """

    words = "range table"
    colour = "#a06fc4"
    exploits = True

    entries: int = field(metadata=integer(1, 2**24))
    ways: int = field(metadata=integer(1, MAX_WAYS))
    max_length: int = field(metadata=integer(1, 4096))
    range_bits: int = field(default=8, metadata=integer(1, 16))
    width: int = field(default=16, metadata=integer(1, 4096))
    replacement: str = field(default="lru", metadata=one_of(lambda: REPLACEMENTS))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("entries", "ways"), _ways_divide_entries),
    )

    def bill(self, design: Design) -> list[Item]:
        """A multiplier an element of a cycle; keys, and comparators of a set's."""
        return [
            Item(self.width, "int_multiplier", {"bits": design.operand_bits}),
            Item(1, "register", {"bits": self._key_bits}),
            Item(1, "sram", self._tags),
            Item(self.ways, "comparator", {"bits": self._key_bits}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``range``: one element, the range that it lies in; ``lookup``: the keys of a set read and
        compared; ``write``: a set's keys written, one of them new.
        """
        return {
            "range": table.energy_pj("int_multiplier", "multiply", bits=design.operand_bits)
            + table.energy_pj("register", "write", bits=self.range_bits),
            "lookup": table.energy_pj("sram", "read", **self._tags)
            + self.ways * table.energy_pj("comparator", "compare", bits=self._key_bits),
            "write": table.energy_pj("sram", "write", **self._tags),
        }

    @property
    def _key_bits(self) -> int:
        return self.max_length * self.range_bits

    @property
    def _tags(self) -> Size:
        """The memory of keys with a valid bit each, read a set at a time."""
        bits = self._key_bits + 1
        return memory(self.entries * bits, self.ways * bits)
