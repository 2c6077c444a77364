"""What policies that plan by weights have in common: blocks of columns, counted once."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, show
from simulator.decisions.box import Decisions
from simulator.decisions.weights import COUNTS, WeightPlan
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReadWeights, ReusePolicy
from workloads.traces.layer import Layer

# Values that weights of 8 bits have at most.
MOST_VALUES = 256


class WeightPlanned(ReusePolicy):
    """Makes a plan from the weights in `calibrate`; whatever the input, it is the same.

    Layers whose two operands are both activations, as attention's, run dense. Weights must repeat:
    int8 weights, or such of few values (`workloads.few_valued`); float32
    weights hardly ever do, and are refused where a column has more than 256 values.
    """

    @property
    @abstractmethod
    def block_columns(self) -> int:
        """Columns of a block."""

    @abstractmethod
    def counts(self, block: np.ndarray) -> dict[str, int]:
        """What one row takes of a `(k, columns)` block of weights, by the names of `COUNTS`."""

    def applies_to(self, layer: Layer) -> bool:
        """To layers with weights."""
        return layer.weights_are_parameters

    def needs_calibration(self, layer: Layer) -> bool:
        """Weights are read then."""
        return self.applies_to(layer)

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """The counts of `WeightPlan`, by their names."""
        check_activations(layer, rows)
        if weights is None:
            raise ConfigError(
                f"weights of layer {layer.name!r} must be given to plan by them, got none; pass "
                "them to calibrate()"
            )
        matrices = weights()
        self._check_repeat(layer, matrices)
        size = self.block_columns
        found = [
            [self.counts(matrix[:, at : at + size]) for at in range(0, layer.gemm.n, size)]
            for matrix in matrices
        ]
        return {
            name: np.array([[block[name] for block in blocks] for blocks in found], np.int64)
            for name in COUNTS
        }

    def _check_repeat(self, layer: Layer, matrices: np.ndarray) -> None:
        """Weights must have few values."""
        ordered = np.sort(matrices, axis=1)
        most = 1 + int(np.count_nonzero(np.diff(ordered, axis=1), axis=1).max(initial=0))
        if most > MOST_VALUES:
            raise ConfigError(
                f"{type(self).__name__} must plan weights that repeat, at most {MOST_VALUES} "
                f"values a column, got {most} in layer {layer.name!r}: float32 weights hardly "
                "repeat; quantise the model (int8), or cluster its weights (few_valued)"
            )

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The plan that was made; `None` for a layer without weights."""
        check_activations(layer, rows)
        if not self.applies_to(layer):
            return None
        gemm, filters = layer.gemm, self.block_columns
        shape = (gemm.count, -(-gemm.n // filters))
        if any(name not in state or state[name].shape != shape for name in COUNTS):
            raise ConfigError(
                f"calibration of layer {layer.name!r} must hold arrays of shape {shape}, got "
                f"{show({name: np.shape(each) for name, each in state.items()})}; calibrate with "
                "the same policy"
            )
        counts = {name: np.asarray(state[name], np.int64) for name in COUNTS}
        plan = WeightPlan(gemm=gemm, filters=filters, **counts)
        return Decisions(layer=layer.name, gemm=gemm, weights=plan)

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """One must have weights."""
        refuse(
            [
                f"{type(self).__name__} must have a layer with weights, got none of "
                f"{len(layers)}; decide on others another way"
            ]
            * (bool(layers) and not any(map(self.applies_to, layers)))
        )


def index_bits(places: int) -> int:
    """Bits that tell so many apart, at least one."""
    return max(1, (places - 1).bit_length())
