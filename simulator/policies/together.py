"""Two techniques on one layer: the second decides on what the first one leaves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, show
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Static
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import layer_of_rows, left_of, shares_whole_rows
from simulator.decisions.rows import FilledRows, KeptRows, SharedRows
from simulator.decisions.tokens import TokenPlan
from simulator.policies.activations import Activations
from simulator.policies.answered_regions import AnsweredRegions
from simulator.policies.clustering import Clustering
from simulator.policies.policy import (
    LayerMemory,
    LayerState,
    ReadWeights,
    ReusePolicy,
    clustering_of,
)
from workloads.traces.layer import Layer

if TYPE_CHECKING:
    from simulator.policies.surroundings import Surroundings
    from workloads.traces.trace import WorkloadTrace

# Before the names of what each of the two learned, or keeps.
_FIRST, _SECOND = "first.", "second."


@dataclass(frozen=True)
class Together(ReusePolicy):
    """The second technique decides on what the first one leaves of a layer.

    The order is that of the box: frames and tokens, rows, columns, depth, weights. So the first
    may be above the layers (key frames, say), and the second then decides in the frames that run;
    or it keeps, fills in or shares rows, and the second sees a product of the rows that are left.
    Rows that are kept or filled in leave rows that may be shared, and those that are filled in
    rows that may be kept, or added to earlier results; any rows leave columns, depth and weights to
    decide on. A convolution's rows that are left have no places in a picture any more: the second
    can't look once, and their columns are in the order (c, kh, kw). Where images are left with
    different rows, clusters of the second don't tell images apart: use tiles of rows.

    A sum that the second ends gives 0 after the ReLU that follows. Where the first fills rows in
    from means of several, which are taken before it, such a mean is another one, even if sums end
    exactly. Behind another technique, changes do not pass the lists of changed positions on.

    `Together(Together(a, b), c)` would leave open what c sees; nest the second:
    `Together(a, Together(b, c))`.

    Attributes:
        first: decides first.
        second: decides on what is left.

    Raises:
        ConfigError: at construction, where one is no policy, or they are in the wrong order; at
            `decide`, where what they decide has no meaning together, naming the layer.
    """

    first: ReusePolicy
    second: ReusePolicy

    def __post_init__(self) -> None:
        """Two policies, of which the second is of layers."""
        given = {"first": self.first, "second": self.second}
        refuse(
            [
                f"Together.{name} must be a policy, got {show(value)}; "
                "try LshReuse(hashes=10, length=10)"
                for name, value in given.items()
                if not isinstance(value, ReusePolicy)
            ]
        )
        if self.second.is_above_layers:
            raise ConfigError(
                f"Together.second must decide on layers, got {_called(self.second)}, which decides "
                "on frames or tokens; give it as the first"
            )
        if isinstance(self.second, AnsweredRegions):
            raise ConfigError(
                "Together.second must not be of regions from the last answer, which are found in "
                "the whole network's frames, got AnsweredRegions; give it as the first"
            )
        if isinstance(self.first, Together):
            raise ConfigError(
                "Together.first must be a single technique, got two of them; give the last two as "
                "the second: Together(a, Together(b, c))"
            )

    @property
    def is_above_layers(self) -> bool:
        """As the first."""
        return self.first.is_above_layers

    def frames(self, trace: "WorkloadTrace") -> FrameDecisions | None:
        """As the first."""
        return self.first.frames(trace)

    def tokens(self, trace: "WorkloadTrace") -> TokenPlan | None:
        """As the first."""
        return self.first.tokens(trace)

    def applies_to(self, layer: Layer) -> bool:
        """Where one of them does."""
        return self.first.applies_to(layer) or self.second.applies_to(self._seen(layer))

    def needs_calibration(self, layer: Layer) -> bool:
        """Where one of them does."""
        seen = self._seen(layer)
        first = self.first.applies_to(layer) and self.first.needs_calibration(layer)
        return first or (self.second.applies_to(seen) and self.second.needs_calibration(seen))

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """What each learns of all rows."""
        learned: dict[str, np.ndarray] = {}
        for prefix, policy, seen in (
            (_FIRST, self.first, layer),
            (_SECOND, self.second, self._seen(layer)),
        ):
            if policy.applies_to(seen):
                made = policy.calibrate(seen, rows, weights)
                learned |= {f"{prefix}{name}": array for name, array in made.items()}
        return learned

    def weights_for(self, layer: Layer) -> str:
        """As of the one that learns from another layer's, if any does."""
        seen = self._seen(layer)
        names = (self.first.weights_for(layer), self.second.weights_for(seen))
        return next((name for name in names if name != layer.name), layer.name)

    def clustering(self, layer: Layer, state: LayerState) -> Clustering | None:
        """As the second's, of a layer that the first leaves whole."""
        if self.first.applies_to(layer) or not self.second.applies_to(layer):
            return None
        return clustering_of(self.second, layer, _of(_SECOND, state))

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Each must fit the layers that it decides on, as it sees them."""
        broken: list[str] = []
        # What is above applies to none, and names layers; it leaves all of them to the second.
        above = self.is_above_layers
        for policy, seen in (
            (self.first, list(layers)),
            (self.second, [self._seen(layer) for layer in layers]),
        ):
            try:
                policy.check_layers([each for each in seen if above or policy.applies_to(each)])
            except ConfigError as error:
                broken += error.violations
        refuse(broken)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """As for the first batch of a stream."""
        return self.decide_next(layer, rows, state, None)[0]

    @property
    def looks_around(self) -> bool:
        """As the first; what it leaves lies nowhere."""
        return self.first.looks_around

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """The first's decisions, with the second's on what they leave."""
        first: tuple[Decisions | None, LayerMemory | None] = None, None
        if self.first.applies_to(layer):
            own = _of(_FIRST, state), _memory(_FIRST, memory)
            first = self.first.decide_next(layer, rows, *own)
        return self._with_second(layer, rows, state, memory, first)

    def decide_in(
        self,
        layer: Layer,
        given: Activations,
        state: LayerState,
        memory: LayerMemory | None,
        around: "Surroundings | None",
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """The same; the first may look around."""
        first: tuple[Decisions | None, LayerMemory | None] = None, None
        if self.first.applies_to(layer):
            own = _of(_FIRST, state), _memory(_FIRST, memory)
            first = self.first.decide_in(layer, given, *own, around)
        return self._with_second(layer, given.rows, state, memory, first)

    def _with_second(
        self,
        layer: Layer,
        rows: np.ndarray,
        state: LayerState,
        memory: LayerMemory | None,
        first: tuple[Decisions | None, LayerMemory | None],
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """What the first decided and keeps, with the second's on what that leaves."""
        made, own = first
        kept = {f"{_FIRST}{name}": array for name, array in (own or {}).items()}
        before = _memory(_SECOND, memory) or None
        if made is not None and isinstance(made.rows, KeptRows) and made.rows.kept.all():
            own = before  # nothing is left to decide on
        else:
            seen, left = self._left(layer, rows, made)
            own = None
            if self.second.applies_to(seen):
                then, own = self.second.decide_next(seen, left, _of(_SECOND, state), before)
                made = self._joined(layer, made, then)
        kept |= {f"{_SECOND}{name}": array for name, array in (own or {}).items()}
        return made, kept or None

    def describe(self) -> dict:
        """Both as plain values."""
        return {
            "policy": "together",
            "first": self.first.describe(),
            "second": self.second.describe(),
        }

    def _seen(self, layer: Layer) -> Layer:
        """A layer as the second sees it, with all its rows."""
        return layer_of_rows(layer) if self.first.applies_to(layer) else layer

    def _left(
        self, layer: Layer, rows: np.ndarray, made: Decisions | None
    ) -> tuple[Layer, np.ndarray]:
        """The layer that the first leaves, and its rows."""
        if made is None or made.rows is None:
            return self._seen(layer), rows
        if isinstance(made.rows, SharedRows):
            if not shares_whole_rows(made.rows):
                return self._seen(layer), rows
            assert made.rows.centroids is not None
            return layer_of_rows(layer, made.rows), made.rows.centroids[None]
        if isinstance(made.rows, IncrementalRows):
            return self._seen(layer), rows
        return layer_of_rows(layer, made.rows), left_of(layer.name, made.rows, rows)

    def _joined(
        self, layer: Layer, made: Decisions | None, then: Decisions | None
    ) -> Decisions | None:
        """Both decisions as one.

        Raises:
            ConfigError: they have no meaning together.
        """
        if made is None or then is None:
            return then if made is None else made
        rows, next_rows = made.rows, then.rows
        fix = "change their order, or use one of them alone"
        if rows is None or made.columns is not None or made.depth is not None:
            problem = "decide on rows, of which columns, depth and weights are left"
        elif isinstance(rows, SharedRows) and not shares_whole_rows(rows):
            alone = next_rows is None and then.depth is None and then.then is None
            if alone and isinstance(then.evidence, Static) and then.columns is not None:
                return replace(made, columns=then.columns)
            problem = "share whole rows, unless the second drops columns beforehand"
            fix = "give the first length=None, or use one of them alone"
        elif next_rows is None or isinstance(next_rows, _MAY_FOLLOW.get(type(rows), ())):
            return replace(made, then=then)
        else:
            problem = f"leave rows for which {type(next_rows).__name__} have a meaning"
        raise ConfigError(
            f"Together.first must {problem}, got {_called(self.first)} before "
            f"{_called(self.second)} in layer {layer.name!r}; {fix}"
        )


def _called(policy: ReusePolicy) -> str:
    """What a policy calls itself."""
    return str(policy.describe().get("policy", type(policy).__name__))


# Decisions on rows -> what may be decided on the rows that they leave.
_MAY_FOLLOW: dict[type, tuple[type, ...]] = {
    KeptRows: (SharedRows,),
    FilledRows: (SharedRows, KeptRows, IncrementalRows),
}


def _of(prefix: str, arrays: LayerState) -> LayerState:
    """What belongs to one of the two."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _memory(prefix: str, memory: LayerMemory | None) -> LayerMemory | None:
    """What one of the two kept, `None` before the first batch."""
    return None if memory is None else _of(prefix, memory)
