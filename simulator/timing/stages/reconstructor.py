"""The reconstructor: hands results of the array out to the rows that take them."""

from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError, Reconstructor, SramBuffer
from simulator.decisions.rows import FilledRows, SharedRows
from simulator.timing.stages.stage import Counts, Place, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import access_bytes, ceil_div, port_cycles


@register
class HandingOut(Stage):
    """Results are gathered for a tile's rows and added up; a port takes `width` of a row a cycle.

    Of shared rows, each takes its centroid's result from the centroid buffer and adds it to its
    partial sum in the output buffer. Of filled rows, a computed one takes its own result and a
    skipped one as many as the address list names, all from the output buffer and back to it, once
    the array is done with the tile and while it works on the next.

    A column that takes another's result is copied from it on the way out: of each row, the results
    that are copied are read from the output buffer once more, `width` at a time.

    Not modelled: that filled rows wait where a row that they take is in the next tile, or lies in
    the DRAM where it was in an earlier one; the shift that makes a sum of several a mean.
    """

    units = ("reconstructor",)
    track = "reconstructor"

    @property
    def place(self) -> Place:
        """Shared rows have a buffer for what the array found; all others lie where that lies."""
        return "after" if self._shares else "beside"

    @property
    def _shares(self) -> bool:
        assert self.left.decisions is not None
        return isinstance(self.left.decisions.rows, SharedRows)

    @property
    def unit(self) -> Reconstructor:
        """The unit."""
        unit = self.accelerator.reconstructor
        assert unit is not None
        return unit

    def check(self) -> None:
        """There are results to hand out, and the buffer that they lie in."""
        assert self.left.decisions is not None
        rows = self.left.decisions.rows
        copies = self.left.copied_before is not None
        if not isinstance(rows, SharedRows | FilledRows) and not copies:
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must share or fill rows, or share "
                f"columns, for a reconstructor to hand out, got {type(rows).__name__}; do not ask "
                "for the unit"
            )

    def work(self, tiles: Tiles) -> Work:
        """Gathered results come from the buffer of the array's sums."""
        accelerator, unit, columns = self.accelerator, self.unit, tiles.handed_columns
        source: SramBuffer = getattr(accelerator, tiles.sums)
        target, bits = accelerator.output_buffer, accelerator.accumulator_bits
        copies = tiles.copied_columns
        copied = tiles.copied_rows * access_bytes(copies, unit.width, bits, target)
        steps = tiles.copied_rows * ceil_div(copies, unit.width)
        gathered: Any = 0
        written: Any = 0
        limits = {}
        if self._shares or self.left.handed_out:
            steps = steps + tiles.results * ceil_div(columns, unit.width)
            gathered = tiles.results * access_bytes(columns, unit.width, bits, source)
            written = tiles.handed_rows * access_bytes(columns, unit.width, bits, target)
            if source is not target:
                limits[tiles.sums] = port_cycles(gathered, source)
        # A sum that is added to is read before; what the array left is read as it is gathered.
        moved = written + (gathered if source is target else written) + copied
        cycles = ceil_div(steps, unit.ports)
        return Work(
            limits={"reconstructor": cycles, **limits, "output_buffer": port_cycles(moved, target)},
            latency_cycles=0 if self._shares else cycles,
            busy_cycles={"reconstructor": cycles},
            actions=partial(self._actions, tiles, gathered, written, copied),
        )

    def _actions(self, tiles: Tiles, gathered: Any, written: Any, copied: Any) -> Counts:
        copies = tiles.total(copied)
        if not self._shares and not self.left.handed_out:
            return {("output_buffer", "read_byte"): copies}
        sums = tiles.total(written)
        # Each row's first result is taken as it is; of shared rows every sub-vector has one.
        handed = tiles.total(np.asarray(tiles.results) * tiles.handed_columns)
        gemm, decisions = self.left.layer.gemm, self.left.decisions
        assert decisions is not None
        rows = decisions.shared.looks.taking_rows if self._shares else gemm.m
        return {
            (tiles.sums, "read_byte"): tiles.total(gathered),
            ("reconstructor", "add"): handed - gemm.count * rows * self.left.n,
            ("output_buffer", "write_byte"): sums,
            # One read per later sub-matrix, and one to store the outputs.
            ("output_buffer", "read_byte"): sums + copies,
        }
