"""Bias, batch normalisation and constants after a product, folded into one scale and one shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Folded:
    """A value that is a product's result, scaled and shifted by column.

    Attributes:
        layer: of the product.
        axis: of the value, along which its columns lie.
        scale: `(columns,)` float64.
        shift: likewise.
    """

    layer: str
    axis: int
    scale: Tensor
    shift: Tensor


def axis_of_columns(layer: Layer) -> int | None:
    """Along which dimension of an operation's result its columns lie; `None` where not by one."""
    if layer.kind == "conv":
        return 1
    shape = layer.output_shape
    plain = layer.kind == "linear" and layer.gemm.count == 1 and len(shape) > 1
    return len(shape) - 1 if plain and shape[-1] == layer.gemm.n else None


def of_bias(shift: float | Tensor, shape: tuple[int, ...], folded: Folded) -> Tensor | None:
    """A convolution's bias lies along its channels, others as they are broadcast."""
    if isinstance(shift, Tensor) and shift.ndim == 1 and shift.numel() == folded.scale.numel():
        return shift.double().cpu()
    return by_column(shift, shape, folded)


def again(folded: Folded, by: tuple[Tensor | None, ...]) -> Folded | None:
    """Scaled and shifted once more; `None` where that isn't by column."""
    scale, shift = by
    if scale is None or shift is None:
        return None
    return Folded(
        layer=folded.layer,
        axis=folded.axis,
        scale=folded.scale * scale,
        shift=folded.shift * scale + shift,
    )


def by_column(value: float | Tensor, shape: tuple[int, ...], folded: Folded) -> Tensor | None:
    """A constant that is broadcast over a value, by column; `None` where it differs in one."""
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64)
    plain = value.detach().double().cpu()
    if plain.numel() == 1:
        return plain.reshape(())
    sizes = (*(1,) * (len(shape) - plain.ndim), *plain.shape)
    alone = len(sizes) == len(shape) and all(
        size == 1 for dimension, size in enumerate(sizes) if dimension != folded.axis
    )
    return plain.reshape(-1) if alone and plain.numel() == folded.scale.numel() else None


def reshaped(folded: Folded | None, shape: tuple[int, ...], tensor: Tensor) -> Folded | None:
    """What a reshaped value is of its product, where columns stay the last dimension."""
    if folded is None or folded.axis != len(shape) - 1 or not tensor.is_contiguous():
        return None
    if tensor.ndim == 0 or tensor.shape[-1] != shape[-1]:
        return None
    return Folded(layer=folded.layer, axis=tensor.ndim - 1, scale=folded.scale, shift=folded.shift)
