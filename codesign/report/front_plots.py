"""Further plots of a search's front: projections, the front in space, parameters, importance."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codesign.report.plots import (
    ACCENT,
    energy_axis,
    objective_value,
    page_links,
    trial_groups,
    trial_text,
)
from codesign.report.tables import parameter_name
from codesign.space.parameters import Parameter
from codesign.study.trials import OBJECTIVES, StudyResult, Trial
from simulator.pages.figures import INK, LINE_COLOURS, finished

# Beside the objectives; more would not be told apart on a page.
PARALLEL_PARAMETERS = 9
_BARS = 12
# A layer's parameters where there is little room.
_SHORT = {"reuse": "reuse", "hashes": "H", "length": "L"}
# Of the plot in space: from the side of fast, accurate and frugal designs, all axes in sight.
_CAMERA = {"eye": {"x": 1.4, "y": 1.4, "z": 0.55}, "center": {"x": 0, "y": 0, "z": -0.2}}
_GREY = LINE_COLOURS[0]
# Objective -> title of an axis, and what its values are multiplied by.
_AXES = {
    "speedup": ("speed, × dense of equal area", 1.0),
    "energy_uj_per_image": ("energy, µJ per image", 1.0),
    "accuracy": ("{quality}", 100.0),
}


def _values(trials: Sequence[Trial], name: str) -> list[float]:
    return [_AXES[name][1] * objective_value(trial, name) for trial in trials]


def projections_figure(result: StudyResult, quality: str, pages: Mapping[int, str]) -> go.Figure:
    """Accuracy over speed and over energy; a line joins what nothing beats in the two.

    Args:
        result: the search, with a complete trial.
        quality: what the accuracy is, a word with its unit.
        pages: number of a trial -> address of its page.
    """
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    for place, (name, sign) in enumerate((("speedup", 1), ("energy_uj_per_image", -1)), start=1):
        steps = _staircase(result.front, name, sign)
        figure.add_scatter(
            x=[x for x, _ in steps],
            y=[y for _, y in steps],
            mode="lines",
            line={"shape": "vh", "color": ACCENT, "width": 1.5, "dash": "dot"},
            name="best of these two alone",
            showlegend=place == 1,
            hoverinfo="skip",
            row=1,
            col=place,
        )
        for (label, trials), colour, size in zip(
            trial_groups(result).items(), (_GREY, ACCENT), (7, 11), strict=True
        ):
            figure.add_scatter(
                x=_values(trials, name),
                y=_values(trials, "accuracy"),
                mode="markers",
                name=label,
                legendgroup=label,
                showlegend=place == 1,
                marker={"size": size, "color": colour, "opacity": 0.8},
                meta=page_links(trials, pages),
                customdata=[trial_text(result, trial, quality) for trial in trials],
                hovertemplate="%{customdata}<extra></extra>",
                row=1,
                col=place,
            )
        figure.add_scatter(
            x=[result.baseline[name]],
            y=[100 * result.baseline["accuracy"]],
            mode="markers",
            name="dense, equal area of the start",
            showlegend=place == 1,
            marker={"symbol": "x", "size": 11, "color": INK},
            hovertemplate="dense design with the area of the start: %{x:,.3~g}<extra></extra>",
            row=1,
            col=place,
        )
        figure.update_xaxes(title_text=_AXES[name][0], row=1, col=place)
    figure.update_yaxes(title_text=quality, row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    figure.update_xaxes(**energy_axis(result), row=1, col=2)
    return finished(figure, 400, 50)


def _staircase(front: Sequence[Trial], name: str, sign: int) -> list[tuple[float, float]]:
    """Points of a front of accuracy and one other objective, from the best of that one on."""
    corners: list[tuple[float, float]] = []
    pairs = zip(_values(front, name), _values(front, "accuracy"), strict=True)
    for x, y in sorted(pairs, key=lambda pair: (-sign * pair[0], -pair[1])):
        if not corners or y > corners[-1][1]:
            corners.append((x, y))
    return corners


def space_figure(result: StudyResult, quality: str, pages: Mapping[int, str]) -> go.Figure:
    """Every complete trial over all three objectives, to be turned by hand.

    Args:
        result: the search, with a complete trial.
        quality: what the accuracy is, a word with its unit.
        pages: number of a trial -> address of its page.
    """
    figure = go.Figure()
    for (label, trials), colour, size in zip(
        trial_groups(result).items(), (_GREY, ACCENT), (4, 6), strict=True
    ):
        figure.add_scatter3d(
            **{axis: _values(trials, name) for axis, name in zip("xyz", _AXES, strict=True)},
            mode="markers",
            name=label,
            marker={"size": size, "color": colour, "opacity": 0.9},
            meta=page_links(trials, pages),
            customdata=[trial_text(result, trial, quality) for trial in trials],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.add_scatter3d(
        **{
            axis: [scale * result.baseline[name]]
            for axis, (name, (_, scale)) in zip("xyz", _AXES.items(), strict=True)
        },
        mode="markers",
        name="dense, equal area of the start",
        marker={"size": 5, "color": INK, "symbol": "diamond"},
        hovertemplate="dense design with the area of the start<extra></extra>",
    )
    axes = {
        f"{axis}axis": {
            "title": {"text": title.format(quality=quality), "font": {"size": 12}},
            "tickfont": {"size": 11},
        }
        for axis, (title, _) in zip("xyz", _AXES.values(), strict=True)
    }
    axes["yaxis"] |= {
        key: value for key, value in energy_axis(result).items() if key != "rangemode"
    }
    figure.update_layout(
        scene={**axes, "camera": _CAMERA, "aspectmode": "cube"},
    )
    return finished(figure, 500, 40)


def parallel_figure(result: StudyResult, quality: str, names: Sequence[str]) -> go.Figure:
    """A line for each complete trial through its objectives and parameters; the front stands out.

    Args:
        result: the search, with at least two complete trials.
        quality: what the accuracy is, a word with its unit.
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
    for name, (title, _) in _AXES.items():
        words = title.format(quality=quality).split(" (")[0]
        dimensions.append({"label": words.split(",")[0], "values": _values(trials, name)})
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
    shown = {True: "yes", False: "no"}
    return {
        "label": words,
        "values": [parameter.choices.index(t.parameters[parameter.name]) for t in trials],
        "range": [0, len(parameter.choices) - 1],
        "tickvals": list(range(len(parameter.choices))),
        "ticktext": [
            shown[choice] if isinstance(choice, bool) else str(choice)
            for choice in parameter.choices
        ],
    }


def importance_figure(
    result: StudyResult, shares: Mapping[str, Mapping[str, float] | None], quality: str
) -> go.Figure:
    """A panel for each objective that has shares, a bar for each parameter.

    Args:
        result: the search.
        shares: see `codesign.report.importance.parameter_importance`; one at least is not `None`.
        quality: what the accuracy is, a word with its unit.
    """
    known = {name: share for name, share in shares.items() if share is not None}
    names = ranked_parameters(shares)[:_BARS]
    labels = [parameter_name(result, name)[0] for name in names]
    titles = {"speedup": "speed", "energy_uj_per_image": "energy", "accuracy": quality.lstrip("% ")}
    figure = make_subplots(
        rows=1,
        cols=len(known),
        shared_yaxes=True,
        subplot_titles=[titles[name].split(" (")[0] for name in known],
        horizontal_spacing=0.03,
    )
    colours = dict(zip((o.name for o in OBJECTIVES), LINE_COLOURS[1:], strict=False))
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
