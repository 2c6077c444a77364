"""How sub-vectors are clustered, as plain data and as functions; and the decisions that follow."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Evidence, Signatures
from simulator.decisions.rows import SharedRows
from simulator.kernels.grouping import Clusters, joined, represent, stacked
from simulator.kernels.hashing import cluster_rows
from simulator.policies.activations import check_finite
from workloads.traces.layer import Layer

# From a GEMM's index, its `(k, m)` columns in the layer's own order, and the column at each place
# of the rows that are cut, to its clusters.
Clusterer = Callable[[int, np.ndarray, np.ndarray], Clusters]


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How a layer's rows are cut into sub-vectors, and which of them may share a cluster.

    Attributes:
        length: sub-vector length L; the last sub-vector is shorter where L does not divide k.
        groups: consecutive, equal runs of rows that are clustered apart.
        column_order: `(k,)` int64, the layer's column at each place of a row that is cut; `None`
            where it is cut as it is.
        representative: of a cluster: `centroid`, the mean of its members, or `first`, the first
            one in the stream.
    """

    length: int
    groups: int
    column_order: np.ndarray | None
    representative: str

    def sub_matrices(self, layer: Layer) -> int:
        """Sub-matrices of each of a layer's GEMMs."""
        return math.ceil(layer.gemm.k / self.length)

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
            sub_vector_length=self.length,
            groups=self.groups,
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
    """Sub-vectors of one (sub-matrix, group) with equal signatures form a cluster.

    Deep Reuse, equation 1: bit h of a signature is 1 where v_h . x exceeds a threshold.

    Attributes:
        hyperplanes: `(H, L)` float32.
        thresholds: `(count, s, H)` float32, what a projection must exceed.
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
        length, sub_matrices = self.length, self.sub_matrices(layer)

        def cluster(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
            ids = np.empty((sub_matrices, layer.gemm.m), np.int32)
            clusters = np.empty((sub_matrices, self.groups), np.int32)
            signatures, representatives = cluster_rows(
                columns, order, length, self.groups, self.hyperplanes, self.thresholds[index],
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
