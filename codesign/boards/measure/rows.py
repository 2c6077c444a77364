"""A measurement as rows of a baseline file, and the power that a meter adds to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from accelerators import ConfigError
from accelerators.baselines import Baseline
from codesign.boards.measure.meter import Meter, utc
from codesign.boards.measure.reused import COMPILED, PLAIN
from codesign.boards.measure.timing import Measurement, Timing

_LONGEST_NOTE = 500  # of a baseline file
_KERNELS = {COMPILED: "numba reuse kernel", PLAIN: "plain reuse kernel, not compiled"}
_WINDOW = re.compile(r"runs (\S+Z) to (\S+Z);")


def package_version() -> str:
    """Of this project; a copy that is not installed has none."""
    try:
        return version("similarity-codesign")
    except PackageNotFoundError:
        return "from source"


def baseline_rows(
    measurement: Measurement, *, device: str, model: str, inputs: str, images: torch.Tensor
) -> tuple[Baseline, ...]:
    """A row for the network, one for each of its layers, and the same reused.

    Notes of the network's rows hold the time of their runs, which `with_power` looks for.

    Args:
        measurement: the times.
        device: what to call the device, as other rows of it do.
        model: what to call the network.
        inputs: where weights and inputs come from, in words.
        images: what a run took, `(images, channels, height, width)` or of other dimensions.
    """
    size = f"{images.shape[2]}x{images.shape[3]}x{images.shape[1]}" if images.ndim == 4 else ""
    moment = datetime.fromtimestamp(measurement.dense.start_s, UTC)
    reuse = measurement.reuse

    def row(timing: Timing, note: str, layer: str = "", setting: str = "") -> Baseline:
        # Six digits are more than any clock's repeats agree on.
        low, median, high = (
            float(f"{number:.6g}") for number in sorted((timing.median_ms, *timing.quartiles_ms))
        )
        kernel = f", {_KERNELS[reuse.kernel]}" if setting and reuse is not None else ""
        return Baseline(
            device=device,
            clock_mhz=measurement.clock_mhz,
            threads=measurement.threads,
            framework=f"PyTorch {torch.__version__}{kernel}",
            precision="fp32",
            model=model,
            input=size,
            batch=len(images),
            layer=layer,
            reuse=setting,
            latency_ms=median,
            statistic="median",
            low_ms=low,
            high_ms=high,
            spread="quartiles",
            repeats=len(timing.runs_ms),
            conditions=measurement.conditions,
            source=f"codesign measure {package_version()}, {moment.date()}, on "
            f"{measurement.board.name}",
            date=str(moment.date()),
            note=note[:_LONGEST_NOTE],
        )

    about = f"{inputs}; warm-up {measurement.warm_up}"
    rows = [row(measurement.dense, f"{_window(measurement.dense)}; {about}")]
    if measurement.reused is not None and reuse is not None:
        note = f"{_window(measurement.reused)}; {_error_text(measurement.error)}{about}"
        rows.append(row(measurement.reused, note, setting=reuse.text()))
    for each in measurement.layers:
        rows.append(row(each.dense, f"{each.shapes}; {about}", layer=each.name))
        if each.reused is not None and reuse is not None:
            note = f"remaining ratio {each.remaining_ratio:.4g}; {_error_text(each.error)}"
            note += f"{each.shapes}; {about}"
            rows.append(row(each.reused, note, layer=each.name, setting=reuse.text(each.name)))
    return tuple(rows)


def _window(timing: Timing) -> str:
    return f"runs {utc(timing.start_s)} to {utc(timing.end_s)}"


def _error_text(error: float | None) -> str:
    return "" if error is None else f"relative error {error:.3g}; "


def with_power(rows: Sequence[Baseline], meter: Meter) -> tuple[Baseline, ...]:
    """The network's rows with the mean power and the energy of a run that a meter saw.

    Energy is all that flowed from the first run to the last, idle power included, over the number
    of runs. Layers are too short for a meter and stay as they are.

    Args:
        rows: what `baseline_rows` made, perhaps read back from a file.
        meter: a log that covers the runs.

    Raises:
        ConfigError: no row tells when its runs were, or the log does not cover them.
    """
    powered = []
    for row in rows:
        found = None if row.layer or row.repeats is None else _WINDOW.search(row.note)
        if found is None:
            powered.append(row)
            continue
        start, end = (datetime.fromisoformat(moment).timestamp() for moment in found.groups())
        energy_j = meter.energy_j(start, end)
        powered.append(
            replace(
                row,
                power_w=energy_j / (end - start),
                energy_mj=energy_j * 1e3 / (row.repeats or 1),
                energy_origin="measured",
            )
        )
    if all(row is same for row, same in zip(rows, powered, strict=True)):
        raise ConfigError(
            "rows must tell when a network ran, got none whose note has 'runs ... to ...'; give "
            "a file that `codesign measure` wrote"
        )
    return tuple(powered)
