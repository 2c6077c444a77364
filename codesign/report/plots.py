"""Plots of a search: the front, and how much of it was found when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codesign.evaluation.objective import Objective
from codesign.evaluation.objectives import ACCURACY
from codesign.study.result import StudyResult
from codesign.study.trial import Trial
from simulator.pages.figures import INK, finished

ACCENT = "#d1495b"
_AXIS_HEIGHT = 520
_HYPERVOLUME_HEIGHT = 300


def pareto_figure(
    result: StudyResult,
    best: Trial | None,
    pages: Mapping[int, str] = MappingProxyType({}),
) -> go.Figure:
    """Every complete trial over two objectives, coloured by accuracy; the front stands out.

    Args:
        result: the search.
        best: the trial to point at, if any.
        pages: number of a trial -> address of its page, which a click on its point opens.
    """
    figure = go.Figure()
    axes = plane_of(result)
    _add_trials(figure, result, axes, pages)
    if result.start.values is not None:
        _add_mark(figure, axes, result.start, "star-diamond-open", start_name(result), "top center")
    if best is not None:
        _add_mark(figure, axes, best, "circle-open", "best found", "bottom center")
    knee = result.knee
    if knee is not None and knee is not best:
        _add_mark(figure, axes, knee, "square-open", "knee", "middle right")
    _add_baseline(figure, result, axes)
    figure.update_layout(
        template="none",
        height=_AXIS_HEIGHT,
        margin={"l": 10, "r": 10, "t": 60, "b": 50},
        coloraxis={
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": result.accuracy.axis, "side": "right"}, "thickness": 14},
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
    for objective, update in zip(axes, (figure.update_xaxes, figure.update_yaxes), strict=True):
        update(
            title={"text": objective.axis, "font": {"size": 13}},
            automargin=True,
            **axis_of(result, objective),
        )
    return figure


def plane_of(result: StudyResult) -> tuple[Objective, Objective]:
    """The two objectives that the front is drawn over: the first that are not the accuracy."""
    others = [each for each in result.objectives if each.name != ACCURACY]
    first, second = [*others, result.accuracy][:2]
    return first, second


def trial_groups(result: StudyResult) -> dict[str, list[Trial]]:
    """Complete trials by what a legend calls them, those on the front last."""
    complete = result.of_state("complete")
    front = {trial.number for trial in result.front}
    return {
        "beaten by another trial": [t for t in complete if t.number not in front],
        "on the Pareto front": [t for t in complete if t.number in front],
    }


def trial_points(
    result: StudyResult, name: str, trials: Sequence[Trial], pages: Mapping[int, str]
) -> dict[str, Any]:
    """What a legend and a hover say of points of trials; each opens its trial's page."""
    return {
        "mode": "markers",
        "name": name,
        "meta": {"pages": [pages.get(trial.number) for trial in trials]},
        "customdata": [trial_text(result, trial) for trial in trials],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _add_trials(
    figure: go.Figure,
    result: StudyResult,
    axes: Sequence[Objective],
    pages: Mapping[int, str],
) -> None:
    """A point for each complete trial, those on the front above the others."""
    looks = ((8, 0.6, 0.5), (14, 1.0, 1.8))
    for (name, trials), look in zip(trial_groups(result).items(), looks, strict=True):
        size, opacity, edge = look
        figure.add_scatter(
            **_positions(axes, trials),
            opacity=opacity,
            marker={
                "size": size,
                "color": shown_values(trials, result.accuracy),
                "coloraxis": "coloraxis",
                "line": {"color": INK, "width": edge},
            },
            **trial_points(result, name, trials, pages),
        )


def _add_baseline(figure: go.Figure, result: StudyResult, axes: Sequence[Objective]) -> None:
    """The dense design of equal area, with a line across and one up through it."""
    x, y = (each.factor * result.baseline[each.name] for each in axes)
    told = ", ".join(f"{each.short} {each.told(result.baseline[each.name])}" for each in axes)
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers+text",
        name="dense, equal area of the start",
        text=["dense  "],
        textposition="bottom left",
        marker={"symbol": "x", "size": 12, "color": INK},
        hovertemplate=(
            "dense design with the area of the design that the search starts from<br>"
            f"{escape(told)}<extra></extra>"
        ),
    )
    dotted = {"color": INK, "width": 1, "dash": "dot"}
    figure.add_vline(x=x, line=dotted)
    figure.add_hline(y=y, line=dotted)


def axis_of(result: StudyResult, objective: Objective) -> dict[str, Any]:
    """Linear from zero; logarithmic, with round numbers, where costs span a wide range.

    Fractions, and what is below zero, have an axis of their own range.
    """
    values = [objective_value(trial, objective) for trial in result.of_state("complete")]
    values.append(result.baseline[objective.name])
    least, most = min(values), max(values)
    if objective.percent or least < 0:
        return {"type": "linear"}
    if objective.maximise or not least or most <= 8 * least:
        return {"type": "linear", "rangemode": "tozero"}
    return {"type": "log", "tickvals": _round_numbers(least, most), "tickformat": ",~r"}


def hypervolume_figure(result: StudyResult) -> go.Figure:
    """How much the front covers after each trial, from each reference point."""
    curves = {
        "all that is of interest": result.hypervolume,
        "better than the dense baseline": result.paying_hypervolume,
    }
    figure = make_subplots(rows=1, cols=2, subplot_titles=list(curves), horizontal_spacing=0.09)
    for place, curve in enumerate(curves.values(), start=1):
        figure.add_scatter(
            x=[trial.number + 1 for trial in result.trials],
            y=list(curve),
            mode="lines+markers",
            line={"shape": "hv", "color": "#4178be", "width": 2},
            marker={"size": 5},
            hovertemplate="after %{x} trials: %{y:.4~g}<extra></extra>",
            showlegend=False,
            row=1,
            col=place,
        )
        if not any(curve):  # an axis around nothing would reach below it
            figure.update_yaxes(range=[0, 1], row=1, col=place)
    figure.update_xaxes(title_text="trials")
    figure.update_yaxes(title_text="hypervolume", rangemode="tozero")
    return finished(figure, _HYPERVOLUME_HEIGHT, 40)


def start_name(result: StudyResult) -> str:
    """What the first trial is called."""
    return "paper's setting" if result.start.origin == "paper" else "usual setting"


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around a range of positive numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def objective_value(trial: Trial, objective: Objective) -> float:
    """A complete trial's value of an objective."""
    assert trial.values is not None, "only complete trials are plotted"
    return trial.values[objective.name]


def shown_values(trials: Sequence[Trial], objective: Objective) -> list[float]:
    """The values as an axis shows them."""
    return [objective.factor * objective_value(trial, objective) for trial in trials]


def _positions(axes: Sequence[Objective], trials: Sequence[Trial]) -> dict[str, list[float]]:
    return {axis: shown_values(trials, each) for axis, each in zip("xy", axes, strict=True)}


def _add_mark(
    figure: go.Figure, axes: Sequence[Objective], trial: Trial, symbol: str, name: str, place: str
) -> None:
    """A labelled ring around a trial."""
    figure.add_scatter(
        **_positions(axes, [trial]),
        mode="markers+text",
        name=name,
        text=[f"  {name}  "],
        textposition=place,
        textfont={"size": 14},
        marker={"symbol": symbol, "size": 22, "color": ACCENT, "line": {"width": 2.5}},
        hoverinfo="skip",
    )


def trial_text(result: StudyResult, trial: Trial) -> str:
    """What a trial is, in a few lines."""
    parameters = trial.parameters
    space = result.space
    choosing = set(space.choosing)
    reuse = ", ".join(
        f"{name} {setting}" for name, setting in space.reuse_texts(parameters).items()
    )
    hardware = [
        f"{name} {value}"
        for name, value in parameters.items()
        if name.rpartition(".")[0] not in choosing and not space.is_idle(name, parameters)
    ]
    lines = [
        f"trial {trial.number}",
        ", ".join(
            f"{each.short} {each.told(objective_value(trial, each))}" for each in result.objectives
        ),
        f"{space.reuse_heading}: {reuse}",
        *(", ".join(hardware[index : index + 3]) for index in range(0, len(hardware), 3)),
    ]
    return "<br>".join(escape(line) for line in lines)
