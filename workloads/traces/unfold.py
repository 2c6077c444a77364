"""From a layer's stored tensors to the rows and weights of its matrix product.

Rows are `(count, m, k)` float32 and *k-major* in memory: a transposed view of a C-contiguous
`(count, k, m)` array, so that one column of a patch (what a sub-vector is cut from) is contiguous
over all rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from workloads.errors import TraceError, show
from workloads.traces.layer import Convolution, Layer

ORDERS = ("channels_first", "channels_last")
BLOCK = 128  # rows that are transposed together

Array = np.ndarray[Any, np.dtype[Any]]


def unfold(images: Array, convolution: Convolution, *, order: str = "channels_first") -> Array:
    """Patches of `images` as the rows of a matrix product (im2col).

    Args:
        images: `(n, channels, *size)` array of one to three spatial dimensions.
        convolution: geometry; `groups` must divide the channels.
        order: order of a row's elements: `channels_first` is (c, kd, kh, kw) as PyTorch unfolds,
            `channels_last` is (kd, kh, kw, c).

    Returns:
        `(groups, n * output positions, channels / groups * taps)` float32, k-major; images, then
        positions in row-major order, run along the rows.

    Raises:
        TraceError: if the shapes don't fit or `order` is unknown.
    """
    _check_order(order)
    dims = len(convolution.kernel)
    if images.ndim != dims + 2:
        raise TraceError(
            f"unfold.images must have {dims + 2} dimensions for kernel={convolution.kernel}, got "
            f"shape {images.shape}; give (images, channels, spatial...)"
        )
    n, channels, *size = images.shape
    output = convolution.output_size(tuple(size))
    if channels % convolution.groups or min(output) < 1 or n < 1:
        raise TraceError(
            f"unfold.images must be non-empty, hold whole groups of {convolution.groups} and cover "
            f"the kernel {convolution.kernel}, got shape {images.shape}; check the geometry"
        )
    padded = np.asarray(images, dtype=np.float32)
    if any(convolution.padding):
        grown = tuple(s + 2 * p for p, s in zip(convolution.padding, size, strict=True))
        padded = np.zeros((n, channels, *grown), dtype=np.float32)
        inside = [slice(p, p + s) for p, s in zip(convolution.padding, size, strict=True)]
        padded[(slice(None), slice(None), *inside)] = images
    # Patches are a strided view of the padded images; copying it in k-major order walks whole
    # lines of the image, which is several times faster than gathering patch by patch.
    per_image, per_channel, *per_element = padded.strides
    groups, group_channels = convolution.groups, channels // convolution.groups
    shape: list[int] = [*convolution.kernel]
    strides: list[int] = [e * d for e, d in zip(per_element, convolution.dilation, strict=True)]
    place = 0 if order == "channels_first" else dims
    shape.insert(place, group_channels)
    strides.insert(place, per_channel)
    patches = as_strided(
        padded,
        (groups, *shape, n, *output),
        (
            group_channels * per_channel,
            *strides,
            per_image,
            *(e * s for e, s in zip(per_element, convolution.stride, strict=True)),
        ),
        writeable=False,
    )
    columns = np.empty(patches.shape, dtype=np.float32)
    np.copyto(columns, patches)
    return columns.reshape(groups, -1, n * math.prod(output)).transpose(0, 2, 1)


def rows_of(layer: Layer, stored: Array, *, order: str = "channels_first") -> Array:
    """`(count, m, k)` float32 rows, k-major, of a layer's stored input.

    Args:
        layer: the layer.
        stored: `(n, channels, *size)` for convolutions, `(count, m, k)` for everything else.
        order: see `unfold`; it matters for `conv` alone.
    """
    _check_order(order)
    if layer.kind == "conv":
        assert layer.convolution is not None
        return unfold(stored, layer.convolution, order=order)
    if layer.kind == "conv_transpose":
        assert layer.convolution is not None
        dims = len(layer.convolution.kernel)
        pointwise = Convolution(
            kernel=(1,) * dims,
            stride=(1,) * dims,
            padding=(0,) * dims,
            dilation=(1,) * dims,
            groups=layer.convolution.groups,
        )
        return unfold(stored, pointwise)
    return k_major(stored)


def weights_of(layer: Layer, stored: Array, *, order: str = "channels_first") -> Array:
    """`(count, k, n)` float32 weights that go with `rows_of` in the same `order`.

    Args:
        layer: the layer.
        stored: as PyTorch keeps it for convolutions: `(out, in / groups, *kernel)`, transposed
            `(in, out / groups, *kernel)`; `(count, k, n)` for everything else.
        order: see `unfold`.
    """
    _check_order(order)
    stored = np.asarray(stored, dtype=np.float32)
    if layer.kind == "conv":
        if order == "channels_last":
            stored = np.moveaxis(stored, 1, -1)
        columns = stored.reshape(layer.gemm.count, layer.gemm.n, layer.gemm.k)
        return columns.transpose(0, 2, 1)
    if layer.kind == "conv_transpose":
        return stored.reshape(layer.gemm.count, layer.gemm.k, layer.gemm.n)
    return stored


def k_major(rows: Array) -> Array:
    """`(count, m, k)` as float32 in k-major memory; no copy if it already is."""
    rows = np.asarray(rows, dtype=np.float32)
    if rows.transpose(0, 2, 1).flags.c_contiguous:
        return rows
    count, m, k = rows.shape
    columns = np.empty((count, k, m), dtype=np.float32)
    if m <= BLOCK:
        np.copyto(columns, rows.transpose(0, 2, 1))
    else:  # in blocks of rows that stay in a cache: three times faster than one copy
        for one, column in zip(rows, columns, strict=True):
            for first in range(0, m, BLOCK):
                column[:, first : first + BLOCK] = one[first : first + BLOCK].T
    return columns.transpose(0, 2, 1)


def stored_shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a layer's file holds."""
    gemm = layer.gemm
    if layer.convolution is None:
        return {"input": (gemm.count, gemm.m, gemm.k), "weight": (gemm.count, gemm.k, gemm.n)}
    groups, kernel = layer.convolution.groups, layer.convolution.kernel
    given, made = layer.input_shape[1], layer.output_shape[1]
    if layer.kind == "conv":
        weight = (made, given // groups, *kernel)
    else:
        weight = (given, made // groups, *kernel)
    return {"input": layer.input_shape, "weight": weight}


def _check_order(order: str) -> None:
    if not isinstance(order, str) or order not in ORDERS:
        raise TraceError(f"order must be one of {', '.join(ORDERS)}, got {show(order)}; use one")
