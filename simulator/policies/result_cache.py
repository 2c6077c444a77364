"""Reuse by a result cache: signatures made on the array, and a table that replaces nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from accelerators.rules import Relation, flag, integer, one_of, optional
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import ArraySignatures
from simulator.kernels.grouping import Clusters
from simulator.kernels.hashing import hash_rows, lane_thresholds, lane_weights
from simulator.kernels.lanes import padded
from simulator.kernels.tables import keep_first
from simulator.policies.activations import check_rows, check_state
from simulator.policies.clustering import Clusterer, Clustering
from simulator.policies.lsh import LshReuse
from simulator.policies.policy import LayerState, ReadWeights
from simulator.policies.technique import Technique, register
from simulator.policies.thresholds import THRESHOLDS
from simulator.policies.tiled import TiledPolicy
from workloads.traces.layer import Layer

# Marks a cluster that found its set full, beside the bits of a signature.
_NOT_KEPT = np.uint64(2**63)


def _ways_divide_entries(policy: "ResultCacheReuse") -> list[str]:
    if policy.entries % policy.ways == 0:
        return []
    return [
        f"ways must divide entries={policy.entries}, got {policy.ways}; "
        f"use {math.gcd(policy.entries, policy.ways)}"
    ]


def _first_results_are_kept(policy: "ResultCacheReuse") -> list[str]:
    if policy.representative == "first":
        return []
    return [
        f"representative must be 'first', got {policy.representative!r}: a result is there before "
        "the rows that take it; use 'first'"
    ]


@dataclass(frozen=True, kw_only=True)
class ResultCacheReuse(TiledPolicy):
    """Sub-vectors take the results of earlier ones of equal signature, as long as there is room.

    MERCURY (Janfaza et al., HPCA 2023; SimCNN in its first version): a sub-vector is one channel's
    patch; the array multiplies it by H random hyperplanes as if they were filters, and the signs
    are its signature. A hit in the result cache takes the stored results of all filters; a miss is
    computed, and kept where its set has an entry free. Entries of a full set stay, as this project
    recalls the paper, of which the full text could not be read. What the paper saves in the
    backward pass of training is not modelled, nor that it lengthens signatures as training goes on.

    Hashing costs H columns of the n that the layer has, so it is left off, as in the paper, in
    layers where fewer sub-vectors than H / n hit.

    Attributes:
        hashes: H, 1 to 62.
        length: L; by default the elements of a kernel, or whole rows where a kernel has a single
            one (our choice).
        entries: signatures held at once; the table is empty at the start of a tile.
        ways: entries of one set, must divide `entries`.
        thresholds: as of `LshReuse`; the paper's are `zero`.
        spread: as of `LshReuse`.
        only_where_it_pays: whether a layer runs dense whose calibration activations hit no more
            often than H / n; else every layer is looked at.
        seed: of the hyperplanes.
        representative: `first`, whose result is there when others ask for it.
    """

    kind: ClassVar[str] = "result_cache"

    length: int | None = field(default=None, metadata=optional(integer(1, 2**20)))
    representative: str = field(
        default="first", metadata=TiledPolicy.__dataclass_fields__["representative"].metadata
    )
    hashes: int = field(default=20, metadata=integer(1, 62))
    entries: int = field(default=1024, metadata=integer(1, 2**24))
    ways: int = field(default=16, metadata=integer(1, 1024))
    thresholds: str = field(default="zero", metadata=one_of(lambda: THRESHOLDS))
    spread: float = field(default=1.0, metadata=LshReuse.__dataclass_fields__["spread"].metadata)
    only_where_it_pays: bool = field(default=True, metadata=flag())
    seed: int = field(default=0, metadata=integer(0, 2**63 - 1))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        *TiledPolicy.RELATIONS,
        Relation(("entries", "ways"), _ways_divide_entries),
        Relation(("representative",), _first_results_are_kept),
    )

    def length_in(self, layer: Layer) -> int:
        """L in a layer: a channel's patch unless it is given."""
        if self.length is None and not self.looks_once_at(layer) and layer.convolution is not None:
            taps = math.prod(layer.convolution.kernel)
            return taps if taps > 1 else layer.gemm.k
        return super().length_in(layer)

    def needs_calibration(self, layer: Layer) -> bool:
        """To know whether it pays, or for thresholds."""
        return self.only_where_it_pays or self._signing(layer).needs_calibration(layer)

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """What thresholds need; and `hits` `(1,)` float32, the fraction of sub-vectors that hit."""
        check_rows(layer, rows)
        signing = self._signing(layer)
        state = dict(signing.calibrate(layer, rows)) if signing.needs_calibration(layer) else {}
        if self.only_where_it_pays:
            state["hits"] = np.array([self._hits(layer, rows, state)], np.float32)
        return state

    def _hits(self, layer: Layer, rows: np.ndarray, state: LayerState) -> float:
        """Fraction of the sub-vectors of whole images that take a result that is there."""
        each = layer.gemm.m // layer.row_images
        images = rows.shape[1] // each
        if not images:
            return 0.0
        seen = _of_images(layer, images)
        made = self._remembered(seen, state)
        found = made.clustered(seen, rows[:, : images * each], made.clusterer(seen))
        computed = sum(int(one.clusters.sum(dtype=np.int64)) for one in found)
        return 1 - computed / (layer.gemm.count * int(made.looks.vectors.sum()))

    def clustering(self, layer: Layer, state: LayerState) -> "ResultCacheClustering | None":
        """By the table, where there are others to be like and where it pays."""
        if self.looks(layer).are_alone or not self.pays(layer, state):
            return None
        return self._remembered(layer, state)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Look the sub-vectors of one layer up; `None` where that does not pay."""
        check_rows(layer, rows)
        return super().decide(layer, rows, state) if self.pays(layer, state) else None

    def pays(self, layer: Layer, state: LayerState) -> bool:
        """Whether more is spared than H columns of hashing take, as far as calibration tells."""
        if not self.only_where_it_pays:
            return True
        check_state(layer, state, {"hits": (1,)})
        return float(state["hits"][0]) > self.hashes / layer.gemm.n

    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """By the table."""
        return self._remembered(layer, state).clusterer(layer)

    def evidence(self, layer: Layer, signatures: np.ndarray) -> ArraySignatures:
        """Signatures that were made, and which of them were kept."""
        return _evidence(self.hashes, self.entries, self.ways, signatures)

    def _signing(self, layer: Layer) -> LshReuse:
        """What makes signatures: MERCURY's are those of deep reuse."""
        return LshReuse(
            hashes=self.hashes,
            length=self.length_in(layer),
            scope=self.scope,
            order=self.order,
            representative=self.representative,
            tile_rows=self.tile_rows,
            tile_shape=self.tile_shape,
            look_once=self.look_once,
            thresholds=self.thresholds,
            spread=self.spread,
            projection="int8",
            seed=self.seed,
        )

    def _remembered(self, layer: Layer, state: LayerState) -> "ResultCacheClustering":
        hyperplanes, thresholds = self._signing(layer).hashing(layer, state)
        return ResultCacheClustering(
            **vars(self.cutting(layer)),
            hyperplanes=hyperplanes,
            thresholds=thresholds,
            entries=self.entries,
            ways=self.ways,
        )


@dataclass(frozen=True, kw_only=True)
class ResultCacheClustering(Clustering):
    """Vectors take the cluster of the entry that holds their signature; see `ResultCacheReuse`.

    Attributes:
        hyperplanes: `(H, L)` float32.
        thresholds: `(count, v, H)` float32, what a projection must exceed.
        entries: signatures held at once.
        ways: entries of one set.
    """

    hyperplanes: np.ndarray = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    entries: int
    ways: int

    def evidence(self, signatures: np.ndarray) -> ArraySignatures:
        """Signatures that were made, and which of them were kept."""
        return _evidence(len(self.hyperplanes), self.entries, self.ways, signatures)

    def clusters_of(
        self, index: int, kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> Clusters:
        """Those of the table."""
        looks, segments = self.looks, self.elements_of_segments
        weights, limits = lane_weights(self.hyperplanes), lane_thresholds(self.thresholds[index])
        ids = np.full((looks.views, looks.positions), -1, np.int32)
        clusters = np.empty((looks.views, looks.tiles), np.int32)
        signatures, representatives = [], []
        for view in range(looks.views):
            columns, order, bounds = kinds[view // looks.segments]
            elements = segments[view % looks.segments]
            values = np.ascontiguousarray(columns, np.float32)
            found = np.empty(values.shape[1], np.uint64)
            hash_rows(
                values, elements, 0, elements.size, padded(self.length), weights, limits[view],
                found,
            )  # fmt: skip
            firsts, kept = np.empty(order.size, np.int64), np.empty(order.size, bool)
            total = keep_first(
                found, order, bounds, self.entries // self.ways, self.ways, ids[view],
                clusters[view], firsts, kept,
            )  # fmt: skip
            shown = np.zeros((total, self.length), np.float32)
            shown[:, : elements.size] = values[elements[:, None], firsts[:total]].T
            representatives.append(shown)
            signatures.append(np.where(kept[:total], found[firsts[:total]], _NOT_KEPT))
        return Clusters(
            ids=ids,
            clusters=clusters,
            signatures=np.concatenate(signatures),
            representatives=np.concatenate(representatives),
        )


def _evidence(hashes: int, entries: int, ways: int, signatures: np.ndarray) -> ArraySignatures:
    kept = signatures != _NOT_KEPT
    return ArraySignatures(hashes=hashes, entries=entries, ways=ways, kept=kept)


def _of_images(layer: Layer, images: int) -> Layer:
    """The layer as another number of images runs it."""
    own = layer.row_images

    def resized(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * images // own, *shape[1:])

    return replace(
        layer,
        gemm=replace(layer.gemm, m=layer.gemm.m // own * images),
        images=images,
        row_images=images,
        input_shape=resized(layer.input_shape),
        output_shape=resized(layer.output_shape),
    )


register(
    Technique(
        name="mercury",
        title="MERCURY (SimCNN)",
        axis="rows",
        word="share",
        grain="sub-vector",
        rule="A channel's patch whose signature, the signs of random projections, is in a result "
        "cache takes the results kept there; another is computed, and kept if its set has room.",
        evidence="signatures, which the array makes as if hyperplanes were filters",
        source="Janfaza et al., MERCURY, HPCA 2023 (arXiv 2110.14904; version 1: SimCNN)",
        policy=ResultCacheReuse,
        units=("result_cache", "centroid_buffer", "reconstructor"),
        published=("SimCNN/MERCURY",),
        choices={
            "hashes": (8, 12, 16, 20, 24, 32),
            "tile_rows": (64, 128, 256, 512, 1024),
            "thresholds": ("zero", "mean", "spread"),
        },
        start={
            "hashes": 20,
            "tile_rows": 256,
            "thresholds": "zero",
            "scope": "tile",
        },
        own=("hashes",),
        hardware={"result_cache.entries": (256, 512, 1024, 2048)},
    )
)
