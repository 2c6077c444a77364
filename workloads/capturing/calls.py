"""One matrix product as a running model asks for it, whatever operation it was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.capturing.real_values import as_plain
from workloads.errors import TraceError
from workloads.traces.layer import Convolution, Gemm, Layer, Quantisation
from workloads.traces.unfold import rows_of, weights_of

Array = np.ndarray[Any, np.dtype[Any]]

# Of an image, from which on its results are turned alone.
_MANY_POSITIONS = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class GemmCall:
    """One matrix product with its tensors.

    Read it while it is asked about: the model may write to the tensors later.

    Attributes:
        layer: what is multiplied.
        input: activations before unfolding: `(images, channels, *size)` for convolutions,
            `(count, m, k)` otherwise, rows of one image contiguous.
        weight: as PyTorch keeps it for convolutions, `(count, k, n)` otherwise.
        bias: what the operation adds, or None.
    """

    layer: Layer
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    run: Callable[[], Tensor] = field(repr=False)
    fold: Callable[[Tensor], Tensor] = field(repr=False)
    again: Callable[[Tensor], Tensor] = field(repr=False)

    def rows(self, *, order: str = "channels_first") -> Array:
        """`(count, m, k)` float32 rows, k-major; see `WorkloadTrace.rows`. It may be read-only."""
        return rows_of(self.layer, self.given(), order=order)

    def given(self) -> Array:
        """`input` as a float32 array; see `WorkloadTrace.given`. It may be read-only."""
        return to_numpy(self.input)

    def weights(self, *, order: str = "channels_first") -> Array:
        """`(count, k, n)` float32 weights in the same `order`. It may be read-only."""
        return weights_of(self.layer, to_numpy(self.weight), order=order)

    def dense(self) -> Tensor:
        """Run the operation itself, bias included, and return its result."""
        return self.run()

    def on_input(self, replaced: Tensor) -> Tensor:
        """Run the operation on other activations, where they are, and return its result.

        Args:
            replaced: of `input`'s shape, dtype and device.
        """
        return self.again(replaced)

    def from_result(self, result: Array) -> Tensor:
        """Fold a product into the operation's result.

        Args:
            result: `(count, m, n)` array, without bias.

        Returns:
            A new tensor of the operation's shape, dtype and device, bias added.

        Raises:
            TraceError: if the shape is another.
        """
        gemm = self.layer.gemm
        expected = (gemm.count, gemm.m, gemm.n)
        if result.shape != expected:
            raise TraceError(
                f"GemmCall.from_result of layer {self.layer.name!r} must get (count, m, n)="
                f"{expected}, got {result.shape}; give one row per row of rows()"
            )
        # Rows or columns contiguous: either is folded as it lies.
        by_column = result.swapaxes(1, 2).flags.c_contiguous
        plain = np.require(result, np.float32, ("W",) if by_column else ("C", "W"))
        given = torch.from_numpy(plain)
        folded = self.fold(given.to(self.input.device))
        folded = folded.to(self.input.dtype).reshape(self.layer.output_shape).contiguous()
        # Folding alone may leave a view of the caller's array.
        shared = folded.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()
        return folded.clone() if shared else folded


def to_numpy(tensor: Tensor) -> Array:
    """A tensor as float32, without a copy where it is that on the CPU; read-only."""
    plain = tensor.detach().to(device="cpu", dtype=torch.float32).resolve_conj().resolve_neg()
    array: Array = plain.numpy()
    array.flags.writeable = False
    return array


def array_of(tensor: Tensor) -> Array:
    """A model's output in its own type; one that numpy lacks, such as bfloat16, as float32.

    Raises:
        TraceError: it can't be a plain dense tensor, see `real_values.as_plain`.
    """
    plain = as_plain(tensor.detach()).cpu().resolve_conj().resolve_neg()
    try:
        return plain.numpy()
    except TypeError:
        return plain.float().numpy()


@dataclass(frozen=True, kw_only=True)
class RowOrder:
    """Rows lie as `(outer, images, inner)`; a layer wants the images outermost."""

    outer: int
    images: int
    inner: int

    def images_first(self, tensor: Tensor, dimension: int) -> Tensor:
        """Reorder one dimension so that each image's entries are contiguous."""
        return self._swap(tensor, dimension, (self.outer, self.images, self.inner))

    def restore(self, tensor: Tensor, dimension: int) -> Tensor:
        """Undo `images_first`."""
        return self._swap(tensor, dimension, (self.images, self.outer, self.inner))

    def _swap(self, tensor: Tensor, dimension: int, sizes: tuple[int, int, int]) -> Tensor:
        if self.outer == 1:
            return tensor
        split = tensor.unflatten(dimension, sizes).transpose(dimension, dimension + 1)
        return split.reshape(tensor.shape)


def find_rows(
    axis: tuple[int, int] | None,
    shape: Sequence[int],
    images: int,
    *,
    merged: bool,
    batched: bool,
) -> RowOrder:
    """How the rows of `(count, m, k)` activations belong to images.

    Args:
        axis: `Flow.image_axis` of the activations.
        shape: their shape.
        images: inputs in the batch.
        merged: the first two dimensions become the rows of one product.
        batched: whether `count` products stay apart; then rows are one image's if nothing is known.
    """
    count, m, _ = shape
    single = RowOrder(outer=1, images=1, inner=m)
    total = count * m if merged else m
    if images == 1:
        return single
    if axis is None:
        known = total % images == 0 and (merged or not batched)
        return RowOrder(outer=1, images=images, inner=total // images) if known else single
    dimension, inner = axis
    if dimension == 0 and merged:
        inner *= m
    elif dimension != 1:
        return single
    return RowOrder(outer=total // (images * inner), images=images, inner=inner)


def convolution_call(
    *,
    name: str,
    images: int,
    axis: tuple[int, int] | None,
    resident: bool,
    quantisation: Quantisation | None,
    arguments: Sequence[Any],
    run: Callable[[], Tensor],
) -> GemmCall:
    """The call behind `aten::convolution`, transposed or not.

    Args:
        name: layer name.
        images: inputs in the batch.
        axis: `Flow.image_axis` of the input.
        resident: whether the weight is a parameter.
        quantisation: of the input.
        arguments: of the operation.
        run: the operation itself.
    """
    given, weight, bias, *lists, transposed, output_padding, groups = arguments
    shape = _convolved_shape(
        tuple(given.shape),
        tuple(weight.shape),
        *(tuple(each) for each in (*lists, output_padding)),
        transposed=transposed,
        groups=groups,
    )
    order = find_rows(
        axis and (axis[0] + 1, axis[1]), (1, shape.batch, 0), images, merged=False, batched=False
    )
    rows = RowOrder(
        outer=order.outer, images=order.images, inner=order.inner * shape.gemm.m // shape.batch
    )

    def again(replaced: Tensor) -> Tensor:
        rest = (weight, bias, *lists, transposed, output_padding, groups)
        return torch.ops.aten.convolution.default(order.restore(replaced, 0), *rest)

    return GemmCall(
        layer=_convolved_layer(name, shape, images, rows.images, resident, quantisation),
        input=order.images_first(given, 0),
        weight=weight,
        bias=bias,
        run=run,
        fold=lambda product: shape.folded(rows.restore(product, 1), bias),
        again=again,
    )


@dataclass(frozen=True, kw_only=True)
class _ConvolvedShape:
    """What a convolution multiplies, and where its results go.

    Attributes:
        geometry: of the convolution.
        gemm: its product.
        given: of the input, `(batch, channels, *size)`.
        made: of the output, likewise.
        spread: of a transposed one, the output's size with what padding cuts off; `None` of others.
    """

    geometry: Convolution
    gemm: Gemm
    given: tuple[int, ...]
    made: tuple[int, ...]
    spread: tuple[int, ...] | None

    @property
    def batch(self) -> int:
        """Images of the input."""
        return self.given[0]

    def folded(self, product: Tensor, bias: Tensor | None) -> Tensor:
        """The operation's result.

        Args:
            product: `(count, m, n)`, rows in the order of the input's images.
            bias: is added.
        """
        batch, channels, *output = self.made
        groups, m, n = product.shape
        positions = m // batch
        if self.spread is not None:
            size = self.given[2:]
            folded = _scatter(product, (batch, channels), size, self.spread, self.geometry)
            pairs = zip(self.geometry.padding, output, strict=True)
            inside = (slice(p, p + o) for p, o in pairs)
            folded = folded[(slice(None), slice(None), *inside)]
        elif groups == 1 and positions >= _MANY_POSITIONS:
            # Image by image: PyTorch turns a large matrix in less time than four dimensions.
            folded = product.new_empty(batch, channels, positions)
            for image, rows_of_image in zip(folded, product.view(batch, positions, n), strict=True):
                image.copy_(rows_of_image.T)
            folded = folded.reshape(batch, channels, *output)
            return folded if bias is None else folded.add_(_column(bias, len(output)))
        else:
            folded = product.reshape(groups, batch, positions, n).permute(1, 0, 3, 2)
        folded = folded.reshape(batch, channels, *output)
        if bias is None:
            return folded
        # In one pass into the memory order that the operation has.
        return torch.add(folded, _column(bias, len(output)), out=folded.new_empty(folded.shape))


@lru_cache(maxsize=2048)
def _convolved_shape(
    given: tuple[int, ...],
    weight: tuple[int, ...],
    *lists: tuple[int, ...],
    transposed: bool,
    groups: int,
) -> _ConvolvedShape:
    """Of a convolution's input and weight, and its stride, padding, dilation and output padding."""
    dims = len(given) - 2
    each = (own if len(own) == dims else own * dims for own in lists)
    stride, padding, dilation, extra = each
    kernel = weight[2:]
    geometry = Convolution(
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    batch, entering, *size = given
    spread = None
    if transposed:
        spread = tuple(
            (s - 1) * st + d * (k - 1) + 1 + e
            for s, st, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
        )
        output = tuple(s - 2 * p for s, p in zip(spread, padding, strict=True))
        channels, positions = weight[1] * groups, math.prod(size)
        n, k = weight[1] * math.prod(kernel), entering // groups
    else:
        output, channels = geometry.output_size(tuple(size)), weight[0]
        positions = math.prod(output)
        n, k = channels // groups, weight[1] * math.prod(kernel)
    return _ConvolvedShape(
        geometry=geometry,
        gemm=Gemm(m=batch * positions, n=n, k=k, count=groups),
        given=given,
        made=(batch, channels, *output),
        spread=spread,
    )


@lru_cache(maxsize=2048)
def _convolved_layer(
    name: str,
    shape: _ConvolvedShape,
    images: int,
    row_images: int,
    resident: bool,
    quantisation: Quantisation | None,
) -> Layer:
    """The layer of a convolution, which every call of it has again."""
    return Layer(
        name=name,
        kind="conv" if shape.spread is None else "conv_transpose",
        gemm=shape.gemm,
        images=images,
        row_images=row_images,
        convolution=shape.geometry,
        input_shape=shape.given,
        output_shape=shape.made,
        weights_are_parameters=resident,
        quantisation=quantisation,
    )


def _column(bias: Tensor, dims: int) -> Tensor:
    return bias.detach().reshape(-1, *(1,) * dims)


def _scatter(
    product: Tensor,
    shape: tuple[int, int],
    size: tuple[int, ...],
    spread: tuple[int, ...],
    geometry: Convolution,
) -> Tensor:
    """Add every input position's contribution, `(groups, m, n)`, where it belongs."""
    batch, channels = shape
    kernel = geometry.kernel
    # (groups, batch, positions, channels / groups, taps) -> (taps, batch, channels, *size)
    parts = product.reshape(geometry.groups, batch, math.prod(size), -1, math.prod(kernel))
    parts = parts.permute(4, 1, 0, 3, 2).reshape(-1, batch, channels, *size)
    total = product.new_zeros(batch, channels, *spread)
    for part, tap in zip(parts, itertools.product(*map(range, kernel)), strict=True):
        window = (
            slice(t * d, t * d + (s - 1) * st + 1, st)
            for t, d, s, st in zip(tap, geometry.dilation, size, geometry.stride, strict=True)
        )
        total[(slice(None), slice(None), *window)] += part
    return total


def product_call(
    *,
    name: str,
    kind: str,
    images: int,
    axis: Callable[[Tensor], tuple[int, int] | None],
    left: Tensor,
    right: Tensor,
    left_active: bool,
    right_active: bool,
    output_shape: tuple[int, ...],
    quantisation: Quantisation | None,
    bias: Tensor | None,
    run: Callable[[], Tensor],
    finish: Callable[[Tensor], Tensor],
) -> GemmCall:
    """The call behind a product of matrices.

    A resident left matrix changes sides (the product is transposed), so that rows are activations;
    in attention it stays. Products that share one right matrix are joined into one.

    Args:
        name: layer name.
        kind: `matmul`, `batched_matmul` or an attention kind; `linear` where weights are resident.
        images: inputs in the batch.
        axis: `Flow.image_axis`.
        left: `(count, m, k)`.
        right: `(count, k, n)`.
        left_active: whether `left` depends on the model's inputs.
        right_active: whether `right` does.
        output_shape: of the operation's result.
        quantisation: of the activations.
        bias: what the operation adds, for information.
        run: the operation itself.
        finish: from `(count, m, n)` to the operation's result.
    """
    attention = kind.startswith("attention")
    swapped = right_active and not left_active and not attention
    if swapped:
        left, right = right.mT, left.mT
    count, m, k = left.shape
    n = right.shape[2]
    merged = count > 1 and right.stride(0) == 0
    batched = kind != "matmul"
    apart = batched and (count > 1 or attention)
    order = find_rows(axis(left), left.shape, images, merged=merged, batched=apart)
    input_shape = tuple(left.shape) if batched else tuple(left.shape[1:])
    if merged:
        left, right = left.reshape(1, count * m, k), right[:1]
    resident = swapped or not right_active
    if resident and left.shape[0] == 1 and not attention:
        kind = "linear"

    def fold(product: Tensor) -> Tensor:
        product = order.restore(product, 1).reshape(count, m, n)
        return finish(product.mT if swapped else product)

    def again(replaced: Tensor) -> Tensor:
        return fold(torch.matmul(replaced, right)).reshape(output_shape)

    return GemmCall(
        layer=Layer(
            name=name,
            kind=kind,
            gemm=Gemm(m=left.shape[1], n=n, k=k, count=left.shape[0]),
            images=images,
            row_images=order.images,
            input_shape=input_shape,
            output_shape=output_shape,
            weights_are_parameters=resident,
            quantisation=quantisation,
        ),
        input=order.images_first(left, 1),
        weight=right,
        bias=bias,
        run=run,
        fold=fold,
        again=again,
    )
