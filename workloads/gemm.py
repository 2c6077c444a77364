"""The shapes of a workload: a matrix product, a convolution's geometry, a layer."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from workloads.errors import TraceError

KINDS = (
    "conv",
    "conv_transpose",
    "linear",
    "matmul",
    "batched_matmul",
    "attention_scores",
    "attention_values",
)


def _whole(value: object, minimum: int) -> int | None:
    """`value` as an int of at least `minimum`, or None when it is not one (a bool is not one)."""
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return number if number >= minimum else None


def _refuse(path: str, violations: list[str]) -> None:
    if violations:
        raise TraceError("\n".join(f"{path}.{violation}" for violation in violations))


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """`count` independent products of an `(m, k)` by a `(k, n)` matrix.

    Attributes:
        m: rows of the activations, at least 1.
        n: columns of the weights, at least 1.
        k: elements that one output sums over, at least 1.
        count: independent products of this shape (groups of a convolution, batch x heads).
    """

    m: int
    n: int
    k: int
    count: int = 1

    def __post_init__(self) -> None:
        violations = []
        for field in fields(self):
            given = getattr(self, field.name)
            number = _whole(given, 1)
            if number is None:
                violations.append(
                    f"{field.name} must be a whole number of at least 1, got {given!r}; "
                    "give the size of a non-empty matrix product"
                )
            else:
                object.__setattr__(self, field.name, number)
        _refuse("Gemm", violations)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all `count` products."""
        return self.count * self.m * self.n * self.k


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Geometry of a convolution over one to three spatial dimensions.

    Attributes:
        kernel: taps per dimension, at least 1.
        stride: steps per dimension, at least 1.
        padding: zeros added on *both* sides of a dimension, at least 0. An uneven padding (`same`
            with an even kernel) is applied by PyTorch as an operation of its own, before the layer.
        dilation: distance between taps per dimension, at least 1.
        groups: channel groups that don't see each other, at least 1.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        violations = []
        for name, minimum in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            given = getattr(self, name)
            numbers = tuple(_whole(v, minimum) for v in given) if _is_list(given) else (None,)
            if None in numbers or not 1 <= len(numbers) <= 3:
                violations.append(
                    f"{name} must be one to three whole numbers of at least {minimum}, "
                    f"got {given!r}; give one per spatial dimension"
                )
            else:
                object.__setattr__(self, name, numbers)
        groups = _whole(self.groups, 1)
        if groups is None:
            violations.append(
                f"groups must be a whole number of at least 1, got {self.groups!r}; use 1 for none"
            )
        else:
            object.__setattr__(self, "groups", groups)
        lengths = {name: len(getattr(self, name)) for name in ("stride", "padding", "dilation")}
        if not violations and any(n != len(self.kernel) for n in lengths.values()):
            violations.append(
                f"stride, padding and dilation must have as many dimensions as "
                f"kernel={self.kernel}, got {lengths}; give one number per spatial dimension"
            )
        _refuse("Convolution", violations)

    def output_size(self, input_size: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial output size of a (not transposed) convolution over `input_size`."""
        return tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                input_size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """What the integers q of a quantised tensor stand for: scale * (q - zero_point).

    An array multiplies q: sum (q - z) w = sum q w - z sum w, and the second sum, a constant of an
    output channel, goes into the bias. Hashing on q decides as hashing on the values x does, with
    thresholds moved: v . x > t is v . q > t / scale + z * sum v.

    Attributes:
        scale: distance of two neighbouring values, above 0; float32 holds it exactly.
        zero_point: the q that stands for 0.
        bits: of an integer q, 0 <= q < 2**bits.
    """

    scale: float
    zero_point: int
    bits: int = 8

    def __post_init__(self) -> None:
        violations = []
        if not isinstance(self.scale, float) or not 0 < self.scale < math.inf:
            violations.append(
                f"scale must be a finite number above 0, got {self.scale!r}; give the distance of "
                "two neighbouring values"
            )
        if _whole(self.bits, 1) is None or self.bits > 16:
            violations.append(f"bits must be a whole number from 1 to 16, got {self.bits!r}; use 8")
        elif _whole(self.zero_point, 0) is None or self.zero_point >= 2**self.bits:
            violations.append(
                f"zero_point must be a whole number from 0 to {2**self.bits - 1}, got "
                f"{self.zero_point!r}; give the integer that stands for 0"
            )
        _refuse("Quantisation", violations)

    def steps(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`q - zero_point` of float32 values on the grid, as whole float32 numbers.

        Args:
            values: of any shape; the memory order is kept.
        """
        # A value is one rounding away from its multiple of the scale: the quotient is far from .5.
        steps = np.divide(values, np.float32(self.scale), dtype=np.float32)
        return np.rint(steps, out=steps)


def _is_list(value: object) -> bool:
    return isinstance(value, tuple | list)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One matrix product as a model asks for it.

    Attributes:
        name: module path (`conv1`, `encoder.0.attn`); further calls of the same module are
            `conv1#2`, `conv1#3`; attention is `attn.scores` and `attn.values`. Unique in a trace.
        kind: one of `KINDS`.
        gemm: the product; for `conv` its rows are the unfolded patches.
        images: inputs in the batch that was captured, at least 1.
        row_images: images that share the `m` rows of one product; the rows of one image are
            contiguous, `m // row_images` of them. 1 where the rows of a product belong to one image
            (batched matmul, attention) or can't be told apart.
        convolution: geometry, for `conv` and `conv_transpose` only.
        input_shape: shape of the operation's activation operand, before unfolding.
        output_shape: shape of the operation's result.
        weights_are_parameters: whether the right-hand matrix is resident (parameters and what is
            computed from them alone), or an activation.
        quantisation: the integers that the rows stand for; `None` in floating point.
    """

    name: str
    kind: str
    gemm: Gemm
    images: int
    row_images: int
    convolution: Convolution | None = None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights_are_parameters: bool
    quantisation: Quantisation | None = None

    def __post_init__(self) -> None:
        for name in ("input_shape", "output_shape"):
            if _is_list(getattr(self, name)):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _refuse(f"Layer[{self.name!r}]", self._violations())

    def _violations(self) -> list[str]:
        found = []
        if not isinstance(self.name, str) or not self.name:
            found.append(f"name must be a non-empty text, got {self.name!r}; use the module's path")
        if self.kind not in KINDS:
            found.append(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}; use one")
        for name in ("images", "row_images"):
            if _whole(getattr(self, name), 1) is None:
                found.append(
                    f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}; "
                    "use 1 for a single input"
                )
        for name in ("input_shape", "output_shape"):
            shape = getattr(self, name)
            if not isinstance(shape, tuple) or any(_whole(size, 1) is None for size in shape):
                found.append(
                    f"{name} must hold sizes of at least 1, got {shape!r}; give a tensor's shape"
                )
        if not isinstance(self.quantisation, Quantisation | None):
            found.append(
                f"quantisation must be a Quantisation or None, got {self.quantisation!r}; "
                "use Quantisation(scale=..., zero_point=...)"
            )
        if not isinstance(self.gemm, Gemm):
            found.append(f"gemm must be a Gemm, got {self.gemm!r}; use Gemm(m=..., n=..., k=...)")
        if found:
            return found
        if self.gemm.m % self.row_images:
            found.append(
                f"row_images must divide gemm.m={self.gemm.m}, got {self.row_images}; "
                "use 1 where rows of images can't be told apart"
            )
        is_convolution = self.kind in ("conv", "conv_transpose")
        if is_convolution != (self.convolution is not None):
            found.append(
                f"convolution must be given for conv and conv_transpose alone, got "
                f"{self.convolution!r} with kind={self.kind!r}; add or drop it"
            )
        elif self.convolution is not None:
            found += self._convolution_violations(self.convolution)
        return found

    def _convolution_violations(self, convolution: Convolution) -> list[str]:
        """Whether the shapes, the geometry and the product agree."""
        dims = len(convolution.kernel)
        if len(self.input_shape) != dims + 2 or len(self.output_shape) != dims + 2:
            return [
                f"input_shape and output_shape must have {dims + 2} dimensions for kernel="
                f"{convolution.kernel}, got {self.input_shape} and {self.output_shape}; "
                "give (images, channels, spatial...)"
            ]
        batch, channels, *size = self.input_shape
        taps, groups = math.prod(convolution.kernel), convolution.groups
        n = self.output_shape[1] // groups
        if self.kind == "conv":
            size = list(convolution.output_size(tuple(size)))
            expected = (batch * math.prod(size), n, channels // groups * taps, groups)
        else:
            expected = (batch * math.prod(size), n * taps, channels // groups, groups)
        gemm = (self.gemm.m, self.gemm.n, self.gemm.k, self.gemm.count)
        agrees = gemm == expected and (self.kind != "conv" or size == list(self.output_shape[2:]))
        if agrees:
            return []
        return [
            f"gemm (m, n, k, count) must be {expected} for input {self.input_shape}, output "
            f"{self.output_shape} and {convolution}, got {gemm}; derive it from the shapes"
        ]

    @property
    def input_elements(self) -> int:
        """Elements of the input before it is unfolded."""
        return math.prod(self.input_shape)

    def to_dict(self) -> dict[str, Any]:
        """Describe the layer in values that JSON can hold; `from_dict` reads it back."""
        values = asdict(self)
        if self.quantisation is None:  # as releases that knew no quantisation wrote it
            del values["quantisation"]
        return values

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Self:
        """Read the layer that `to_dict` described.

        Raises:
            TraceError: if a field is missing, unknown, or breaks a rule.
        """
        try:
            values = dict(description)
            values["gemm"] = Gemm(**values["gemm"])
            if values.get("convolution") is not None:
                values["convolution"] = Convolution(**values["convolution"])
            if values.get("quantisation") is not None:
                values["quantisation"] = Quantisation(**values["quantisation"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, TraceError):
                raise
            raise TraceError(
                f"Layer must have the fields {', '.join(f.name for f in fields(cls))}, got "
                f"{description!r} ({error}); capture the trace again"
            ) from error
