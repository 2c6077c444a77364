"""Deep reuse by hyper-cubes: bins of a few dimensions of each sub-vector."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import Relation, integer, one_of
from simulator.decisions.evidence import Bins, Evidence
from simulator.kernels.grouping import Clusters, group_equal
from simulator.policies.activations import check_activations, check_finite, check_state
from simulator.policies.clustering import Clusterer
from simulator.policies.policy import LayerState, ReadWeights
from simulator.policies.sub_vectors import SubVectorPolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

PRIMARIES = ("variance", "first")


def _bins_fit_a_key(policy: "HyperCubeReuse") -> list[str]:
    """The B^D hyper-cubes are numbered in 62 bits."""
    if policy.bins**policy.dimensions <= 2**62:
        return []
    most = int(62 / math.log2(policy.bins))
    return [
        f"bins**dimensions must not exceed 2^62, got {policy.bins}**{policy.dimensions}; "
        f"use at most {most} dimensions"
    ]


def _dimensions_fit_a_sub_vector(policy: "HyperCubeReuse") -> list[str]:
    """No more dimensions than elements."""
    if policy.length is None or policy.dimensions <= policy.length:
        return []
    return [
        f"dimensions must not exceed length={policy.length}, got {policy.dimensions}; "
        f"use {policy.length} or less"
    ]


@dataclass(frozen=True, kw_only=True)
class HyperCubeReuse(SubVectorPolicy):
    """Sub-vectors whose D primary dimensions fall into the same of B bins share a result.

    Deep Reuse, section III-B1: element x of dimension j is in bin B (x - min) / (max - min),
    rounded down, with the least and the greatest element of that dimension among the rows that are
    clustered together; the greatest is in the last bin. There are B^D hyper-cubes, most of them
    empty. No accelerator described here builds it.

    Attributes:
        bins: B, at least 1.
        dimensions: D, at least 1; a sub-vector with fewer elements takes all of them.
        primary: which D elements: `variance`, those of largest variance over the calibration
            activations, in each sub-matrix anew, or `first`, the first D. The paper doesn't say.
    """

    kind: ClassVar[str] = "hyper_cube"

    bins: int = field(metadata=integer(1, 2**20))
    dimensions: int = field(metadata=integer(1, 62))
    primary: str = field(default="variance", metadata=one_of(lambda: PRIMARIES))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("bins", "dimensions"), _bins_fit_a_key),
        Relation(("length", "dimensions"), _dimensions_fit_a_sub_vector),
    )

    def needs_calibration(self, layer: Layer) -> bool:
        """Only to rank dimensions."""
        return self.primary == "variance"

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """The variance of each column, `(count, k)`."""
        check_activations(layer, rows)
        return {"variance": rows.var(axis=1)}

    def clusterer(self, layer: Layer, groups: int, state: LayerState) -> Clusterer:
        """By hyper-cube."""
        k, length, sub_matrices = layer.gemm.k, self.length_in(layer), self.sub_matrices_in(layer)
        order = self.column_order(layer)
        ranks = np.zeros((layer.gemm.count, k))
        if self.primary == "variance":
            check_state(layer, state, {"variance": ranks.shape})
            ranks -= state["variance"] if order is None else state["variance"][:, order]

        def cluster(index: int, columns: np.ndarray, order: np.ndarray) -> Clusters:
            check_finite(layer, columns)
            columns = columns[order]
            keys = np.zeros((sub_matrices, columns.shape[1]), np.uint64)
            for j in range(sub_matrices):
                part = slice(j * length, min((j + 1) * length, k))
                primary = np.argsort(ranks[index, part], kind="stable")[: self.dimensions]
                for bins in self._bins(columns[part][primary], groups):
                    keys[j] = keys[j] * np.uint64(self.bins) + bins
            return group_equal(keys, columns, length, groups, self.representative)

        return cluster

    def evidence(self, layer: Layer, signatures: np.ndarray) -> Evidence:
        """Bins between a minimum and a maximum."""
        return Bins()

    def _bins(self, values: np.ndarray, groups: int) -> np.ndarray:
        """`(D, m)` uint64 bins of `(D, m)` values."""
        of_groups = values.reshape(len(values), groups, -1).astype(np.float64)
        low, high = (f(of_groups, axis=2, keepdims=True) for f in (np.min, np.max))
        span = np.where(high > low, high - low, 1.0)
        bins = np.floor(self.bins * ((of_groups - low) / span))
        return np.minimum(bins, self.bins - 1).astype(np.uint64).reshape(values.shape)


register(
    Technique(
        name="hyper_cube",
        title="hyper-cube clusters",
        axis="rows",
        word="share",
        grain="sub-vector",
        rule="The values of a sub-vector fall into bins; equal bins form a cluster. A study tool "
        "that no hardware here builds.",
        evidence="bins of all elements",
        source="Ning and Shen, Deep Reuse, ICS 2019, section III",
        policy=HyperCubeReuse,
        units=("bin_front_end",),
        start={"bins": 4, "dimensions": 4, "length": 16},
    )
)
