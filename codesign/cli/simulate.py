"""The command `codesign simulate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from codesign.cli.options import with_options
from codesign.cli.outputs import check_files
from codesign.cli.replay import (
    ModelReplayOptions,
    needs_model,
    tell_random,
    write_files,
)
from codesign.cli.terminal import guarded, note, say, table, working

EPILOG = (
    "Example: codesign simulate trace --accelerator reuse_16x16 --hashes 10 --length 10 "
    "--layer conv1=15,5 --html page.html --timeline timeline.json\n\n"
    "With SCALE-Sim's files: codesign simulate --scale-sim a32_ws.cfg resnet18.csv --csv out.csv"
)


@guarded
@with_options(ModelReplayOptions)
def command(
    options: ModelReplayOptions,
    error_bound: Annotated[
        bool,
        typer.Option(
            "--error-bound",
            help="Bound the error of the outputs too (Deep Reuse, section IV); needs --model. "
            "Takes seconds.",
        ),
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write a row per design and layer; with --scale-sim a row per layer, whose "
            "compute_cycles are SCALE-Sim's (its total cycles + 1); busy_array_cycles_per_batch "
            "count every tile of the schedule."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(help="Write what every block does when, as JSON for ui.perfetto.dev."),
    ] = None,
) -> None:
    """Replay a captured model on an accelerator: speed, energy, area, accuracy."""
    from simulator import decide, pixel_answers, simulate
    from simulator import error_bound as bound_error
    from simulator.pages.timeline import write_timeline
    from simulator.results.costs import costs_line
    from simulator.results.design_tables import layer_table
    from simulator.results.error_table import ERROR_COLUMNS, error_rows, error_text

    check_files(inputs=options.files(), json=json, csv=csv, html=html, timeline=timeline)
    asked = options.read()
    if error_bound and options.model is None:
        raise needs_model("--error-bound")
    with working(f"simulating {len(asked.trace)} layers on {asked.design.name}"):
        captured = options.captured(asked.trace)
        run = decide(
            asked.trace,
            asked.policy,
            model=captured,
            calibration=asked.calibration,
            calibrate_under_reuse=options.calibrate_under_reuse,
        )
        report = simulate(asked.trace, asked.design, run, engine=options.engine)
        if html is not None:
            report = replace(report, pixels=pixel_answers(asked.trace, run))
        if error_bound and captured is not None:
            report = replace(report, error_bound=bound_error(captured, asked.trace, run))
    table(*layer_table(report.to_dict()))
    if report.error_bound is not None:
        bound = report.error_bound.to_dict()
        table(ERROR_COLUMNS, error_rows(bound))
        say(error_text(bound))
    tell_random(asked.trace)
    if run.calibrated_on is not None and asked.calibration is None:
        hashes = any(hasattr(asked.policy.policy_of(x.name), "hashes") for x in asked.trace.layers)
        learner = "hashing" if hashes else "the technique"
        note(f"{learner} learned from the judged inputs; give others by --calibration TRACE")
    say(f"\n{report.verdict}\n{costs_line(asked.design)}")
    write_files(
        (json, report.write_json),
        (csv, report.write_csv if options.scale_sim is None else report.reuse.write_csv),
        (html, report.write_html),
        (timeline, lambda path: write_timeline(report.reuse, path)),
    )
