"""What a network answers for every pixel, dense and under reuse, as pictures beside the frames."""

import colorsys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from simulator.analysis.pixel_answers import PixelAnswers
from simulator.pages.page import TEMPLATES, fragment
from simulator.pages.pictures import png_address
from simulator.results.tables import percent
from workloads.traces.scores import IGNORED

# Larger pictures are thinned out: a page shows them a few hundred pixels wide.
_LARGEST_SIDE = 640
# The first are in the order of CamVid's classes, near to what these look like.
_COLOURS = (
    (140, 192, 235), (176, 92, 70), (190, 184, 140), (130, 100, 148), (236, 160, 198),
    (84, 145, 66), (238, 200, 40), (125, 112, 100), (44, 66, 185), (224, 44, 56), (0, 165, 165),
)  # fmt: skip
_UNLABELLED_COLOUR = (0, 0, 0)


def pixel_answers_html(pixels: PixelAnswers, text: str, name: str = "pixels") -> Markup:
    """A row of pictures for each frame, and what the colours mean.

    Args:
        pixels: what is shown.
        text: what stands under the pictures.
        name: unique on the page, without spaces.
    """
    columns = _columns(pixels)
    context = {
        "name": name,
        "titles": list(columns),
        "pictures": [picture for row in zip(*columns.values(), strict=True) for picture in row],
        "classes": _classes(pixels),
        "text": text,
        "caption": _caption(pixels),
    }
    return fragment("pixel_answers.html", TEMPLATES, context)


def _columns(pixels: PixelAnswers) -> dict[str, list[dict[str, Any]]]:
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


def _maps(classes: np.ndarray, words: str) -> Iterator[dict[str, Any]]:
    for each in classes:
        yield _picture(png_address(_coloured(_thinned(each))), words)


def _differences(pixels: PixelAnswers, frames: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The frame faintly, and over it what reuse answers where that differs."""
    for frame, dense, reuse in zip(frames, pixels.dense, pixels.reuse, strict=True):
        differs = dense != reuse
        over = np.dstack([_coloured(_thinned(reuse)), 255 * _thinned(differs).astype(np.uint8)])
        words = f"{percent(1 - differs.mean())} % of pixels agree"
        yield _picture(png_address(over), words, below=frame)


def _picture(address: str, words: str, below: str | None = None) -> dict[str, Any]:
    """A picture as the page's template takes it: `below` lies another, which it lets through."""
    return {"address": address, "words": words, "below": below}


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


def _classes(pixels: PixelAnswers) -> list[dict[str, Any]]:
    """Colour and name of each class that a picture shows."""
    maps = [pixels.dense, pixels.reuse, *([] if pixels.labels is None else [pixels.labels])]
    numbers = np.unique(np.concatenate([np.unique(each) for each in maps]))
    return [
        {"colour": _colour(int(number)), "name": _class_name(pixels, int(number))}
        for number in numbers
        if pixels.labels is None or number != IGNORED
    ]


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
