"""The page of a sweep: what varying fields of an accelerator changes."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codesign.report.templates import TEMPLATES
from codesign.study.sweep import Sweep
from simulator.pages.cards import RATIOS_TEXT
from simulator.pages.facts import facts, workload_line
from simulator.pages.figures import LINE_COLOURS, LINE_DASHES, finished
from simulator.pages.page import figure_html, render, versions
from simulator.results.costs import dram_with_energy, table_with_source
from simulator.results.tables import named
from simulator.results.weights import headline_name
from workloads.writing import write_atomically

_PANELS = {
    "speedup_equal_area": "speed, × a dense design of equal area",
    "energy_uj_per_image": "energy, µJ per image",
    "cycles_per_image": "time, cycles per image",
    "area_mm2": "area, mm²",
}
_PANEL_PIXELS = 270
# From which ratio of its largest to its least value an axis is logarithmic.
_WIDE = 8
# Names of more characters are slanted, so that they do not meet.
_LONG_NAME = 12

_CAPTION = (
    "Every point is a design on the same workload. Energy and time, per image, and area are "
    "its own; less is better. Invalid combinations leave gaps."
)
_REUSE_CAPTION = (
    " All replay the same reuse decisions. Speed compares each design with a dense one of its own "
    "area: above 1, reuse is faster."
)


def write_sweep_html(sweep: Sweep, path: str | Path, command: str | None = None) -> Path:
    """Write a page with plots and tables; `command` is named as what made it."""
    told: dict[str, Any] = {"command": command} if command else {}
    tables = dict.fromkeys(table_with_source(design) for design in sweep.priced)
    told |= {
        "cost table": "; ".join(tables),  # of all designs: it may be what is varied
        "policy": sweep.policy,
        "simulated with": named(versions("numpy", "numba")),
    }
    if any(setting.path == "dram.kind" for setting in sweep.settings):
        kinds = dict.fromkeys(dram_with_energy(design.dram.kind) for design in sweep.priced)
        told["DRAM"] = ", ".join(kinds)
    fields = " and ".join(setting.path for setting in sweep.settings)
    is_reuse = sweep.base.has_reuse
    caption = _CAPTION + (_REUSE_CAPTION if is_reuse else "")
    context = {
        "kind": "Sweep of an accelerator's fields",
        "title": f"{headline_name(sweep.workload)} on {sweep.base.name}: {fields}",
        "subtitle": f"{len(sweep.simulated)} designs, "
        + ("reuse decided once" if is_reuse else "dense")
        + f". {workload_line(sweep.workload, sweep.images)}",
        "ratios_text": RATIOS_TEXT if is_reuse else "",
        "verdict": sweep.verdict,
        "figure": figure_html(sweep_figure(sweep), "sweep", caption),
        "columns": sweep.columns,
        "rows": sweep.rows,
        "skipped": sweep.skipped,
        "python": sweep.base.to_python(),
        "facts": facts(sweep.workload, sweep.base, told),
    }
    return write_atomically(path, render("sweep.html", TEMPLATES, context))


def sweep_figure(sweep: Sweep) -> go.Figure:
    """A panel for each number over the first field; a line for each value of the others."""
    panels = [key for key in _PANELS if sweep.base.has_reuse or key != "speedup_equal_area"]
    columns = 2 if len(panels) == 4 else len(panels)
    figure = make_subplots(
        rows=len(panels) // columns,
        cols=columns,
        subplot_titles=[_PANELS[key] for key in panels],
        horizontal_spacing=0.09,
        vertical_spacing=0.2,
    )
    first, *others = sweep.settings
    by_values = {tuple(point.values.values()): point for point in sweep.points}
    for number, rest in enumerate(itertools.product(*(other.values for other in others))):
        name = ", ".join(f"{o.path}={v}" for o, v in zip(others, rest, strict=True))
        points = [by_values[value, *rest] for value in first.values]
        if all(point.reason is not None for point in points):
            continue
        colour = LINE_COLOURS[(number + 1) % len(LINE_COLOURS)]
        dash = LINE_DASHES[number // len(LINE_COLOURS) % len(LINE_DASHES)]
        for place, key in enumerate(panels):
            figure.add_scatter(
                x=[str(value) if isinstance(value, bool) else value for value in first.values],
                y=[point.numbers.get(key) for point in points],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=place == 0 and bool(others),
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 8},
                customdata=[point.name for point in points],
                hovertemplate=f"%{{customdata}}<br>%{{y:,.4~g}}: {_PANELS[key]}<extra></extra>",
                row=place // columns + 1,
                col=place % columns + 1,
            )
    figure.update_xaxes(title_text=first.path, **_axis(first.values))
    figure.update_yaxes(rangemode="tozero")
    lines = len(panels) // columns
    return finished(figure, 110 + _PANEL_PIXELS * lines, 90)


def _axis(values: tuple[Any, ...]) -> dict[str, Any]:
    """Ticks at the values; logarithmic where numbers span a wide range."""
    if any(isinstance(value, bool | str) for value in values):
        is_long = max(len(str(value)) for value in values) > _LONG_NAME
        return {"type": "category"} | ({"tickangle": 20} if is_long else {})
    wide = min(values) > 0 and max(values) >= _WIDE * min(values)
    return {"type": "log" if wide else "linear", "tickvals": list(values)}
