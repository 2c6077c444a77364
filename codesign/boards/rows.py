"""What a comparison sets side by side: one workload on boards, and on accelerators."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from accelerators import Baseline, ConfigError, Processor, processor_presets
from accelerators.rules import choose, nearest, quoted, show
from simulator import PROCESSOR_PRECISIONS, ReuseRun, SimulationReport, predict
from simulator.boards.error import PredictionError, digits_of
from simulator.boards.fit import FRAMEWORK, network_macs, network_work
from simulator.results.design import DesignReport
from simulator.results.differences import significant
from simulator.results.tables import number
from workloads.traces.trace import WorkloadTrace

MEASURED, PREDICTED, SIMULATED = "measured", "predicted", "simulated"
DERIVED = "derived, unverified"
SAME_ARRAY, EQUAL_AREA = "dense, same array", "dense, equal area"

_BOARD = "whole board, idle included"
_CHIP = "chip and DRAM"
# Of a measured network's arithmetic to the workload's: from where on it is told, and refused.
_TOLD, _REFUSED = 1.05, 1.25
_FLOATS = ("fp32", "fp16")


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One way to run one image of the workload.

    Attributes:
        device: the board, or the accelerator's name.
        how: it is run there, in words.
        reuse: whether results are reused.
        latency_ms: of one image; of a batch, the time of the batch over its images.
        latency_origin: "measured" on the device, "predicted" by the CPU model or "simulated".
        energy_mj: of one image, `None` if unknown.
        energy_origin: as `latency_origin`, or "derived, unverified" where power was multiplied by
            latency; empty without an energy.
        energy_of: what takes this energy.
        source: of the latency.
        note: what else must be known.
        error: how far predictions like this one were off; `None` where none is known, or there is
            no prediction.
    """

    device: str
    how: str
    reuse: bool = False
    latency_ms: float
    latency_origin: str
    energy_mj: float | None
    energy_origin: str
    energy_of: str
    source: str
    note: str = ""
    error: PredictionError | None = None

    @property
    def is_predicted(self) -> bool:
        """Whether the latency is by the CPU model."""
        return self.latency_origin == PREDICTED

    @property
    def digits(self) -> int:
        """Digits that its numbers are worth; of predictions as many as their error allows."""
        return digits_of(self.error) if self.is_predicted else 3

    def text(self, value: float | None) -> str | None:
        """One of its numbers in these digits; a prediction is "about" it."""
        if value is None or not self.is_predicted:
            return value if value is None else number(value)
        return f"about {significant(value, self.digits)}"

    def value(self, value: float | None) -> float | None:
        """One of its numbers for a file: a prediction is rounded to these digits."""
        if value is None or not self.is_predicted:
            return value
        return float(f"{value:.{self.digits - 1}e}")

    @property
    def name(self) -> str:
        """Device and how it runs there."""
        return f"{self.device}, {self.how}"

    @property
    def energy_delay_mj_ms(self) -> float | None:
        """Energy times latency of one image; 1 mJ ms is 1 uJ s."""
        return None if self.energy_mj is None else self.energy_mj * self.latency_ms

    @property
    def frames_per_second(self) -> float:
        """Images a second, one after the other."""
        return 1e3 / self.latency_ms


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a measured row must be of.

    Attributes:
        network: its name, plain (see `plain_name`).
        size: of an image, height x width x channels; empty if unknown.
        precisions: any of them.
        threads: used, `None` for any.
        macs: multiply-accumulates of an image.
    """

    network: str
    size: str
    precisions: tuple[str, ...]
    threads: int | None
    macs: float


def plain_name(name: str) -> str:
    """A network's name without what spellings differ in: case, signs, the file it is in."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(":")[2].lower())


def wanted_rows(
    trace: WorkloadTrace, network: str, precision: str | None, threads: int | None
) -> Wanted:
    """What measured rows must be of to stand for a trace.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision is not None and precision not in PROCESSOR_PRECISIONS:
        raise ConfigError(
            f"compare.precision must be {quoted(PROCESSOR_PRECISIONS)}, got "
            f"{show(precision, str)}; {choose(precision, PROCESSOR_PRECISIONS)}"
        )
    precision = precision or _captured_precision(trace)
    return Wanted(
        network=plain_name(network),
        size=_image_size(trace),
        precisions=_FLOATS if precision is None else (precision,),
        threads=threads,
        macs=trace.macs / trace.images,
    )


def _captured_precision(trace: WorkloadTrace) -> str | None:
    """int8 of a quantised trace; `None` is any floating point."""
    return "int8" if "int8" in str(trace.provenance.get("precision")) else None


def _image_size(trace: WorkloadTrace) -> str:
    """Height x width x channels of the trace's images; empty if they are no images."""
    shape: tuple[int, ...] = ()
    if trace.inputs:
        shape = trace.inputs[0].shape
    elif trace.layers[0].convolution is not None or trace.files is None:
        shape = trace.layers[0].input_shape
    return f"{shape[2]}x{shape[3]}x{shape[1]}" if len(shape) == 4 else ""


def check_devices(devices: Sequence[str], rows: Iterable[Baseline]) -> None:
    """Every device must have rows, or a processor to predict it.

    Raises:
        ConfigError: naming the nearest that there is.
    """
    known = tuple(dict.fromkeys([*processor_presets(), *(row.device for row in rows)]))
    broken = [
        f"compare.devices must be {quoted(known)}, got {show(device, str)}; "
        f"{choose(device, known)}, or give rows of it by --baselines"
        for device in devices
        if device not in known
    ]
    broken += [
        f"compare.devices must name a device once, got {show(device, str)} again; leave one out"
        for device in dict.fromkeys(devices)
        if list(devices).count(device) > 1
    ]
    if not devices:
        broken = [f"compare.devices must name a device, got none; use one of {', '.join(known)}"]
    if broken:
        raise ConfigError(broken)


def board_rows(
    device: str,
    trace: WorkloadTrace,
    run: ReuseRun,
    wanted: Wanted,
    tables: Sequence[Sequence[Baseline]],
) -> tuple[list[ComparedRow], list[str]]:
    """A device's measured rows, the best of each table, and its predicted ones.

    Args:
        device: a name of `check_devices`.
        trace: the workload.
        run: decisions on it, for deep reuse in software.
        wanted: what a measured row must be of.
        tables: measured rows, the user's own apart from the built-in ones.

    Returns:
        The rows, and what must be told about them.

    Raises:
        ConfigError: the device has neither a row nor a processor to predict it.
    """
    processor = processor_presets().get(device)
    found: list[ComparedRow] = []
    notes: list[str] = []
    for table in tables:
        of_device = [row for row in table if row.device == device]
        fitting, told = _fitting(of_device, wanted, processor)
        notes += told
        for row in _best(fitting):
            found.append(_measured(row, processor, wanted))
    if not found:
        notes.append(
            f"{device}: nothing measured that fits this workload" + _nearest(wanted, tables)
        )
    if processor is not None:
        found += _predictions(trace, run, processor, wanted)
        if wanted.precisions == ("fp16",) and not processor.fp16_arithmetic:
            notes.append(f"{device}: predicted in fp32, as it does not compute in fp16")
    elif not found:
        raise ConfigError(
            f"compare.devices must have a measured row of this network or a processor preset, got "
            f"{device!r} with neither; measure it (codesign measure) and give the file by "
            f"--baselines, or use one of {', '.join(processor_presets())}"
        )
    return found, notes


def _fitting(
    rows: Sequence[Baseline], wanted: Wanted, processor: Processor | None
) -> tuple[list[Baseline], list[str]]:
    """Rows that stand for the workload, and why others of its name do not."""
    named = [
        row
        for row in rows
        if plain_name(row.model) == wanted.network
        and not row.layer
        and row.precision in wanted.precisions
        and wanted.threads in (None, row.threads)
        and (processor is None or (row.clock_mhz or 0) <= processor.clock_hz / 1e6)
    ]
    fitting: list[Baseline] = []
    refused: dict[str, list[str]] = {}
    for row in named:
        share, reason = _arithmetic(row, wanted), ""
        if row.input and wanted.size and row.input != wanted.size:
            reason = f"of {row.input}, where the workload's images are {wanted.size}"
        elif share is not None and not 1 / _REFUSED <= share <= _REFUSED:
            reason = f"with {share:.2f} times the workload's arithmetic, so of another network"
        if reason:
            refused.setdefault(f"{row.model} {reason}", []).append(row.framework)
        else:
            fitting.append(row)
    return fitting, [
        f"{rows[0].device}: not used is {what} (measured by {', '.join(dict.fromkeys(by))})"
        for what, by in refused.items()
    ]


def _arithmetic(row: Baseline, wanted: Wanted) -> float | None:
    """Arithmetic of the measured network over the workload's; `None` where it is not known."""
    if not row.framework.startswith("ncnn") or row.model not in network_work():
        return None
    return network_macs(row.model) / wanted.macs


def _best(rows: Sequence[Baseline]) -> list[Baseline]:
    """The fastest dense row; where it tells no energy, the one of least energy too; the fastest
    with reuse."""
    chosen: list[Baseline] = []
    dense = [row for row in rows if not row.reuse]
    if dense:
        chosen.append(min(dense, key=lambda row: row.latency_ms / row.batch))
        metered = [(row.energy_mj / row.batch, row) for row in dense if row.energy_mj is not None]
        if metered and chosen[0].energy_mj is None:
            chosen.append(min(metered, key=lambda pair: pair[0])[1])
    reused = [row for row in rows if row.reuse]
    return chosen + sorted(reused, key=lambda row: row.latency_ms / row.batch)[:1]


def _measured(row: Baseline, processor: Processor | None, wanted: Wanted) -> ComparedRow:
    energy_mj, origin, notes = row.energy_mj, row.energy_label, []
    if energy_mj is None:
        power_w, of = row.power_w, "its own mean power"
        if power_w is None:
            power_w, of = _power_w(row, processor), "the preset's power"
        if power_w is not None:
            energy_mj, origin = power_w * row.latency_ms, DERIVED
            notes.append(f"energy from {of}, {power_w:.3g} W, times the measured latency")
    if row.batch > 1:
        notes.append(f"a batch of {row.batch}, divided by it")
    if not (row.input and wanted.size):
        notes.append("matched by name alone: the size of the input is not known")
    share = _arithmetic(row, wanted)
    if share is not None and not 1 / _TOLD <= share <= _TOLD:
        notes.append(f"this variant does {share:.2f} times the workload's arithmetic")
    if share is None:
        notes.append("which variant of the network was measured is not checked")
    if row.reuse:
        notes.append(f"its own decisions, not those compared here: {row.reuse}")
    notes += filter(None, (row.conditions, row.note))
    threads = "" if row.threads is None else f", {_threads(row.threads)}"
    clock = "" if row.clock_mhz is None else f", {row.clock_mhz:g} MHz"
    return ComparedRow(
        device=row.device,
        how=f"{row.framework} {row.precision}{threads}{clock}{', deep reuse' if row.reuse else ''}",
        reuse=bool(row.reuse),
        latency_ms=row.latency_ms / row.batch,
        latency_origin=MEASURED,
        energy_mj=None if energy_mj is None else energy_mj / row.batch,
        energy_origin="" if energy_mj is None else origin,
        energy_of="" if energy_mj is None else _BOARD,
        source=", ".join(filter(None, (row.source, row.date))),
        note="; ".join(notes),
    )


def _power_w(row: Baseline, processor: Processor | None) -> float | None:
    """What a board's preset takes with the row's threads busy; `None` where that is not known."""
    if processor is None or row.threads is None or "GPU" in row.framework:
        return None
    return processor.power_w(min(row.threads, processor.cores))


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _predictions(
    trace: WorkloadTrace, run: ReuseRun, processor: Processor, wanted: Wanted
) -> list[ComparedRow]:
    """Dense, and under the same decisions where there are some."""
    precision = wanted.precisions[0] if len(wanted.precisions) == 1 else None
    if precision == "fp16" and not processor.fp16_arithmetic:
        precision = "fp32"  # as which it would run; `board_rows` tells
    runs: list[ReuseRun | None] = [None]
    if any(made is not None for made in run.decisions.values()):
        runs.append(run)
    rows = []
    for each in runs:
        found = predict(trace, processor, each, threads=wanted.threads, precision=precision)
        what = "dense" if each is None else "deep reuse in software"
        rows.append(
            ComparedRow(
                device=processor.name,
                how=f"{what}, {found.precision}, {_threads(found.threads)}",
                reuse=each is not None,
                latency_ms=found.latency_ms,
                latency_origin=PREDICTED,
                energy_mj=found.energy_mj,
                energy_origin="" if found.energy_mj is None else PREDICTED,
                energy_of="" if found.energy_mj is None else _BOARD,
                source=f"CPU model of {FRAMEWORK}, simulator.predict"
                + ("" if each is None else ", the accelerator's own decisions"),
                note=f"{found.error_text}; bound by {found.bound_by}",
                error=found.error,
            )
        )
    return rows


def _nearest(wanted: Wanted, tables: Sequence[Sequence[Baseline]]) -> str:
    """A hint at rows under another name, where none has this one."""
    names = {plain_name(row.model): row.model for table in tables for row in table}
    if not wanted.network or wanted.network in names:
        return ""
    near = [name for name in names if name.startswith(wanted.network)]
    near = near or list(filter(None, [nearest(wanted.network, list(names))]))
    if not near:
        return ""
    listed = ", ".join(names[name] for name in near)
    return f"; if the workload is one of {listed}, say so by --network"


def accelerator_rows(report: SimulationReport) -> list[ComparedRow]:
    """The dense designs and then the one as given; without reuse units the latter alone."""
    design = report.reuse.accelerator
    if not design.has_reuse:
        return [_simulated(report.reuse, design.name, "dense")]
    return [
        _simulated(report.dense, design.name, SAME_ARRAY),
        _simulated(report.dense_equal_area, design.name, EQUAL_AREA),
        _simulated(report.reuse, design.name, "with reuse", reuse=True),
    ]


def _simulated(found: DesignReport, name: str, how: str, *, reuse: bool = False) -> ComparedRow:
    array, clock_mhz = found.accelerator.array, found.accelerator.clock_hz / 1e6
    return ComparedRow(
        device=name,
        how=how,
        reuse=reuse,
        latency_ms=found.latency_ms_per_image,
        latency_origin=SIMULATED,
        energy_mj=found.energy_uj_per_image * 1e-3,
        energy_origin=SIMULATED,
        energy_of=_CHIP,
        source="simulator.simulate",
        note=f"{array.rows} × {array.columns} array of {found.accelerator.operand_bits}-bit "
        f"integers at {clock_mhz:g} MHz, {found.area_mm2:.3g} mm²; "
        f"bound by {found.bound_by.replace('_', ' ')}",
    )


def known_network(network: str, rows: Iterable[Baseline]) -> None:
    """A network that is asked for by name must have a row.

    Raises:
        ConfigError: naming the nearest that there is.
    """
    names: Mapping[str, str] = {plain_name(row.model): row.model for row in rows}
    if not isinstance(network, str) or plain_name(network) not in names:
        near = nearest(network, list(names.values()))
        fix = f"use {near!r}" if near else "`codesign baselines` lists them"
        raise ConfigError(
            f"compare.network must be a network that a row has, got {show(network, str)}; {fix}, "
            "or leave it out to predict"
        )
