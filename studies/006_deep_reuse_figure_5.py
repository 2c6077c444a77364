"""Deep Reuse's Fig. 5: how fast does the reuse rate R rise over 20 batches, and what does it cost?

Run it with `python studies/006_deep_reuse_figure_5.py [--cifar10 ARCHIVE --cifarnet WEIGHTS]`.
It prints tables and writes a figure to `studies/out/`. Both layers are reused at Table II's (H, L).

Answer, as printed on 2026-11-22 for 1,000 CIFAR-10 JPEGs with `--batches 20 --batch 50`, about four
minutes of processor time:
- The paper's rise from 0 to about 0.98 after 20 batches looks like the rate of *clusters*: 0.81,
  0.95 and 0.987 (conv1), 0.88, 0.97 and 0.996 (conv2) in batches 2, 5 and 20, plain hyperplanes.
  Of *rows*, the paper's words, 0.995 and 0.998 fall into old clusters in batch 2 already.
- A finite table of 4096 x 4 is nearly endless (0.980 in conv1), and for conv2 1024 x 1 is enough.
  conv1's signatures outgrow 1024 x 4: of rows 0.936 are reused, of clusters 0.54; r_c is 0.011, not
  0.0002. With centred +-1 hyperplanes, of which few differ at L=5, 1024 x 4 is as good as endless.
- Conflicts: 256 sets of 4 reuse about as much as 253 (0.936 and 0.946 of rows in conv1). Direct
  mapped, 1024 sets reuse less than 1012 (0.42 against 0.61, plain; 0.94 and 0.95 centred).
- Accuracy, mean of batches 2 to 20: kept clusters cost little beside batch scope, 0.257 against
  0.266 plain, 0.463 against 0.459 centred. What costs is the hashing itself, at the paper's (H, L)
  in both layers: dense is 0.689. The paper loses under 0.03 by cluster reuse, a layer at a time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from cifarnet_batches import Batches, load, options, write
from plotly.colors import qualitative
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from simulator import ClusterCache, LshReuse, PerLayer, ReuseRun, calibrate, decide, decide_stream

LAYERS = ("conv1", "conv2")
# The paper's hyperplanes (equation 1), and this project's default.
HASHINGS = {
    "plain Gaussian": {"thresholds": "zero", "projection": "int8"},
    "centred +-1": {"thresholds": "mean", "projection": "sign"},
}
# Entries x ways: the paper's table without end, and what hardware has. 1012 sets or 253 are no
# powers of two, and chosen by another function: they show what conflicts cost the powers of two.
TABLES = {
    "no end": ClusterCache(),
    "4096 x 4": ClusterCache(entries=4096, ways=4),
    "1024 x 4": ClusterCache(entries=1024, ways=4),
    "1012 x 4": ClusterCache(entries=1012, ways=4),
    "1024 x 1": ClusterCache(entries=1024, ways=1),
    "1012 x 1": ClusterCache(entries=1012, ways=1),
    "256 x 4": ClusterCache(entries=256, ways=4),
}
RATES: dict[str, Callable] = {
    "R of rows": lambda made: made.shared.reuse_rate,
    "R of clusters": lambda made: made.shared.cluster_reuse_rate,
}
PAPER = 0.98  # "around 0.98 after processing 20 batches", section V-A
BATCH_SCOPE = "batch scope"


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is kept of a batch's run; all decisions of 20 batches would take gigabytes."""

    rates: dict[tuple[str, str], float]  # layer and kind of R
    remaining: dict[str, float]  # r_c
    accuracy: float
    dense_accuracy: float


def served(runs: Iterable[ReuseRun]) -> list[Served]:
    """One after the other."""
    return [
        Served(
            rates={
                (layer, rate): RATES[rate](run.decisions[layer])
                for layer in LAYERS
                for rate in RATES
            },
            remaining={layer: run.decisions[layer].remaining_ratio for layer in LAYERS},
            accuracy=run.accuracy,
            dense_accuracy=run.dense_accuracy,
        )
        for run in runs
    ]


def policy(hashing: str, scope: str, cache: ClusterCache | None = None) -> PerLayer:
    """Deep Reuse, Table II, CifarNet, both layers reused."""
    shared = {"scope": scope, "cache": cache, **HASHINGS[hashing]}
    return PerLayer(
        {
            "conv1": LshReuse(hashes=15, length=5, **shared),
            "conv2": LshReuse(hashes=10, length=10, **shared),
        }
    )


def runs_of(data: Batches, hashing: str) -> dict[str, list[Served]]:
    """Table -> what it did with each batch; batch scope, where no cluster outlives one, is last."""
    given = {
        "model": data.model,
        "calibration": calibrate(data.calibration, policy(hashing, "batch")),
    }
    found = {
        name: served(decide_stream(data.traces, policy(hashing, "stream", cache), **given))
        for name, cache in TABLES.items()
    }
    alone = policy(hashing, "batch")
    return found | {BATCH_SCOPE: served(decide(each, alone, **given) for each in data.traces)}


def rates(runs: list[Served], layer: str, rate: str) -> list[float]:
    """One of the two R of a layer, batch by batch."""
    return [run.rates[layer, rate] for run in runs]


def table_of(runs: dict[str, list[Served]], title: str) -> Table:
    """R after the second, the fifth and the last batch, and what it leaves and costs."""
    table = Table(title=title)
    table.add_column("entries x ways")
    for layer in LAYERS:
        for rate in RATES:
            table.add_column(f"{layer} {rate}, batch 2, 5, last")
        table.add_column(f"{layer} r_c, first, last")
    table.add_column("accuracy, first, mean of later")
    for name, made in runs.items():
        cells = [name]
        for layer in LAYERS:
            for rate in RATES:
                values = rates(made, layer, rate)
                shown = [values[at] for at in (1, min(4, len(values) - 1), -1)]
                cells.append(" ".join(f"{value:.3f}" for value in shown))
            left = [made[at].remaining[layer] for at in (0, -1)]
            cells.append(" ".join(f"{value:.4f}" for value in left))
        accuracy = [run.accuracy for run in made]
        cells.append(f"{accuracy[0]:.3f} {np.mean(accuracy[1:]):.3f}")
        table.add_row(*cells)
    dense = [run.dense_accuracy for run in runs[BATCH_SCOPE]]
    blank = [""] * (3 * len(LAYERS))
    table.add_row("dense", *blank, f"{dense[0]:.3f} {np.mean(dense[1:]):.3f}")
    return table


def draw(found: dict[str, dict[str, list[Served]]], title: str) -> go.Figure:
    """Both R of each layer over batches, and the accuracy, for each hashing."""
    places = [(hashing, layer) for hashing in found for layer in LAYERS]
    figure = make_subplots(
        rows=3,
        cols=4,
        specs=[[{}] * 4, [{}] * 4, [{"colspan": 2}, None, {"colspan": 2}, None]],
        subplot_titles=[f"{layer}, {hash_}: {rate}" for rate in RATES for hash_, layer in places]
        + [f"accuracy, {hashing}" for hashing in found],
        vertical_spacing=0.1,
    )  # fmt: skip
    colours = dict(zip([*TABLES, BATCH_SCOPE, "dense"], qualitative.Plotly, strict=False))

    def line(name: str, values: list[float], row: int, column: int) -> None:
        first = (row, column) == (1, 1) or (name in (BATCH_SCOPE, "dense") and column == 1)
        figure.add_scatter(
            x=list(range(1, len(values) + 1)), y=values, name=name, legendgroup=name,
            showlegend=first, mode="lines", line_color=colours[name], row=row, col=column,
        )  # fmt: skip

    for row, rate in enumerate(RATES, start=1):
        for column, (hashing, layer) in enumerate(places, start=1):
            for name in TABLES:
                line(name, rates(found[hashing][name], layer, rate), row, column)
            figure.add_hline(y=PAPER, line_dash="dot", row=row, col=column)
            figure.update_yaxes(range=[0, 1.02], row=row, col=column)
    for column, runs in zip((1, 3), found.values(), strict=True):
        for name, made in runs.items():
            line(name, [run.accuracy for run in made], 3, column)
        line("dense", [run.dense_accuracy for run in runs[BATCH_SCOPE]], 3, column)
    figure.update_layout(title=f"{title} (dotted: the paper's R after 20 batches)", height=1000)
    return figure


def main() -> None:
    """Decide, print, plot."""
    data = load(options(__doc__.splitlines()[0], batches=20, batch=18).parse_args())
    found = {hashing: runs_of(data, hashing) for hashing in HASHINGS}
    title = f"{data.name}, batches of {data.traces[0].images}"
    for hashing, runs in found.items():
        Console(width=200).print(table_of(runs, f"{title}: {hashing} hyperplanes"))
    write(draw(found, title), "006_deep_reuse_figure_5")


if __name__ == "__main__":
    main()
