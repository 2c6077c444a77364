"""The product of a layer whose pixels share segments, as PyTorch convolves what stands for them."""

import math

import numpy as np

from simulator.decisions.rows import SharedRows
from simulator.kernels.vectors import stand_in
from simulator.policies.looking import pixels_read
from workloads.traces.layer import Layer

# Where less of the work is left, only that is multiplied in less time.
LEAST_REMAINING = 0.2


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
    images = layer.input_shape[0]
    # A copy, as weights may be read-only.
    kernels = torch.from_numpy(np.array(weights.transpose(0, 2, 1)))
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
    columns = found.reshape(images, gemm.count, gemm.n, -1).permute(1, 2, 0, 3)
    # Rows of one column lie together, as the operation has them.
    return columns.reshape(gemm.count, gemm.n, gemm.m).transpose(1, 2).numpy()


def _feature_map(layer: Layer, shared: SharedRows) -> np.ndarray:
    """`(n, channels, *size)` float32 of what stands for each pixel's segments; zeros where no row
    meets a pixel."""
    looks, shape = shared.looks, layer.input_shape
    assert shared.centroids is not None
    centroids, plane = np.ascontiguousarray(shared.centroids), math.prod(shape[2:])
    values = np.zeros(math.prod(shape), np.float32)
    for kind, places in enumerate(pixels_read(layer, looks)):
        order, _ = looks.orders[kind]
        for index, segment in np.ndindex(layer.gemm.count, looks.segments):
            view = kind * looks.segments + segment
            first = index * (looks.gemm.k // looks.taps) + segment * looks.sub_vector_length
            numbers, width = shared.clusters_of(index, view)[order], int(looks.widths[view])
            stand_in(numbers, centroids, places, first * plane, plane, width, values)
    return values.reshape(shape)
