"""The roofline of designs: what array and memory allow, and where each layer lies below."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from simulator.pages.figures import LINE_COLOURS, LINE_DASHES, Designs, finished
from simulator.results.names import limit_name

_HEIGHT_PIXELS, _LEGEND_PIXELS = 490, 64  # the legend: of each three designs


def roofline(designs: Designs) -> go.Figure:
    """Every layer of every design below the roofs of its design, on logarithmic axes.

    The x axis is work over traffic, the y axis work over time; the unit of work is a
    multiply-accumulate (MAC). Roofs are the array's peak, rows x columns MACs a cycle, and the
    DRAM's bandwidth times x. A layer under reuse has two points, joined by a line: the filled one
    counts the MACs of the dense layer that it replaces and may lie above the array's peak, which
    is what reuse is for; the open one counts the MACs that the array really did and may not.
    Neither may lie above the bandwidth's roof, as the traffic is real in both.

    Args:
        designs: label -> a design as `DesignReport.to_dict` describes it.
    """
    figure = go.Figure()
    points = {label: _points(design) for label, design in designs.items()}
    every = [x for found in points.values() for point in found for x in point["x"]]
    ridges = [_peak(design) / _bandwidth(design) for design in designs.values()]
    lowest = min(every + ridges, default=1.0) / 3
    highest = max(every + ridges, default=1.0) * 3
    rates = [y for found in points.values() for point in found for y in point["y"]]
    rates += [_peak(design) for design in designs.values()]
    for number, (label, design) in enumerate(designs.items()):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        dash = LINE_DASHES[number % len(LINE_DASHES)]
        _add_roof(figure, label, design, (lowest, highest), colour, dash)
        _add_points(figure, label, points[label], colour)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(
        type="log",
        title_text="MACs per DRAM byte (filled: of the dense layer; open: that the array did)",
        range=np.log10([lowest, highest]).tolist(),
    )
    figure.update_yaxes(
        type="log",
        title_text="MACs per cycle (filled: dense-equivalent; open: done)",
        range=np.log10([min(rates, default=1.0) / 3, max(rates, default=1.0) * 3]).tolist(),
    )
    legend = _LEGEND_PIXELS * -(-len(designs) // 3)
    return finished(figure, _HEIGHT_PIXELS + legend, 20 + legend)


def _peak(design: Mapping) -> int:
    """MACs that the array does a cycle at most."""
    array = design["accelerator"]["array"]
    return array["rows"] * array["columns"]


def _bandwidth(design: Mapping) -> float:
    """Bytes that the DRAM moves a cycle."""
    return design["accelerator"]["dram"]["bandwidth_bytes_per_cycle"]


def _points(design: Mapping) -> list[dict]:
    """Each layer's dense-equivalent point and, where it differs, its real one."""
    points = []
    for layer in design["layers"]:
        moved = sum(layer["dram_bytes"].values())
        dense = layer["count"] * layer["m"] * layer["n"] * layer["k"]
        works = [dense] if layer["macs"] == dense else [dense, layer["macs"]]
        # A stream's layer may find all its results in the table; logarithms have no zero.
        works = [work for work in works if work]
        points.append(
            {
                "layer": layer["layer"],
                "x": [work / moved for work in works],
                "y": [work / layer["cycles"] for work in works],
                "bound_by": limit_name(layer["bound_by"], design["accelerator"]),
                "reuse": layer["remaining_ratio"] is not None,
            }
        )
    return points


def _add_roof(
    figure: go.Figure,
    label: str,
    design: Mapping,
    ends: tuple[float, float],
    colour: str,
    dash: str,
) -> None:
    """The lower of bandwidth and peak; beyond the ridge the bandwidth's roof goes on, thin."""
    peak, bandwidth = _peak(design), _bandwidth(design)
    ridge = peak / bandwidth
    x = [ends[0], ridge, ends[1]]
    figure.add_scatter(
        x=x,
        y=[min(peak, bandwidth * each) for each in x],
        mode="lines",
        name=f"{label}: roofs",
        legendgroup=label,
        line={"color": colour, "width": 2, "dash": dash},
        hovertemplate=(
            f"{label}: {peak:,} MACs per cycle, {bandwidth:g} bytes per cycle<extra></extra>"
        ),
    )
    if any(layer["remaining_ratio"] is not None for layer in design["layers"]):
        figure.add_scatter(
            x=[ridge, ends[1]],
            y=[peak, bandwidth * ends[1]],
            mode="lines",
            legendgroup=label,
            showlegend=False,
            line={"color": colour, "width": 1, "dash": "dot"},
            hovertemplate=f"{label}: bandwidth, the roof of reused work<extra></extra>",
        )


def _add_points(figure: go.Figure, label: str, points: list[dict], colour: str) -> None:
    """A design's layers; those under reuse as diamonds, joined to what the array really did."""
    for point in points:
        if len(point["x"]) > 1:
            figure.add_scatter(
                x=point["x"],
                y=point["y"],
                mode="lines",
                legendgroup=label,
                showlegend=False,
                hoverinfo="skip",
                line={"color": colour, "width": 1},
            )
    reused = any(len(point["x"]) > 1 for point in points)
    # Filled, then open.
    for place, meaning in ((0, "dense-equivalent MACs" if reused else "MACs"), (1, "MACs done")):
        chosen = [point for point in points if len(point["x"]) > place]
        if not chosen:
            continue
        forms = ["diamond" if point["reuse"] else "circle" for point in chosen]
        figure.add_scatter(
            x=[point["x"][place] for point in chosen],
            y=[point["y"][place] for point in chosen],
            mode="markers",
            name=f"{label}: {meaning}",
            legendgroup=label,
            marker={
                "color": colour,
                "size": 10,
                "symbol": [form + "-open" * place for form in forms],
            },
            customdata=[[point["layer"], point["bound_by"]] for point in chosen],
            hovertemplate=(
                f"{label}, %{{customdata[0]}}<br>%{{y:,.3~g}} {meaning} per cycle<br>"
                "%{x:,.3~g} per DRAM byte<br>bound by the %{customdata[1]}<extra></extra>"
            ),
        )
