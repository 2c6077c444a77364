"""Thresholds of change-based inference, found layer by layer under a limit of loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accelerators import ConfigError
from accelerators.rules import show
from simulator.decisions.evidence import Changes
from simulator.policies.changed_positions import ChangedPositions
from simulator.running.decide import decide
from simulator.running.reuse_run import ReuseRun
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One layer's threshold, found.

    Attributes:
        layer: its name.
        threshold: the highest one tried before the loss was too much.
        loss: with it, and those of the layers before.
        number: of the layer, from 1.
        layers: to be tuned.
    """

    layer: str
    threshold: float
    loss: float
    number: int
    layers: int


def disagreement(run: ReuseRun) -> float:
    """The fraction of answers that are not the dense model's.

    Raises:
        ConfigError: the model's answers have no classes.
    """
    if run.agreement is None:
        raise ConfigError(
            f"tuned_changes.loss must be known of the model, got no classes ({run.unjudged}); "
            "measure output_error instead, as by loss=lambda run: run.output_error"
        )
    return 1 - run.agreement


def tuned_changes(
    trace: WorkloadTrace,
    model: "torch.nn.Module",
    *,
    limit: float,
    choices: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
    policy: ChangedPositions | None = None,
    loss: Callable[[ReuseRun], float] = disagreement,
    on_layer: Callable[[Tuned], None] | None = None,
) -> ChangedPositions:
    """Raise each layer's threshold, front to back, as long as the loss allows it.

    As CBinfer (Cavigelli and Benini, ICDSC 2017) and the read-me of DeltaCNN (Parger et al., CVPR
    2022) describe it. So that the first layers do not use all of it up, the limit is opened by an
    equal share at each layer, and what a layer leaves is the next ones'. A layer that takes lists
    from those before it has no threshold to tune.

    Args:
        trace: the model on frames in a row to tune on, best not those it is judged on; ten do.
        model: the captured model.
        limit: of the loss, above 0.
        choices: thresholds to be tried, ascending; 0 is where a layer starts.
        policy: the form, and whether lists are passed on; its thresholds are not read.
        loss: of a run, 0 without any.
        on_layer: is told of each layer as it is tuned.

    Returns:
        The policy with a threshold for each layer.

    Raises:
        ConfigError: the limit or the choices are no such numbers, or the loss is not known.
    """
    ascending = all(a < b for a, b in zip((0.0, *choices), choices, strict=False))
    if not choices or not ascending or not limit > 0:
        raise ConfigError(
            "tuned_changes.limit must be above 0, and its choices ascend from above 0, got "
            f"{show(limit)} and {show(tuple(choices))}; try limit=0.01 and choices=(0.05, 0.1)"
        )
    start = replace(policy or ChangedPositions(threshold=0), threshold=0, thresholds={})
    first = decide(trace, start, model=model, layer_errors=False)
    layers = [
        layer.name
        for layer in trace.layers
        if (made := first.decisions[layer.name]) is not None
        and isinstance(made.evidence, Changes)
        and made.evidence.compared
    ]
    found: dict[str, float] = {}
    lost = loss(first)
    for number, name in enumerate(layers, start=1):
        allowed, best = limit * number / len(layers), 0.0
        for choice in choices:
            tried = replace(start, thresholds={**found, name: choice})
            now = loss(decide(trace, tried, model=model, layer_errors=False))
            if now > allowed:
                break
            best, lost = choice, now
        found[name] = best
        if on_layer is not None:
            on_layer(
                Tuned(layer=name, threshold=best, loss=lost, number=number, layers=len(layers))
            )
    return replace(start, thresholds=found)
