"""The product of a layer whose pixels share segments, as PyTorch convolves what stands for them."""

import math

import numpy as np

from simulator.decisions.rows import SharedRows
from simulator.kernels.vectors import stand_in
from simulator.policies.looking import pixels_met
from workloads.traces.layer import Layer

# Where less of the work is left, it takes less time to multiply only that.
LEAST_REMAINING = 0.4


def convolved(layer: Layer, shared: SharedRows, weights: np.ndarray) -> np.ndarray | None:
    """The convolution of the feature map in which every pixel has what stands for its segments.

    This is the product under the same decisions, up to the order in which it is added up.

    Args:
        layer: one that is looked at once a pixel.
        shared: its rows, with their centroids.
        weights: `(count, k, n)` float32.

    Returns:
        `(count, m, n)` float32; `None` without PyTorch.
    """
    try:
        import torch
    except ImportError:
        return None
    geometry, gemm = layer.convolution, layer.gemm
    assert geometry is not None
    # A copy, as weights may be read-only.
    kernels = torch.from_numpy(np.array(weights.transpose(0, 2, 1)))
    kernels = kernels.reshape(gemm.count * gemm.n, -1, *geometry.kernel)
    if len(geometry.kernel) == 2:  # as the feature map, which PyTorch would copy else
        kernels = kernels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = torch.convolution(
            torch.from_numpy(_feature_map(layer, shared)).movedim(-1, 1),
            kernels,
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            False,
            (0,) * len(geometry.kernel),
            geometry.groups,
        )
    rows = found.movedim(1, -1).reshape(gemm.m, gemm.count, gemm.n)
    return rows.movedim(1, 0).numpy()


def _feature_map(layer: Layer, shared: SharedRows) -> np.ndarray:
    """`(n, *size, channels)` float32 of what stands for each pixel's segments, zeros where no row
    meets a pixel: a pixel's channels side by side, as the centroids have them."""
    looks, (images, channels, *size) = shared.looks, layer.input_shape
    assert shared.centroids is not None
    pixels = np.zeros((images * math.prod(size), channels), np.float32)
    for kind, (places, own) in enumerate(zip(pixels_met(layer, looks), looks.orders, strict=True)):
        for index, segment in np.ndindex(layer.gemm.count, looks.segments):
            view = kind * looks.segments + segment
            first = index * (looks.gemm.k // looks.taps) + segment * looks.sub_vector_length
            stand_in(
                shared.ids[index, view],
                shared.firsts[index, view],
                shared.centroids,
                *own,
                places,
                pixels[:, first : first + int(looks.widths[view])],
            )
    return pixels.reshape(images, *size, channels)
