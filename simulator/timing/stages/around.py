"""Stages of a technique on whose rows that are left another one decides."""

from dataclasses import dataclass, replace

import numpy as np

from accelerators import AddressList
from simulator.timing.pass_grid import PassGrid
from simulator.timing.remaining import Remaining
from simulator.timing.stages.stage import Place, Stage, Work
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import Transfer, byte_count


@dataclass(frozen=True, kw_only=True, eq=False)
class Around(Stage):
    """A stage of the first technique, on the tiles that the second one's rows are cut into.

    Attributes:
        stage: with the layer as the first technique has it.
    """

    stage: Stage

    @property
    def units(self) -> tuple[str, ...]:  # type: ignore[override]
        """Its units."""
        return self.stage.units

    @property
    def track(self) -> str:  # type: ignore[override]
        """Its track."""
        return self.stage.track

    @property
    def place(self) -> Place:
        """Its place."""
        return self.stage.place

    def check(self) -> None:
        """As the stage itself."""
        self.stage.check()

    def work(self, tiles: Tiles) -> Work:
        """The stage's, of the rows that it started from."""
        listed = self.accelerator.address_list
        return self.stage.work(tiles_around(self.stage.left, tiles, listed))


@dataclass(frozen=True, kw_only=True, eq=False)
class Completing(Stage):
    """Results of rows that the second technique never sees travel, as do those it computes.

    Kept ones are loaded and stored again, unless they stay on the chip; filled ones are stored; the
    tiles themselves move the rest.
    """

    units = ()
    track = "array"

    @property
    def place(self) -> Place:
        """It takes no time of its own."""
        return "beside"

    def work(self, tiles: Tiles) -> Work:
        """Nothing but transfers."""
        seen = tiles_around(self.left, tiles)
        moved = np.zeros(tiles.shape, np.int64)
        stored = seen.n + np.asarray(tiles.copied_columns)
        if not self.left.updated_in_place:
            moved += byte_count((seen.rows - seen.m) * stored, self.accelerator.operand_bits)
        transfers: tuple[Transfer, ...] = (
            Transfer(kind="outputs", moved_bytes=moved, stored=True, buffer="output_buffer"),
        )
        if self.left.kept:
            kept = Transfer(kind="kept_results", moved_bytes=moved, buffer="output_buffer")
            transfers = (kept, *transfers)
        return Work(limits={}, busy_cycles={}, transfers=transfers)


def tiles_around(level: Remaining, tiles: Tiles, list_of: AddressList | None = None) -> Tiles:
    """The tiles with the rows that a technique started from, where a later one's are cut.

    A tile's rows take with them an equal share of those that are not computed. Of several views of
    a tile, the last one has them.

    Args:
        level: the layer as the technique has it.
        tiles: of the rows that are left.
        list_of: names the results that a row which is filled in takes, if any is.
    """
    gemm, cut = level.layer.gemm, tiles.cut
    given = np.asarray(tiles.rows)
    if isinstance(cut, PassGrid):
        axis, last = (2 if cut.outside else 1), np.zeros(given.shape[-1], np.int64)
        given, last[-1] = given.max(axis=-1, keepdims=True), 1
        looked, columns = cut.of_pass(cut.looked), cut.of_pass(cut.gathered_columns)
    else:
        axis, last = int(np.argmax(given.shape)), np.ones(1, np.int64)
        looked, columns = tiles.looked, tiles.handed_columns
    own = given.ravel()  # only the axis of rows is longer than 1
    ends = np.cumsum(own) * gemm.m // own.sum()
    rows = np.diff(ends, prepend=0)
    taken = own
    if level.handed_out and list_of is not None:
        counted = list_of.counted
        taken = level.taken_results(rows) if counted else own + (rows - own) * list_of.taps
    shape = [1] * given.ndim
    shape[axis] = -1

    def placed(values: np.ndarray) -> np.ndarray:
        return values.reshape(shape) * last

    return replace(
        tiles,
        rows=placed(rows),
        looked=looked,
        m=placed(own),
        n=columns,
        k=gemm.k,
        inputs="activation_buffer",
        sums="output_buffer",
        handed_rows=placed(rows),
        handed_columns=columns,
        results=placed(taken),
        copied_rows=0,
        transfers=(),
        actions={},
    )
