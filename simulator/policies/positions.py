"""What policies have in common that compute some output positions and fill the others in."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, violations
from simulator.decisions.box import Decisions
from simulator.decisions.rows import FilledRows
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import Layer


class FilledPositions(ReusePolicy):
    """The same positions of every image are computed, whatever the input; convolutions only."""

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, type(self).__name__))

    @abstractmethod
    def filling(self, layer: Layer) -> FilledRows | None:
        """Which positions of a layer are computed, and from which the others are filled in.

        Args:
            layer: a convolution of more than one position.

        Returns:
            `None` where the layer runs dense.
        """

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Only a convolution has positions."""
        others = [layer.name for layer in layers if layer.kind != "conv"]
        if others:
            raise ConfigError(
                f"{type(self).__name__} must be of convolutions, got {', '.join(others)}; give "
                "these layers a policy of their own or NoReuse()"
            )

    def decided(self, layer: Layer) -> Decisions | None:
        """The decisions on a layer, which need no activations.

        Raises:
            ConfigError: the layer is no convolution.
        """
        self.check_layers([layer])
        filled = self.filling(layer) if math.prod(layer.output_shape[2:]) > 1 else None
        if filled is None:
            return None
        return Decisions(layer=layer.name, gemm=layer.gemm, rows=filled)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same positions for every image; `None` where an image has a single position."""
        self.check_layers([layer])
        check_activations(layer, rows)
        return self.decided(layer)
