"""Further plots of a search's front: projections, the front in space, parameters, importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codesign.evaluation.objective import Objective
from codesign.evaluation.objectives import ACCURACY
from codesign.report.plots import (
    ACCENT,
    axis_of,
    plane_of,
    shown_values,
    trial_groups,
    trial_points,
)
from codesign.report.tables import choice_text, parameter_name
from codesign.space.parameters import Parameter
from codesign.study.result import StudyResult
from codesign.study.trial import Trial
from simulator.pages.figures import INK, LINE_COLOURS, finished

# Beside the objectives; more would not be told apart on a page.
PARALLEL_PARAMETERS = 9
_BARS = 12
# A layer's parameters where there is little room.
_SHORT = {"reuse": "reuse", "hashes": "H", "length": "L"}
# Of the plot in space: from the side of fast, accurate and frugal designs, all axes in sight.
_CAMERA = {"eye": {"x": 1.4, "y": 1.4, "z": 0.55}, "center": {"x": 0, "y": 0, "z": -0.2}}
_GREY = LINE_COLOURS[0]


def projections_figure(result: StudyResult, pages: Mapping[int, str]) -> go.Figure:
    """Accuracy over every other objective; a line joins what nothing beats in the two.

    Args:
        result: the search, with a complete trial.
        pages: number of a trial -> address of its page.
    """
    accuracy = result.accuracy
    others = [objective for objective in result.objectives if objective.name != ACCURACY]
    figure = make_subplots(
        rows=1, cols=len(others), shared_yaxes=True, horizontal_spacing=0.1 / len(others)
    )
    for place, objective in enumerate(others, start=1):
        panel = {"row": 1, "col": place}
        steps = _staircase(result.front, objective, accuracy)
        figure.add_scatter(
            x=[x for x, _ in steps],
            y=[y for _, y in steps],
            mode="lines",
            line={"shape": "vh", "color": ACCENT, "width": 1.5, "dash": "dot"},
            name="best of these two alone",
            showlegend=place == 1,
            hoverinfo="skip",
            **panel,
        )
        for (label, trials), colour, size in zip(
            trial_groups(result).items(), (_GREY, ACCENT), (7, 11), strict=True
        ):
            figure.add_scatter(
                x=shown_values(trials, objective),
                y=shown_values(trials, accuracy),
                legendgroup=label,
                showlegend=place == 1,
                marker={"size": size, "color": colour, "opacity": 0.8},
                **trial_points(result, label, trials, pages),
                **panel,
            )
        figure.add_scatter(
            x=[objective.factor * result.baseline[objective.name]],
            y=[accuracy.factor * result.baseline[ACCURACY]],
            mode="markers",
            name="dense, equal area of the start",
            showlegend=place == 1,
            marker={"symbol": "x", "size": 11, "color": INK},
            hovertemplate="dense design with the area of the start: %{x:,.3~g}<extra></extra>",
            **panel,
        )
        figure.update_xaxes(title_text=objective.axis, **axis_of(result, objective), **panel)
    figure.update_yaxes(title_text=accuracy.axis, row=1, col=1)
    return finished(figure, 400, 50)


def _staircase(
    front: Sequence[Trial], objective: Objective, accuracy: Objective
) -> list[tuple[float, float]]:
    """Points of a front of accuracy and one other objective, from the best of that one on."""
    corners: list[tuple[float, float]] = []
    sign = 1 if objective.maximise else -1
    pairs = zip(shown_values(front, objective), shown_values(front, accuracy), strict=True)
    for x, y in sorted(pairs, key=lambda pair: (-sign * pair[0], -pair[1])):
        if not corners or y > corners[-1][1]:
            corners.append((x, y))
    return corners


def space_figure(result: StudyResult, pages: Mapping[int, str]) -> go.Figure:
    """Every complete trial over the accuracy and the first two others, to be turned by hand.

    Args:
        result: the search of three objectives or more, with a complete trial.
        pages: number of a trial -> address of its page.
    """
    figure = go.Figure()
    shown = dict(zip("xyz", (*plane_of(result), result.accuracy), strict=True))
    for (label, trials), colour, size in zip(
        trial_groups(result).items(), (_GREY, ACCENT), (4, 6), strict=True
    ):
        figure.add_scatter3d(
            **{axis: shown_values(trials, objective) for axis, objective in shown.items()},
            marker={"size": size, "color": colour, "opacity": 0.9},
            **trial_points(result, label, trials, pages),
        )
    figure.add_scatter3d(
        **{axis: [each.factor * result.baseline[each.name]] for axis, each in shown.items()},
        mode="markers",
        name="dense, equal area of the start",
        marker={"size": 5, "color": INK, "symbol": "diamond"},
        hovertemplate="dense design with the area of the start<extra></extra>",
    )
    axes = {
        f"{axis}axis": {
            "title": {"text": objective.axis, "font": {"size": 12}},
            "tickfont": {"size": 11},
        }
        | {k: v for k, v in axis_of(result, objective).items() if k != "rangemode"}
        for axis, objective in shown.items()
    }
    figure.update_layout(
        scene={**axes, "camera": _CAMERA, "aspectmode": "cube"},
    )
    return finished(figure, 500, 40)


def parallel_figure(result: StudyResult, names: Sequence[str]) -> go.Figure:
    """A line for each complete trial through its objectives and parameters; the front stands out.

    Args:
        result: the search, with at least two complete trials.
        names: of the parameters shown.
    """
    trials = result.of_state("complete")
    front = {trial.number for trial in result.front}
    on_front = [int(trial.number in front) for trial in trials]
    dimensions: list[dict[str, Any]] = [
        {
            "label": "on the front",
            "values": on_front,
            "range": [0, 1],
            "tickvals": [0, 1],
            "ticktext": ["no", "yes"],
        }
    ]
    for objective in result.objectives:
        label = f"% {objective.short}" if objective.percent else objective.short
        dimensions.append({"label": label, "values": shown_values(trials, objective)})
    by_name = {parameter.name: parameter for parameter in result.space.parameters}
    dimensions += [_dimension(result, trials, by_name[name]) for name in names]
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": on_front,
                "cmin": 0,
                "cmax": 1,
                "colorscale": [[0, "#a3abb8"], [1, ACCENT]],
                "showscale": False,
            },
            labelangle=-28,
            labelfont={"size": 12},
            tickfont={"size": 11},
            unselected={"line": {"opacity": 0.06}},
        )
    )
    figure.update_layout(template="none", height=480, margin={"l": 50, "r": 140, "t": 120, "b": 30})
    return figure


def _dimension(
    result: StudyResult, trials: Sequence[Trial], parameter: Parameter
) -> dict[str, Any]:
    """A parameter's choices at equal distances."""
    layer, _, own = parameter.name.rpartition(".")
    is_of_layer = layer in result.space.layers and own in _SHORT
    words = f"{layer} {_SHORT[own]}" if is_of_layer else parameter_name(result, parameter.name)[0]
    return {
        "label": words,
        "values": [parameter.choices.index(t.parameters[parameter.name]) for t in trials],
        "range": [0, len(parameter.choices) - 1],
        "tickvals": list(range(len(parameter.choices))),
        "ticktext": [choice_text(choice) for choice in parameter.choices],
    }


def importance_figure(
    result: StudyResult, shares: Mapping[str, Mapping[str, float] | None]
) -> go.Figure:
    """A panel for each objective that has shares, a bar for each parameter.

    Args:
        result: the search.
        shares: see `codesign.report.importance.parameter_importance`; one at least is not `None`.
    """
    known = {name: share for name, share in shares.items() if share is not None}
    names = ranked_parameters(shares)[:_BARS]
    labels = [parameter_name(result, name)[0] for name in names]
    figure = make_subplots(
        rows=1,
        cols=len(known),
        shared_yaxes=True,
        subplot_titles=[each.short for each in result.objectives if each.name in known],
        horizontal_spacing=0.03,
    )
    names_in_order = (objective.name for objective in result.objectives)
    colours = dict(zip(names_in_order, cycle(LINE_COLOURS[1:]), strict=False))
    for place, (name, share) in enumerate(known.items(), start=1):
        figure.add_bar(
            x=[100 * share[each] for each in names],
            y=labels,
            orientation="h",
            marker={"color": colours[name]},
            showlegend=False,
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
            row=1,
            col=place,
        )
    figure.update_xaxes(title_text="% of the variance", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return finished(figure, 130 + 24 * len(names), 40)


def ranked_parameters(shares: Mapping[str, Mapping[str, float] | None]) -> list[str]:
    """Parameters by their largest share in any objective, the largest first."""
    largest: dict[str, float] = {}
    for share in shares.values():
        for name, value in (share or {}).items():
            largest[name] = max(value, largest.get(name, 0.0))
    return sorted(largest, key=lambda name: -largest[name])
