"""What a CPU has to do for a layer: which kernel runs it, how much it computes and moves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Signatures
from workloads.traces.layer import Layer

KERNELS = ("gemm", "winograd", "im2col", "depthwise")
"""Kinds of kernels, each with an efficiency of its own. `gemm` runs linear layers, attention and
1x1 convolutions; `winograd` 3x3 convolutions of stride 1, F(4x4, 3x3); `im2col` the others."""

GEMM, WINOGRAD, IM2COL, DEPTHWISE = range(len(KERNELS))

# F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016: 36
# multiplications for 4x4 outputs of 9 each, and 6x6 tiles that stand for 4x4 inputs and outputs.
WINOGRAD_SAVING = 16 * 9 / 36
_WINOGRAD_TILES = 36 / 16
# Channels below which a 3x3 convolution is not transformed (as ncnn's kernels decide).
_WINOGRAD_CHANNELS = 8
# A look-up in a hash table moves a cache line.
_LINE_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class KernelWork:
    """One run of a kernel on one image.

    Attributes:
        kernel: index into `KERNELS`.
        macs: multiply-accumulates that are computed; Winograd's are a quarter of the layer's.
        weights: elements read from DRAM once.
        features: elements of input and output.
        scratch: elements that are written and read again, unfolded or transformed.
        reduction: elements that one output sums over.
        calls: kernels started, one per group.
    """

    kernel: int
    macs: float
    weights: float
    features: float
    scratch: float
    reduction: float
    calls: float


def stacked(work: Iterable[KernelWork]) -> np.ndarray:
    """`(fields, works)` float64, a row for each field of `KernelWork` in its order."""
    return np.array([astuple(each) for each in work], float).reshape(-1, len(fields(KernelWork))).T


def kernel_of(
    *, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int,
    inputs: int, outputs: int,
) -> int:  # fmt: skip
    """Which kernel runs a convolution of `inputs` to `outputs` channels."""
    if groups > 1 and groups == inputs == outputs:
        return DEPTHWISE
    if math.prod(kernel) == 1:
        return GEMM
    plain = set(stride) == {1} and set(dilation) == {1}
    if kernel == (3, 3) and plain and min(inputs, outputs) >= _WINOGRAD_CHANNELS * groups:
        return WINOGRAD
    return IM2COL


def kernel_work(
    kind: int, *, m: float, n: int, k: int, count: float, weights: float, features: float
) -> KernelWork:
    """The work of `count` products of `(m, k)` by `(k, n)` of one image.

    Args:
        kind: index into `KERNELS`.
        m, n, k, count: as `Gemm`'s, of one image.
        weights: elements of all weights.
        features: elements of input and output, not unfolded.
    """
    macs = m * n * k * count
    if kind == WINOGRAD:
        return KernelWork(
            kernel=kind, macs=macs / WINOGRAD_SAVING, weights=weights, features=features,
            scratch=_WINOGRAD_TILES * features, reduction=k / 9, calls=count,
        )  # fmt: skip
    return KernelWork(
        kernel=kind, macs=macs, weights=weights, features=features,
        scratch=m * k * count if kind == IM2COL else 0, reduction=k,
        calls=1 if kind == DEPTHWISE else count,
    )  # fmt: skip


def dense_work(layer: Layer, *, winograd: bool = True) -> KernelWork:
    """A layer on one of its images; without `winograd` as a framework that only unfolds runs it."""
    gemm, images = layer.gemm, layer.images
    convolution = layer.convolution
    kind = GEMM
    if layer.kind == "conv_transpose":
        kind = IM2COL
    elif convolution is not None:
        kind = kernel_of(
            kernel=convolution.kernel, stride=convolution.stride, dilation=convolution.dilation,
            groups=convolution.groups, inputs=layer.input_shape[1], outputs=layer.output_shape[1],
        )  # fmt: skip
        if kind == WINOGRAD and not winograd:
            kind = IM2COL
    features = (layer.input_elements + math.prod(layer.output_shape)) / images
    shared = _rows_are_shared(layer)
    weights = gemm.count * gemm.k * gemm.n
    return kernel_work(
        kind, m=gemm.m / images if shared else gemm.m, n=gemm.n, k=gemm.k,
        count=gemm.count if shared else gemm.count / images,
        weights=weights if shared else weights / images, features=features,
    )  # fmt: skip


def _rows_are_shared(layer: Layer) -> bool:
    """Whether the images of a batch share the rows of a product, or have products of their own."""
    return layer.gemm.m % layer.images == 0 and layer.weights_are_parameters


@dataclass(frozen=True, kw_only=True)
class ReuseCounts:
    """What reuse in software does for one layer, on one image.

    Attributes:
        m, n, k: of one product, `m` for one image.
        products: of the layer, for one image.
        length: L of a sub-vector.
        hashes: H of a signature, 0 where clusters are found without hashing.
        clusters: centroid sub-vectors that are multiplied, over all sub-matrices and products.
    """

    m: float
    n: int
    k: int
    products: float
    length: int
    hashes: int
    clusters: float

    @classmethod
    def of(cls, layer: Layer, decisions: Decisions) -> ReuseCounts:
        """The mean over the images of a layer that were decided on together.

        Raises:
            ConfigError: its pixels are looked at once, for which no software was timed.
        """
        if decisions.shared.looks.taps > 1:
            raise ConfigError(
                f"decisions of layer {layer.name!r} must look at rows to be timed on a board, got "
                "pixels that are looked at once; use look_once=False"
            )
        gemm, images, evidence = decisions.gemm, layer.images, decisions.evidence
        shared = _rows_are_shared(layer)
        return cls(
            m=gemm.m / images if shared else gemm.m,
            n=gemm.n,
            k=gemm.k,
            products=gemm.count if shared else gemm.count / images,
            length=min(decisions.shared.sub_vector_length, gemm.k),
            hashes=evidence.hashes if isinstance(evidence, Signatures) else 0,
            clusters=decisions.shared.total_clusters / images,
        )

    @property
    def sub_matrices(self) -> int:
        """s = ceil(K / L)."""
        return -(-self.k // self.length)


def reuse_work(layer: Layer, counts: ReuseCounts, *, element_bytes: int) -> dict[str, KernelWork]:
    """The stages of a layer under reuse, one after the other, on one image.

    - `hash`: unfold, multiply each sub-vector by H hyperplanes, look its signature up, which moves
      a cache line.
    - `centroids`: add each sub-vector to its centroid.
    - `multiply`: the centroids by the weights, as well as the layer's own kernel does without
      Winograd's trick; threads share the sub-matrices, so they start once.
    - `gather`: for each row and sub-matrix, add a centroid's result to the output.

    An addition takes a SIMD lane as long as a multiply-accumulate.

    Args:
        layer: as captured.
        counts: of this layer.
        element_bytes: of a stored number, in which a cache line is counted.
    """
    s, rows = counts.sub_matrices, counts.m * counts.products
    unfolded = rows * counts.k
    inputs = layer.input_elements / layer.images
    results = counts.clusters * counts.n
    gathered = rows * s * counts.n
    dense = dense_work(layer, winograd=False)
    stage = {"kernel": GEMM, "weights": 0.0, "scratch": 0.0, "calls": 1.0}
    stages = {
        "hash": stage | {
            "macs": unfolded * counts.hashes, "reduction": counts.length,
            "features": inputs + rows * s * (1 + _LINE_BYTES / element_bytes),
            "scratch": 0.0 if dense.kernel == GEMM else unfolded,
        },
        # Depthwise: its arithmetic runs at the SIMD units' peak, as additions do.
        "centroids": stage | {
            "kernel": DEPTHWISE, "macs": unfolded, "reduction": 1,
            "features": unfolded + counts.clusters * counts.length,
        },
        "multiply": stage | {
            "kernel": dense.kernel, "weights": dense.weights, "reduction": counts.length,
            "macs": counts.clusters * counts.length * counts.n,
            "features": counts.clusters * counts.length + results,
        },
        "gather": stage | {
            "kernel": DEPTHWISE, "macs": gathered, "reduction": 1,
            "features": gathered + rows * (counts.n + s),
        },
    }  # fmt: skip
    return {name: KernelWork(**values) for name, values in stages.items()}  # type: ignore[arg-type]
