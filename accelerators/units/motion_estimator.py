"""The motion estimator: blocks of a frame's pixels, looked for in the key frame."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable, Size
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit, memory, register_byte_pj

PIXEL_BITS = 8
# A sum over a tile of 1024 x 1024 differences of 8 bits would need 28; 24 hold 256 x 256.
SUM_BITS = 24
VECTOR_BITS = 16
# Of running sums over columns and rows of tiles: one enters and one leaves, along each axis.
ADDS_OF_FIELD = 4


@dataclass(frozen=True, kw_only=True)
class MotionEstimator(Unit):
    """Sums absolute differences of two frames' luma, tile by tile, for every candidate vector.

    ``adders`` pixels of the frame's tile, which registers hold, are compared a cycle with as many
    of the key frame, a word of the pixel memory. A tile's sum goes into running sums over the field
    around it, which one consumer takes, a tile and candidate a cycle: it keeps the least sum of
    each tile and its vector. EVA2 (Buckler et al., ISCA 2018) has the same two halves. The pixel
    memory holds two frames, or bands of them, which are then loaded again for each frame.

    How words of pixels that are not aligned are put together is not priced, nor are pipeline
    registers.

    Attributes:
        adders: absolute differences a cycle, 1 to 4096.
        pixel_bytes: of the pixel memory, 1 byte to 1 GiB; a pixel is a byte.
        tiles: of a frame, for which sums and vectors are kept, 1 to 16777216.
        latency_cycles: from a frame's last difference to its vectors, 0 to 10000.
    """

    words = "motion estimator"
    colour = "#7d6bb0"
    exploits = True

    adders: int = field(default=64, metadata=integer(1, 4096))
    pixel_bytes: int = field(metadata=integer(1, 2**30))
    tiles: int = field(metadata=integer(1, 2**24))
    latency_cycles: int = field(default=16, metadata=integer(0, 10_000))

    def bill(self, design: Design) -> list[Item]:
        """A subtractor, an adder and a register of a pixel a lane; the consumer; both memories."""
        return [
            Item(self.adders, "int_adder", {"bits": PIXEL_BITS}),
            Item(self.adders, "int_adder", {"bits": SUM_BITS}),
            Item(self.adders, "register", {"bits": PIXEL_BITS}),
            Item(ADDS_OF_FIELD, "int_adder", {"bits": SUM_BITS}),
            Item(1, "comparator", {"bits": SUM_BITS}),
            Item(1, "sram", self._pixels),
            Item(1, "sram", self._tiles),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``difference``: of two pixels, summed up; ``sum``: of a tile taken into its field's;
        ``compare``: a field's with the least so far; ``read_pixels`` and ``write_pixels``: a word
        of ``adders`` pixels; ``read_tile`` and ``write_tile``: a tile's sums and vector.
        """
        return {
            "difference": table.energy_pj("int_adder", "add", bits=PIXEL_BITS)
            + table.energy_pj("int_adder", "add", bits=SUM_BITS)
            + register_byte_pj(table),
            "sum": ADDS_OF_FIELD * table.energy_pj("int_adder", "add", bits=SUM_BITS),
            "compare": table.energy_pj("comparator", "compare", bits=SUM_BITS),
            "read_pixels": table.energy_pj("sram", "read", **self._pixels),
            "write_pixels": table.energy_pj("sram", "write", **self._pixels),
            "read_tile": table.energy_pj("sram", "read", **self._tiles),
            "write_tile": table.energy_pj("sram", "write", **self._tiles),
        }

    @property
    def _pixels(self) -> Size:
        """The pixel memory, of which an access moves a pixel for each adder."""
        return memory(8 * self.pixel_bytes, PIXEL_BITS * self.adders)

    @property
    def _tiles(self) -> Size:
        """A running sum, the least one and its vector, for each tile."""
        bits = 2 * SUM_BITS + VECTOR_BITS
        return memory(self.tiles * bits, bits)
