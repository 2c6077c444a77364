"""DeltaCNN, as single products see it: positions whose change is large enough are multiplied."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import real
from simulator.policies.differences import CHANNELS, DifferencePolicy
from simulator.policies.fine_changes import threshold_of
from simulator.policies.policy import LayerState
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True)
class PositionDifferences(DifferencePolicy):
    """A position's change is multiplied once any of its channels changed by more than a threshold.

    DeltaCNN (Parger et al., CVPR 2022): differences travel through the network; an activation keeps
    the input that it has accumulated, and what is too small to be passed on stays there until it
    has grown, so that nothing is lost. Seen from one product that is what is done here: its inputs
    less those that its result stands for are the accumulated difference with all that was held back
    before; a position passes all of it on, or nothing.

    What differs from the paper: there an activation holds back for all that read it; here each
    product does for itself, and additions, pooling and activations between products see the values
    whole, so that a shortcut passes on what a product holds back. The paper's sparse activations
    and additions are no products, and none of their savings is counted.

    Attributes:
        threshold: change of an input, in the layer's own units, up to which it does not count, at
            least 0. The authors start from 0.05 to 0.3 in normalised units and raise each layer's.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where activations are
            not finite or a memory is of another layer, naming the layer.
    """

    threshold: float = field(metadata=real(0.0, 1e30))

    name: ClassVar[str] = "position_differences"

    def standing(
        self, layer: Layer, values: np.ndarray, before: np.ndarray | None, state: LayerState
    ) -> np.ndarray:
        """New values at positions that changed."""
        if before is None:
            return values
        changed = np.abs(values - before) > threshold_of(layer, self.threshold)
        return np.where(changed.any(axis=CHANNELS, keepdims=True), values, before)


register(
    Technique(
        name="delta_cnn",
        title="DeltaCNN",
        axis="rows",
        word="keep",
        grain="position",
        rule=(
            "A position's difference to what the result stands for is multiplied and added once "
            "any channel's is above a threshold; until then it is held back, and not lost."
        ),
        evidence="differences to the frame before",
        source="Parger et al., DeltaCNN, CVPR 2022",
        policy=PositionDifferences,
        units=("difference_unit", "result_adder"),
        options=("state_buffer",),
        published=("DeltaCNN",),
        choices={"threshold": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)},
        start={"threshold": 0.05},
        own=("threshold",),
    )
)
