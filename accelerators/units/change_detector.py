"""The change detector: which positions must be computed as their input changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable, Size
from accelerators.rules import integer
from accelerators.units.unit import Design, Item, Unit, memory, register_byte_pj

# Marks lie together in words of so many.
MARKS_OF_WORD = 64
_INDEX_BITS = 24


@dataclass(frozen=True, kw_only=True)
class ChangeDetector(Unit):
    """Compares a feature map with what is remembered of it, and lists the positions that changed.

    ``lanes`` values are subtracted from their references, compared with the threshold and ORed over
    the channels of a place a cycle. The marks of places pass a line buffer, which reaches over the
    lines of a kernel, so that every position is marked whose patch has a changed place. These marks
    are held for a layer, and the numbers of marked rows are handed to the array, one a cycle,
    through a queue of ``queue_entries``; a list of addresses is not needed beside it.

    References lie where feature maps lie, in the DRAM, or in a state buffer that has room for them.
    Not priced: the OR over channels and the encoder that finds the next mark.

    Attributes:
        lanes: values compared a cycle, 1 to 4096.
        line_bits: marks of places that the line buffer holds, 1 to 16777216: of as many lines of a
            map as a kernel has rows, less one.
        marks: rows whose marks are held, 64 to 16777216; those of a layer with more go to the DRAM
            and back where they are needed again.
        queue_entries: numbers of rows that wait for the array, 1 to 4096.
        latency_cycles: from a value to its row's number, 0 to 10000; pipelined.
    """

    words = "change detector"
    colour = "#5f9e6e"
    exploits = True

    lanes: int = field(metadata=integer(1, 4096))
    line_bits: int = field(metadata=integer(1, 2**24))
    marks: int = field(default=2**16, metadata=integer(MARKS_OF_WORD, 2**24))
    queue_entries: int = field(default=32, metadata=integer(1, 4096))
    latency_cycles: int = field(default=4, metadata=integer(0, 10_000))

    def bill(self, design: Design) -> list[Item]:
        """A subtractor and a comparator a lane; line buffer, marks and queue."""
        bits = design.operand_bits + 1
        return [
            Item(self.lanes, "int_adder", {"bits": bits}),
            Item(self.lanes, "comparator", {"bits": bits}),
            Item(1, "sram", _marks_of(self.line_bits)),
            Item(1, "sram", _marks_of(self.marks)),
            Item(1, "register", {"bits": self.queue_entries * _INDEX_BITS}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """Energy in pJ of one action of each kind.

        ``compare``: one value; ``read_line`` and ``write_line``, ``read_marks`` and
        ``write_marks``: 64 marks of the line buffer, and of rows; ``list``: one number of a row
        through the queue.
        """
        bits = design.operand_bits + 1
        prices = {
            "compare": table.energy_pj("int_adder", "add", bits=bits)
            + table.energy_pj("comparator", "compare", bits=bits),
            "list": 2 * register_byte_pj(table) * _INDEX_BITS / 8,
        }
        for name, size in (("line", self.line_bits), ("marks", self.marks)):
            for action in ("read", "write"):
                prices[f"{action}_{name}"] = table.energy_pj("sram", action, **_marks_of(size))
        return prices


def _marks_of(bits: int) -> Size:
    """A memory of so many marks."""
    return memory(max(bits, MARKS_OF_WORD), MARKS_OF_WORD)
