"""Compares one workload on boards that people own with it on accelerators.

from accelerators import preset
from codesign import compare
from codesign.report.comparison_page import write_comparison_html
from simulator import LshReuse

found = compare(trace, preset("reuse_16x16"), LshReuse(hashes=10, length=10), devices=["Pi 4B"])
print(found.verdict)
write_comparison_html(found, "compare.html")
"""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerators import Accelerator, baselines, read_baselines
from codesign.boards.rows import (
    DERIVED,
    MEASURED,
    PREDICTED,
    SIMULATED,
    ComparedRow,
    accelerator_rows,
    board_rows,
    check_devices,
    known_network,
    wanted_rows,
)
from simulator import NoReuse, ReusePolicy, ReuseRun, SimulationReport, decide, simulate
from simulator.boards.error import TRANSFORMERS
from simulator.boards.processor import is_mostly_linear
from simulator.results.costs import cost_sources
from simulator.results.differences import against_one, significant
from simulator.results.rows import write_rows
from simulator.results.tables import column
from simulator.results.weights import model_name
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One workload on boards and on accelerators.

    Attributes:
        workload: provenance of the trace.
        network: the name that measured rows were looked up by.
        images: in the batch that the accelerators run.
        rows: boards, then dense accelerators, then the accelerator as given, the reference.
        simulation: of the accelerators, under the same decisions.
        notes: what must be known to read the rows, a sentence each.
    """

    workload: Mapping[str, Any]
    network: str
    images: int
    rows: tuple[ComparedRow, ...]
    simulation: SimulationReport
    notes: tuple[str, ...]

    @property
    def reference(self) -> ComparedRow:
        """The accelerator as given, that all others are compared with."""
        return self.rows[-1]

    def latency_ratio(self, row: ComparedRow) -> float:
        """A row's latency over the reference's; above 1 the reference is faster."""
        return row.latency_ms / self.reference.latency_ms

    def energy_ratio(self, row: ComparedRow) -> float | None:
        """A row's energy over the reference's; above 1 the reference takes less."""
        return _over(row.energy_mj, self.reference.energy_mj)

    def energy_delay_ratio(self, row: ComparedRow) -> float | None:
        """A row's energy-delay product over the reference's; above 1 the reference's is less."""
        return _over(row.energy_delay_mj_ms, self.reference.energy_delay_mj_ms)

    @property
    def boards(self) -> dict[str, ComparedRow]:
        """Device -> the row that stands for it: the fastest dense one measured, else predicted."""
        dense = [row for row in self.rows if row.latency_origin != SIMULATED and not row.reuse]
        standing: dict[str, ComparedRow] = {}
        for row in dense:
            mine = [each for each in dense if each.device == row.device]
            measured = [each for each in mine if each.latency_origin == MEASURED]
            standing[row.device] = min(measured or mine, key=lambda each: each.latency_ms)
        return standing

    @property
    def verdict(self) -> str:
        """How the accelerator stands against each board, a sentence each."""
        told = []
        for device, row in self.boards.items():
            ratio, energy = self.latency_ratio(row), self.energy_ratio(row)
            speed = {
                1: f"is {row.text(ratio)} times as fast as",
                0: "is as fast as",
                -1: f"takes {row.text(1 / ratio)} times as long as",
            }[_told_apart(ratio, row)]
            text = f"{self.reference.name}, {speed} a {device} ({_origin(row)})"
            if energy is not None:
                takes = {
                    1: f"1/{significant(energy, row.digits)} of the energy"
                    if energy >= 10
                    else f"{row.text(1 / energy)} times the energy",
                    0: "the same energy",
                    -1: f"{row.text(1 / energy)} times the energy",
                }[_told_apart(energy, row)]
                text += (
                    f" and takes {takes}, chip and DRAM against the whole board "
                    f"({row.energy_origin})"
                )
            told.append(f"{text}.")
        return " ".join(told)

    @property
    def columns(self) -> list[dict[str, Any]]:
        """Columns of the table."""
        times = "× last row"
        return [
            column("name", "Runs on", text=True),
            column("latency_ms", "Latency", "ms per image"),
            column("latency_ratio", "Latency", times),
            column("latency_origin", "Latency is", text=True),
            column("energy_mj", "Energy", "mJ per image"),
            column("energy_ratio", "Energy", times),
            column("energy_origin", "Energy is", text=True),
            column("energy_delay_mj_ms", "Energy-delay", "mJ·ms per image"),
            column("energy_delay_ratio", "Energy-delay", times),
            column("frames_per_second", "Images", "per second"),
        ]

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row of the table for each row compared; the reference is marked."""
        return [
            {key: row.text(getattr(row, key)) for key in _NUMBERS}
            | {key: row.text(ratio) for key, ratio in self._ratios(row).items()}
            | {"name": row.name, "marked": row is self.reference}
            | {"latency_origin": _origin(row), "energy_origin": row.energy_origin or None}
            for row in self.rows
        ]

    def _ratios(self, row: ComparedRow) -> dict[str, float | None]:
        return {
            "latency_ratio": self.latency_ratio(row),
            "energy_ratio": self.energy_ratio(row),
            "energy_delay_ratio": self.energy_delay_ratio(row),
        }

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each row compared, with its source and note.

        Predictions are rounded to the digits that they are worth; their errors are shares, on
        networks that the model was not fitted on, and empty where nobody knows.
        """
        return write_rows(
            path,
            [
                {
                    "device": row.device,
                    "how": row.how,
                    "reuse": row.reuse,
                    "latency_ms_per_image": row.value(row.latency_ms),
                    "latency_origin": row.latency_origin,
                    "prediction_error_median": row.error and row.error.median,
                    "prediction_error_p90": row.error and row.error.p90,
                    "energy_mj_per_image": row.value(row.energy_mj),
                    "energy_origin": row.energy_origin,
                    "energy_of": row.energy_of,
                    "energy_delay_mj_ms_per_image": row.value(row.energy_delay_mj_ms),
                    "images_per_second": row.value(row.frames_per_second),
                }
                | {key: row.value(ratio) for key, ratio in self._ratios(row).items()}
                | {"network": self.network, "accelerator_images_per_batch": self.images}
                | {"source": row.source, "note": row.note}
                | cost_sources(self.simulation.reuse.accelerator)
                for row in self.rows
            ],
        )


_NUMBERS = ("latency_ms", "energy_mj", "energy_delay_mj_ms", "frames_per_second")


def _told_apart(ratio: float, row: ComparedRow) -> int:
    """1 where a row's number is above the reference's, -1 below, 0 where nobody can tell.

    A prediction must be off by more than most were, for the ratio to be on the other side of 1.
    """
    bound = row.error.bound if row.error else 0.0
    ends = [against_one(ratio / (1 + bound)), against_one(ratio / (1 - bound))]
    return ends[0] if ends[0] == ends[1] else 0


def _origin(row: ComparedRow) -> str:
    """What a row's latency is; of a prediction also how far it may be off."""
    if not row.is_predicted:
        return row.latency_origin
    error = row.error
    if error is None:
        return f"{row.latency_origin}, error not known"
    if error.of == TRANSFORMERS:
        return (
            f"{row.latency_origin}, off by {100 * error.lowest:.0f} to {100 * error.highest:.0f} %"
        )
    return f"{row.latency_origin}, off by {100 * error.median:.0f} % in the median"


def _over(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def compare(
    trace: WorkloadTrace,
    accelerator: Accelerator,
    policy: ReusePolicy | ReuseRun | None = None,
    *,
    devices: Sequence[str] = ("Pi 4B",),
    network: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    files: Sequence[str | Path] = (),
    model: torch.nn.Module | None = None,
    calibration: WorkloadTrace | None = None,
    calibrate_under_reuse: bool = False,
    engine: str = "compiled",
) -> Comparison:
    """Set a workload on boards beside it on an accelerator and on its two dense baselines.

    A board shows what was measured of the same network, precision and size of image (its fastest
    row of each of the user's and the built-in table, at most at the preset's clock), and what the
    CPU model predicts, dense and under the same reuse decisions in software.

    Args:
        trace: the captured workload.
        accelerator, policy, model, calibration, calibrate_under_reuse, engine: as
            `simulator.simulate` takes them.
        devices: boards, each with measured rows or a processor preset.
        network: the name that measured rows have; by default the captured model's class, which
            need have none.
        precision: on the boards, one of `PROCESSOR_PRECISIONS`; by default int8 of a quantised
            trace, else floating point: any that was measured, and the processor's own predicted.
        threads: on the boards; by default the best measured, and all cores predicted.
        files: baseline files of one's own.

    Raises:
        ConfigError: a device or a network that is not known, with the nearest names; a file that
            does not load; or as `simulate` and `predict`.
        TraceError: as `simulate`.
    """
    own = tuple(row for path in files for row in read_baselines(path))
    built_in = baselines()
    known = (*own, *built_in)
    check_devices(devices, known)
    if network is not None:
        known_network(network, known)
    called = network or model_name(trace.provenance)
    wanted = wanted_rows(trace, called, precision, threads)
    asked: dict[str, Any] = {
        "model": model,
        "calibration": calibration,
        "calibrate_under_reuse": calibrate_under_reuse,
    }
    if isinstance(policy, ReuseRun):
        run = policy
        simulation = simulate(trace, accelerator, run, engine=engine, **asked)
    else:
        run = decide(trace, policy or NoReuse(), **asked)
        simulation = simulate(trace, accelerator, run, engine=engine)
    rows: list[ComparedRow] = []
    told: list[str] = []
    for device in dict.fromkeys(devices):
        found, notes = board_rows(device, trace, run, wanted, (own, built_in))
        rows += found
        told += notes
    rows += accelerator_rows(simulation)
    return Comparison(
        workload=simulation.workload,
        network=called,
        images=trace.images,
        rows=tuple(rows),
        simulation=simulation,
        notes=(*told, *_how_to_read(rows, simulation, trace)),
    )


def _how_to_read(
    rows: Sequence[ComparedRow], simulation: SimulationReport, trace: WorkloadTrace
) -> list[str]:
    """What the numbers of a board and of an accelerator do not share."""
    batch = (
        "one image"
        if trace.images == 1
        else (
            f"a batch of {trace.images} images layer by layer, so weights are fetched once "
            "a batch, and latency and energy are divided by the images"
        )
    )
    notes = [
        f"Boards run one image at a time. The accelerators run {batch}.",
        "Energy of a board is the whole board's, idle power included, at the wall where a meter "
        "was there; of an accelerator it is the chip's and its DRAM's alone. The ratio flatters "
        "the accelerator: it has no supply, no host and no rest of a board.",
        f"The accelerators compute in {simulation.reuse.accelerator.operand_bits}-bit integers, "
        "matrix products alone; a measured network does everything else too.",
    ]
    predicted = any(row.latency_origin == PREDICTED for row in rows)
    if predicted and trace.files is None:
        notes.append(
            "The workload is shapes alone: its convolutions are predicted as plain matrix "
            "products, slower than boards run them."
        )
    elif predicted and is_mostly_linear(trace):
        notes.append(
            "Most of this workload is linear layers of many rows, which the CPU model was not "
            "fitted on: a vision transformer was predicted too fast (study 011)."
        )
    if predicted:
        errors = {f"{row.device}: off by {row.error.text}" for row in rows if row.error is not None}
        notes.append(
            "Predicted: by a model of ncnn on the board, in as many digits as its error leaves "
            f"(study 011). {''.join(f'{each}. ' for each in sorted(errors))}Deep reuse in software "
            "is extrapolated from that, no such run was measured on a Pi, and its error is not "
            "known."
        )
    if any(row.energy_origin == DERIVED for row in rows):
        notes.append(
            f"{DERIVED.capitalize()}: power times latency, multiplied by this project; no one "
            "has verified it."
        )
    return notes
