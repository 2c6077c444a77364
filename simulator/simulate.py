"""One workload on one accelerator under one policy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelerators import Accelerator, ConfigError
from accelerators.rules import named, problems, refuse, true_of
from simulator.policies.policy import LayerState, NoReuse, ReusePolicy
from simulator.results.design import DesignReport
from simulator.running.decide import decide
from simulator.running.reuse_run import ReuseRun
from simulator.running.sums import KnownBits, check_sums
from simulator.simulation_report import SimulationReport
from simulator.timing.above import Above, above_timings
from simulator.timing.dense_baseline import equal_area_dense, same_array_dense, time_dense
from simulator.timing.engines.engine import ENGINES, Engine
from simulator.timing.layer import LayerTiming
from simulator.timing.pipeline import layer_timing
from simulator.timing.remaining import layers_as_run
from simulator.timing.remembering import results_held, with_room
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


def simulate(
    trace: WorkloadTrace,
    accelerator: Accelerator,
    policy: ReusePolicy | ReuseRun | None = None,
    *,
    model: "torch.nn.Module | None" = None,
    calibration: WorkloadTrace | Mapping[str, LayerState] | None = None,
    calibrate_under_reuse: bool = False,
    sum_bits: KnownBits | None = None,
    engine: str = "compiled",
) -> SimulationReport:
    """Replay a workload on an accelerator and on its two dense baselines.

    Args:
        trace: the captured workload.
        accelerator: the design; without reuse units it runs dense.
        policy: which rows share results; or the decisions that `decide` made, to replay the same
            ones on many designs. `None` runs dense.
        model: the captured model, to know the accuracy under reuse; see `decide`.
        calibration: see `decide`.
        calibrate_under_reuse: see `decide`.
        sum_bits: what `bits_of_sums` found of the trace before: used, and added to where the
            design's accumulators do not hold any sum of int8 products.
        engine: `compiled`, or `event`, the slow reference; both find the same cycles.

    Returns:
        Cycles, energy, area and accuracy of the same decisions.

    Raises:
        ConfigError: the design, the policy and the workload do not fit together: units or buffers
            are missing or too small, or partial sums overflow; or there is no such engine.
        TraceError: the policy needs activations that the trace does not hold.

    Not modelled: operations that are not matrix products (activation functions, pooling,
    normalisation); overlap of one layer with the next.
    """
    given = {"trace": trace, "accelerator": accelerator, "policy": policy}
    refuse(problems("simulate.", given, _ARGUMENTS))
    timer = named("simulate.engine", engine, ENGINES)
    check_sums(trace, accelerator, known=sum_bits)  # dense, before anything is decided
    if isinstance(policy, ReuseRun):
        if model is not None or calibration is not None or calibrate_under_reuse:
            raise ConfigError(
                "simulate.model, simulate.calibration and simulate.calibrate_under_reuse must not "
                "be given with decisions that are made already; pass them to decide() instead"
            )
        policy.check_made_on(trace, "simulate.policy")
        run = policy
    else:
        run = decide(
            trace,
            policy or NoReuse(),
            model=model,
            calibration=calibration,
            calibrate_under_reuse=calibrate_under_reuse,
        )
    check_sums(trace, accelerator, run.decisions, sum_bits)
    timings, quality = _timed(trace, accelerator, run, timer)
    above: Above = above_timings(run.frames, trace.layers, accelerator)
    plain = same_array_dense(accelerator)
    equal_area, equal_area_timings = equal_area_dense(trace.layers, accelerator, timer)
    return SimulationReport(
        workload=dict(trace.provenance) | _calibrated(run),
        policy=run.policy,
        reuse=DesignReport.of(accelerator, timings, trace.images, quality, above=above),
        dense=DesignReport.of(plain, time_dense(trace.layers, plain, timer), trace.images),
        dense_equal_area=DesignReport.of(equal_area, equal_area_timings, trace.images),
        accuracy=run.accuracy,
        dense_accuracy=run.dense_accuracy,
        agreement=run.agreement,
        output_mse=run.output_mse,
        intervals=run.intervals,
        output_error=run.output_error,
        unjudged=run.unjudged,
    )


def _timed(
    trace: WorkloadTrace, accelerator: Accelerator, run: ReuseRun, engine: Engine
) -> tuple[list[tuple[Layer, LayerTiming]], dict[str, dict[str, Any]]]:
    """Every layer's timing under its decisions; and of each that has some, what they leave."""
    timings = []
    quality: dict[str, dict[str, Any]] = {}
    as_run = layers_as_run(trace.layers, run.decisions, run.frames, run.tokens)
    as_run = with_room(as_run, accelerator)
    held: dict[str, int] = {}
    if run.frames is not None:
        bits = accelerator.operand_bits
        held = results_held(trace.layers, trace.graph, run.frames, bits)
    for layer, (ran, left) in zip(trace.layers, as_run, strict=True):
        timing = layer_timing(ran, left, accelerator, engine)
        if not timing.kept_bytes:  # else the result is among what is kept
            timing = replace(timing, kept_bytes=held.get(layer.name, 0))
        timings.append((layer, timing))
        decisions = run.decisions[layer.name]
        if decisions is not None:
            quality[layer.name] = {
                "remaining_ratio": decisions.remaining_ratio,
                "relative_mse": run.relative_mse.get(layer.name),
            }
    return timings, quality


def _calibrated(run: ReuseRun) -> dict[str, str]:
    """What the policy learned from, for the report."""
    return {} if run.calibrated_on is None else {"reuse_calibrated_on": run.calibrated_on}


_ARGUMENTS = {
    "trace": true_of(
        lambda given: isinstance(given, WorkloadTrace),
        "be a WorkloadTrace",
        "capture a model or load a trace",
    ),
    "accelerator": true_of(
        lambda given: isinstance(given, Accelerator),
        "be an Accelerator",
        "try preset('reuse_16x16')",
    ),
    "policy": true_of(
        lambda given: isinstance(given, ReusePolicy | ReuseRun | None),
        "be a policy or a ReuseRun",
        "try LshReuse(hashes=10, length=10)",
    ),
}
