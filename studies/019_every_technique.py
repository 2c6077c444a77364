"""Which technique pays, alone and with another, on one accelerator?

Run it with `python studies/019_every_technique.py --camvid FOLDER --cifar10 ARCHIVE --resnet56
FILE`; without options it takes the scenes that need no data of yours: the small ResNet-18 on the
first shot of `bikes`, and on a still picture over which a patch moves. It prints a table, and
writes it with a figure to `studies/out/`. `--techniques` and `--scenes` name some of them. What is
there already is not searched again: remove `studies/out/019` after a change of the code.

Each row: a small search (10 trials) of the technique's settings and of its units' sizes, with the
dense designs that every search tries, on the inputs to choose on; the design with the least product
of time and energy of those that lose at most a point there (of score, or of agreement with the
dense network), else the one that loses least, is judged on inputs that follow and that no search
saw. Speed and energy stand beside dense on the same array, and beside the best dense design of
equal area. No technique is a factor: each decides on real activations, and one decision gives
accuracy, cycles and energy.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table
from technique_rows import TRIALS, Row, Scene, row_of

from codesign.space.techniques import searched
from simulator import techniques
from simulator.results.published import published_figures
from workloads import video_frames
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out" / "019"
# Study tools, lists of a user's own, and what is a form of another.
LEFT_OUT = ("k_means", "hyper_cube", "dropped_tokens", "region_of_interest")
# Two at once, each on what the one before leaves; with a comma, frames beside layers.
PAIRS = ("changes+leaders", "vip+leaders", "vip+changes", "eva2,leaders", "noscope,leaders")
# Of the still picture: frames, and pixels that the patch moves from one to the next.
STILL_FRAMES, PATCH, STEP = 24, 24, 3


def still_clip(folder: Path) -> Path:
    """A picture of `bikes` over which a patch of another part of it moves: a camera that stands."""
    path = folder / "still.npy"
    if path.exists():
        return path
    (frame,) = video_frames("bikes", count=1, size=(120, 160)).images[:1]
    picture = np.asarray(frame)
    frames = np.repeat(picture[None], STILL_FRAMES, axis=0)
    patch = picture[:, -PATCH:, -PATCH:].copy()
    for number in range(STILL_FRAMES):
        left = 10 + STEP * number
        frames[number, :, 40 : 40 + PATCH, left : left + PATCH] = patch
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path, frames)
    return path


def scenes(given: argparse.Namespace) -> dict[str, Scene]:
    """Those that the options have data for."""
    small = "resnet18_camvid"
    found = {
        "bikes": Scene(
            name="small ResNet-18, bikes", model=small, inputs="bikes", choose=6, judge=12
        ),
        "still": Scene(
            name="small ResNet-18, still", model=small, inputs=str(still_clip(OUT)), choose=6,
            judge=12,
        ),
    }  # fmt: skip
    if given.camvid is not None:
        drive = f"camvid:{given.camvid}"
        found["small"] = Scene(
            name="small ResNet-18, street", model=small, inputs=drive, choose=8, judge=16
        )
        found["wide"] = Scene(
            name="wide ResNet-18, street", model="resnet18_w64_camvid", inputs=drive, choose=4,
            judge=8,
        )  # fmt: skip
    if given.cifar10 is not None:
        images = f"cifar10:{given.cifar10}"
        found["vgg16"] = Scene(
            name="VGG-16, CIFAR-10", model="vgg16_cifar10", inputs=images, choose=50, judge=100,
            frames=False, calibrate=20,
        )  # fmt: skip
        if given.resnet56 is not None:
            found["resnet56"] = Scene(
                name="ResNet-56, CIFAR-10", model="resnet56", inputs=images, choose=50, judge=100,
                frames=False, weights=given.resnet56, calibrate=20,
            )  # fmt: skip
    return found


def rows_of(
    scene: Scene, folder: Path, choices: Sequence[str], trials: int, console: Console
) -> list[Row]:
    """A row for each choice of techniques; those that are there are read."""
    found, workload = [], None
    folder.mkdir(parents=True, exist_ok=True)
    for choice in choices:
        path = folder / f"{choice}.json"
        if path.exists():
            found.append(Row(**json.loads(path.read_text())))
            continue
        workload = scene.workload() if workload is None else workload
        row = row_of(scene, workload, choice, folder, trials)
        write_atomically(path, json.dumps(asdict(row)))
        console.print(f"{scene.name}: {choice}: {row.reason or _short(row)}", highlight=False)
        found.append(row)
    return found


def _short(row: Row) -> str:
    assert row.removed is not None and row.after is not None and row.dense is not None
    return (
        f"{row.removed:.2f} removed, {row.speed_equal:.2f}x speed and {row.energy_equal:.2f}x "
        f"energy at equal area, {100 * (row.after - row.dense):+.1f} points"
    )


def published(choice: str) -> str:
    """The first published figure of a technique with its source, in a line."""
    entry = techniques().get(choice)
    rows = [] if entry is None else published_figures(entry.published)
    if not rows:
        return ""
    first = rows[0]
    return f"{first['metric']}: {first['value']} ({first['source']})"


def main() -> None:
    """Print the table, write it and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camvid", type=Path, help="CamVid folder of consecutive frames, 15 Hz")
    parser.add_argument("--cifar10", type=Path, help="CIFAR-10 archive")
    parser.add_argument("--resnet56", type=Path, help="weights of ResNet-56 on CIFAR-10")
    parser.add_argument("--scenes", nargs="*", help="some of them")
    parser.add_argument("--techniques", nargs="*", help="names, pairs with + or ,")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each small search")
    given = parser.parse_args()
    console = Console(width=200)
    own = [name for name in searched() if name not in LEFT_OUT]
    known = {*own}
    pairs = [p for p in PAIRS if {*p.replace(",", "+").split("+")} <= known]
    choices = given.techniques or [*own, *pairs]
    known_scenes = scenes(given)
    rows = [
        row
        for name, scene in known_scenes.items()
        if given.scenes is None or name in given.scenes
        for row in rows_of(scene, OUT / f"{name}_{given.trials}", choices, given.trials, console)
    ]
    _print(rows, console)
    _write(rows)


def answer(rows: Sequence[Row]) -> str:
    """One sentence on what pays: at most a point lost where it is judged, faster and thriftier."""
    paying = [
        row
        for row in rows
        if row.after is not None
        and row.dense is not None
        and row.dense - row.after <= 0.01
        and (row.speed_equal or 0) >= 1
        and (row.energy_equal or 2) < 1
    ]
    if not paying:
        return "At equal area nothing here is faster and thriftier than dense within a point."
    by_scene: dict[str, list[Row]] = {}
    for row in paying:
        by_scene.setdefault(row.scene, []).append(row)
    told = []
    for scene, of_scene in by_scene.items():
        best = sorted(of_scene, key=lambda row: (row.energy_equal or 0) / (row.speed_equal or 1))
        names = ", ".join(
            f"{row.technique} ({row.speed_equal:.2f}x, {row.energy_equal:.2f}x)" for row in best[:4]
        )
        told.append(f"on {scene}: {names}")
    return (
        "Faster and thriftier than the best dense design of equal area, at most a point lost "
        f"(speed, energy): {'; '.join(told)}."
    )


def _print(rows: Sequence[Row], console: Console) -> None:
    console.print(answer(rows), highlight=False)
    table = Table(title="Techniques on one accelerator, judged on unseen inputs")
    for heading in Row.headings():
        table.add_column(heading)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def _write(rows: Sequence[Row]) -> None:
    """The page: the answer, a plot of speed and energy, and the table with published figures."""
    OUT.mkdir(parents=True, exist_ok=True)
    figure = go.Figure()
    for scene in dict.fromkeys(row.scene for row in rows):
        own = [row for row in rows if row.scene == scene and row.speed_equal is not None]
        figure.add_scatter(
            name=scene,
            x=[row.speed_equal for row in own],
            y=[row.energy_equal for row in own],
            text=[row.technique for row in own],
            mode="markers+text",
            textposition="top center",
        )
    figure.add_hline(y=1, line_dash="dot")
    figure.add_vline(x=1, line_dash="dot")
    figure.update_layout(
        title=answer(rows),
        xaxis_title="speed against the best dense design of equal area",
        yaxis_title="energy against it",
        height=700,
    )
    columns = [*Row.headings(), "published"]
    cells = [[*row.cells(), published(row.technique)] for row in rows]
    listed = go.Figure(
        go.Table(
            header={"values": columns, "align": "left"},
            cells={"values": [list(each) for each in zip(*cells, strict=True)], "align": "left"},
        )
    )
    listed.update_layout(height=400 + 24 * len(rows))
    page = figure.to_html(include_plotlyjs=True, full_html=False)
    page += listed.to_html(include_plotlyjs=False, full_html=False)
    write_atomically(OUT / "019_every_technique.html", page)
    write_atomically(OUT / "019_every_technique.json", json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
