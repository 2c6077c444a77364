"""The hash front-end: signatures of sub-vectors by locality-sensitive hashing."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable
from accelerators.rules import flag, integer, one_of
from accelerators.units.unit import THRESHOLD_BITS, Design, Item, Unit

PROJECTIONS = ("sign", "sparse", "int8")
"""What a hash multiplies an element by: +1 or -1, for a third of the elements in ``sparse``."""

# A sparse projection's coefficients are fixed, so nothing stores them.
COEFFICIENT_BITS = {"sign": 1, "sparse": 0, "int8": 8}
# Achlioptas' projections leave two thirds of the elements out.
SPARSE_SHARE = 1 / 3
_INT8_SUM_BITS = 32


def _projections() -> tuple[str, ...]:
    return PROJECTIONS


@dataclass(frozen=True, kw_only=True)
class LshFrontEnd(Unit):
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

    words = "hash front-end"
    colour = "#e08a3c"
    exploits = True

    max_hashes: int = field(metadata=integer(1, 62))
    max_length: int = field(metadata=integer(1, 4096))
    lanes: int = field(default=1, metadata=integer(1, 256))
    projection: str = field(default="sign", metadata=one_of(_projections))
    packing: bool = field(default=False, metadata=flag())
    latency_cycles: int = field(default=8, metadata=integer(0, 10_000))

    def bill(self, design: Design) -> list[Item]:
        """Per lane hashes x length units and a comparator per hash; one hash matrix for all lanes.

        An int8 unit is a multiplier and a 32-bit adder, so 480 of them are 480
        multiply-accumulates; a 16-bit operand takes two int8 multipliers, one for each byte.
        """
        matrix = self.max_hashes * self.max_length
        units = self.lanes * matrix
        if self.projection in ("sign", "sparse"):
            adders = units * (SPARSE_SHARE if self.projection == "sparse" else 1)
            projecting = [Item(adders, "int_adder", {"bits": self._sum_bits(design)})]
        else:
            projecting = [
                Item(units * design.operand_bits // 8, "int_multiplier", {"bits": 8}),
                Item(units, "int_adder", {"bits": _INT8_SUM_BITS}),
            ]
        stored = COEFFICIENT_BITS[self.projection] * matrix
        return [
            *projecting,
            # A packed lane may hold as many sub-vectors as it has elements; its comparators serve
            # the `max_hashes` sums of one, a packed one's sums are shorter. Not modelled further.
            Item(self.lanes * self.max_hashes, "comparator", {"bits": THRESHOLD_BITS}),
            Item(1, "register", {"bits": stored + THRESHOLD_BITS * self.max_hashes}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``project``: one element times one coefficient, added; ``compare``: one sum against its
        threshold."""
        if self.projection in ("sign", "sparse"):
            project = table.energy_pj("int_adder", "add", bits=self._sum_bits(design))
        else:
            multiply = table.energy_pj("int_multiplier", "multiply", bits=8)
            add = table.energy_pj("int_adder", "add", bits=_INT8_SUM_BITS)
            project = design.operand_bits // 8 * multiply + add
        return {
            "project": project,
            "compare": table.energy_pj("comparator", "compare", bits=THRESHOLD_BITS),
        }

    def _sum_bits(self, design: Design) -> int:
        """Width of a sign projection's adders: of ``max_length`` operands, at least 8 bits more."""
        growth = (self.max_length - 1).bit_length()  # ceil(log2(max_length))
        return design.operand_bits + max(8, growth)
