"""The one place where a layer's product is computed under a policy."""

from dataclasses import dataclass, replace

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.rows import SharedRows
from simulator.policies.activations import Activations
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy, clustering_of
from simulator.running.fused import fused, is_fused
from simulator.running.product import product
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class Executed:
    """What became of one layer under a policy.

    Attributes:
        decisions: `None` where the layer runs dense.
        memory: what is kept for a stream's next batch; `None` for nothing.
        result: `(count, m, n)` float32, the product under the decisions, if it was wanted.
    """

    decisions: Decisions | None
    memory: LayerMemory | None = None
    result: np.ndarray | None = None


def execute(
    policy: ReusePolicy,
    layer: Layer,
    given: Activations,
    state: LayerState,
    memory: LayerMemory | None,
    weights: np.ndarray | None,
    *,
    centroids: bool,
) -> Executed:
    """Let a policy decide for a layer, and compute what the layer's product becomes.

    A quantised layer's centroids are rounded before they are multiplied, as an integer array gets
    them.

    Args:
        policy: decides.
        layer: the layer.
        given: its activations.
        state: as for `ReusePolicy.decide`.
        memory: as for `ReusePolicy.decide_next`.
        weights: `(count, k, n)` float32; `None` where no result is wanted.
        centroids: whether the decisions shall keep their (unrounded) centroids.

    Raises:
        ConfigError: as `ReusePolicy.decide`; a quantised layer's sub-vectors are normalised.
    """
    clustering = clustering_of(policy, layer, state)
    kept = None
    if clustering is not None and is_fused(layer, clustering):
        decisions, result = fused(layer, clustering, given, weights, centroids=centroids)
        return _executed(decisions, None, result, centroids=centroids)
    if clustering is not None:
        made = clustering.clustered(layer, given.rows, clustering.clusterer(layer))
        decisions = clustering.decisions(layer, made, clustering.evidence)
    else:
        decided, kept = policy.decide_next(layer, given.rows, state, memory)
        if decided is None:
            return Executed(decisions=None, memory=kept)
        decisions = decided
        decisions.check_claims()  # of signatures that the package finds itself, they hold
    _check_scales(layer, decisions)
    result = None
    if weights is not None:
        whole = decisions if layer.quantisation is None else _whole(decisions)
        result = product(whole, given.rows, weights)
    return _executed(decisions, kept, result, centroids=centroids)


def _executed(
    decisions: Decisions, kept: LayerMemory | None, result: np.ndarray | None, *, centroids: bool
) -> Executed:
    """With as much of the decisions as is asked for."""
    made = decisions if centroids else decisions.without_operands()
    return Executed(decisions=made, memory=kept, result=result)


def _check_scales(layer: Layer, decisions: Decisions) -> None:
    scaled = isinstance(decisions.rows, SharedRows) and decisions.rows.scaled
    if layer.quantisation is not None and scaled:
        raise ConfigError(
            f"layer {layer.name!r} must not be normalised in 8 bits, got a policy with "
            "normalised=True: rounded directions mean nothing; use normalised=False, or a "
            "model that is not quantised"
        )


def _whole(decisions: Decisions) -> Decisions:
    """The decisions with centroids rounded to integers."""
    rows = decisions.rows
    return replace(
        decisions, rows=rows.with_whole_centroids() if isinstance(rows, SharedRows) else rows
    )
