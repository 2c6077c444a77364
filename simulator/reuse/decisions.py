"""What a reuse policy decided for one layer: which rows share a result."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from simulator.reuse.kernels import gather_add
from simulator.reuse.lanes import aligned_empty
from workloads.gemm import Gemm

# Centroid results held while an output is rebuilt: of one group, about what a second-level cache
# holds; of all of them, a bound on memory.
_GROUP_RESULT_BYTES = 4 * 2**20
_RESULT_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class ReuseDecisions:
    """The clusters of one layer, made once and read by accuracy, timing and cost.

    The `(m, k)` activations of each of the layer's `count` GEMMs are cut into `s = ceil(k / L)`
    sub-matrices; the rows of each sub-matrix are clustered within each of `groups` consecutive,
    equal runs of rows (one per image, or one for the whole batch).

    Attributes:
        layer: name of the layer.
        gemm: its shape.
        sub_vector_length: L; the last sub-vector is shorter where L does not divide k.
        hashes: H, bits of a signature.
        projection: what the front-end multiplies by, `sign` or `int8`.
        groups: runs of rows that are clustered apart.
        ids: `(count, s, m)` int32, cluster of each sub-vector, numbered from 0 in each (sub-matrix,
            group) in the order in which the clusters appear in the stream.
        clusters: `(count, s, groups)` int32, number of clusters |C|.
        signatures: `(total clusters,)` uint64, in the order (GEMM, sub-matrix, group, id).
        centroids: `(total clusters, L)` float32 in the same order, zero beyond a short sub-vector;
            `None` once the results were computed.
    """

    layer: str
    gemm: Gemm
    sub_vector_length: int
    hashes: int
    projection: str
    groups: int
    ids: np.ndarray
    clusters: np.ndarray
    signatures: np.ndarray
    centroids: np.ndarray | None

    @property
    def sub_vectors(self) -> int:
        """Sub-vectors hashed, looked up and gathered: count x m x s."""
        return self.ids.size

    @cached_property
    def total_clusters(self) -> int:
        """Centroid sub-vectors that are multiplied by weights."""
        return int(self.clusters.sum(dtype=np.int64))

    @property
    def remaining_ratio(self) -> float:
        """r_c = |C| / N averaged over sub-matrices (Deep Reuse, III-B3); 1 means no reuse."""
        return self.total_clusters / self.sub_vectors

    @cached_property
    def widths(self) -> np.ndarray:
        """`(s,)` int64, columns of each sub-matrix: L, the last one maybe fewer."""
        starts = np.arange(self.ids.shape[1], dtype=np.int64) * self.sub_vector_length
        return np.minimum(self.sub_vector_length, self.gemm.k - starts)

    @cached_property
    def macs(self) -> int:
        """Multiplications left to the array: sum of |C_j| x L_j x n."""
        per_sub_matrix = self.clusters.sum(axis=(0, 2), dtype=np.int64)
        return int((per_sub_matrix * self.widths).sum()) * self.gemm.n

    def product(self, weights: np.ndarray) -> np.ndarray:
        """Multiply the centroids and hand their results to every row.

        Args:
            weights: `(count, k, n)` float32.

        Returns:
            `(count, m, n)` float32: the GEMM's result under these decisions.

        Raises:
            ValueError: the centroids were dropped.
        """
        if self.centroids is None:
            raise ValueError(f"decisions of layer {self.layer!r} hold no centroids any more")
        output = np.zeros((self.gemm.count, self.gemm.m, self.gemm.n), np.float32)
        ends = np.cumsum(self.clusters.sum(axis=2, dtype=np.int64)).reshape(self.ids.shape[:2])
        bounds = np.concatenate([[0], ends.ravel()])
        sub_matrices = self.ids.shape[1]
        for i in range(self.gemm.count):
            of_gemm = bounds[i * sub_matrices : (i + 1) * sub_matrices + 1]
            self._rebuild(
                self.centroids, of_gemm, self.clusters[i], weights[i], self.ids[i], output[i]
            )
        return output

    def _rebuild(self, centroids, bounds, clusters, weights, ids, output) -> None:
        """Fill the `(m, n)` output of one GEMM, as many sub-matrices at a time as the bound allows.

        A sub-matrix's centroids are the rows `bounds[j]:bounds[j + 1]`, group after group.
        """
        firsts = bounds[:-1, None] + np.cumsum(clusters, axis=1) - clusters
        length, n = self.sub_vector_length, self.gemm.n
        rows_held = min(_RESULT_BYTES, _GROUP_RESULT_BYTES * self.groups) // (4 * n)
        j = 0
        while j < len(ids):
            end = max(j + 1, int(np.searchsorted(bounds, bounds[j] + rows_held, "right")) - 1)
            results = aligned_empty((int(bounds[end] - bounds[j]), n))
            for place in range(j, end):
                np.matmul(
                    centroids[bounds[place] : bounds[place + 1], : self.widths[place]],
                    weights[place * length : place * length + self.widths[place]],
                    out=results[bounds[place] - bounds[j] : bounds[place + 1] - bounds[j]],
                )
            gather_add(results, firsts[j:end] - bounds[j], ids[j:end], output)
            j = end

    def without_centroids(self) -> "ReuseDecisions":
        """The decisions as timing and cost need them."""
        return replace(self, centroids=None)
