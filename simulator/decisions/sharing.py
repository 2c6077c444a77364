"""What a reuse policy decided for one layer: which rows share a result."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from accelerators import PROJECTIONS, ConfigError
from accelerators.rules import integer, quoted, show
from simulator.kernels.hashing import gather_add
from simulator.kernels.lanes import aligned_empty
from simulator.kernels.tables import ClusterCache
from workloads.traces.layer import Gemm

# Centroid results held while an output is rebuilt: of one group, about what a second-level cache
# holds; of all of them, a bound on memory.
_GROUP_RESULT_BYTES = 4 * 2**20
_RESULT_BYTES = 64 * 2**20
# One signed word.
_SIGNATURE_BITS = 62


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
        hashes: H, bits of a signature; `None` where there is none.
        projection: what the front-end multiplies by, one of `PROJECTIONS`; `None` likewise.
        groups: runs of rows that are clustered apart.
        ids: `(count, s, m)` int32, cluster of each sub-vector, numbered from 0 in each (sub-matrix,
            group) in the order in which the clusters appear in the stream.
        clusters: `(count, s, groups)` int32, number of clusters |C|.
        signatures: `(total clusters,)` uint64, in the order (GEMM, sub-matrix, group, id).
        centroids: `(total clusters, L)` float32 in the same order, zero beyond a short sub-vector;
            `None` once the results were computed.
        ages: `(total clusters,)` int64 in the same order, batches of the stream since the result
            was computed, 0 for those that are computed now. `None`: all are.
        cache: the table that a stream's clusters are kept in; `None` without a stream.
        representative: what a centroid is: `centroid`, the mean of its cluster, `first`, the first
            member in the stream, or `chosen`, another member.
        column_order: `(k,)` int64, the column of the layer's rows at each place of the rows that
            were cut into sub-vectors; `None` where they were cut as they are.
        norms: `(count, s, m)` float32, what each sub-vector's share of the result is multiplied by;
            `None` for 1, or once the results were computed.
        unbuilt: what these decisions would need that no accelerator described here has; `None`
            where it can be built.
    """

    layer: str
    gemm: Gemm
    sub_vector_length: int
    hashes: int | None
    projection: str | None
    groups: int
    ids: np.ndarray
    clusters: np.ndarray
    signatures: np.ndarray
    centroids: np.ndarray | None
    ages: np.ndarray | None = None
    cache: ClusterCache | None = None
    representative: str = "centroid"
    column_order: np.ndarray | None = None
    norms: np.ndarray | None = None
    unbuilt: str | None = None

    @property
    def sub_vectors(self) -> int:
        """Sub-vectors hashed, looked up and gathered: count x m x s."""
        return self.ids.size

    @property
    def signature_bits(self) -> int:
        """H, where the decisions can be built.

        Raises:
            ConfigError: they have no signatures.
        """
        if self.hashes is None:
            raise ConfigError(
                f"decisions of layer {self.layer!r} must have signatures, got none; "
                "decide with LshReuse"
            )
        return self.hashes

    def check_signatures(self) -> None:
        """What the hardware would be priced by must be what was decided.

        Raises:
            ConfigError: signatures are claimed, but do not fit into H bits or do not tell clusters
                of a sub-matrix and group apart.
        """
        if self.hashes is None:
            return
        where = f"decisions of layer {self.layer!r}"
        broken = integer(1, _SIGNATURE_BITS)["rule"](self.hashes, f"{where} hashes")
        if self.projection not in PROJECTIONS:
            broken.append(
                f"{where} projection must be {quoted(PROJECTIONS)}, got {show(self.projection)}; "
                "name what the front-end multiplies by"
            )
        if not broken and int(self.signatures.max(initial=0)) >> self.hashes:
            broken.append(
                f"{where} must have signatures of hashes={self.hashes} bits, got "
                f"{int(self.signatures.max())}; claim as many in front_end() as are computed"
            )
        # In a stream's finite cache a cluster that was evicted comes again under its signature.
        if not broken and self.cache is None:
            places = np.repeat(np.arange(self.clusters.size), self.clusters.ravel())
            order = np.lexsort((self.signatures, places))
            same = np.diff(self.signatures[order]) == 0
            if np.any(same & (np.diff(places[order]) == 0)):
                broken.append(
                    f"{where} must have a signature for each cluster, as hashing units with "
                    f"hashes={self.hashes} tell clusters apart by it, got one for several; claim "
                    "hashes=None in front_end() where clusters are not those of equal signatures"
                )
        if broken:
            raise ConfigError(broken)

    @cached_property
    def fresh(self) -> np.ndarray | None:
        """`(total clusters,)` bool, clusters whose results are computed now; `None`: all are."""
        return None if self.ages is None else self.ages == 0

    @cached_property
    def age_counts(self) -> np.ndarray:
        """`(oldest + 1,)` int64, sub-vectors by the age of the result they take, in batches."""
        if self.ages is None:
            return np.array([self.sub_vectors], np.int64)
        return np.bincount(self.ages, weights=self.members).astype(np.int64)

    @cached_property
    def members(self) -> np.ndarray:
        """`(total clusters,)` int64, sub-vectors in each, in the order of `signatures`."""
        ids = self.ids.reshape(*self.clusters.shape, -1)
        sizes = [
            np.bincount(ids[place], minlength=int(self.clusters[place]))
            for place in np.ndindex(self.clusters.shape)
        ]
        return np.concatenate(sizes)

    @cached_property
    def new_clusters(self) -> np.ndarray:
        """`(count, s, groups)`, of the clusters those whose results are computed now."""
        if self.fresh is None:
            return self.clusters
        return self._summed(self.fresh)

    @cached_property
    def new_cluster_rows(self) -> np.ndarray:
        """`(count, s, groups)` int64, sub-vectors that fall into these clusters."""
        if self.fresh is None:
            return np.full(self.clusters.shape, self.gemm.m // self.groups, np.int64)
        return self._summed(self.members * self.fresh)

    def _summed(self, of_clusters: np.ndarray) -> np.ndarray:
        """`(count, s, groups)` int64, over the clusters of each."""
        firsts = np.cumsum(self.clusters.ravel()) - self.clusters.ravel()
        return np.add.reduceat(of_clusters, firsts, dtype=np.int64).reshape(self.clusters.shape)

    @cached_property
    def total_clusters(self) -> int:
        """Centroid sub-vectors that are multiplied by weights."""
        return int(self.new_clusters.sum(dtype=np.int64))

    @property
    def reuse_rate(self) -> float:
        """R, fraction of sub-vectors that fall into clusters of earlier batches.

        The words of Deep Reuse on its Fig. 5. The R of its complexity, (1 - R) |C| K M, is
        `cluster_reuse_rate`; large clusters are old ones, so that is less.
        """
        return 1 - int(self.new_cluster_rows.sum()) / self.sub_vectors

    @property
    def cluster_reuse_rate(self) -> float:
        """R of the complexity (Deep Reuse, III-B2): fraction of the clusters used that are old."""
        return 1 - self.total_clusters / int(self.clusters.sum(dtype=np.int64))

    @property
    def remaining_ratio(self) -> float:
        """r_c = |C| / N averaged over sub-matrices (Deep Reuse, III-B3); 1 means no reuse.

        Only new clusters count: 0 where every result was computed in an earlier batch.
        """
        return self.total_clusters / self.sub_vectors

    @cached_property
    def widths(self) -> np.ndarray:
        """`(s,)` int64, columns of each sub-matrix: L, the last one maybe fewer."""
        starts = np.arange(self.ids.shape[1], dtype=np.int64) * self.sub_vector_length
        return np.minimum(self.sub_vector_length, self.gemm.k - starts)

    @cached_property
    def macs(self) -> int:
        """Multiplications left to the array: sum of |C_j| x L_j x n over new clusters."""
        per_sub_matrix = self.new_clusters.sum(axis=(0, 2), dtype=np.int64)
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
            matrix = weights[i] if self.column_order is None else weights[i][self.column_order]
            norms = None if self.norms is None else self.norms[i]
            self._rebuild(
                self.centroids, of_gemm, self.clusters[i], matrix, self.ids[i], norms, output[i]
            )
        return output

    def _rebuild(self, centroids, bounds, clusters, weights, ids, norms, output) -> None:
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
            local = firsts[j:end] - bounds[j]
            if norms is None:
                gather_add(results, local, ids, np.arange(j, end), 0, output, 0)
            else:
                _gather_scaled(results, local, ids[j:end], norms[j:end], output)
            j = end

    def with_whole_centroids(self) -> "ReuseDecisions":
        """The decisions with centroids rounded to integers, as an integer array gets them."""
        assert self.centroids is not None
        return replace(self, centroids=np.rint(self.centroids))

    def without_centroids(self) -> "ReuseDecisions":
        """The decisions as timing and cost need them."""
        return replace(self, centroids=None, norms=None)


def _gather_scaled(results, offsets, ids, norms, output) -> None:
    """As `gather_add`, each sub-vector's result times its norm."""
    rows = ids.shape[1] // offsets.shape[1]
    for of_groups, numbers, scales in zip(offsets, ids, norms, strict=True):
        output += scales[:, None] * results[np.repeat(of_groups, rows) + numbers]
