"""Feature boosting and suppression: each image has its own channels, chosen by what is seen."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np

from accelerators import ConfigError
from accelerators.rules import real, refuse, show, violations
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.evidence import Evidence
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReadWeights, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Convolution, Layer

# What `workloads.models.boosting` calls a convolution that chooses its channels, and its gate.
_BOOSTED, _GATE = ".boosted", ".gate"


@dataclass(frozen=True, kw_only=True)
class ChannelMeans(Evidence):
    """Mean magnitudes of an image's input channels, and which of its gains are the largest."""

    units: ClassVar[tuple[str, ...]] = ("channel_gate",)
    words: ClassVar[str] = "mean magnitudes of input channels"


@dataclass(frozen=True, kw_only=True)
class FeatureBoosting(ReusePolicy):
    """A convolution that was trained for it computes the channels of largest gain of each image.

    Gao et al., "Dynamic channel pruning: feature boosting and suppression" (FBS, ICLR 2019):
    s_c = mean |x_c| over the positions of input channel c, g = ReLU(s Phi + b); of an image the
    ceil(density n) channels of largest gain above 0 are computed, the others are 0. Input channels
    that are 0 in all of an image, as those that the layer before left out, are not multiplied.

    Phi and b are the weights of the network's own gate, a product of its own in the trace:
    `workloads.models.boosting` builds such networks, in which convolution and gate are called
    `.boosted` and `.gate`. Other layers run dense. What the network scales a channel by that is not
    computed here is 0 anyway where it was trained at this density or below.

    Attributes:
        density: fraction of a layer's channels that an image keeps, rounded up, above 0 to 1.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where the kernel misses
            pixels of its input, there was no gate, or activations are not finite, naming the layer.
    """

    density: float = field(metadata=real(1e-6, 1))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "FeatureBoosting"))

    def applies_to(self, layer: Layer) -> bool:
        """To convolutions with a gate."""
        return layer.kind == "conv" and layer.name.endswith(_BOOSTED)

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Rows must hold all pixels of an image, of one group."""
        broken = [
            "FeatureBoosting.density must be of convolutions of one group whose kernels meet every "
            f"pixel, got layer {layer.name!r} with {layer.convolution}; give it a policy of its "
            "own, or NoReuse()"
            for layer in layers
            if self.applies_to(layer) and (layer.gemm.count > 1 or _first_met(layer) is None)
        ]
        refuse(broken)

    def needs_calibration(self, layer: Layer) -> bool:
        """The gate's weights are read."""
        return self.applies_to(layer)

    def weights_for(self, layer: Layer) -> str:
        """The gate's."""
        return layer.name.removesuffix(_BOOSTED) + _GATE if self.applies_to(layer) else layer.name

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """`gate` `(C + 1, n)` float32, the gate's weights; the last row is b."""
        check_activations(layer, rows)
        given = None if weights is None else weights()
        if given is None or given.shape != (1, *_gate_shape(layer)):
            found = "none" if given is None else f"some of shape {given.shape}"
            raise ConfigError(
                f"weights of layer {self.weights_for(layer)!r} must be (1, channels + 1, n) = "
                f"{(1, *_gate_shape(layer))} for FeatureBoosting, got {found}; capture a network "
                "that workloads.models.boosting.boost made, and learn without --calibrate-under-"
                "reuse"
            )
        return {"gate": given[0]}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Columns and elements of each image; `None` where the layer has no gate."""
        if not self.applies_to(layer):
            return None
        self.check_layers([layer])
        check_activations(layer, rows)
        gate, shape = state.get("gate"), _gate_shape(layer)
        if gate is None or gate.shape != shape:
            raise ConfigError(
                f"calibration of layer {layer.name!r} must hold arrays {{'gate': {shape}}}, got "
                f"{show(dict(state))}; calibrate with the same policy"
            )
        means = channel_means(layer, rows)
        gains = np.maximum(means @ gate[:-1] + gate[-1], 0)
        gemm, kept = layer.gemm, math.ceil(self.density * layer.gemm.n)
        least = np.partition(gains, gemm.n - kept, axis=1)[:, gemm.n - kept, None]
        computed = (gains >= least) & (gains > 0)
        elements = np.repeat(means > 0, gemm.k // means.shape[1], axis=1)
        columns = ColumnDecisions(
            gemm=gemm,
            sources=np.where(computed, np.arange(gemm.n), DROPPED),
            elements=elements,
        )
        return Decisions(layer=layer.name, gemm=gemm, columns=columns, evidence=ChannelMeans())

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "feature_boosting", **asdict(self)}


def _gate_shape(layer: Layer) -> tuple[int, int]:
    return layer.input_shape[1] + 1, layer.gemm.n


def channel_means(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """`(images, C)` float32, the mean magnitude of each image's input channels.

    Args:
        layer: a convolution of one group.
        rows: `(1, m, k)` float32.
    """
    met = _first_met(layer)
    assert met is not None
    images, channels, *size = layer.input_shape
    taps = layer.gemm.k // channels
    parts = rows[0].reshape(images, -1, channels, taps)
    total = np.zeros((images, channels), np.float32)
    for tap, positions in met:
        total += np.abs(parts[..., tap][:, positions]).sum(axis=1)
    grid = layer.quantisation
    return total * np.float32((1 if grid is None else grid.scale) / math.prod(size))


def _first_met(layer: Layer) -> list[tuple[int, np.ndarray]] | None:
    """Taps, and positions in which each meets pixels that none before it met; `None` where some
    pixel is met by none."""
    assert layer.convolution is not None
    return _met(layer.convolution, layer.input_shape[2:])


@lru_cache(maxsize=256)
def _met(convolution: Convolution, size: tuple[int, ...]) -> list[tuple[int, np.ndarray]] | None:
    """The same of a geometry; taps from the middle of the kernel, which often meets all."""
    made, kernel = convolution.output_size(size), convolution.kernel
    positions = np.indices(made).reshape(len(made), -1)
    numbers = np.indices(kernel).reshape(len(kernel), -1)
    middle = (np.array(kernel)[:, None] - 1) / 2
    seen, found = np.zeros(math.prod(size), bool), []
    bounds = np.array(size)[:, None]
    stride, padding, dilation = (
        np.array(each)[:, None]
        for each in (convolution.stride, convolution.padding, convolution.dilation)
    )
    for tap in np.argsort(np.abs(numbers - middle).sum(axis=0), kind="stable"):
        places = positions * stride - padding + numbers[:, tap, None] * dilation
        inside = ((places >= 0) & (places < bounds)).all(axis=0)
        pixels = np.ravel_multi_index(tuple(places[:, inside]), size)
        new = ~seen[pixels]
        if new.any():
            found.append((int(tap), np.flatnonzero(inside)[new]))
            seen[pixels] = True
    return found if seen.all() else None


register(
    Technique(
        name="fbs",
        title="feature boosting and suppression",
        axis="columns",
        word="skip",
        grain="column of an image",
        rule="Gains of channels follow from an image's input by a small trained product; the "
        "largest are computed, and zeros of the layer before are not multiplied.",
        evidence="mean magnitudes of input channels, and the network's gates",
        source="Gao et al., Dynamic channel pruning: feature boosting and suppression, ICLR 2019",
        policy=FeatureBoosting,
        units=("channel_gate",),
        trained="the network with its gates, such as resnet20_boosted (workloads.models.boosting)",
        published=("FBS",),
        choices={"density": (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)},
        start={"density": 0.5},
        own=("density",),
    )
)
