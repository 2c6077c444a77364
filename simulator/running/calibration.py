"""What a policy learns of each layer before it decides."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from accelerators import ConfigError
from simulator.policies.activations import Activations
from simulator.policies.policy import LayerState, ReusePolicy
from simulator.running.captured import check_model, run_model
from simulator.running.forward import ReusedForward, operands_of
from simulator.running.stream_memory import StreamMemory
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


def calibrate(
    trace: WorkloadTrace, policy: ReusePolicy, *, model: "torch.nn.Module | None" = None
) -> dict[str, LayerState]:
    """What a policy learns of each layer from a trace, one layer's activations in memory at a time.

    Without `model` it learns from the recorded activations, those of a dense run. A model that was
    trained under reuse has others when it runs under reuse. With `model`, it runs again on the
    trace's inputs, as one batch, and each layer's state is learned from the rows that it gets after
    reuse in all layers before it: as `ReusedForward` does in training.

    Args:
        trace: the model on calibration inputs, best not those it is judged on.
        policy: the policy.
        model: the captured model, with the weights it was captured with, to learn under reuse.

    Returns:
        Layer name -> its state, of the layers that need one.

    Raises:
        ConfigError: with `model`, it is not the captured one, the policy does not fit a layer, or
            it keeps clusters over a stream.
        TraceError: the trace lacks the activations or, with `model`, the inputs.
    """
    if model is not None:
        policy.check_layers(trace.layers)
        check_model(trace, model)
        reuse = ReusedForward(policy, trace=trace)
        run_model(trace, model, reuse.answer)
        return reuse.states
    return {
        layer.name: policy.calibrate(
            layer,
            Activations(layer, trace.given(layer.name)).rows,
            operands_of(trace, policy.weights_for(layer)),
        )
        for layer in trace.layers
        if policy.needs_calibration(layer)
    }


def states_of(
    trace: WorkloadTrace,
    policy: ReusePolicy,
    calibration: WorkloadTrace | Mapping[str, LayerState] | None,
    memory: StreamMemory | None,
    model: "torch.nn.Module | None",
) -> Mapping[str, LayerState]:
    """What the policy knows of each layer: as it was given, or learned now."""
    states: Mapping[str, LayerState]
    if memory is not None:
        _check_memory(memory, policy, calibration)
        states = memory.states
    elif calibration is None or isinstance(calibration, WorkloadTrace):
        _check_same_grids(trace, calibration or trace)
        states = calibrate(calibration or trace, policy, model=model)
    else:
        states = calibration
    _check_states(states, trace, policy)
    return states


def check_learns_under_reuse(
    model: object | None, calibration: object | None, memory: StreamMemory | None
) -> None:
    """Learning under reuse takes a model that runs, and nothing learned before."""
    if model is None:
        found = "no model"
    elif memory is not None:
        found = "a memory, which brings its calibration"
    elif isinstance(calibration, Mapping):
        found = "what was learned already"
    else:
        return
    raise ConfigError(
        f"calibrate_under_reuse must be given with a model and inputs to learn from, got {found}; "
        "pass the captured model, and a trace as calibration or none"
    )


def _check_same_grids(trace: WorkloadTrace, calibration: WorkloadTrace) -> None:
    """What is learned of a layer's integers serves only the same integers."""
    learned = {layer.name: layer.quantisation for layer in calibration.layers}
    other = [
        layer.name
        for layer in trace.layers
        if learned.get(layer.name, layer.quantisation) != layer.quantisation
    ]
    if other:
        raise ConfigError(
            f"calibration must be quantised as the trace is, got other integers in layer "
            f"{', '.join(other)}; capture both with the same quantised model"
        )


def _check_states(
    states: Mapping[str, LayerState], trace: WorkloadTrace, policy: ReusePolicy
) -> None:
    """Every layer that needs a state must have one."""
    absent = [
        layer.name
        for layer in trace.layers
        if policy.needs_calibration(layer) and layer.name not in states
    ]
    if absent:
        raise ConfigError(
            f"calibration must hold every layer of the trace, got none called {', '.join(absent)}; "
            "capture the same model"
        )


def _check_memory(memory: StreamMemory, policy: ReusePolicy, calibration: object | None) -> None:
    """A memory is of one policy, and of one calibration."""
    memory.check_policy(policy.describe())
    if calibration is not None:
        raise ConfigError(
            "calibration must not be given with memory, which holds for the calibration that it "
            "was made with; leave it out, or start without memory"
        )
