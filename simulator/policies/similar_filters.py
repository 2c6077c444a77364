"""Columns that share: filters that are alike are computed once, for every input."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import real, refuse, show, violations
from simulator.decisions.box import Decisions
from simulator.decisions.columns import ColumnDecisions
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReadWeights, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class SimilarFilters(ReusePolicy):
    """Filters within a distance of each other take the result of one of them.

    SimCNN, the first version of MERCURY (Janfaza et al., arXiv 2110.14904), finds similar filters
    as it finds similar inputs, by signatures. Weights do not change, so here their distances are
    known beforehand: columns u and v of the weights are |u - v| / sqrt((|u|^2 + |v|^2) / 2) apart:
    0 if they are equal, 1.41 at right angles, 2 if opposite. Clusters are those of complete
    linkage, in which no two columns are further apart than the tolerance, so that clusters of a
    smaller tolerance lie within those of a larger one; all take the result of the
    column that is nearest to the others. Whole columns are compared, not parts of them.

    Attributes:
        tolerance: distance of two filters that share, at most; 0 lets equal ones share.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where activations are
            not finite, naming the layer.
    """

    tolerance: float = field(metadata=real(0, 2))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "SimilarFilters"))

    def applies_to(self, layer: Layer) -> bool:
        """To layers with weights of their own, and more than one column."""
        return layer.weights_are_parameters and layer.gemm.n > 1

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """All layers fit."""

    def needs_calibration(self, layer: Layer) -> bool:
        """Weights tell which columns are alike."""
        return self.applies_to(layer)

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """`sources` `(n,)` int64, the column whose result each takes."""
        check_activations(layer, rows)
        if weights is None:
            raise ConfigError(
                f"weights of layer {layer.name!r} must be given to compare SimilarFilters, got "
                "none; pass them to calibrate()"
            )
        given = weights().astype(np.float64)
        return {"sources": similar_columns(given.reshape(-1, layer.gemm.n), self.tolerance)}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same columns for every input; `None` where none shares."""
        check_activations(layer, rows)
        if not self.applies_to(layer):
            return None
        sources = state.get("sources")
        if sources is None or sources.shape != (layer.gemm.n,):
            raise ConfigError(
                f"calibration of layer {layer.name!r} must hold arrays "
                f"{{'sources': ({layer.gemm.n},)}}, got {show(dict(state))}; calibrate with the "
                "same policy"
            )
        if (sources == np.arange(layer.gemm.n)).all():
            return None
        columns = ColumnDecisions(gemm=layer.gemm, sources=sources[None])
        return Decisions(layer=layer.name, gemm=layer.gemm, columns=columns)

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "similar_filters", **asdict(self)}


def similar_columns(weights: np.ndarray, tolerance: float) -> np.ndarray:
    """The column whose result each column takes.

    Args:
        weights: `(k, n)` float64.
        tolerance: see `SimilarFilters`.

    Returns:
        `(n,)` int64.
    """
    # Imported here because it takes a good part of a second.
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    n = weights.shape[1]
    squares = np.square(weights).sum(axis=0)
    mean = (squares[:, None] + squares) / 2
    distances = squareform(pdist(weights.T)) / np.sqrt(np.where(mean > 0, mean, 1))
    upper = distances[np.triu_indices(n, 1)]
    labels = fcluster(linkage(upper, "complete"), tolerance, "distance")
    sources = np.empty(n, np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        nearest = distances[np.ix_(members, members)].sum(axis=1).argmin()
        sources[members] = members[nearest]
    return sources


register(
    Technique(
        name="similar_filters",
        title="similar filters",
        axis="columns",
        word="share",
        grain="column",
        rule="Filters within a distance of each other take the result of one of them.",
        evidence="nothing: static",
        source="SimCNN: Janfaza et al., arXiv 2110.14904 (version 1), 2021",
        policy=SimilarFilters,
        units=("reconstructor",),
        published=("SimCNN/MERCURY",),
        choices={"tolerance": (0.25, 0.5, 0.75, 1.0, 1.25)},
        start={"tolerance": 0.75},
        own=("tolerance",),
    )
)
