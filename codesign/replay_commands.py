"""The commands that replay one workload: `codesign simulate` and `codesign sweep`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from codesign.options import (
    DEFAULT_LEARNING,
    DEFAULT_ORDER,
    DEFAULT_REPRESENTATIVE,
    DEFAULT_SCOPE,
    Calibration,
    Engine,
    Hashes,
    LayerReuse,
    Learning,
    Length,
    Order,
    Plain,
    ReplayDesign,
    Representative,
    ScaleSim,
    Scope,
    Trace,
    Weights,
    read_replay,
)
from codesign.terminal import command_line, guarded, note, point_progress, say, table, working


@guarded
def simulate_command(
    trace: Trace = None,
    accelerator: ReplayDesign = None,
    scale_sim: ScaleSim = None,
    hashes: Hashes = None,
    length: Length = None,
    layer: LayerReuse = None,
    scope: Scope = DEFAULT_SCOPE,
    plain: Plain = False,
    learning: Learning = DEFAULT_LEARNING,
    order: Order = DEFAULT_ORDER,
    representative: Representative = DEFAULT_REPRESENTATIVE,
    calibration: Calibration = None,
    model: Annotated[
        str | None, typer.Option(help="The captured model, to know the accuracy under reuse.")
    ] = None,
    weights: Weights = None,
    engine: Engine = "compiled",
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write a row per design and layer; with --scale-sim a row per layer, whose "
            "compute_cycles are SCALE-Sim's (its total cycles + 1)."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(help="Write what every block does when, as JSON for ui.perfetto.dev."),
    ] = None,
) -> None:
    """Replay a captured model on an accelerator: speed, energy, area, accuracy."""
    from codesign.designs import captured_model
    from simulator import simulate
    from simulator.report.simulation_page import layer_table
    from simulator.report.timeline import write_timeline

    asked = read_replay(
        trace=trace, accelerator=accelerator, scale_sim=scale_sim, hashes=hashes, length=length,
        layer=layer, scope=scope, plain=plain, learning=learning, order=order,
        representative=representative, calibration=calibration, model=model,
    )  # fmt: skip
    with working(f"simulating {len(asked.trace)} layers on {asked.design.name}"):
        report = simulate(
            asked.trace,
            asked.design,
            asked.policy,
            model=None if model is None else captured_model(model, weights, asked.trace),
            calibration=asked.calibration,
            engine=engine,
        )
    table(*layer_table(report.to_dict()))
    say(f"\n{report.verdict}")
    _write(
        (json, report.write_json),
        (csv, report.write_csv if scale_sim is None else report.reuse.write_csv),
        (html, report.write_html),
        (timeline, lambda path: write_timeline(report.reuse, path)),
    )


@guarded
def sweep_command(
    trace: Trace = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="FIELD=VALUE,VALUE,... with any field of an accelerator, such as array.rows; may "
            "be repeated: all combinations are simulated.",
        ),
    ] = None,
    accelerator: ReplayDesign = None,
    scale_sim: ScaleSim = None,
    hashes: Hashes = None,
    length: Length = None,
    layer: LayerReuse = None,
    scope: Scope = DEFAULT_SCOPE,
    plain: Plain = False,
    learning: Learning = DEFAULT_LEARNING,
    order: Order = DEFAULT_ORDER,
    representative: Representative = DEFAULT_REPRESENTATIVE,
    calibration: Calibration = None,
    engine: Engine = "compiled",
    csv: Annotated[Path | None, typer.Option(help="Write a row per combination.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
) -> None:
    """Vary fields of an accelerator and plot what they change; reuse is decided once."""
    from codesign.sweep import read_settings, sweep
    from codesign.sweep_page import write_sweep_html

    asked = read_replay(
        trace=trace, accelerator=accelerator, scale_sim=scale_sim, hashes=hashes, length=length,
        layer=layer, scope=scope, plain=plain, learning=learning, order=order,
        representative=representative, calibration=calibration,
    )  # fmt: skip
    settings = read_settings(setting or [], asked.design)
    with point_progress("sweeping") as on_point:
        result = sweep(
            asked.trace,
            asked.design,
            asked.policy,
            settings,
            calibration=asked.calibration,
            engine=engine,
            on_point=on_point,
        )
    table(result.columns, result.rows)
    for point in result.skipped:
        note(f"skipped {point.name}: {point.reason}")
    say(f"\n{result.verdict}")
    _write(
        (csv, result.write_csv),
        (html, lambda path: write_sweep_html(result, path, command_line())),
    )


def _write(*files: tuple[Path | None, Callable[[Path], Path]]) -> None:
    """Write the files that were asked for."""
    for path, write in files:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            note(f"wrote {write(path)}")
