"""Stages of a technique on whose rows that are left another one decides."""

from dataclasses import dataclass, replace

import numpy as np

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
        taps = 1 if listed is None else listed.taps
        return self.stage.work(tiles_around(self.stage.left, tiles, taps))


@dataclass(frozen=True, kw_only=True, eq=False)
class Completing(Stage):
    """Results of rows that the second technique never sees travel, as do those it computes.

    Kept ones are loaded and stored again, filled ones stored; the tiles themselves move the rest.
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
        moved += byte_count((seen.rows - seen.m) * stored, self.accelerator.operand_bits)
        transfers: tuple[Transfer, ...] = (
            Transfer(kind="outputs", moved_bytes=moved, stored=True, buffer="output_buffer"),
        )
        if self.left.kept:
            kept = Transfer(kind="kept_results", moved_bytes=moved, buffer="output_buffer")
            transfers = (kept, *transfers)
        return Work(limits={}, busy_cycles={}, transfers=transfers)


def tiles_around(level: Remaining, tiles: Tiles, taps: int = 1) -> Tiles:
    """The tiles with the rows that a technique started from, where a later one's are cut.

    A tile's rows take with them an equal share of those that are not computed. Of several views of
    a tile, the last one has them.

    Args:
        level: the layer as the technique has it.
        tiles: of the rows that are left.
        taps: results that a row which is filled in takes.
    """
    gemm, cut = level.layer.gemm, tiles.cut
    if isinstance(cut, PassGrid):
        axis = 2 if cut.outside else 1
        of_views = np.asarray(tiles.rows)
        own = of_views.max(axis=-1, keepdims=True)
        last = np.zeros(of_views.shape[-1], np.int64)
        last[-1] = 1
        looked, columns = cut.of_pass(cut.looked), cut.of_pass(cut.gathered_columns)
    else:
        own = np.asarray(tiles.rows)
        axis = int(np.argmax(own.shape))
        last = np.ones(1, np.int64)
        looked, columns = tiles.looked, tiles.handed_columns
    ends = np.cumsum(own, axis=axis)
    ends = ends * gemm.m // ends.max()
    rows = np.diff(ends, axis=axis, prepend=0) * last
    own = own * last
    return replace(
        tiles,
        rows=rows,
        looked=looked,
        m=own,
        n=columns,
        k=gemm.k,
        inputs="activation_buffer",
        sums="output_buffer",
        handed_rows=rows,
        handed_columns=columns,
        results=own + (rows - own) * taps,
        copied_rows=0,
        transfers=(),
        actions={},
    )
