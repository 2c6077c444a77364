"""Run a model once and keep every matrix product, with its tensors, on disk."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.calls import Array, GemmCall, to_numpy
from workloads.errors import NotCountedWarning, TraceError
from workloads.files import TraceFiles, TraceWriter, check_destination, publish, scratch_beside
from workloads.flow import tensors_in
from workloads.hook import arguments_from, run_hooked
from workloads.models.weights import weights_source
from workloads.real_values import as_plain, check_inputs
from workloads.scores import SCORES
from workloads.scratch import Scratch
from workloads.trace import WorkloadTrace, not_counted_line
from workloads.unchanged import remember
from workloads.writing import naming


def capture(
    model: Callable[..., Any],
    inputs: Any,
    *,
    path: str | Path | None = None,
    overwrite: bool = False,
    labels: Any = None,
    score: str = "accuracy",
    source: str = "",
    seed: int | None = None,
    images: int | None = None,
    progress: bool = False,
) -> WorkloadTrace:
    """Capture every matrix product of one run of `model` in evaluation mode.

    Tensors go to disk as the model runs, one layer at a time; memory is bounded by the model's own
    run and its largest layer. The model, its modes and the inputs are left as they were.

    Args:
        model: a module, or any function of tensors; see `workloads.hook.run_with` for what is seen.
            What its classes are called may stand in an attribute `class_names`.
        inputs: a tensor, several (by position) or a mapping (by name); images along the first
            dimension of the first.
        path: directory of the trace. Without it the trace lies in a temporary directory that is
            removed with the last reference to the trace.
        overwrite: replace a trace at `path`.
        labels: `(images,)` expected classes, or `(images, height, width)`, one for each pixel with
            `workloads.scores.IGNORED` where there is none; kept with the trace.
        score: a key of `workloads.scores.SCORES`: how answers are judged by the labels.
        source: where the inputs come from, for the provenance.
        seed: of PyTorch's generators during the run; None leaves them alone.
        images: inputs in the batch, where the first dimension doesn't tell.
        progress: report each layer on standard error.

    Returns:
        The trace, read from where it was written.

    Operations that may hide products, such as kernels of somebody's own, are named in a
    `NotCountedWarning`, in the provenance (`not_counted`, with their calls) and in every verdict.

    Raises:
        TraceError: if the batch is empty, the model has no product or one that is hidden, a layer's
            input or weight isn't finite, or something else than a trace is at `path`.
    """
    if score not in SCORES:
        raise TraceError(f"capture.score must be one of {', '.join(SCORES)}, got {score!r}")
    if path is not None:
        path = Path(path)
        check_destination(path, overwrite=overwrite)
    args, kwargs = arguments_from(inputs)
    check_inputs(tensors_in([args, kwargs]), "capture.inputs")
    scratch = Scratch.temporary() if path is None else scratch_beside(path)
    try:
        directory = scratch.path / "trace"
        with naming(path or directory, directory):
            directory.mkdir()
        writer = TraceWriter(directory, shown=path)
        keeper = _Keeper(writer, progress=progress)
        given = _cloned(kwargs if kwargs else args)
        with torch.no_grad(), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            run = run_hooked(model, given, keeper, images=images)
        if len(writer) == 0:
            raise TraceError(
                f"model {_name(model)} must compute a matrix product to be captured, got none; use "
                "a model with a convolution, a linear layer or a matrix product. "
                f"{not_counted_line({'not_counted': run.not_counted})}".rstrip()
            )
        writer.add_inputs(
            [_array(tensor) for tensor in tensors_in([args, kwargs])],
            answer_of(run.output),
            _labels(labels, run.images),
        )
        provenance = _provenance(model, args, kwargs, source, seed)
        provenance["precision"] = " and ".join(sorted(keeper.precisions))
        if labels is not None:
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

    def __call__(self, call: GemmCall) -> None:
        name = call.layer.name
        stored_input, stored_weight = to_numpy(call.input), to_numpy(call.weight)
        _check_finite(name, "input", stored_input)
        _check_finite(name, "weight", stored_weight)
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


def _array(tensor: Tensor) -> Array:
    """A tensor in its own type; bfloat16, which numpy lacks, as float32."""
    plain = as_plain(tensor.detach()).cpu().resolve_conj().resolve_neg()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def answer_of(output: Any) -> Array | None:
    """A model's result as an array: its tensor, `logits` of several, or the first of several."""
    if is_dataclass(output) and not isinstance(output, Mapping):
        output = vars(output)
    if isinstance(output, Mapping):
        if isinstance(output.get("logits"), Tensor):
            output = output["logits"]
        else:
            output = list(output.values())
    answer = next(tensors_in(output), None)
    return None if answer is None else _array(answer)


def _labels(labels: Any, images: int) -> Array | None:
    if labels is None:
        return None
    array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if array.shape[:1] != (images,) or array.dtype.kind not in "biuf":
        raise TraceError(
            f"capture.labels must be {images} numbers, one per image, got shape {array.shape} of "
            f"{array.dtype}; give the labels of this batch"
        )
    return array


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
    return made
