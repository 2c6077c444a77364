"""Deep reuse by k-means, to study how alike sub-vectors are."""

import math
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import integer, one_of, real
from simulator.decisions.evidence import Distances, Evidence
from simulator.kernels.grouping import Clusters, group_equal
from simulator.policies.activations import check_finite
from simulator.policies.clustering import Clusterer
from simulator.policies.lsh import METRICS
from simulator.policies.policy import LayerState
from simulator.policies.sub_vectors import SubVectorPolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


def _clusters_rule(value: object, path: str) -> list[str]:
    """A number of clusters, or a fraction of rows."""
    if isinstance(value, float):
        return real(1e-6, 1.0)["rule"](value, path)
    return integer(1, 2**20)["rule"](value, path)


@dataclass(frozen=True, kw_only=True)
class KMeansReuse(SubVectorPolicy):
    """Sub-vectors nearest to the same of |C| means share a result.

    Deep Reuse, section III-B1: good clusters, whose search costs more than the layer; a tool for
    `decide`, which no accelerator described here builds. Lloyd's algorithm from one k-means++ start
    (scikit-learn), for each sub-matrix and group anew. Where no more than |C| rows differ, each
    distinct row is a cluster; a mean that no row is nearest to is none.

    Attributes:
        clusters: |C| of each sub-matrix and group, or a fraction of the group's rows (a `float`,
            rounded up).
        metric: `angular` clusters rows divided by their norm, `euclidean` the rows themselves. The
            centroid is the mean of the rows themselves in both.
        iterations: of Lloyd's algorithm, at most.
        seed: of the start.
    """

    kind: ClassVar[str] = "k_means"

    clusters: int | float = field(metadata={"rule": _clusters_rule})
    metric: str = field(default="angular", metadata=one_of(lambda: METRICS))
    iterations: int = field(default=25, metadata=integer(1, 10_000))
    seed: int = field(default=0, metadata=integer(0, 2**32 - 1))

    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """By the nearest mean."""
        length, sub_matrices = self.length_in(layer), self.sub_matrices_in(layer)
        rows = layer.gemm.m // groups
        fraction = isinstance(self.clusters, float)
        wanted = math.ceil(self.clusters * rows) if fraction else int(self.clusters)

        def cluster(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
            check_finite(layer, columns)
            columns = columns[order]
            keys = np.empty((sub_matrices, columns.shape[1]), np.uint64)
            for j in range(sub_matrices):
                points = columns[j * length : (j + 1) * length].T
                if self.metric == "angular":
                    norms = np.linalg.norm(points.astype(np.float64), axis=1, keepdims=True)
                    points = (points / np.where(norms > 0, norms, 1)).astype(np.float32)
                for first in range(0, len(points), rows):
                    part = slice(first, first + rows)
                    keys[j, part] = self._nearest(points[part], wanted)
            return group_equal(keys, columns, length, groups, self.representative)

        return cluster

    def evidence(self, layer: Layer, signatures: np.ndarray) -> Evidence:
        """A search for the nearest mean."""
        return Distances()

    def _nearest(self, points: np.ndarray, wanted: int) -> np.ndarray:
        """`(rows,)` number of the mean that each row is nearest to."""
        distinct, numbers = np.unique(points, axis=0, return_inverse=True)
        if len(distinct) <= wanted:
            return numbers.reshape(-1)
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        search = KMeans(wanted, n_init=1, max_iter=self.iterations, random_state=self.seed)
        with warnings.catch_warnings():
            # Rows within rounding of each other may leave means without a row: fewer clusters.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return search.fit(points).labels_


register(
    Technique(
        name="k_means",
        title="k-means clusters",
        axis="rows",
        word="share",
        grain="sub-vector",
        rule="Sub-vectors are clustered by k-means on each input; a study tool that no hardware "
        "here builds, the best that clusters can be.",
        evidence="distances to all centres",
        source="Ning and Shen, Deep Reuse, ICS 2019, section III",
        policy=KMeansReuse,
        units=("distance_unit",),
        start={"clusters": 0.25, "length": 16},
    )
)
