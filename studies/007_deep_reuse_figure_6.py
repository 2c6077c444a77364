"""Deep Reuse's Fig. 6: r_c against accuracy by scope, granularity and distance; how far is LSH?

Run it with `python studies/007_deep_reuse_figure_6.py [--cifar10 ARCHIVE --cifarnet WEIGHTS]`; it
prints tables and writes a figure to `studies/out/`. One layer at a time is reused; k-means (one
k-means++ start, 5 Lloyd iterations) clusters sub-vectors of 25 or whole rows. The run below takes
minutes of processor time; batch scope grows with the square of the images.

Answer, as printed on 2026-11-22 for 36 CIFAR-10 JPEGs with `--batches 3 --batch 12` (dense 0.694).
An image is 0.028 of accuracy: differences of two are within chance. The layer's relative error is
the finer measure.
- Batch > image holds in all 8 comparisons by error (0.41x to 0.99x at equal r_c), and in 7 by
  accuracy (+0.08 to +0.17; conv2 with whole rows and Euclidean distance -0.04).
- Sub-vector > whole row holds in all 8 by accuracy (+0.01 to +0.32), and for Euclidean distance by
  error (0.26x to 0.95x). For angular distance it does not by error in conv1 (1.04x, 1.12x), in
  conv2 it does (0.82x, 0.99x). The paper has it so in conv2, and in conv1 for the batch only.
- Angular > Euclidean does not hold: errors are 1.06x to 4.1x larger in all 8 comparisons, most for
  conv2's sub-vectors, where accuracy is 0.11 to 0.14 lower; by accuracy it holds in 4. A cluster of
  a direction loses its members' lengths. LSH shows it: the same clusters with each member's norm
  kept err 0.21x to 0.44x as much on conv2's sub-vectors. The paper does not say whether it keeps
  norms.
- LSH against angular k-means, same scope, granularity and r_c, median error: 1.6x (conv1) and 1.5x
  (conv2) through the origin; 1.6x and 1.1x through the mean; 1.4x and 0.8x with norms kept. To err
  as little, hyperplanes through the origin need 3x to 8x the clusters within an image and 6x to 24x
  within the batch, read off between points of a run on 12 images.
"""

from argparse import Namespace
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from statistics import fmean, geometric_mean

import numpy as np
import plotly.graph_objects as go
from cifarnet_batches import Batches, load, options, write
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from simulator import KMeansReuse, LshReuse, PerLayer, SubVectorPolicy, decide

LAYERS = ("conv1", "conv2")
LENGTHS = {"sub": 25, "whole": None}  # the paper's sub-vectors, in both layers
METRICS = ("angular", "euclidean")
# The paper has no batch-level data beyond 0.05 either: the search takes N x |C|.
R_C = {"image": (0.01, 0.03, 0.1), "batch": (0.003, 0.01, 0.03)}
HASHES = (4, 7, 10, 15)
# Gaussian hyperplanes: through the origin, as the paper's; the same with each member's norm kept in
# its result, which a mean loses; through the mean.
HASHINGS: dict[str, dict] = {
    "plain": {"thresholds": "zero"},
    "plain, norms kept": {"thresholds": "zero", "normalised": True},
    "centred": {"thresholds": "mean"},
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One policy on one layer, and what it did; the legend's words are the paper's."""

    layer: str
    scope: str
    granularity: str
    distance: str  # of k-means, or the hashing
    r_c: float
    accuracy: float
    error: float  # of the layer's product, relative mean square

    @property
    def legend(self) -> str:
        return f"{self.scope}+{self.granularity}+{self.distance}"


def policies(iterations: int) -> Iterator[tuple[str, str, str, str, SubVectorPolicy]]:
    """Layer, scope, granularity, distance and policy of every point, the longest searches first."""
    for scope, layer, granularity in product(("batch", "image"), LAYERS, LENGTHS):
        place, cut = (layer, scope, granularity), {"length": LENGTHS[granularity], "scope": scope}
        for r_c, metric in product(sorted(R_C[scope], reverse=True), METRICS):
            search = KMeansReuse(clusters=r_c, metric=metric, iterations=iterations, **cut)
            yield *place, metric, search
        for hashing, hashes in product(HASHINGS, HASHES):
            lsh = LshReuse(hashes=hashes, projection="int8", **HASHINGS[hashing], **cut)
            yield *place, hashing, lsh


def measure(
    data: Batches, layer: str, scope: str, granularity: str, distance: str, policy: SubVectorPolicy
) -> Point:
    """The mean over batches, with this layer alone reused."""
    runs = [
        decide(trace, PerLayer({layer: policy}), model=data.model, calibration=data.calibration)
        for trace in data.traces
    ]
    return Point(
        layer=layer,
        scope=scope,
        granularity=granularity,
        distance=distance,
        r_c=fmean(run.decisions[layer].remaining_ratio for run in runs),
        accuracy=fmean(run.accuracy for run in runs),
        error=fmean(run.relative_mse[layer] for run in runs),
    )


_loaded: list[Batches] = []  # of a worker


def _start(chosen: Namespace) -> None:
    _loaded.append(load(chosen))


def _measure(task: tuple) -> Point:
    return measure(_loaded[0], *task)


def compared(points: Iterable[Point], field: str, better: str, worse: str) -> dict[str, list]:
    """Group -> (accuracy gained, error ratio) of each pair alike in all but `field`.

    Pairs are k-means points at the same r_c, to a tenth (each group's clusters are rounded up).
    """
    found: dict[str, list] = {}
    alike = [f for f in ("layer", "scope", "granularity", "distance") if f != field]
    by_key = [(tuple(getattr(p, f) for f in alike), p) for p in points if p.distance in METRICS]
    for (key, a), (other, b) in product(by_key, by_key):
        if key != other or (getattr(a, field), getattr(b, field)) != (better, worse):
            continue
        if abs(np.log(a.r_c / b.r_c)) < 0.2:
            group = f"{a.layer} " + "+".join(key[1:])
            found.setdefault(group, []).append((a.accuracy - b.accuracy, a.error / b.error))
    return found


def beside_k_means(points: Iterable[Point], hashing: str, layer: str) -> list[float]:
    """Errors of LSH over those of angular k-means of the same scope and granularity, at its r_c."""
    ratios = []
    for point in (p for p in points if (p.distance, p.layer) == (hashing, layer)):
        curve = sorted(
            (p.r_c, p.error)
            for p in points
            if (p.layer, p.scope, p.granularity, p.distance)
            == (layer, point.scope, point.granularity, "angular")
        )
        at, errors = np.log(np.array(curve)).T
        if at[0] <= np.log(point.r_c) <= at[-1]:
            ratios.append(float(point.error / np.exp(np.interp(np.log(point.r_c), at, errors))))
    return ratios


def tables(points: list[Point], title: str) -> Iterator[Table]:
    """Every curve; then the paper's three conclusions, pair by pair; then LSH."""
    curves = Table(title=title)
    for name in ("layer", "scope+granularity+distance", "r_c: accuracy, relative error"):
        curves.add_column(name)
    for layer, legend in dict.fromkeys((p.layer, p.legend) for p in points):
        on_curve = sorted(
            (p for p in points if (p.layer, p.legend) == (layer, legend)), key=lambda p: p.r_c
        )
        shown = "   ".join(f"{p.r_c:.4f}: {p.accuracy:.3f}, {p.error:.3f}" for p in on_curve)
        curves.add_row(layer, legend, shown)
    yield curves
    pairs = Table(title="The paper's conclusions at equal r_c (k-means)")
    for name in (
        "claim", "among", "accuracy gained, mean", "error ratio, mean", "pairs",
        "accuracy agrees", "error agrees",
    ):  # fmt: skip
        pairs.add_column(name)
    for field, better, worse in (
        ("scope", "batch", "image"),
        ("granularity", "sub", "whole"),
        ("distance", "angular", "euclidean"),
    ):
        for group, found in compared(points, field, better, worse).items():
            gained = fmean(gain for gain, _ in found)
            ratio = geometric_mean(ratio for _, ratio in found)
            holds = ["yes" if each else "no" for each in (gained > 0, ratio < 1)]
            cells = [f"{gained:+.3f}", f"{ratio:.2f}", str(len(found)), *holds]
            pairs.add_row(f"{better} > {worse}", group, *cells)
    yield pairs
    lsh = Table(title="LSH's error over angular k-means's, same scope, granularity and r_c")
    for name in ("layer", "hyperplanes", "median", "least", "most", "points"):
        lsh.add_column(name)
    for layer, hashing in product(LAYERS, HASHINGS):
        ratios = beside_k_means(points, hashing, layer)
        if ratios:
            shown = [f"{f(ratios):.1f}x" for f in (np.median, np.min, np.max)]
            lsh.add_row(layer, hashing, *shown, str(len(ratios)))
    yield lsh


COLOURS = {
    "image+sub": "#1f77b4", "image+whole": "#9467bd", "batch+sub": "#d62728",
    "batch+whole": "#ff7f0e",
}  # fmt: skip
LOOKS = {
    "angular": {"mode": "lines+markers", "line_dash": "solid"},
    "euclidean": {"mode": "lines+markers", "line_dash": "dash"},
    "plain": {"mode": "markers", "marker_symbol": "x"},
    "plain, norms kept": {"mode": "markers", "marker_symbol": "diamond-open"},
    "centred": {"mode": "markers", "marker_symbol": "circle-open"},
}


def draw(points: list[Point], dense: float, title: str) -> go.Figure:
    """Accuracy, and below it error, against r_c, for each layer."""
    figure = make_subplots(2, 2, shared_xaxes=True, vertical_spacing=0.05, subplot_titles=LAYERS)
    for legend, layer in dict.fromkeys((p.legend, p.layer) for p in points):
        curve = [p for p in points if (p.legend, p.layer) == (legend, layer)]
        curve.sort(key=lambda p: p.r_c)
        where, _, distance = legend.rpartition("+")
        for row, quantity in enumerate(("accuracy", "error"), start=1):
            column = 1 + LAYERS.index(layer)
            figure.add_scatter(
                x=[p.r_c for p in curve], y=[getattr(p, quantity) for p in curve],
                name=legend if distance in METRICS else f"{legend} LSH", legendgroup=legend,
                showlegend=(row, column) == (1, 1), marker_color=COLOURS[where],
                row=row, col=column, **LOOKS[distance],
            )  # fmt: skip
    figure.add_hline(y=dense, line_dash="dot", row=1)
    figure.update_xaxes(type="log")
    figure.update_xaxes(title="r_c", row=2)
    figure.update_yaxes(title="accuracy (dotted: dense)", row=1, col=1)
    figure.update_yaxes(title="relative error of the layer", type="log", row=2)
    figure.update_layout(title=title, height=900)
    return figure


def main() -> None:
    """Measure on two processes, print, plot."""
    parser = options(__doc__.splitlines()[0], batches=1, batch=20)
    parser.add_argument("--iterations", type=int, default=5, help="of Lloyd's algorithm")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    data = load(chosen)  # also trains the network, once for all workers
    with ProcessPoolExecutor(
        chosen.workers, get_context("spawn"), initializer=_start, initargs=(chosen,)
    ) as pool:
        points = list(pool.map(_measure, policies(chosen.iterations)))
    dense = fmean((each.outputs.argmax(1) == each.labels).mean() for each in data.traces)
    title = f"{data.name}, batches of {chosen.batch}, dense accuracy {dense:.3f}"
    for each in tables(points, title):
        Console(width=160).print(each)
    write(draw(points, dense, title), "007_deep_reuse_figure_6")


if __name__ == "__main__":
    main()
