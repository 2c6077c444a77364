"""The grid of tiles of work that passes over tiles of vectors make."""

from dataclasses import dataclass

import numpy as np

from simulator.decisions.looks import Looks
from simulator.decisions.rows import SharedRows


@dataclass(frozen=True, kw_only=True, eq=False)
class PassGrid:
    """Passes over the tiles of vectors, P of them; in each, every view of a tile is a tile of work.

    Arrays of tiles are `(count, tiles of vectors, P, v)`, or with the passes outside
    `(count, P, tiles of vectors, v)`; what follows the `of_` methods broadcasts to them.

    Attributes:
        outside: whether all tiles of vectors are worked on in one pass after the other; else all
            passes in one tile of vectors after the other.
        looks_again: whether each pass looks at vectors for its columns; else the first pass of a
            tile does, and what it found of all views stays for the others.
        results_first: whether the first pass finds the results of all centroids and the later
            ones only gather them; else every pass does all for its columns.
        multiplied_columns: `(P,)` int64, columns of n that the pass multiplies; 0 where it only
            gathers.
        gathered_rows: `(P,)` int64, rows of a tile that the pass rebuilds where results come first;
            `None`: all that meet it.
        gathered_columns: `(P,)` int64, columns of them.
        copied_columns: `(P,)` int64, columns that take the result of one of these.
    """

    outside: bool
    looks_again: bool
    results_first: bool
    multiplied_columns: np.ndarray
    gathered_rows: np.ndarray | None
    gathered_columns: np.ndarray
    copied_columns: np.ndarray

    def of_pass(self, values: np.ndarray) -> np.ndarray:
        """`(P,)` values."""
        return values[:, None, None] if self.outside else values[:, None]

    def of_tile(self, values: np.ndarray) -> np.ndarray:
        """`(count, v, tiles)` values."""
        turned = values.transpose(0, 2, 1)
        return turned[:, None] if self.outside else turned[:, :, None]

    def finished_rows(self, looks: Looks) -> np.ndarray:
        """Rows of which a tile completes the results, in its last view."""
        if self.gathered_rows is None:
            return self.of_tiles(looks.finished_rows)
        return self.of_pass(self.gathered_rows)

    def of_tiles(self, values: np.ndarray) -> np.ndarray:
        """`(tiles,)` values, the same for all views."""
        return values[:, None] if self.outside else values[:, None, None]

    @property
    def looked(self) -> np.ndarray:
        """`(P,)` int64, 1 where the pass looks at vectors."""
        looked = (self.multiplied_columns > 0).astype(np.int64)
        if not self.looks_again:
            looked[1:] = 0
        return looked

    @property
    def times_looked(self) -> int:
        """Passes that look at vectors."""
        return int(self.looked.sum())

    def shape(self, shared: SharedRows) -> tuple[int, int, int, int]:
        """Of the tiles of work."""
        count, views, tiles = shared.clusters.shape
        passes = len(self.multiplied_columns)
        return (count, passes, tiles, views) if self.outside else (count, tiles, passes, views)
