"""The interface of every reuse policy, and the two that decide nothing themselves."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, show
from simulator.decisions.box import Decisions
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.tokens import TokenPlan
from simulator.policies.activations import Activations
from simulator.policies.clustering import Clustering
from workloads.traces.after import Affine
from workloads.traces.layer import Layer

if TYPE_CHECKING:
    from simulator.policies.surroundings import Surroundings
    from workloads.traces.trace import WorkloadTrace

# What a policy learned of one layer before it decides, such as a mean; read, never changed.
LayerState = Mapping[str, np.ndarray]
# What is kept of one layer from batch to batch; read, never changed.
LayerMemory = Mapping[str, np.ndarray]
# Reads a layer's `(count, k, n)` float32 weights; most policies never ask. What a run hands over is
# an `Operands`, which also knows what the product is scaled and shifted by.
ReadWeights = Callable[[], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What a layer multiplies and adds beside its activations; called, it reads the weights.

    Attributes:
        read: gives `(count, k, n)` float32 weights.
        read_affine: gives bias and batch normalisation, see `affine`.
    """

    read: ReadWeights
    read_affine: Callable[[], Affine | None] = lambda: None

    def __call__(self) -> np.ndarray:
        """The `(count, k, n)` float32 weights."""
        return self.read()

    @property
    def affine(self) -> Affine | None:
        """What becomes of a sum of the model's numbers: `scale * sum + shift`, by column.

        Of a quantised layer's integers (less the zero point) the sum is first multiplied by
        `layer.quantisation.scale`. `None` where nobody knows: `Layer.after` tells more.
        """
        return self.read_affine()


def affine_of(weights: ReadWeights | None) -> Affine | None:
    """What a product is scaled and shifted by, where whoever reads its weights knows."""
    return weights.affine if isinstance(weights, Operands) else None


class ReusePolicy(ABC):
    """Decides what is taken off each layer's box of multiplications, and computes nothing.

    `running.executor` reads the decisions. A policy of one's own overrides `decide`, or
    `decide_next` where it keeps something from batch to batch, and `describe`; one above the
    layers overrides `frames` or `tokens`.
    """

    def applies_to(self, layer: Layer) -> bool:
        """Whether the layer's activations are looked at; where not, it runs dense."""
        return True

    def policy_of(self, name: str) -> "ReusePolicy":
        """The policy that decides the layer called `name`."""
        return self

    def needs_calibration(self, layer: Layer) -> bool:
        """Whether `decide` needs a state that `calibrate` made for this layer."""
        return False

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """Learn what `decide` needs from calibration activations.

        Args:
            layer: the layer.
            rows: `(count, m, k)` float32 activations seen before deployment; of a quantised layer,
                its integers less the zero point.
            weights: reads the layer's weights, or of `weights_for`, for what they make of rows;
                `affine_of(weights)` is what these sums are scaled and shifted by.
        """
        return {}

    def weights_for(self, layer: Layer) -> str:
        """The layer whose weights `calibrate` reads, where that is another one of the trace."""
        return layer.name

    @abstractmethod
    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Decide for one layer.

        Args:
            layer: the layer.
            rows: `(count, m, k)` float32, best with the rows of one column contiguous; of a
                quantised layer, its integers less the zero point.
            state: what `calibrate` returned for this layer.

        Returns:
            The decisions, or `None` where the layer runs dense.
        """

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """Decide for one layer of a stream's next batch.

        Args:
            layer: the layer.
            rows: as for `decide`.
            state: as for `decide`, the same for all batches of a stream.
            memory: what this returned for the batch before, `None` for the first; not changed.

        Returns:
            The decisions, and what is kept for the batch after; `None` for a policy that keeps
            nothing, as most do. For decisions with `KeptRows`, also where none is kept yet, and
            with `IncrementalRows` that keep theirs, the layer's results are kept beside it, as
            `results`, and filled in where they are used.
        """
        return self.decide(layer, rows, state), None

    def decide_given(
        self, layer: Layer, given: Activations, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As `decide_next`, for a policy that has no need of unfolded rows.

        Args:
            layer: the layer.
            given: its activations as they are stored, which unfold where rows are asked for.
            state: as for `decide`.
            memory: as for `decide_next`.
        """
        return self.decide_next(layer, given.rows, state, memory)

    def decide_in(
        self,
        layer: Layer,
        given: Activations,
        state: LayerState,
        memory: LayerMemory | None,
        around: "Surroundings | None",
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As `decide_given`, for a policy that decides by what lies around the layer as well.

        Args:
            layer: the layer.
            given: as for `decide_given`.
            state: as for `decide`.
            memory: as for `decide_next`.
            around: the network, what was decided on the layers before, and the last frame's answer;
                `None` where nobody knows.
        """
        return self.decide_given(layer, given, state, memory)

    @property
    def looks_around(self) -> bool:
        """Whether what it decides on a layer depends on what lies around it."""
        return type(self).decide_in is not ReusePolicy.decide_in

    def frames(self, trace: "WorkloadTrace") -> FrameDecisions | None:
        """In which of a batch's frames each layer runs; `None` where all do.

        Args:
            trace: the workload: its layers, and its inputs, which are frames in a row.
        """
        return None

    def tokens(self, trace: "WorkloadTrace") -> TokenPlan | None:
        """Which tokens live on from which layer; `None` where all do.

        Args:
            trace: as for `frames`.
        """
        return None

    @property
    def is_above_layers(self) -> bool:
        """Whether it decides on frames or tokens, which no policy of single layers can."""
        own = type(self)
        return own.frames is not ReusePolicy.frames or own.tokens is not ReusePolicy.tokens

    def clustering(self, layer: Layer, state: LayerState) -> Clustering | None:
        """How `decide` clusters a layer, where it does nothing else and can say so in plain data.

        The executor then clusters by what this says, in one pass with the product where a compiled
        loop knows how, and does not call `decide`.

        Args:
            layer: the layer.
            state: as for `decide`.
        """
        return None

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Raise one `ConfigError` that names every layer the policy does not fit."""

    @abstractmethod
    def describe(self) -> dict:
        """The policy as plain values for a report."""


# Methods that say what a policy decides; `clustering` tells it in other words.
_DECIDING = ("decide", "decide_next", "decide_given", "decide_in", "clusterer", "evidence")


def clustering_of(policy: ReusePolicy, layer: Layer, state: LayerState) -> Clustering | None:
    """How a policy clusters a layer, unless a subclass decides otherwise than it says.

    Args:
        policy: the policy.
        layer: the layer.
        state: as for `ReusePolicy.decide`.
    """
    classes = type(policy).__mro__
    written = {
        name: next(place for place, each in enumerate(classes) if name in vars(each))
        for name in ("clustering", *_DECIDING)
        if hasattr(type(policy), name)
    }
    if written["clustering"] > min(written.values()):
        return None
    return policy.clustering(layer, state)


@dataclass(frozen=True)
class NoReuse(ReusePolicy):
    """Every layer runs dense."""

    def applies_to(self, layer: Layer) -> bool:
        """To none."""
        return False

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions: the layer runs dense."""

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "none"}


def _matches(name: str, pattern: str) -> bool:
    """A layer's own name is always a pattern of it, also with brackets in it."""
    return name == pattern or fnmatchcase(name, pattern)


@dataclass(frozen=True)
class PerLayer(ReusePolicy):
    """Chooses a policy for each layer by name.

    Attributes:
        policies: shell-style pattern of layer names -> policy; the first that matches decides.
        default: policy of the layers that no pattern matches.
    """

    policies: Mapping[str, ReusePolicy]
    default: ReusePolicy = field(default_factory=NoReuse)

    def __post_init__(self) -> None:
        """Check that every policy is one."""
        patterns = self.policies if isinstance(self.policies, Mapping) else None
        if patterns is None or not all(isinstance(pattern, str) for pattern in patterns):
            raise ConfigError(
                "PerLayer.policies must be a mapping of layer patterns to policies, got "
                f"{show(self.policies)}; try {{'conv*': LshReuse(hashes=10, length=10)}}"
            )
        given = {
            f"policies[{show(pattern, str)}]": each for pattern, each in dict(self.policies).items()
        }
        broken = [
            f"PerLayer.{name} must be a policy, got {show(value)}; "
            "try LshReuse(hashes=10, length=10) or NoReuse()"
            for name, value in (given | {"default": self.default}).items()
            if not isinstance(value, ReusePolicy)
        ]
        broken += [
            f"PerLayer.{name} must decide on layers alone, got {show(value.describe())}, which "
            "decides on frames or tokens; give it alone"
            for name, value in (given | {"default": self.default}).items()
            if isinstance(value, ReusePolicy) and value.is_above_layers
        ]
        refuse(broken)

    def policy_of(self, name: str) -> ReusePolicy:
        """The policy of the layer called `name`."""
        pattern = self._pattern_of(name)
        return self.default if pattern is None else self.policies[pattern]

    def _pattern_of(self, name: str) -> str | None:
        """The first pattern that matches."""
        return next((each for each in self.policies if _matches(name, each)), None)

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Every pattern must decide a layer, and every policy fit the layers it decides."""
        names = [layer.name for layer in layers]
        broken = [
            f"PerLayer.policies pattern {show(pattern, str)} must match a layer; layers are "
            + ", ".join(names)
            for pattern in self.policies
            if not any(_matches(name, pattern) for name in names)
        ]
        deciding = {self._pattern_of(name) for name in names}
        broken += [
            f"PerLayer.policies pattern {show(pattern, str)} must decide a layer, but patterns "
            "before it match all of its own; put it before them, or leave it out"
            for pattern in self.policies
            if pattern not in deciding and any(_matches(name, pattern) for name in names)
        ]
        distinct = {id(policy): policy for policy in (*self.policies.values(), self.default)}
        for policy in distinct.values():
            try:
                policy.check_layers([x for x in layers if self.policy_of(x.name) is policy])
            except ConfigError as error:
                broken += error.violations
        refuse(broken)

    def applies_to(self, layer: Layer) -> bool:
        """As the layer's own policy."""
        return self.policy_of(layer.name).applies_to(layer)

    def needs_calibration(self, layer: Layer) -> bool:
        """As the layer's own policy."""
        return self.policy_of(layer.name).needs_calibration(layer)

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """As the layer's own policy."""
        return self.policy_of(layer.name).calibrate(layer, rows, weights)

    def weights_for(self, layer: Layer) -> str:
        """As the layer's own policy."""
        return self.policy_of(layer.name).weights_for(layer)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """As the layer's own policy."""
        return self.policy_of(layer.name).decide(layer, rows, state)

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As the layer's own policy."""
        return self.policy_of(layer.name).decide_next(layer, rows, state, memory)

    def decide_given(
        self, layer: Layer, given: Activations, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As the layer's own policy."""
        return self.policy_of(layer.name).decide_given(layer, given, state, memory)

    @property
    def looks_around(self) -> bool:
        """Where one of them does."""
        return any(each.looks_around for each in (*self.policies.values(), self.default))

    def decide_in(
        self,
        layer: Layer,
        given: Activations,
        state: LayerState,
        memory: LayerMemory | None,
        around: "Surroundings | None",
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As the layer's own policy."""
        return self.policy_of(layer.name).decide_in(layer, given, state, memory, around)

    def clustering(self, layer: Layer, state: LayerState) -> Clustering | None:
        """As the layer's own policy."""
        return clustering_of(self.policy_of(layer.name), layer, state)

    def describe(self) -> dict:
        """The policies as plain values."""
        return {
            "policy": "per_layer",
            "layers": {pattern: policy.describe() for pattern, policy in self.policies.items()},
            "default": self.default.describe(),
        }
