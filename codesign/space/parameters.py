"""What a search chooses from: the parameters of hardware and of a layer's reuse."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from accelerators import FOLD_TIMINGS, PROJECTIONS, Accelerator, ConfigError
from codesign.space.checks import SEARCHED_UNITS, has_searched_units
from workloads.errors import show
from workloads.traces.layer import Layer, is_name
from workloads.traces.trace import WorkloadTrace

KIB = 1024
BUFFERS = ("activation_buffer", "weight_buffer", "output_buffer", "centroid_buffer")

HASHES = tuple(range(4, 21))
SHORTEST, LONGEST = 4, 64
_MOST_CHOICES = 1000
COMMON_LENGTHS = (5, 8, 10, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One thing the search chooses.

    Attributes:
        name: where it goes, such as `array.rows` or `conv2.hashes`.
        choices: its values; from small to large where `ordered`.
        ordered: whether neighbours in `choices` are alike. The optimiser sees their positions.
    """

    name: str
    choices: tuple[Any, ...]
    ordered: bool = True

    def __post_init__(self) -> None:
        problems = []
        if not is_name(self.name):
            problems.append(
                f"Parameter.name must be a text of printable characters, got {show(self.name)}; "
                "use one such as 'array.rows'"
            )
        if type(self.ordered) is not bool:
            problems.append(
                f"Parameter.ordered must be True or False, got {show(self.ordered)}; use one"
            )
        if not isinstance(self.choices, tuple | list | range) or not self.choices:
            problems.append(
                f"Parameter.choices must be a tuple of values, got {show(self.choices)}; "
                "give them as in (8, 16, 32)"
            )
        elif not all(_is_plain(choice) for choice in self.choices):
            problems.append(
                "Parameter.choices must be texts, numbers, True, False or None, got "
                f"{show(self.choices)}; leave out the others"
            )
        elif len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            problems.append(
                f"Parameter.choices must be different, got {show(self.choices)}; name each once"
            )
        elif self.ordered is True and not _is_ascending(self.choices):
            problems.append(
                "Parameter.choices must be numbers from small to large where ordered, got "
                f"{show(self.choices)}; sort them, or use ordered=False"
            )
        if problems:
            raise ConfigError(problems)
        object.__setattr__(self, "choices", tuple(self.choices))

    @classmethod
    def of(cls, name: str, choices: Any) -> Parameter:
        """The parameter of these choices: ordered, if they are numbers from small to large."""
        ordered = isinstance(choices, Sequence) and _is_ascending(choices)
        return cls(name=name, choices=choices, ordered=ordered)

    def to_dict(self) -> dict[str, Any]:
        """The parameter as plain values, to be stored with a study."""
        return {"name": self.name, "choices": list(self.choices), "ordered": self.ordered}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Parameter:
        """The parameter that `to_dict` described."""
        return cls(name=given["name"], choices=tuple(given["choices"]), ordered=given["ordered"])

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna samples: a position in `choices`, or a choice."""
        if self.ordered:
            return IntDistribution(0, len(self.choices) - 1)
        return CategoricalDistribution(self.choices)

    def encode(self, value: Any) -> Any:
        """The value as Optuna stores it.

        Raises:
            ConfigError: the value is not one of the choices.
        """
        if not _is_plain(value) or value not in self.choices:
            raise ConfigError(
                f"parameter {self.name!r} must be one of {show(self.choices)}, got {show(value)}; "
                "use one of these"
            )
        return self.choices.index(value) if self.ordered else value

    def decode(self, stored: Any) -> Any:
        """The value of what Optuna stores."""
        return self.choices[stored] if self.ordered else stored

    def nearest(self, value: Any) -> Any:
        """The choice closest to a value: itself, the next number, or the first choice."""
        if value in self.choices:
            return value
        if not self.ordered or isinstance(value, str | None):
            return self.choices[0]
        return min(self.choices, key=lambda choice: abs(choice - value))

    def beside(self, value: Any, near: bool, rng: np.random.Generator) -> Any:
        """Another choice: one of the two next to the value where `near` and ordered, or any."""
        position = self.choices.index(value)
        others = [other for other in range(len(self.choices)) if other != position]
        if near and self.ordered:
            others = [other for other in others if abs(other - position) == 1]
        return self.choices[others[rng.integers(len(others))]]

    def problems(self, values: Any, *, known: bool = False) -> list[str]:
        """Rules that other choices for this parameter break.

        Args:
            values: the other choices.
            known: whether there are no values but the parameter's own choices.
        """
        path = f"space.parameters.{self.name!r}"
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            return [
                f"{path} must be a list of its choices, got {show(values)}; write it in brackets"
            ]
        if known or not self.ordered:
            # By kind too: False is not the position 0.
            own = [(type(choice), choice) for choice in self.choices]
            given = [(type(value), value) for value in values]
            if any(value not in own or given.count(value) > 1 for value in given):
                return [
                    f"{path} must be some of {list(self.choices)}, each once, got {list(values)}; "
                    "leave out the others"
                ]
            if self.ordered and list(values) != sorted(values):
                return [f"{path} must be from small to large, got {list(values)}; sort them"]
            return []
        kinds: tuple[type, ...] = (int,)
        words, least = "integers of at least 1", 1.0
        if any(isinstance(choice, float) for choice in self.choices):
            kinds, words, least = (int, float), "numbers above 0", math.ulp(0)
        numbers = all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
        if not numbers or not _is_ascending(values) or not least <= values[0] < math.inf:
            return [f"{path} must be {words} from small to large, got {list(values)}; sort them"]
        return []


def _is_plain(value: object) -> bool:
    """Whether a journal and a report can hold a value: one text or number, or nothing."""
    if isinstance(value, float):
        return math.isfinite(value)
    if type(value) is int:
        return abs(value) < 2**63
    return value is None or isinstance(value, str | bool | np.integer | np.bool_)


def _is_ascending(values: Sequence[Any]) -> bool:
    numbers = not any(value is None or isinstance(value, str | bool) for value in values)
    return numbers and all(low < high for low, high in pairwise(values))


class ParameterSpace:
    """What trials choose from.

    Attributes:
        parameters: what is chosen.
    """

    parameters: tuple[Parameter, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Name -> what Optuna samples."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as Optuna stores them."""
        return {p.name: p.encode(values[p.name]) for p in self.parameters}

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Values of what Optuna stores."""
        return {p.name: p.decode(stored[p.name]) for p in self.parameters}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """When a parameter has an effect.

    Attributes:
        on: other parameters, categories.
        values: what one of them must be, as Optuna stores it.
        otherwise: what the parameter is set to where none of them is, as Optuna stores it.
    """

    on: tuple[str, ...]
    values: tuple[Any, ...]
    otherwise: Any

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the parameter has an effect beside other parameters' values."""
        return any(chosen[name] in self.values for name in self.on)


def reusable_layers(trace: WorkloadTrace, top: int) -> list[Layer]:
    """The layers with the most multiplications among those with rows to share, in call order."""
    able = [layer for layer in trace.layers if layer.gemm.m > layer.row_images]
    if not able:
        raise ConfigError(
            "workload must have a layer with several rows per image, such as a convolution, to "
            f"reuse results; got {', '.join(layer.name for layer in trace.layers)}"
        )
    largest = sorted(able, key=lambda layer: -layer.gemm.macs)[:top]
    return [layer for layer in able if layer in largest]


def layer_parameters(layer: Layer, *, may_run_dense: bool) -> list[Parameter]:
    """Whether a layer reuses, with how many hashes and how long sub-vectors.

    Lengths are the divisors of k and a few common ones, from 4 to 64.
    """
    k = layer.gemm.k
    longest = min(k, LONGEST)
    divisors = {length for length in range(SHORTEST, longest + 1) if k % length == 0}
    lengths = sorted(divisors | {length for length in COMMON_LENGTHS if length <= longest}) or [k]
    return [
        Parameter(
            name=f"{layer.name}.reuse",
            choices=(False, True) if may_run_dense else (True,),
            ordered=False,
        ),
        Parameter(name=f"{layer.name}.hashes", choices=HASHES),
        Parameter(name=f"{layer.name}.length", choices=tuple(lengths)),
    ]


def _powers(low: int, high: int) -> tuple[int, ...]:
    """Powers of two from `low` to `high`."""
    return tuple(1 << bit for bit in range(low.bit_length() - 1, high.bit_length()))


def hardware_parameters(base: Accelerator) -> list[Parameter]:
    """Hardware choices, the base design's own among them."""
    choices: dict[str, tuple[int, ...]] = {
        "array.rows": (8, 16, 32),
        "array.columns": (8, 16, 32, 64),
        **{f"{name}.kib": _powers(16, 512) for name in BUFFERS},
        "cache.entries": _powers(256, 8192),
        "cache.ways": _powers(1, 16),
        "cache.banks": _powers(1, 8),
        "cache.clear_entries_per_cycle": (1, 16, 256),
        "front_end.lanes": _powers(1, 8),
        # Of all ports together; 128 sums of 32 bits are as wide as a buffer can be.
        "reconstructor.sums_per_cycle": (16, 32, 64, 128),
    }
    own = hardware_values(base)
    parameters = [
        Parameter(name=name, choices=tuple(sorted({*values, own[name]})))
        for name, values in choices.items()
        if name in own
    ]
    for name, kinds in (
        ("array.fold_timing", FOLD_TIMINGS),
        ("front_end.projection", PROJECTIONS),
    ):
        if name in own:
            parameters.append(Parameter(name=name, choices=kinds, ordered=False))
    return parameters


def hardware_values(base: Accelerator) -> dict[str, Any]:
    """The values of the base design; buffers rounded up to whole KiB."""
    usual = {
        "array.rows": base.array.rows,
        "array.columns": base.array.columns,
        "array.fold_timing": base.array.fold_timing,
        **{
            f"{name}.kib": -(-getattr(base, name).capacity_bytes // KIB)
            for name in BUFFERS
            if name not in SEARCHED_UNITS
        },
    }
    if not has_searched_units(base):
        return usual
    assert base.front_end and base.cache and base.centroid_buffer and base.reconstructor
    return usual | {
        "centroid_buffer.kib": -(-base.centroid_buffer.capacity_bytes // KIB),
        "cache.entries": base.cache.entries,
        "cache.ways": base.cache.ways,
        "cache.banks": base.cache.banks,
        "cache.clear_entries_per_cycle": base.cache.clear_entries_per_cycle,
        "front_end.lanes": base.front_end.lanes,
        "front_end.projection": base.front_end.projection,
        "reconstructor.sums_per_cycle": base.reconstructor.ports * base.reconstructor.width,
    }


def read_choices(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Parameter -> choices of `NAME=VALUE,VALUE,...` or, of whole numbers, `NAME=LOW..HIGH` each.

    Raises:
        ConfigError: a text is malformed, or names a parameter again.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        parts = [part.strip() for part in values.split(",")]
        if not separator or not name or not all(parts) or name in found:
            raise ConfigError(
                f"--parameter must be NAME=VALUE,VALUE or NAME=LOW..HIGH, each name once, got "
                f"{text!r}; write for example --parameter front_end.lanes=1,2,4"
            )
        bounds = re.fullmatch(r"(-?\d{1,9})\.\.(-?\d{1,9})", values.strip())
        if bounds and int(bounds[2]) - int(bounds[1]) >= _MOST_CHOICES:
            raise ConfigError(
                f"--parameter {name} must have at most {_MOST_CHOICES} choices, got {values!r}; "
                "name some of them"
            )
        found[name] = (
            tuple(range(int(bounds[1]), int(bounds[2]) + 1))
            if bounds
            else tuple(map(_literal, parts))
        )
    return found


def _literal(text: str) -> Any:
    """A whole number, a number, true or false, or else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
