"""The command `codesign sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelerators import ConfigError
from codesign.cli.options import with_options
from codesign.cli.outputs import check_files
from codesign.cli.replay import ReplayOptions, tell_random, write_files
from codesign.cli.terminal import command_line, guarded, note, point_progress, say, table

EPILOG = (
    "Example: codesign sweep trace --hashes 10 --length 10 --set array.rows=8,16,32 "
    "--set front_end.lanes=1,2,4 --html page.html --csv out.csv"
)


@guarded
@with_options(ReplayOptions)
def command(
    options: ReplayOptions,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="FIELD=VALUE,VALUE,... with any field of an accelerator, such as array.rows; may "
            "be repeated: all combinations are simulated.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row per combination.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
) -> None:
    """Vary fields of an accelerator and plot what they change; reuse is decided once."""
    from codesign.report.sweep_page import write_sweep_html
    from codesign.study.sweep import read_settings, sweep

    check_files(inputs=options.files(), csv=csv, html=html)
    asked = options.read()
    settings = read_settings(setting or [], asked.design)
    if options.technology is not None and any(each.path == "technology" for each in settings):
        raise ConfigError(
            "--technology must not be given with --set technology=..., got "
            f"{options.technology!r}; leave out one, or add it to the values of --set"
        )
    with point_progress("sweeping") as on_point:
        result = sweep(
            asked.trace,
            asked.design,
            asked.policy,
            settings,
            calibration=asked.calibration,
            engine=options.engine,
            on_point=on_point,
        )
    table(result.columns, result.rows)
    for point in result.skipped:
        note(f"skipped {point.name}: {point.reason}")
    tell_random(asked.trace)
    say(f"\n{result.verdict}\n{result.costs}")
    write_files(
        (csv, result.write_csv),
        (html, lambda path: write_sweep_html(result, path, command_line())),
    )
