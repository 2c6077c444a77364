"""The shapes of a workload: a matrix product, a convolution's geometry, a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from workloads.errors import TraceError, plain, show
from workloads.rules import (
    LARGEST_LAYER,
    Rule,
    flag,
    instance_of,
    integer,
    keep_fields,
    kept_by,
    one_of,
    refuse,
    true_of,
    whole,
)
from workloads.traces.after import After

LONGEST_NAME = 500
# Steps along one dimension, such as a stride: offsets in memory fit 64 bits.
_LARGEST_STEP = 2**24

KINDS = (
    "conv",
    "conv_transpose",
    "linear",
    "matmul",
    "batched_matmul",
    "attention_scores",
    "attention_values",
)


def _refuse(label: str, found: list[str]) -> None:
    refuse([f"{label}.{each}" for each in found], TraceError)


def is_name(value: object) -> bool:
    """Whether a value can name a layer on a terminal, a page and in a file."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_NAME and value.isprintable()


def _sizes(value: object, minimum: int, maximum: int) -> tuple[int, ...] | None:
    """A tuple or list of whole numbers in a range, or None where it is not one."""
    if not isinstance(value, tuple | list):
        return None
    numbers = [whole(each, minimum, maximum) for each in value]
    return None if None in numbers else tuple(numbers)  # type: ignore[arg-type]


def _shape() -> dict[str, Rule]:
    """Sizes of a tensor."""

    def keep(value: object) -> tuple[int, ...] | None:
        sizes = _sizes(value, 1, LARGEST_LAYER)
        return sizes if sizes is not None and math.prod(sizes) <= LARGEST_LAYER else None

    return kept_by(
        keep,
        f"hold sizes of at least 1 and {LARGEST_LAYER} elements at most",
        "give a tensor's shape",
    )


def _steps(least: int, *, name: str) -> dict[str, Rule]:
    """One whole number for each of one to three spatial dimensions."""

    def keep(value: object) -> tuple[int, ...] | None:
        sizes = _sizes(value, least, _LARGEST_STEP)
        return sizes if sizes is not None and 1 <= len(sizes) <= 3 else None

    return kept_by(
        keep,
        f"be one to three whole numbers of at least {least} and at most {_LARGEST_STEP}",
        f"give one per spatial dimension, as in {name}=({least}, {least})",
    )


_SIZE = integer(1, fix="give the size of a non-empty matrix product")


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """`count` independent products of an `(m, k)` by a `(k, n)` matrix.

    Together they have at most 2^51 multiply-accumulates.

    Attributes:
        m: rows of the activations, at least 1.
        n: columns of the weights, at least 1.
        k: elements that one output sums over, at least 1.
        count: independent products of this shape (groups of a convolution, batch x heads).
    """

    m: int = field(metadata=_SIZE)
    n: int = field(metadata=_SIZE)
    k: int = field(metadata=_SIZE)
    count: int = field(default=1, metadata=_SIZE)

    def __post_init__(self) -> None:
        keep_fields(self, "Gemm", TraceError)
        if self.macs > LARGEST_LAYER:
            raise TraceError(
                f"Gemm.macs (m x n x k x count) must be at most {LARGEST_LAYER}, got "
                f"{show(self.macs)}; split the product"
            )

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

    kernel: tuple[int, ...] = field(metadata=_steps(1, name="kernel"))
    stride: tuple[int, ...] = field(metadata=_steps(1, name="stride"))
    padding: tuple[int, ...] = field(metadata=_steps(0, name="padding"))
    dilation: tuple[int, ...] = field(metadata=_steps(1, name="dilation"))
    groups: int = field(default=1, metadata=integer(1, fix="use 1 for none"))

    def __post_init__(self) -> None:
        keep_fields(self, "Convolution", TraceError)
        lengths = {name: len(getattr(self, name)) for name in ("stride", "padding", "dilation")}
        if any(n != len(self.kernel) for n in lengths.values()):
            raise TraceError(
                f"Convolution.stride, padding and dilation must have as many dimensions as "
                f"kernel={self.kernel}, got {lengths}; give one number per spatial dimension"
            )

    def output_size(self, input_size: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial output size of a (not transposed) convolution over `input_size`."""
        return tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                input_size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def transposed_size(self, input_size: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial output size of a transposed convolution, without what pads its output."""
        return tuple(
            (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1
            for size, kernel, stride, pad, dilation in zip(
                input_size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )


def _scale(value: object) -> float | None:
    """A scale that is one in float32 too."""
    fits = isinstance(value, float) and 0 < np.float32(value) < math.inf
    return float(value) if fits else None  # type: ignore[arg-type]


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

    scale: float = field(
        metadata=kept_by(
            _scale, "be a finite number above 0", "give the distance of two neighbouring values"
        )
    )
    zero_point: int = field(
        metadata=integer(0, 2**16 - 1, fix="give the integer that stands for 0")
    )
    bits: int = field(default=8, metadata=integer(1, 16, fix="use 8"))

    def __post_init__(self) -> None:
        keep_fields(self, "Quantisation", TraceError)
        if self.zero_point >= 2**self.bits:
            raise TraceError(
                f"Quantisation.zero_point must be an integer from 0 to {2**self.bits - 1}, got "
                f"{self.zero_point}; give the integer that stands for 0"
            )

    def steps(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`q - zero_point` of float32 values on the grid, as whole float32 numbers.

        Args:
            values: of any shape; the memory order is kept.
        """
        # A value is one rounding away from its multiple of the scale: the quotient is far from .5.
        steps = np.divide(values, np.float32(self.scale), dtype=np.float32)
        return np.rint(steps, out=steps)


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
        after: what the model does with the result up to the next products; `None` where nobody
            knows, as in a trace of shapes alone or one captured by an earlier release.
        input_is_nonnegative: whether no value of the rows is below 0 whatever the model's inputs,
            as after a ReLU; `None` where nobody knows.
    """

    name: str = field(
        metadata=kept_by(
            lambda value: str.__str__(value) if is_name(value) else None,
            f"be a non-empty text of at most {LONGEST_NAME} printable characters",
            "use the module's path",
        )
    )
    kind: str = field(metadata=one_of(KINDS))
    gemm: Gemm = field(metadata=instance_of(Gemm))
    images: int = field(metadata=integer(1, fix="use 1 for a single input"))
    row_images: int = field(metadata=integer(1, fix="use 1 for a single input"))
    convolution: Convolution | None = field(
        default=None, metadata=instance_of(Convolution, optional=True)
    )
    input_shape: tuple[int, ...] = field(metadata=_shape())
    output_shape: tuple[int, ...] = field(metadata=_shape())
    weights_are_parameters: bool = field(metadata=flag("use True for weights that stay"))
    quantisation: Quantisation | None = field(
        default=None, metadata=instance_of(Quantisation, optional=True)
    )
    after: After | None = field(default=None, metadata=instance_of(After, optional=True))
    input_is_nonnegative: bool | None = field(
        default=None,
        metadata=true_of(
            lambda value: value is None or isinstance(value, bool),
            "be True, False or None",
            "use None where nobody knows",
        ),
    )

    def __post_init__(self) -> None:
        label = f"Layer[{show(self.name)}]"
        keep_fields(self, label, TraceError)
        _refuse(label, self._violations())

    def _violations(self) -> list[str]:
        """Whether the fields agree with each other."""
        found = []
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

    def _stored_violations(self) -> list[str]:
        """Whether images and shapes are those of a product that was captured."""
        gemm, found = self.gemm, []
        if self.row_images not in (1, self.images):
            found.append(
                f"row_images must be images={self.images} or 1, got {self.row_images}; "
                "use 1 where rows of images can't be told apart"
            )
        if self.convolution is not None:
            return found
        rows = math.prod(self.input_shape)
        if rows != gemm.count * gemm.m * gemm.k and not self._is_unfolded_map():
            found.append(
                f"input_shape must hold the count x m x k = {gemm.count * gemm.m * gemm.k} "
                f"elements of {gemm}, got {self.input_shape}; give the activations' shape"
            )
        if math.prod(self.output_shape) != gemm.count * gemm.m * gemm.n:
            found.append(
                f"output_shape must hold the count x m x n = {gemm.count * gemm.m * gemm.n} "
                f"elements of {gemm}, got {self.output_shape}; give the result's shape"
            )
        return found

    def _is_unfolded_map(self) -> bool:
        """Whether this is a convolution as SCALE-Sim lays it out: a product with feature maps."""
        if self.kind != "linear" or len(self.input_shape) != 4 or len(self.output_shape) != 4:
            return False
        gemm, (images, channels, *size) = self.gemm, self.input_shape
        made = self.output_shape[2:]
        return (
            self.output_shape[:2] == (images, gemm.count * gemm.n)
            and gemm.m == images * math.prod(made)
            and channels % gemm.count == 0
            and gemm.k % (channels // gemm.count) == 0
            and all(after <= before for after, before in zip(made, size, strict=True))
        )

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
        made = self.output_shape[2:]
        taps, groups = math.prod(convolution.kernel), convolution.groups
        n = self.output_shape[1] // groups
        if self.kind == "conv":
            fits = made == convolution.output_size(tuple(size))
            rows = batch * math.prod(convolution.output_size(tuple(size)))
            expected = (rows, n, channels // groups * taps, groups)
        else:
            fits = all(
                least <= after < least + max(stride, dilation)  # as PyTorch pads an output
                for after, least, stride, dilation in zip(
                    made,
                    convolution.transposed_size(tuple(size)),
                    convolution.stride,
                    convolution.dilation,
                    strict=True,
                )
            )
            expected = (batch * math.prod(size), n * taps, channels // groups, groups)
        gemm = (self.gemm.m, self.gemm.n, self.gemm.k, self.gemm.count)
        whole_groups = channels % groups == self.output_shape[1] % groups == 0
        if fits and whole_groups and gemm == expected and batch == self.output_shape[0]:
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
        values = asdict(replace(self, after=None))
        if self.after is not None:
            values["after"] = self.after.to_dict()
        for name in ("quantisation", "after", "input_is_nonnegative"):
            if values[name] is None:  # as releases that did not know it wrote it
                del values[name]
        return values

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Self:
        """Read the layer that `to_dict` described.

        Raises:
            TraceError: if a field is missing, unknown, or breaks a rule, or if the shapes are not
                those of the product.
        """
        wanted = f"the fields {', '.join(each.name for each in fields(cls))}"
        if not isinstance(description, Mapping):
            raise TraceError(
                f"Layer must have {wanted}, got {show(description)}; capture the trace again"
            )
        try:
            values = dict(description)
            values["gemm"] = Gemm(**values["gemm"])
            if values.get("convolution") is not None:
                values["convolution"] = Convolution(**values["convolution"])
            if values.get("quantisation") is not None:
                values["quantisation"] = Quantisation(**values["quantisation"])
            if values.get("after") is not None:
                values["after"] = After.from_dict(values["after"])
            layer = cls(**values)
        except (KeyError, TypeError) as error:
            raise TraceError(
                f"Layer must have {wanted}, got {show(description)} "
                f"({plain(str(error), 300)}); "
                "capture the trace again"
            ) from error
        _refuse(f"Layer[{show(layer.name)}]", layer._stored_violations())
        return layer
