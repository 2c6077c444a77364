"""Adding: what comes of differences, to the results that they are taken from."""

from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError, ResultAdder
from simulator.decisions.incremental import IncrementalRows
from simulator.timing.stages.stage import Counts, Place, Stage, Work, register
from simulator.timing.stages.subtracting import rows_of_tiles
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer, access_bytes, byte_count, ceil_div, port_cycles


@register
class Adding(Stage):
    """The array's sums of a tile are added to earlier ones, while it works on the next.

    Both lie in the output buffer, and what is made of them goes there. Sums that are remembered
    for the next frame, in the accumulators' width and before the activation function, are loaded
    and stored for the rows that change, from and to the state buffer where the layer has room
    there, else the DRAM; those of a frame that is computed anew are stored alone. Rows of which
    nothing changed leave their sums where they lie. Where the earlier row is one of the same
    frame, a row that differs in nothing is handed on.

    Not modelled: that a row waits for the one before it, where they are neighbours; that the
    earlier row of a tile's first one lies in the tile before.
    """

    units = ("result_adder",)
    track = "adding"

    @property
    def place(self) -> Place:
        """Its results lie where the array's do."""
        return "beside"

    @property
    def unit(self) -> ResultAdder:
        """The unit."""
        unit = self.accelerator.result_adder
        assert unit is not None
        return unit

    @property
    def rows(self) -> IncrementalRows:
        """The layer's rows."""
        assert self.left.incremental is not None
        return self.left.incremental

    def check(self) -> None:
        """There are sums to add."""
        if self.left.incremental is None:
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must add differences for a result "
                "adder to add up; do not ask for the unit"
            )

    def work(self, tiles: Tiles) -> Work:
        """Each row takes a cycle for each `width` of its columns."""
        accelerator, unit, columns = self.accelerator, self.unit, tiles.handed_columns
        buffer, bits = accelerator.output_buffer, accelerator.accumulator_bits
        added = rows_of_tiles(self.rows.is_added, tiles)
        cycles = ceil_div(columns, unit.width) * added
        moved = added * access_bytes(columns, unit.width, bits, buffer)
        limits = {"result_adder": cycles}
        loaded, stored = np.zeros((2, *tiles.shape), np.int64)
        transfers: tuple[Transfer, ...] = ()
        if self.rows.keeps:
            loaded += added * byte_count(columns, bits)
            stored += rows_of_tiles(self.rows.is_computed, tiles) * byte_count(columns, bits)
        if self.rows.on_chip:
            assert accelerator.state_buffer is not None
            limits["state_buffer"] = port_cycles(loaded + stored, accelerator.state_buffer)
        elif self.rows.keeps:
            transfers = (
                Transfer(kind="remembered_sums", moved_bytes=loaded, buffer="output_buffer"),
                Transfer(
                    kind="remembered_sums", moved_bytes=stored, stored=True, buffer="output_buffer"
                ),
            )
        # The array's sums are read and what is made of them is written; the earlier ones are read
        # there as well, unless the state buffer has them.
        ports = moved * (2 if self.rows.on_chip else 3)
        return Work(
            limits={**limits, "output_buffer": port_cycles(ports, buffer)},
            latency_cycles=cycles,
            busy_cycles={"result_adder": cycles},
            transfers=transfers,
            actions=partial(self._actions, tiles, added * columns, moved, (loaded, stored)),
        )

    def _actions(self, tiles: Tiles, sums: Any, moved: Any, remembered: tuple[Any, Any]) -> Counts:
        through, (loaded, stored) = tiles.total(moved), (tiles.total(x) for x in remembered)
        counts = {
            ("result_adder", "add"): tiles.total(sums),
            ("output_buffer", "read_byte"): through * (1 if self.rows.on_chip else 2),
            ("output_buffer", "write_byte"): through,
        }
        if self.rows.on_chip:
            counts["state_buffer", "read_byte"] = loaded
            counts["state_buffer", "write_byte"] = stored
        return counts
