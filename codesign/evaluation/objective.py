"""An objective: how it reads a report, its direction, its words, and where it begins to matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np

from accelerators import ConfigError
from accelerators.rules import flag, show, text, violations
from simulator.results.stored import is_number
from simulator.results.tables import number, percent

# The least number above 0, for what can be small but never nothing.
ABOVE_0 = math.nextafter(0.0, 1.0)
# Speed and energy per image on the first images may be off by as much: fewer images share a
# layer's weights and the pipeline's filling. On 25 of 100 CIFAR-10 images, ten random designs of
# CifarNet's space were 4 to 15 % too fast and used 3 % too little to 7 % too much energy.
TIMING_TOLERANCE = 0.1
# What a study does not say of the objectives of this program.
_BUILT_IN_LEAVE = ("words", "label", "percent", "low", "high", "allowed_loss", "of_decisions")


def _unread(_report: Any) -> float:
    raise ConfigError(
        "Objective.read must be given to evaluate, got an objective that was read from a study; "
        "give search the objectives that the study began with"
    )


def _function(value: object, path: str) -> list[str]:
    if callable(value):
        return []
    return [f"{path} must be a function of a SimulationReport, got {show(value)}; give one"]


def _bound(value: object, path: str) -> list[str]:
    if is_number(value) or (type(value) is float and math.isinf(value)):
        return []
    return [f"{path} must be a number, got {show(value)}; leave it out for no bound"]


def _label(value: object, path: str) -> list[str]:
    return [] if isinstance(value, str) else [f"{path} must be a text, got {show(value)}; give one"]


def _name(value: object, path: str) -> list[str]:
    if isinstance(value, str) and value.isidentifier() and len(value) <= 100:
        return []
    return [
        f"{path} must be a name of letters, digits and underscores, got {show(value)}; use one "
        "such as 'frames_per_s'"
    ]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One number to make large or small.

    Attributes:
        name: key in `Trial.values`, and column of the CSV.
        words: what it is, in a sentence or on an axis: "speed".
        unit: unit and baseline, for axes and tables: "x of a dense design of equal area".
        maximise: whether more is better.
        read: the value of a `SimulationReport`, finite. An error in it makes a failed trial.
        label: the unit as pages write it, if otherwise.
        percent: whether it is a fraction of 1 that pages tell in percent.
        low: the least value that can be; the study of a smaller one is damaged.
        high: the largest likewise.
        allowed_loss: how much worse than dense a design may be and still be said to pay. What may
            be worse is what reuse pays with.
        of_decisions: whether it is a fraction of the answers, which the decisions alone change, not
            the hardware.
    """

    name: str = field(metadata={"rule": _name})
    words: str = field(metadata=text(60, "frames per second"))
    unit: str = field(metadata=text(60, "frames per second"))
    maximise: bool = field(metadata=flag())
    read: Callable[[Any], float] = field(default=_unread, metadata={"rule": _function})
    label: str = field(default="", metadata={"rule": _label})
    percent: bool = field(default=False, metadata=flag())
    low: float = field(default=-math.inf, metadata={"rule": _bound})
    high: float = field(default=math.inf, metadata={"rule": _bound})
    allowed_loss: float = field(default=0.0, metadata={"rule": _bound})
    of_decisions: bool = field(default=False, metadata=flag())

    def __post_init__(self) -> None:
        if problems := violations(self, "Objective"):
            raise ConfigError(problems)

    @property
    def sense(self) -> str:
        """What the design that is best in it is called, as a key."""
        return f"best_{self.name}"

    @property
    def sense_words(self) -> str:
        """The same in a heading."""
        return f"Best {self.short}"

    @property
    def heading(self) -> str:
        """What it is, with a capital."""
        return self.short[0].upper() + self.short[1:]

    @property
    def column(self) -> str:
        """Its column in the CSV."""
        return self.name

    @property
    def shown_unit(self) -> str:
        """The unit in a heading."""
        return "%" if self.percent else self.label or self.unit

    @property
    def short(self) -> str:
        """What it is, without an explanation in brackets."""
        return self.words.split(" (")[0]

    @property
    def axis(self) -> str:
        """Title of an axis."""
        return f"% {self.words}" if self.percent else f"{self.words}, {self.shown_unit}"

    @property
    def factor(self) -> float:
        """What a value is multiplied by to be shown."""
        return 100.0 if self.percent else 1.0

    @property
    def gain(self) -> str:
        """What is gained by it, in words."""
        return self.short if self.maximise else f"{self.short} saved"

    def cell(self, value: float) -> Any:
        """A value in a table whose heading tells the unit."""
        return percent(value) if self.percent else value

    def told(self, value: float) -> str:
        """A value with its unit."""
        return f"{percent(value)} %" if self.percent else f"{number(value)} {self.shown_unit}"

    def holds(self, value: Any) -> bool:
        """Whether it is a value that can be."""
        return is_number(value, self.low, self.high)

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        if self.low == ABOVE_0:
            return f"{self.short} above 0"
        bounds = [f"at least {self.low:g}"] if self.low > -math.inf else []
        bounds += [f"at most {self.high:g}"] if self.high < math.inf else []
        return f"{self.short} of {' and '.join(bounds)}" if bounds else f"a {self.short}"

    def recalled(self, _summary: Mapping[str, Any]) -> float | None:
        """The value as a stored simulation says it, where it does."""
        return None

    def reference(self, baseline: float) -> float:
        """Where a value begins to be of any interest: none of the gain, or twice the cost."""
        return baseline + (-1 if self.maximise else 1) * abs(baseline)

    def paying(self, baseline: float) -> float:
        """Where reuse begins to pay: the baseline, worse by what may be lost."""
        return baseline + (-1 if self.maximise else 1) * self.allowed_loss

    def interesting(self, baseline: float) -> float:
        """Where an optimiser that wants designs that pay shall look on."""
        return self.reference(baseline) if self.allowed_loss else baseline

    def scale(self, baseline: float) -> float:
        """The unit of hypervolumes: the baseline, but for fractions."""
        return 1.0 if self.percent else abs(baseline) or 1.0

    def hoped(self, value: float) -> float:
        """The best that a value on few images may be on all, but for what counts answers."""
        is_more = self.maximise == (value >= 0)
        return value * (1 + TIMING_TOLERANCE if is_more else 1 - TIMING_TOLERANCE)

    def best(self, values: Sequence[float]) -> float:
        """The best of some values."""
        return max(values) if self.maximise else min(values)

    def to_dict(self) -> dict[str, Any]:
        """All but how it is read, as a study keeps it: what is as usual is left out."""
        usual = ("read", *(_BUILT_IN_LEAVE if type(self) is not Objective else ()))
        return {
            each.name: getattr(self, each.name)
            for each in fields(Objective)
            if each.name not in usual
            and (each.default is MISSING or getattr(self, each.name) != each.default)
        }


def values_of(each: Mapping[str, float], objectives: Sequence[Objective]) -> list[float]:
    """Values in the order of the objectives."""
    return [each[objective.name] for objective in objectives]


def points_of(rows: Sequence[Mapping[str, float]], objectives: Sequence[Objective]) -> np.ndarray:
    """`(rows, objectives)` float64 values."""
    points = [values_of(each, objectives) for each in rows]
    return np.array(points, dtype=np.float64).reshape(len(points), len(objectives))


def directions_of(objectives: Sequence[Objective]) -> list[bool]:
    """For each objective, whether more is better."""
    return [objective.maximise for objective in objectives]
