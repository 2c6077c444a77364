"""Plots of similarity: between inputs, and by layer (Treasure What You Have, Fig. 1 and Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from simulator.analysis.similarity import LayerSimilarity
from simulator.pages.figures import LINE_COLOURS, finished

# More layer names than these cannot be read below a plot.
_MOST_NAMES = 80
_SYMBOLS = {"conv": "circle", "conv_transpose": "circle-open", "linear": "square"}
_OTHER_SYMBOL = "diamond"  # products of activations: attention


def measure_name(*, centred: bool) -> str:
    """What the plots and tables show."""
    return "correlation" if centred else "cosine similarity"


def inputs_figure(similarity: np.ndarray, *, centred: bool = False) -> go.Figure:
    """Every input against every other.

    Args:
        similarity: `(n, n)` of `simulator.input_similarity`.
        centred: whether the inputs lost their means.
    """
    measure = measure_name(centred=centred)
    # Hundredths in bytes: a thousand images are a megabyte, not eight.
    hundredths = np.rint(100 * np.nan_to_num(similarity)).astype(np.int8)
    lowest = min(0, int(hundredths.min()))
    ticks = [lowest, *range(0 if lowest < -10 else 20, 101, 20)]
    figure = go.Figure(
        go.Heatmap(
            z=hundredths,
            zmin=lowest,
            zmax=100,
            colorscale="Cividis",
            colorbar={
                "title": {"text": measure, "side": "right"},
                "tickvals": ticks,
                "ticktext": [f"{tick / 100:g}" for tick in ticks],
            },
            hovertemplate=f"images %{{y}} and %{{x}}: {measure} %{{z}} %<extra></extra>",
        )
    )
    step = max(1, len(similarity) // 8)
    figure.update_xaxes(title_text="image", constrain="domain", dtick=step)
    figure.update_yaxes(
        title_text="image",
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        dtick=step,
    )
    return finished(figure, 480, 20)


def distance_figure(
    means: Mapping[str, Sequence[float] | np.ndarray], *, centred: bool = False
) -> go.Figure:
    """Mean similarity against how far apart two inputs lie in their stream.

    Args:
        means: data set -> `simulator.similarity_by_distance` of it.
        centred: whether the inputs lost their means.
    """
    figure = go.Figure()
    for number, (name, values) in enumerate(means.items()):
        colour = LINE_COLOURS[(number + 1) % len(LINE_COLOURS)]
        figure.add_scatter(
            x=np.arange(1, len(values) + 1),
            y=np.asarray(values),
            name=name,
            showlegend=len(means) > 1,
            mode="lines+markers" if len(values) < 40 else "lines",
            line={"color": colour, "width": 2},
            hovertemplate=f"{name}: %{{x}} apart, %{{y:.3f}}<extra></extra>",
        )
    longest = max((len(values) for values in means.values()), default=1)
    figure.update_xaxes(
        title_text="how far apart the two images are in the stream", dtick=max(1, longest // 8)
    )
    figure.update_yaxes(title_text=f"mean {measure_name(centred=centred)}")
    return finished(figure, 300, 40)


def layers_figure(
    layers: Sequence[LayerSimilarity],
    removed: Mapping[str, float | None] | None = None,
    *,
    centred: bool = False,
) -> go.Figure:
    """Similarity of the rows of each layer, in the order the layers run.

    Args:
        layers: of `simulator.layer_similarity`.
        removed: layer name -> share of sub-vectors that reuse did not multiply, to go with them.
        centred: whether the rows lost their means.
    """
    names = [each.layer for each in layers]
    symbols = [_SYMBOLS.get(each.kind, _OTHER_SYMBOL) for each in layers]
    series: dict[str, list[float | None]] = {
        "two positions of one image": [each.within_image for each in layers],
        "same position, next image": [each.next_image for each in layers],
    }
    if removed is not None:
        series["share removed by this reuse"] = [removed.get(name) for name in names]
    figure = go.Figure()
    for (name, values), colour, dash in zip(
        series.items(), LINE_COLOURS[1:], ("solid", "solid", "dot"), strict=False
    ):
        if all(value is None for value in values):
            continue
        figure.add_scatter(
            x=names,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dash},
            marker={"symbol": symbols, "size": 8},
            customdata=[each.kind.replace("_", " ") for each in layers],
            hovertemplate=f"%{{x}} (%{{customdata}}), {name}: %{{y:.3f}}<extra></extra>",
        )
    figure.update_xaxes(
        title_text="layer, in the order they run",
        showticklabels=len(names) <= _MOST_NAMES,
        dtick=1,
        tickfont_size=min(13, 8 + 60 // len(names)),
    )
    figure.update_yaxes(title_text=f"mean {measure_name(centred=centred)}")
    return finished(figure, 440, 50)
