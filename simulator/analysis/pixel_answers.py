"""What a network answers for every pixel, dense and under reuse, of some frames of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.analysis.frames import frame_picture, image_inputs
from simulator.analysis.painting import Grid, grid_of, paint_clusters
from simulator.running.reuse_run import ReuseRun
from workloads.traces.judged import classes_in
from workloads.traces.scores import IGNORED, LOSS_IGNORED
from workloads.traces.trace import WorkloadTrace

FRAMES = 3


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
