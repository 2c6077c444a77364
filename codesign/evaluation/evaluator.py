"""Evaluates one setting: the decisions on the workload, replayed on the design."""

from __future__ import annotations

import hashlib
import json
import math
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators import Accelerator, ConfigError
from codesign.evaluation.objective import Objective
from codesign.evaluation.objectives import OBJECTIVES, of_quality
from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.space.design_space import DesignSpace
from simulator import (
    DecisionCache,
    DesignReport,
    LshReuse,
    NoReuse,
    PerLayer,
    SimulationReport,
    bits_of_sums,
    calibrate,
    decide,
    simulate,
)
from simulator.running.captured import check_model
from simulator.running.quality import labels_fit
from simulator.running.sums import KnownBits
from simulator.timing.dense_baseline import best_dense
from workloads.capturing.unchanged import remember
from workloads.traces.files import TraceFiles
from workloads.traces.judged import classes_in
from workloads.traces.scores import OWN_SCORE, SCORES, own_score, score
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch

# What a process keeps of decisions, which other hardware does not change. On 100 images CifarNet's
# two convolutions are up to 55 MB a setting.
KEPT_BYTES = 512 * 2**20
_DECISIONS = DecisionCache(KEPT_BYTES)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of one setting; the attributes are those of `Trial`."""

    state: str
    values: dict[str, float] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    seconds: float = 0.0
    images: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """Everything an evaluation needs, in memory, so that it can be sent to any machine.

    Attributes:
        space: builds the design and the policy.
        trace: the workload, without layer tensors where the model makes them anew.
        model: runs under the decisions; `None` decides on recorded activations.
        calibration: layer name -> what hashing learned of the activations, made once; or the inputs
            or the activations from which it learns for each setting.
        calibrate_under_reuse: whether it learns under the reuse of the setting.
        quality: what the objective `accuracy` is, a key of `QUALITIES`.
        objectives: what is read of each report.
        sum_bits: bits that partial sums of whole rows need, see `simulator.bits_of_sums`.
        baseline: objective -> value of the dense design with the base design's area.
        digest: of the weights and inputs, to tell workloads apart.
        identity: of these and the dense outputs, under which a process keeps decisions.
    """

    space: DesignSpace
    trace: WorkloadTrace
    model: torch.nn.Module | None
    calibration: WorkloadTrace | Mapping[str, Any]
    calibrate_under_reuse: bool
    quality: str
    objectives: tuple[Objective, ...]
    sum_bits: KnownBits
    baseline: dict[str, float]
    digest: str
    identity: str

    @classmethod
    def of(
        cls,
        workload: Workload,
        space: DesignSpace,
        objectives: Sequence[Objective] = OBJECTIVES,
    ) -> Evaluator:
        """Prepare a workload: calibrate, price the baseline, take what the files hold to memory.

        Raises:
            ConfigError, TraceError: the workload lacks what the space searches, or its model does
                not answer as it did.
        """
        trace, model = workload.trace, workload.model
        missing = [name for name in space.layers if name not in {x.name for x in trace.layers}]
        if missing:
            raise ConfigError(
                f"DesignSpace.layers must be layers of the workload, got {', '.join(missing)}; "
                "make the space with DesignSpace.for_workload(workload.trace, base)"
            )
        learned_later = workload.calibrate_under_reuse or space.searches_policy
        inputs = workload.calibration or trace
        kept = replace(trace, files=None if model is not None else InMemory(trace.files))
        states = {} if learned_later else hashing_states(workload, space.layers)
        with single_thread():
            if model is not None:
                check_model(trace, model)  # else every trial finds that it is not the captured one
                remember(kept, model, verified=True)
            bits: KnownBits = {}
            bits_of_sums(trace, beyond=space.least_accumulator_bits, known=bits)
            report = simulate(trace, space.base, NoReuse(), sum_bits=bits)
        quality = _quality_kind(workload)
        searched = of_quality(objectives, quality)
        digest = workload_digest(workload, states)
        outputs = b"" if trace.outputs is None else np.ascontiguousarray(trace.outputs).tobytes()
        return cls(
            space=space,
            trace=kept,
            model=model,
            calibration=states
            if not learned_later
            else replace(
                inputs,
                files=None if workload.calibrate_under_reuse else InMemory(inputs.files),
            ),
            calibrate_under_reuse=workload.calibrate_under_reuse,
            quality=quality,
            objectives=searched,
            sum_bits=bits,
            baseline=_baseline(_dense_report(report, trace, quality), searched),
            digest=digest,
            identity=f"{digest} {hashlib.sha256(outputs).hexdigest()}",
        )

    def __call__(self, parameters: Mapping[str, Any]) -> Evaluation:
        """Evaluate one setting; an error becomes a state with its reason, never a number."""
        start = time.perf_counter()
        try:
            with single_thread():
                values, summary = self._measure(parameters)
            outcome = Evaluation(state="complete", values=values, summary=summary)
        except ConfigError as error:
            outcome = Evaluation(state="infeasible", reason=str(error))
        except Exception:
            outcome = Evaluation(state="failed", reason=traceback.format_exc())
        seconds = time.perf_counter() - start
        return replace(outcome, seconds=seconds, images=self.trace.images)

    def _measure(self, parameters: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
        accelerator, policy = self.space.build(parameters)
        self._check_model()
        run = decide(
            self.trace,
            policy,
            model=self.model,
            calibration=self.calibration,
            calibrate_under_reuse=self.calibrate_under_reuse,
            cache=_DECISIONS,
            workload=self.identity,
        )
        report = simulate(self.trace, accelerator, run, sum_bits=self.sum_bits)
        if not accelerator.has_reuse:
            report = beside_the_best(report, self.trace, accelerator)
        return _values(report, self.objectives), summary_of(report)

    def _check_model(self) -> None:
        """Once a process: with every trial, Ray's workers get another copy of all this."""
        for name, trace in (("judged", self.trace), ("calibration", self.calibration)):
            if self.model is not None and isinstance(trace, WorkloadTrace):
                check_model(trace, self.model, copy_of=f"{self.identity} {name}")


def beside_the_best(
    report: SimulationReport, trace: WorkloadTrace, accelerator: Accelerator
) -> SimulationReport:
    """The report of a dense design, which `simulate` compares with itself, beside the fastest dense
    design of its area."""
    best, timings = best_dense(trace.layers, accelerator)
    return replace(report, dense_equal_area=DesignReport.of(best, timings, trace.images))


def _values(report: SimulationReport, objectives: Sequence[Objective]) -> dict[str, float]:
    """Objective -> value of a report.

    Raises:
        ValueError: one is no value that it can have.
    """
    read = {objective.name: objective.read(report) for objective in objectives}
    unknown = {
        name: value
        for name, value in read.items()
        if not isinstance(value, Real) or not math.isfinite(value)
    }
    if unknown:
        raise ValueError(f"objectives must be finite, got {unknown}")
    values = {name: float(value) for name, value in read.items()}
    beyond = [o.rule for o in objectives if not o.holds(values[o.name])]
    if beyond:
        raise ValueError(f"values must be {', '.join(beyond)}, got {values}")
    return values


def _baseline(report: SimulationReport, objectives: Sequence[Objective]) -> dict[str, float]:
    """The same of the dense model; what is no number there is none anywhere.

    Raises:
        ConfigError: one is no value that it can have.
    """
    try:
        return _values(report, objectives)
    except ValueError as error:
        raise ConfigError(
            f"search.objectives: {error} of the dense model on the design that is searched from; "
            "let Objective.read give such a number"
        ) from error


def _dense_report(report: SimulationReport, trace: WorkloadTrace, quality: str) -> SimulationReport:
    """What is known of the dense design of equal area, which answers as the model does."""
    score = _dense_score(trace) if quality in (*SCORES, OWN_SCORE) else None
    return replace(
        report,
        reuse=report.dense_equal_area,
        dense=report.dense_equal_area,
        accuracy=score,
        dense_accuracy=score,
        agreement=1.0,
        output_mse=0.0,
        output_error=0.0,
    )


def summary_of(report: SimulationReport) -> dict[str, Any]:
    """The report as plain values, without action counts and provenance (stored once a study)."""
    summary = report.to_dict()
    del summary["workload"]
    for design in summary["designs"].values():
        for part in (*design["layers"], *design["above"]):
            del part["actions"]
    return summary


def _quality_kind(workload: Workload) -> str:
    """What the objective `accuracy` is, a key of `QUALITIES`."""
    trace = workload.trace
    if workload.model is None or trace.outputs is None:
        return "fidelity"
    if trace.score_function is not None:
        return OWN_SCORE
    classes = classes_in(trace.provenance, trace.outputs)
    if classes.reason is not None:
        return "output_fidelity"
    answers, labels = classes.answers(trace.outputs), trace.labels
    if labels is not None and trace.score in SCORES and labels_fit(labels, answers):
        return trace.score
    several = {0: "agreement", 1: "agreement", 3: "pixel_agreement"}
    return several.get(answers.ndim, "position_agreement")


def _dense_score(trace: WorkloadTrace) -> float:
    """The dense model's score."""
    outputs, labels = trace.outputs, trace.labels
    assert outputs is not None
    if trace.score_function is not None:
        expected = outputs if labels is None else labels
        return own_score(trace.score, trace.score_function, outputs, expected)
    assert labels is not None
    classes = classes_in(trace.provenance, outputs)
    return score(trace.score, classes.answers(outputs), labels, classes.count(outputs))


def hashing_states(workload: Workload, layers: Iterable[str]) -> Mapping[str, Any]:
    """Layer -> what hashing learns of its activations, for any hashes and length."""
    learner = PerLayer({name: LshReuse(hashes=1, length=1) for name in layers})
    with single_thread():
        return calibrate(workload.calibration or workload.trace, learner)


def workload_digest(workload: Workload, states: Mapping[str, Any]) -> str:
    """SHA-256 of the weights and inputs, or of the recorded tensors where there is no model."""
    digest = hashlib.sha256()
    trace, model = workload.trace, workload.model
    digest.update(json.dumps([layer.to_dict() for layer in trace.layers]).encode())
    if model is None:
        files = trace.files.description["files"] if trace.files is not None else {}
        digest.update(json.dumps(files, sort_keys=True).encode())
        arrays = [state[key] for _, state in sorted(states.items()) for key in sorted(state)]
    else:
        learned_from = workload.calibration or trace
        arrays = [*(trace.inputs or ()), *(learned_from.inputs or ())]
        arrays += [] if trace.labels is None else [trace.labels]
        arrays += _weights_of(model)
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _weights_of(model: torch.nn.Module) -> list[np.ndarray]:
    """Every tensor of a model's state; other state, which some modules keep, as its text."""
    from workloads.capturing.calls import array_of

    state = model.state_dict().values()
    return [array_of(x) if hasattr(x, "detach") else np.array(repr(x)) for x in state]


class InMemory(TraceFiles):
    """A trace's tensors without its files, to be read on another machine.

    Args:
        files: what to read.
    """

    def __init__(self, files: TraceFiles | None) -> None:
        self.directory = Path("trace") if files is None else files.directory
        self.description = {} if files is None else files.description
        self._tensors = (
            {} if files is None else {name: files.read(name) for name in files.description["files"]}
        )

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def read(self, name: str, *, keep: bool = False) -> dict[str, np.ndarray]:
        """Tensors of one file, read-only."""
        return self._tensors[name]
