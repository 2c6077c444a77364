"""Every product of a running model as a question to `on_gemm`, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workloads.capturing.calls import GemmCall, convolution_call, product_call
from workloads.capturing.flow import tensors_in
from workloads.capturing.following import Following
from workloads.capturing.images import ImageCount
from workloads.capturing.modules import ModulePaths
from workloads.capturing.operations import (
    Product,
    arguments_of,
    read_attention,
    read_distance,
    read_product,
)
from workloads.errors import TraceError
from workloads.models.integer_grid import quantisation_of

OnGemm = Callable[[GemmCall], Tensor | None]


class Asking:
    """Reads products, names them, asks about them and follows their results.

    Its methods for operations return `NotImplemented` where nobody is to be asked.

    Args:
        on_gemm: see `workloads.capturing.hook.run_with`.
        count: of the images, and where values come from.
        paths: which module is running.
        following: is told of products, if what follows them is wanted.

    Attributes:
        edges: pairs of layer names.
        names: of all layers, in order.
        seen: products, asked about or not.
        not_counted: operations that may hide a product, and calls of each.
        taken_apart: operations from outside PyTorch whose products were all seen, likewise.
        failure: the first error of `on_gemm`.
    """

    def __init__(
        self,
        on_gemm: OnGemm,
        count: ImageCount,
        paths: ModulePaths,
        following: Following | None = None,
    ) -> None:
        self.edges: dict[tuple[str, str], None] = {}
        self.names: list[str] = []
        self.seen = 0
        self.not_counted: dict[str, int] = {}
        self.taken_apart: dict[str, int] = {}
        self.failure: BaseException | None = None
        self._on_gemm = on_gemm
        self._count = count
        self._flow = count.flow
        self._paths = paths
        self._following = following

    @property
    def place(self) -> str:
        """Where the model is, for a message."""
        return f"layer {self._paths.path!r}" if self._paths.path else "the model itself"

    @property
    def _attention_place(self) -> str:
        return f"attention in {self._paths.path or 'the model'}"

    def refuse(self, func: Any, fix: str) -> None:
        """Stop at an operation that hides a product."""
        raise TraceError(
            f"{self.place} must use operations that can be "
            f"taken apart, got {func}, which hides a matrix product; {fix}"
        )

    def leave_out(self, operation: str) -> None:
        """Note an operation that may hide a product, and runs all the same."""
        self.not_counted[operation] = self.not_counted.get(operation, 0) + 1

    def took_apart(self, operation: str) -> None:
        """Note an operation from outside PyTorch that hid nothing."""
        self.taken_apart[operation] = self.taken_apart.get(operation, 0) + 1

    def _ask(self, call: GemmCall, dtype: torch.dtype) -> Tensor | None:
        """`on_gemm`'s result, checked, or None."""
        self._count.asked()
        try:
            result = self._on_gemm(call)
        except BaseException as error:
            self.failure = self.failure or error
            raise
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
        self.names.append(name)
        for operand in operands:
            if operand is not None:
                for source in sorted(self._flow.origin(operand).sources - {name}):
                    self.edges[source, name] = None

    def convolution(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Ask about a convolution."""
        flow = self._flow
        named = arguments_of(func, args, kwargs)
        given, weight, bias = named["input"], named["weight"], named["bias"]
        if not self._asks(func, [given, weight]):
            return NotImplemented
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
        result = self._answer(call, [given, weight, bias], given.dtype)
        if self._following is not None:
            self._following.product(call.layer, [given, weight], result, given=given, bias=bias)
        return result

    def product(self, base: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Ask about a product of matrices or vectors; `base` is its name."""
        plain = {key: value for key, value in kwargs.items() if key != "out"}
        if not self._asks(func, list(tensors_in([args, plain]))):
            return NotImplemented
        if func._overloadname not in ("default", "out"):
            self.refuse(func, "call it without an output type")
        functional = getattr(torch.ops.aten, base).default
        return self._multiply(
            read_product(base, func, args, kwargs),
            batched=base in ("bmm", "baddbmm"),
            run=lambda: functional(*args, **plain),
            written=kwargs.get("out", args[0] if func._schema.is_mutable else None),
        )

    def distance(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Ask about Euclidean distances, where PyTorch computes them by a product."""
        product = read_distance(func, args, kwargs)
        if product is None or not self._asks(func, list(product.operands)):
            return NotImplemented
        return self._multiply(
            product,
            batched=product.left.shape[0] > 1,
            run=lambda: func(*args, **kwargs),
            written=None,
        )

    def _multiply(
        self,
        product: Product,
        *,
        batched: bool,
        run: Callable[[], Tensor],
        written: Tensor | None,
    ) -> Tensor:
        """Name a product, ask about it and follow its result."""
        flow = self._flow
        left, right = (flow.origin(operand) for operand in product.operands)
        kind = "batched_matmul" if batched else "matmul"
        role = None
        if batched and not left.owners and not right.owners:
            role = self._paths.attention_role()
        if role is not None:
            kind = f"attention_{role}"
            name = self._name("attention", (), suffix=f".{role}")
        elif left.active and right.active:
            name = self._name(kind, ())
        else:
            name = self._name("linear", left.owners if right.active else right.owners)
        if role == "scores":
            self._count.attended(self._attention_place, product.left, product.right)
        elif left.active != right.active:
            self._count.multiplied(
                f"product {name}", product.left if left.active else product.right.mT
            )
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
            run=run,
            finish=product.finish,
        )
        operands, bias = product.operands, product.bias
        result = self._answer(call, [*operands, bias], product.left.dtype, written=written)
        if self._following is not None:
            swapped = right.active and not left.active and role is None
            self._following.product(
                call.layer,
                operands,
                result,
                given=operands[1 if swapped else 0],
                bias=bias,
                factors=product.factors,
                changed_by=product.changed_by,
                swapped=swapped,
            )
        return result

    def attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Take fused attention apart into its two products."""
        named = arguments_of(func, args, kwargs)
        query, key, value = (named[name] for name in ("query", "key", "value"))
        if not self._asks(func, [query, key, value]):
            return NotImplemented
        flow, made = self._flow, func(*args, **kwargs)
        attention = read_attention(func, args, kwargs)
        if attention.dropout:
            self.refuse(func, "run in evaluation mode or set its dropout to 0")
        self._count.attended(self._attention_place, attention.query, attention.key.mT)
        answered: list[Tensor] = []

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
        scores_layer = call.layer
        call = product("values", probabilities, attention.value, values)
        last = call.layer.name
        self.edges[scores_layer.name, last] = None
        self._enter(last, value, attention.mask)
        result = self._ask(call, torch.float32)
        if result is not None:
            answered.append(result)
        flow.mark(tensors_in(made), [query, key, value], sources=frozenset({last}), active=True)
        if self._following is not None:
            number = self._following.product(scores_layer, [query, key], None, given=query)
            number = self._following.softmax(number, func._schema.name)
            self._following.multiplied(call.layer, number, value, made[0])
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
        self.seen += 1
        if any(t.layout != torch.strided or t.is_complex() for t in tensors):
            self.refuse(func, "use dense, real tensors")
        origins = [self._flow.origin(t) for t in tensors]
        if all(origin.resident for origin in origins):
            return False
        if any(t.numel() == 0 for t in tensors):
            return False
        if all(t.is_floating_point() for t in tensors):
            return True
        if any(origin.active for origin in origins):
            self.leave_out(f"{func._schema.name} of integers")
        return False

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
