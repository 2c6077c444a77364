"""The tiles that a layer is cut into: what each is of, what it multiplies, what it moves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from accelerators import ConfigError
from simulator.timing.choosing import Way
from simulator.timing.transfers import Transfer, ceil_div
from workloads.traces.layer import Gemm

# Tiles, and operations, of a layer at most: what memory and 64-bit counts hold.
MOST_TILES = 2**21
_MOST_MACS = 2**50


class Cut(Protocol):
    """How a layer was cut; see `Tiling` and `Passes`."""

    def best(self, runs: Sequence[Way]) -> Way:
        """Of all cuts of its kind, once they were timed, the one that is taken."""

    def blame(
        self, tiles: "Tiles", critical_cycles: dict[str, int], busy_cycles: int
    ) -> dict[str, int]:
        """Limit -> cycles of the critical path, with what only the cut costs charged to a buffer.

        Args:
            tiles: that the layer was cut into.
            critical_cycles: as an engine found them.
            busy_cycles: of the array.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles:
    """The tiles of a layer under one cut, in the order in which they are worked on.

    Numbers are int64, one a tile: arrays of `shape`, or such that broadcast to it.

    Attributes:
        shape: of the tiles; the first axis is the layer's products, or runs of their rows.
        rows: of the layer that a tile stands for, before rows are taken off.
        looked: 1 where these rows are looked at for the tile, 0 where an earlier tile had them.
        m: rows that the array multiplies.
        n: columns; 0 where it has nothing to do.
        k: elements of a row.
        inputs: field of the buffer that the array reads rows from.
        sums: field of the buffer that its partial sums are kept in.
        handed_rows: rows that the reconstructor hands out.
        handed_columns: columns of them.
        results: results that it takes for these rows, one a row and tap.
        copied_rows: rows of which results are copied to other columns on their way out.
        copied_columns: columns that take such a copy.
        transfers: what is loaded and stored, beside what stages load for themselves.
        actions: what is done whichever stages there are, counted.
        cut: how the layer was cut.
    """

    shape: tuple[int, ...]
    rows: Any
    looked: Any
    m: Any
    n: Any
    k: Any
    inputs: str
    sums: str
    handed_rows: Any = 0
    handed_columns: Any = 0
    results: Any = 0
    copied_rows: Any = 0
    copied_columns: Any = 0
    transfers: tuple[Transfer, ...]
    actions: dict[tuple[str, str], int]
    cut: Cut

    def total(self, values: Any) -> int:
        """Sum over all tiles, of values that may stand for several."""
        return int(np.sum(values)) * (math.prod(self.shape) // np.size(values))


def cut(total: int, size: int) -> np.ndarray:
    """`int64` sizes of the tiles of a dimension, the last one maybe smaller."""
    tiles = np.full(ceil_div(total, size), size, np.int64)
    tiles[-1] = total - size * (len(tiles) - 1)
    return tiles


def check_tiles(gemm: Gemm, tiles: int) -> None:
    """A huge layer must be refused, not run out of memory or of 64 bits.

    Raises:
        ConfigError: it takes too many tiles or operations.
    """
    if tiles > MOST_TILES:
        raise ConfigError(
            f"Accelerator must run a layer of {gemm} in at most {MOST_TILES} tiles, got "
            f"{tiles}; use larger buffers or a smaller layer"
        )
    if gemm.macs > _MOST_MACS:
        raise ConfigError(
            f"Accelerator must run a layer of at most {_MOST_MACS} multiply-accumulates, got "
            f"{gemm.macs} in {gemm}; use a smaller layer"
        )
