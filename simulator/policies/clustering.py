"""How sub-vectors are clustered, as plain data and as functions; and the decisions that follow."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Evidence, Signatures
from simulator.decisions.looks import Looks
from simulator.decisions.rows import SharedRows
from simulator.kernels.grouping import Clusters, joined, represent, stacked
from simulator.kernels.hashing import cluster_rows
from simulator.kernels.vectors import cluster_vectors
from simulator.policies.activations import check_finite
from simulator.policies.looking import pixel_vectors, pixels_met
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
class Clustering(Cutting, ABC):
    """How a layer's vectors are clustered, as plain data: all that a policy decides.

    Vectors come as unfolded rows or, of pixels that are looked at once, from feature maps where
    they lie; the same ones fall into the same clusters.
    """

    @abstractmethod
    def evidence(self, signatures: np.ndarray) -> Evidence:
        """What was looked at in the layer.

        Args:
            signatures: `(total clusters,)` uint64, of the clusters that were found.
        """

    @abstractmethod
    def clusters_of(
        self, index: int, kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> Clusters:
        """The clusters of one GEMM's vectors.

        Args:
            index: the GEMM.
            kinds: of each kind of taps its `(c, p)` float32 vectors, `(vectors,)` int64 vectors
                tile after tile and `(tiles + 1,)` int64 first ones, see `Looks.orders`.
        """

    def clusterer(self, layer: Layer) -> Clusterer:
        """Clusters a GEMM's unfolded rows: a row that meets each vector gives it."""
        looks = self.looks
        each = looks.gemm.k // looks.taps

        def cluster(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
            kinds = []
            for (taps, rows), (vectors, bounds) in zip(looks.sources, looks.orders, strict=True):
                if (taps == taps[0]).all():  # whole columns lie together
                    own = columns[order[int(taps[0]) * each + np.arange(each)]]
                    in_order = len(rows) == own.shape[1] and (rows == np.arange(len(rows))).all()
                    kinds.append((own if in_order else own.take(rows, axis=1), vectors, bounds))
                    continue
                elements = order[taps * each + np.arange(each)[:, None]]
                kinds.append((columns[elements, rows], vectors, bounds))
            return self._checked(layer, index, kinds)

        return cluster

    def clusters_of_pixels(self, layer: Layer, images: np.ndarray, index: int) -> Clusters:
        """The clusters of one GEMM, of vectors that are read where they lie in feature maps.

        Args:
            layer: one that is looked at once a pixel.
            images: `(n, channels, *size)` of its input.
            index: the GEMM.
        """
        vectors = pixel_vectors(layer, images, index)
        pairs = zip(vectors, self.looks.orders, strict=True)
        return self._checked(layer, index, [(each, *own) for each, own in pairs])

    def _checked(
        self, layer: Layer, index: int, kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> Clusters:
        """The clusters; a first member need not show every number, so its vectors are checked."""
        if self.representative == "first":
            for columns, vectors, _ in kinds:
                if not np.isfinite(columns.sum()):  # it may be in what is no vector
                    check_finite(layer, columns[:, vectors])
        return self.clusters_of(index, kinds)

    @property
    def elements_of_segments(self) -> list[np.ndarray]:
        """Of each segment the `(L or fewer,)` int64 elements of a tap."""
        order = np.arange(self.looks.gemm.k // self.looks.taps)
        return [order[first : first + self.length] for first in range(0, order.size, self.length)]


@dataclass(frozen=True, kw_only=True)
class SignatureClustering(Clustering):
    """Vectors of one (view, tile) with equal signatures form a cluster.

    Deep Reuse, equation 1: bit h of a signature is 1 where v_h . x exceeds a threshold.

    Attributes:
        hyperplanes: `(H, L)` float32.
        thresholds: `(count, v, H)` float32, what a projection must exceed.
        projection: what the front-end multiplies by, one of `PROJECTIONS`.
        offsets: `(H,)` float32, standard deviations from a projection's mean to its threshold,
            where thresholds follow from these alone; `None` where they don't.
    """

    hyperplanes: np.ndarray = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    projection: str
    offsets: np.ndarray | None = field(default=None, repr=False)

    @property
    def hashes(self) -> int:
        """H, bits of a signature."""
        return len(self.hyperplanes)

    def evidence(self, signatures: np.ndarray) -> Signatures:
        """These signatures, of a batch that stands alone."""
        return Signatures(hashes=self.hashes, projection=self.projection, values=signatures)

    def clusterer(self, layer: Layer) -> Clusterer:
        """Clusters a GEMM's unfolded rows."""
        return self._in_runs(layer) if self.is_by_runs else super().clusterer(layer)

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

    def clusters_of(
        self, index: int, kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> Clusters:
        """Those of equal signatures."""
        looks = self.looks
        flat = [(columns.ravel(), vectors, vectors, bounds) for columns, vectors, bounds in kinds]
        return self._of_equal_signatures(
            index, flat, np.arange(looks.gemm.k // looks.taps) * looks.positions
        )

    def clusters_of_pixels(self, layer: Layer, images: np.ndarray, index: int) -> Clusters:
        """The same without a copy of the feature maps, where each pixel counts in a mean."""
        if self.representative == "first":
            return super().clusters_of_pixels(layer, images, index)
        looks, plane = self.looks, math.prod(images.shape[2:])
        values = np.ascontiguousarray(images, np.float32).ravel()
        kinds = [
            # The channels of an image lie between it and its pixels.
            (values, pixels + pixels // plane * (images.shape[1] - 1) * plane, *own)
            for pixels, own in zip(pixels_met(layer, looks), looks.orders, strict=True)
        ]
        each = looks.gemm.k // looks.taps
        return self._of_equal_signatures(index, kinds, (index * each + np.arange(each)) * plane)

    def _of_equal_signatures(
        self,
        index: int,
        kinds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
        elements: np.ndarray,
    ) -> Clusters:
        """Arguments as for `cluster_vectors`."""
        return cluster_vectors(
            kinds,
            self.looks.positions,
            elements,
            (self.hyperplanes, self.thresholds[index]),
            first_only=self.representative == "first",
        )
