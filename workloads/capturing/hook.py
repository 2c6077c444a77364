"""Running a model under the one hook, which sees every matrix product and may replace its result.

It sits below autograd, so a replaced result's backward pass is the dense one (straight-through).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from workloads.capturing.answers import named_outputs
from workloads.capturing.asking import Asking, OnGemm
from workloads.capturing.calls import GemmCall
from workloads.capturing.dispatching import Hook
from workloads.capturing.flow import tensors_in
from workloads.capturing.following import Following
from workloads.capturing.images import ImageCount
from workloads.capturing.modules import AttentionCalls, ModulePaths, no_fast_path
from workloads.capturing.opening import (
    as_written,
    inner_tensors,
)
from workloads.capturing.real_values import check_inputs, check_not_fake
from workloads.errors import InputError, TraceError, plain
from workloads.models.modes import training_mode

__all__ = ["GemmCall", "OnGemm", "Run", "arguments_from", "run_hooked", "run_with"]


def run_with(
    model: Callable[..., Any],
    inputs: Any,
    on_gemm: OnGemm,
    *,
    training: bool = False,
    images: int | None = None,
) -> Any:
    """Run a model, asking `on_gemm` for the result of every matrix product.

    Products are convolutions (transposed ones too), linear layers, matrix and batched products, and
    the two of attention. What they call the model doesn't matter: modules, functions, `einsum`.
    Integer products, those of empty matrices and those of parameters alone pass unasked.

    `docs/operations.md` lists what is refused, and what is not counted: products that PyTorch's
    operations don't show, such as those in a kernel of somebody's own. `capture` warns of those.

    Args:
        model: a module, or any function of tensors.
        inputs: a tensor, several (a tuple or list, passed by position) or a mapping (by name);
            numpy arrays are taken for tensors. The first dimension holds the images, unless the
            layers that know their batch say otherwise: an unbatched picture is one image, the
            pictures of a list are as many, and recurrent layers and attention take sequences with
            the time first where they are built to.
        on_gemm: gets each product and returns the operation's result (see
            `GemmCall.from_result`), or None for the dense one. The result carries no gradient of
            its own: the backward pass is the dense operation's.
        training: run in training mode instead of evaluation mode; every module's own mode is
            restored in either case.
        images: inputs in the batch, where neither inputs nor layers tell.

    Returns:
        What the model returns. Gradients are recorded unless the caller forbids them.

    Raises:
        TraceError: if the batch is empty, what the model does contradicts the number of images,
            tensors hold no values, an operation hides a product, or `on_gemm` returns another
            shape. What `on_gemm` raises comes out as it is, also where TorchScript or the model's
            own code would hide it.
    """
    return run_hooked(model, inputs, on_gemm, training=training, images=images).output


class Run:
    """What a hooked run leaves: the model's output and the edges between its layers.

    Attributes:
        output: what the model returned.
        edges: pairs of layer names in the order they were found.
        images: inputs in the batch.
        not_counted: operations that may hide a product which nobody was asked about, and calls.
        taken_apart: operations from outside PyTorch whose products were all seen, and calls.
        following: knows what follows each product, if that was asked for.
    """

    def __init__(
        self,
        *,
        output: Any,
        edges: list[tuple[str, str]],
        images: int,
        not_counted: dict[str, int],
        taken_apart: dict[str, int],
        following: Following | None,
    ) -> None:
        self.output = output
        self.edges = edges
        self.images = images
        self.not_counted = not_counted
        self.taken_apart = taken_apart
        self.following = following


def run_hooked(
    model: Callable[..., Any],
    inputs: Any,
    on_gemm: OnGemm,
    *,
    training: bool = False,
    images: int | None = None,
    counts: bool = False,
    follows: bool = False,
) -> Run:
    """Run as `run_with` does, and tell the edges and what was not counted too.

    Args:
        model: as `run_with`, as are the next four.
        inputs: what it is called with.
        on_gemm: answers.
        training: the mode.
        images: inputs in the batch.
        counts: refuse inputs that disagree on the number of images.
        follows: find out what follows each product.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    if isinstance(model, torch.export.ExportedProgram):
        raise TraceError(
            "model must be a module or a function of tensors, got an ExportedProgram; give what "
            "its module() returns"
        )
    args, kwargs = arguments_from(inputs)
    check_inputs(tensors_in([args, kwargs]), "run_with.inputs")
    count = ImageCount(args, kwargs, images, certain=counts)
    flow = count.flow
    names: dict[int, str] = {}
    if isinstance(model, nn.Module):
        names = {id(module): _path(name) for name, module in model.named_modules()}
        for values in (model.named_parameters, model.named_buffers):
            for name, value in values(remove_duplicate=False):
                if not nn.parameter.is_lazy(value):
                    check_not_fake(value, name)
                    for inner in inner_tensors(value):
                        flow.add_parameter(inner, _path(name.rpartition(".")[0]))
    paths = ModulePaths(names)
    following = Following(flow) if follows else None
    if following is not None:
        for tensor in tensors_in([args, kwargs]):
            following.add_input(tensor)
    asking = Asking(on_gemm, count, paths, following)
    hook = Hook(asking, flow, paths, following)
    try:
        with ExitStack() as stack:
            stack.enter_context(training_mode(model, training))
            stack.enter_context(no_fast_path())
            stack.enter_context(as_written())
            stack.enter_context(paths)
            stack.enter_context(AttentionCalls(paths))
            stack.enter_context(count)
            stack.enter_context(hook)
            output = model(*args, **kwargs)
    except Exception as error:
        failure = hook.failure or paths.failure
        if failure is None and not isinstance(error, InputError):
            if isinstance(error, TypeError):
                _check_called(model, args, kwargs, error)
            with training_mode(model, training):
                failure = hook.explained(error, model, args, kwargs)
        if failure is None or failure is error:
            raise
        raise failure from None  # a TorchScript interpreter, or code that catches, hid it
    lost = asking.failure or paths.failure
    if lost is not None:  # the model's own code caught it
        raise lost
    if following is not None:
        following.output(named_outputs(output).values())
    return Run(
        output=output,
        edges=list(asking.edges),
        images=count.images,
        not_counted=asking.not_counted,
        taken_apart=asking.taken_apart,
        following=following,
    )


def arguments_from(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments that `inputs` stands for, arrays as tensors."""
    if isinstance(inputs, Mapping):
        return (), {name: _tensor(value) for name, value in inputs.items()}
    values = inputs if isinstance(inputs, tuple | list) else (inputs,)
    return tuple(_tensor(value) for value in values), {}


def _path(name: str) -> str:
    """A module's path, as if nothing were wrapped by `torch.compile`."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    if type(value) in (list, tuple):
        return type(value)(_tensor(entry) for entry in value)
    if type(value) is dict:
        return {name: _tensor(entry) for name, entry in value.items()}
    return value


def _check_called(model: Any, args: Any, kwargs: Any, error: TypeError) -> None:
    """Say so where the model does not take as many arguments, or none of these names."""
    try:
        taken = inspect.signature(getattr(model, "forward", model))
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        taken.bind(*args, **kwargs)
    except TypeError:
        given = f"names {', '.join(kwargs)}" if kwargs else f"{len(args)} by position"
        raise TraceError(
            f"inputs must be what the model takes, {plain(str(taken), 200)}, got {given}; a list "
            "or tuple is taken apart, so give a list of pictures as ([...],), and names as a "
            "mapping"
        ) from error
