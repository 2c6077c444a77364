"""Weights of few bits on disk, in floating point once they are read.

A tensor `NAME` of whole numbers (int8) stands for itself times `NAME.scale`, one number for each
entry of its first dimension: an output channel. Only weights are of few bits so; what a model
multiplies them with stays in floating point, unlike in a quantised model (`workloads.quantise`).
No other file has such a pair of names: what is a tensor of a module can't be a module in it too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from workloads.errors import show
from workloads.models.errors import ModelError

MOST_BITS = 8
_SCALE = ".scale"


def packed(
    tensors: Mapping[str, torch.Tensor], *, bits: int = MOST_BITS
) -> dict[str, torch.Tensor]:
    """Weights as whole numbers, and their scales; `unpacked` is the way back.

    Args:
        tensors: by name. Those of two dimensions or more and in floating point are rounded; the
            others, such as biases and statistics of a normalisation, stay as they are.
        bits: of a weight, 2 to 8: whole numbers from -(2^(bits - 1) - 1) up to its opposite.

    Returns:
        The tensors, in the same order, with a float32 scale after each that was rounded.

    Raises:
        ModelError: for other bits, weights that are not finite, and names that are taken.
    """
    if type(bits) is not int or not 2 <= bits <= MOST_BITS:
        raise ModelError(
            f"bits of a weight must be a whole number from 2 to {MOST_BITS}, got {show(bits)}; "
            f"use {MOST_BITS}"
        )
    top = 2 ** (bits - 1) - 1
    made: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or not tensor.is_floating_point() or not tensor.numel():
            made[name] = tensor
            continue
        if name + _SCALE in tensors:
            raise ModelError(
                f"weights to be packed must leave the name {name + _SCALE} free, but it is a "
                "tensor; pack weights in floating point"
            )
        values = tensor.detach().float()
        if not bool(values.isfinite().all()):
            raise ModelError(
                f"weights to be packed must be finite, got NaN or infinity in {name}; check them"
            )
        largest = values.flatten(1).abs().amax(1)
        scale = torch.where(largest > 0, largest / top, torch.ones_like(largest))
        made[name] = (values / _along(scale, values)).round().clamp(-top, top).to(torch.int8)
        made[name + _SCALE] = scale
    return made


def unpacked(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in float32 in place of whole numbers and their scales; other tensors as they are."""
    scales = {name: tensors[name + _SCALE] for name in tensors if _is_packed(name, tensors)}
    return {
        name: tensor.float() * _along(scales[name].float(), tensor) if name in scales else tensor
        for name, tensor in tensors.items()
        if not (name.endswith(_SCALE) and name.removesuffix(_SCALE) in scales)
    }


def _is_packed(name: str, tensors: Mapping[str, torch.Tensor]) -> bool:
    tensor, scale = tensors[name], tensors.get(name + _SCALE)
    return (
        scale is not None
        and tensor.dtype == torch.int8
        and scale.is_floating_point()
        and scale.shape == tensor.shape[:1] != ()
    )


def _along(scale: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Scales in the shape that multiplies a tensor's first dimension."""
    return scale.reshape(-1, *(1,) * (tensor.ndim - 1))
