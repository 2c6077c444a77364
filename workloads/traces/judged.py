"""Which output of a model is judged, and where in it the classes are.

A model may return one tensor or many, in tuples, mappings and dataclasses. One is judged: the one
that the user names, else `logits`, else the first. Classes are taken to lie along dimension 1, as
PyTorch's losses have them, of an output for each image or for each pixel, and whole numbers to be
classes themselves. Everything else is judged by its error alone, and the reason is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from workloads.errors import TraceError, show

Array = np.ndarray[Any, np.dtype[Any]]

NO_CLASSES = "none"
"""As a dimension of classes: there are none, and outputs are judged by their error."""

JUDGED = "judged"
"""Key of the provenance under which `Judged` is kept, where there is anything to say."""

# Outputs that are named in a list of all.
_NAMED = 12
# Outputs that hold classes, by their usual names, where a model returns several.
_CLASS_NAMES = re.compile(
    r"(^|[._])(logits?|out|scores?|probs?|probabilities|cls|class(es)?|labels?|prediction_logits)$"
)
# Outputs that hold none, whatever their shape.
_OTHER_NAMES = re.compile(
    r"box|coord|(^|[._])(loc|locs|reg|depth|flow|offsets?|deltas?|anchors?|loss)([._]|$)|regression"
    r"|embed|hidden|feature|state|keypoint|attention|(^|[._])masks?([._]|$)"
)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What of a model's result is judged.

    Attributes:
        output: its path, such as `logits`, `1` or `0.boxes`; empty for a lone tensor.
        names: paths of all outputs, in order.
        chosen: whether the user named it, or labels that fit no other.
        classes_dimension: along which the user says that its classes lie; None if nobody said,
            `NO_CLASSES` if along none.
    """

    output: str = ""
    names: tuple[str, ...] = ("",)
    chosen: bool = False
    classes_dimension: int | str | None = None

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Self | None:
        """What a trace's provenance says; None if it says nothing.

        Raises:
            TraceError: it is damaged.
        """
        kept = provenance.get(JUDGED)
        if kept is None:
            return None
        given = dict(kept) if isinstance(kept, Mapping) else {}
        wanted = {"output": str, "names": list, "chosen": bool}
        dimension = given.get("classes_dimension")
        whole = type(dimension) is int or dimension in (None, NO_CLASSES)
        named = all(isinstance(given.get(key), kind) for key, kind in wanted.items())
        if not (whole and named and all(isinstance(name, str) for name in given["names"])):
            raise TraceError(
                f"provenance.{JUDGED} must name the output that is judged, got {show(kept)}; "
                "capture the trace again"
            )
        return cls(
            output=given["output"],
            names=tuple(given["names"]),
            chosen=given["chosen"],
            classes_dimension=dimension,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """What is kept with a trace: nothing of a lone tensor that nobody said anything of."""
        if not self.output and self.classes_dimension is None:
            return {}
        said = {"output": self.output, "names": list(self.names), "chosen": self.chosen}
        return {JUDGED: said | {"classes_dimension": self.classes_dimension}}


def judged_text(provenance: Mapping[str, Any], *, every: bool = False) -> str:
    """Which of a model's outputs is judged, in words; empty where there is only one.

    Args:
        provenance: a trace's.
        every: name all outputs, and where the user says that classes lie.
    """
    judged = Judged.of(provenance)
    if judged is None:
        return ""
    several = len(judged.names) > 1
    text = f"output {judged.output!r} of {len(judged.names)}" if several else ""
    if not every:
        return text
    dimension = judged.classes_dimension
    along = "" if dimension is None else f"classes along dimension {dimension}"
    names = ", ".join(judged.names[:_NAMED]) + (", ..." if len(judged.names) > _NAMED else "")
    return "; ".join(part for part in (several and f"{text} ({names})", along) if part)


def holds_other(name: str) -> bool:
    """Whether an output's name says that it holds no classes."""
    return _OTHER_NAMES.search(name) is not None


def usual_output(names: Sequence[str]) -> str | None:
    """`logits`, or what else is called as classes are; None where nothing is."""
    for name in names:
        if name == "logits":
            return name
    return names[0] if len(names) == 1 or _CLASS_NAMES.search(names[0]) else None


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Where the classes are in a judged output.

    Attributes:
        dimension: along which they lie; None where the output holds classes themselves.
        reason: why there are none; None where there are.
    """

    dimension: int | None = None
    reason: str | None = None

    def answers(self, outputs: Array) -> Array:
        """The class of every answer: `outputs` without the dimension of classes."""
        if self.dimension is None:
            return outputs.astype(np.int64)
        return outputs.argmax(axis=self.dimension)

    def count(self, outputs: Array) -> int:
        """How many classes there are; 0 if nobody knows."""
        return 0 if self.dimension is None else int(outputs.shape[self.dimension])


def classes_in(provenance: Mapping[str, Any], outputs: Array) -> Classes:
    """Where the classes of a trace's judged output are.

    Args:
        provenance: the trace's.
        outputs: the judged output.
    """
    judged = Judged.of(provenance) or Judged()
    name = f"output {judged.output!r}" if judged.output else "the output"
    described = f"{name} of shape {outputs.shape}"
    said = judged.classes_dimension
    if said is None and outputs.dtype.kind in "biu" and outputs.ndim > 0:
        return Classes(reason=_nobody_said(judged, described))
    if isinstance(said, int):
        return _along(said, outputs, described)
    if said == NO_CLASSES:
        return Classes(reason=f"{name} was said to hold no classes")
    usual = 1 if outputs.ndim in (2, 4) else None
    reason = _nobody_said(judged, described)
    return _along(usual, outputs, described) if reason is None else Classes(reason=reason)


def _nobody_said(judged: Judged, described: str) -> str | None:
    """Why an output is not taken for classes, whatever its shape."""
    if holds_other(judged.output):
        return f"{described} holds no classes, by its name"
    if not judged.chosen and usual_output(judged.names) is None:
        return (
            f"{described} is the first of {len(judged.names)}, and nobody said that it holds "
            "classes; name one by output= or --output"
        )
    return None


def _along(dimension: int | None, outputs: Array, described: str) -> Classes:
    """Classes along a dimension, if it may hold them; None is no known one."""
    reason = None
    if dimension is None:
        reason = (
            f"classes of {described} lie along no known dimension; name it by classes_dimension= "
            "or --classes-dimension"
        )
    elif not -outputs.ndim <= dimension < outputs.ndim:
        reason = f"{described} has no dimension {dimension}"
    elif outputs.dtype.kind != "f":
        kind = "whole numbers" if outputs.dtype.kind in "biu" else "complex numbers"
        reason = f"{described} holds {kind}, not a number for each class"
    elif outputs.shape[dimension] < 2:
        reason = f"{described} has a single column, which is the largest whatever it is"
    if reason is not None or dimension is None:
        return Classes(reason=reason)
    return Classes(dimension=dimension % outputs.ndim)


def check_dimension(dimension: Any, outputs: Array | None) -> None:
    """A dimension of classes that a user names must be one of the judged output.

    Raises:
        TraceError: it is not, or holds fewer than two classes.
    """
    if dimension is None or dimension == NO_CLASSES:
        return
    shape = () if outputs is None else outputs.shape
    if type(dimension) is not int or not -len(shape) <= dimension < len(shape):
        raise TraceError(
            f"classes_dimension must be a dimension of the judged output, of shape {shape}, or "
            f"{NO_CLASSES!r}, got {show(dimension)}; use -1 for the last"
        )
    problem = _along(dimension, outputs, "outputs").reason if outputs is not None else None
    if problem:
        raise TraceError(
            f"classes_dimension must hold a number for each of several classes, got "
            f"{dimension} of {problem}; name another, or {NO_CLASSES!r}"
        )


def check_outputs_finite(
    model: str, judged: Judged | None, outputs: Array, last_layer: str
) -> None:
    """The dense model's answers must be numbers that can be compared.

    Raises:
        TraceError: one is NaN or infinite.
    """
    if outputs.dtype.kind not in "fc" or np.isfinite(outputs).all():
        return
    nans, infinities = int(np.isnan(outputs).sum()), int(np.isinf(outputs).sum())
    place = "the output" if judged is None or not judged.output else f"output {judged.output!r}"
    raise TraceError(
        f"{place} of model {model} must be finite, got {nans} NaN and {infinities} infinite of "
        f"{outputs.size} values, though every layer's input and weight is finite; look at what "
        f"follows the last layer, {last_layer!r}, and at its bias, or judge another output by "
        "output="
    )
