"""The page of `codesign similarity`: how alike inputs and layers are, and where clusters lie."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from plotly.colors import hex_to_rgb, sequential

from accelerators import ConfigError
from codesign.report.similarity_plots import (
    distance_figure,
    inputs_figure,
    layers_figure,
    measure_name,
)
from codesign.report.templates import TEMPLATES
from simulator import ReuseRun, input_similarity, layer_similarity, similarity_by_distance
from simulator.analysis.frames import frame_picture, required_images
from simulator.analysis.painting import ALONE, grid_of, paint_clusters, remaining_work
from simulator.analysis.similarity import LayerSimilarity
from simulator.pages.facts import workload_line
from simulator.pages.page import figure_html, render, versions
from simulator.pages.pictures import png_address
from simulator.results.tables import column, named, shown
from workloads.traces.trace import WorkloadTrace
from workloads.writing import write_atomically

_WORK_COLOURS = sequential.Cividis
_BLENDED = (
    "rows of the same colour share most of their clusters, of like colours some; a colour means "
    "nothing in another layer."
)
_ONE = (
    "rows of the same colour are in the same cluster of sub-vector {}, and share its result; a "
    "colour means nothing in another layer."
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How alike the images and the rows of the layers of a trace are.

    Attributes:
        centred: whether images and rows lost their means, as in `simulator.input_similarity`.
        inputs: `(n, n)` of `simulator.input_similarity`.
        layers: of `simulator.layer_similarity`.
    """

    centred: bool
    inputs: np.ndarray
    layers: tuple[LayerSimilarity, ...]

    @classmethod
    def of(cls, trace: WorkloadTrace, *, centred: bool = False) -> Measured:
        """Measure a trace of images.

        Raises:
            ConfigError: the trace has no images.
            TraceError: it has no activations.
        """
        return cls(
            centred=centred,
            inputs=input_similarity(required_images(trace), centred=centred),
            layers=layer_similarity(trace, centred=centred),
        )


def write_similarity_html(
    trace: WorkloadTrace,
    run: ReuseRun,
    measured: Measured,
    path: str | Path,
    *,
    name: str,
    image: int = 0,
    sub_vector: int | None = None,
    command: str | None = None,
) -> Path:
    """Write the page of one trace and of decisions on it.

    Args:
        trace: holds the images.
        run: decisions on the trace.
        measured: of the trace.
        path: of the page.
        name: of the workload, in words.
        image: whose clusters are painted.
        sub_vector: painted alone, in layers that have it; `None` blends all.
        command: named as what made the page.

    Raises:
        ConfigError: the trace has no images, not this one, or the run is of another trace.
    """
    frame = frame_picture(trace, image)
    painted, left_out = _pictures(trace, run, image, sub_vector)
    if sub_vector is not None and not painted:
        raise ConfigError(
            f"sub_vector must be one that a layer has, got {sub_vector} ("
            f"{', '.join(f'{name}: {why}' for name, why in left_out.items())}); use a lower one"
        )
    removed = {
        key: None if made is None else 1 - made.remaining_ratio
        for key, made in run.decisions.items()
    }
    context = {
        "kind": "Similarity of inputs, layers and positions",
        "title": name,
        "subtitle": f"{workload_line(trace.provenance, trace.images)}; {len(trace)} layers",
        "verdict": inputs_text(measured),
        "verdict_more": layers_text(measured),
        "width": frame.shape[1],
        "height": frame.shape[0],
        "frame": png_address(frame),
        "scale": ", ".join(_WORK_COLOURS),
        "alone": ALONE,
        "image": image,
        "clusters_text": _BLENDED if sub_vector is None else _ONE.format(sub_vector),
        "inputs_figures": _inputs_figures(measured),
        "layers_figure": figure_html(
            layers_figure(measured.layers, removed, centred=measured.centred),
            "layers",
            _layers_caption(measured),
        ),
        "columns": layer_columns(measured),
        "rows": layer_rows(measured, run),
        "painted": painted,
        "left_out": left_out,
        "facts": ({"command": command} if command else {})
        | {
            "inputs": trace.provenance.get("source"),
            "weights": trace.provenance.get("weights"),
            "reuse": named(run.policy),
            "made with": named(versions("numpy", "torch")),
        },
    }
    return write_atomically(path, render("similarity.html", TEMPLATES, context))


def layer_columns(measured: Measured) -> list[dict[str, Any]]:
    """Columns of the table of layers."""
    measure = measure_name(centred=measured.centred)
    return [
        column("layer", "Layer", text=True),
        column("kind", "Kind", text=True),
        column("rows", "Rows", "per image"),
        column("within", "In one image", measure),
        column("next", "Next image", f"{measure}, same position"),
        column("remaining", "Remaining ratio", "multiplied, of all sub-vectors"),
    ]


def layer_rows(measured: Measured, run: ReuseRun) -> list[dict[str, Any]]:
    """A row for each layer; a dash where reuse does not apply or nothing is known."""
    return [
        {
            "layer": each.layer,
            "kind": each.kind.replace("_", " "),
            "rows": each.rows_per_image,
            "within": _decimals(each.within_image),
            "next": _decimals(each.next_image),
            "remaining": _decimals(None if made is None else made.remaining_ratio),
        }
        for each, made in zip(measured.layers, run.decisions.values(), strict=True)
    ]


def inputs_text(measured: Measured) -> str:
    """How alike inputs are, in a sentence."""
    similarity = measured.inputs
    if len(similarity) == 1:
        return "One image: only its own rows can be compared."
    measure = measure_name(centred=measured.centred)
    following = similarity_by_distance(similarity)[0]
    pairs = similarity[np.triu_indices(len(similarity), 1)]
    known = pairs[~np.isnan(pairs)]
    if not known.size:
        blank = "of one value" if measured.centred else "all 0"
        return f"No two images have a {measure}: all but one, or all, are {blank}."
    any_two = f"any two images {known.mean():.3f} (1 is the same, 0 unrelated)"
    if np.isnan(following):
        return (
            f"Of images that follow each other, one is always blank; mean {measure} of {any_two}."
        )
    return f"Images that follow each other have a mean {measure} of {following:.3f}, {any_two}."


def layers_text(measured: Measured) -> str:
    """How alike the rows of early and of late layers are, for each kind."""
    told, layers = [], measured.layers
    for kind in dict.fromkeys(each.kind for each in layers):
        found = [x.within_image for x in layers if x.kind == kind and x.within_image is not None]
        if found:
            half = (len(found) + 1) // 2
            told.append(
                f"{kind.replace('_', ' ')} {np.mean(found[:half]):.2f} in the first half of the "
                f"layers and {np.mean(found[half:]):.2f} in the second"
                if len(found) > 1
                else f"{kind.replace('_', ' ')} {found[0]:.2f}"
            )
    measure = measure_name(centred=measured.centred)
    if not told:
        return f"No image has two rows with a {measure} in any layer."
    return f"Mean {measure} of two rows of an image: {'; '.join(told)}."


def _pictures(
    trace: WorkloadTrace, run: ReuseRun, image: int, sub_vector: int | None
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """What the page says of each painted layer, and why the others are not."""
    painted, left_out = [], {}
    for position, layer in enumerate(trace.layers):
        made, grid = run.decisions.get(layer.name), grid_of(trace, layer.name)
        if isinstance(grid, str) or (made is None and layer.name in run.decisions):
            left_out[layer.name] = grid if isinstance(grid, str) else "runs dense"
            continue
        parts = 0 if made is None else layer.gemm.count * made.shared.ids.shape[1]
        if sub_vector is not None and made is not None and sub_vector >= parts:
            left_out[layer.name] = f"{parts} sub-vectors, no number {sub_vector}"
            continue
        clusters = paint_clusters(trace, run, layer.name, image=image, sub_vector=sub_vector)
        work = remaining_work(trace, run, layer.name, image=image)
        assert made is not None  # painting refuses a run of another trace
        painted.append(
            {
                "id": f"picture-{position}",
                "name": layer.name,
                "clusters": png_address(clusters),
                "work": png_address(_as_colours(work)),
                "text": (
                    f"{layer.kind.replace('_', ' ')}, {grid.height} × {grid.width} positions, "
                    f"{shown(parts)} sub-vector{'s' if parts > 1 else ''} each. Remaining ratio "
                    f"{made.remaining_ratio:.3f} (in this image {work.mean():.3f})."
                ),
            }
        )
    return painted, left_out


def _inputs_figures(measured: Measured) -> list[Any]:
    similarity, centred = measured.inputs, measured.centred
    if len(similarity) == 1:
        return []
    measure = measure_name(centred=centred)
    return [
        figure_html(
            inputs_figure(similarity, centred=centred),
            "inputs",
            f"The {measure} of every image with every other, in the order they arrive. Bright "
            "near the diagonal: neighbours are alike, as in video. One even shade but for the "
            "diagonal: images that have nothing to do with each other. A square with sharp edges "
            "is a scene between two cuts.",
        ),
        figure_html(
            distance_figure({"inputs": similarity_by_distance(similarity)}, centred=centred),
            "distance",
            f"Mean {measure} of two images against how far apart they are. What falls from left to "
            "right can be reused from image to image; what is flat comes from the data set as a "
            "whole, such as its brightness.",
        ),
    ]


def _layers_caption(measured: Measured) -> str:
    return (
        f"Mean {measure_name(centred=measured.centred)} of the rows that a layer multiplies "
        "(patches of a convolution, tokens of a transformer): of all pairs of positions in one "
        "image, and of a position with itself in the next image. Circles are convolutions, "
        "squares linear layers, diamonds attention. Dotted: the share of products that the reuse "
        "of this page saves."
    )


def _decimals(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _as_colours(values: np.ndarray) -> np.ndarray:
    """`(h, w)` of 0 to 1 as `(h, w, 3)` uint8."""
    stops = np.array([hex_to_rgb(colour) for colour in _WORK_COLOURS])
    places = np.linspace(0, 1, len(stops))
    channels = [np.interp(values, places, stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
