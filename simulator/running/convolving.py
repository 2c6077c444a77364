"""The product of a layer whose pixels share segments, as PyTorch convolves what stands for them."""

import math

import numpy as np

from simulator.decisions.rows import SharedRows
from simulator.kernels.vectors import stand_in
from simulator.policies.looking import pixel_grid
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
    dims = len(geometry.kernel)
    # A copy, as weights may be read-only.
    kernels = torch.from_numpy(np.array(weights.transpose(0, 2, 1)))
    kernels = kernels.reshape(gemm.count * gemm.n, -1, *geometry.kernel)
    # Channels last is as vectors lie, and as rows of the product do.
    given = torch.from_numpy(_feature_map(layer, shared)).movedim(-1, 1)
    last = torch.channels_last if dims == 2 else torch.contiguous_format
    with torch.no_grad():
        found = torch.convolution(
            given,
            kernels.contiguous(memory_format=last),
            None,
            geometry.stride,
            (0,) * dims,
            geometry.dilation,
            False,
            (0,) * dims,
            geometry.groups,
        )
    inside = (slice(None), slice(None), *map(slice, layer.output_shape[2:]))
    rows = found[inside].movedim(1, -1).reshape(gemm.m, gemm.count, gemm.n)
    return rows.movedim(1, 0).numpy()


def _feature_map(layer: Layer, shared: SharedRows) -> np.ndarray:
    """`(n, *size, channels)` float32, padding included, of what stands for pixels' segments."""
    looks, geometry = shared.looks, layer.convolution
    assert geometry is not None and shared.centroids is not None
    channels, steps = layer.input_shape[1], geometry.stride
    grid, kinds = pixel_grid(layer)
    size = tuple(places * step for places, step in zip(grid, steps, strict=True))
    images = layer.gemm.m // math.prod(layer.output_shape[2:])
    if len(kinds) < math.prod(steps):
        whole = np.zeros((images, *size, channels), np.float32)
    else:
        whole = np.empty((images, *size, channels), np.float32)
    for kind, phase in enumerate(kinds):
        own = whole[(slice(None), *map(slice, phase, size, steps))]
        pixels = own.reshape(looks.positions, channels)  # a copy where there are several kinds
        for index, segment in np.ndindex(layer.gemm.count, looks.segments):
            view = kind * looks.segments + segment
            first = index * channels // geometry.groups + segment * looks.sub_vector_length
            stand_in(
                shared.clusters_of(index, view),
                shared.centroids,
                pixels[:, first : first + int(looks.widths[view])],
            )
        own[...] = pixels.reshape(own.shape)
    return whole
