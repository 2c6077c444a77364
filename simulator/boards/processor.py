"""Predicts the latency of a workload on a CPU: a roofline per kernel with a few fitted constants.

    from accelerators import processor_preset
from accelerators.rules import refuse
    from simulator import predict

    report = predict(trace, processor_preset("Pi 4B"), threads=4)
    print(report.verdict)  # about 140 ms, and how far that may be off
    print(report.latency_ms, report.energy_mj)  # the model's numbers, not rounded

A layer takes the longest of its arithmetic, its traffic through the shared cache and its traffic to
DRAM, and with several threads the time to start them. Operations that are no matrix products are
not in a trace: the constants, fitted on whole networks, charge them to the products beside them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources

import numpy as np

from accelerators import ConfigError, Processor, processor_presets
from simulator.boards.error import (
    ALL_BOARDS,
    FLOATING_POINT,
    INT8,
    TRANSFORMERS,
    PredictionError,
    digits_of,
    prediction_errors,
)
from simulator.boards.work import (
    DEPTHWISE,
    KERNELS,
    ReuseCounts,
    dense_work,
    reuse_work,
    stacked,
)
from simulator.results.differences import significant
from simulator.running.reuse_run import ReuseRun
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

PROCESSOR_PRECISIONS = ("fp32", "fp16", "int8")
PROCESSOR_LIMITS = ("arithmetic", "cache", "dram")

# ncnn, whose times the constants are fitted on, stores fp32 numbers as fp16.
STORED_BYTES = {"fp32": 2, "fp16": 2, "int8": 1}
# Between layers ncnn converts int8 from and to fp16, which costs what moving fp16 costs.
_CACHE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class ProcessorConstants:
    """The fitted constants of one board, `data/processor_constants.csv`.

    Attributes:
        board: what they were fitted on.
        gemm, winograd, im2col: share of the SIMD peak that a kernel reaches in floating point, 0 to
            1; of depthwise convolutions, which are bound by traffic, it is 1.
        int8, int8_winograd: with int8, the share of the int8 peak over the share in floating point,
            of Winograd and of the others.
        half_reduction: elements summed over at which a kernel reaches half of that share.
        cache_cycles_per_byte: of traffic through the cache that the cores share, at the board's
            clock; threads do not speed it up.
        fork_us: to start the threads of one kernel; nothing with one thread.
        serial: share of the arithmetic that threads do not speed up, 0 to 1.
    """

    board: str
    gemm: float
    winograd: float
    im2col: float
    int8: float
    int8_winograd: float
    half_reduction: float
    cache_cycles_per_byte: float
    fork_us: float
    serial: float

    def shares(self, precision: str) -> np.ndarray:
        """`(kernels,)`, the share of the peak that each kernel reaches."""
        shares = np.array([self.gemm, self.winograd, self.im2col, 1.0])
        if precision == "int8":
            shares *= (self.int8, self.int8_winograd, self.int8, 1.0)
        return shares


@cache
def _constants() -> dict[str, ProcessorConstants]:
    file = resources.files("simulator") / "data" / "processor_constants.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    names = [entry.name for entry in fields(ProcessorConstants)]
    return {
        row["board"]: ProcessorConstants(
            board=row["board"], **{name: float(row[name]) for name in names if name != "board"}
        )
        for row in rows
    }


def processor_constants(processor: Processor) -> ProcessorConstants:
    """The fitted constants of the board that `processor.fitted_on` names.

    Raises:
        ConfigError: nothing was fitted on that board.
    """
    known = _constants()
    if processor.fitted_on in known:
        return known[processor.fitted_on]
    raise ConfigError(
        f"Processor.fitted_on must be one of {', '.join(map(repr, known))}, got "
        f"{processor.fitted_on!r}; take the most similar core's, or fit your own: "
        "python -m simulator.boards.fit"
    )


def kernel_seconds(
    work: np.ndarray,
    processor: Processor,
    constants: ProcessorConstants,
    *,
    threads: int | np.ndarray,
    precision: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The times of many kernels.

    Args:
        work: `(fields, works)`, as `stacked` gives it.
        processor: runs them.
        constants: of the processor's cores.
        threads: used, one number or one for each kernel.
        precision: one of `PROCESSOR_PRECISIONS`.

    Returns:
        `(3, works)` seconds that each of `PROCESSOR_LIMITS` needs, and `(works,)` seconds to start
        threads.
    """
    kernel, macs, weights, features, scratch, reduction, calls = work
    kind = kernel.astype(int)
    stored = STORED_BYTES[precision]
    reached = constants.shares(precision)[kind] * np.where(
        kind == DEPTHWISE, 1.0, reduction / (reduction + constants.half_reduction)
    )
    speed = processor.clock_hz * processor.macs_per_cycle(precision) * reached
    arithmetic = macs / speed * (constants.serial + (1 - constants.serial) / threads)
    cache_bytes = (features + 2 * scratch) * _CACHE_BYTES
    through_cache = cache_bytes * constants.cache_cycles_per_byte / processor.clock_hz
    spills = (features + weights) * stored > processor.last_level_cache_bytes
    to_dram = (weights + np.where(spills, features, 0.0)) * stored
    dram = to_dram / processor.dram_bytes_per_second
    fork = np.where(np.asarray(threads) > 1, constants.fork_us * 1e-6, 0.0) * calls
    return np.array([arithmetic, through_cache, dram]), fork


@dataclass(frozen=True, kw_only=True)
class ProcessorLayer:
    """One layer's prediction for one image.

    Attributes:
        name: of the layer.
        kernel: what runs it, one of `KERNELS`, or `reuse`.
        latency_ms: predicted.
        bound_by: which of `PROCESSOR_LIMITS` takes longest; with reuse, in the longest stage.
        stages_ms: stage -> latency, of a layer with reuse; empty else.
    """

    name: str
    kernel: str
    latency_ms: float
    bound_by: str
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProcessorReport:
    """A workload's predicted latency and energy on a processor, for one image.

    Attributes:
        processor: as given.
        threads: used.
        precision: of the arithmetic.
        layers: in the order of the trace.
        error: how far such predictions were off; `None` where nobody knows.
        unknown_error: why not, then.
    """

    processor: Processor
    threads: int
    precision: str
    layers: tuple[ProcessorLayer, ...]
    error: PredictionError | None = None
    unknown_error: str = ""

    @property
    def verdict(self) -> str:
        """Latency and energy of one image, in as many digits as they are worth, and their error."""
        digits = digits_of(self.error)
        energy = "" if self.energy_mj is None else f" and {significant(self.energy_mj, digits)} mJ"
        return (
            f"{self.processor.name}, {self.threads} thread{'s' if self.threads > 1 else ''}, "
            f"{self.precision}: about {significant(self.latency_ms, digits)} ms{energy} per image, "
            f"{self.error_text}."
        )

    @property
    def error_text(self) -> str:
        """How far the prediction may be off, or why nobody knows."""
        if self.error is None:
            return f"how far off is not known ({self.unknown_error})"
        return f"off by {self.error.text}"

    @property
    def latency_ms(self) -> float:
        """Predicted time of one image."""
        return sum(layer.latency_ms for layer in self.layers)

    @property
    def power_w(self) -> float | None:
        """The board's power with these threads, see `Processor.power_w`."""
        return self.processor.power_w(self.threads)

    @property
    def energy_mj(self) -> float | None:
        """Predicted energy of one image, the whole board's, idle power included."""
        return None if self.power_w is None else self.latency_ms * self.power_w

    @property
    def bound_by(self) -> str:
        """The limit under which most of the time goes by."""
        time = dict.fromkeys(PROCESSOR_LIMITS, 0.0)
        for layer in self.layers:
            time[layer.bound_by] += layer.latency_ms
        return max(time, key=lambda limit: time[limit])


def predict(
    trace: WorkloadTrace,
    processor: Processor,
    run: ReuseRun | None = None,
    *,
    threads: int | None = None,
    precision: str | None = None,
) -> ProcessorReport:
    """Predict the latency of one image, dense or under reuse in software.

    Args:
        trace: the workload; of a batch, the mean over its images, each run alone.
        processor: the CPU.
        run: decisions of `decide` on this trace; layers without decisions, and all without a run,
            are dense.
        threads: 1 to the processor's cores; all by default.
        precision: one of `PROCESSOR_PRECISIONS`; by default fp16 where the processor computes in
            it, else fp32, which is also what fp16 would run as there.

    Raises:
        ConfigError: an argument breaks a rule, fp16 is asked of a processor without it, or the run
            is of another workload.

    Not modelled: that a first run is slower; throttling; frameworks other than the fitted one; a
    centroid kept from earlier images (its result counts as computed, its memory is free).
    """
    if run is not None:
        run.check_made_on(trace, "predict.run")
    native = "fp16" if processor.fp16_arithmetic else "fp32"
    precision = native if precision is None else precision
    if precision == "fp16" and not processor.fp16_arithmetic:
        raise ConfigError(
            f"predict.precision must be 'fp32' or 'int8' on {processor.name!r}, which does not "
            "compute in fp16, got 'fp16'; use 'fp32', as which it would run"
        )
    threads = processor.cores if threads is None else threads
    layers = []
    for layer in trace.layers:
        decisions = None if run is None else run.decisions[layer.name]
        counts = None if decisions is None else ReuseCounts.of(layer, decisions)
        layers.append(predict_layer(layer, processor, counts, threads=threads, precision=precision))
    error = _error(trace, processor, layers, precision)
    return ProcessorReport(
        processor=processor,
        threads=threads,
        precision=precision,
        layers=tuple(layers),
        error=error if isinstance(error, PredictionError) else None,
        unknown_error="" if isinstance(error, PredictionError) else error,
    )


def _error(
    trace: WorkloadTrace,
    processor: Processor,
    layers: list[ProcessorLayer],
    precision: str,
) -> PredictionError | str:
    """How far such predictions were off, or why that is not known."""
    if any(layer.stages_ms for layer in layers):
        return "no reuse in software was measured on a Pi"
    if not _is_as_fitted(processor):
        return f"the constants were fitted on a {processor.fitted_on} as it is sold"
    if trace.files is None and not trace.inputs:
        return "of shapes alone, convolutions are predicted as plain matrix products"
    known = prediction_errors()
    if is_mostly_linear(trace):
        return known[ALL_BOARDS, TRANSFORMERS]
    return known[processor.fitted_on, INT8 if precision == "int8" else FLOATING_POINT]


def _is_as_fitted(processor: Processor) -> bool:
    """Whether it is the board that its constants were fitted on, but for its name and power."""
    own = {name: getattr(processor, name) for name in ("name", "idle_power_w", "load_power_w")}
    return any(
        replace(preset, **own) == processor
        for preset in processor_presets().values()
        if preset.fitted_on == processor.fitted_on
    )


def is_mostly_linear(trace: WorkloadTrace) -> bool:
    """Whether most of the arithmetic is in products, not convolutions, of several rows an image."""
    macs = sum(
        layer.gemm.macs
        for layer in trace.layers
        if layer.convolution is None and layer.gemm.m * layer.gemm.count > layer.images
    )
    return macs > trace.macs / 2


def predict_layer(
    layer: Layer,
    processor: Processor,
    counts: ReuseCounts | None = None,
    *,
    threads: int,
    precision: str,
    winograd: bool = True,
) -> ProcessorLayer:
    """Predict one layer on one image, dense or with what reuse does there.

    Args:
        layer: with its shapes; no tensors are needed.
        processor, threads, precision: as `predict`'s.
        counts: what reuse does; `None` for dense.
        winograd: whether the framework transforms dense 3x3 convolutions, as ncnn does.

    Raises:
        ConfigError: the threads or the precision break a rule.
    """
    processor.macs_per_cycle(precision)  # refuses an unknown precision
    if type(threads) is not int or not 1 <= threads <= processor.cores:
        raise ConfigError(
            f"predict.threads must be an integer from 1 to {processor.cores}, the processor's "
            f"cores, got {threads!r}; use {processor.cores}"
        )
    dense = dense_work(layer, winograd=winograd)
    stages = {"dense": dense}
    if counts is not None:
        stages = reuse_work(layer, counts, element_bytes=STORED_BYTES[precision])
    limits, fork = kernel_seconds(
        stacked(stages.values()),
        processor,
        processor_constants(processor),
        threads=threads,
        precision=precision,
    )
    times_ms = (limits.max(axis=0) + fork) * 1e3
    longest = limits[:, int(np.argmax(times_ms))]
    return ProcessorLayer(
        name=layer.name,
        kernel=KERNELS[dense.kernel] if counts is None else "reuse",
        latency_ms=float(times_ms.sum()),
        bound_by=PROCESSOR_LIMITS[int(np.argmax(longest))],
        stages_ms={} if counts is None else dict(zip(stages, times_ms.tolist(), strict=True)),
    )
