"""Reuse by leaders: a vector that is near one of a few earlier ones shares that one's result."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import integer, one_of, optional, real
from simulator.decisions.evidence import Leaders
from simulator.kernels.grouping import Clusters
from simulator.kernels.leaders import follow_leaders
from simulator.policies.activations import check_rows, check_state
from simulator.policies.clustering import Clusterer, Clustering
from simulator.policies.policy import LayerState, ReadWeights
from simulator.policies.technique import Technique, register
from simulator.policies.tiled import TiledPolicy
from workloads.traces.layer import Layer

DISTANCES = ("relative", "absolute")


@dataclass(frozen=True, kw_only=True)
class LeaderReuse(TiledPolicy):
    """Vectors within a tolerance of a leader share its cluster's result.

    The leader algorithm (Hartigan, Clustering Algorithms, 1975, chapter 3), with as many leaders as
    a small table holds: the vectors of a tile come one after the other; each joins the cluster of
    the nearest leader, the earliest of several, if its squared distance is at most `tolerance`
    times a squared length; else it becomes a leader, in place of the oldest where the table is
    full. No hyperplanes are drawn, and no member is farther from its leader than the tolerance.

    Of a relative distance, a vector of zeros joins another one only, and none joins it where the
    tolerance is below 1.

    Attributes:
        tolerance: 0 shares equal vectors alone.
        distance: which squared length that is: `relative`, the vector's own, or `absolute`, the
            mean of its view's calibration vectors, so that short vectors are all alike.
        entries: leaders held at a time, 1 to 1024; the table is empty at the start of a tile.
        length: as ever; by default whole rows or, of pixels, all channels of a tap.
    """

    kind: ClassVar[str] = "leaders"

    length: int | None = field(default=None, metadata=optional(integer(1, 2**20)))
    tolerance: float = field(metadata=real(0, 100))
    distance: str = field(default="relative", metadata=one_of(lambda: DISTANCES))
    entries: int = field(default=16, metadata=integer(1, 1024))

    def needs_calibration(self, layer: Layer) -> bool:
        """For a mean length."""
        return self.distance == "absolute"

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """`squares` `(count, k)` float32, the mean square of each column."""
        check_rows(layer, rows)
        if self.distance == "relative":
            return {}
        squares = np.square(rows, dtype=np.float64).mean(axis=1)
        return {"squares": squares.astype(np.float32)}

    def clustering(self, layer: Layer, state: LayerState) -> "LeaderClustering | None":
        """By leaders, where there are others to follow."""
        return None if self.looks(layer).are_alone else self._by_leaders(layer, state)

    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """By leaders."""
        return self._by_leaders(layer, state).clusterer(layer)

    def evidence(self, layer: Layer, signatures: np.ndarray) -> Leaders:
        """The leaders that there were at most."""
        return Leaders(entries=self.entries)

    def _by_leaders(self, layer: Layer, state: LayerState) -> "LeaderClustering":
        looks = self.looks(layer)
        floors = np.zeros((layer.gemm.count, looks.views), np.float32)
        if self.distance == "absolute":
            check_state(layer, state, {"squares": (layer.gemm.count, layer.gemm.k)})
            wide = np.zeros((layer.gemm.count, layer.gemm.k + 1), np.float32)
            wide[:, :-1] = state["squares"]
            floors = self.tolerance * wide[:, self.columns_of_views(layer)].sum(axis=2)
        return LeaderClustering(
            **vars(self.cutting(layer)),
            tolerance=float(self.tolerance) if self.distance == "relative" else 0.0,
            floors=floors.astype(np.float32),
            entries=self.entries,
        )


@dataclass(frozen=True, kw_only=True)
class LeaderClustering(Clustering):
    """Vectors join the nearest leader within reach; see `LeaderReuse`.

    Attributes:
        tolerance: of the squared distance, over the vector's squared length.
        floors: `(count, v)` float32, squared distance that is near enough whatever the length.
        entries: leaders held at a time.
    """

    tolerance: float
    floors: np.ndarray = field(repr=False)
    entries: int

    def evidence(self, signatures: np.ndarray) -> Leaders:
        """The leaders that there were at most."""
        return Leaders(entries=self.entries)

    def clusters_of(
        self, index: int, kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> Clusters:
        """Those of leaders."""
        looks, segments = self.looks, self.elements_of_segments
        first_only = self.representative == "first"
        ids = np.full((looks.views, looks.positions), -1, np.int32)
        clusters = np.empty((looks.views, looks.tiles), np.int32)
        found = []
        for view in range(looks.views):
            columns, order, bounds = kinds[view // looks.segments]
            representatives = np.empty((order.size, self.length), np.float32)
            total = follow_leaders(
                np.ascontiguousarray(columns, np.float32), segments[view % looks.segments], order,
                bounds, np.float32(self.tolerance), self.floors[index, view], self.entries,
                first_only, ids[view], clusters[view], representatives,
            )  # fmt: skip
            found.append(representatives[:total])
        return Clusters(
            ids=ids,
            clusters=clusters,
            signatures=np.empty(0, np.uint64),
            representatives=np.concatenate(found),
        )


register(
    Technique(
        name="leaders",
        title="leaders",
        axis="rows",
        word="share",
        grain="sub-vector",
        rule="A sub-vector joins the nearest of the last few leaders of its tile if it is near "
        "enough, else becomes one; a leader's cluster is multiplied once.",
        evidence="distances to leaders",
        source="Hartigan, Clustering Algorithms, 1975, chapter 3; in hardware ours",
        policy=LeaderReuse,
        units=("leader_table", "centroid_buffer", "reconstructor"),
        choices={
            "tolerance": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
            "length": (32, 64, 128),
            "tile_rows": (64, 144, 256, 576, 1024),
            "tile_shape": ("strip", "block"),
            "entries": (8, 16),
        },
        start={
            "tolerance": 0.2,
            "length": 64,
            "tile_rows": 256,
            "tile_shape": "block",
            "entries": 16,
            "look_once": True,
            "scope": "tile",
            "order": "channels_last",
        },
        own=("tolerance",),
    )
)
