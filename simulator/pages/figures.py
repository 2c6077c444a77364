"""Plots of designs: where the time goes, what is busy, what moves, what takes energy and area.

Every function takes designs by their label on the page, each as `DesignReport.to_dict` describes
it, so that stored results plot like fresh ones. A block or part has the same colour everywhere.
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from accelerators import Accelerator
from accelerators.accelerator import described_parts
from simulator.results.names import LIMIT_NAMES, PART_NAMES, TRAFFIC_NAMES, limit_name
from simulator.timing.schedule import BLOCKS, LIMITS, with_own

Designs = Mapping[str, Mapping]

# Stand for the page's text and background colour, in light and in dark; the page puts them in.
INK = "rgb(1,2,3)"
PAPER = "rgb(3,2,1)"

_PARTS = Accelerator.parts()
LIMIT_COLOURS = {limit: _PARTS[limit].colour for limit in LIMITS}
PART_COLOURS = {name: part.colour for name, part in _PARTS.items()} | {"leakage": "#c3c7cd"}
TRAFFIC_COLOURS = {
    "inputs": LIMIT_COLOURS["activation_buffer"],
    "weights": LIMIT_COLOURS["weight_buffer"],
    "outputs": LIMIT_COLOURS["output_buffer"],
    "spilled_sums": LIMIT_COLOURS["cache"],
    "spilled_results": LIMIT_COLOURS["reconstructor"],
    "addresses": PART_COLOURS["address_list"],
    "kept_results": "#5d6b80",
    "references": PART_COLOURS["change_detector"],
    "new_references": "#3c6e4a",
    "marks": "#a9c9b1",
    "orders": "#6f8f9c",
    "pixels": PART_COLOURS["motion_estimator"],
    "stored_maps": PART_COLOURS["warper"],
    "moved_maps": "#d9b98c",
    "remembered_inputs": "#4f86a8",
    "remembered_sums": "#a3c4d6",
}

# Of what no unit here gives a colour, as of a class that was not imported.
UNKNOWN_COLOUR = "#9aa0a8"

# Of lines and points that are told apart by what they belong to.
LINE_COLOURS = ("#8b929c", "#4178be", "#2a9d84", "#b3589f", "#e08a3c")
LINE_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

# Layers that take less than this share of every design's cycles are plotted together.
_SMALL_SHARE = 0.02
_MOST_LAYERS = 10
_BAR_PIXELS = 46


def time_by_limit(designs: Designs) -> go.Figure:
    """Cycles per image of each design by the limit to blame; the pieces add up to all cycles."""
    cycles = _per_image(designs, "critical_cycles", 1)
    title = "cycles per image, by what holds them up"
    return _pieces(cycles, *_limits(designs), title, "cycles")


def busy_by_layer(designs: Designs) -> go.Figure:
    """Cycles per image in which each block works, beside the cycles that each layer takes."""
    columns = 2 if len(designs) in (2, 4) else min(3, len(designs))
    lines = -(-len(designs) // columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_yaxes="all",
        subplot_titles=list(designs),
        horizontal_spacing=0.04,
        vertical_spacing=0.32 / lines,
    )
    names = _plotted_layers(designs)
    called, colours = _limits(designs)
    blocks = with_own(BLOCKS, _told(designs, "busy_cycles"))
    for position, design in enumerate(designs.values()):
        place = {"row": position // columns + 1, "col": position % columns + 1}
        groups = _grouped(design, names, blocks)
        ticks = list(groups)
        for block in blocks:
            figure.add_bar(
                x=ticks,
                y=[group[block] for group in groups.values()],
                name=called[block],
                legendgroup=block,
                showlegend=position == 0,
                marker={"color": colours[block]},
                hovertemplate=(
                    f"%{{x}}: {called[block]} works %{{y:,.0f}} cycles per image<extra></extra>"
                ),
                **place,
            )
        figure.add_scatter(
            x=ticks,
            y=[group["cycles"] for group in groups.values()],
            mode="markers",
            name="time the layer takes",
            legendgroup="total",
            showlegend=position == 0,
            marker={
                "symbol": "line-ew",
                "size": 0.62 * 1000 / columns / len(ticks),
                "line": {"color": INK, "width": 2.5},
            },
            hovertemplate="%{x} takes %{y:,.0f} cycles per image<extra></extra>",
            **place,
        )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.08)
    figure.update_yaxes(title_text="cycles per image", col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(showgrid=False)
    return finished(figure, 130 + 240 * lines)


def energy_by_part(designs: Designs) -> go.Figure:
    """Energy per image of each design, stacked by the part that takes it."""
    energies = _per_image(designs, "energy_pj", 1e-6)
    return _pieces(energies, *_parts(designs), "energy in µJ per image", "µJ")


def area_by_part(designs: Designs) -> go.Figure:
    """Silicon area of each design, stacked by part; DRAM is outside the chip."""
    areas = {label: design["area_by_part_mm2"] for label, design in designs.items()}
    return _pieces(areas, *_parts(designs), "area in mm²", "mm²")


def _parts(designs: Designs) -> tuple[dict[str, str], dict[str, str]]:
    """Names and colours of the parts that designs have, those of their own units among them."""
    names, colours = dict(PART_NAMES), dict(PART_COLOURS)
    for design in designs.values():
        for name, part in described_parts(design["accelerator"]).items():
            names[name], colours[name] = part.words, part.colour
    return names, colours


def _limits(designs: Designs) -> tuple[dict[str, str], dict[str, str]]:
    """Names and colours of what may hold designs up, their own units among it."""
    names, colours = dict(LIMIT_NAMES), dict(LIMIT_COLOURS)
    for design in designs.values():
        parts = described_parts(design["accelerator"])
        for limit in _told({"": design}, "critical_cycles", "busy_cycles"):
            if limit not in LIMIT_NAMES:
                names[limit] = limit_name(limit, design["accelerator"])
                colours[limit] = parts[limit].colour if limit in parts else UNKNOWN_COLOUR
    return names, colours


def _told(designs: Designs, *tables: str) -> dict[str, None]:
    """The names in some tables of designs, each once."""
    return dict.fromkeys(
        name for design in designs.values() for table in tables for name in design[table]
    )


def traffic_by_kind(designs: Designs) -> go.Figure:
    """KiB per image that each design moves to and from the DRAM, stacked by what they are."""
    moved = _per_image(designs, "dram_bytes", 1 / 1024)
    own = [kind for kind in _told(designs, "dram_bytes") if kind not in TRAFFIC_NAMES]
    names = TRAFFIC_NAMES | {kind: kind.replace("_", " ") for kind in own}
    colours = TRAFFIC_COLOURS | dict.fromkeys(own, UNKNOWN_COLOUR)
    return _pieces(moved, names, colours, "DRAM traffic in KiB per image", "KiB")


def _per_image(designs: Designs, key: str, unit: float) -> dict[str, dict[str, float]]:
    """Label -> the pieces of what a design has under `key`, in a unit, for one image."""
    return {
        label: {name: amount * unit / design["images"] for name, amount in design[key].items()}
        for label, design in designs.items()
    }


def _pieces(
    values: Mapping[str, Mapping[str, float]],
    names: Mapping[str, str],
    colours: Mapping[str, str],
    title: str,
    unit: str,
) -> go.Figure:
    """A stacked bar for each label, with a piece for each name that any label has."""
    labels = [f"{label}  " for label in values]  # room between a label and its bar
    figure = go.Figure()
    for key, name in names.items():
        amounts = [value.get(key, 0.0) for value in values.values()]
        if not any(amounts):
            continue
        figure.add_bar(
            y=labels,
            x=amounts,
            orientation="h",
            name=name,
            marker={"color": colours[key], "line": {"color": PAPER, "width": 1}},
            hovertemplate=f"{name}: %{{x:,.3~g}} {unit}<extra></extra>",
        )
    totals = [sum(value.values()) for value in values.values()]
    _add_totals(figure, labels, totals, [_amount(total, unit) for total in totals])
    return _stacked(figure, title, len(labels))


def _amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:#.3g} {unit}"


def _add_totals(
    figure: go.Figure, labels: Sequence[str], totals: Sequence[float], texts: Sequence[str]
) -> None:
    """Write each bar's total beside its end."""
    figure.add_scatter(
        y=labels,
        x=totals,
        mode="text",
        text=[f"  {text}" for text in texts],
        textposition="middle right",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(range=[0, 1.2 * max(totals)])


def _stacked(figure: go.Figure, title: str, bars: int) -> go.Figure:
    figure.update_layout(
        barmode="stack",
        bargap=0.3,
        uniformtext={"minsize": 10, "mode": "hide"},
        hovermode="closest",
    )
    figure.update_xaxes(title_text=title)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return finished(figure, 140 + _BAR_PIXELS * bars)


def finished(figure: go.Figure, height: int, top: int = 70) -> go.Figure:
    """A figure with the margins and the legend of all plots; heights are in pixels."""
    figure.update_layout(
        height=height,
        template="none",
        margin={"l": 10, "r": 10, "t": top, "b": 50},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "xref": "container",
            "traceorder": "normal",
        },
    )
    figure.update_xaxes(automargin=True, title_font_size=13)
    figure.update_yaxes(automargin=True, title_font_size=13)
    figure.update_annotations(font_size=14)  # titles of panels
    return figure


def _plotted_layers(designs: Designs) -> list[str]:
    """Layers large enough in some design to be plotted on their own, in the order they run."""
    shares: dict[str, float] = {}
    for design in designs.values():
        for layer in design["layers"]:
            share = layer["cycles"] / design["cycles"]
            shares[layer["layer"]] = max(share, shares.get(layer["layer"], 0.0))
    largest = sorted(shares, key=lambda name: -shares[name])[:_MOST_LAYERS]
    return [name for name in shares if name in largest and shares[name] >= _SMALL_SHARE]


def _grouped(
    design: Mapping, names: Sequence[str], blocks: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Layer -> cycles per image of each block and of the layer; the small ones as one."""
    rest = [layer for layer in design["layers"] if layer["layer"] not in names]
    groups = {layer["layer"]: [layer] for layer in design["layers"] if layer["layer"] in names}
    if rest:
        groups[f"{len(rest)} small" if len(rest) > 1 else rest[0]["layer"]] = rest
    return {
        label: {
            block: sum(layer["busy_cycles"].get(block, 0) for layer in layers) / design["images"]
            for block in blocks
        }
        | {"cycles": sum(layer["cycles"] for layer in layers) / design["images"]}
        for label, layers in groups.items()
    }
