"""ZAP: a small network guesses, from outputs at some positions, which others are 0 after a ReLU."""

import math
import zlib
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators.rules import integer, one_of, real
from simulator.decisions.box import Decisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import PartialSums
from simulator.policies.early import EarlyNegatives
from simulator.policies.policy import LayerState
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

PATTERNS = ("checkerboard", "uniform")
_TAPS = 9
_LEARNING_RATE = 0.02
_NETWORK = ("first", "first_bias", "second", "second_bias")


@dataclass(frozen=True, kw_only=True)
class ZapReuse(EarlyNegatives):
    """A fixed pattern of positions is computed of every map; of the others, those scored alive.

    Shomron et al., "Thanks for Nothing: Predicting Zero-Valued Activations with Lightweight
    Convolutional Neural Networks". A layer's predictor is two depthwise 3x3 convolutions with a
    ReLU between (as the paper is remembered): it reads the map of computed outputs after their
    ReLU, 0 elsewhere, and gives each position and channel a score of being above 0. A score below
    `threshold` makes the output 0; one threshold moves along the trade-off without training anew.

    `calibrate` trains it, layer by layer and without labels, to imitate (x > 0) with the mean
    squared error by Adam, on the layer's own activations. Computed positions count as 1 in scores
    and in what they imitate, so that only the others teach. The network's inputs are divided by
    each channel's largest calibration output. Convolutions with two spatial dimensions only.

    Attributes:
        computed: fraction of positions that are computed in any case, 0 to 1.
        pattern: `checkerboard`, evenly along each line, which is moved against the one before (our
            choice); or `uniform`, drawn at random.
        threshold: of scores; 0 and less removes nothing.
        steps: of training, 1 to 100000.
        images: of each step, at most.
        seed: of training and pattern.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where no layer may
            end its sums, or activations are not finite.
    """

    computed: float = field(default=0.5, metadata=real(0.0, 1.0))
    pattern: str = field(default="checkerboard", metadata=one_of(lambda: PATTERNS))
    threshold: float = field(default=0.3, metadata=real(-1e6, 1e6))
    steps: int = field(default=150, metadata=integer(1, 100_000))
    images: int = field(default=4, metadata=integer(1, 1024))
    seed: int = field(default=0, metadata=integer(0, 2**63 - 1))

    def why_dense(self, layer: Layer) -> str:
        """Why a layer runs dense; empty where outputs may be 0."""
        if layer.kind != "conv" or len(layer.output_shape) != 4:
            return "it has no map of two dimensions"
        return super().why_dense(layer)

    def computed_positions(self, layer: Layer) -> np.ndarray:
        """`(height, width)` bool, positions that are computed of every map of a layer."""
        size = layer.output_shape[2:]
        if self.pattern == "uniform":
            number = round(self.computed * math.prod(size))
            rng = np.random.default_rng([self.seed, zlib.crc32(layer.name.encode())])
            found = np.zeros(math.prod(size), bool)
            found[rng.choice(found.size, number, replace=False)] = True
            return found.reshape(size)
        lines, places = np.indices(size)
        number_of = places + lines * (1 if self.computed > 1 / 3 else 2)
        return np.floor((number_of + 1) * self.computed) > np.floor(number_of * self.computed)

    def learned(
        self, layer: Layer, rows: np.ndarray, weights: np.ndarray, shift: np.ndarray
    ) -> LayerState:
        """The predictor's weights."""
        outputs = _maps(layer, np.matmul(rows, weights) + shift[:, None])
        top = np.maximum(outputs.max(axis=(0, 2, 3)), 1e-6).astype(np.float32)
        network = _trained(
            outputs / top[:, None, None],
            self.computed_positions(layer),
            steps=self.steps,
            images=self.images,
            seed=self.seed,
        )
        return {"weights": weights, "top": top, **network}

    def scores(self, layer: Layer, rows: np.ndarray, state: LayerState) -> np.ndarray:
        """`(count, m, n)` float32 of each output; computed positions' count for nothing."""
        found, gemm = self.computed_positions(layer), layer.gemm
        images = gemm.m // found.size
        chosen = np.tile(found.ravel(), images)
        outputs = np.zeros((gemm.count, gemm.m, gemm.n), np.float32)
        some = np.matmul(rows[:, chosen], state["weights"]) + state["shift"][:, None]
        outputs[:, chosen] = some
        maps = _maps(layer, outputs) / state["top"][:, None, None]
        scored = _scored(np.maximum(maps, 0), state)
        scored = scored.reshape(images, gemm.count, gemm.n, found.size)
        return scored.transpose(1, 0, 3, 2).reshape(outputs.shape)

    def ending(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions:
        """Outputs that are not computed, at other positions than the pattern's."""
        gemm, found = layer.gemm, self.computed_positions(layer)
        images = gemm.m // found.size
        others = ~np.tile(found.ravel(), images)
        dead = np.zeros((gemm.count, gemm.m, gemm.n), bool)
        products = 0
        if others.any():
            dead = (self.scores(layer, rows, state) < self.threshold) & others[:, None]
            products = 2 * _TAPS * dead.size
        terms = np.where(dead, np.int32(0), np.int32(gemm.k))
        depth = DepthDecisions(gemm=gemm, terms=terms, ended=state["ended"])
        checks = int(others.sum()) * gemm.n * gemm.count
        evidence = PartialSums(checks=checks, products=products)
        return Decisions(layer=layer.name, gemm=gemm, depth=depth, evidence=evidence)

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "zap", **asdict(self)}


def _maps(layer: Layer, outputs: np.ndarray) -> np.ndarray:
    """`(images, channels, height, width)` of `(count, m, n)`."""
    size = layer.output_shape[2:]
    count, m, n = outputs.shape
    images = m // math.prod(size)
    maps = outputs.reshape(count, images, math.prod(size), n).transpose(1, 0, 3, 2)
    return np.ascontiguousarray(maps).reshape(images, count * n, *size)


def _scored(maps: np.ndarray, state: LayerState) -> np.ndarray:
    """Scores of maps, by the trained network; never below 0."""
    import torch

    with torch.no_grad():
        network = [torch.from_numpy(np.ascontiguousarray(state[name])) for name in _NETWORK]
        return _network(torch.from_numpy(maps), network).numpy()


def _network(maps, parameters):  # of PyTorch, which this file needs only where it predicts
    """Two depthwise 3x3 convolutions; scores are cut off below 0."""
    from torch.nn.functional import conv2d

    first, first_bias, second, second_bias = parameters
    groups = maps.shape[1]
    hidden = conv2d(maps, first, first_bias, padding=1, groups=groups).relu()
    return conv2d(hidden, second, second_bias, padding=1, groups=groups).relu()


def _trained(
    outputs: np.ndarray, computed: np.ndarray, *, steps: int, images: int, seed: int
) -> dict[str, np.ndarray]:
    """A predictor for the channels of some maps.

    Args:
        outputs: `(images, channels, height, width)` float32, before the ReLU.
        computed: `(height, width)` bool.
        steps: of Adam.
        images: of each step, at most.
        seed: of weights and batches.
    """
    import torch
    from torch.nn.functional import mse_loss

    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        given, mask = torch.from_numpy(outputs), torch.from_numpy(computed)
        seen = given.relu() * mask
        wanted, others = (given > 0).float(), (~mask).float()
        channels = given.shape[1]
        first = torch.randn(channels, 1, 3, 3) / 3
        second = torch.randn(channels, 1, 3, 3) / 3
        share = wanted.mean(dim=(0, 2, 3))  # begins as the mean, above the ReLU
        parameters = [first, torch.full((channels,), 0.1), second.abs(), share]
        parameters = [each.clone().requires_grad_(True) for each in parameters]
        adam = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
        for _ in range(steps):
            batch = torch.randperm(len(given))[:images]
            adam.zero_grad()
            score = _network(seen[batch], parameters)
            mse_loss(score * others, wanted[batch] * others).backward()
            adam.step()
        return {
            name: each.detach().numpy().copy()
            for name, each in zip(_NETWORK, parameters, strict=True)
        }


register(
    Technique(
        name="zap",
        title="ZAP",
        axis="depth",
        word="skip",
        grain="output",
        rule="Outputs at a fixed pattern of positions are computed; a small network reads them and "
        "scores all others, which are 0 where the score is below a threshold.",
        evidence="scores of a small network, which is paid for",
        source="Shomron et al., Thanks for Nothing, 2019 and 2020",
        policy=ZapReuse,
        units=("sum_predictor",),
        trained="the predictors, without labels, in minutes: by calibrate()",
        published=("ZAP",),
        choices={"computed": (0.25, 0.5), "threshold": (0.1, 0.2, 0.3, 0.4, 0.5)},
        start={"computed": 0.5, "threshold": 0.3},
        own=("threshold",),
    )
)
