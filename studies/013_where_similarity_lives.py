"""How alike are the inputs of a stream, and the rows of each layer?

Run it with `python studies/013_where_similarity_lives.py`; it prints two tables and writes a figure
to `studies/out/`. More data by option: `--cifar10 ARCHIVE --cifarnet WEIGHTS`, `--video PATH`; for
Fig. 1 also `--folder PATH` of photographs.

Treasure What You Have, Fig. 1, compares inputs: here pixels 0 to 1, in the order they arrive, by
cosine, and by correlation, which takes from each image its own mean. Fig. 2 compares what a layer
multiplies: here any two rows of one image, and a row with the one at its position in the next.

Answer, as printed on 2026-11-22 with CIFAR-10's JPEG test images, 100 ImageNet photographs and a
film from a car (Udacity, solidWhiteRight) by these options: in time, and in the way the paper says.
Images that follow each other correlate by 0.994 on the road, 0.893 in `bikes` (which has cuts),
0.041 in ImageNet and 0.048 in CIFAR-10; any two images by 0.939, 0.141, 0.023 and 0.038. Cosines
of pixels hide it: 0.77 even between unrelated photographs, which share no more than being bright.
Digits (0.568, any two 0.562) are alike without being a stream.
Within an image, EfficientNet-Lite0's rows are less alike in deeper layers, as the paper has it
(cosine in the early, middle and late third 0.66, 0.47, 0.44 on `bikes`; 0.60, 0.46, 0.41 on the
road), but their correlation is not (0.40, 0.31, 0.36; 0.37, 0.30, 0.34). From frame to frame
nothing is lost with depth: 0.86, 0.80, 0.88 and 0.95, 0.95, 0.96 by cosine. Its kinds of layer
differ more than its thirds do: rows of depthwise layers, 9 taps, hardly correlate within an image.
The paper's comparison with attention needs a trained transformer, which is not among these data:
`codesign similarity --model vit_b_16 --weights FILE` makes it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageOps
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from codesign import load_workload
from simulator import (
    LayerSimilarity,
    input_similarity,
    layer_similarity,
    similarity_by_distance,
)
from workloads import cifar10, digits, video_frames
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"
VIDEO_SIZE = (128, 128)
PAIRS = {
    "within_image": "two positions of one image",
    "next_image": "same position, next image",
}
PHOTOGRAPHS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class InputFigures:
    """Fig. 1 of one data set: means over neighbours and over any two, and the whole matrix."""

    name: str
    cosine_next: float
    cosine_any: float
    correlation_next: float
    correlation_any: float
    correlation: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Network:
    """Fig. 2 of one network."""

    name: str
    cosine: tuple[LayerSimilarity, ...]
    correlation: tuple[LayerSimilarity, ...]


def of_inputs(name: str, images: np.ndarray) -> InputFigures:
    """Compare every image with every other.

    Args:
        name: of the data set.
        images: `(n, ...)` pixels from 0 to 1, in the order they arrive, n at least 2.
    """
    means = []
    for centred in (False, True):
        matrix = input_similarity(images, centred=centred)
        means += [
            similarity_by_distance(matrix)[0],
            np.nanmean(matrix[np.triu_indices_from(matrix, 1)]),
        ]
    return InputFigures(
        name=name,
        cosine_next=means[0],
        cosine_any=means[1],
        correlation_next=means[2],
        correlation_any=means[3],
        correlation=matrix,
    )


def means_of(layers: Sequence[LayerSimilarity], attribute: str) -> list[float | None]:
    """Mean over the first, the middle and the last third of the layers that know it."""
    known = [x for layer in layers if (x := getattr(layer, attribute)) is not None]
    return [float(np.mean(part)) if len(part) else None for part in np.array_split(known, 3)]


def data_sets(given: argparse.Namespace) -> list[tuple[str, np.ndarray]]:
    """Pixels from 0 to 1 of what was asked for."""
    count = given.inputs
    found = [("scanned digits", (digits("test").take(count).images.numpy() + 1) / 2)]
    if given.cifar10:
        images = cifar10(given.cifar10, "test", limit=count, normalise="unit").images
        found.append(("CIFAR-10", images.numpy()))
    if given.folder:
        found.append((given.folder.name, photographs(given.folder, count)))
    for source in ("bikes", *given.video):
        images = video_frames(source, size=VIDEO_SIZE, count=count, normalise="unit").images
        found.append((Path(source).stem, images.numpy()))
    return found


def photographs(folder: Path, count: int) -> np.ndarray:
    """The first images of a folder by name, cut to the middle square, pixels from 0 to 1."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTOGRAPHS)[:count]
    if len(paths) < 2:
        raise SystemExit(f"--folder must hold two images of {PHOTOGRAPHS}, got {len(paths)}")
    cut = [ImageOps.fit(Image.open(path).convert("RGB"), VIDEO_SIZE) for path in paths]
    return np.stack([np.asarray(image, np.float32) for image in cut]) / 255


def networks(given: argparse.Namespace) -> list[Network]:
    """Layers of each network on the inputs that suit it."""
    asked = [("cifarnet", "digits", None)]
    if given.cifar10:
        asked.append(("cifarnet", f"cifar10:{given.cifar10}", given.cifarnet))
    asked += [("efficientnet_lite0", source, None) for source in ("bikes", *given.video)]
    found = []
    for model, inputs, weights in asked:
        workload = load_workload(
            model=model,
            inputs=inputs,
            weights=weights,
            images=given.images,
            calibration_images=0,
        )
        found.append(
            Network(
                name=workload.name,
                cosine=layer_similarity(workload.trace),
                correlation=layer_similarity(workload.trace, centred=True),
            )
        )
    return found


def draw(inputs: list[InputFigures], layers: list[Network]) -> go.Figure:
    """A heat map for each data set; below, a panel for each network."""
    columns = max(len(inputs), len(layers))
    blanks = [""] * columns
    titles = ([each.name for each in inputs] + blanks)[:columns]
    titles += [each.name.replace(" frames of ", " frames of<br>") for each in layers]
    figure = make_subplots(rows=2, cols=columns, subplot_titles=titles, vertical_spacing=0.2)
    for place, each in enumerate(inputs, start=1):
        figure.add_heatmap(
            z=np.rint(100 * each.correlation).astype(np.int8),
            zmin=0,
            zmax=100,
            colorscale="Cividis",
            showscale=place == 1,
            colorbar={"title": "correlation, %<br>(below 0: 0)", "len": 0.4, "y": 0.8},
            row=1,
            col=place,
        )
        figure.update_yaxes(autorange="reversed", title="image", row=1, col=place)
        figure.update_xaxes(title="image", row=1, col=place)
    for place, network in enumerate(layers, start=1):
        for (attribute, words), colour in zip(PAIRS.items(), ("#4178be", "#2a9d84"), strict=True):
            figure.add_scatter(
                x=np.arange(1, len(network.correlation) + 1),
                y=[getattr(layer, attribute) for layer in network.correlation],
                text=[layer.layer for layer in network.correlation],
                mode="lines+markers",
                name=words,
                legendgroup=attribute,
                showlegend=place == 1,
                line={"color": colour},
                row=2,
                col=place,
            )
        figure.update_xaxes(title="layer", row=2, col=place)
        figure.update_yaxes(range=[-0.1, 1.05], title="mean correlation", row=2, col=place)
    figure.update_layout(
        title="How alike inputs are (above, every image with every other), and the rows of layers",
        template="plotly_white",
        height=850,
        font_size=11,
        legend={"orientation": "h", "y": -0.08},
    )
    figure.update_annotations(font_size=12)
    return figure


def _thirds(layers: Sequence[LayerSimilarity], attribute: str) -> str:
    return ", ".join("-" if x is None else f"{x:.2f}" for x in means_of(layers, attribute))


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description="Similarity of inputs and of layers.")
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--cifarnet", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--video", action="append", default=[])
    parser.add_argument("--inputs", type=int, default=200, help="images of each data set")
    parser.add_argument("--images", type=int, default=8, help="images that networks run on")
    given = parser.parse_args()
    inputs = [of_inputs(name, images) for name, images in data_sets(given)]
    layers = networks(given)
    table = Table(title=f"Fig. 1: mean similarity of up to {given.inputs} inputs")
    for name in ("data set", "cosine, next", "any two", "correlation, next", "any two"):
        table.add_column(name, justify="left" if name == "data set" else "right")
    for each in inputs:
        values = (
            each.cosine_next, each.cosine_any, each.correlation_next, each.correlation_any,
        )  # fmt: skip
        table.add_row(each.name, *(f"{value:.3f}" for value in values))
    below = Table(title="Fig. 2: mean similarity of rows, early, middle and late layers")
    for name in ("network", "layers", "pairs", "cosine", "correlation"):
        below.add_column(name)
    for network in layers:
        for attribute, pairs in PAIRS.items():
            below.add_row(
                network.name,
                str(len(network.cosine)),
                pairs,
                *(_thirds(found, attribute) for found in (network.cosine, network.correlation)),
            )
    for each in (table, below):
        Console(width=140).print(each)
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "013_where_similarity_lives.html"
    write_atomically(path, draw(inputs, layers).to_html(include_plotlyjs=True))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
