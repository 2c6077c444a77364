"""Plots of a search: the front, and how much of it was found when."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from codesign.trials import StudyResult, Trial
from simulator.report.figures import INK

_ACCENT = "#d1495b"
_AXIS_HEIGHT = 520
_HYPERVOLUME_HEIGHT = 300


def pareto_figure(result: StudyResult, best: Trial | None, quality: str) -> go.Figure:
    """Energy over speed of every complete trial, coloured by accuracy; the front stands out.

    Args:
        result: the search.
        best: the trial to point at, if any.
        quality: what the colour means, a word with its unit.
    """
    figure = go.Figure()
    _add_trials(figure, result, quality)
    if result.start.values is not None:
        _add_mark(figure, result.start, "star-diamond-open", start_name(result), "top center")
    if best is not None:
        _add_mark(figure, best, "circle-open", "best found", "bottom center")
    _add_baseline(figure, result.baseline)
    figure.update_layout(
        template="none",
        height=_AXIS_HEIGHT,
        margin={"l": 10, "r": 10, "t": 60, "b": 50},
        coloraxis={
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": quality, "side": "right"}, "thickness": 14},
        },
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1,
            "xref": "container",
            "yref": "container",
            "yanchor": "top",
        },
    )
    figure.update_xaxes(
        title={"text": "speed, × a dense design of equal area", "font": {"size": 13}},
        rangemode="tozero",
        automargin=True,
    )
    figure.update_yaxes(
        title={"text": "energy, µJ per image", "font": {"size": 13}},
        automargin=True,
        **_energy_axis(result),
    )
    return figure


def _add_trials(figure: go.Figure, result: StudyResult, quality: str) -> None:
    """A point for each complete trial, those on the front above the others."""
    complete = result.of_state("complete")
    front = {trial.number for trial in result.front}
    groups = (
        ("beaten by another trial", [t for t in complete if t.number not in front], 8, 0.6, 0.5),
        ("on the Pareto front", [t for t in complete if t.number in front], 14, 1.0, 1.8),
    )
    for name, trials, size, opacity, edge in groups:
        figure.add_scatter(
            **_positions(trials),
            mode="markers",
            name=name,
            opacity=opacity,
            marker={
                "size": size,
                "color": [100 * _value(trial, "accuracy") for trial in trials],
                "coloraxis": "coloraxis",
                "line": {"color": INK, "width": edge},
            },
            customdata=[_hover(result, trial, quality) for trial in trials],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _add_baseline(figure: go.Figure, baseline: Mapping[str, float]) -> None:
    """The dense design of equal area, with a line across and one up through it."""
    figure.add_scatter(
        x=[baseline["speedup"]],
        y=[baseline["energy_uj_per_image"]],
        mode="markers+text",
        name="dense, equal area of the start",
        text=["dense  "],
        textposition="bottom left",
        marker={"symbol": "x", "size": 12, "color": INK},
        hovertemplate=(
            "dense design with the area of the design that the search starts from<br>"
            "%{x:.2f}× speed, %{y:,.3~g} µJ per image<extra></extra>"
        ),
    )
    dotted = {"color": INK, "width": 1, "dash": "dot"}
    figure.add_vline(x=1, line=dotted)
    figure.add_hline(y=baseline["energy_uj_per_image"], line=dotted)


def _energy_axis(result: StudyResult) -> dict[str, Any]:
    """Linear from zero; logarithmic, with round numbers, where energies span a wide range."""
    energies = [_value(trial, "energy_uj_per_image") for trial in result.of_state("complete")]
    energies.append(result.baseline["energy_uj_per_image"])
    least, most = min(energies), max(energies)
    if most <= 8 * least:
        return {"type": "linear", "rangemode": "tozero"}
    return {"type": "log", "tickvals": _round_numbers(least, most), "tickformat": ",~r"}


def hypervolume_figure(result: StudyResult) -> go.Figure:
    """How much the front covers after each trial."""
    figure = go.Figure()
    figure.add_scatter(
        x=[trial.number + 1 for trial in result.trials],
        y=list(result.hypervolume),
        mode="lines+markers",
        line={"shape": "hv", "color": "#4178be", "width": 2},
        marker={"size": 5},
        hovertemplate="after %{x} trials: %{y:.3f}<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(
        template="none",
        height=_HYPERVOLUME_HEIGHT,
        margin={"l": 10, "r": 10, "t": 20, "b": 50},
    )
    figure.update_xaxes(title={"text": "trials", "font": {"size": 13}}, automargin=True)
    figure.update_yaxes(
        title={"text": "hypervolume", "font": {"size": 13}}, rangemode="tozero", automargin=True
    )
    return figure


def start_name(result: StudyResult) -> str:
    """What the first trial is called."""
    return "paper's setting" if result.start.origin == "paper" else "usual setting"


def layer_settings(result: StudyResult, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Layer -> `H/L`, hashes and length of its sub-vectors, or `dense`."""
    chosen = result.space.reuse_of(parameters)
    return {
        layer: f"{chosen[layer]['hashes']}/{chosen[layer]['length']}"
        if layer in chosen
        else "dense"
        for layer in result.space.layers
    }


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around a range of positive numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def _value(trial: Trial, name: str) -> float:
    assert trial.values is not None, "only complete trials are plotted"
    return trial.values[name]


def _positions(trials: Sequence[Trial]) -> dict[str, list[float]]:
    return {
        "x": [_value(trial, "speedup") for trial in trials],
        "y": [_value(trial, "energy_uj_per_image") for trial in trials],
    }


def _add_mark(figure: go.Figure, trial: Trial, symbol: str, name: str, place: str) -> None:
    """A labelled ring around a trial."""
    figure.add_scatter(
        **_positions([trial]),
        mode="markers+text",
        name=name,
        text=[f"  {name}  "],
        textposition=place,
        textfont={"size": 14},
        marker={"symbol": symbol, "size": 22, "color": _ACCENT, "line": {"width": 2.5}},
        hoverinfo="skip",
    )


def _hover(result: StudyResult, trial: Trial, quality: str) -> str:
    """What a trial is, in a few lines."""
    parameters = trial.parameters
    layers = set(result.space.layers)
    reuse = ", ".join(
        f"{layer} {setting}" for layer, setting in layer_settings(result, parameters).items()
    )
    hardware = [
        f"{name} {value}"
        for name, value in parameters.items()
        if name.rpartition(".")[0] not in layers
    ]
    lines = [
        f"trial {trial.number}",
        f"{_value(trial, 'speedup'):.2f}× speed, "
        f"{_value(trial, 'energy_uj_per_image'):,.1f} µJ per image, "
        f"{100 * _value(trial, 'accuracy'):.1f} {quality}",
        f"hashes/length: {reuse}",
        *(", ".join(hardware[index : index + 3]) for index in range(0, len(hardware), 3)),
    ]
    return "<br>".join(escape(line) for line in lines)


__all__ = [
    "hypervolume_figure",
    "layer_settings",
    "pareto_figure",
    "start_name",
]
