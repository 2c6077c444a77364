"""CBInfer's fine-grained form: each value that changed is multiplied by its change."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import real
from simulator.policies.differences import DifferencePolicy
from simulator.policies.policy import LayerState
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class FineChanges(DifferencePolicy):
    """Of each input that changed by more than a threshold, the change is multiplied and added.

    CBInfer (Cavigelli and Benini, 2018; ICDSC 2017), its fine-grained form with feedback: a value
    is compared with the one that its layer's results stand for, which it replaces only where it
    changed. So no result is further from dense than threshold x sum |w|, however slowly inputs
    move. The paper tunes a threshold for each layer; give them by `PerLayer`.

    Attributes:
        threshold: change of an input, in the layer's own units, up to which it does not count, at
            least 0.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where activations are
            not finite or a memory is of another layer, naming the layer.
    """

    threshold: float = field(metadata=real(0.0, 1e30))

    name: ClassVar[str] = "fine_changes"

    def standing(
        self, layer: Layer, values: np.ndarray, before: np.ndarray | None, state: LayerState
    ) -> np.ndarray:
        """New values where they changed."""
        if before is None:
            return values
        changed = np.abs(values - before) > threshold_of(layer, self.threshold)
        return np.where(changed, values, before)


def threshold_of(layer: Layer, threshold: float) -> np.float32:
    """A threshold as a layer's activations are given: of a quantised layer, in its steps."""
    scale = 1.0 if layer.quantisation is None else layer.quantisation.scale
    return np.float32(threshold / scale)


register(
    Technique(
        name="fine_changes",
        title="CBInfer, fine-grained",
        axis="rows",
        word="keep",
        grain="value",
        rule=(
            "An input that differs from the one that the result stands for by more than a "
            "threshold is multiplied by its change, which is added to the result."
        ),
        evidence="differences to the frame before",
        source="Cavigelli and Benini, CBInfer, ICDSC 2017 and 2018",
        policy=FineChanges,
        units=("difference_unit", "result_adder"),
        options=("state_buffer",),
        choices={"threshold": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)},
        start={"threshold": 0.05},
        own=("threshold",),
    )
)
