"""The command that sets a workload on boards beside it on accelerators: `codesign compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelerators import baselines as known_rows
from codesign.boards.rows import MEASURED
from codesign.cli.options import with_options
from codesign.cli.outputs import check_files
from codesign.cli.replay import (
    ModelReplayOptions,
    tell_random,
    write_files,
)
from codesign.cli.terminal import command_line, guarded, say, table, working

EPILOG = (
    'Example: codesign compare trace --device "Pi 4B" --device "Pi 5" --hashes 10 --length 10 '
    "--html compare.html\n\n"
    "With measurements of your own: codesign compare trace --hashes 10 --length 10 "
    '--device "Pi 4B" --baselines my_pi.csv --csv compare.csv'
)


@guarded
@with_options(ModelReplayOptions)
def command(
    options: ModelReplayOptions,
    device: Annotated[
        list[str] | None, typer.Option(help='A board, "Pi 4B" (the default); may be repeated.')
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Name of the network in measured rows; by default --model's, or the captured "
            "class's."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="On the boards: fp32, fp16 or int8; by default int8 of a quantised trace, else "
            "floating point."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="On the boards; by default the best measured, all cores predicted."),
    ] = None,
    baselines: Annotated[
        list[Path] | None,
        typer.Option(help="Measurements of your own, as `codesign measure` writes them."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row per way to run it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
) -> None:
    """Compare a workload on Raspberry Pis with it on an accelerator: latency, energy, both."""
    from codesign.boards.comparison import compare
    from codesign.report.comparison_page import write_comparison_html
    from simulator.results.costs import costs_line

    check_files(inputs=[*options.files(), *(baselines or ())], csv=csv, html=html)
    asked = options.read()
    model = options.model
    if network is None and any(row.model == model for row in known_rows(files=baselines or ())):
        network = model
    with working(f"comparing {len(asked.trace)} layers on {asked.design.name}"):
        found = compare(
            asked.trace,
            asked.design,
            asked.policy,
            devices=device or ["Pi 4B"],
            network=network,
            precision=precision,
            threads=threads,
            files=baselines or (),
            model=options.captured(asked.trace),
            calibration=asked.calibration,
            calibrate_under_reuse=options.calibrate_under_reuse,
            engine=options.engine,
        )
    table(found.columns, found.table)
    say("")
    for row in found.rows:
        if row.latency_origin == MEASURED:
            say(f"{row.name}: {row.source}" + (f" ({row.note})" if row.note else ""))
    for text in found.notes:
        say(text)
    tell_random(asked.trace)
    say(f"\n{found.verdict}\n{found.simulation.verdict}\n{costs_line(asked.design)}")
    write_files(
        (csv, found.write_csv),
        (html, lambda path: write_comparison_html(found, path, command_line())),
    )
