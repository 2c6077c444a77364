"""What becomes of every product's result, while a model runs.

Each value is a node: the model's inputs, products and what operations make of them. Views share
memory, so a tensor's value is kept per storage; a tensor that shows less than all of it, or all of
it in another shape, is a node of its own. A write to a part of a tensor makes a new value that is
understood no further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from workloads.capturing.flow import Flow, tensors_in
from workloads.capturing.folding import Folded, again, axis_of_columns, by_column, of_bias, reshaped
from workloads.capturing.handling import Handling
from workloads.capturing.operations import arguments_of
from workloads.capturing.steps import (
    Read,
    batch_norm_of,
    constant_of,
    is_copy,
    is_never_negative,
    kind_of,
    of_floats,
)
from workloads.traces.after import AFFINE, MODEL_INPUT, Affine, After, Step
from workloads.traces.layer import Gemm, Layer

# In place, and yet no value changes.
_OF_SHAPE = ("t", "transpose", "squeeze", "unsqueeze", "as_strided", "detach")
# Of a constant, values that are looked at to see whether one is below 0.
_MOST_CONSTANTS = 2**22


@dataclass(frozen=True, kw_only=True, eq=False)
class _Node:
    """One value.

    Attributes:
        step: what makes it; of the model's inputs an `other`.
        never_negative: whether it is at least 0 whatever the inputs.
        sources: the layers whose results reach it; `MODEL_INPUT` for the model's input.
        folded: what it is of a product, as long as that is scaled and shifted alone.
    """

    step: Step
    never_negative: bool
    sources: frozenset[str]
    folded: Folded | None = None


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Which value a storage holds, and how it lies there; whether it is all of the storage."""

    number: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: Any
    whole: bool
    views: dict[Any, int] = field(default_factory=dict)


class Following:
    """Numbers the values of a run, and tells afterwards what follows each layer.

    Args:
        flow: knows which tensors the model's inputs change.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._nodes: list[_Node] = []
        self._held: Any = WeakIdKeyDictionary()
        self._layers: dict[str, int] = {}
        self._gemms: dict[str, Gemm] = {}
        self._never_negative: dict[str, bool] = {}

    def add_input(self, tensor: Tensor) -> None:
        """Declare an input of the model."""
        self._hold([tensor], self._put("other", never_negative=not of_floats(tensor)))

    def operation(self, handling: Handling, func: Any, args: Any, kwargs: Any, made: Any) -> None:
        """An operation that ran as it is.

        Args:
            handling: its name, and what it writes to.
            func: the operation.
            args: what it was called with.
            kwargs: likewise.
            made: its result.
        """
        named = arguments_of(func, args, kwargs)
        written = list(tensors_in([named.get(name) for name in handling.writes]))
        own = {id(tensor) for name, tensor in kwargs.items() if name == "out"}
        given = [x for x in tensors_in([args, kwargs]) if id(x) not in own]
        results = [*written, *tensors_in(made)]
        memory = {_memory(x) for x in given if _is_plain(x)}
        fresh = [x for x in results if _is_plain(x) and _memory(x) not in memory]
        if handling.base in _OF_SHAPE or (results and not written and not fresh):
            return None  # a view: told where it is read
        inputs = [self.number(x) for x in given]
        if all(number is None for number in inputs):
            return self._forget(written)
        if handling.base == "copy" and written:
            return self._copied(handling, written[0], named["src"])
        if not written and is_copy(handling.base, named):
            number = self.number(named["self"])
            return None if number is None else self._hold(fresh, number)
        partly = [x for x in written if self._holds_more(x)]
        known = [*dict.fromkeys(_known(inputs))]
        return self._made(handling, named, known, written or fresh, partly)

    def _made(
        self,
        handling: Handling,
        named: dict[str, Any],
        inputs: list[int],
        made: list[Tensor],
        partly: list[Tensor],
    ) -> None:
        """A step, and the tensors that it makes, some of which are parts of their memory."""
        read = Read(
            base=handling.base,
            named=named,
            active=lambda x: self.number(x) is not None or self._flow.origin(x).active,
            never_negative=self._is_never_negative,
        )
        kind, more = kind_of(read)
        never = is_never_negative(read)
        before = _known(self._at(x) for x in partly)
        if partly or not made:
            kind, more = "other", {}
            never = never and all(self._nodes[number].never_negative for number in before)
        number = self._put(
            kind,
            operation=handling.name,
            inputs=[*dict.fromkeys((*inputs, *before))],
            shape=tuple(made[0].shape) if made else (),
            never_negative=never,
            folded=self._refolded(kind, read) if len(inputs) == 1 and not partly else None,
            **more,
        )
        self._hold([x for x in made if not any(x is each for each in partly)], number)
        for tensor in partly:
            held = self._held.get(tensor.untyped_storage())
            self._held[tensor.untyped_storage()] = _Held(
                number=number,
                shape=tuple(tensor.shape) if held is None else held.shape,
                stride=tensor.stride() if held is None else held.stride,
                offset=tensor.storage_offset() if held is None else held.offset,
                whole=held is not None and held.whole,
            )

    def _copied(self, handling: Handling, written: Tensor, source: Tensor) -> None:
        """A copy into a tensor that is there."""
        whole = written.shape == source.shape and written.dtype == source.dtype
        number = self.number(source)
        if whole and number is not None and not self._holds_more(written):
            return self._hold([written], number)
        self.unknown([source], [written], handling.name)

    def product(
        self,
        layer: Layer,
        operands: Iterable[Tensor],
        made: Tensor | None,
        *,
        given: Tensor,
        bias: Tensor | None = None,
        factors: tuple[float, float] = (1, 1),
        changed_by: str = "",
        swapped: bool = False,
    ) -> int:
        """A layer's product.

        Args:
            layer: the layer.
            operands: what is multiplied, or the numbers of such values.
            made: the operation's result, or `None` where another operation hides it.
            given: the operand that its rows come from.
            bias: what the operation adds.
            factors: what it multiplies the product and the bias by first.
            changed_by: what else the operation does with the product; empty for nothing.
            swapped: whether the operation's result is the product turned over.

        Returns:
            Number of the value that was made.
        """
        name, shape = layer.name, layer.output_shape
        inputs = _known(self.number(x) for x in operands)
        self._never_negative[name] = self._is_never_negative(given)
        number = self._layers[name] = self._put(
            "product", inputs=inputs, layer=name, shape=shape, sources=frozenset({name})
        )
        axis = None if swapped else axis_of_columns(layer)
        if axis is not None:
            self._gemms[name] = layer.gemm
            columns = layer.gemm.n * layer.gemm.count
            ones = torch.ones(columns, dtype=torch.float64)
            start = Folded(layer=name, axis=axis, scale=ones, shift=torch.zeros_like(ones))
            self._nodes[number] = _refold(self._nodes[number], start)
        if changed_by:
            number = self._put("other", operation=changed_by, inputs=[number], shape=shape)
        if factors[0] != 1:
            number = self._scaled(number, "scale", factors[0], 0.0)
        if bias is not None and factors[1] != 0:
            added = self.number(bias)
            if added is None:
                number = self._scaled(number, "bias", 1.0, bias.detach() * factors[1])
            else:
                number = self._put("add", inputs=[number, added], shape=shape)
        if made is not None:
            self._hold([made], number)
        return number

    def softmax(self, number: int, operation: str) -> int:
        """What attention in one operation does with its scores: scale, mask and softmax."""
        shape = self._nodes[number].step.shape
        return self._put(
            "softmax", operation=operation, inputs=[number], shape=shape, never_negative=True
        )

    def multiplied(self, layer: Layer, probabilities: int, values: Tensor, made: Tensor) -> None:
        """Attention's second product, of a softmax and values."""
        name = layer.name
        self._never_negative[name] = True
        number = self._layers[name] = self._put(
            "product",
            inputs=[probabilities, *_known([self.number(values)])],
            layer=name,
            shape=layer.output_shape,
            sources=frozenset({name}),
        )
        if tuple(made.shape) != layer.output_shape:
            number = self._put("reshape", inputs=[number], shape=tuple(made.shape))
        self._hold([made], number)

    def unknown(self, given: Iterable[Tensor], made: Iterable[Tensor], operation: str) -> None:
        """What was done in a way that isn't seen."""
        made = [x for x in made if _is_plain(x)]
        before = (self._at(x) for x in made)
        inputs = _known(self.number(x) for x in given)
        number = self._put(
            "other",
            operation=operation,
            inputs=[*dict.fromkeys((*inputs, *_known(before)))],
            shape=tuple(made[0].shape) if made else (),
        )
        for tensor in made:
            self._held.pop(tensor.untyped_storage(), None)
        self._hold(made, number)

    def output(self, tensors: Iterable[Tensor]) -> None:
        """What the model returns."""
        for tensor in tensors:
            number = self.number(tensor)
            if number is not None:
                self._put("output", inputs=[number], shape=tuple(tensor.shape))

    def number(self, tensor: Tensor) -> int | None:
        """Of the value that a tensor shows; `None` where the model's inputs don't change it."""
        held = self._held.get(tensor.untyped_storage()) if _is_plain(tensor) else None
        if held is None:
            return None
        place = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        if place == (held.shape, held.stride, held.offset):
            return held.number
        if place not in held.views:
            node = self._nodes[held.number]
            whole = _elements(tensor) == int(np.prod(held.shape)) == tensor.numel()
            whole = whole and held.whole  # else it may be beside the value
            held.views[place] = self._put(
                "reshape" if whole else "part",
                inputs=[held.number],
                shape=place[0],
                never_negative=node.never_negative and held.whole,
                folded=reshaped(node.folded, node.step.shape, tensor) if whole else None,
            )
        return held.views[place]

    def afters(self) -> dict[str, After]:
        """What follows each layer."""
        readers: dict[int, list[int]] = {}
        for node in self._nodes:
            for number in node.step.inputs:
                readers.setdefault(number, []).append(node.step.number)
        return {name: self._after(name, start, readers) for name, start in self._layers.items()}

    def affines(self, afters: Mapping[str, After]) -> dict[str, Affine]:
        """Scale and shift of each layer that has them.

        Args:
            afters: what follows it, by layer.
        """
        found = {}
        for name, after in afters.items():
            folded = None if after.folded is None else self._nodes[after.folded].folded
            if folded is not None:
                shape = self._gemms[name].count, self._gemms[name].n
                scale, shift = (x.float().numpy() for x in (folded.scale, folded.shift))
                found[name] = Affine(scale=scale.reshape(shape), shift=shift.reshape(shape))
        return found

    def inputs_never_negative(self) -> dict[str, bool]:
        """Of each layer, whether no value of its rows is below 0, whatever the model's inputs."""
        return self._never_negative

    def _after(self, name: str, start: int, readers: Mapping[int, list[int]]) -> After:
        """The values that a product's result reaches, up to the next products."""
        joins = {start: 0}
        steps = []
        for number in sorted(self._reached(start, readers)):
            step = self._nodes[number].step
            others = [
                each
                for each in step.inputs
                if each not in joins or (each != start and self._nodes[each].step.kind == "product")
            ]
            own = [joins[each] for each in step.inputs if joins.get(each, 2) < 2]
            if not own:
                continue
            joins[number] = min(own) + bool(others)
            sources = frozenset().union(*(self._nodes[each].sources for each in others))
            beside = () if step.kind == "product" else tuple(sorted(sources))
            steps.append(_with_others(step, beside))
            if step.kind in ("product", "output"):
                joins[number] = 2
        after = After(number=start, steps=tuple(steps))
        folded = start if self._nodes[start].folded is not None else None
        for step in after.head:
            if folded is None or self._nodes[step.number].folded is None:
                break
            folded = step.number
        return After(number=start, steps=tuple(steps), folded=folded)

    def _reached(self, start: int, readers: Mapping[int, list[int]]) -> set[int]:
        """Numbers of the values that come from a product's, products and outputs not passed."""
        found: set[int] = set()
        left = list(readers.get(start, ()))
        while left:
            number = left.pop()
            if number in found:
                continue
            found.add(number)
            if self._nodes[number].step.kind not in ("product", "output"):
                left += readers.get(number, ())
        return found

    def _put(
        self,
        kind: str,
        *,
        operation: str = "",
        inputs: Iterable[int] = (),
        shape: tuple[int, ...] = (),
        never_negative: bool = False,
        sources: frozenset[str] | None = None,
        folded: Folded | None = None,
        **more: Any,
    ) -> int:
        """A new value."""
        number, inputs = len(self._nodes), tuple(inputs)
        step = Step(
            number=number, kind=kind, operation=operation, inputs=inputs, shape=shape, **more
        )
        if sources is None:
            sources = frozenset().union(*(self._nodes[each].sources for each in inputs))
            sources = sources if inputs else frozenset({MODEL_INPUT})
        self._nodes.append(
            _Node(step=step, never_negative=never_negative, sources=sources, folded=folded)
        )
        return number

    def _hold(self, tensors: Iterable[Tensor], number: int) -> None:
        """Tensors that hold a value, all of it."""
        for tensor in tensors:
            if _is_plain(tensor):
                self._held[tensor.untyped_storage()] = _Held(
                    number=number,
                    shape=tuple(tensor.shape),
                    stride=tensor.stride(),
                    offset=tensor.storage_offset(),
                    whole=_fills(tensor),
                )

    def _forget(self, written: Iterable[Tensor]) -> None:
        """What constants were written over."""
        for tensor in written:
            if not _is_plain(tensor) or self._at(tensor) is None:
                continue
            if self._holds_more(tensor):
                self.unknown([], [tensor], "a constant written to a part")
            else:
                self._held.pop(tensor.untyped_storage(), None)

    def _at(self, tensor: Tensor) -> int | None:
        """Number of the value in a tensor's memory, however little of it the tensor shows."""
        held = self._held.get(tensor.untyped_storage()) if _is_plain(tensor) else None
        return None if held is None else held.number

    def _holds_more(self, tensor: Tensor) -> bool:
        """Whether a tensor is a part of its memory: a write to it changes no more."""
        if not _is_plain(tensor):
            return False
        held = self._held.get(tensor.untyped_storage())
        if held is None or not held.whole:
            return not _fills(tensor)
        return _elements(tensor) < int(np.prod(held.shape))

    def _is_never_negative(self, tensor: Tensor) -> bool:
        """Of a value what is known, of a constant what it is."""
        number = self.number(tensor)
        if number is not None:
            return self._nodes[number].never_negative
        if not _is_plain(tensor) or tensor.is_complex() or tensor.numel() > _MOST_CONSTANTS:
            return False
        return not self._flow.origin(tensor).active and bool((tensor.detach() >= 0).all())

    def _refolded(self, kind: str, read: Read) -> Folded | None:
        """What a value is of its product after a scale, a shift or a batch normalisation."""
        if kind not in AFFINE:
            return None
        active = (x for x in read.named.values() if read.is_active(x))
        tensor = next(active)
        number = self.number(tensor)
        folded = None if number is None else self._nodes[number].folded
        if folded is None:
            return None
        if kind == "batch_norm":
            return again(folded, batch_norm_of(read.named)) if folded.axis == 1 else None
        constants = constant_of(read)
        if constants is None:
            return None
        shape = tuple(tensor.shape)
        return again(folded, tuple(by_column(each, shape, folded) for each in constants))

    def _scaled(self, number: int, kind: str, scale: float, shift: float | Tensor) -> int:
        """A product's result scaled or shifted by its own operation."""
        node = self._nodes[number]
        folded, shape = node.folded, node.step.shape
        if folded is not None:
            by = torch.tensor(scale, dtype=torch.float64), of_bias(shift, shape, folded)
            folded = again(folded, by)
        return self._put(kind, inputs=[number], shape=shape, folded=folded)


def _refold(node: _Node, folded: Folded) -> _Node:
    return _Node(
        step=node.step, never_negative=node.never_negative, sources=node.sources, folded=folded
    )


def _with_others(step: Step, others: tuple[str, ...]) -> Step:
    if not others:
        return step
    return Step(**{**vars(step), "others": others})


def _known(numbers: Iterable[int | None]) -> list[int]:
    return [number for number in numbers if number is not None]


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _fills(tensor: Tensor) -> bool:
    """Whether a tensor shows all of its memory."""
    return _elements(tensor) * tensor.element_size() >= tensor.untyped_storage().nbytes()


def _elements(tensor: Tensor) -> int:
    """Elements of memory that a tensor shows."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return int(np.prod([size for size, stride in pairs if stride != 0]))
