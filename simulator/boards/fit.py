"""Fits the constants of the CPU model to ncnn's measured times, and tests them on others.

`python -m simulator.boards.fit CONSTANTS.csv ERRORS.csv` fits every board again on the networks
that are not held out and writes the constants and their errors on those that are: the files
`processor_constants.csv` and `processor_errors.csv` of `data`.

Held out is every third network in alphabetical order (the third, sixth, ...), of all that ncnn
measured on a Raspberry Pi's CPU; it was fixed before anything was fitted. The constants are found
per board by least squares on the logarithm of predicted over measured time, in which large
errors count linearly (soft L1 beyond 15 %), so that one bad measurement does not decide.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from accelerators import Baseline, Processor, baselines, processor_presets
from simulator.boards.error import (
    ALL_BOARDS,
    FLOATING_POINT,
    INT8,
    TRANSFORMERS,
    PredictionError,
)
from simulator.boards.processor import ProcessorConstants, kernel_seconds, processor_constants
from simulator.boards.work import (
    GEMM,
    WINOGRAD,
    WINOGRAD_SAVING,
    KernelWork,
    kernel_of,
    kernel_work,
    stacked,
)
from workloads.writing import write_atomically

FRAMEWORK = "ncnn CPU"
# Of the held-out networks, those that are mostly linear layers of many rows.
_TRANSFORMERS = ("vision_transformer",)
_SOFT = 0.15  # relative error beyond which a row counts linearly

# Constant -> first guess, lowest, highest; the shares of a peak end at 1.
_RANGES: dict[str, tuple[float, float, float]] = {
    "gemm": (0.5, 0.02, 1.0),
    "winograd": (0.5, 0.02, 1.0),
    "im2col": (0.3, 0.02, 1.0),
    "int8": (0.7, 0.05, 2.0),
    "int8_winograd": (0.5, 0.05, 2.0),
    "half_reduction": (20.0, 0.1, 300.0),
    "cache_cycles_per_byte": (0.3, 0.001, 20.0),
    "fork_us": (10.0, 0.1, 1000.0),
    "serial": (0.2, 0.001, 0.9),
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured row and what the model predicts for it.

    Attributes:
        row: as measured.
        predicted_ms: by the model.
    """

    row: Baseline
    predicted_ms: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_ms / self.row.latency_ms - 1


@cache
def network_work() -> dict[str, np.ndarray]:
    """Network -> `(fields, layers)` work, as `stacked`, of every network of `ncnn_layers.csv`."""
    found: dict[str, list[KernelWork]] = {}
    file = resources.files("simulator") / "data" / "ncnn_layers.csv"
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        found.setdefault(row["network"], []).append(_work(row))
    return {name: stacked(works) for name, works in found.items()}


def network_macs(network: str) -> float:
    """Multiply-accumulates of one of the networks of `network_work`, by plain convolutions."""
    kernel, macs, *_ = network_work()[network]
    return float((macs * np.where(kernel == WINOGRAD, WINOGRAD_SAVING, 1)).sum())


def _work(row: dict[str, str]) -> KernelWork:
    """One row of the table of layers."""
    size = {name: int(value) for name, value in row.items() if value.isdigit()}
    inputs, outputs, groups = size["channels_in"], size["channels_out"], size["groups"]
    m = size["out_height"] * size["out_width"]
    if row["kind"] != "conv":  # channels are of one head
        features = groups * m * (inputs + outputs)
        weights = groups * inputs * outputs
        return kernel_work(
            GEMM, m=m, n=outputs, k=inputs, count=groups, weights=weights, features=features
        )
    taps = (size["kernel_height"], size["kernel_width"])
    kind = kernel_of(
        kernel=taps, stride=(size["stride"],), dilation=(size["dilation"],), groups=groups,
        inputs=inputs, outputs=outputs,
    )  # fmt: skip
    k = inputs // groups * taps[0] * taps[1]
    features = size["height"] * size["width"] * inputs + m * outputs
    return kernel_work(
        kind, m=m, n=outputs // groups, k=k, count=groups, weights=outputs * k, features=features
    )


def held_out() -> tuple[str, ...]:
    """Networks that nothing is fitted on: every third name of all, in alphabetical order."""
    return tuple(sorted(network_work())[2::3])


def measured(processor: Processor) -> tuple[Baseline, ...]:
    """ncnn's rows of a board at the clock of its preset."""
    return tuple(
        row
        for row in baselines(device=processor.fitted_on, framework=FRAMEWORK)
        if row.clock_mhz == processor.clock_hz / 1e6
    )


class _Rows:
    """Rows of one board with their layers, laid out for one call of the model a precision."""

    def __init__(self, rows: Sequence[Baseline], processor: Processor) -> None:
        self.rows = rows
        self.processor = processor
        self.parts = []
        for int8 in (False, True):
            chosen = [i for i, row in enumerate(rows) if (row.precision == "int8") is int8]
            if not chosen:
                continue
            works = [network_work()[rows[i].model] for i in chosen]
            lengths = [work.shape[1] for work in works]
            threads = np.repeat([rows[i].threads for i in chosen], lengths)
            starts = np.cumsum([0, *lengths[:-1]])
            precision = rows[chosen[0]].precision
            self.parts.append((chosen, np.concatenate(works, axis=1), threads, starts, precision))

    def predict_ms(self, constants: ProcessorConstants) -> np.ndarray:
        """`(rows,)` predicted times."""
        found = np.empty(len(self.rows))
        for chosen, work, threads, starts, precision in self.parts:
            limits, fork = kernel_seconds(
                work, self.processor, constants, threads=threads, precision=precision
            )
            found[chosen] = np.add.reduceat(limits.max(axis=0) + fork, starts) * 1e3
        return found


def fit(rows: Sequence[Baseline], processor: Processor) -> ProcessorConstants:
    """The constants of a board that fit rows best.

    Args:
        rows: measured networks of `ncnn_layers.csv`, on this processor.
        processor: where they were measured.
    """
    laid_out = _Rows(rows, processor)
    measured_ms = np.array([row.latency_ms for row in rows])
    guess, low, high = np.log(np.array(list(_RANGES.values()))).T

    def constants(logarithms: np.ndarray) -> ProcessorConstants:
        values = dict(zip(_RANGES, np.exp(logarithms).tolist(), strict=True))
        return ProcessorConstants(board=processor.fitted_on, **values)

    found = least_squares(
        lambda x: np.log(laid_out.predict_ms(constants(x)) / measured_ms),
        guess, bounds=(low, high), loss="soft_l1", f_scale=_SOFT,
    )  # fmt: skip
    return constants(found.x)


def predictions(
    rows: Sequence[Baseline], processor: Processor, constants: ProcessorConstants | None = None
) -> tuple[Measurement, ...]:
    """What the model says of measured rows, with the constants kept in the project by default."""
    constants = processor_constants(processor) if constants is None else constants
    found = _Rows(rows, processor).predict_ms(constants)
    return tuple(
        Measurement(row=row, predicted_ms=float(ms)) for row, ms in zip(rows, found, strict=True)
    )


def cross_validated(processor: Processor) -> tuple[Measurement, ...]:
    """Every row of a board, predicted by constants fitted without its network."""
    rows = measured(processor)
    found: list[Measurement] = []
    for network in sorted({row.model for row in rows}):
        without = fit([row for row in rows if row.model != network], processor)
        found += predictions([row for row in rows if row.model == network], processor, without)
    return tuple(found)


def known_errors() -> tuple[PredictionError, ...]:
    """Errors of the kept constants on the networks that are held out."""
    found: list[PredictionError] = []
    transformers: list[Measurement] = []
    for processor in processor_presets().values():
        rows = [row for row in measured(processor) if row.model in held_out()]
        made = predictions(rows, processor)
        transformers += [each for each in made if each.row.model in _TRANSFORMERS]
        for what in (FLOATING_POINT, INT8):
            chosen = [each for each in made if (each.row.precision == "int8") == (what == INT8)]
            found.append(_summary(processor.fitted_on, what, chosen))
    return (*found, _summary(ALL_BOARDS, TRANSFORMERS, transformers))


def _summary(board: str, what: str, made: Sequence[Measurement]) -> PredictionError:
    lowest, median, p90, highest = np.quantile([abs(each.error) for each in made], (0, 0.5, 0.9, 1))
    return PredictionError(
        board=board, of=what, rows=len(made),
        lowest=float(lowest), median=float(median), p90=float(p90), highest=float(highest),
    )  # fmt: skip


def main(out: Path, errors: Path) -> None:
    """Fit every board on the networks that are not held out and write the constants.

    Args:
        out: where the constants go.
        errors: where the errors of those that the project keeps go.
    """
    shares = (
        [board, what, count, *(f"{share:.4g}" for share in found)]
        for board, what, count, *found in map(astuple, known_errors())
    )
    _write(errors, PredictionError, shares)
    fitted = []
    for processor in processor_presets().values():
        rows = [row for row in measured(processor) if row.model not in held_out()]
        board, *values = astuple(fit(rows, processor))
        fitted.append([board, *(f"{value:.4g}" for value in values)])
        print(f"{board}: {len(values)} constants on {len(rows)} rows")
    _write(out, ProcessorConstants, fitted)


def _write(out: Path, kind: type, rows: Iterable[Sequence[object]]) -> None:
    """Rows under the fields of what they are."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(entry.name for entry in fields(kind))
    writer.writerows(rows)
    write_atomically(out, text.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
