"""What do centroids carried from frame to frame save, how old do they get, and what do they cost?

Run it with `python studies/015_reuse_over_frames.py` for EfficientNet-Lite0 on a sample video, or
with `--camvid FOLDER --other FOLDER --weights FILE` for ESPNet on CamVid. It prints three tables
and writes a figure to `studies/out/`. H is 16; three layers are reused, those in `films.py`.

Answer, as printed on 2026-11-22 for ESPNet with its published weights at 240x320 (mean over frames
of each frame's mIoU, dense 0.622), `--frames 43 --cut 12`, 2.9 s of the 15 Hz drive, one run:
- The frame rate hardly matters: at 15, 7.5 and 5 Hz a cache of 1024 x 8 reuses 0.932, 0.929 and
  0.928 of sub-vectors (r_c 0.0225, 0.0238, 0.0249; 0.0701 with every frame alone). 128 x 8
  forgets so much that r_c is 0.161, more than without carrying.
- Without a refresh results age with the stream: 19 frames, 1.3 s, on average at 15 Hz, the oldest
  from the first frame. A refresh after 256 uses makes it 5.7 frames, after 32 uses 3.7.
- Hashing costs most: mIoU 0.560 with every frame alone. Carrying takes 2.4 points more (0.536),
  at 7.5 and 5 Hz 1.9 and 1.7. A refresh after 256 uses gives nothing back (0.537), after 32 half
  of it (0.546), at r_c 0.051.
- A cut to frames of another drive (1 Hz, dusk) doesn't lower the rate: 0.930 before, 0.943 in the
  first frame. Old clusters serve the new place, and worse: agreement 0.840, from an empty cache
  0.858, every frame alone 0.864; refreshed after 256 uses 0.863.
- On this design it doesn't pay: 5.13 M cycles and 7.61 mJ a frame, alone 5.13 and 7.77, dense 3.45
  and 3.29: 0.67x as fast as the equal array, 0.24x at equal area, energy 2.31x and 2.60x.
EfficientNet-Lite0, `--frames 12 --cut 4`: reused 0.938, 0.921, 0.907 at 25, 12.5 and 8.3 Hz; 0.904
before the cut, 0.584 behind it and not back in 4 frames; speed 0.91x and 0.61x, alone 0.93x and
0.62x. Agreement there is one class a frame: too coarse to judge (none agree behind the cut, with
every frame alone as well).
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
from cifarnet_batches import write
from films import Film, Followed, add_options, film, follow
from plotly.colors import qualitative
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from accelerators import CentroidCache, preset
from simulator import ClusterCache, LshReuse, PerLayer
from workloads import ImageSet

STEPS = (1, 2, 3)  # 15, 7.5 and 5 Hz of 15
DESIGN = preset("reuse_16x16")
CACHE = DESIGN.cache
ALONE = "every frame alone"
# The cache kept over frames, `None` for a table without end, and the sub-vectors that may take a
# result before it is computed anew.
KEPT: dict[str, tuple[CentroidCache | None, int | None]] = {
    "no end": (None, None),
    "1024 x 8": (CACHE, None),
    "1024 x 8, 256 uses": (CACHE, 256),
    "1024 x 8, 32 uses": (CACHE, 32),
    "128 x 8": (replace(CACHE, entries=128), None),
}
SETTINGS = (ALONE, *KEPT)
CUT_SETTINGS = SETTINGS[:4]


def policy(layers: dict[str, int], name: str, hashes: int) -> PerLayer:
    """One of `SETTINGS` on layers with their L."""
    shared: dict = {"hashes": hashes, "scope": "image"}
    if name != ALONE:
        built, uses = KEPT[name]
        kept = ClusterCache() if built is None else ClusterCache.of(built)
        shared |= {"scope": "stream", "cache": replace(kept, refresh_after=uses)}
    return PerLayer({each: LshReuse(length=length, **shared) for each, length in layers.items()})


def follow_all(
    shown: Film, order: Sequence[ImageSet], names: Sequence[str], hashes: int
) -> dict[str, Followed]:
    """Send frames in order through some of `SETTINGS`, each on the design with its cache."""
    built = {ALONE: CACHE} | {name: cache for name, (cache, _) in KEPT.items()}
    return follow(
        shown,
        order,
        {name: policy(shown.layers, name, hashes) for name in names},
        {name: replace(DESIGN, cache=cache) if (cache := built[name]) else None for name in names},
    )


def recovery(rates: Sequence[float], cut: int, within: float = 0.01) -> int | None:
    """Frames behind a cut until the reuse rate is back, 0 if it never left; `None`: not again.

    Back is at most `within` below the mean of the three frames before, or of those there are
    without the first.
    """
    wanted = np.mean(rates[max(1, cut - 3) : cut]) - within
    back = np.flatnonzero(np.asarray(rates[cut:]) >= wanted)
    return int(back[0]) if back.size else None


def text(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """One to print."""
    made = Table(*columns, title=title)
    for row in rows:
        made.add_row(*row)
    return made


def rate_rows(found: dict[str, Followed], rate_hz: float) -> list[list[str]]:
    """Reuse, staleness and quality, means over all frames but the first."""
    rows = []
    for name, made in found.items():
        age = made.mean("mean_age", 1) or 0.0
        rows.append([
            f"{rate_hz:.1f}", name, text(made.mean("reuse_rate", 1)),
            text(made.mean("remaining_ratio", 1), 4), f"{age:.1f}", f"{1000 * age / rate_hz:.0f}",
            str(made.frames[-1].oldest), text(made.mean("agreement", 1), 4),
            text(made.mean("accuracy", 1)),
        ])  # fmt: skip
    dense = found[ALONE].mean("dense_accuracy", 1)
    return [*rows, [f"{rate_hz:.1f}", "dense", *["-"] * 6, text(dense)]]


def hardware_rows(found: dict[str, Followed]) -> list[list[str]]:
    """The last frame, all layers of the network."""
    rows = []
    for name, made in found.items():
        if (report := made.report) is None:
            continue
        designs = (report.reuse, report.dense, report.dense_equal_area)
        rows.append([
            name, ", ".join(f"{each.cycles / 1e6:.2f}" for each in designs),
            f"{report.speedup_equal_array:.2f}x, {report.speedup_equal_area:.2f}x",
            ", ".join(f"{each.total_energy_pj / 1e9:.2f}" for each in designs),
            f"{report.energy_ratio_equal_array:.2f}x, {report.energy_ratio_equal_area:.2f}x",
            report.reuse.bound_by,
        ])  # fmt: skip
    return rows


def cut_rows(
    carried: dict[str, Followed], cold: dict[str, Followed], cut: int, back: int
) -> list[list[str]]:
    """Frames `cut` to `back - 1` are elsewhere; `cold` saw only these."""
    rows = []
    for name, made in carried.items():
        rates = [each.reuse_rate for each in made.frames]
        there, again = rates[:back], rates[:cut] + rates[back:]
        rows.append([
            name, text(made.mean("reuse_rate", max(1, cut - 3), cut)),
            *(f"{each[cut]:.3f}, {recovery(each, cut)}" for each in (there, again)),
            *(
                f"{text(made.mean(of, cut, back), 4)}, {text(cold[name].mean(of), 4)}"
                for of in ("remaining_ratio", "agreement", "accuracy")
            ),
            ", ".join(text(made.mean(of, back), 4) for of in ("agreement", "accuracy")),
        ])  # fmt: skip
    return rows


def draw(columns: dict[str, tuple[float, dict[str, Followed]]], title: str) -> go.Figure:
    """A column for each title with its frame rate and streams: reuse, age and agreement."""
    figure = make_subplots(
        rows=3, cols=len(columns), shared_yaxes="rows", horizontal_spacing=0.02,
        vertical_spacing=0.06, column_titles=list(columns),
    )  # fmt: skip
    named = {
        "reuse_rate": "reused sub-vectors",
        "mean_age": "mean age, frames",
        "agreement": "agreement with dense",
    }
    colours = dict(zip(SETTINGS, qualitative.Plotly, strict=False))
    for column, (rate_hz, found) in enumerate(columns.values(), start=1):
        for row, (attribute, words) in enumerate(named.items(), start=1):
            for name, made in found.items():
                figure.add_scatter(
                    x=np.arange(len(made.frames)) / rate_hz,
                    y=[getattr(each, attribute) for each in made.frames],
                    name=name, legendgroup=name, showlegend=row == column == 1,
                    mode="lines", line_color=colours[name], row=row, col=column,
                )  # fmt: skip
            figure.update_yaxes(title=words if column == 1 else None, row=row, col=column)
        figure.update_xaxes(title="seconds", row=3, col=column)
    figure.update_layout(title=title, height=900, legend={"orientation": "h", "y": -0.08})
    return figure


def main() -> None:
    """Follow, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--frames", type=int, default=24, help="judged, at the full frame rate")
    parser.add_argument("--cut", type=int, default=8, help="frames before, behind and back again")
    parser.add_argument("--hashes", type=int, default=16)
    given = parser.parse_args()
    shown = film(given, max(given.frames, 2 * given.cut), given.cut)
    frames, behind = list(shown.frames.batches(1)), list(shown.other.batches(1))
    found = {}
    for step in STEPS:
        rate_hz = shown.rate_hz / step
        streams = follow_all(shown, frames[: given.frames : step], SETTINGS, given.hashes)
        found[f"{rate_hz:.1f} Hz"] = (rate_hz, streams)
    spliced = [*frames[: given.cut], *behind, *frames[given.cut : 2 * given.cut]]
    carried, cold = (
        follow_all(shown, order, CUT_SETTINGS, given.hashes) for order in (spliced, behind)
    )
    console = Console(width=150)
    console.print(table(
        f"{shown.name}: means over all frames but the first",
        ("Hz", "kept", "reused", "r_c", "age, frames", "ms", "oldest", "agreement", "mIoU"),
        [row for rate_hz, streams in found.values() for row in rate_rows(streams, rate_hz)],
    ))  # fmt: skip
    console.print(table(
        "The last frame at the full rate, all layers: this design, dense, dense of equal area",
        ("kept", "M cycles", "speed, equal array, area", "mJ", "energy, the same", "bound by"),
        hardware_rows(next(iter(found.values()))[1]),
    ))  # fmt: skip
    console.print(table(
        f"Elsewhere after {given.cut} frames, and back after {given.cut} more",
        ("kept", "reused before", "first there, frames to recover", "first back, the same",
         "r_c there, from empty", "agreement", "mIoU", "agreement, mIoU back"),
        cut_rows(carried, cold, given.cut, 2 * given.cut),
    ))  # fmt: skip
    found["there and back"] = (shown.rate_hz, carried)
    write(draw(found, shown.name), "015_reuse_over_frames")


if __name__ == "__main__":
    main()
