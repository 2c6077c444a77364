"""What a network on video is trained for: a loss, and a score that says how well it does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy, max_pool2d

from workloads.errors import show
from workloads.streams.clips import Clips
from workloads.streams.lanes import LANE_CLASSES
from workloads.traces.scores import IGNORED, accuracy, class_iou, confusion, mean_iou
from workloads.training.classifier import TrainingError

_MOST_TOLERANCE = 4096  # pixels, more than a frame has in either direction


class Score(Protocol):
    """Counts how well outputs fit labels, batch after batch."""

    def add(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Count `(n, classes, height, width)` outputs against `(n, height, width)` labels."""

    def values(self) -> dict[str, float]:
        """The figures so far by name, each 0 to 1; the first is the task's main one."""


class Task(Protocol):
    """A loss and a score."""

    @property
    def outputs(self) -> int:
        """Classes the network must tell apart: its `num_classes`."""

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The task's loss, a scalar; labels of `IGNORED` do not count."""

    def score(self) -> Score:
        """A new score that has counted nothing."""


@dataclass(frozen=True, kw_only=True)
class SceneParsing:
    """A class for every pixel, scored by mean intersection over union.

    Attributes:
        classes: their names, in label order.
        class_weights: of each class in the loss; all alike by default, see `balanced_weights`.
    """

    classes: tuple[str, ...]
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        listed = isinstance(self.classes, tuple | list)
        if not listed or not all(isinstance(name, str) for name in self.classes):
            raise TrainingError(
                f"SceneParsing.classes must be a tuple of names, got {show(self.classes)}"
            )
        _check_weights("SceneParsing.class_weights", self.class_weights, len(self.classes))

    @property
    def outputs(self) -> int:
        """One per class."""
        return len(self.classes)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, the weighted mean over labelled pixels.

        Args:
            outputs: `(n, classes, height, width)` logits.
            labels: `(n, height, width)` int64 classes, `IGNORED` where there is none.

        Raises:
            TrainingError: for other shapes, unknown classes, and where nothing is labelled.
        """
        return _cross_entropy(outputs, labels, self.outputs, self.class_weights)

    def score(self) -> IntersectionOverUnion:
        """Mean intersection over union and pixel accuracy."""
        return IntersectionOverUnion(classes=self.classes)


@dataclass(frozen=True, kw_only=True)
class LaneDetection:
    """Lane marks told from all else, pixel by pixel, scored by F1.

    Treasure gives an F1 and no rule for a hit. Here a hit is a pixel, exactly on the label unless
    `tolerance` allows a distance; benchmarks that match whole lanes give other figures.

    Attributes:
        class_weights: of (other, lane) in the loss. Lanes are a few per cent of the pixels.
        tolerance: pixels (in each direction) that a lane pixel may be off and still hit.
    """

    class_weights: tuple[float, ...] | None = None
    tolerance: int = 0

    def __post_init__(self) -> None:
        _check_weights("LaneDetection.class_weights", self.class_weights, self.outputs)
        if type(self.tolerance) is not int or not 0 <= self.tolerance <= _MOST_TOLERANCE:
            raise TrainingError(
                f"LaneDetection.tolerance must be an integer from 0 to {_MOST_TOLERANCE}, got "
                f"{show(self.tolerance)}"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in label order."""
        return LANE_CLASSES

    @property
    def outputs(self) -> int:
        """Two: other and lane."""
        return 2

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, the weighted mean over labelled pixels; as `SceneParsing.loss`."""
        return _cross_entropy(outputs, labels, self.outputs, self.class_weights)

    def score(self) -> LaneF1:
        """F1, precision and recall."""
        return LaneF1(tolerance=self.tolerance)


@dataclass(kw_only=True)
class IntersectionOverUnion:
    """Mean intersection over union, and the share of labelled pixels that are right.

    See `workloads.traces.scores.mean_iou`.

    Attributes:
        classes: their names, in label order.
        confusion: `(classes, classes)` int64 pixel counts, labels down and answers across.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)

    def add(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Count `(n, classes, h, w)` outputs against `(n, h, w)` labels; `IGNORED` is left out."""
        count = len(self.classes)
        _check_outputs(outputs, labels, count)
        answers = outputs.argmax(dim=1).cpu().numpy()
        self.confusion += confusion(answers, labels.cpu().numpy(), count)

    def by_class(self) -> dict[str, float | None]:
        """Intersection over union of each class; None where the labels never showed it."""
        return dict(zip(self.classes, class_iou(self.confusion), strict=True))

    def values(self) -> dict[str, float]:
        """`miou` and `pixel_accuracy`.

        Raises:
            TrainingError: if nothing labelled was counted.
        """
        if not self.confusion.any():
            raise TrainingError("a score needs labelled pixels, got none; score a labelled clip")
        return {"miou": mean_iou(self.confusion), "pixel_accuracy": accuracy(self.confusion)}


@dataclass(kw_only=True)
class LaneF1:
    """F1 of lane pixels: the harmonic mean of precision and recall, over all pixels together.

    Attributes:
        tolerance: an answered lane pixel is right if a labelled one lies within this many pixels
            in each direction, and a labelled one is found likewise.
        answered: pixels answered as lane.
        right: those of them that are right.
        labelled: pixels labelled as lane.
        found: those of them that are found.
    """

    tolerance: int = 0
    answered: int = field(default=0, init=False)
    right: int = field(default=0, init=False)
    labelled: int = field(default=0, init=False)
    found: int = field(default=0, init=False)

    def add(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Count `(n, 2, h, w)` outputs against `(n, h, w)` labels; `IGNORED` is left out."""
        _check_outputs(outputs, labels, 2)
        counted = labels != IGNORED
        answer = (outputs.argmax(dim=1) == 1) & counted
        label = labels == 1
        self.answered += int(answer.sum())
        self.labelled += int(label.sum())
        self.right += int((answer & self._near(label)).sum())
        self.found += int((label & self._near(answer)).sum())

    def _near(self, mask: torch.Tensor) -> torch.Tensor:
        if self.tolerance == 0:
            return mask
        window = 2 * self.tolerance + 1
        return max_pool2d(mask[:, None].float(), window, stride=1, padding=self.tolerance)[:, 0] > 0

    def values(self) -> dict[str, float]:
        """`f1`, `precision` and `recall`; what has nothing to count is 0.

        Raises:
            TrainingError: if no lane was labelled.
        """
        if self.labelled == 0:
            raise TrainingError("F1 needs labelled lane pixels, got none; score other frames")
        precision = self.right / self.answered if self.answered else 0.0
        recall = self.found / self.labelled
        both = precision + recall
        return {
            "f1": 2 * precision * recall / both if both else 0.0,
            "precision": precision,
            "recall": recall,
        }


def balanced_weights(
    clips: Clips, classes: tuple[str, ...], *, offset: float = 1.02
) -> tuple[float, ...]:
    """Class weights 1 / ln(offset + share of the labelled pixels), scaled to a mean of 1.

    Args:
        clips: labelled clips to count in.
        classes: their names, in label order.
        offset: above 1; the smaller, the more rare classes weigh. 1.02 is ENet's (Paszke et al.,
            2016), 1.10 a milder choice.

    Raises:
        TrainingError: for clips without labels, and for a class that they never show.
    """
    if offset <= 1:
        raise TrainingError(f"balanced_weights offset must be above 1, got {offset}; try 1.02")
    counts = torch.zeros(len(classes), dtype=torch.int64)
    for index in range(len(clips)):
        labels = clips[index].labels
        if labels is None:
            raise TrainingError(f"clip {index} must have labels, got none; give labelled clips")
        counts += torch.bincount(labels[labels != IGNORED], minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if absent:
        raise TrainingError(
            f"every class must occur in the training clips, got no pixel of {', '.join(absent)}; "
            "use more clips, or leave these classes out"
        )
    weights = 1 / (offset + counts / counts.sum()).log()
    return tuple((weights / weights.mean()).tolist())


def _cross_entropy(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    class_weights: tuple[float, ...] | None,
) -> torch.Tensor:
    _check_outputs(outputs, labels, classes)
    if bool((labels == IGNORED).all()):
        raise TrainingError(
            "labels must hold a labelled pixel, got none in the whole batch; leave unlabelled "
            "clips out of the task's loss"
        )
    weight = None if class_weights is None else outputs.new_tensor(class_weights)
    return cross_entropy(outputs, labels, weight=weight, ignore_index=IGNORED)


def _check_outputs(outputs: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
    expected = (len(labels), classes, *labels.shape[1:])
    if labels.ndim != 3 or outputs.shape != expected:
        raise TrainingError(
            f"outputs must be of shape (n, {classes}, height, width) for labels of (n, height, "
            f"width), got {tuple(outputs.shape)} for {tuple(labels.shape)}; build the network with "
            f"num_classes={classes}"
        )
    known = labels[labels != IGNORED]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < classes:
        raise TrainingError(
            f"labels must be classes 0 to {classes - 1} or {IGNORED}, got {int(known.min())} to "
            f"{int(known.max())}"
        )


def _check_weights(name: str, weights: tuple[float, ...] | None, count: int) -> None:
    if weights is None:
        return
    listed = isinstance(weights, tuple | list) and len(weights) == count
    if not listed or not all(
        isinstance(weight, int | float) and 0 < weight < math.inf for weight in weights
    ):
        raise TrainingError(f"{name} must be {count} numbers above 0, got {show(weights)}")
