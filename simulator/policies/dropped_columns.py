"""Columns that are dropped for good: filters whose channel is 0, whatever the input."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import real, refuse, show, true_of, violations
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReadWeights, ReusePolicy
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer


def _are_numbers(value: object) -> bool:
    """Whether these are numbers of columns for each layer."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and isinstance(numbers, Sequence)
        and all(type(number) is int and number >= 0 for number in numbers)
        for name, numbers in value.items()
    )


@dataclass(frozen=True, kw_only=True)
class DroppedColumns(ReusePolicy):
    """Some columns of a layer's product are not computed and are 0, for every input.

    Structured pruning as a decision: a filter is left out where its weights are small (Li et al.,
    "Pruning filters for efficient ConvNets", ICLR 2017, section 3.1: by their sum of magnitudes) or
    where a list says so. Nothing is trained again.

    Attributes:
        fraction: of a layer's columns that are dropped, 0 to 1, those of the least sum of absolute
            weights, rounded down; at least one column stays. They are learned by `calibrate`.
        columns: layer name -> numbers of the columns that are dropped instead.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where a layer has no
            such column or activations are not finite, naming the layer.
    """

    fraction: float = field(default=0.0, metadata=real(0, 1))
    columns: Mapping[str, Sequence[int]] = field(
        default_factory=dict,
        metadata=true_of(_are_numbers, "map layers to numbers of columns", "try {'fc': (0,)}"),
    )

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "DroppedColumns"))
        columns = {name: tuple(numbers) for name, numbers in self.columns.items()}
        object.__setattr__(self, "columns", columns)

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """A layer must have the columns that are listed for it."""
        broken = [
            f"DroppedColumns.columns of layer {layer.name!r} must be less than n={layer.gemm.n}, "
            f"got {max(self.columns[layer.name])}; name columns that it has"
            for layer in layers
            if max(self.columns.get(layer.name, ()), default=-1) >= layer.gemm.n
        ]
        refuse(broken)

    def needs_calibration(self, layer: Layer) -> bool:
        """Weights tell which columns are small."""
        return layer.name not in self.columns and self._number_in(layer) > 0

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """`magnitudes` `(n,)`, the sum of each column's absolute weights over all GEMMs."""
        check_activations(layer, rows)
        if weights is None:
            raise ConfigError(
                f"weights of layer {layer.name!r} must be given to rank DroppedColumns, got none; "
                "pass them to calibrate()"
            )
        return {"magnitudes": np.abs(weights()).sum(axis=(0, 1), dtype=np.float64)}

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same columns for every input; `None` where none is dropped."""
        self.check_layers([layer])
        check_activations(layer, rows)
        dropped = self._dropped(layer, state)
        if not dropped.size:
            return None
        sources = np.arange(layer.gemm.n)
        sources[dropped] = DROPPED
        columns = ColumnDecisions(gemm=layer.gemm, sources=sources[None])
        return Decisions(layer=layer.name, gemm=layer.gemm, columns=columns)

    def _number_in(self, layer: Layer) -> int:
        """How many columns of a layer the fraction is."""
        return min(int(self.fraction * layer.gemm.n), layer.gemm.n - 1)

    def _dropped(self, layer: Layer, state: LayerState) -> np.ndarray:
        """Numbers of the columns that are dropped."""
        if layer.name in self.columns:
            return np.array(self.columns[layer.name], np.int64)
        number = self._number_in(layer)
        if not number:
            return np.empty(0, np.int64)
        magnitudes = state.get("magnitudes")
        if magnitudes is None or magnitudes.shape != (layer.gemm.n,):
            raise ConfigError(
                f"calibration of layer {layer.name!r} must hold arrays "
                f"{{'magnitudes': ({layer.gemm.n},)}}, got {show(dict(state))}; calibrate with the "
                "same policy"
            )
        return np.argsort(magnitudes, kind="stable")[:number]

    def describe(self) -> dict:
        """The policy as plain values."""
        columns = {name: list(numbers) for name, numbers in self.columns.items()}
        return {"policy": "dropped_columns", **asdict(self), "columns": columns}


register(
    Technique(
        name="dropped_columns",
        title="filter pruning",
        axis="columns",
        word="skip",
        grain="column",
        rule="Filters of the least sum of absolute weights are left out for every input.",
        evidence="nothing: static",
        source="Li et al., Pruning filters for efficient ConvNets, ICLR 2017",
        policy=DroppedColumns,
        choices={"fraction": (0.125, 0.25, 0.375, 0.5, 0.75)},
        start={"fraction": 0.25},
        own=("fraction",),
    )
)
