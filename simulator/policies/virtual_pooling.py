"""Virtual pooling: every second position is computed, the ones between are interpolated."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import product

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, refuse, violations
from simulator.decisions.box import Decisions
from simulator.decisions.rows import FilledRows
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class VirtualPooling(ReusePolicy):
    """A convolution computes every s-th position of each dimension; linear interpolation fills in.

    ViP (Chen et al., "ViP: virtual pooling for accelerating CNN-based image classification and
    object detection", WACV 2020): the stride of a convolution is doubled, and its output gets its
    size back by linear interpolation, y[2i] computed and y[2i + 1] the mean of its computed
    neighbours: of two positions, or of four where it lies between them in both dimensions. Beyond
    the last computed position of a row or column, that one is repeated. Results are interpolated
    before an activation function, which does not commute with means. Convolutions only.

    Attributes:
        stride: s, 1 (all are computed) to 16; the paper's is 2.

    Raises:
        ConfigError: at construction, where the stride is none; at `decide`, where a layer is no
            convolution or activations are not finite, naming the layer.
    """

    stride: int = field(default=2, metadata=integer(1, 16))

    def __post_init__(self) -> None:
        """Check the stride."""
        refuse(violations(self, "VirtualPooling"))

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Only a convolution has positions."""
        others = [layer.name for layer in layers if layer.kind != "conv"]
        if others:
            raise ConfigError(
                f"VirtualPooling.stride must be of convolutions, got {', '.join(others)}; give "
                "these layers a policy of their own or NoReuse()"
            )

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same positions for every image; `None` where an image has a single position."""
        self.check_layers([layer])
        check_activations(layer, rows)
        size = layer.output_shape[2:]
        if math.prod(size) == 1:
            return None
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
        filled = FilledRows(
            gemm=layer.gemm,
            images=layer.gemm.m // numbers.size,
            computed=computed.ravel(),
            taps=np.stack(taps, axis=1).astype(np.int32),
            weights=np.stack(weights, axis=1).astype(np.float32),
        )
        return Decisions(layer=layer.name, gemm=layer.gemm, rows=filled)

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "virtual_pooling", **asdict(self)}


def _interpolated(length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """`(length, 2)` computed positions at both sides of each, as places, and their weights."""
    before, beyond = np.divmod(np.arange(length), stride)
    after = np.minimum(before + 1, (length - 1) // stride)
    share = np.where(after > before, beyond / stride, 0.0)
    return np.stack([before, after], axis=1), np.stack([1 - share, share], axis=1)
