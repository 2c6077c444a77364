"""The product of a layer whose pixels share segments, as PyTorch convolves what stands for them."""

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from simulator.decisions.rows import SharedRows
from simulator.kernels.vectors import stand_in
from simulator.policies.looking import pixels_met
from workloads.traces.layer import Layer

if TYPE_CHECKING:
    import torch

# Where less of the work is left, it takes less time to multiply only that.
LEAST_REMAINING = 0.4


def convolved(layer: Layer, shared: SharedRows, weights: np.ndarray) -> np.ndarray | None:
    """The convolution of the feature map in which every pixel has what stands for its segments.

    This is the product under the same decisions, up to the order in which it is added up. Map and
    weights are in the layer's own memory order, and so is what PyTorch makes of them: nothing is
    copied into another one.

    Args:
        layer: one that is looked at once a pixel.
        shared: its rows, with their centroids.
        weights: `(count, k, n)` float32; those of `weights_of` are not copied.

    Returns:
        `(count, m, n)` float32, the rows of a column contiguous; `None` without PyTorch.
    """
    try:
        import torch
    except ImportError:
        return None
    geometry, gemm = layer.convolution, layer.gemm
    assert geometry is not None
    kernels = _as_tensor(np.ascontiguousarray(weights.transpose(0, 2, 1)))
    with torch.no_grad():
        found = torch.convolution(
            torch.from_numpy(_feature_map(layer, shared)),
            kernels.reshape(gemm.count * gemm.n, -1, *geometry.kernel),
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            False,
            (0,) * len(geometry.kernel),
            geometry.groups,
        )
    by_column = found.reshape(len(found), gemm.count, gemm.n, -1).permute(1, 2, 0, 3)
    return by_column.reshape(gemm.count, gemm.n, gemm.m).numpy().swapaxes(1, 2)


def _as_tensor(array: np.ndarray) -> "torch.Tensor":
    """An array that is only read, which may be read-only: PyTorch warns of what lies in one."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _feature_map(layer: Layer, shared: SharedRows) -> np.ndarray:
    """`layer.input_shape` float32 of what stands for each pixel's segments, zeros where no row
    meets a pixel."""
    looks, (images, channels, *size) = shared.looks, layer.input_shape
    assert shared.centroids is not None
    plane, each = math.prod(size), looks.gemm.k // looks.taps
    values = np.zeros(images * channels * plane, np.float32)
    for kind, (pixels, own) in enumerate(zip(pixels_met(layer, looks), looks.orders, strict=True)):
        # The channels of an image lie between it and its pixels.
        places = pixels + pixels // plane * (channels - 1) * plane
        for index, segment in np.ndindex(layer.gemm.count, looks.segments):
            view = kind * looks.segments + segment
            first = index * each + segment * looks.sub_vector_length
            stand_in(
                shared.ids[index, view],
                shared.firsts[index, view],
                shared.centroids,
                int(looks.widths[view]),
                *own,
                places + first * plane,
                plane,
                values,
            )
    return values.reshape(layer.input_shape)
