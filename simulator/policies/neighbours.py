"""Reuse among neighbours: a vector points to one beside, above or before it that is like it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import ClassVar

import numpy as np

from accelerators.rules import Relation, integer, one_of, optional, real
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Neighbours
from simulator.decisions.looks import Looks
from simulator.kernels.grouping import Clusters
from simulator.kernels.neighbours import cluster_neighbours
from simulator.policies.activations import check_rows
from simulator.policies.clustering import Clusterer, Clustering
from simulator.policies.looking import Tile, output_size, pixel_grid
from simulator.policies.policy import LayerState
from simulator.policies.technique import Technique, register
from simulator.policies.tiled import TiledPolicy
from workloads.traces.layer import Layer

NEIGHBOURHOODS = ("block", "window")
# Neighbours that lie a block of this size apart in each dimension are many already.
_LARGEST_BLOCK = 8


def _frames_share_a_tile(policy: "NeighbourReuse") -> list[str]:
    """Images that are clustered apart have no neighbours in each other."""
    if policy.block_frames == 1 or policy.scope != "image":
        return []
    return [
        f"block_frames must be 1 with scope='image', got {policy.block_frames}; use scope='tile' "
        "or 'batch'"
    ]


@dataclass(frozen=True, kw_only=True)
class NeighbourReuse(TiledPolicy):
    """A vector that is like one of its earlier neighbours shares that one's result.

    Focus (HPCA 2026), its similar vectors: each vector is compared with the earlier ones of its
    block of frames, rows and columns that lie in the same tile, and points to the one of greatest
    cosine, the earliest of several, if that reaches the threshold. Pointers are followed to their
    end; what ends at the same vector is a cluster. Nothing is learned beforehand.

    Neighbours are those on a layer's grid: a convolution's output positions or, where a pixel is
    looked at once, the pixels of one kind of taps, whose blocks start at the first that is looked
    at. Rows of other layers lie in a line, a row a token. Images are frames, consecutive in a
    stream; so are the slices of a convolution in three dimensions.

    Two vectors of zeros are equal, and share; one of zeros is like no other.

    Attributes:
        threshold: cosine from which vectors are alike, 0 to 1.
        length_ratio: the shorter of two like vectors is at least so many times as long as the
            other, 0 (any) to 1.
        block_frames: frames of a block, 1 to 8; more than 1 needs tiles that hold several: scope
            `batch`, or `tile`, whose tiles then hold the same places of so many images.
        block_rows: rows of it, likewise.
        block_columns: columns of it, likewise.
        neighbourhood: `block` cuts the grid into blocks and compares within each; `window` lays
            one around every vector, which is its last: chains then reach across the tile.
        length: as ever; by default whole rows or, of pixels, all channels of a tap.
    """

    kind: ClassVar[str] = "neighbours"

    length: int | None = field(default=None, metadata=optional(integer(1, 2**20)))
    threshold: float = field(metadata=real(0, 1))
    length_ratio: float = field(default=0.0, metadata=real(0, 1))
    block_frames: int = field(default=1, metadata=integer(1, _LARGEST_BLOCK))
    block_rows: int = field(default=2, metadata=integer(1, _LARGEST_BLOCK))
    block_columns: int = field(default=2, metadata=integer(1, _LARGEST_BLOCK))
    neighbourhood: str = field(default="block", metadata=one_of(lambda: NEIGHBOURHOODS))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        *TiledPolicy.RELATIONS,
        Relation(("scope", "block_frames"), _frames_share_a_tile),
    )

    @property
    def tile(self) -> Tile | None:
        """The tiles, if any, of as many frames as a block."""
        if self.tile_rows is None:
            return None
        return Tile(rows=self.tile_rows, shape=self.tile_shape, frames=self.block_frames)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Cluster the vectors of one layer; `None` where none has a neighbour."""
        check_rows(layer, rows)
        if not self.pairs(layer).shifts.size:
            return None
        return super().decide(layer, rows, state)

    def clustering(self, layer: Layer, state: LayerState) -> "NeighbourClustering | None":
        """By neighbours, where there are any."""
        return self._by_neighbours(layer) if self.pairs(layer).shifts.size else None

    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """By neighbours."""
        return self._by_neighbours(layer).clusterer(layer)

    def evidence(self, layer: Layer, signatures: np.ndarray) -> Neighbours:
        """Comparisons, as many as there are neighbours."""
        return self._by_neighbours(layer).evidence(signatures)

    def pairs(self, layer: Layer) -> "Pairs":
        """Which vectors of a layer are compared."""
        block = self.block_frames, self.block_rows, self.block_columns
        return pairs_of(layer, self.looks(layer), block, window=self.neighbourhood == "window")

    def _by_neighbours(self, layer: Layer) -> "NeighbourClustering":
        return NeighbourClustering(
            **vars(self.cutting(layer)),
            pairs=self.pairs(layer),
            threshold=float(self.threshold),
            length_ratio=float(self.length_ratio),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Vectors that are compared, each with some that are before it in its tile.

    Attributes:
        shifts: `(o,)` int64, places from a neighbour to the vector, descending: the earliest first.
        are_compared: `(u, o, p)` bool, of each kind of taps whether a vector is compared with the
            neighbour a shift before.
        comparisons: `(u, tiles)` int64, pairs in each tile.
        reach: vectors of its tile, at most, that a vector is behind a neighbour; 0 without any.
    """

    shifts: np.ndarray
    are_compared: np.ndarray
    comparisons: np.ndarray
    reach: int


@lru_cache(maxsize=128)
def pairs_of(layer: Layer, looks: Looks, block: tuple[int, int, int], *, window: bool) -> Pairs:
    """The vectors of a layer that are compared.

    Args:
        layer: the layer.
        looks: how its vectors are looked at.
        block: frames, rows and columns of a block.
        window: whether each vector is the last of a block of its own; else blocks lie side by side.
    """
    grid = _grid(layer, looks)
    found = [_pairs_of_kind(tiles.reshape(grid), block, window) for tiles in looks.tile_numbers]
    offsets = list(dict.fromkeys(each for own in found for each in own))
    shifts = {each: (each[0] * grid[1] + each[1]) * grid[2] + each[2] for each in offsets}
    offsets.sort(key=shifts.__getitem__, reverse=True)
    none = np.zeros(looks.positions, bool)
    are_compared = np.array([[own.get(each, none) for each in offsets] for own in found], bool)
    ordered = np.array([shifts[each] for each in offsets], np.int64)
    are_compared = are_compared.reshape(len(found), ordered.size, looks.positions)
    comparisons = np.zeros(looks.vectors_of_kind.shape, np.int64)
    reach = 0
    for kind, (vectors, bounds) in enumerate(looks.orders):
        ranks = np.zeros(looks.positions, np.int64)
        ranks[vectors] = np.arange(vectors.size)
        for shift, compared in zip(ordered, are_compared[kind], strict=True):
            own = np.flatnonzero(compared)
            comparisons[kind] += np.bincount(
                looks.tile_numbers[kind, own], minlength=bounds.size - 1
            )
            reach = max(reach, int((ranks[own] - ranks[own - shift]).max(initial=0)))
    return Pairs(shifts=ordered, are_compared=are_compared, comparisons=comparisons, reach=reach)


def _grid(layer: Layer, looks: Looks) -> tuple[int, int, int]:
    """Frames, rows and columns on which a layer's vectors lie."""
    if looks.taps > 1:
        size, _ = pixel_grid(layer)
    else:
        size = output_size(layer) or (layer.gemm.m // layer.row_images,)
    rows, columns = (1, *size)[-2:]
    return looks.positions // (rows * columns), rows, columns


def _pairs_of_kind(
    tiles: np.ndarray, block: Sequence[int], window: bool
) -> dict[tuple[int, int, int], np.ndarray]:
    """Offset of the vectors from their neighbours -> `(p,)` bool, where there are any.

    Args:
        tiles: of the grid's places, -1 where there is no vector.
        block: frames, rows and columns of a block.
        window: as for `pairs_of`.
    """
    exists = tiles >= 0
    if not exists.any():
        return {}
    blocks = []  # of each dimension, the block that a place lies in
    for axis, size in enumerate(block):
        others = tuple(each for each in range(3) if each != axis)
        first = int(np.argmax(exists.any(axis=others)))
        blocks.append((np.arange(tiles.shape[axis]) - first) // size)
    frames, down, across = (range(0 if window else 1 - size, size) for size in block)
    found: dict[tuple[int, int, int], np.ndarray] = {}
    for offset in product(frames, down, across):
        if offset <= (0, 0, 0):  # no earlier neighbour
            continue
        later, earlier = [], []
        for apart, size in zip(offset, tiles.shape, strict=True):
            later.append(slice(max(0, apart), max(0, size + min(0, apart))))
            earlier.append(slice(max(0, -apart), max(0, size - max(0, apart))))
        now, before = tuple(later), tuple(earlier)
        alike = exists[now] & (tiles[now] == tiles[before])
        if not window:
            for axis, numbers in enumerate(blocks):
                inside = numbers[later[axis]] == numbers[earlier[axis]]
                alike &= inside.reshape([-1 if each == axis else 1 for each in range(3)])
        if alike.any():
            compared = np.zeros(tiles.shape, bool)
            compared[now] = alike
            found[offset] = compared.ravel()
    return found


@dataclass(frozen=True, kw_only=True)
class NeighbourClustering(Clustering):
    """Vectors that point to the same one in the end form a cluster, see `NeighbourReuse`.

    Attributes:
        pairs: of vectors that are compared.
        threshold: cosine from which they are alike.
        length_ratio: of the shorter to the longer, at least.
    """

    pairs: Pairs = field(repr=False)
    threshold: float
    length_ratio: float

    def evidence(self, signatures: np.ndarray) -> Neighbours:
        """All comparisons, whatever the vectors."""
        looks = self.looks
        of_views = np.repeat(self.pairs.comparisons, looks.segments, axis=0)
        comparisons = np.broadcast_to(of_views, (looks.gemm.count, *of_views.shape))
        return Neighbours(comparisons=comparisons, reach=self.pairs.reach)

    def clusters_of(
        self, index: int, kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> Clusters:
        """Those that end at the same vector."""
        return cluster_neighbours(
            kinds,
            self.elements_of_segments,
            (self.pairs.shifts, self.pairs.are_compared),
            length=self.length,
            threshold=self.threshold,
            length_ratio=self.length_ratio,
            first_only=self.representative == "first",
        )


register(
    Technique(
        name="neighbours",
        title="similarity concentration of Focus",
        axis="rows",
        word="share",
        grain="vector",
        rule="A vector points to the most similar of its earlier neighbours in a block of frames, "
        "rows and columns; what ends at the same vector shares its mean.",
        evidence="cosines of neighbours",
        source="Focus, HPCA 2026",
        policy=NeighbourReuse,
        units=("neighbour_matcher", "centroid_buffer", "reconstructor"),
        choices={
            "threshold": (0.9, 0.92, 0.94, 0.96, 0.98, 0.99),
            "length": (32, 64, 128),
            "tile_rows": (64, 144, 256, 576, 1024),
            "tile_shape": ("strip", "block"),
        },
        start={
            "threshold": 0.96,
            "length": 64,
            "tile_rows": 256,
            "tile_shape": "block",
            "look_once": True,
            "scope": "tile",
            "order": "channels_last",
        },
        own=("threshold",),
    )
)
