"""The functional path: what a model computes when the policy's decisions are applied.

Decisions are made here, once; `simulate` replays the same ones on the hardware. A quantised layer's
are made on its integers (less the zero point), and its centroids are integers again, as those of an
8-bit array are: the accuracy is that of the hardware.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from accelerators.rules import problems, refuse, true_of
from simulator.policies.policy import LayerState, ReusePolicy
from simulator.running.above import Above
from simulator.running.calibration import calibrate, check_learns_under_reuse, states_of
from simulator.running.deciding import Run
from simulator.running.remembered import DecisionCache
from simulator.running.reuse_run import ReuseRun
from simulator.running.stream_memory import StreamMemory
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


def decide(
    trace: WorkloadTrace,
    policy: ReusePolicy,
    *,
    model: "torch.nn.Module | None" = None,
    calibration: WorkloadTrace | Mapping[str, LayerState] | None = None,
    calibrate_under_reuse: bool = False,
    memory: StreamMemory | None = None,
    layer_errors: bool = True,
    cache: DecisionCache | None = None,
    workload: str = "",
) -> ReuseRun:
    """Make a policy's decisions on every layer of a trace.

    With `model`, the model runs again on the trace's inputs and each layer sees activations that
    the reuse in earlier layers has already changed: accuracy and hardware see the same decisions.
    It is run dense first, once, to see that it answers as it did (`simulator.running.captured`).
    Without it, each layer sees its recorded, dense activations and no accuracy is known.

    Args:
        trace: the captured workload.
        policy: the reuse policy.
        model: the captured model, with the weights it was captured with. It must answer the same
            each time; one that draws random numbers does if the trace was captured with a seed.
        calibration: a trace of the same model on other inputs, from which the policy learns what
            it needs beforehand (LSH: the mean, learned projections), or what `calibrate` made of
            one; the trace itself by default.
        calibrate_under_reuse: learn from the model's run under the policy, see `calibrate`; right
            for a model that was trained under reuse.
        memory: of the run on the stream's batch before, for a policy that keeps clusters; it is not
            changed. It brings its calibration.
        layer_errors: measure `relative_mse`, for which every reused layer runs dense as well, and
            `centroid_error`.
        cache: results of earlier calls, used and added to: a layer is not decided again if it and
            all layers before it have the policies they had, nor is a whole run. The model must
            compute the same each time.
        workload: with `cache`, what names this trace, model and calibration apart from others in
            the cache.

    Raises:
        ConfigError: the policy, its frames or its tokens do not fit the layers, or the calibration
            or the memory lacks one, comes from elsewhere or holds it in other integers; nothing can
            be learned under reuse; a cache without a workload's name, or with a memory.
        TraceError: the trace holds no activations, or the model asks for layers it does not have.
    """
    given = {
        "trace": trace,
        "policy": policy,
        "model": model,
        "calibration": calibration,
        "memory": memory,
    }
    refuse([*problems("decide.", given, _ARGUMENTS), *_unnamed(cache, workload, memory)])
    policy.check_layers(trace.layers)
    if calibrate_under_reuse:
        check_learns_under_reuse(model, calibration, memory)
    run = Run(policy, Above(trace, policy), memory, layer_errors=layer_errors)
    if cache is not None:
        run.keep_in(
            cache,
            workload,
            sees_reuse=model is not None,
            calibrates_under_reuse=calibrate_under_reuse,
        )
        made = run.known(trace)
        if made is not None:
            return made
    learner = model if calibrate_under_reuse else None
    run.states = states_of(trace, policy, calibration, memory, learner)
    quality = run.recorded(trace) if model is None else run.replayed(trace, model)
    if run.states:
        judged = calibration is None and memory is None
        learned = "the judged inputs" if judged else "inputs given for it"
        quality["calibrated_on"] = f"{learned}, under reuse" if calibrate_under_reuse else learned
    return run.finish(trace, quality)


def _is_calibration(value: object) -> bool:
    """A trace, or states of layers."""
    if isinstance(value, Mapping):
        return all(isinstance(state, Mapping) for state in value.values())
    return value is None or isinstance(value, WorkloadTrace)


_FIX = "give that or leave it out"
_ARGUMENTS = {
    "trace": true_of(lambda given: isinstance(given, WorkloadTrace), "be a WorkloadTrace", _FIX),
    "policy": true_of(
        lambda given: isinstance(given, ReusePolicy), "be a policy, such as NoReuse()", _FIX
    ),
    "model": true_of(lambda given: given is None or callable(given), "be the captured model", _FIX),
    "calibration": true_of(
        _is_calibration, "be a WorkloadTrace, or what calibrate() made of one", _FIX
    ),
    "memory": true_of(
        lambda given: isinstance(given, StreamMemory | None), "be the memory of a ReuseRun", _FIX
    ),
}


def _unnamed(cache: DecisionCache | None, workload: str, memory: StreamMemory | None) -> list[str]:
    """What is cached must be named, and no stream's."""
    if cache is None or (workload and memory is None):
        return []
    return [
        f"decide.cache must be given with workload and without memory, got workload={workload!r} "
        f"and {'a' if memory is not None else 'no'} memory; name the workload, and decide streams "
        "without a cache"
    ]


def decide_stream(
    traces: Iterable[WorkloadTrace],
    policy: ReusePolicy,
    *,
    model: "torch.nn.Module | None" = None,
    calibration: WorkloadTrace | Mapping[str, LayerState] | None = None,
    memory: StreamMemory | None = None,
) -> Iterator[ReuseRun]:
    """Make a policy's decisions on one batch (or frame) of a stream after the other.

    What is held is one batch and what the policy keeps, if the traces are captured as they are
    asked for: `decide_stream((capture(model, x) for x in batches), policy, model=model)`. To go on
    later, save the last run's `memory` and start with it.

    Args:
        traces: the same model on each batch, in the stream's order.
        policy: the reuse policy.
        model: see `decide`.
        calibration: see `decide`; the first batch by default, for all of them.
        memory: to go on from, see `decide`.

    Yields:
        The run on each batch.

    Raises:
        ConfigError: as `decide`.
        TraceError: as `decide`.
    """
    for trace in traces:
        if memory is None and (calibration is None or isinstance(calibration, WorkloadTrace)):
            calibration = calibrate(calibration or trace, policy)
        run = decide(trace, policy, model=model, calibration=calibration, memory=memory)
        if run.memory is not None:
            memory, calibration = run.memory, None
        yield run
