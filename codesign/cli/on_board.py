"""`codesign measure`: options, progress and the table at the end, with the standard library.

It is packed for boards, where it runs as a module: nothing else of the command line is there.
"""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from accelerators import ConfigError
from accelerators.baselines import read_baselines, write_baselines
from codesign.boards.measure.board import Board, BoardWatch
from codesign.boards.measure.meter import read_meter
from codesign.boards.measure.pack import check_pack, pack
from codesign.boards.measure.reused import (
    KERNELS,
    PLAIN,
    THRESHOLDS,
    Reuse,
    default_kernel,
    why_plain,
)
from codesign.boards.measure.rows import baseline_rows, with_power
from codesign.boards.measure.timing import LayerTimes, Measurement, Timing, measure
from codesign.cli.outputs import check_files
from workloads.errors import InputError, plain
from workloads.models.load import MODELS, load
from workloads.models.weights import dtype_of, weights_source
from workloads.streams.arrays import ARRAY_SUFFIXES, array_inputs

_WRONG_INPUT, _INTERRUPTED = 2, 130
_SIZE = 224
_LONGEST_NAME = 100  # of a baseline file
_NOTHING = "–"
_EPILOG = """\
Example: codesign measure --model resnet18 --weights resnet18.pth --inputs images.npy
           --device "Pi 4B" --out my_pi.csv
Example: codesign measure --pack measure.pyz
         then, on a board with Python, PyTorch and numpy, and numba for compiled reuse:
         python3 measure.pyz --model resnet18 --device "Pi 4B" --out my_pi.csv
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codesign measure",
        description="Time a network and its layers on this device, dense and with deep reuse in "
        "software, and write a baseline file. Needs PyTorch and numpy, and numba for compiled "
        "reuse.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="resnet18", metavar="NAME", help=f"{', '.join(MODELS)}, "
        "package.module:Class or file.py:Class (executed); by default resnet18")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="weights, .pth, .pt, .th, .bin, .ckpt "
        "(.safetensors with that package); without them most models have random ones")  # fmt: skip
    add("--inputs", type=Path, metavar="FILE.npy", help="real inputs, .npy, .npz or .safetensors, "
        "float32 as the model expects them, (images, channels, height, width)")  # fmt: skip
    add("--size", type=int, metavar="PIXELS", help="side of random inputs, which hold nothing "
        f"alike; by default the model's own, or {_SIZE}")  # fmt: skip
    add("--batch", type=int, default=1, help="images of a run, by default 1")
    add("--threads", type=int, help="by default as many as cores")
    add("--repeats", type=int, default=20, help="runs of each timing, by default 20")
    add("--warm-up", type=int, default=3, help="runs before each timing, by default 3")
    add("--layers", action=argparse.BooleanOptionalAction, default=True,
        help="time each convolution and linear module too (the default), or not")  # fmt: skip
    add("--reuse", action=argparse.BooleanOptionalAction, default=True,
        help="time deep reuse too (the default), or dense runs alone")  # fmt: skip
    add("--hashes", type=int, default=10, metavar="H", help="hashes of a layer, by default 10")
    add("--length", type=int, default=8, metavar="L", help="sub-vector length, by default 8")
    add("--layer", action="append", default=[], metavar="NAME=H,L", help="or NAME=dense, for "
        "layers of their own, by name or pattern; may be repeated")  # fmt: skip
    add("--thresholds", choices=THRESHOLDS, default="spread", help="of the hashes: zero (the "
        "paper's) or spread about the mean of the inputs (the default)")  # fmt: skip
    add("--kernel", choices=KERNELS, help="of reuse: numba (compiled, the default where it "
        "is installed) or plain, whose times say nothing of compiled reuse")  # fmt: skip
    add("--power-csv", type=Path, metavar="METER.csv", help="a meter's log with the columns time "
        "(ISO 8601 with offset, or seconds since 1970) and watts, which covers the runs; for runs "
        "of before, see --add-power")  # fmt: skip
    add("--device", metavar="NAME", help='what to call the device, such as "Pi 4B"; by default '
        "its own name")  # fmt: skip
    add("--out", type=Path, default=Path("baseline.csv"), metavar="FILE.csv",
        help="the baseline file, by default baseline.csv")  # fmt: skip
    add("--seed", type=int, default=0, help="of random weights and inputs")
    add("--add-power", action="store_true", help="measure nothing: add --power-csv to the rows of "
        "--out, whose runs it covers")  # fmt: skip
    add("--pack", type=Path, metavar="FILE.pyz", help="measure nothing: write this command as one "
        "file to carry to a board")  # fmt: skip
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.pack is not None:
            check_pack(given.pack)
            _refuse_idle(parser, given)
            check_files(pack=given.pack)
            given.pack.parent.mkdir(parents=True, exist_ok=True)
            pack(given.pack)
            _note(f"wrote {given.pack}; on the board: python3 {given.pack.name} --help")
        elif given.add_power:
            if given.power_csv is not None:
                _refuse_idle(parser, given)
            _add_power(given.power_csv, given.out)
        else:
            _refuse_idle(parser, given)
            _measure(given)
    except KeyboardInterrupt:
        _note("Stopped.")
        return _INTERRUPTED
    except (ConfigError, InputError) as error:
        _note(f"Error: {error}")
        return _WRONG_INPUT
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _note(f"Error: {plain(told)}")
        return _WRONG_INPUT
    return 0


def _refuse_idle(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse options that would have no effect beside another.

    Raises:
        ConfigError: with each of them, beside the first such.
    """
    reuse = {"hashes", "length", "layer", "thresholds", "kernel"}
    changed = {name for name, value in vars(given).items() if value != parser.get_default(name)}
    for option, is_there, idle in (
        ("--pack", given.pack is not None, changed - {"pack"}),
        ("--add-power", given.add_power, changed - {"add_power", "power_csv", "out"}),
        ("--no-reuse", not given.reuse, changed & reuse),
    ):
        if is_there and idle:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(idle))
            raise ConfigError(
                f"{option} must stand without {names}, which would change nothing; leave out one"
            )


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _measure(given: argparse.Namespace) -> None:
    reuse = _reuse(given) if given.reuse else None
    if given.power_csv is not None:
        read_meter(given.power_csv)  # before minutes of work
    if given.out.is_dir() or not given.out.parent.is_dir():  # before minutes of work
        raise ConfigError(
            f"--out must be a file in a directory that exists, got {given.out}; name a .csv file"
        )
    check_files(out=given.out, inputs=[given.inputs, given.weights, given.power_csv])
    model = load(given.model, given.weights, seed=given.seed)
    images, about = _images(given, model)
    if images.is_floating_point():  # token ids stay whole
        images = images.to(dtype_of(model))
    board = Board.here()
    with _Progress() as progress:
        measurement = measure(
            model,
            images,
            reuse=reuse,
            threads=given.threads,
            repeats=given.repeats,
            warm_up=given.warm_up,
            layers=given.layers,
            watch=BoardWatch(board=board),
            on_progress=progress.show,
        )
    name = given.model.rpartition("/")[2]  # a file without its directories
    rows = baseline_rows(
        measurement,
        device=(given.device or board.name)[:_LONGEST_NAME],
        model=name[:_LONGEST_NAME],
        inputs=f"{weights_source(model)}; {about}",
        images=images,
    )
    write_baselines(given.out, rows)
    print(_table(measurement))
    threads = f"{measurement.threads} thread{'s' if measurement.threads > 1 else ''}"
    print(f"\n{name}, {about}, {threads} on {board.name}")
    print(measurement.conditions)
    if measurement.reused is not None and reuse is not None and reuse.kernel == PLAIN:
        reason = f" ({why_plain()})" if why_plain() else ""
        print(
            f"Reuse ran by the plain fallback{reason}: its decisions are the same, its times are "
            "not those of a compiled implementation."
        )
    _note(f"wrote {given.out}")
    if given.power_csv is not None:
        _add_power(given.power_csv, given.out)


def _add_power(meter: Path | None, out: Path) -> None:
    """Join a meter's log to the rows of a file; what was measured stays if that fails."""
    if meter is None:
        raise ConfigError("--add-power must have a meter's log, got none; give --power-csv")
    rows = with_power(read_baselines(out), read_meter(meter))
    write_baselines(out, rows)
    for row in rows:
        if row.power_w is not None:
            print(
                f"{row.model}, {row.reuse or 'dense'}: {row.power_w:.2f} W, "
                f"{row.energy_mj:.4g} mJ a run"
            )
    _note(f"wrote {out}, with power")


def _reuse(given: argparse.Namespace) -> Reuse:
    return Reuse(
        hashes=given.hashes,
        length=given.length,
        layers=dict(_own(text) for text in given.layer),
        thresholds=given.thresholds,
        kernel=given.kernel or default_kernel(),
    )


def _own(text: str) -> tuple[str, tuple[int, int] | None]:
    name, _, setting = text.rpartition("=")
    if name and setting == "dense":
        return name, None
    try:
        hashes, length = map(int, setting.split(","))
    except ValueError:
        name = ""
    if not name:
        raise ConfigError(f"--layer must be NAME=H,L or NAME=dense, got {text!r}; try conv1=15,5")
    return name, (hashes, length)


def _images(given: argparse.Namespace, model: nn.Module) -> tuple[torch.Tensor, str]:
    """The images of a run, and what they are."""
    if given.batch < 1 or (given.size is not None and given.size < 1):
        raise ConfigError("--batch and --size must be at least 1; use 1 and 224")
    if given.inputs is None:
        shape = getattr(model, "input_shape", (3, _SIZE, _SIZE))
        if given.size is not None:
            shape = (shape[0], given.size, given.size)
        drawn = torch.randn(given.batch, *shape, generator=torch.manual_seed(given.seed))
        return drawn, "random inputs, in which nothing is alike"
    if given.size is not None:
        raise ConfigError("--size must stand without --inputs, which have their own; leave it out")
    if not given.inputs.is_file():
        raise ConfigError(
            f"--inputs must be a .npy file of numbers, got {given.inputs}, which is no file; write "
            "it by numpy.save"
        )
    if given.inputs.suffix.lower() not in ARRAY_SUFFIXES:
        raise ConfigError(
            f"--inputs must be a {', '.join(ARRAY_SUFFIXES)} file, got {given.inputs}; write it by "
            "numpy.save"
        )
    values = array_inputs(given.inputs, count=given.batch, name="--inputs").images
    return values, f"inputs {given.inputs.name}"


class _Progress:
    """A line on a terminal; nothing in a pipe."""

    def __enter__(self) -> _Progress:
        self._shown = sys.stderr.isatty()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")

    def show(self, text: str) -> None:
        """What is measured now."""
        if self._shown:
            sys.stderr.write(f"\r\x1b[Kmeasuring {text}")
            sys.stderr.flush()


def _table(measurement: Measurement) -> str:
    """Medians and quartiles, in milliseconds."""
    lines = [("", "dense ms", "quartiles", "reused ms", "quartiles", "speed", "r_c", "error")]
    layers = [(each.name, each) for each in measurement.layers]
    timed: list[tuple[str, Measurement | LayerTimes]] = [("network", measurement), *layers]
    for name, times in timed:
        speed = _NOTHING if times.speedup is None else f"{times.speedup:.2f}×"
        ratio = getattr(times, "remaining_ratio", None)
        lines.append(
            (
                name,
                *_cells(times.dense),
                *_cells(times.reused),
                speed,
                _NOTHING if ratio is None else f"{ratio:.3f}",
                _NOTHING if times.error is None else f"{times.error:.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(timing: Timing | None) -> tuple[str, str]:
    if timing is None:
        return _NOTHING, _NOTHING
    low, high = timing.quartiles_ms
    return f"{timing.median_ms:.3g}", f"{low:.3g} to {high:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
