"""The one place where a layer's product is computed under a policy."""

from dataclasses import replace

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.rows import SharedRows
from simulator.kernels.tables import LayerMemory
from simulator.policies.activations import Activations
from simulator.policies.policy import LayerState, PolicyAnswer, ReusePolicy
from simulator.running.product import product
from workloads.traces.layer import Layer


def answer(
    policy: ReusePolicy,
    layer: Layer,
    given: Activations,
    state: LayerState,
    memory: LayerMemory | None,
    weights: np.ndarray | None,
    *,
    centroids: bool,
) -> PolicyAnswer:
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
    made = policy.fused_answer(layer, given, state, weights, centroids=centroids)
    if made is None:
        decisions, kept = policy.decide_next(layer, given.rows, state, memory)
        made = PolicyAnswer(decisions=decisions, memory=kept)
        if decisions is not None:
            policy.check_claims(decisions)
            _check_scales(layer, decisions)
            if weights is not None:
                whole = decisions if layer.quantisation is None else _whole(decisions)
                made = replace(made, result=product(whole, given.rows, weights))
    if made.decisions is None or centroids:
        return made
    return replace(made, decisions=made.decisions.without_operands())


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
