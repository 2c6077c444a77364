"""Riera et al.: inputs brought to few levels, and only those multiplied whose level changed."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import integer
from simulator.policies.activations import check_activations, check_state
from simulator.policies.differences import DifferencePolicy
from simulator.policies.policy import LayerState, ReadWeights
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class QuantisedDifferences(DifferencePolicy):
    """A layer multiplies the changes of its inputs' levels and adds them to its last result.

    Riera, Arnau and Gonzalez, "Computation reuse in DNNs by exploiting input similarity" (ISCA
    2018): a layer's inputs are quantised linearly; where a level is that of the execution before,
    its products stay in the result, else y += (q - q') W. What is kept is the result before its
    activation function, and the levels. The range is that of calibration activations; zero is a
    level, so that padding stays exact, and values outside take the last level. Of a quantised layer
    a level is a whole number of its steps, and results are those of the levels bit for bit.

    Levels change the results, of the first frame as well: `relative_mse` tells by how much.

    Attributes:
        levels: of each layer's inputs, 2 to 65536; the paper has 16 for speech and 32 for video.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where activations are
            not finite, or a calibration or memory is of another layer, naming the layer.
    """

    levels: int = field(default=32, metadata=integer(2, 65536))

    quantises: ClassVar[bool] = True
    name: ClassVar[str] = "quantised_differences"

    @property
    def remembered_bits(self) -> int:
        """Of a level."""
        return (self.levels - 1).bit_length()

    def needs_calibration(self, layer: Layer) -> bool:
        """The range of each layer's inputs."""
        return self.applies_to(layer)

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """The range, which holds zero.

        Args:
            layer: the layer.
            rows: as for `ReusePolicy.calibrate`.
            weights: not asked for.

        Returns:
            `low` and `high`, `(1,)` float32 each.
        """
        check_activations(layer, rows)
        low, high = min(0.0, float(rows.min())), max(0.0, float(rows.max()))
        return {"low": np.array([low], np.float32), "high": np.array([high], np.float32)}

    def standing(
        self, layer: Layer, values: np.ndarray, before: np.ndarray | None, state: LayerState
    ) -> np.ndarray:
        """What the levels of new values stand for."""
        check_state(layer, state, {"low": (1,), "high": (1,)})
        low, high = float(state["low"][0]), float(state["high"][0])
        step = (high - low) / (self.levels - 1)
        if layer.quantisation is not None:
            step = max(1, math.ceil(step))
        if step == 0:  # all inputs were 0
            return np.zeros_like(values)
        lowest = round(low / step)
        levels = np.rint(values / np.float32(step))
        np.clip(levels, lowest, lowest + self.levels - 1, out=levels)
        return np.multiply(levels, np.float32(step), out=levels)


register(
    Technique(
        name="riera",
        title="computation reuse by input similarity",
        axis="rows",
        word="keep",
        grain="value",
        rule=(
            "Inputs are brought to few levels; where a level is that of the frame before, its "
            "products stay in the result, else its change is multiplied and added."
        ),
        evidence="levels of the frame before",
        source="Riera, Arnau and Gonzalez, ISCA 2018",
        policy=QuantisedDifferences,
        units=("difference_unit", "result_adder"),
        options=("state_buffer",),
        published=("Riera deltas",),
        choices={"levels": (8, 16, 32, 64, 128, 256)},
        start={"levels": 32},
        own=("levels",),
    )
)
