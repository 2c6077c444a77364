"""The one hook: it sees every matrix product of a running model, and may replace its result.

It sits below autograd, so a replaced result's backward pass is the dense one (straight-through).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from workloads.calls import GemmCall, convolution_call, product_call
from workloads.errors import TraceError, plain
from workloads.flow import tensors_in
from workloads.images import ImageCount
from workloads.integer_grid import quantisation_of
from workloads.modules import AttentionCalls, ModulePaths, no_fast_path, training_mode
from workloads.operations import (
    ATTENTION,
    HIDDEN,
    HIDDEN_NAMESPACES,
    PRODUCTS,
    arguments_of,
    read_attention,
    read_product,
)

__all__ = ["GemmCall", "Run", "run_hooked", "run_with"]

OnGemm = Callable[[GemmCall], Tensor | None]


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

    Not seen: products inside custom operations, compiled or quantised kernels. Known ones are
    refused.

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
        TraceError: if the batch is empty, what the model does contradicts the number of images, an
            operation hides a product, or `on_gemm` returns another shape.
    """
    return run_hooked(model, inputs, on_gemm, training=training, images=images).output


class Run:
    """What a hooked run leaves: the model's output and the edges between its layers.

    Attributes:
        output: what the model returned.
        edges: pairs of layer names in the order they were found.
        images: inputs in the batch.
    """

    def __init__(self, *, output: Any, edges: list[tuple[str, str]], images: int) -> None:
        self.output = output
        self.edges = edges
        self.images = images


def run_hooked(
    model: Callable[..., Any],
    inputs: Any,
    on_gemm: OnGemm,
    *,
    training: bool = False,
    images: int | None = None,
    counts: bool = False,
) -> Run:
    """Run as `run_with` does, and tell the edges too.

    Args:
        model: as `run_with`, as are the next four.
        inputs: what it is called with.
        on_gemm: answers.
        training: the mode.
        images: inputs in the batch.
        counts: refuse inputs that disagree on the number of images.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    args, kwargs = arguments_from(inputs)
    count = ImageCount(args, kwargs, images, certain=counts)
    flow = count.flow
    names: dict[int, str] = {}
    if isinstance(model, nn.Module):
        names = {id(module): _path(name) for name, module in model.named_modules()}
        for values in (model.named_parameters, model.named_buffers):
            for name, value in values(remove_duplicate=False):
                if not nn.parameter.is_lazy(value):
                    flow.add_parameter(value, _path(name.rpartition(".")[0]))
    with ExitStack() as stack:
        stack.enter_context(training_mode(model, training))
        stack.enter_context(no_fast_path())
        paths = stack.enter_context(ModulePaths(names))
        stack.enter_context(AttentionCalls(paths))
        stack.enter_context(count)
        hook = stack.enter_context(_Hook(on_gemm, count, paths))
        try:
            output = model(*args, **kwargs)
        except TypeError as error:
            _check_called(model, args, kwargs, error)
            raise
    return Run(output=output, edges=list(hook.edges), images=count.images)


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


class _Hook(TorchDispatchMode):
    """Sees every operation, asks about products, follows all the others."""

    def __init__(self, on_gemm: OnGemm, count: ImageCount, paths: ModulePaths) -> None:
        super().__init__()
        self.edges: dict[tuple[str, str], None] = {}
        self._on_gemm = on_gemm
        self._count = count
        self._flow = count.flow
        self._paths = paths

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._current_graph_task_id() != -1:  # the backward pass is the dense one
            return func(*args, **kwargs)
        name = func._schema.name.rpartition("::")[2]
        base = name.removesuffix("_")
        if func.namespace == "aten":
            if base in PRODUCTS:
                return self._product(base, func, args, kwargs)
            if name in ("convolution", "_convolution"):
                return self._convolution(func, args, kwargs)
            if name in ATTENTION:
                return self._attention(func, args, kwargs)
        fix = HIDDEN.get(name) or HIDDEN_NAMESPACES.get(func.namespace)
        if fix:
            self._refuse(func, fix)
        if torch.is_inference_mode_enabled():  # there, compound operations arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        written = result
        if func._schema.is_mutable:
            named = arguments_of(func, args, kwargs)
            marks = [
                a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write
            ]
            written = [result, [named[key] for key in marks if key in named]]
        self._flow.follow(func, tensors_in([args, kwargs]), written)
        return result

    def _place(self) -> str:
        return f"attention in {self._paths.path or 'the model'}"

    def _refuse(self, func: Any, fix: str) -> None:
        place = f"layer {self._paths.path!r}" if self._paths.path else "the model itself"
        raise TraceError(
            f"{place} must use operations that can be "
            f"taken apart, got {func}, which hides a matrix product; {fix}"
        )

    def _ask(self, call: GemmCall, dtype: torch.dtype) -> Tensor | None:
        """`on_gemm`'s result, checked, or None."""
        self._count.asked()
        result = self._on_gemm(call)
        if result is None:
            return None
        shape = call.layer.output_shape
        given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        if given != shape:
            raise TraceError(
                f"on_gemm of layer {call.layer.name!r} must return a tensor of shape {shape} or "
                f"None, got {given}; use GemmCall.from_result"
            )
        result = result.detach().to(device=call.input.device, dtype=dtype)
        operands = (call.input, call.weight, call.bias)
        shared = any(
            x is not None and x.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
            for x in operands
        )
        return result.clone() if shared else result

    def _enter(self, name: str, *operands: Tensor | None) -> None:
        """Draw the edges to a layer."""
        for operand in operands:
            if operand is not None:
                for source in sorted(self._flow.origin(operand).sources - {name}):
                    self.edges[source, name] = None

    def _convolution(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        flow = self._flow
        named = arguments_of(func, args, kwargs)
        given, weight, bias = named["input"], named["weight"], named["bias"]
        if not self._asks(func, [given, weight]):
            return self._pass(func, args, kwargs)
        resident = not flow.origin(weight).active
        name = self._name("conv", flow.origin(weight).owners if resident else ())
        self._count.convolved(name, given)
        try:
            call = convolution_call(
                name=name,
                images=flow.images,
                axis=flow.image_axis(given),
                resident=resident,
                quantisation=quantisation_of(self._paths.module),
                arguments=tuple(named.values())[:9],
                run=lambda: func(*args, **kwargs),
            )
        except ValueError:
            func(*args, **kwargs)  # what PyTorch refuses, PyTorch explains
            raise
        return self._answer(call, [given, weight, bias], given.dtype)

    def _product(self, base: str, func: Any, args: Any, kwargs: Any) -> Tensor:
        flow = self._flow
        plain = {key: value for key, value in kwargs.items() if key != "out"}
        if not self._asks(func, list(tensors_in([args, plain]))):
            return self._pass(func, args, kwargs)
        if func._overloadname not in ("default", "out"):
            self._refuse(func, "call it without an output type")
        product = read_product(base, func, args, kwargs)
        left, right = (flow.origin(operand) for operand in product.operands)
        kind = "batched_matmul" if base in ("bmm", "baddbmm") else "matmul"
        role = None
        if kind == "batched_matmul" and not left.owners and not right.owners:
            role = self._paths.attention_role()
        if role is not None:
            kind = f"attention_{role}"
            name = self._name("attention", (), suffix=f".{role}")
        elif left.active and right.active:
            name = self._name(kind, ())
        else:
            name = self._name("linear", left.owners if right.active else right.owners)
        if role == "scores":
            self._count.attended(self._place(), product.left, product.right)
        elif left.active != right.active:
            self._count.multiplied(
                f"product {name}", product.left if left.active else product.right.mT
            )
        written = kwargs.get("out", args[0] if func._schema.is_mutable else None)
        functional = getattr(torch.ops.aten, base).default
        call = product_call(
            name=name,
            kind=kind,
            images=flow.images,
            axis=flow.image_axis,
            left=product.left,
            right=product.right,
            left_active=left.active,
            right_active=right.active,
            output_shape=product.shape,
            quantisation=quantisation_of(self._paths.module),
            bias=product.bias,
            run=lambda: functional(*args, **plain),
            finish=product.finish,
        )
        return self._answer(
            call, [*product.operands, product.bias], product.left.dtype, written=written
        )

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Take fused attention apart into its two products."""
        flow, made = self._flow, func(*args, **kwargs)
        named = arguments_of(func, args, kwargs)
        query, key, value = (named[name] for name in ("query", "key", "value"))
        attention = read_attention(func, args, kwargs)
        if attention.dropout:
            self._refuse(func, "run in evaluation mode or set its dropout to 0")
        answered: list[Tensor] = []
        self._count.attended(self._place(), attention.query, attention.key.mT)

        def scores() -> Tensor:
            return attention.query.float() @ attention.key.float().mT

        def product(role: str, left: Tensor, right: Tensor, run: Callable[[], Tensor]) -> GemmCall:
            return product_call(
                name=self._name("attention", (), suffix=f".{role}"),
                kind=f"attention_{role}",
                images=flow.images,
                axis=flow.image_axis,
                left=left,
                right=right,
                left_active=True,
                right_active=flow.origin(key if role == "scores" else value).active,
                output_shape=(*left.shape[:2], right.shape[2]),
                quantisation=None,
                bias=None,
                run=run,
                finish=lambda result: result,
            )

        def values() -> Tensor:
            if not answered:
                return made[0].reshape(-1, *made[0].shape[-2:]).float()
            return probabilities @ attention.value.float()

        call = product("scores", attention.query, attention.key.mT, scores)
        self._enter(call.layer.name, query, key)
        result = self._ask(call, torch.float32)
        if result is not None:
            answered.append(result)
        probabilities = attention.probabilities(scores() if result is None else result)
        first = call.layer.name
        call = product("values", probabilities, attention.value, values)
        last = call.layer.name
        self.edges[first, last] = None
        self._enter(last, value, attention.mask)
        result = self._ask(call, torch.float32)
        if result is not None:
            answered.append(result)
        flow.mark(tensors_in(made), [query, key, value], sources=frozenset({last}), active=True)
        if not answered:
            return made
        result = values() if result is None else result
        # The fused kernel's memory layout stays: code after it may rely on it.
        made[0].copy_(result.reshape(made[0].shape))
        return made

    def _asks(self, func: Any, tensors: list[Tensor]) -> bool:
        """Whether an operation is a product to ask about; odd tensors are refused.

        Not asked: integers, empty matrices, and parameters alone (a constant, computed once).
        """
        if any(t.layout != torch.strided or t.is_complex() for t in tensors):
            self._refuse(func, "use dense, real tensors")
        if all(self._flow.origin(t).resident for t in tensors):
            return False
        return all(t.numel() > 0 and t.is_floating_point() for t in tensors)

    def _pass(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        self._flow.follow(func, tensors_in([args, kwargs]), result)
        return result

    def _name(self, base: str, owners: tuple[str, ...], *, suffix: str = "") -> str:
        """Name of a new layer: its module's path, or `base` in the model itself."""
        return self._paths.name((self._paths.product_path(owners) or base) + suffix)

    def _answer(
        self,
        call: GemmCall,
        operands: list[Tensor | None],
        dtype: torch.dtype,
        *,
        written: Tensor | None = None,
    ) -> Tensor:
        """Ask about a call, and follow its result."""
        self._enter(call.layer.name, *operands)
        result = self._ask(call, dtype)
        if result is None:
            result = call.dense()
        given = [operand for operand in operands if operand is not None]
        if written is not None:
            result = written.resize_(result.shape).copy_(result)
        active = any(self._flow.origin(operand).active for operand in given)
        self._flow.mark([result], given, sources=frozenset({call.layer.name}), active=active)
        return result
