"""SubFlow: the channels that matter most, as many as the time allows."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import real, refuse, violations
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.policies.activations import check_activations, check_state
from simulator.policies.policy import LayerState, ReadWeights, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

# Of a layer's calibration rows, so many are multiplied, evenly spaced.
_MOST_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class SubFlow(ReusePolicy):
    """A convolution computes the channels of most importance; the others are 0 for every input.

    Lee and Nirjon, "SubFlow: a dynamic induced-subgraph strategy toward real-time DNN inference and
    training" (RTAS 2020): neurons are ranked by importance, and within a time budget the subgraph
    of the top ones runs. Here whole channels are ranked, so that an array can leave them out; those
    of a smaller budget are among those of a larger one. Nothing is learned again.

    A channel's importance is the mean magnitude of its results on calibration inputs, without the
    bias; or, of states that `simulator.running.importance.importance_by_gradient` finds, the sum of
    |weight x gradient| of its weights. A channel that is left out is 0 before what follows, a
    constant after batch normalisation, so that the next layer multiplies by it all the same.

    Attributes:
        budget: u, fraction of each layer's channels that are computed, rounded up, above 0 to 1.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where activations are
            not finite, naming the layer.
    """

    budget: float = field(metadata=real(1e-6, 1))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "SubFlow"))

    def applies_to(self, layer: Layer) -> bool:
        """To convolutions: a linear layer may be the last, all of whose results are asked for."""
        return layer.kind == "conv"

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """All layers fit."""

    def needs_calibration(self, layer: Layer) -> bool:
        """Unless all channels are computed."""
        return self.applies_to(layer) and self._number_in(layer) < layer.gemm.n

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """`importance` `(n,)` float64, over all GEMMs."""
        check_activations(layer, rows)
        if weights is None:
            raise ConfigError(
                f"weights of layer {layer.name!r} must be given to rank SubFlow's channels, got "
                "none; pass them to calibrate()"
            )
        some = rows[:, :: math.ceil(rows.shape[1] / _MOST_ROWS)]
        results = np.abs(np.matmul(some, weights()))
        return {"importance": results.mean(axis=(0, 1), dtype=np.float64)}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same channels for every input; `None` where all are computed."""
        check_activations(layer, rows)
        if not self.needs_calibration(layer):
            return None
        check_state(layer, state, {"importance": (layer.gemm.n,)})
        importance = state["importance"]
        sources = np.full(layer.gemm.n, DROPPED)
        # Stable, so that ties are the same for every budget.
        kept = np.argsort(-importance, kind="stable")[: self._number_in(layer)]
        sources[kept] = kept
        columns = ColumnDecisions(gemm=layer.gemm, sources=sources[None])
        return Decisions(layer=layer.name, gemm=layer.gemm, columns=columns)

    def _number_in(self, layer: Layer) -> int:
        """Channels of a layer that are computed."""
        return math.ceil(self.budget * layer.gemm.n)

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "sub_flow", **asdict(self)}


register(
    Technique(
        name="sub_flow",
        title="SubFlow, by channels",
        axis="columns",
        word="skip",
        grain="column",
        rule="Channels are ranked by importance; a budget runs the top ones for every input.",
        evidence="nothing: static",
        source="Lee and Nirjon, SubFlow, RTAS 2020",
        policy=SubFlow,
        published=("SubFlow",),
        choices={"budget": (0.25, 0.5, 0.625, 0.75, 0.875, 1.0)},
        start={"budget": 0.75},
        own=("budget",),
    )
)
