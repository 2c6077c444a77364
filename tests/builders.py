"""Layers, decisions and designs that tests derive their numbers from."""

import math

import numpy as np

from accelerators import (
    Accelerator,
    CentroidCache,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
)
from simulator import Decisions, Looks, SharedRows, Signatures
from workloads.traces.layer import Convolution, Gemm, Layer

ROOMY = 2**30
WIDE = SramBuffer(capacity_bytes=ROOMY, width_bits=4096, ports=64)


def matrix_layer(name: str, m: int, n: int, k: int, row_images: int = 1) -> Layer:
    """A linear layer with `m` rows."""
    return Layer(
        name=name,
        kind="linear",
        gemm=Gemm(m=m, n=n, k=k),
        images=row_images,
        row_images=row_images,
        input_shape=(m, k),
        output_shape=(m, n),
        weights_are_parameters=True,
    )


def cifarnet_conv2(images: int = 100) -> Layer:
    """CifarNet's second convolution: N=256 rows an image, K=1600, M=64 (Deep Reuse, Table II)."""
    return Layer(
        name="conv2",
        kind="conv",
        gemm=Gemm(m=256 * images, n=64, k=1600),
        images=images,
        row_images=images,
        convolution=Convolution(kernel=(5, 5), stride=(1, 1), padding=(2, 2), dilation=(1, 1)),
        input_shape=(images, 64, 16, 16),
        output_shape=(images, 64, 16, 16),
        weights_are_parameters=True,
    )


def convolution_layer(
    *,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    padding: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    channels: int = 4,
    n: int = 3,
    images: int = 1,
) -> Layer:
    """A convolution of any geometry; `n` are the outputs of a group."""
    ones = (1,) * len(kernel)
    geometry = Convolution(
        kernel=kernel,
        stride=stride or ones,
        padding=padding or (0,) * len(kernel),
        dilation=dilation or ones,
        groups=groups,
    )
    output = geometry.output_size(size)
    return Layer(
        name="conv",
        kind="conv",
        gemm=Gemm(
            m=images * math.prod(output),
            n=n,
            k=channels // groups * math.prod(kernel),
            count=groups,
        ),
        images=images,
        row_images=images,
        convolution=geometry,
        input_shape=(images, channels, *size),
        output_shape=(images, n * groups, *output),
        weights_are_parameters=True,
    )


def even_decisions(layer: Layer, *, length: int, clusters: int, groups: int = 1, hashes: int = 10):
    """Decisions in which every sub-matrix and group has `clusters` clusters, met in turn."""
    gemm = layer.gemm
    sub_matrices = -(-gemm.k // length)
    rows = gemm.m // groups
    stream = np.tile(np.arange(rows) % clusters, groups).astype(np.int32)
    segments = gemm.count * sub_matrices * groups
    shared = SharedRows(
        gemm=gemm,
        looks=Looks(gemm=gemm, sub_vector_length=length, tiles=groups),
        ids=np.broadcast_to(stream, (gemm.count, sub_matrices, gemm.m)),
        clusters=np.full((gemm.count, sub_matrices, groups), clusters, np.int32),
        centroids=None,
    )
    signatures = Signatures(
        hashes=hashes,
        projection="sign",
        values=np.tile(np.arange(clusters, dtype=np.uint64), segments),
    )
    return Decisions(layer=layer.name, gemm=gemm, rows=shared, evidence=signatures)


def buffer(capacity_bytes: int) -> SramBuffer:
    """A buffer that is small but as fast as a roomy one can be made."""
    width = min(4096, capacity_bytes // 64 * 8)
    return SramBuffer(capacity_bytes=capacity_bytes, width_bits=width, ports=64)


def roomy_design(rows: int = 16, columns: int = 16, **changes) -> Accelerator:
    """A design whose memories never limit it, so that blocks show their own pace."""
    parts = {
        "name": "roomy",
        "array": SystolicArray(rows=rows, columns=columns),
        "activation_buffer": WIDE,
        "weight_buffer": WIDE,
        "output_buffer": WIDE,
        "centroid_buffer": WIDE,
        "dram": Dram(bandwidth_bytes_per_cycle=65536),
        "clock_hz": 5e8,
        "front_end": LshFrontEnd(max_hashes=16, max_length=16, latency_cycles=0),
        "cache": CentroidCache(entries=1024, ways=8, clear_entries_per_cycle=1024),
        "reconstructor": Reconstructor(ports=1, width=64),
    }
    return Accelerator(**(parts | changes))
