"""What a model does with the result of a product, up to the next products.

A technique that ends sums early, or that passes changes on from layer to layer, is right or wrong
by this alone: a sum below 0 may end where a ReLU follows, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from workloads.errors import TraceError, plain, show

# Element by element; none but `relu` is 0 for all that is below 0.
ACTIVATIONS = (
    *("relu", "prelu", "leaky_relu", "elu", "silu", "gelu", "mish", "softplus", "tanh", "sigmoid"),
    *("hardswish", "hardsigmoid", "softmax", "log_softmax"),
)
# A number for each column of a product, or one for all: multiplied by, or added.
AFFINE = ("bias", "batch_norm", "scale", "shift")
# Values are moved, none is changed; a part leaves some out.
MOVES = ("reshape", "part", "padding", "concatenation")

KINDS = (
    *AFFINE,
    *ACTIVATIONS,
    *MOVES,
    *("add", "subtract", "multiply"),
    *("max_pool", "avg_pool", "mean", "interpolation"),
    *("layer_norm", "group_norm", "quantisation", "cast"),
    *("product", "output", "other"),
)

MODEL_INPUT = ""
"""Stands for the model's own input where layers are named whose results reach a step."""

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation on a value that comes from a product.

    Attributes:
        number: of the value that it makes, in the model's run: one step that several layers'
            results reach has the same in all of them.
        kind: one of `KINDS`. `relu` is whatever gives max(x, 0), also by `clamp` or `threshold`;
            `add`, `subtract` and `multiply` are of two values of the model, `scale` and `shift` of
            one and a constant; `product` is the next layer, `output` the model's. `other` is
            everything that isn't understood here, such as a write to a part of a tensor.
        operation: PyTorch's name of it, such as `aten::hardtanh_`.
        inputs: numbers of the values that it reads, parameters left out.
        others: layers whose results reach it beside this layer's (`MODEL_INPUT` for the model's
            input): of a residual sum, those of the shortcut.
        layer: name of the layer that a `product` is.
        shape: of the value.
        kernel: of pooling, one number a spatial dimension; the whole size where it is global, empty
            where windows are of several sizes.
        stride: of pooling, likewise.
        padding: of pooling, likewise, on both sides.
        upper: where a `relu` stops from above, such as 6; `None` for nowhere.
    """

    number: int
    kind: str
    operation: str = ""
    inputs: tuple[int, ...] = ()
    others: tuple[str, ...] = ()
    layer: str = ""
    shape: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    upper: float | None = None

    def __post_init__(self) -> None:
        """Check the kind, and keep sequences as tuples."""
        if self.kind not in KINDS:
            raise TraceError(
                f"Step.kind must be one of {', '.join(KINDS)}, got {show(self.kind)}; use 'other' "
                "for what is not understood"
            )
        for name in ("inputs", "others", "shape", "kernel", "stride", "padding"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def joins(self) -> bool:
        """Whether another layer's result, or the model's input, meets this layer's here."""
        return bool(self.others)

    def to_dict(self) -> dict[str, Any]:
        """In values that JSON can hold, defaults left out."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value not in ((), "", None)
        }


@dataclass(frozen=True, kw_only=True)
class After:
    """The steps between a product and the next ones.

    Steps end at products and at the model's output. Of a value that other layers' results join, the
    first join is passed and the second is the last that is told: what follows there stands with the
    layer that joins. What a model does outside PyTorch (in NumPy) is not seen.

    Attributes:
        number: of the product's own result, before any bias.
        steps: in the order of the run.
        folded: number of the value that the layer's `Affine` gives; `None` where nothing is folded.
    """

    number: int
    steps: tuple[Step, ...] = ()
    folded: int | None = None

    @cached_property
    def _readers(self) -> Mapping[int, tuple[Step, ...]]:
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            for number in dict.fromkeys(step.inputs):
                found.setdefault(number, []).append(step)
        return {number: tuple(steps) for number, steps in found.items()}

    def readers(self, number: int) -> tuple[Step, ...]:
        """The steps that read a value: none, one or several."""
        return self._readers.get(number, ())

    @cached_property
    def head(self) -> tuple[Step, ...]:
        """The steps that the whole result goes through, one after the other, by itself.

        Each is the only reader of the one before and reads nothing else of the model: they end
        before a branch, a join, a product and the output.
        """
        found: list[Step] = []
        number = self.number
        while True:
            readers = self.readers(number)
            if len(readers) != 1 or set(readers[0].inputs) != {number}:
                return tuple(found)
            if readers[0].kind in ("product", "output"):
                return tuple(found)
            found.append(readers[0])
            number = readers[0].number

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers that read what becomes of the result."""
        return tuple(dict.fromkeys(step.layer for step in self.steps if step.kind == "product"))

    def of_kind(self, *kinds: str) -> Iterator[Step]:
        """The steps of these kinds."""
        return (step for step in self.steps if step.kind in kinds)

    def to_dict(self) -> dict[str, Any]:
        """In values that JSON can hold."""
        return {
            "number": self.number,
            "folded": self.folded,
            "steps": [step.to_dict() for step in self.steps],
        }

    @classmethod
    def from_dict(cls, description: Any) -> Self:
        """Read what `to_dict` described.

        Raises:
            TraceError: it is no such description.
        """
        try:
            steps = tuple(Step(**step) for step in description["steps"])
            made = cls(number=description["number"], steps=steps, folded=description["folded"])
            numbers = [made.number, *(number for step in steps for number in step.inputs)]
            if not all(type(number) is int for number in numbers):
                raise TypeError("numbers of values must be whole")
            return made
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(
                f"Layer.after must describe number, folded and steps, got {show(description)} "
                f"({plain(str(error), 200)}); capture the trace again"
            ) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """What a result becomes before it is anything but scaled and shifted: `scale * sum + shift`.

    Bias, batch normalisation in inference mode and constants of the model are folded;
    `After.folded` is the number of the value that it gives.

    Attributes:
        scale: `(count, n)` float32, of each column of the product.
        shift: `(count, n)` float32, likewise.
    """

    scale: Array = field(repr=False)
    shift: Array = field(repr=False)
