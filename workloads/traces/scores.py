"""How well answers fit labels: what the accuracy of a workload is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import TraceError, show, told

Array = np.ndarray[Any, np.dtype[Any]]

IGNORED = 255
"""The label of a pixel that no loss and no score counts: void, or not labelled."""

LOSS_IGNORED = -100
"""The same as PyTorch's losses have it, for the padding of sequences; never a class."""

SCORES = {
    "accuracy": "fraction of images labelled right",
    "miou": "mean intersection over union",
    "f1": "F1 of lane pixels",
}
"""Scores by name, each 0 to 1, and what they are."""

SCORE_NAMES = {"accuracy": "accuracy", "miou": "mean IoU", "f1": "F1"}
"""The same in a word, for a sentence or a column."""

OWN_SCORE = "score"
"""What a score is called that a user's own function computes."""

ScoreFunction = Callable[[Array, Array], float]
"""A user's own: the judged output and its labels to a score of 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class NamedScore:
    """A score function with the name that reports give it.

    Attributes:
        name: such as "metrics.py:box_iou".
        function: what computes it.
    """

    name: str
    function: ScoreFunction

    def __call__(self, outputs: Array, labels: Array) -> float:
        """The score."""
        return self.function(outputs, labels)


Integers = npt.NDArray[np.integer]


def score_name(name: str) -> str:
    """A score in a word, for a sentence or a column."""
    return SCORE_NAMES.get(name, OWN_SCORE)


def score_meaning(name: str) -> str:
    """What a score is."""
    return SCORES.get(name, f"as {name} has it")


def own_score(name: str, function: ScoreFunction, outputs: Array, labels: Array) -> float:
    """The score of a user's own function.

    Args:
        name: of the function, for messages.
        function: what was given.
        outputs: the judged output, as the model gave it.
        labels: what is expected.

    Raises:
        TraceError: it fails, or returns no number of 0 to 1.
    """
    try:
        found = function(outputs, labels)
        value = float(found)
    except Exception as error:  # the user's code may raise anything
        raise TraceError(
            f"score {name} must judge outputs of shape {outputs.shape} by labels of shape "
            f"{labels.shape}, got {told(error)}; check the function"
        ) from error
    if not 0 <= value <= 1:
        raise TraceError(
            f"score {name} must return a number of 0 to 1, where more is better, got "
            f"{show(found)}; scale it"
        )
    return value


def is_counted(labels: Integers, classes: int = 0) -> npt.NDArray[np.bool_]:
    """Which labels count: all but `IGNORED` and `LOSS_IGNORED`, where there are several an image.

    Args:
        labels: of any shape.
        classes: how many the model knows, 0 if nobody knows; among more than 255, `IGNORED` is one.
    """
    if labels.ndim < 2:
        return np.ones(labels.shape, dtype=bool)
    counted = np.asarray(labels != LOSS_IGNORED)
    return counted if classes > IGNORED else counted & (labels != IGNORED)


def score(name: str, answers: Integers, labels: Integers, classes: int = 0) -> float:
    """One of `SCORES` of a batch.

    Args:
        name: which.
        answers: `(images,)` classes, or several an image, as `(images, height, width)` of pixels.
        labels: the same shape; those that `is_counted` leaves out do not count.
        classes: how many the model knows, 0 if nobody knows.

    Returns:
        The score; NaN where no label counts.

    Raises:
        TraceError: for an unknown name, or labels of another shape than the answers.
    """
    if answers.shape != labels.shape:
        raise TraceError(
            f"labels must be a class for each answer, of shape {answers.shape}, got "
            f"{labels.shape}; give labels of the size that the model answers in"
        )
    if name == "accuracy":  # without the table, which is huge where classes are words
        counted = is_counted(labels, classes)
        return _ratio((answers == labels)[counted].sum(), counted.sum())
    return score_of(name, confusion(answers, labels))


def score_of(name: str, counts: npt.NDArray[np.int64]) -> float:
    """One of `SCORES`, of the counts that `confusion` gives.

    Raises:
        TraceError: for an unknown name.
    """
    match name:
        case "accuracy":
            return accuracy(counts)
        case "miou":
            return mean_iou(counts)
        case "f1":
            return f1(counts)
    raise TraceError(f"score must be one of {', '.join(SCORES)}, got {name!r}")


def confusion(answers: Integers, labels: Integers, classes: int = 0) -> npt.NDArray[np.int64]:
    """Counts of each label (down) with each answer (across).

    Args:
        answers: classes, of any shape.
        labels: the same shape; those that `is_counted` leaves out do not count.
        classes: least number of rows and columns, for adding counts of several batches.
    """
    labels, answers = labels.astype(np.int64), answers.astype(np.int64)
    counted = is_counted(labels)
    labels, answers = labels[counted], answers[counted]
    classes = max(classes, int(labels.max(initial=0)) + 1, int(answers.max(initial=0)) + 1)
    pairs = np.bincount((labels * classes + answers).ravel(), minlength=classes**2)
    return pairs.reshape(classes, classes)


def accuracy(counts: npt.NDArray[np.int64]) -> float:
    """Share of what was counted that was right."""
    return _ratio(counts.diagonal().sum(), counts.sum())


def class_iou(counts: npt.NDArray[np.int64]) -> list[float | None]:
    """Intersection over union of each class; None where the labels never show it."""
    hits = counts.diagonal()
    labelled = counts.sum(axis=1)
    union = labelled + counts.sum(axis=0) - hits
    return [
        float(hit / either) if shown else None
        for hit, either, shown in zip(hits, union, labelled, strict=True)
    ]


def mean_iou(counts: npt.NDArray[np.int64]) -> float:
    """Mean intersection over union of the classes that the labels show.

    Over all pixels together, as PASCAL VOC has it, not image by image. An answer of a class that
    the labels never show is a miss of the right class, and no class of its own.
    """
    shown = [value for value in class_iou(counts) if value is not None]
    return sum(shown) / len(shown) if shown else float("nan")


def f1(counts: npt.NDArray[np.int64]) -> float:
    """Harmonic mean of precision and recall of class 1, lane; 1.0 is every pixel right."""
    if len(counts) < 2:
        return float("nan")
    return _ratio(2 * counts[1, 1], counts[1].sum() + counts[:, 1].sum())


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else float("nan")
