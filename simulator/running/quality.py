"""How good a model's answers are under reuse, beside the labels and the dense model's."""

import math
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from simulator.results.intervals import intervals
from workloads.traces.judged import Classes, classes_in
from workloads.traces.scores import SCORES, own_score, score
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class _Dense:
    """What is asked of the dense model's outputs each time, found once a trace."""

    known: np.ndarray
    classes: Classes

    @cached_property
    def power(self) -> float | None:
        """Their mean square."""
        return _mean_square(self.known, 0)

    @cached_property
    def answers(self) -> np.ndarray:
        """Their classes."""
        return self.classes.answers(self.known)


_known: weakref.WeakKeyDictionary[WorkloadTrace, _Dense] = weakref.WeakKeyDictionary()


def _dense(trace: WorkloadTrace, known: np.ndarray) -> _Dense:
    if trace not in _known:
        _known[trace] = _Dense(known=known, classes=classes_in(trace.provenance, known))
    return _known[trace]


def quality_of(trace: WorkloadTrace, outputs: np.ndarray | None) -> dict[str, Any]:
    """Answers of a model under reuse, and how they differ from the labels and the dense ones."""
    known = trace.outputs
    if outputs is None or known is None:
        return {"unjudged": "the model returned no tensor"}
    if outputs.shape != known.shape:
        return {
            "unjudged": f"the model gave outputs of shape {outputs.shape} under reuse, and of "
            f"{known.shape} without"
        }
    lost = int(np.count_nonzero(~np.isfinite(outputs)))
    quality: dict[str, Any] = {}
    if lost:
        quality["unjudged"] = f"{lost} of {outputs.size} outputs are NaN or infinite under reuse"
    else:
        error, power = _mean_square(outputs, known), _dense(trace, known).power
        quality["output_mse"] = error
        if error is not None and power:
            quality["output_error"] = error / power
    return quality | _compared(trace, outputs, known, lost)


def _compared(
    trace: WorkloadTrace, outputs: np.ndarray, known: np.ndarray, lost: int
) -> dict[str, Any]:
    """Answers under reuse beside the dense ones and the labels, or why there are none.

    Args:
        trace: the workload.
        outputs: under reuse.
        known: dense.
        lost: how many values under reuse are not finite; an answer with one is a wrong one.
    """
    labels, classes = trace.labels, _dense(trace, known).classes
    own: dict[str, Any] = {}
    if trace.score_function is not None and not lost:
        expected = known if labels is None else labels
        own = {
            name: own_score(trace.score, trace.score_function, answers, expected)
            for name, answers in (("accuracy", outputs), ("dense_accuracy", known))
        }
    elif trace.score_function is None and trace.score not in SCORES:
        own["unjudged"] = (
            f"the score is of a function, {trace.score}, which a saved trace does not hold; give "
            "it by with_score() or --score"
        )
    if classes.reason is not None:
        return ({} if lost or "accuracy" in own else {"unjudged": classes.reason}) | own
    answers, dense, count = (
        classes.answers(outputs),
        _dense(trace, known).answers,
        classes.count(known),
    )
    if lost:  # a class that no label shows
        bad = ~np.isfinite(outputs)
        count += 1
        answers = np.where(bad.any(axis=classes.dimension), count - 1, answers)
    quality = {
        "agreement": float((answers == dense).mean()),
        "answers": answers.astype(np.min_scalar_type(count - 1)) if count else answers,
    }
    known_classes = classes.count(known)
    judging = labels if trace.score in SCORES else None
    if judging is not None and not labels_fit(judging, dense):
        own["unjudged"] = f"labels are one an image, answers of shape {dense.shape}"
        judging = None
    if judging is not None:
        quality["accuracy"] = finite(score(trace.score, answers, judging, known_classes))
        quality["dense_accuracy"] = finite(score(trace.score, dense, judging, known_classes))
    if answers.shape[:1] == (trace.images,):  # of one answer for all, images can't be counted
        quality["intervals"] = intervals(trace.score, answers, dense, judging, known_classes)
    return quality | own


def labels_fit(labels: np.ndarray, answers: np.ndarray) -> bool:
    """Whether labels are of the answers: not one an image where an image has several answers."""
    return labels.ndim > 1 or labels.shape == answers.shape


def _mean_square(left: np.ndarray, right: np.ndarray | int) -> float | None:
    """Of the difference; `None` where it overflows."""
    wide = np.complex128 if "c" in (left.dtype.kind, np.asarray(right).dtype.kind) else np.float64
    with np.errstate(over="ignore"):
        apart = np.subtract(left, right, dtype=wide)
        size = np.abs(apart) if wide is np.complex128 else apart
        return finite(float(np.square(size, out=size).mean()))


def finite(value: float) -> float | None:
    """A number, unless it is NaN or infinite."""
    return value if math.isfinite(value) else None
