"""The channel gate: what each channel holds in the mean, and which channels are worth computing."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable, Size
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit, memory

# Of a gain that is compared, with as many of its channel's number.
GAIN_BITS = 16


@dataclass(frozen=True, kw_only=True)
class ChannelGate(Unit):
    """Adds up the magnitudes of each channel of an image, and finds the largest of its gains.

    Magnitudes pass ``lanes`` at a time, each lane adding to the sum of its channel, which a memory
    keeps. The gains that follow, found by the array, come one a cycle and are kept in order: each
    is compared with all that are held and takes its place among them, so that n of them take n
    cycles. Scaling channels by their gains is not priced, nor is any other operation on finished
    outputs.

    Attributes:
        lanes: values added up a cycle, 1 to 4096.
        channels: channels of a layer, of its inputs or outputs, at most; 1 to 65536.
    """

    words = "channel gate"
    colour = "#5a9fb3"
    exploits = True

    lanes: int = field(default=16, metadata=integer(1, 4096))
    channels: int = field(default=512, metadata=integer(1, 2**16))

    def bill(self, design: Design) -> list[Item]:
        """An adder a lane with its share of the sums; a comparator and a register a gain."""
        return [
            Item(self.lanes, "int_adder", {"bits": design.accumulator_bits}),
            Item(self.lanes, "sram", self._bank(design)),
            Item(self.channels, "comparator", {"bits": GAIN_BITS}),
            Item(self.channels, "register", {"bits": 2 * GAIN_BITS}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``accumulate``: one magnitude added to its channel's sum; ``insert``: one gain compared
        with all places, at the price of as many comparisons and of one register written."""
        bank = self._bank(design)
        return {
            "accumulate": table.energy_pj("int_adder", "add", bits=design.accumulator_bits)
            + sum(table.energy_pj("sram", action, **bank) for action in ("read", "write")),
            "insert": self.channels * table.energy_pj("comparator", "compare", bits=GAIN_BITS)
            + table.energy_pj("register", "write", bits=2 * GAIN_BITS),
        }

    def _bank(self, design: Design) -> Size:
        """A lane's share of the sums."""
        bits = design.accumulator_bits
        return memory(self.channels * bits / self.lanes, bits)
