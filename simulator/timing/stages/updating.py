"""Updating: results of computed rows, in place among those that stay on the chip."""

from dataclasses import dataclass

import numpy as np

from simulator.decisions.rows import KeptRows
from simulator.timing.remaining import Remaining
from simulator.timing.stages.around import tiles_around
from simulator.timing.stages.stage import Place, Stage, Work
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import byte_count, port_cycles


@dataclass(frozen=True, kw_only=True, eq=False)
class Updating(Stage):
    """Results of a tile's computed rows are written to the state buffer as they leave the array.

    Rows that keep theirs need no access. The map that the next layer loads lies in the DRAM as
    well, of the frame before and with the same rows updated: these alone are stored there, and the
    next layer loads the whole of it, changed or not.

    Not modelled: that the next layer could read what it needs from the state buffer.

    Attributes:
        around: whether another technique decides on the rows that are left, whose tiles these are.
    """

    units = ()
    track = "array"

    around: bool = False

    @property
    def place(self) -> Place:
        """On the way from the array."""
        return "beside"

    def work(self, tiles: Tiles) -> Work:
        """A write for each computed row."""
        accelerator = self.accelerator
        buffer = accelerator.state_buffer
        assert buffer is not None
        own = tiles_around(self.left, tiles) if self.around else tiles
        columns = own.handed_columns + np.asarray(tiles.copied_columns)
        written = byte_count(own.m * columns, accelerator.operand_bits)
        total = own.total(np.broadcast_to(written, tiles.shape))
        return Work(
            limits={"state_buffer": port_cycles(written, buffer)},
            busy_cycles={},
            actions=lambda: {("state_buffer", "write_byte"): total},
        )


def is_updated(left: Remaining) -> bool:
    """Whether a technique's results are updated in the state buffer in this way."""
    decisions = left.decisions
    kept = decisions is not None and isinstance(decisions.rows, KeptRows)
    return kept and left.updated_in_place
