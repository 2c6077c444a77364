"""The page of `codesign compare`: a workload on boards beside it on accelerators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codesign.boards.comparison import Comparison
from codesign.boards.rows import (
    DERIVED,
    EQUAL_AREA,
    MEASURED,
    SAME_ARRAY,
    SIMULATED,
    ComparedRow,
)
from codesign.report.templates import TEMPLATES
from simulator.pages.cards import RATIOS_TEXT
from simulator.pages.facts import facts, workload_line
from simulator.pages.figures import INK, LIMIT_COLOURS, PAPER, finished
from simulator.pages.page import card, figure_html, render, versions
from simulator.results.tables import column, named, number, shown
from simulator.results.weights import headline_name
from workloads.writing import write_atomically

# What runs the workload -> its colour.
_COLOURS = {
    "board, dense": "#8b929c",
    "board, deep reuse in software": LIMIT_COLOURS["front_end"],
    "accelerator, dense": LIMIT_COLOURS["array"],
    "accelerator, with reuse": LIMIT_COLOURS["cache"],
}
# How far a number may be trusted -> how its bar is filled, and its marker.
_FILLS = {MEASURED: "", DERIVED: "x", "modelled": "/"}
_MARKERS = {MEASURED: "circle", DERIVED: "circle-x-open", "modelled": "circle-open"}
# Points of dense accelerators may be close; the one of equal area is never the slower.
_NAME_PLACES = {SAME_ARRAY: "middle right", EQUAL_AREA: "middle left"}
_BAR_PIXELS = 40

_BARS_CAPTION = (
    "One image; shorter is better. Each line of the grid is ten times the last, so compare where "
    "bars end, not their lengths. Solid bars were measured; crossed ones are "
    "measured latency times power, unverified; hatched ones are modelled: "
    "predicted for boards, simulated for accelerators. No bar: not known."
)
_POINTS_CAPTION = (
    "Energy against latency of one image; the lower left is better. Along a dotted line the "
    "energy-delay product is the same, and ten times less on the next one down. Filled markers: "
    "both numbers measured; crossed: energy from power times latency; open: modelled."
)


def write_comparison_html(
    comparison: Comparison, path: str | Path, command: str | None = None
) -> Path:
    """Write a page with plots and tables; `command` is named as what made it."""
    boards = list(dict.fromkeys(row.device for row in comparison.rows))[:-1]
    design = comparison.simulation.reuse.accelerator
    told: dict[str, Any] = {"command": command} if command else {}
    told |= {
        "measured rows named": comparison.network,
        "policy": comparison.simulation.policy,
        "made with": named(versions("numpy", "numba")),
    }
    context = {
        "kind": "Comparison of boards and accelerators",
        "title": f"{headline_name(comparison.workload)}: {', '.join(boards)} and {design.name}",
        "subtitle": workload_line(comparison.workload, comparison.images),
        "verdict": comparison.verdict,
        "verdict_more": comparison.simulation.verdict,
        "cards": _cards(comparison),
        "ratios_text": RATIOS_TEXT if design.has_reuse else "",
        "bars": figure_html(bars_figure(comparison.rows), "bars", _BARS_CAPTION),
        "points": figure_html(points_figure(comparison), "points", _POINTS_CAPTION),
        "columns": comparison.columns,
        "rows": comparison.table,
        "notes": comparison.notes,
        "source_columns": _SOURCE_COLUMNS,
        "source_rows": [
            {
                "name": row.name,
                "latency": row.latency_origin,
                "energy": f"{row.energy_origin}; {row.energy_of}" if row.energy_origin else None,
                "source": row.source,
                "note": row.note,
            }
            for row in comparison.rows
        ],
        "facts": facts(comparison.workload, design, told),
    }
    return write_atomically(path, render("compare.html", TEMPLATES, context))


_SOURCE_COLUMNS = [
    column("name", "Row", text=True),
    column("latency", "Latency is", text=True),
    column("energy", "Energy is, and of what", text=True),
    column("source", "Source of the latency", text=True),
    column("note", "To know", text=True),
]


def _cards(comparison: Comparison) -> list[dict[str, str]]:
    """The accelerator's numbers, each beside those of the boards."""
    reference, boards = comparison.reference, comparison.boards

    def of_boards(key: str, origin: str) -> str:
        told = []
        for device, row in boards.items():
            value = getattr(row, key)
            trust = f" ({getattr(row, origin)})" if value is not None else ""
            told.append(f"{device}{trust}: {shown(row.text(value))}")
        return "; ".join(told)

    numbers = (
        ("Latency", "latency_ms", "ms per image", "latency_origin"),
        ("Energy", "energy_mj", "mJ per image", "energy_origin"),
        ("Energy-delay product", "energy_delay_mj_ms", "mJ·ms per image", "energy_origin"),
        ("Images", "frames_per_second", "per second", "latency_origin"),
    )
    return [
        card(
            f"{name}, {reference.name}",
            number(getattr(reference, key)),
            unit,
            of_boards(key, origin),
        )
        for name, key, unit, origin in numbers
    ]


def _kind(row: ComparedRow) -> str:
    """What runs a row, a key of `_COLOURS`."""
    if row.latency_origin == SIMULATED:
        return "accelerator, with reuse" if row.reuse else "accelerator, dense"
    return "board, deep reuse in software" if row.reuse else "board, dense"


def _trust(origin: str) -> str:
    """How far a number may be trusted, a key of `_FILLS`."""
    return origin if origin in (MEASURED, DERIVED) else "modelled"


def bars_figure(rows: Sequence[ComparedRow]) -> go.Figure:
    """A bar for the latency and one for the energy of each row, on logarithmic axes."""
    panels = (
        ("latency_ms", "latency_origin", "latency, ms per image"),
        ("energy_mj", "energy_origin", "energy, mJ per image"),
    )
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.03)
    for place, (key, origin, title) in enumerate(panels, start=1):
        known = [row for row in rows if getattr(row, key) is not None]
        for kind, colour in _COLOURS.items():
            mine = [row for row in known if _kind(row) == kind]
            if not mine:
                continue
            figure.add_bar(
                y=[_label(row) for row in mine],
                x=[getattr(row, key) for row in mine],
                orientation="h",
                name=kind,
                legendgroup=kind,
                showlegend=place == 1,
                text=[f" {row.text(getattr(row, key))}" for row in mine],
                textposition="outside",
                cliponaxis=False,
                marker={
                    "color": colour,
                    "pattern": {
                        "shape": [_FILLS[_trust(getattr(row, origin))] for row in mine],
                        "fgcolor": PAPER,
                        "fillmode": "overlay",
                        "size": 7,
                    },
                },
                customdata=[[row.text(getattr(row, key)), getattr(row, origin)] for row in mine],
                hovertemplate=f"%{{y}}<br>{title}: %{{customdata[0]}}, %{{customdata[1]}}"
                "<extra></extra>",
                row=1,
                col=place,
            )
        values = [getattr(row, key) for row in known]
        figure.update_xaxes(title_text=title, col=place, **_log_axis(values))
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[_label(row) for row in rows][::-1],
        showgrid=False,
    )
    figure.update_layout(barmode="overlay", bargap=0.3)
    return finished(figure, 130 + _BAR_PIXELS * len(rows))


def _label(row: ComparedRow) -> str:
    """A row's name, with room between it and its bar."""
    return f"{row.name}  "


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis, with a line each power of ten and room for a bar's text."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = 0.12 * max(high - low, 1.0)
    return {
        "type": "log",
        "range": [math.floor(low - 0.3), high + 2 * room],
        "dtick": 1,
        "exponentformat": "power",
    }


def points_figure(comparison: Comparison) -> go.Figure:
    """Energy over latency on logarithmic axes, with lines of equal energy-delay product."""
    rows = [row for row in comparison.rows if row.energy_mj is not None]
    names = _point_names(comparison)
    figure = go.Figure()
    times = [row.latency_ms for row in rows]
    energies = [row.energy_mj or 0.0 for row in rows]
    reach = [min(times) / 4, max(times) * 4]
    ends = [min(energies) / 3, max(energies) * 3]
    low, high = (math.log10(a * b) for a, b in zip(reach, ends, strict=True))
    for power in range(math.ceil(low), math.floor(high) + 1):
        figure.add_scatter(
            x=reach,
            y=[10**power / time for time in reach],
            mode="lines",
            line={"color": INK, "width": 0.6, "dash": "dot"},
            opacity=0.5,
            hoverinfo="skip",
            showlegend=False,
        )
    for kind, colour in _COLOURS.items():
        mine = [row for row in rows if _kind(row) == kind]
        if mine:
            figure.add_scatter(
                x=[row.latency_ms for row in mine],
                y=[row.energy_mj for row in mine],
                mode="markers+text",
                name=kind,
                marker={
                    "color": colour,
                    "size": 13,
                    "line": {"color": colour, "width": 1.5},
                    "symbol": [_MARKERS[_trust(row.energy_origin)] for row in mine],
                },
                text=[f"  {names.get(row.name, '')}  " for row in mine],
                textposition=[_NAME_PLACES.get(row.how, "top center") for row in mine],
                customdata=[
                    [
                        row.text(row.energy_delay_mj_ms),
                        row.latency_origin,
                        row.energy_origin,
                        row.name,
                        row.text(row.latency_ms),
                        row.text(row.energy_mj),
                    ]
                    for row in mine
                ],
                hovertemplate="%{customdata[3]}<br>%{customdata[4]} ms, %{customdata[1]}<br>"
                "%{customdata[5]} mJ, %{customdata[2]}<br>%{customdata[0]} mJ·ms<extra></extra>",
            )
    for axis, ends_of, title in (
        (figure.update_xaxes, reach, "latency, ms per image"),
        (figure.update_yaxes, ends, "energy, mJ per image"),
    ):
        limits = [math.log10(end) for end in ends_of]
        axis(title_text=title, type="log", range=limits, dtick=1, exponentformat="power")
    return finished(figure, 480)


def _point_names(comparison: Comparison) -> dict[str, str]:
    """A row's name -> what stands beside its point; of a board's dense rows one has a name."""
    names = {row.name: device for device, row in comparison.boards.items()}
    for row in comparison.rows:
        if row.latency_origin == SIMULATED:
            names[row.name] = row.how
        elif row.reuse:
            names[row.name] = f"{row.device}, reuse in software"
    return names
