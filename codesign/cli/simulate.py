"""The commands that replay one workload: `codesign simulate` and `codesign sweep`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from accelerators import ConfigError
from codesign.cli.options import (
    LEARNS,
    CalibrateUnderReuse,
    Replay,
    ReplayOptions,
    ReplayScore,
    Weights,
    with_replay_options,
)
from codesign.cli.outputs import check_files
from codesign.cli.terminal import command_line, guarded, note, point_progress, say, table, working
from codesign.space.lookup import refuse_idle
from simulator.results.weights import AS_CLASS_SETS, untrained
from workloads.traces.trace import WorkloadTrace


@guarded
@with_replay_options
def simulate_command(
    options: ReplayOptions,
    model: Annotated[
        str | None, typer.Option(help="The captured model, to know the accuracy under reuse.")
    ] = None,
    weights: Weights = None,
    score: ReplayScore = None,
    calibrate_under_reuse: CalibrateUnderReuse = False,
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
    from codesign.space.lookup import captured_model
    from simulator import decide, pixel_answers, simulate
    from simulator import error_bound as bound_error
    from simulator.pages.timeline import write_timeline
    from simulator.results.costs import costs_line
    from simulator.results.design_tables import layer_table
    from simulator.results.error_table import ERROR_COLUMNS, error_rows, error_text

    check_files(
        inputs=[*options.files(), weights], json=json, csv=csv, html=html, timeline=timeline
    )
    asked = options.read(model=model, score=score)
    check_weights(model, weights)
    check_learns(model, calibrate_under_reuse, asked)
    if error_bound and model is None:
        raise ConfigError(
            "--error-bound must come with --model, got none; name the captured model, such as "
            "--model cifarnet"
        )
    with working(f"simulating {len(asked.trace)} layers on {asked.design.name}"):
        captured = None if model is None else captured_model(model, weights, asked.trace)
        run = decide(
            asked.trace,
            asked.policy,
            model=captured,
            calibration=asked.calibration,
            calibrate_under_reuse=calibrate_under_reuse,
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
        note("hashing learned from the judged inputs; give others by --calibration TRACE")
    say(f"\n{report.verdict}\n{costs_line(asked.design)}")
    write_files(
        (json, report.write_json),
        (csv, report.write_csv if options.scale_sim is None else report.reuse.write_csv),
        (html, report.write_html),
        (timeline, lambda path: write_timeline(report.reuse, path)),
    )


@guarded
@with_replay_options
def sweep_command(
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


def check_weights(model: str | None, weights: Path | None) -> None:
    """Weights are of a model that is named.

    Raises:
        ConfigError: none is.
    """
    if weights is not None and model is None:
        raise ConfigError(
            "--weights must come with --model, got none; name the captured model, such as "
            "--model cifarnet"
        )


def check_learns(model: str | None, calibrate_under_reuse: bool, asked: Replay) -> None:
    """To learn under reuse, a model must run, and something must be learned.

    Raises:
        ConfigError: no model is named, or nothing is learned.
    """
    refuse_idle({"--calibrate-under-reuse": calibrate_under_reuse and not asked.learns}, LEARNS)
    if calibrate_under_reuse and model is None:
        raise ConfigError(
            "--calibrate-under-reuse must come with --model, got none; name the captured model, "
            "such as --model cifarnet"
        )


def tell_random(trace: WorkloadTrace) -> None:
    """Say so where a model was not trained, or may not be."""
    told = untrained(trace.provenance.get("weights"))
    if told is not None:
        has = (
            "was given no weights, so they are random unless its class loads some"
            if told == AS_CLASS_SETS
            else f"has {told}"
        )
        say(f"\nThe model {has}: a trained one's activations may be alike otherwise.")


def write_files(*files: tuple[Path | None, Callable[[Path], Path]]) -> None:
    """Write the files that were asked for."""
    for path, write in files:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            note(f"wrote {write(path)}")
