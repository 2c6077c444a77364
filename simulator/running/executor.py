"""The one place where a layer's product is computed under a policy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import layer_of_images, rows_left
from simulator.decisions.rows import KeptRows, SharedRows
from simulator.policies.activations import Activations
from simulator.policies.looking import has_pixels_for_rows
from simulator.policies.policy import (
    LayerMemory,
    LayerState,
    ReadWeights,
    ReusePolicy,
    clustering_of,
)
from simulator.policies.surroundings import Surroundings
from simulator.running.above import Above
from simulator.running.convolving import LEAST_REMAINING, convolved
from simulator.running.fused import fused, is_fused
from simulator.running.product import product, with_columns
from workloads.traces.layer import Layer

# What a layer's memory calls its results of the batch before.
RESULTS = "results"
# Before it, where a second technique keeps rows of those that a first one left.
_THEN = "then."


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
    read_weights: ReadWeights,
    *,
    wants_result: bool,
    centroids: bool,
    above: Above | None = None,
    around: Surroundings | None = None,
) -> Executed:
    """Let a policy decide for a layer, and compute what the layer's product becomes.

    A quantised layer's centroids are rounded before they are multiplied, as an integer array gets
    them. Of a policy that keeps rows, or adds differences to them, the results are kept for the
    next batch beside what it keeps itself, as `results`, and handed to its decisions there. Where a
    layer does not run in every frame, the policy decides on the frames in which it does.

    Args:
        policy: decides.
        layer: the layer.
        given: its activations.
        state: as for `ReusePolicy.decide`.
        memory: as for `ReusePolicy.decide_next`.
        read_weights: gives `(count, k, n)` float32, if they are needed.
        wants_result: whether the product is wanted.
        centroids: whether the decisions shall keep their (unrounded) centroids.
        above: what is decided above the layer, if anything.
        around: what lies around it, for policies that look; `None` where nobody knows.

    Raises:
        ConfigError: as `ReusePolicy.decide`; a quantised layer's sub-vectors are normalised, or
            the memory holds results of another layer.
    """
    touched = above is not None and above.touches(layer)
    decides = policy.applies_to(layer)
    if above is not None and above.leaves_whole_frames(layer):
        frames = above.frames_that_run(layer)
        given = given.of_images(layer, frames)
        of_frames = Executed(decisions=None)
        if decides:
            of_frames = execute(
                policy,
                layer_of_images(layer, len(frames)),
                given,
                state,
                memory,
                read_weights,
                wants_result=wants_result,
                centroids=centroids,
                around=around,
            )
        if of_frames.decisions is None and wants_result:
            result = np.matmul(given.rows, read_weights())
            of_frames = replace(of_frames, result=result)
        return _in_all_frames(layer, of_frames, above)
    clustering = clustering_of(policy, layer, state) if decides else None
    kept = None
    decisions: Decisions | None = None
    if clustering is not None and is_fused(clustering, layer) and not touched:
        weights = read_weights() if wants_result else None
        decisions, result = fused(layer, clustering, given, weights, centroids=centroids)
        return _executed(decisions, None, result, centroids=centroids)
    if clustering is not None:
        if clustering.looks.taps > 1 or has_pixels_for_rows(layer):
            made = [
                clustering.clusters_of_pixels(layer, given.stored, index)
                for index in range(layer.gemm.count)
            ]
        else:
            made = clustering.clustered(layer, given.rows, clustering.clusterer(layer))
        decisions = clustering.decisions(layer, made, clustering.evidence)
    elif decides:
        decisions, kept = policy.decide_in(layer, given, state, memory, around)
        if decisions is not None:
            _check_made(policy, layer, decisions)
            decisions.check_claims()  # of signatures that the package finds itself, they hold
            decisions = _with_results(decisions, memory)
    keeps = decisions is not None and any(_kept_levels(decisions))
    if above is not None:
        decisions = above.joined(layer, decisions)
    if decisions is None:
        return Executed(decisions=None, memory=kept)
    _check_scales(layer, decisions)
    result = None
    if wants_result or keeps:
        whole = decisions if layer.quantisation is None else _whole(decisions)
        result = _result(layer, whole, given, read_weights())
        result = result if above is None else above.finished(layer, result)
    if keeps and result is not None:
        kept = {**(kept or {}), **_results_to_keep(decisions, result)}
    if result is not None:
        result = result.astype(np.float32, copy=False)
    return _executed(decisions, kept, result, centroids=centroids)


def _in_all_frames(layer: Layer, made: Executed, above: Above) -> Executed:
    """What became of the frames in which a layer runs, for all of them."""
    decisions = above.joined(layer, None)
    assert decisions is not None  # some frames do not run
    result = None
    if made.result is not None:
        result = above.finished(layer, above.in_frames_that_run(layer, made.result))
    return Executed(
        decisions=replace(decisions, then=made.decisions), memory=made.memory, result=result
    )


def _result(
    layer: Layer, decisions: Decisions, given: Activations, weights: np.ndarray
) -> np.ndarray:
    """The product, in whichever of its ways takes the least time."""
    rows = decisions.rows
    if isinstance(rows, IncrementalRows):
        return product(decisions, None, weights)
    if isinstance(rows, KeptRows) and rows.operands is not None and decisions.then is None:
        return product(decisions, None, weights)  # without unfolding what is not multiplied
    if not isinstance(rows, SharedRows):
        return product(decisions, given.rows, weights)
    if decisions.then is not None:
        return product(decisions, None, weights)
    if rows.looks.taps > 1 and rows.remaining_ratio > LEAST_REMAINING:
        found = convolved(layer, rows, weights)
        if found is not None:
            return with_columns(decisions, found)
    return product(decisions, None, weights)


def _check_made(policy: ReusePolicy, layer: Layer, made: Any) -> None:
    """Policies of a user's own may give anything."""
    wanted = f"{layer.name!r} of {layer.gemm.m} x {layer.gemm.k} x {layer.gemm.n}"
    if not isinstance(made, Decisions):
        found = type(made).__name__
    elif (made.layer, made.gemm) != (layer.name, layer.gemm):
        found = f"{made.layer!r} of {made.gemm.m} x {made.gemm.k} x {made.gemm.n}"
    else:
        return
    raise ConfigError(
        f"{type(policy).__name__}.decide must give Decisions of layer {wanted}, or None, got "
        f"{found}; make them with layer=layer.name, gemm=layer.gemm"
    )


def _with_results(decisions: Decisions, memory: LayerMemory | None, before: str = "") -> Decisions:
    """Kept rows with the results that the batch before left, unless they have others."""
    rows, then = decisions.rows, decisions.then
    if then is not None:
        then = _with_results(then, memory, f"{before}{_THEN}")
        decisions = replace(decisions, then=then)
    if isinstance(rows, IncrementalRows):
        if memory is None or not rows.needs_results:
            return decisions
        results = memory.get(f"{before}{RESULTS}")
        kind = np.dtype(np.float64 if rows.exact else np.float32)
        wanted = decisions.gemm.count, rows.lag, decisions.gemm.n
        held = _check_results(decisions, results, kind, wanted)
        return replace(decisions, rows=replace(rows, results=held))
    if not isinstance(rows, KeptRows) or memory is None or rows.results is not None:
        return decisions
    results, gemm = memory.get(f"{before}{RESULTS}"), decisions.gemm
    named = rows.sources is not None and results is not None and results.ndim == 3
    shape = gemm.count, results.shape[1] if named and results is not None else gemm.m, gemm.n
    held = _check_results(decisions, results, np.dtype(np.float32), shape)
    return replace(decisions, rows=rows.with_results(held))


def _check_results(
    decisions: Decisions, results: np.ndarray | None, kind: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """The results of a memory, which must be a layer's."""
    if results is None or results.shape != shape or results.dtype != kind:
        found = None if results is None else f"{results.dtype} of shape {results.shape}"
        raise ConfigError(
            f"memory of layer {decisions.layer!r} must hold {kind} results of shape (count, m, n) "
            f"= {shape}, got {found}; start without memory"
        )
    return results


def _kept_levels(decisions: Decisions) -> Iterator[bool]:
    """Whether results are kept, of each decisions on what the one before left."""
    made: Decisions | None = decisions
    while made is not None:
        rows = made.rows
        yield isinstance(rows, KeptRows) or (isinstance(rows, IncrementalRows) and rows.keeps)
        made = made.then


def _results_to_keep(
    decisions: Decisions, result: np.ndarray, before: str = ""
) -> dict[str, np.ndarray]:
    """Results for the next batch, of each decisions that keep rows."""
    rows, kept = decisions.rows, {}
    if isinstance(rows, KeptRows):
        kept[f"{before}{RESULTS}"] = result
    if isinstance(rows, IncrementalRows) and rows.keeps:
        kept[f"{before}{RESULTS}"] = np.array(result[:, -rows.lag :])
    if decisions.then is not None and any(_kept_levels(decisions.then)):
        assert rows is not None  # as there are rows that are left
        own = result[:, rows_left(decisions.layer, rows)]
        kept |= _results_to_keep(decisions.then, own, f"{before}{_THEN}")
    return kept


def _executed(
    decisions: Decisions, kept: LayerMemory | None, result: np.ndarray | None, *, centroids: bool
) -> Executed:
    """With as much of the decisions as is asked for."""
    made = decisions if centroids else decisions.without_operands()
    return Executed(decisions=made, memory=kept, result=result)


def _check_scales(layer: Layer, decisions: Decisions) -> None:
    made: Decisions | None = decisions
    scaled = False
    while made is not None:
        scaled |= isinstance(made.rows, SharedRows) and made.rows.scaled
        made = made.then
    if layer.quantisation is not None and scaled:
        raise ConfigError(
            f"layer {layer.name!r} must not be normalised in 8 bits, got a policy with "
            "normalised=True: rounded directions mean nothing; use normalised=False, or a "
            "model that is not quantised"
        )


def _whole(decisions: Decisions) -> Decisions:
    """The decisions with centroids rounded to integers."""
    rows, then = decisions.rows, decisions.then
    return replace(
        decisions,
        rows=rows.with_whole_centroids() if isinstance(rows, SharedRows) else rows,
        then=None if then is None else _whole(then),
    )
