"""A part of each sum predicts whether the whole is below 0; where it is not, the rest follows."""

import math
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import FieldRule, integer, one_of, real
from simulator.decisions.box import Decisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import PartialSums
from simulator.kernels.prefixes import cut_bits
from simulator.policies.early import EarlyNegatives
from simulator.policies.policy import LayerState
from simulator.policies.profiling import chosen, thresholds_of
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

PARTS = ("channels", "high_bits", "signs")
# Of an operand, the bits that high bits are counted of.
_BITS = 8
_NEVER = np.finfo(np.float32).min


# A threshold that no sum is below.
NO_THRESHOLD = -1e9
_FINITE = real(NO_THRESHOLD, -NO_THRESHOLD)["rule"]


def _threshold() -> dict[str, FieldRule]:
    """A number, or `None`."""
    return {"rule": lambda value, path: [] if value is None else _FINITE(value, path)}


@dataclass(frozen=True, kw_only=True)
class PredictedPart(EarlyNegatives):
    """A cheap sum tells whether a result will be below 0; if so it is 0, else it is finished.

    Three ways to a cheap sum: of the first input channels, as partitioned input channels have it;
    of the operands' high bits, as Song et al. (ISCA 2018) compute them first and the low bits only
    for results that live; or of the operands' signs, as LazyConvPool has it. Piyasena et al. put
    such an ApproxConv before the exact one. Padding's zeros are products like others.

    A result that is given up has computed, of channels, their products, and of high bits and signs
    none; one that lives has computed all. Of channels the part is the beginning of its sum. High
    bits and signs come on top, for every result: the predictor multiplies the high bits itself, and
    adds up signs. Its multipliers are priced as whole ones, and no array here multiplies the low
    bits alone, as Song et al.'s does.

    A cheap sum is compared with a threshold, after scale and shift, beside which it stands in for
    the whole: of channels the sum so far, of bits and signs what the operands' stand-ins make,
    scaled to fit the whole sums best.

    Attributes:
        part: `channels`, `high_bits` or `signs`.
        channels: fraction of the input channels (of a linear layer's elements), above 0 to 1.
        bits: of 8, high ones that are multiplied first, 1 to 8.
        threshold: below which a cheap sum gives its result up, in standard deviations of the
            filter's results, -1e9 (which gives none up) to 1e9; `None` for one of each filter,
            found on calibration rows under `loss`.
        loss: of a layer's squared outputs after the ReLU, how much may be lost on calibration
            rows, 0 to 1, where thresholds are found.
        samples: rows that thresholds are found on.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where no layer may
            end its sums, or activations are not finite.
    """

    part: str = field(default="channels", metadata=one_of(lambda: PARTS))
    channels: float = field(default=0.25, metadata=real(1e-6, 1.0))
    bits: int = field(default=4, metadata=integer(1, _BITS))
    threshold: float | None = field(default=None, metadata=_threshold())
    loss: float = field(default=0.02, metadata=real(0, 1))
    samples: int = field(default=1024, metadata=integer(1, 2**20))

    def elements(self, layer: Layer) -> int:
        """Elements of a row that the first channels have."""
        k = layer.gemm.k
        taps = 1 if layer.convolution is None else math.prod(layer.convolution.kernel)
        return max(1, round(self.channels * (k // taps))) * taps

    def terms(self, layer: Layer) -> int:
        """Products that a result has computed which is given up."""
        match self.part:
            case "channels":
                return self.elements(layer)
            case "high_bits" | "signs":
                return layer.gemm.k if self._is_whole else 0
        raise ConfigError(f"PredictedPart.part must be one of {PARTS}, got {self.part!r}; use one")

    def learned(
        self, layer: Layer, rows: np.ndarray, weights: np.ndarray, shift: np.ndarray
    ) -> LayerState:
        """The weights, what operands' stand-ins are scaled by, and thresholds."""
        some = rows[:, :: max(1, rows.shape[1] // self.samples)]
        top = np.abs(rows).max(initial=0) or 1.0
        state = {"weights": weights, "top": np.array([top], np.float32)}
        cheap, whole = self._cheap(layer, some, state), np.matmul(some, weights)
        fit = np.ones(shift.shape, np.float32)
        if self.part != "channels" and not self._is_whole:
            power = np.square(cheap).sum(axis=1)
            fit = np.divide((cheap * whole).sum(axis=1), power, where=power > 0, out=fit)
        state["fit"] = fit
        return {**state, "threshold": self._thresholds(layer, cheap * fit[:, None], whole, shift)}

    @property
    def _is_whole(self) -> bool:
        """Whether the part is all there is."""
        bits, channels = self.bits == _BITS, self.channels == 1
        return bits if self.part == "high_bits" else channels and self.part == "channels"

    def _thresholds(
        self, layer: Layer, cheap: np.ndarray, whole: np.ndarray, shift: np.ndarray
    ) -> np.ndarray:
        """`(count, n)` float32, of each filter."""
        if self.threshold == NO_THRESHOLD:
            return np.full(shift.shape, _NEVER, np.float32)
        if self.threshold is not None:
            return whole.std(axis=1) * np.float32(self.threshold)
        lost = np.square(np.maximum(whole + shift[:, None], 0), dtype=np.float64)
        saves = np.full(cheap.shape[1], layer.gemm.k - self.terms(layer))
        pairs = [(i, j) for i in range(layer.gemm.count) for j in range(layer.gemm.n)]
        choices = [
            thresholds_of(cheap[i, :, j] + shift[i, j], lost[i, :, j], saves, self.terms(layer))
            for i, j in pairs
        ]
        found = chosen(choices, self.loss * float(lost.sum()))
        levels = [_NEVER if each is None else each.threshold for each in found]
        return np.array(levels, np.float32).reshape(shift.shape)

    def _cheap(self, layer: Layer, rows: np.ndarray, state: LayerState) -> np.ndarray:
        """`(count, rows, n)` float32 cheap sums, before they are fitted."""
        weights = state["weights"]
        if self._is_whole:
            return np.matmul(rows, weights)
        match self.part:
            case "channels":
                size = self.elements(layer)
                return np.matmul(rows[:, :, :size], weights[:, :size])
            case "high_bits":
                tops = np.abs(weights).max(axis=1, keepdims=True)
                return np.matmul(
                    high_bits(rows, state["top"], self.bits), high_bits(weights, tops, self.bits)
                )
            case "signs":
                return np.matmul(np.sign(rows), np.sign(weights))
        raise ConfigError(f"PredictedPart.part must be one of {PARTS}, got {self.part!r}; use one")

    def ending(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions:
        """Results are given up or finished."""
        gemm = layer.gemm
        cheap = self._cheap(layer, rows, state)
        cheap *= state["fit"][:, None]
        cheap += state["shift"][:, None]
        dead = cheap < state["threshold"][:, None]
        terms = np.where(dead, np.int32(self.terms(layer)), np.int32(gemm.k))
        depth = DepthDecisions(gemm=gemm, terms=terms, ended=state["ended"])
        beside = 0 if self._is_whole else terms.size * gemm.k
        evidence = PartialSums(
            checks=terms.size,
            additions=beside if self.part == "signs" else 0,
            products=beside if self.part == "high_bits" else 0,
        )
        return Decisions(layer=layer.name, gemm=gemm, depth=depth, evidence=evidence)

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "predicted_part", **asdict(self)}


def high_bits(values: np.ndarray, top: np.ndarray, bits: int) -> np.ndarray:
    """Values on a grid of 8 bits and a sign, of which the low bits are cut off.

    Args:
        values: float32.
        top: the largest magnitude, which is 255 steps; it broadcasts.
        bits: that stay.
    """
    step = np.where(top > 0, top, 1) / (2**_BITS - 1)
    return cut_bits(values, step.astype(np.float32), np.float32(2 ** (_BITS - bits)))


register(
    Technique(
        name="predicted_part",
        title="Prediction from a part of the sum",
        axis="depth",
        word="skip",
        grain="output",
        rule="A cheap sum, of the first channels, the high bits or the signs, tells which results "
        "will be below 0 before a ReLU; the others are finished.",
        evidence="the sign of a cheap sum",
        source="Piyasena et al. (ApproxConv); LazyConvPool; Song et al., ISCA 2018",
        policy=PredictedPart,
        units=("sum_predictor",),
        trained="nothing; thresholds are found on calibration inputs",
        choices={
            "part": PARTS,
            "channels": (0.125, 0.25, 0.5),
            "bits": (2, 3, 4),
            "loss": (0.001, 0.01, 0.03, 0.1),
        },
        published=("LazyConvPool", "prediction based execution"),
        start={"part": "channels", "channels": 0.25, "bits": 3, "loss": 0.01},
        own=("loss",),
    )
)
