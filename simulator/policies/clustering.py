"""How sub-vectors are clustered, as plain data and as functions; and the decisions that follow."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Evidence, Signatures
from simulator.decisions.looks import Looks
from simulator.decisions.rows import SharedRows
from simulator.kernels.grouping import Clusters, joined, represent, stacked
from simulator.kernels.hashing import cluster_rows
from simulator.kernels.vectors import cluster_vectors
from simulator.policies.activations import check_finite
from simulator.policies.looking import pixels_met
from workloads.traces.layer import Layer

# From a GEMM's index, its `(k, m)` columns in the layer's own order, and the column at each place
# of the rows that are cut, to its clusters.
Clusterer = Callable[[int, np.ndarray, np.ndarray], Clusters]


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How a layer's rows are cut into sub-vectors, and which of them may share a cluster.

    Attributes:
        looks: the vectors that are clustered, and their tiles.
        column_order: `(k,)` int64, the layer's column at each place of a row that is cut; `None`
            where it is cut as it is.
        representative: of a cluster: `centroid`, the mean of its members, or `first`, the first
            one in the stream.
    """

    looks: Looks
    column_order: np.ndarray | None
    representative: str

    @property
    def length(self) -> int:
        """Sub-vector length L."""
        return self.looks.sub_vector_length

    @property
    def is_by_runs(self) -> bool:
        """Whether rows look for themselves, in equal runs that are clustered apart."""
        return self.looks.tile_of is None

    def clustered(self, layer: Layer, rows: np.ndarray, cluster: Clusterer) -> list[Clusters]:
        """The clusters of each of a layer's GEMMs.

        Args:
            layer: the layer.
            rows: `(count, m, k)` float32.
            cluster: finds those of one GEMM.
        """
        order = self.column_order
        places = np.arange(layer.gemm.k) if order is None else order
        return [
            cluster(index, np.ascontiguousarray(rows[index].T, dtype=np.float32), places)
            for index in range(layer.gemm.count)
        ]

    def decisions(
        self, layer: Layer, made: Sequence[Clusters], evidence: Callable[[np.ndarray], Evidence]
    ) -> Decisions:
        """Rows shared within the clusters of each of a layer's GEMMs.

        Args:
            layer: the layer.
            made: the clusters of each of its GEMMs.
            evidence: from `(total clusters,)` uint64 signatures to what was looked at.
        """
        scales = [each.scales for each in made if each.scales is not None]
        representatives = joined([each.representatives for each in made])
        check_finite(layer, representatives)
        shared = SharedRows(
            gemm=layer.gemm,
            looks=self.looks,
            ids=stacked([each.ids for each in made]),
            clusters=stacked([each.clusters for each in made]),
            centroids=representatives,
            representative=self.representative,
            column_order=self.column_order,
            scaled=bool(scales),
            scales=stacked(scales) if scales else None,
        )
        return Decisions(
            layer=layer.name,
            gemm=layer.gemm,
            rows=shared,
            evidence=evidence(joined([each.signatures for each in made])),
        )


@dataclass(frozen=True, kw_only=True)
class SignatureClustering(Cutting):
    """Vectors of one (view, tile) with equal signatures form a cluster.

    Deep Reuse, equation 1: bit h of a signature is 1 where v_h . x exceeds a threshold.

    Attributes:
        hyperplanes: `(H, L)` float32.
        thresholds: `(count, v, H)` float32, what a projection must exceed.
        projection: what the front-end multiplies by, one of `PROJECTIONS`.
    """

    hyperplanes: np.ndarray = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    projection: str

    @property
    def hashes(self) -> int:
        """H, bits of a signature."""
        return len(self.hyperplanes)

    def evidence(self, signatures: np.ndarray) -> Signatures:
        """These signatures, of a batch that stands alone."""
        return Signatures(hashes=self.hashes, projection=self.projection, values=signatures)

    def clusterer(self, layer: Layer) -> Clusterer:
        """Clusters a GEMM's unfolded rows."""
        return self._in_runs(layer) if self.is_by_runs else partial(self._in_tiles, layer)

    def _in_runs(self, layer: Layer) -> Clusterer:
        length, looks = self.length, self.looks

        def cluster(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
            ids = np.empty((looks.sub_matrices, layer.gemm.m), np.int32)
            clusters = np.empty((looks.sub_matrices, looks.tiles), np.int32)
            signatures, representatives = cluster_rows(
                columns, order, length, looks.tiles, self.hyperplanes, self.thresholds[index],
                ids, clusters,
            )  # fmt: skip
            if self.representative == "first":
                check_finite(layer, representatives)  # while each row counts in a mean
                representatives = represent(
                    columns[order], length, ids, clusters, self.representative
                )
            return Clusters(
                ids=ids, clusters=clusters, signatures=signatures, representatives=representatives
            )

        return cluster

    def _in_tiles(
        self, layer: Layer, index: int, columns: np.ndarray, order: np.ndarray
    ) -> Clusters:
        """Of unfolded rows, a row that meets each vector gives it."""
        looks = self.looks
        each, p = looks.gemm.k // looks.taps, looks.positions
        kinds = []
        for (taps, rows), (vectors, bounds) in zip(looks.sources, looks.orders, strict=True):
            elements = order[taps * each + np.arange(each)[:, None]]
            kinds.append((columns[elements, rows].ravel(), vectors, vectors, bounds))
        return self._clusters_of(layer, index, kinds, np.arange(each) * p)

    def clusters_of_pixels(self, layer: Layer, images: np.ndarray, index: int) -> Clusters:
        """The clusters of one GEMM, of vectors that are read where they lie in feature maps.

        Args:
            layer: one that is looked at once a pixel.
            images: `(n, channels, *size)` of its input.
            index: the GEMM.
        """
        looks, plane = self.looks, math.prod(images.shape[2:])
        values = np.ascontiguousarray(images, np.float32).ravel()
        kinds = [
            # The channels of an image lie between it and its pixels.
            (values, pixels + pixels // plane * (images.shape[1] - 1) * plane, *own)
            for pixels, own in zip(pixels_met(layer, looks), looks.orders, strict=True)
        ]
        each = looks.gemm.k // looks.taps
        return self._clusters_of(layer, index, kinds, (index * each + np.arange(each)) * plane)

    def _clusters_of(
        self,
        layer: Layer,
        index: int,
        kinds: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
        elements: np.ndarray,
    ) -> Clusters:
        """The clusters of one GEMM's vectors; arguments as for `cluster_vectors`."""
        if self.representative == "first":  # which need not show every number
            for values, places, _, _ in kinds:
                check_finite(layer, values[elements[:, None] + places])
        return cluster_vectors(
            kinds,
            self.looks.positions,
            elements,
            (self.hyperplanes, self.thresholds[index]),
            first_only=self.representative == "first",
        )
