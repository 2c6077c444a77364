"""What becomes of a product's rows: shared, filled in, kept, or added to earlier ones."""

from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, show
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.looks import Looks
from workloads.traces.layer import Gemm


@dataclass(frozen=True, kw_only=True)
class SharedRows:
    """Rows, or segments of them, that take the result of one representative.

    The vectors of each view (`Looks`) are clustered within each tile; usually a view is one of the
    `s = ceil(k / L)` sub-matrices of the `(m, k)` activations of each of the layer's `count` GEMMs,
    and a tile the rows of an image. In a stream, clusters of earlier batches keep their results
    (`ages`).

    Attributes:
        gemm: shape of the layer's products.
        looks: which vectors are clustered, in which tiles, and who meets them.
        ids: `(count, v, p)` int32, cluster of each vector, numbered from 0 in each (view, tile) in
            the order in which the clusters appear in the stream; -1 where there is no vector.
        clusters: `(count, v, tiles)` int32, number of clusters |C|.
        centroids: `(total clusters, L)` float32 in the order (GEMM, view, tile, id), zero
            beyond a short sub-vector; `None` once the results were computed.
        ages: `(total clusters,)` int64 in the same order, batches of the stream since the result
            was computed, 0 for those that are computed now. `None`: all are.
        representative: what a centroid is: `centroid`, the mean of its cluster, or `first`, the
            first member in the stream.
        column_order: `(k,)` int64, the column of the layer's rows at each place of the rows that
            were cut into sub-vectors; `None` where they were cut as they are.
        scaled: whether each sub-vector's share of the result is multiplied by a number of its own.
        scales: `(count, v, p)` float32, these numbers; `None` where there are none, or once the
            results were computed.
    """

    gemm: Gemm
    looks: Looks
    ids: np.ndarray
    clusters: np.ndarray
    centroids: np.ndarray | None
    ages: np.ndarray | None = None
    representative: str = "centroid"
    column_order: np.ndarray | None = None
    scaled: bool = False
    scales: np.ndarray | None = None

    @property
    def groups(self) -> int:
        """Tiles of vectors that are clustered apart."""
        return self.looks.tiles

    @property
    def sub_vector_length(self) -> int:
        """L."""
        return self.looks.sub_vector_length

    @property
    def units(self) -> tuple[str, ...]:
        """Fields of an `Accelerator` that sharing takes, whatever the evidence."""
        scaler = ("scaler",) if self.scaled else ()
        return ("centroid_buffer", "reconstructor", *scaler)

    @property
    def sub_vectors(self) -> int:
        """Vectors that are looked at; count x m x s where every tap looks for itself."""
        return self.looks.looked_at

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
    def firsts(self) -> np.ndarray:
        """`(count, v, tiles)` int64, the number of each one's cluster 0 among all clusters."""
        ends = np.cumsum(self.clusters.ravel(), dtype=np.int64)
        return (ends - self.clusters.ravel()).reshape(self.clusters.shape)

    def clusters_of(self, index: int, view: int) -> np.ndarray:
        """`(p,)` int64, the number of each vector's cluster among all, -1 where there is none."""
        looks = self.looks
        tiles = looks.tile_numbers[view // looks.segments]
        numbers = self.firsts[index, view, np.maximum(tiles, 0)] + self.ids[index, view]
        return np.where(tiles < 0, np.int64(-1), numbers)

    def clusters_met(self, index: int, sub_matrix: int) -> np.ndarray:
        """`(m,)` int64, the number of the cluster that each row takes a sub-matrix's result of; -1
        for none, where the row has zeros."""
        looks = self.looks
        met = looks.met[sub_matrix // looks.segments]
        numbers = self.clusters_of(index, int(looks.view_of[sub_matrix]))
        return np.where(met < 0, np.int64(-1), numbers[met])

    @cached_property
    def members(self) -> np.ndarray:
        """`(total clusters,)` int64, vectors in each, in the order of `signatures`."""
        sizes = np.zeros(int(self.clusters.sum(dtype=np.int64)), np.int64)
        for index, view in np.ndindex(self.clusters.shape[:2]):
            numbers = self.clusters_of(index, view)
            own = numbers[numbers >= 0]
            if own.size:
                first = int(self.firsts[index, view, 0])
                counted = np.bincount(own - first)
                sizes[first : first + counted.size] = counted
        return sizes

    @cached_property
    def new_clusters(self) -> np.ndarray:
        """`(count, v, tiles)`, of the clusters those whose results are computed now."""
        if self.fresh is None:
            return self.clusters
        return self._summed(self.fresh)

    @cached_property
    def new_cluster_rows(self) -> np.ndarray:
        """`(count, v, tiles)` int64, vectors that fall into these clusters."""
        if self.fresh is None:
            return np.broadcast_to(self.looks.vectors, self.clusters.shape)
        return self._summed(self.members * self.fresh)

    def _summed(self, of_clusters: np.ndarray) -> np.ndarray:
        """`(count, v, tiles)` int64, over the clusters of each."""
        sums = np.concatenate([[0], np.cumsum(of_clusters, dtype=np.int64)])
        return sums[self.firsts + self.clusters] - sums[self.firsts]

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

        Only new clusters count: 0 where every result was computed in an earlier batch. Clusters of
        pixels that are looked at once count for each tap that they are multiplied for.
        """
        per_view = self.new_clusters.sum(axis=(0, 2), dtype=np.int64)
        cells = self.gemm.count * self.gemm.m * self.looks.sub_matrices
        return int((per_view * self.looks.taps_of_view).sum()) / cells

    @property
    def widths(self) -> np.ndarray:
        """`(v,)` int64, columns of each view: L, the last one of a tap maybe fewer."""
        return self.looks.widths

    @cached_property
    def macs(self) -> int:
        """Multiplications left to the array: sum of |C_j| x L_j x taps x n over new clusters."""
        per_view = self.new_clusters.sum(axis=(0, 2), dtype=np.int64)
        return int((per_view * self.widths * self.looks.taps_of_view).sum()) * self.gemm.n

    def with_whole_centroids(self) -> "SharedRows":
        """The same with centroids rounded to integers, as an integer array gets them."""
        assert self.centroids is not None
        return replace(self, centroids=np.rint(self.centroids))

    def without_operands(self) -> "SharedRows":
        """The same as timing and cost need it."""
        return replace(self, centroids=None, scales=None)


@dataclass(frozen=True, kw_only=True)
class FilledRows:
    """Rows of which some positions are computed; the others are filled in from their results.

    Every image has the same positions, `m / images` of them.

    Attributes:
        gemm: shape of the layer's products.
        images: in the layer's rows.
        computed: `(c,)` int64, positions that are computed, ascending.
        taps: `(positions, q)` int32, places in `computed` that a position's result comes from;
            itself alone where it is computed.
        weights: `(positions, q)` float32 that these results are multiplied by before they are added
            up; `None` where q is 1 and the result is taken as it is.

    Raises:
        ConfigError: positions or taps are not those of such an image.
    """

    gemm: Gemm
    images: int
    computed: np.ndarray
    taps: np.ndarray
    weights: np.ndarray | None = None

    units: ClassVar[tuple[str, ...]] = ("address_list", "reconstructor")

    def __post_init__(self) -> None:
        """Every position must be filled from computed ones."""
        computed, taps, positions = self.computed, self.taps, self.gemm.m // (self.images or 1)
        broken = []
        if self.images < 1 or self.gemm.m % self.images:
            broken.append(
                f"FilledRows.images must divide m={self.gemm.m}, got {self.images}; give those "
                "that share the rows"
            )
        elif (
            computed.ndim != 1
            or not computed.size
            or not (np.diff(computed) > 0).all()
            or computed[0] < 0
            or computed[-1] >= positions
        ):
            broken.append(
                f"FilledRows.computed must be ascending positions from 0 to {positions - 1}, at "
                f"least one, got {show(computed)}; name the positions that are computed"
            )
        elif (
            taps.ndim != 2
            or len(taps) != positions
            or not ((taps >= 0) & (taps < len(computed))).all()
        ):
            broken.append(
                f"FilledRows.taps must be ({positions}, q) places among {len(computed)} computed "
                f"positions, got shape {taps.shape}; give the places that each is filled from"
            )
        elif taps.shape[1] > 1 if self.weights is None else self.weights.shape != taps.shape:
            broken.append(
                f"FilledRows.weights must be one for each of the taps of shape {taps.shape}, got "
                f"{show(None if self.weights is None else self.weights.shape)}; weigh every tap"
            )
        refuse(broken)

    @property
    def positions(self) -> int:
        """Positions of an image."""
        return self.gemm.m // self.images

    @property
    def taps_of_positions(self) -> np.ndarray:
        """`(positions,)` int64, results that each is made of; 1 where it takes one as it is."""
        if self.weights is None:
            return np.ones(self.positions, np.int64)
        return np.count_nonzero(self.weights, axis=1)

    @property
    def is_computed(self) -> np.ndarray:
        """`(count, m)` bool, rows that are computed."""
        of_image = np.zeros(self.positions, bool)
        of_image[self.computed] = True
        return np.tile(of_image, (self.gemm.count, self.images))

    @property
    def computed_rows(self) -> int:
        """Rows of one GEMM that are computed."""
        return self.images * len(self.computed)

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the rows that are computed."""
        return len(self.computed) / self.positions

    @property
    def macs(self) -> int:
        """Multiplications left to the array."""
        return self.gemm.count * self.computed_rows * self.gemm.k * self.gemm.n

    def without_operands(self) -> "FilledRows":
        """Itself: all of it is needed by timing and cost."""
        return self


@dataclass(frozen=True, kw_only=True)
class KeptRows:
    """Rows of which some keep a result that was computed before.

    Rows of frames that do not run and of tokens that are gone are such rows too, whose results are
    those of the frame before, or 0. Where a batch is of frames in a row, a row may keep the result
    of an earlier frame of the same batch (`sources`).

    Attributes:
        gemm: shape of the layer's products.
        kept: `(count, m)` bool, rows that are kept; the others are computed.
        results: `(count, m', n)` float32, the layer's results of the batch before; `None` where
            nothing is kept of it, or once the results were computed.
        sources: `(count, m)` integers, of each kept row the row that computed its result: from 0,
            a computed one of this batch; below, one of the batch before, -1 its last. `None`: each
            keeps its own row's of the batch before, which has as many.
        operands: `(count, c, k)` float32, what is multiplied for the computed rows, in their order,
            of each product as many; `None` where they are the layer's own rows, or once the results
            were computed.
        on_chip: whether a design has room on the chip for what is kept; else it lies in the DRAM.
            Timing sets it.

    Raises:
        ConfigError: the kept rows, their sources or the operands are not those of such a layer.
    """

    gemm: Gemm
    kept: np.ndarray = field(repr=False)
    results: np.ndarray | None = field(default=None, repr=False)
    sources: np.ndarray | None = field(default=None, repr=False)
    operands: np.ndarray | None = field(default=None, repr=False)
    on_chip: bool = False

    units: ClassVar[tuple[str, ...]] = ("address_list",)

    def __post_init__(self) -> None:
        """A mark for each row, a computed source for each kept one, operands for the others."""
        shape = self.gemm.count, self.gemm.m
        if self.kept.shape != shape or self.kept.dtype != bool:
            raise ConfigError(
                f"KeptRows.kept must be bool of shape (count, m) = {shape}, got "
                f"{self.kept.dtype} of shape {self.kept.shape}; mark the rows that are kept"
            )
        refuse([*self._broken_sources(), *self._broken_operands()])

    def _broken_sources(self) -> list[str]:
        """A kept row's source is computed in this batch, or of the one before."""
        sources, shape = self.sources, self.kept.shape
        if sources is None:
            return []
        if sources.shape != shape or sources.dtype.kind != "i":
            return [
                f"KeptRows.sources must be integers of shape (count, m) = {shape}, got "
                f"{sources.dtype} of shape {sources.shape}; name a row for each that is kept"
            ]
        for kept, own in zip(self.kept, sources, strict=True):
            named = own[kept]
            named = named[named >= 0]
            if named.size and (named.max() >= shape[1] or kept[named].any()):
                return [
                    "KeptRows.sources must name computed rows of this batch, or negative ones of "
                    "the batch before, got one that is kept itself or is none; name the row that "
                    "computed the result"
                ]
        return []

    def _broken_operands(self) -> list[str]:
        """As many as rows are computed."""
        operands, gemm = self.operands, self.gemm
        if operands is None:
            return []
        computed = np.count_nonzero(~self.kept, axis=1)
        if operands.shape == (gemm.count, computed[0], gemm.k) and (computed == computed[0]).all():
            return []
        return [
            f"KeptRows.operands must be one of k={gemm.k} elements for each of {computed.tolist()} "
            f"computed rows, the same number in every product, got shape {operands.shape}; give "
            "what is multiplied for each"
        ]

    def with_results(self, before: np.ndarray) -> "KeptRows":
        """The same with the results of the batch before.

        Args:
            before: `(count, m', n)` float32.

        Raises:
            ConfigError: a source is none of its rows.
        """
        rows = before.shape[1]
        first = 0 if self.sources is None else int(self.sources.min(where=self.kept, initial=0))
        if first < -rows or (self.sources is None and rows != self.gemm.m):
            raise ConfigError(
                f"KeptRows.sources must name rows of the batch before, which has {rows}, got "
                f"{first if self.sources is not None else f'one of each of {self.gemm.m}'}; go on "
                "with a batch of the same frames"
            )
        return self._with(results=before)

    @property
    def is_computed(self) -> np.ndarray:
        """`(count, m)` bool, rows that are computed."""
        return ~self.kept

    @cached_property
    def computed_rows(self) -> int:
        """Rows of all GEMMs together that are computed."""
        return int(self.kept.size - np.count_nonzero(self.kept))

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the rows that are computed."""
        return self.computed_rows / self.kept.size

    @property
    def macs(self) -> int:
        """Multiplications left to the array."""
        return self.computed_rows * self.gemm.k * self.gemm.n

    def without_operands(self) -> "KeptRows":
        """The same as timing and cost need it."""
        return self._with(results=None, operands=None)

    def _with(self, **arrays: np.ndarray | None) -> "KeptRows":
        """The same rows, which were checked when they were made, with other arrays beside them."""
        found = copy(self)
        for name, array in arrays.items():
            object.__setattr__(found, name, array)
        return found


RowDecisions = SharedRows | FilledRows | KeptRows | IncrementalRows
