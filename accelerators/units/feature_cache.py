"""The feature cache: summaries of maps, compared with those of earlier frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from accelerators.cost_table import CostTable, Size
from accelerators.rules import Relation, integer
from accelerators.units.unit import LEADING_BITS, Design, Item, Unit, dot_bits, memory

# A sum of a map as it is kept and multiplied, in its leading bits.
_WORD_BITS = LEADING_BITS
# Of two sums, added up over all maps.
_PRODUCT_BITS = 2 * LEADING_BITS + 16
# dot^2, t^2 |a|^2, and that times |b|^2: a cosine is tested without division or root.
_MULTIPLIERS_OF_TEST = 3


def _holds_one_access(unit: FeatureCache) -> list[str]:
    needed = unit.macs * _WORD_BITS // 8
    if unit.capacity_bytes >= needed:
        return []
    return [
        f"capacity_bytes must hold a word for each of macs={unit.macs}, got "
        f"{unit.capacity_bytes}; use {needed} or more"
    ]


@dataclass(frozen=True, kw_only=True)
class FeatureCache(Unit):
    """Sums up each map of a layer's input, and compares these sums with those of earlier frames.

    Lanes add elements of one map in a tree, a sum a map. The sums, in their 16 leading bits, are
    the frame's feature. It is multiplied by vectors that are kept, ``macs`` elements a cycle. So
    two images are told to be alike, by their cosine, as in the cached CNN of Park and Kim (Applied
    Sciences 2019); there it is software.

    What finds leading bits is not priced.

    Attributes:
        lanes: elements of a map added a cycle, 1 to 4096.
        macs: elements of two features multiplied a cycle, 1 to 4096.
        capacity_bytes: of the memory of features, 2 bytes an element, 2 to 1 GiB.
        latency_cycles: from a feature's last product to the decision, 0 to 10000.
    """

    words = "feature cache"
    colour = "#b08bd0"
    exploits = True

    lanes: int = field(default=16, metadata=integer(1, 4096))
    macs: int = field(default=4, metadata=integer(1, 4096))
    capacity_bytes: int = field(metadata=integer(2, 2**30))
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("macs", "capacity_bytes"), _holds_one_access),
    )

    def bill(self, design: Design) -> list[Item]:
        """Adders; what multiplies features; what tests; the memory."""
        return [
            Item(self.lanes, "int_adder", {"bits": dot_bits(design)}),
            Item(self.macs + _MULTIPLIERS_OF_TEST, "int_multiplier", {"bits": _WORD_BITS}),
            Item(self.macs, "int_adder", {"bits": _PRODUCT_BITS}),
            Item(1, "comparator", {"bits": 2 * LEADING_BITS}),
            Item(1, "sram", self._memory),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``add``: one element of a map; ``multiply``: one element of a feature times one of another,
        added up; ``test``: one cosine judged; ``read_word`` and ``write_word``: one element of a
        feature that is kept, in accesses of as many as are multiplied a cycle.
        """
        multiply = table.energy_pj("int_multiplier", "multiply", bits=_WORD_BITS)
        compare = table.energy_pj("comparator", "compare", bits=2 * LEADING_BITS)
        return {
            "add": table.energy_pj("int_adder", "add", bits=dot_bits(design)),
            "multiply": multiply + table.energy_pj("int_adder", "add", bits=_PRODUCT_BITS),
            "test": _MULTIPLIERS_OF_TEST * multiply + compare,
            **{
                f"{action}_word": table.energy_pj("sram", action, **self._memory) / self.macs
                for action in ("read", "write")
            },
        }

    @property
    def _memory(self) -> Size:
        return memory(8 * self.capacity_bytes, self.macs * _WORD_BITS)
