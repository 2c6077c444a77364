"""Where does reuse pay? Speed and energy at equal area, by shape, ratio, tile, L and unit.

Run it with `python studies/017_where_reuse_pays.py`: tables, and a figure in `studies/out/`, in
three to five minutes on two cores; `--quick` takes a few shapes and ratios. Nothing is decided on
data: each view of each tile keeps a given part r of its vectors (`synthetic`), so that a map can be
read off for any layer whose r is known, from `codesign similarity` or a search.

Each design has a 64x64 array with overlapped folds (16x16 for 16 channels), the units of one
technique, and memories and units that fit its tiles, its columns in a pass and the ratio that it
is built for (`simulator.fitted_design`). Of all of these the map takes, for each shape, technique,
tile and r, the one with the least product of time and energy over those of the best dense design
that is as large, or up to 3 % larger, found anew for each shape. Energies are of 45 nm; a byte of
DRAM takes 100 pJ, the least in `accelerators/data/dram.csv`.

`--networks MODEL:INPUTS ...` searches real networks instead, for `--trials` designs each, and tells
the best one that loses at most a point, beside it the best with reuse; a network that was trained
under reuse too has a second line, and others have one where `--trained MODEL=FILE` gives weights.
`vit_cifar10` is a vision transformer of `small_vit.py`, whose weights `--weights vit_cifar10=FILE`
gives. The ResNet-18 of full width has study 018 to itself.

Answer, of 2026-11-28. Speed and energy over dense of equal area, at best:

                              r=0.1       r=0.3       r=0.5       r=0.7     faster up to r (tile)
    3x3  64, 120x160       3.89 0.26   2.18 0.38   1.37 0.50   0.99 0.71    0.74 (144)
    3x3 128,  60x80        3.02 0.16   1.91 0.31   1.21 0.50   0.98 0.65    0.69 (144)
    3x3 256,  30x40        3.31 0.17   2.48 0.25   1.46 0.37   1.14 0.48    0.80 (144, 256)
    3x3 512,  15x20        2.24 0.20   1.34 0.31   1.03 0.43   0.85 0.57    0.56 (256)
    13 of these on one     2.59 0.23   1.62 0.37   1.19 0.64   0.89 0.89    0.67 (256)
    1x1 128->512, 60x80    1.75 0.34   1.67 0.45   1.29 0.53   1.08 0.64    0.82 (144)
    VGG's 3x3 512, 4x4     0.85 0.81   0.85 0.85   0.85 0.90   0.85 0.94    never
    linear 768, 196 tokens 1.54 0.32   1.41 0.44   0.83 0.53   0.78 0.64    0.49 (256)

Energy falls where speed does not, with tiles nearly everywhere up to r = 0.9. Part of that is not
reuse's: the dense design is the fastest of its area, not the thriftiest, which on a whole ResNet-18
takes 0.8 of its energy (study 018).

How good the map is: on a real ResNet-18 (the design that study 018's search chose: leaders, tiles
of 256) the four 3x3 shapes keep r = 0.50, 0.43, 0.24 and 0.40. The map has 1.20x, 1.13x, 1.75x and
1.11x for them, each on a design of its own; on the one design that they share they come to 0.93x,
1.14x, 1.49x and 1.25x, with 0.9, 1.0, 1.7 and 1.7 times the energy that the map has. So a speed is
good to a quarter, an energy to a factor of 1.7, and 1.0x on the map is no promise.

What decides, on 3x3 128 with r = 0.5 unless told otherwise; speed and energy are 1.06x and 0.50x
with leaders, tiles of 256, L = 64, 64 columns in a pass and sums of 24 bits (LSH 1.11x and 0.52x,
neighbours 1.12x and 0.46x):
- Area. The array is 56 % of the design; dense has 1.7 times the multipliers, so that r must be
  below 0.58 to be faster. A 32x32 array shrinks to a quarter, its buffers do not: 0.54x.
- Clusters of a tile reach the array's rows: a fold takes as long as its successor's weights take to
  load, so that the array is used |C| / rows of its time: 12, 27 and 47 % at 8, 17 and 30 clusters
  on 64 rows, 100 % at 69 (1.26x). Tiles of 64 rows are never faster on a 64x64 array (0.68x).
- L is the array's rows: 0.58x at 32, 1.20x 0.60x at 128; on 128x128 1.22x at 128 and 0.71x at 64.
- Sums and results stay. 3x3 64 at r = 0.3: tile 256 moves 2.5 MB as dense does (2.38x 0.43x); whole
  images spill 20 MB of results (0.25x 1.68x), and looked at once a tap 51 MB of sums, 18 MB of
  results, and read inputs nine times (0.12x 5.46x). So image scope hardly pays, but where an image
  is no more than a tile.
- What results take, |C| x taps x columns x bits: 120 x 9 x 64 x 24 bits, 207 kB in each half, a
  sixth of the area. So passes of 32 and 64 columns (1.09x, 1.06x), not of 8, each of which looks
  again (0.67x), nor of 128 (0.90x); and tiles of 1024 rows want r below 0.5.
- Gathering keeps up: rows x columns of the array / (L r) = 4096 / 32 = 128 sums a cycle; half of
  these lanes 0.59x, a quarter 0.33x.
- A look serves taps x columns: once a tap 0.62x 0.72x. Layers of one tap need wider passes: 1x1
  128->512, leaders, r = 0.3, with 64 columns 1.06x 0.71x, with 256 1.57x 0.55x.
- Weights stay: an eighth of their buffer leaves 1.21x (it is smaller), but 0.73x the energy. Dearer
  DRAM favours reuse (0.41x at 325 pJ), which moves 0.3 of dense's bytes.
- Sizes are for the r that there is: built for 0.2 or 0.8 the units are larger and the design slower
  (0.78x 0.45x, 0.83x 0.55x).
- Strips are as good as blocks here (1.07x): blocks are better by the r that they leave.

Real networks. The ResNet-18 of full width is study 018's. Of those on `bikes` (4 frames, 16 trials)
EfficientNet-Lite0 is best with LSH in some stages: 0.79 of its products left with no frame answered
otherwise, 0.98x the speed and 0.83x the energy. For all others the best found is dense. The small
ResNet-18, of 16 to 128 channels, with reuse comes to 0.59x the speed and 1.18x the energy with 0.89
of the products left and 3.3 points lost; after training (for drives of CamVid, not for these
streets) to 0.23x and 1.68x with 0.82 left and 6.6 points lost. The ViT, 257 tokens of width 192, on
100 CIFAR-10 images (65 % right dense), stopped after 14 trials: what reused lost 13 points or more,
at 0.09x to 0.51x the speed. VGG-16, on 100 CIFAR-10 images (60 trials, all techniques), with reuse
has 0.92 of its products left at no loss, 0.76x the speed and 0.94x the energy. ViT-B and S by name
have random weights, and are left out.
"""

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context

import plotly.graph_objects as go
from paper_tables import OUT, show, write_figure
from plotly.subplots import make_subplots
from reuse_causes import (
    FOLDING,
    KNOBS,
    SPILLING,
    TILES,
    Folded,
    against,
    fold_rows,
    folded,
    knob_rows,
    shares,
    spill_rows,
    tile_name,
)
from reuse_networks import network_rows
from synthetic import KEPT, SHAPES, Setting, as_large, run, settings

from accelerators import preset
from codesign.space.techniques import SHARING
from simulator.pages.figures import LIMIT_COLOURS, LINE_COLOURS, UNKNOWN_COLOUR

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Of all units that a technique may wait for, those that it brings among them.
UNITS = preset("every_64x64").units.items()
COLOURS = {name: unit.colour for name, unit in UNITS if unit is not None} | LIMIT_COLOURS
QUICK_SHAPES = ("VGG 3x3 64->64, 32x32", "VGG 3x3 256->256, 8x8")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is tried.

    Attributes:
        ratios: r, ascending.
        tiles: rows, `None` for whole images.
        kept: ratios that designs are built for.
        knobs: what is changed on one layer.
        spilling, folding: rows of tiles on which sums spill, and folds reload.
    """

    ratios: tuple[float, ...] = RATIOS
    tiles: tuple[int | None, ...] = TILES
    kept: tuple[float, ...] = KEPT
    knobs: tuple[str, ...] = tuple(KNOBS)
    spilling: tuple[int | None, ...] = SPILLING
    folding: tuple[int, ...] = FOLDING


QUICK = Effort(
    ratios=(0.1, 0.3, 0.7), tiles=(64, 256), kept=(0.3,), knobs=("as it is", "looks"),
    spilling=(256,), folding=(64, 256),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A shape under a technique within a tile, at a ratio.

    Attributes:
        shape, technique, tile_rows, ratio: which.
        setting: of the design with the least product of time and energy over dense.
        speed: dense cycles over its cycles, at equal area.
        energy: its energy over dense.
        limits: limit -> part of its cycles that it is to blame for.
        fastest: the most speed of any design.
        thriftiest: the least energy of any.
    """

    shape: str
    technique: str
    tile_rows: int | None
    ratio: float
    setting: Setting
    speed: float
    energy: float
    limits: dict[str, float]
    fastest: float
    thriftiest: float


def cells(effort: Effort, shape: str) -> list[Cell]:
    """The map of a shape: each technique, tile and ratio."""
    layers, runs = SHAPES[shape], {}
    for technique, tile_rows in product(SHARING, effort.tiles):
        for setting in settings(shape, technique, tile_rows, effort.kept):
            design = setting.design(layers)
            for ratio in effort.ratios:
                runs[setting, ratio] = run(layers, setting, ratio, design)
    beside = as_large(layers, {report.accelerator for report in runs.values()})
    found = []
    for technique, tile_rows, ratio in product(SHARING, effort.tiles, effort.ratios):
        compared = {
            setting: against(report, beside[report.accelerator])
            for (setting, at), report in runs.items()
            if (setting.technique, setting.tile_rows, at) == (technique, tile_rows, ratio)
        }
        best = min(compared, key=lambda setting: compared[setting][1] / compared[setting][0])
        speed, energy = compared[best]
        found.append(
            Cell(
                shape=shape,
                technique=technique,
                tile_rows=tile_rows,
                ratio=ratio,
                setting=best,
                speed=speed,
                energy=energy,
                limits=shares(runs[best, ratio]),
                fastest=max(each[0] for each in compared.values()),
                thriftiest=min(each[1] for each in compared.values()),
            )
        )
    return found


def break_even(ratios: Sequence[float], gains: Sequence[float]) -> float:
    """The largest r at which there is a gain of 1, between those tried; 0 where there is none.

    Args:
        ratios: ascending.
        gains: of each.
    """
    paying = [index for index, gain in enumerate(gains) if gain >= 1]
    if not paying:
        return 0.0
    last = paying[-1]
    if last + 1 == len(ratios):
        return ratios[last]
    above, below = gains[last] - 1, 1 - gains[last + 1]
    return ratios[last] + (ratios[last + 1] - ratios[last]) * above / (above + below)


def best_of(found: Iterable[Cell]) -> Cell:
    """The least product of time and energy."""
    return min(found, key=lambda cell: cell.energy / cell.speed)


def map_rows(found: Sequence[Cell], effort: Effort) -> list[dict[str, object]]:
    """A line for each shape: its best technique and tile at some ratios."""
    shown = [ratio for ratio in effort.ratios if round(10 * ratio) in (1, 3, 5, 7)]
    rows = []
    for shape in dict.fromkeys(cell.shape for cell in found):
        row: dict[str, object] = {"layer": shape}
        for ratio in shown:
            own = (cell for cell in found if (cell.shape, cell.ratio) == (shape, ratio))
            best = best_of(own)
            row[f"r={ratio}: speed, energy"] = (
                f"{best.speed:.2f}x {best.energy:.2f}x {best.technique} {tile_name(best.tile_rows)}"
            )
        rows.append(row)
    return rows


def break_even_rows(found: Sequence[Cell], effort: Effort) -> list[dict[str, object]]:
    """Of each shape and tile the r up to which the fastest, and the thriftiest, design pays."""
    rows = []
    for shape in dict.fromkeys(cell.shape for cell in found):
        row: dict[str, object] = {"layer": shape}
        for tile in effort.tiles:
            gains: list[tuple[float, float]] = []
            for ratio in effort.ratios:
                own = [
                    cell
                    for cell in found
                    if (cell.shape, cell.tile_rows, cell.ratio) == (shape, tile, ratio)
                ]
                gains.append(
                    (max(each.fastest for each in own), 1 / min(each.thriftiest for each in own))
                )
            speed, energy = (break_even(effort.ratios, each) for each in zip(*gains, strict=True))
            row[tile_name(tile)] = f"{speed:.2f} {energy:.2f}"
        rows.append(row)
    return rows


def figure(found: Sequence[Cell], folds: Sequence[Folded], effort: Effort) -> go.Figure:
    """Speed and energy over shape and ratio of each technique; what limits; folds."""
    names, shapes = list(SHARING), list(dict.fromkeys(cell.shape for cell in found))
    made = make_subplots(
        rows=4, cols=3, vertical_spacing=0.07, horizontal_spacing=0.05,
        subplot_titles=[
            *(f"speed, {name}" for name in names), *(f"energy, {name}" for name in names),
            *(f"what limits {name}, the shapes' mean" for name in names),
            "array used while busy, L as long as it has rows", "speed", "energy",
        ],
    )  # fmt: skip
    for column, name in enumerate(names, start=1):
        best = {
            (shape, ratio): best_of(
                c for c in found if (c.shape, c.ratio, c.technique) == (shape, ratio, name)
            )
            for shape in shapes
            for ratio in effort.ratios
        }
        for row, of, scale in ((1, "speed", "RdBu"), (2, "energy", "RdBu_r")):
            values = [[getattr(best[s, r], of) for r in effort.ratios] for s in shapes]
            made.add_heatmap(
                x=[f"{r:g}" for r in effort.ratios], y=shapes, z=values, colorscale=scale, zmin=0,
                zmax=2, texttemplate="%{z:.2f}", showscale=column == 1, row=row, col=column,
                colorbar={"y": 0.89 if row == 1 else 0.62, "len": 0.2, "thickness": 12},
                customdata=[[str(best[s, r].setting) for r in effort.ratios]
                                        for s in shapes],
                hovertemplate="%{y}, r=%{x}: %{z:.2f}x<br>%{customdata}<extra></extra>",
            )  # fmt: skip
        _add_limits(made, best, effort, column)
        made.update_yaxes(showticklabels=column == 1, autorange="reversed", row=1, col=column)
        made.update_yaxes(showticklabels=column == 1, autorange="reversed", row=2, col=column)
    _add_folds(made, folds)
    made.update_xaxes(title_text="r, remaining ratio", row=3)
    made.update_layout(
        template="plotly_white", height=1700, barmode="stack", legend={"y": 0.42, "yanchor": "top"},
        legend2={"y": 0.16, "yanchor": "top"},
        title="Over the best dense design of equal area: speed above 1 and energy below 1 pay "
              "(blue)",
    )  # fmt: skip
    return made


def _add_limits(made: go.Figure, best: dict, effort: Effort, column: int) -> None:
    """Part of the cycles that each limit is to blame for, mean over the shapes."""
    means: dict[str, list[float]] = {}
    for place, ratio in enumerate(effort.ratios):
        own = [cell for (_, at), cell in best.items() if at == ratio]
        for cell in own:
            for name, share in cell.limits.items():
                means.setdefault(name, [0.0] * len(effort.ratios))[place] += share / len(own)
    named = {trace.name for trace in made.data}
    for name, values in means.items():
        if max(values) >= 0.01:
            made.add_bar(
                x=[f"{r:g}" for r in effort.ratios], y=values, name=name, legendgroup=name,
                marker_color=COLOURS.get(name, UNKNOWN_COLOUR), showlegend=name not in named,
                row=3, col=column,
            )  # fmt: skip


def _add_folds(made: go.Figure, folds: Sequence[Folded]) -> None:
    """Over the clusters of a tile, in times of the array's rows."""
    for column, of in enumerate(("used", "speed", "energy"), start=1):
        for array, colour in zip((32, 64, 128), LINE_COLOURS[1:], strict=False):
            own = [each for each in folds if each.array == array]
            made.add_scatter(
                x=[each.clusters / array for each in own], y=[getattr(each, of) for each in own],
                name=f"{array}x{array}", legendgroup=str(array), showlegend=column == 1,
                line_color=colour, legend="legend2", row=4, col=column,
            )  # fmt: skip
        made.add_vline(x=1, line_dash="dot", row=4, col=column)
        made.update_xaxes(title_text="|C| of a tile / rows", type="log", row=4, col=column)


def main() -> None:
    """Draw the map and explain it, or search real networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, three ratios")
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), metavar="LAYER",
                        help=f"of {'; '.join(SHAPES)}")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--networks", nargs="*", default=(), metavar="MODEL:INPUTS",
                        help="searched instead, as codesign search takes them")  # fmt: skip
    parser.add_argument("--weights", nargs="*", default=(), metavar="MODEL=FILE",
                        help="of networks that come without")  # fmt: skip
    parser.add_argument("--trained", nargs="*", default=(), metavar="MODEL=FILE",
                        help="weights trained under reuse, for a second line")  # fmt: skip
    parser.add_argument("--trials", type=int, default=20, help="of a network's search")
    parser.add_argument("--images", type=int, default=4, help="to judge a network on")
    given = parser.parse_args()
    if given.networks:
        files = (dict(each.split("=", 1) for each in of) for of in (given.weights, given.trained))
        weights, trained = files
        rows = network_rows(given.networks, OUT / "where_reuse_pays", trials=given.trials,
                            images=given.images, weights=weights, trained=trained)  # fmt: skip
        show("The best design of each search that loses at most a point", rows)
        return
    effort = QUICK if given.quick else Effort()
    shapes = given.shapes or list(QUICK_SHAPES if given.quick else SHAPES)
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        knobs = pool.submit(knob_rows, effort.knobs)
        spills = pool.submit(spill_rows, effort.spilling)
        folds = pool.submit(folded, effort.folding)
        found = [each for own in pool.map(partial(cells, effort), shapes) for each in own]
        show("The map: least product of time and energy over dense of equal area",
             map_rows(found, effort))  # fmt: skip
        show("r up to which the fastest, and the thriftiest, design pays, by rows of a tile",
             break_even_rows(found, effort))  # fmt: skip
        show("One thing changed: 3x3 128->128, 60x80, r=0.5", knobs.result())
        show("Larger tiles: 3x3 64->64, 120x160, r=0.3", spills.result())
        show("Fewer clusters than rows: 3x3 128->128, 60x80, r=0.5", fold_rows(folds.result()))
    write_figure(figure(found, folds.result(), effort), "017_where_reuse_pays")


if __name__ == "__main__":
    main()
