"""Virtual pooling: every second position is computed, the ones between are interpolated."""

import math
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import product

import numpy as np

from accelerators.rules import integer
from simulator.decisions.rows import FilledRows
from simulator.policies.positions import FilledPositions
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class VirtualPooling(FilledPositions):
    """A convolution computes every s-th position of each dimension; linear interpolation fills in.

    ViP (Chen et al., "ViP: virtual pooling for accelerating CNN-based image classification and
    object detection", WACV 2020): the stride of a convolution is doubled, and its output gets its
    size back by linear interpolation, y[2i] computed and y[2i + 1] the mean of its computed
    neighbours: of two positions, or of four where it lies between them in both dimensions. Beyond
    the last computed position of a row or column, that one is repeated. Results are interpolated
    before an activation function, which does not commute with means. Convolutions only; of these,
    one that has a stride already, or a single position an image, runs dense.

    Attributes:
        stride: s, 1 (all are computed) to 16; the paper's is 2.

    Raises:
        ConfigError: at construction, where the stride is none; at `decide`, where a layer is no
            convolution or activations are not finite, naming the layer.
    """

    stride: int = field(default=2, metadata=integer(1, 16))

    def applies_to(self, layer: Layer) -> bool:
        """Not to a convolution that takes every other position already."""
        return layer.convolution is None or set(layer.convolution.stride) == {1}

    def filling(self, layer: Layer) -> FilledRows | None:
        """Interpolated linearly between every s-th position; `None` of a strided convolution."""
        if not self.applies_to(layer):
            return None
        size = layer.output_shape[2:]
        axes = [_interpolated(length, self.stride) for length in size]
        coarse = [-(-length // self.stride) for length in size]
        taps, weights = [], []
        for sides in product((0, 1), repeat=len(size)):
            places = [nearest[:, side] for (nearest, _), side in zip(axes, sides, strict=True)]
            shares = [share[:, side] for (_, share), side in zip(axes, sides, strict=True)]
            grid = np.meshgrid(*places, indexing="ij")
            taps.append(np.ravel_multi_index(grid, coarse).ravel())
            weights.append(reduce(np.multiply, np.meshgrid(*shares, indexing="ij")).ravel())
        numbers = np.arange(math.prod(size)).reshape(size)
        computed = numbers[np.ix_(*(np.arange(0, length, self.stride) for length in size))]
        return FilledRows(
            gemm=layer.gemm,
            images=layer.gemm.m // numbers.size,
            computed=computed.ravel(),
            taps=np.stack(taps, axis=1).astype(np.int32),
            weights=np.stack(weights, axis=1).astype(np.float32),
        )

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "virtual_pooling", **asdict(self)}


def _interpolated(length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """`(length, 2)` computed positions at both sides of each, as places, and their weights."""
    before, beyond = np.divmod(np.arange(length), stride)
    after = np.minimum(before + 1, (length - 1) // stride)
    share = np.where(after > before, beyond / stride, 0.0)
    return np.stack([before, after], axis=1), np.stack([1 - share, share], axis=1)


register(
    Technique(
        name="vip",
        title="ViP",
        axis="rows",
        word="skip",
        grain="position",
        rule="A convolution computes every second position of each dimension; linear interpolation "
        "of two or four results fills the others in, before the activation function.",
        evidence="none: the positions are fixed",
        source="Chen et al., ViP: virtual pooling, WACV 2020",
        policy=VirtualPooling,
        units=("address_list", "reconstructor"),
        trained="the network, under the policy, to win its accuracy back; "
        "virtual_pooling_layers measures which layers bear it",
        published=("ViP",),
        choices={"stride": (1, 2, 4)},
        start={"stride": 2},
        own=("stride",),
    )
)
