"""Run a model once and keep every matrix product, with its tensors, on disk."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.capturing.answers import find_output
from workloads.capturing.call_structure import call_provenance
from workloads.capturing.calls import Array, GemmCall, array_of, to_numpy
from workloads.capturing.class_order import class_order_line
from workloads.capturing.flow import tensors_in
from workloads.capturing.hook import Run, arguments_from, run_hooked
from workloads.capturing.random_numbers import seeded
from workloads.capturing.real_values import check_inputs, check_real
from workloads.capturing.unchanged import remember
from workloads.errors import ClassOrderWarning, NotCountedWarning, TraceError, show, told
from workloads.models.weights import weights_source
from workloads.rules import problems, refuse, true_of
from workloads.scratch import Scratch
from workloads.traces.files import (
    TraceFiles,
    TraceWriter,
    check_destination,
    publish,
    scratch_beside,
)
from workloads.traces.judged import (
    Judged,
    check_dimension,
    check_outputs_finite,
    classes_in,
)
from workloads.traces.layer import Layer
from workloads.traces.scores import SCORES, NamedScore, ScoreFunction, is_counted
from workloads.traces.trace import WorkloadTrace, not_counted_line
from workloads.writing import naming


class LabelsError(TraceError):
    """Labels of another shape than the answers.

    Attributes:
        outputs: shape of the judged output.
    """

    def __init__(self, outputs: tuple[int, ...], message: str) -> None:
        super().__init__(message)
        self.outputs = outputs


def capture(
    model: Callable[..., Any],
    inputs: Any,
    *,
    path: str | Path | None = None,
    overwrite: bool = False,
    labels: Any = None,
    score: str | ScoreFunction = "accuracy",
    output: str | int | None = None,
    classes_dimension: int | str | None = None,
    source: str = "",
    seed: int | None = None,
    images: int | None = None,
    progress: bool = False,
) -> WorkloadTrace:
    """Capture every matrix product of one run of `model` in evaluation mode.

    Tensors go to disk as the model runs, one layer at a time; memory is bounded by the model's own
    run and its largest layer. The model, its modes and the inputs are left as they were.

    Args:
        model: a module, or any function of tensors; see `workloads.capturing.hook.run_with` for
            what is seen. What its classes are called may stand in an attribute `class_names`.
        inputs: a tensor, several (by position) or a mapping (by name); see `run_with` for where the
            images are.
        path: directory of the trace. Without it the trace lies in a temporary directory that is
            removed with the last reference to the trace.
        overwrite: replace a trace at `path`.
        labels: `(images,)` expected classes, or one for each answer, such as `(images, height,
            width)` of pixels or `(images, positions)`, with `workloads.traces.scores.IGNORED` or
            -100 where there is none; kept with the trace.
        score: how answers are judged by the labels: a key of `workloads.traces.scores.SCORES`, or a
            function of the judged output and the labels (without labels, of what the dense model
            gave) to a number of 0 to 1. A saved trace keeps its name alone; see
            `WorkloadTrace.with_score`.
        output: which of several outputs is judged: its path, such as "logits" or "0.boxes", or its
            position; None takes `logits`, or the first.
        classes_dimension: of the judged output, along which its classes lie; "none" if it holds
            none. None takes dimension 1 of `(images, classes)` and `(images, classes, height,
            width)`, and whole numbers for classes themselves.
        source: where the inputs come from, for the provenance.
        seed: of the generators of PyTorch, numpy and Python during the run, and whenever the model
            is run again on this trace; None leaves them alone, and a model that draws random
            numbers as it runs cannot be judged.
        images: inputs in the batch, where neither inputs nor layers tell.
        progress: report each layer on standard error.

    Returns:
        The trace, read from where it was written. Operations that may hide products are named in
        a `NotCountedWarning`, in its provenance (`not_counted`, with calls) and in every verdict.
        Labels that come class after class, as in a folder sorted by class, are told in a
        `ClassOrderWarning`.

    Raises:
        TraceError: if the batch is empty, the model has no product or one that is hidden, a layer's
            input or weight or the judged output isn't finite, labels don't fit the answers, or
            something else than a trace is at `path`.
    """
    asked = _Asked(labels, score, output, classes_dimension, source, seed, images, progress)
    path = None if path is None else Path(path)
    if path is not None:
        check_destination(path, overwrite=overwrite)
    call = arguments_from(inputs)
    check_inputs(tensors_in(call), "capture.inputs")
    check_real(tensors_in(call), "capture.inputs")
    scratch = Scratch.temporary() if path is None else scratch_beside(path)
    try:
        trace = _captured(model, *call, asked, scratch, path)
    except BaseException:
        scratch.remove()
        raise
    remember(trace, model)
    if told_of := not_counted_line(trace.provenance):
        warnings.warn(
            f"{told_of} They run, and cycles, energy and reuse are of the other products alone.",
            NotCountedWarning,
            stacklevel=2,
        )
    if asked.function is None and (in_order := class_order_line(trace.labels)):
        warnings.warn(in_order, ClassOrderWarning, stacklevel=2)
    return trace


@dataclass(frozen=True)
class _Asked:
    """What `capture` is asked beside the model and its inputs; the attributes are its arguments."""

    labels: Any
    score: str | ScoreFunction
    output: str | int | None
    classes_dimension: int | str | None
    source: str
    seed: int | None
    images: int | None
    progress: bool

    def __post_init__(self) -> None:
        given = {"score": self.score, "seed": self.seed}
        refuse(problems("capture.", given, _RULES), TraceError)

    @property
    def function(self) -> ScoreFunction | None:
        """The score, if it is a function."""
        return self.score if callable(self.score) else None

    def judged(self, output: Any, expected: Array | None) -> tuple[Judged, Tensor | None]:
        """Which output is judged, and the output."""
        judged, answer = find_output(output, self.output, None if self.function else expected)
        return replace(judged, classes_dimension=self.classes_dimension), answer

    def score_name(self, expected: Array | None) -> dict[str, str]:
        """How answers are judged, for the provenance; nothing where they are not."""
        if isinstance(self.score, str):
            return {} if expected is None else {"score": self.score}
        if isinstance(self.score, NamedScore):
            return {"score": self.score.name}
        return {"score": _name(self.score)}


_RULES = {
    "score": true_of(
        lambda score: callable(score) or (isinstance(score, str) and score in SCORES),
        f"be one of {', '.join(SCORES)}, or a function",
        "use one of these",
    ),
    "seed": true_of(
        lambda seed: seed is None or (type(seed) is int and -(2**63) <= seed < 2**63),
        "be an integer of 64 bits, or None",
        "use 0",
    ),
}


def _captured(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    asked: _Asked,
    scratch: Scratch,
    path: Path | None,
) -> WorkloadTrace:
    """Run the model and write the trace into `scratch`, from where it moves to `path`, if any."""
    directory = scratch.path / "trace"
    with naming(path or directory, directory):
        directory.mkdir()
    writer = TraceWriter(directory, shown=path)
    keeper = _Keeper(writer, progress=asked.progress)
    given = _cloned(kwargs if kwargs else args)
    with torch.no_grad(), seeded(asked.seed):
        run = run_hooked(model, given, keeper, images=asked.images, counts=True, follows=True)
    if len(writer) == 0:
        raise TraceError(
            f"model {_name(model)} must compute a matrix product to be captured, got none; use "
            "a model with a convolution, a linear layer or a matrix product. "
            f"{not_counted_line({'not_counted': run.not_counted})}".rstrip()
        )
    expected = _labels(asked.labels)
    judged, answer = asked.judged(run.output, expected)
    outputs = None if answer is None else _storable(answer)
    if outputs is not None:
        check_outputs_finite(_name(model), judged, outputs, keeper.last)
        check_dimension(asked.classes_dimension, outputs)
    own_score = asked.function is not None
    _check_labels(expected, run.images, judged, outputs, own_score=own_score)
    stored = [_storable(tensor) for tensor in tensors_in([args, kwargs])]
    writer.add_inputs(stored, outputs, expected)
    provenance = _provenance(model, args, kwargs, asked.source, asked.seed) | judged.provenance
    provenance["precision"] = " and ".join(sorted(keeper.precisions))
    provenance |= asked.score_name(expected)
    for key in ("not_counted", "taken_apart"):
        if calls := getattr(run, key):
            provenance[key] = dict(sorted(calls.items()))
    if keeper.zeros:
        provenance["zero_weights"] = keeper.zeros
    layers = _with_what_follows(writer, run)
    writer.finish(run.edges, images=run.images, provenance=provenance, layers=layers)
    if path is None:
        trace = WorkloadTrace.from_files(TraceFiles(directory, owner=scratch))
    else:
        publish(directory, path)
        scratch.remove()
        trace = WorkloadTrace.load(path)
    return replace(trace, score_function=asked.function) if own_score else trace


def _with_what_follows(writer: TraceWriter, run: Run) -> list[Layer]:
    """The layers with what the model does with their results; scales and shifts are written."""
    following = run.following
    assert following is not None
    afters, never_negative = following.afters(), following.inputs_never_negative()
    affines = following.affines(afters)
    names = [layer.name for layer in writer.layers]
    writer.add_affines({i: affines[name] for i, name in enumerate(names) if name in affines})
    return [
        replace(
            layer,
            after=afters.get(layer.name),
            input_is_nonnegative=never_negative.get(layer.name),
        )
        for layer in writer.layers
    ]


class _Keeper:
    """Writes each product as the model computes it, and tells of it if `progress`."""

    def __init__(self, writer: TraceWriter, *, progress: bool) -> None:
        self.writer, self.progress = writer, progress
        self.precisions: set[str] = set()
        self.zeros: dict[str, float] = {}
        self.last = ""

    def __call__(self, call: GemmCall) -> None:
        name = call.layer.name
        check_real([call.input, call.weight], f"layer {name!r}")
        stored_input, stored_weight = to_numpy(call.input), to_numpy(call.weight)
        _check_finite(name, "input", stored_input)
        _check_finite(name, "weight", stored_weight)
        if call.bias is not None and call.bias.ndim == 1:  # a matrix may be a mask
            _check_finite(name, "bias", to_numpy(call.bias))
        self.last = name
        self.precisions.add(_precision(call, stored_input))
        absent = stored_weight.size - np.count_nonzero(stored_weight)
        if absent and call.layer.weights_are_parameters:
            self.zeros[name] = absent / stored_weight.size
        self.writer.add(call.layer, stored_input=stored_input, stored_weight=stored_weight)
        if self.progress:
            g = call.layer.gemm
            shape = f"{g.count} x ({g.m}, {g.k}) x ({g.k}, {g.n})"
            print(f"[{len(self.writer)}] {name}: {shape}", file=sys.stderr, flush=True)


def _check_finite(layer: str, operand: str, values: Array) -> None:
    if np.isfinite(values).all():
        return
    nans, infinities = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    raise TraceError(
        f"layer {layer!r} must have a finite {operand}, got {nans} NaN and {infinities} infinite "
        f"of {values.size} values; check the model's inputs and parameters up to this layer"
    )


def _precision(call: GemmCall, stored_input: Array) -> str:
    """What the layer computes in, after a check that its input is what it is said to be."""
    grid = call.layer.quantisation
    if grid is None:
        return _dtype_name(call.input)
    if not np.array_equal(grid.steps(stored_input) * np.float32(grid.scale), stored_input):
        raise TraceError(
            f"layer {call.layer.name!r} must multiply its input as {grid} gives it, got values "
            "between the integers; quantise a model whose layers do no arithmetic of their own "
            "before the product"
        )
    return f"int{grid.bits}"


def _cloned(value: Any) -> Any:
    """Inputs that the model may write to."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_cloned(item) for item in value)
    if type(value) is dict:
        return {key: _cloned(item) for key, item in value.items()}
    return value


def _storable(tensor: Tensor) -> Array:
    """A tensor in a type that files keep: of double complex numbers, single ones."""
    array = array_of(tensor)
    return array.astype(np.complex64) if array.dtype == np.complex128 else array


def _labels(labels: Any) -> Array | None:
    if labels is None:
        return None
    try:
        array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    except (TypeError, ValueError) as error:  # lists of several lengths, bfloat16
        raise TraceError(
            f"capture.labels must be an array of numbers, got {show(labels)}: {told(error)}; fill "
            "shorter rows with -100, which does not count"
        ) from error
    if array.dtype.kind not in "biuf":
        raise TraceError(
            f"capture.labels must be numbers, got {array.dtype} of shape {array.shape}; give the "
            "number of each class"
        )
    return array


def _check_labels(
    labels: Array | None, images: int, judged: Judged, outputs: Array | None, *, own_score: bool
) -> None:
    """Labels are whole numbers that name a class of the judged output; a function takes any.

    Raises:
        TraceError: they are not.
    """
    if labels is None:
        return
    if labels.dtype.kind == "f":
        finite = np.isfinite(labels).all()
        if not finite or not own_score:
            raise TraceError(
                f"capture.labels must be whole numbers, got {labels.dtype}"
                f"{'' if finite else ' with NaN or infinity'}; give classes as integers, or a "
                "function as score"
            )
    classes = None if outputs is None else classes_in(judged.provenance, outputs)
    known = classes is not None and classes.reason is None and not own_score
    if not known or outputs is None or classes is None:
        if labels.shape[:1] != (images,):
            raise TraceError(
                f"capture.labels must be {images} numbers, one per image, got shape "
                f"{labels.shape} of {labels.dtype}; give the labels of this batch"
            )
        return
    answers, count = classes.answers(outputs), classes.count(outputs)
    if labels.shape == (images,) != answers.shape:
        return  # of the images, as data sets have them; the report says that they judge no answer
    if labels.shape != answers.shape:
        raise LabelsError(
            outputs.shape,
            f"capture.labels must be {images} numbers, one per image, or one for each answer, of "
            f"shape {answers.shape}, got shape {labels.shape}; give labels of the size that the "
            "model answers in, or classes_dimension='none' to judge without them",
        )
    counted = labels[is_counted(labels, count)]
    if not counted.size:
        return
    least, most = int(counted.min()), int(counted.max())
    if least < 0 or (count and most >= count):
        ends = f"0 to {count - 1}, the model's classes" if count else "at least 0"
        raise TraceError(
            f"capture.labels must be {ends}, got {least} to {most}; number classes from 0, give "
            "a model that knows them all, or classes_dimension='none' to judge without them"
        )


def _name(model: Any) -> str:
    kind = model if hasattr(model, "__qualname__") else type(model)
    return f"{kind.__module__}.{kind.__qualname__}"


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _provenance(
    model: Any, args: Any, kwargs: Mapping[str, Any], source: str, seed: int | None
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model": _name(model),
        "weights": weights_source(model),
        "source": source,
        "seed": seed,
        # As PyTorch calls them: arrays can't tell bfloat16 from float32.
        "input_dtypes": [_dtype_name(tensor) for tensor in tensors_in([args, kwargs])],
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if names := getattr(model, "class_names", None):
        made["classes"] = list(names)
    if kwargs:
        made["input_names"] = list(kwargs)
    return made | call_provenance(args, kwargs)
