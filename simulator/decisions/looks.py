"""Which vectors of a product are looked at, in which tiles, and which rows meet them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from accelerators.rules import refuse
from workloads.traces.layer import Gemm


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """The vectors that are looked at, cut into tiles, and the sub-matrices that meet them.

    A product's `k` columns fall into `t` *taps* of equal width, and each tap into `segments` of
    sub-vectors: sub-matrix `tap * segments + segment`. Usually there is one tap, which is the whole
    row. Where a pixel is looked at once, the taps are a kernel's: those of one *kind* meet the same
    pixels, some places apart, and share what was found of them. Kind and segment together are a
    *view*, number `kind * segments + segment`, whose vectors are clustered among themselves, within
    each tile.

    Attributes:
        gemm: shape of the layer's products.
        sub_vector_length: L; the last sub-vector of a tap is shorter where L does not divide it.
        tiles: runs of vectors that are clustered apart, in the order in which they are worked on.
        tile_of: `(u, p)` int32, the tile of each vector of each kind of taps, -1 where there is
            none; `None` for `tiles` consecutive, equal runs of a tap's `m` vectors.
        kinds: `(t,)` int64, the kind of each tap.
        places: `(t, m)` int32, the vector that each tap meets at each row, -1 for one of zeros that
            nobody looks at; `None` where every row meets its own.
        loaded: what tiles load of the layer's input; `None` for equal shares of it.

    Raises:
        ConfigError: equal runs do not divide the rows.
    """

    gemm: Gemm
    sub_vector_length: int
    tiles: int
    tile_of: np.ndarray | None = None
    kinds: np.ndarray | None = None
    places: np.ndarray | None = None
    loaded: "Loaded | None" = None

    def __post_init__(self) -> None:
        """Equal runs must be equal."""
        broken = []
        if self.tiles < 1 or (self.tile_of is None and self.gemm.m % self.tiles):
            broken.append(
                f"Looks.tiles must divide m={self.gemm.m} into equal runs, got {self.tiles}; give "
                "tile_of for others"
            )
        refuse(broken)

    @property
    def taps(self) -> int:
        """Taps, t."""
        return 1 if self.kinds is None else len(self.kinds)

    @cached_property
    def segments(self) -> int:
        """Sub-vectors of a tap."""
        return math.ceil(self.gemm.k // self.taps / self.sub_vector_length)

    @property
    def sub_matrices(self) -> int:
        """Of a product, s."""
        return self.taps * self.segments

    @property
    def views(self) -> int:
        """Of a product, v."""
        return self.taps_of_kind.size * self.segments

    @property
    def positions(self) -> int:
        """Places of a view that may hold a vector, p."""
        return self.gemm.m if self.tile_of is None else self.tile_of.shape[1]

    @cached_property
    def taps_of_kind(self) -> np.ndarray:
        """`(u,)` int64, taps that meet the vectors of each kind."""
        return np.ones(1, np.int64) if self.kinds is None else np.bincount(self.kinds)

    @cached_property
    def taps_of_view(self) -> np.ndarray:
        """`(v,)` int64."""
        return np.repeat(self.taps_of_kind, self.segments)

    @cached_property
    def view_of(self) -> np.ndarray:
        """`(s,)` int64, the view of each sub-matrix."""
        kinds = np.zeros(1, np.int64) if self.kinds is None else self.kinds
        return (kinds[:, None] * self.segments + np.arange(self.segments)).ravel()

    @cached_property
    def widths(self) -> np.ndarray:
        """`(v,)` int64, elements of a view's vectors: L, the last one of a tap maybe fewer."""
        starts = np.arange(self.segments, dtype=np.int64) * self.sub_vector_length
        widths = np.minimum(self.sub_vector_length, self.gemm.k // self.taps - starts)
        return np.tile(widths, self.taps_of_kind.size)

    @cached_property
    def firsts(self) -> np.ndarray:
        """`(s,)` int64, the first of the (ordered) columns of each sub-matrix."""
        taps = np.arange(self.taps, dtype=np.int64) * (self.gemm.k // self.taps)
        within = np.arange(self.segments, dtype=np.int64) * self.sub_vector_length
        return (taps[:, None] + within).ravel()

    @cached_property
    def tile_numbers(self) -> np.ndarray:
        """`(u, p)` int32, `tile_of` also of equal runs."""
        if self.tile_of is not None:
            return self.tile_of
        return np.repeat(np.arange(self.tiles, dtype=np.int32), self.gemm.m // self.tiles)[None]

    @cached_property
    def vectors_of_kind(self) -> np.ndarray:
        """`(u, tiles)` int64, vectors of a segment that lie in each tile."""
        if self.tile_of is None:
            return np.full((1, self.tiles), self.gemm.m // self.tiles, np.int64)
        return np.stack([self._counted(own) for own in self.tile_of])

    @cached_property
    def vectors(self) -> np.ndarray:
        """`(v, tiles)` int64, vectors of each view in each tile."""
        return np.repeat(self.vectors_of_kind, self.segments, axis=0)

    @property
    def are_alone(self) -> bool:
        """Whether no vector has another in its tile, which it could be like."""
        return bool(self.vectors_of_kind.max() <= 1)

    @property
    def looked_at(self) -> int:
        """Vectors that are looked at in all products."""
        return self.gemm.count * int(self.vectors.sum())

    @cached_property
    def orders(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Of each kind the vectors tile after tile, `(vectors,)` int64, and each one's first of
        them, `(tiles + 1,)` int64."""
        found = []
        for own, sizes in zip(self.tile_numbers, self.vectors_of_kind, strict=True):
            order = np.argsort(own, kind="stable")[np.count_nonzero(own < 0) :]
            found.append((order.astype(np.int64), np.concatenate([[0], np.cumsum(sizes)])))
        return tuple(found)

    @cached_property
    def _rows_of_tiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`handed_of_kind`, `(u, tiles)` int64 rows that take anything, `open_rows` and
        `finished_rows`, where rows meet vectors of several tiles."""
        kinds, tiles = self.kinds_of_taps, self.tiles_met
        handed, taking = (np.zeros(self.vectors_of_kind.shape, np.int64) for _ in range(2))
        for kind in range(len(handed)):
            met = np.sort(tiles[kinds == kind], axis=0)
            own = np.ones(met.shape, bool)
            own[1:] = met[1:] != met[:-1]
            handed[kind], taking[kind] = self._counted(met), self._counted(met[own])
        # Rows that meet nothing but zeros are finished with the first tile.
        last = np.maximum(tiles.max(axis=0), 0)
        first = np.where(tiles < 0, self.tiles, tiles).min(axis=0) % self.tiles
        return handed, taking, self._between(first, last), self._counted(last)

    @property
    def handed_of_kind(self) -> np.ndarray:
        """`(u, tiles)` int64, results that rows take from each tile: one a row and tap."""
        return self.vectors_of_kind if self.places is None else self._rows_of_tiles[0]

    @cached_property
    def handed(self) -> np.ndarray:
        """`(v, tiles)` int64."""
        return np.repeat(self.handed_of_kind, self.segments, axis=0)

    @cached_property
    def summed(self) -> np.ndarray:
        """`(v, tiles)` int64, rows whose sums take something from each view of each tile."""
        if self.places is None:
            return self.vectors
        return np.repeat(self._rows_of_tiles[1], self.segments, axis=0)

    @property
    def open_rows(self) -> np.ndarray:
        """`(tiles,)` int64, rows whose sums are begun by the end of a tile, and not finished before
        it; they lie in the output buffer."""
        return self.vectors_of_kind[0] if self.places is None else self._rows_of_tiles[2]

    @property
    def finished_rows(self) -> np.ndarray:
        """`(tiles,)` int64, rows whose sums are complete after each tile."""
        return self.vectors_of_kind[0] if self.places is None else self._rows_of_tiles[3]

    @cached_property
    def taking_rows(self) -> int:
        """Rows of a product that take any result: those that do not meet zeros alone."""
        if self.places is None:
            return self.gemm.m
        return int(np.count_nonzero((self.places >= 0).any(axis=0)))

    @cached_property
    def reference_taps(self) -> np.ndarray:
        """`(u,)` int64, of each kind the tap that meets most of its vectors."""
        met = np.count_nonzero(self.met >= 0, axis=1)
        own = np.arange(self.taps_of_kind.size)[:, None] == self.kinds_of_taps
        return np.argmax(np.where(own, met, -1), axis=1)

    @property
    def kinds_of_taps(self) -> np.ndarray:
        """`(t,)` int64."""
        return np.zeros(1, np.int64) if self.kinds is None else self.kinds

    @cached_property
    def met(self) -> np.ndarray:
        """`(t, m)` int32, `places` also of rows that meet their own."""
        return np.arange(self.gemm.m, dtype=np.int32)[None] if self.places is None else self.places

    @property
    def tiles_met(self) -> np.ndarray:
        """`(t, m)` int32, the tile of the vector that each tap meets at each row, -1 for zeros; not
        kept, as it may take megabytes."""
        kinds = self.kinds_of_taps[:, None]
        return np.where(self.met < 0, np.int32(-1), self.tile_numbers[kinds, self.met])

    def _counted(self, tiles: np.ndarray) -> np.ndarray:
        """`(tiles,)` int64, how often each one is named."""
        return np.bincount(tiles[tiles >= 0], minlength=self.tiles)

    def _between(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """`(tiles,)` int64, how many of these runs of tiles hold each one."""
        begun = np.cumsum(np.bincount(first, minlength=self.tiles))
        ended = np.cumsum(np.bincount(last, minlength=self.tiles))
        return begun - np.concatenate([[0], ended[:-1]])

    @cached_property
    def sources(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Of each kind, a tap and a row that meet each vector, `(p,)` int64 each; those of places
        without a vector mean nothing."""
        found = []
        for kind in range(self.taps_of_kind.size):
            taps, rows = (np.zeros(self.positions, np.int64) for _ in range(2))
            for tap in np.flatnonzero(self.kinds_of_taps == kind):
                seen = np.flatnonzero(self.met[tap] >= 0)
                taps[self.met[tap, seen]], rows[self.met[tap, seen]] = tap, seen
            found.append((taps, rows))
        return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """Positions of the layer's input that tiles read, in the order in which they are worked on.

    Attributes:
        positions: of the whole input.
        touched: `(tiles,)` int64, that a tile reads.
        fresh: `(tiles,)` int64, those of them that no tile before read.
        window: positions that must stay for none to be loaded twice, at most.
    """

    positions: int
    touched: np.ndarray
    fresh: np.ndarray
    window: int
