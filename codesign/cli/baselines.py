"""The command that shows measured baselines: `codesign baselines`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from accelerators import Baseline, ConfigError, baselines, write_baselines
from codesign.cli.outputs import check_files
from codesign.cli.terminal import guarded, note, say, table
from simulator.results.tables import NOTHING, column

EPILOG = (
    'Example: codesign baselines --device "Pi 4B" --model resnet18\n\n'
    "With measurements of your own: codesign baselines --file mine.csv --model resnet18"
)

_COLUMNS = (
    column("device", "Device", text=True),
    column("clock", "Clock", "MHz"),
    column("model", "Network", text=True),
    column("input", "Input", text=True),
    column("framework", "Framework", text=True),
    column("precision", "Precision", text=True),
    column("threads", "Threads"),
    column("reuse", "Reuse", text=True),
    column("latency", "Latency", "ms per image"),
    column("spread", "Spread", "ms per image", text=True),
    column("power", "Power", "W"),
    column("energy", "Energy", "mJ per image"),
    column("origin", "Energy is", text=True),
    column("source", "Source", text=True),
)


@guarded
def command(
    device: Annotated[str | None, typer.Option(help='A board, "Pi 4B".')] = None,
    model: Annotated[str | None, typer.Option(help="A network, resnet18.")] = None,
    framework: Annotated[
        str | None, typer.Option(help="The first words of a framework's name, ncnn.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, int8 ...")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads used.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show rows of layers too.")] = False,
    file: Annotated[
        list[Path] | None, typer.Option(help="Measurements of your own, before the built-in ones.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the rows found, in the format that --file reads.")
    ] = None,
) -> None:
    """Show measured latency and energy of networks on Raspberry Pis, each row with its source."""
    check_files(csv=csv, inputs=file or ())
    found = baselines(
        device=device, model=model, framework=framework, precision=precision, threads=threads,
        layer=None if layers else "", files=file or (),
    )  # fmt: skip
    if not found:
        raise ConfigError(
            "no row has all of what was asked for together; leave out an option, or predict it: "
            "codesign compare"
        )
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        write_baselines(csv, found)
        note(f"wrote {csv}")
    if device is None and model is None and not file:
        _tell_overview(found)
        return
    table(_columns(found), [_row(each, layers) for each in found])
    note("Notes on single rows, such as how numbers are stored: --csv FILE.csv")
    if any(row.energy_origin == "derived" for row in found):
        say(
            "\nderived, unverified: mean wall power times mean latency, multiplied by this project "
            "from MLPerf Inference results, idle power included; MLCommons has not verified it."
        )


def _columns(rows: tuple[Baseline, ...]) -> list[dict]:
    """The columns that say something of these rows."""
    empty = {
        "reuse": not any(row.reuse for row in rows),
        "power": all(row.power_w is None for row in rows),
        "energy": all(row.energy_mj is None for row in rows),
        "origin": all(row.energy_mj is None for row in rows),
    }
    return [each for each in _COLUMNS if not empty.get(each["key"], False)]


def _row(row: Baseline, layers: bool) -> dict:
    spread = NOTHING
    if row.high_ms is not None:
        ends = [end / row.batch for end in (row.low_ms, row.high_ms) if end is not None]
        spread = f"{' to '.join(f'{end:g}' for end in ends)} {row.spread}"
    network = f"{row.model}: {row.layer or 'all'}" if layers else row.model
    return {
        "device": row.device,
        "clock": row.clock_mhz,
        "model": network,
        "input": row.input or NOTHING,
        "framework": row.framework,
        "precision": row.precision,
        "threads": row.threads,
        "reuse": row.reuse or "dense",
        "latency": row.latency_ms / row.batch,
        "spread": spread,
        "power": row.power_w,
        "energy": row.energy_mj and row.energy_mj / row.batch,
        "origin": row.energy_label or NOTHING,
        "source": ", ".join(filter(None, (row.source, row.date, row.conditions))),
    }


def _tell_overview(rows: tuple[Baseline, ...]) -> None:
    """What there is to ask for."""
    counts = Counter((row.device, row.framework) for row in rows)
    columns = [
        column("device", "Device", text=True),
        column("framework", "Framework", text=True),
        column("rows", "Rows"),
    ]
    table(
        columns,
        [
            {"device": device, "framework": framework, "rows": count}
            for (device, framework), count in sorted(counts.items())
        ],
    )
    say("\nNetworks: " + ", ".join(sorted({row.model for row in rows})))
    say("Show rows by --device or --model.")
