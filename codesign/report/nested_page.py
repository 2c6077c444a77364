"""The page and the tables of a nested search: what each layer's front holds."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from codesign.evaluation.layers import LAYER_OBJECTIVES
from codesign.report.templates import TEMPLATES
from codesign.study.layer_asking import logarithms
from codesign.study.nested import LayerFront, NestedResult
from codesign.study.trial import Trial
from simulator.pages.figures import LINE_COLOURS, finished
from simulator.pages.page import figure_html, render, versions
from simulator.results.tables import column, named
from workloads.writing import write_atomically

_ERROR, _COMPRESSION = LAYER_OBJECTIVES
_HEIGHT = 340
_COLUMNS = {
    "position": ("Position", "on the front"),
    "hashes": ("Hashes H", ""),
    "length": ("Length L", ""),
    "thresholds": ("Thresholds", ""),
    "order": ("Order", ""),
    _ERROR.name: ("Error", f"% {_ERROR.unit}"),
    _COMPRESSION.name: (_COMPRESSION.heading, f"×, {_COMPRESSION.unit}"),
}
_TEXT = ("thresholds", "order")
_ACQUISITIONS = {
    "logehvi": "expected hypervolume improvement (Optuna's GPSampler, logarithm)",
    "ei": "expected improvement of a weighted Chebyshev function, weights drawn anew (ParEGO)",
}
_CAPTION = (
    "Every point is a setting of this layer on its recorded activations. Right and down is better; "
    "the line joins those that no other beats. Compression is the layer's sub-vectors over those "
    "that are still multiplied, |X| / |X_c|: 1 is dense. Error is the mean squared error of the "
    "layer's result over the mean square of the dense one."
)


def front_columns(front: LayerFront) -> list[dict[str, Any]]:
    """Columns of a layer's table; what it has no choice of is left out."""
    chosen = {name for trial in front.front for name in trial.parameters}
    return [
        column(key, *words, text=key in _TEXT)
        for key, words in _COLUMNS.items()
        if key in chosen or key in ("position", "relative_mse", "compression")
    ]


def front_rows(front: LayerFront) -> list[dict[str, Any]]:
    """A row for each setting on the front, the most exact first."""
    return [
        {
            "position": position,
            **trial.parameters,
            "relative_mse": f"{_error_percent(trial):.3g}",
            "compression": f"{_compression(trial):.1f}",
        }
        for position, trial in enumerate(front.front, start=1)
    ]


def layer_figure(front: LayerFront) -> go.Figure:
    """Error over compression of every trial of a layer, both logarithmic."""
    figure = go.Figure()
    beaten = [t for t in front.trials if t.values and t not in front.front]
    for name, trials, mode, colour in (
        ("beaten by another", beaten, "markers", "#9aa0a6"),
        ("front", front.front, "lines+markers", LINE_COLOURS[1]),
    ):
        figure.add_scatter(
            x=[_compression(trial) for trial in trials],
            y=[_error_percent(trial) for trial in trials],
            mode=mode,
            name=name,
            marker={"size": 8, "color": colour},
            line={"color": colour, "width": 2},
            customdata=[_hover(trial) for trial in trials],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_xaxes(
        title_text=f"{_COMPRESSION.words}, ×", type="log", tickformat=",.3~r", dtick="D2"
    )
    figure.update_yaxes(
        title={"text": f"{_ERROR.words}, % of dense", "standoff": 12},
        type="log",
        tickformat=",.3~r",
        dtick="D2",
    )
    return finished(figure, _HEIGHT, 40)


def write_nested_html(result: NestedResult, path: str | Path, command: str | None = None) -> Path:
    """Write the page; `command` is named as what made it."""
    specification = result.specification
    told: dict[str, Any] = {"command": command} if command else {}
    told |= {
        "workload": specification["name"],
        "hyperplanes": specification["projection"],
        "acquisition": _ACQUISITIONS[specification["acquisition"]],
        "seed": specification["seed"],
        "made with": named(versions("numpy", "optuna")),
    }
    layers = [
        {
            "name": each.layer,
            "figure": figure_html(layer_figure(each), f"layer-{number}", _CAPTION),
            "columns": front_columns(each),
            "rows": front_rows(each),
            "failed": sum(trial.values is None for trial in each.trials),
        }
        for number, each in enumerate(result.layers)
    ]
    context = {
        "kind": "Nested search: each layer on its own",
        "title": specification["name"],
        "subtitle": f"{len(layers)} layers, {sum(len(x.trials) for x in result.layers)} settings",
        "verdict": verdict(result),
        "layers": layers,
        "facts": told,
    }
    return write_atomically(path, render("nested.html", TEMPLATES, context))


def verdict(result: NestedResult, error: float = 0.1) -> str:
    """How far each layer compresses at an error that is bearable.

    Args:
        result: the search.
        error: relative squared error that counts as bearable.
    """
    told = []
    for each in result.layers:
        if not each.front:
            continue
        bearable = [t for t in each.front if logarithms(t.values or {})[0] <= math.log10(error)]
        best = f"{_compression(bearable[-1]):.1f}×" if bearable else "not at all"
        told.append(f"{each.layer} {best}")
    layers = ", ".join(told)
    found = f"With a squared error of at most {100 * error:g} %, layers compress: {layers}."
    missing = f"No answer yet for {result.unanswered}." if result.unanswered else ""
    return f"{found if told else ''} {missing}".strip()


def _error_percent(trial: Trial) -> float:
    assert trial.values is not None, "only settings that did not fail are shown"
    return 100 * trial.values[_ERROR.name]


def _compression(trial: Trial) -> float:
    assert trial.values is not None, "only settings that did not fail are shown"
    return trial.values[_COMPRESSION.name]


def _hover(trial: Trial) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in trial.parameters.items())
    error, compression = _error_percent(trial), _compression(trial)
    return f"error {error:.3g} %, compression {compression:.1f}×<br>{settings}"
