"""Run a model once and keep every matrix product, with its tensors, on disk."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.capturing.answers import find_output
from workloads.capturing.call_structure import call_provenance
from workloads.capturing.calls import Array, GemmCall, array_of, to_numpy
from workloads.capturing.flow import tensors_in
from workloads.capturing.hook import arguments_from, run_hooked
from workloads.capturing.random_numbers import seeded
from workloads.capturing.real_values import check_inputs, check_real
from workloads.capturing.unchanged import remember
from workloads.errors import NotCountedWarning, TraceError, show, told
from workloads.models.weights import weights_source
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
        The trace, read from where it was written.

    Operations that may hide products, such as kernels of somebody's own, are named in a
    `NotCountedWarning`, in the provenance (`not_counted`, with their calls) and in every verdict.

    Raises:
        TraceError: if the batch is empty, the model has no product or one that is hidden, a layer's
            input or weight or the judged output isn't finite, labels don't fit the answers, or
            something else than a trace is at `path`.
    """
    function = score if callable(score) else None
    if function is None and score not in SCORES:
        raise TraceError(
            f"capture.score must be one of {', '.join(SCORES)}, or a function, got {show(score)}"
        )
    _check_seed(seed)
    if path is not None:
        path = Path(path)
        check_destination(path, overwrite=overwrite)
    args, kwargs = arguments_from(inputs)
    check_inputs(tensors_in([args, kwargs]), "capture.inputs")
    check_real(tensors_in([args, kwargs]), "capture.inputs")
    scratch = Scratch.temporary() if path is None else scratch_beside(path)
    try:
        directory = scratch.path / "trace"
        with naming(path or directory, directory):
            directory.mkdir()
        writer = TraceWriter(directory, shown=path)
        keeper = _Keeper(writer, progress=progress)
        given = _cloned(kwargs if kwargs else args)
        with torch.no_grad(), seeded(seed):
            run = run_hooked(model, given, keeper, images=images, counts=True)
        if len(writer) == 0:
            raise TraceError(
                f"model {_name(model)} must compute a matrix product to be captured, got none; use "
                "a model with a convolution, a linear layer or a matrix product. "
                f"{not_counted_line({'not_counted': run.not_counted})}".rstrip()
            )
        expected = _labels(labels)
        judged, answer = find_output(run.output, output, None if function else expected)
        judged = replace(judged, classes_dimension=classes_dimension)
        outputs = None if answer is None else _storable(answer)
        if outputs is not None:
            check_outputs_finite(_name(model), judged, outputs, keeper.last)
            check_dimension(classes_dimension, outputs)
        _check_labels(expected, run.images, judged, outputs, own_score=function is not None)
        writer.add_inputs(
            [_storable(tensor) for tensor in tensors_in([args, kwargs])], outputs, expected
        )
        provenance = _provenance(model, args, kwargs, source, seed) | judged.provenance
        provenance["precision"] = " and ".join(sorted(keeper.precisions))
        if function is not None:
            provenance["score"] = (
                function.name if isinstance(function, NamedScore) else _name(function)
            )
        elif expected is not None:
            provenance["score"] = score
        for key in ("not_counted", "taken_apart"):
            if calls := getattr(run, key):
                provenance[key] = dict(sorted(calls.items()))
        if keeper.zeros:
            provenance["zero_weights"] = keeper.zeros
        writer.finish(run.edges, images=run.images, provenance=provenance)
        if path is None:
            trace = WorkloadTrace.from_files(TraceFiles(directory, owner=scratch))
        else:
            publish(directory, path)
            scratch.remove()
            trace = WorkloadTrace.load(path)
        if function is not None:
            trace = replace(trace, score_function=function)
        remember(trace, model)
        if run.not_counted:
            warnings.warn(
                f"{not_counted_line(provenance)} They run, and cycles, energy and reuse are of "
                "the other products alone.",
                NotCountedWarning,
                stacklevel=2,
            )
        return trace
    except BaseException:
        scratch.remove()
        raise


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


def _check_seed(seed: Any) -> None:
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    if seed is not None and not (whole and -(2**63) <= seed < 2**63):
        raise TraceError(
            f"capture.seed must be an integer of 64 bits, or None, got {show(seed)}; use 0"
        )


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
