"""What a network answers for every pixel, dense and under reuse, as pictures beside the frames."""

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from simulator.analysis.painting import Grid, grid_of, paint_clusters
from simulator.pages.page import percent
from simulator.pages.pictures import frame_picture, image_inputs, png_address
from simulator.running.decide import ReuseRun
from workloads.traces.judged import classes_in
from workloads.traces.scores import IGNORED, LOSS_IGNORED
from workloads.traces.trace import WorkloadTrace

FRAMES = 3
# Larger pictures are thinned out: a page shows them a few hundred pixels wide.
_LARGEST_SIDE = 640
# The first are in the order of CamVid's classes, near to what these look like.
_COLOURS = (
    (140, 192, 235), (176, 92, 70), (190, 184, 140), (130, 100, 148), (236, 160, 198),
    (84, 145, 66), (238, 200, 40), (125, 112, 100), (44, 66, 185), (224, 44, 56), (0, 165, 165),
)  # fmt: skip
_UNLABELLED_COLOUR = (0, 0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelAnswers:
    """Some frames of a batch with the class of every pixel.

    Attributes:
        frames: `(n, h, w, 3)` uint8.
        dense: `(n, height, width)` classes that the dense model answers.
        reuse: the same under reuse.
        labels: the same, as labelled; `None` without labels.
        clusters: `(n, rows, columns, 3)` uint8, see `simulator.paint_clusters`; `None` where
            nothing reused has positions.
        layer: whose clusters are painted.
        class_names: of class 0, 1, ...; where they end, classes are called by their number.
    """

    frames: np.ndarray
    dense: np.ndarray
    reuse: np.ndarray
    labels: np.ndarray | None = None
    clusters: np.ndarray | None = None
    layer: str | None = None
    class_names: Sequence[str] = ()


def pixel_answers(
    trace: WorkloadTrace, run: ReuseRun, *, frames: int = FRAMES
) -> PixelAnswers | None:
    """Answers for pixels, to be looked at: `replace(report, pixels=pixel_answers(trace, run))`.

    Args:
        trace: the workload.
        run: decisions on it, made with the model.
        frames: how many at most, spread evenly over the batch.

    Returns:
        `None` unless the model takes images and gives every pixel a class.
    """
    outputs, answers = trace.outputs, run.answers
    if outputs is None or answers is None or answers.ndim != 3 or image_inputs(trace) is None:
        return None
    if len(answers) != trace.images:  # the user's dimension of classes is that of the images
        return None
    classes = classes_in(trace.provenance, outputs)
    chosen = np.unique(np.linspace(0, trace.images - 1, frames).astype(int))
    labels, layer = trace.labels, _most_positions(trace, run)
    if labels is not None:
        labels = np.where(labels == LOSS_IGNORED, IGNORED, labels)
    return PixelAnswers(
        frames=np.stack([frame_picture(trace, int(image)) for image in chosen]),
        dense=classes.answers(outputs[chosen]),
        reuse=answers[chosen],
        labels=labels[chosen] if labels is not None and labels.ndim == 3 else None,
        clusters=None
        if layer is None
        else np.stack([paint_clusters(trace, run, layer, image=int(image)) for image in chosen]),
        layer=layer,
        class_names=tuple(trace.provenance.get("classes", ())),
    )


def _most_positions(trace: WorkloadTrace, run: ReuseRun) -> str | None:
    """The reused layer whose clusters make the finest picture; the larger of two alike."""
    sizes = {}
    for layer in trace.layers:
        grid = grid_of(trace, layer.name)
        if run.decisions.get(layer.name) is not None and isinstance(grid, Grid):
            sizes[layer.name] = grid.height * grid.width, layer.gemm.macs
    return max(sizes, key=sizes.__getitem__, default=None)


def pixel_answers_html(pixels: PixelAnswers, text: str, name: str = "pixels") -> Markup:
    """A row of pictures for each frame, and what the colours mean.

    Args:
        pixels: what is shown.
        text: what stands under the pictures.
        name: unique on the page, without spaces.
    """
    columns = _columns(pixels)
    cells = Markup("").join(
        [Markup("<p><strong>{}</strong></p>").format(title) for title in columns]
        + [picture for row in zip(*columns.values(), strict=True) for picture in row]
    )
    return Markup(
        '<figure class="pixels" id="{name}"><div class="pictures" style="--columns: {count}">'
        "{cells}</div><p>{legend}</p><p><strong>{text}</strong></p><figcaption>{caption}</figcaption></figure>"
    ).format(
        name=name,
        count=len(columns),
        cells=cells,
        legend=_legend(pixels),
        text=text,
        caption=_caption(pixels),
    )


def _columns(pixels: PixelAnswers) -> dict[str, list[Markup]]:
    """Title -> pictures, from the first frame to the last."""
    frames = [png_address(_thinned(frame)) for frame in pixels.frames]
    columns = {"Frame": [_picture(frame, "a frame") for frame in frames]}
    if pixels.labels is not None:
        columns["As labelled"] = list(_maps(pixels.labels, "classes as labelled"))
    columns["Dense network"] = list(_maps(pixels.dense, "classes of the dense network"))
    columns["With reuse"] = list(_maps(pixels.reuse, "classes under reuse"))
    columns["Where they differ"] = list(_differences(pixels, frames))
    if pixels.clusters is not None:
        title = f"Clusters in {pixels.layer}"
        columns[title] = [_picture(png_address(each), title) for each in pixels.clusters]
    return columns


def _maps(classes: np.ndarray, words: str) -> Iterator[Markup]:
    for each in classes:
        yield _picture(png_address(_coloured(_thinned(each))), words)


def _differences(pixels: PixelAnswers, frames: Sequence[str]) -> Iterator[Markup]:
    """The frame faintly, and over it what reuse answers where that differs."""
    for frame, dense, reuse in zip(frames, pixels.dense, pixels.reuse, strict=True):
        differs = dense != reuse
        over = np.dstack([_coloured(_thinned(reuse)), 255 * _thinned(differs).astype(np.uint8)])
        words = f"{percent(1 - differs.mean())} % of pixels agree"
        yield Markup(
            '<div><div class="layered"><img class="faint" src="{}" alt=""><img src="{}" '
            'alt="{}"></div><p class="note">{}</p></div>'
        ).format(frame, png_address(over), words, words)


def _picture(address: str, words: str) -> Markup:
    return Markup('<div><img src="{}" alt="{}"></div>').format(address, words)


def _thinned(array: np.ndarray) -> np.ndarray:
    """Every so many-th row and column, so that no side is too long for a page."""
    step = -(-max(array.shape[:2]) // _LARGEST_SIDE)
    return array[::step, ::step]


def _coloured(classes: np.ndarray) -> np.ndarray:
    """`(h, w)` classes as `(h, w, 3)` uint8."""
    colours = np.full((max(IGNORED, int(classes.max())) + 1, 3), _UNLABELLED_COLOUR, np.uint8)
    for number in np.unique(classes):
        if number != IGNORED:
            colours[number] = _colour(int(number))
    return colours[classes]


def _colour(number: int) -> tuple[int, ...]:
    """Of a class; beyond those listed, hues a golden section apart."""
    if number < len(_COLOURS):
        return _COLOURS[number]
    hue = number * 0.618034 % 1
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.65, 0.85))


def _legend(pixels: PixelAnswers) -> Markup:
    """The classes that a picture shows."""
    maps = [pixels.dense, pixels.reuse, *([] if pixels.labels is None else [pixels.labels])]
    shown = np.unique(np.concatenate([np.unique(each) for each in maps]))
    return Markup(" ").join(
        Markup('<span class="class"><span style="background: rgb{}"></span>{}</span>').format(
            _colour(int(number)), _class_name(pixels, int(number))
        )
        for number in shown
        if pixels.labels is None or number != IGNORED
    )


def _class_name(pixels: PixelAnswers, number: int) -> str:
    names = pixels.class_names
    return names[number] if number < len(names) else f"class {number}"


def _caption(pixels: PixelAnswers) -> str:
    told: list[Any] = [
        "The network colours every pixel by what it takes it for. Where they differ: the frame "
        "in grey, and in colour the pixels that get another class under reuse, which is the one "
        "painted."
    ]
    if pixels.labels is None:
        told.append(
            "There are no labels: what the dense network sees may itself be wrong, and is only "
            "what reuse is compared with."
        )
    if pixels.clusters is not None:
        told.append(
            f"Clusters: positions of the same colour share most of their results in the layer "
            f"{pixels.layer}; grey ones are computed for themselves."
        )
    return " ".join(told)
