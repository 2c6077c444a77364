"""What a search makes large or small: an objective reads a report and knows how it is told.

An objective is one entry here, or one `Objective` in a user's file; the evaluator, the optimisers,
what is stored, tables, plots and words ask it, and nothing else knows its name.
"""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError
from accelerators.rules import choose, flag, show, text, violations
from codesign.space.users_file import is_in_file, users_object
from simulator import SimulationReport
from simulator.pages.page import number, percent
from simulator.results.differences import ACCURACY_DROP, AGREEMENTS, ratio_text
from simulator.results.lookup import given_design
from simulator.stored_report import is_number

# The least number above 0, for what can be small but never nothing.
_ABOVE_0 = math.nextafter(0.0, 1.0)
# Speed and energy per image on the first images may be off by as much: fewer images share a
# layer's weights and the pipeline's filling. On 25 of 100 CIFAR-10 images, ten random designs of
# CifarNet's space were 4 to 15 % too fast and used 3 % too little to 7 % too much energy.
TIMING_TOLERANCE = 0.1
# What every search must weigh: what reuse pays with.
ACCURACY = "accuracy"


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
    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        return []
    return [f"{path} must be a number, got {show(value)}; leave it out for no bound"]


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
    label: str = ""
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
        if self.low == _ABOVE_0:
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


# What a study does not say of the objectives of this program.
_BUILT_IN_LEAVE = ("words", "label", "percent", "low", "high", "allowed_loss", "of_decisions")


class _Speedup(Objective):
    sense, sense_words, column = "fastest", "Fastest", "speedup_equal_area"

    def cell(self, value: float) -> Any:
        return ratio_text(value)

    def told(self, value: float) -> str:
        return f"{ratio_text(value)}×"

    def recalled(self, summary: Mapping[str, Any]) -> float | None:
        return summary["speedup_equal_area"]


class _Energy(Objective):
    sense, sense_words = "least_energy", "Least energy"

    def told(self, value: float) -> str:
        return f"{number(value)} µJ"

    def recalled(self, summary: Mapping[str, Any]) -> float | None:
        return given_design(summary)["energy_uj_per_image"]


@dataclass(frozen=True, kw_only=True)
class Accuracy(Objective):
    """What the objective `accuracy` is of a workload.

    Attributes:
        quality: key of `QUALITIES`.
        meaning: what it measures, for the record.
        phrase: what it measures in a sentence, after "with 97.0 %".
    """

    sense, sense_words = "most_accurate", "Most accurate"

    name: str = ACCURACY
    unit: str = "fraction of images"
    maximise: bool = True
    percent: bool = True
    low: float = 0.0
    high: float = 1.0
    allowed_loss: float = ACCURACY_DROP
    of_decisions: bool = True
    quality: str
    meaning: str
    phrase: str

    @property
    def column(self) -> str:
        """Told by what it measures."""
        return self.quality

    def recalled(self, summary: Mapping[str, Any]) -> float | None:
        """As the simulation says it; of layers it says nothing."""
        if self.quality == "fidelity":
            return None
        return summary["agreement" if self.quality in AGREEMENTS else "accuracy"]


def _known(quality: str, found: float | None, report: SimulationReport) -> float:
    """What is known only where the model's answers could be judged."""
    if found is None:
        raise ValueError(f"the {quality} of the outputs must be known, got none: {report.unjudged}")
    return found


def _of_labels(quality: str, report: SimulationReport) -> float:
    return _known(quality, report.accuracy, report)


def _of_dense(quality: str, report: SimulationReport) -> float:
    return _known(quality, report.agreement, report)


def _of_outputs(report: SimulationReport) -> float:
    error = report.output_error
    return _known("output_fidelity", None if error is None else max(0.0, 1.0 - error), report)


def _of_layers(report: SimulationReport) -> float:
    """One less the mean error of the layers that reuse."""
    errors = [layer.relative_mse for layer in report.reuse.layers if layer.relative_mse is not None]
    return 1.0 - sum(errors) / len(errors) if errors else 1.0


def _quality(quality: str, words: str, phrase: str, meaning: str, **others: Any) -> Accuracy:
    read = partial(_of_dense if quality in AGREEMENTS else _of_labels, quality)
    told = {"quality": quality, "words": words, "phrase": phrase, "meaning": meaning}
    return Accuracy(**{"read": read, **told, **others})


_AGREEMENT = "agreement with the dense model"
# What the objective `accuracy` can be.
QUALITIES: Mapping[str, Accuracy] = {
    each.quality: each
    for each in (
        _quality(
            "accuracy", "accuracy", "of images labelled right",
            "fraction of images classified as labelled",
        ),
        _quality(
            "miou", "mean IoU", "mean intersection over union",
            "mean intersection over union with the labels",
        ),
        _quality("f1", "F1", "F1 of lane pixels", "F1 of the labelled lane pixels"),
        _quality(
            "agreement", _AGREEMENT, "of images answered as by the dense model",
            "fraction of images classified as the dense model does",
        ),
        _quality(
            "pixel_agreement", _AGREEMENT, "of pixels answered as by the dense model",
            "fraction of pixels classified as the dense model does",
        ),
        _quality(
            "position_agreement", _AGREEMENT, "of positions answered as by the dense model",
            "fraction of positions classified as the dense model does",
        ),
        _quality(
            "score", "score", "by the score that the workload names",
            "score by the function that the workload names",
        ),
        _quality(
            "output_fidelity", "fidelity of the outputs (1 - relative squared error)",
            "of the outputs kept (1 - relative squared error)",
            "1 - relative squared error of the judged output, at least 0",
            read=_of_outputs,
        ),
        _quality(
            "fidelity", "fidelity (1 - relative squared error)",
            "of layer results kept (1 - relative squared error)",
            "1 - mean over layers of the relative squared error",
            low=-math.inf, read=_of_layers,
        ),
    )
}  # fmt: skip


def _speedup(report: SimulationReport) -> float:
    return report.speedup_equal_area


def _energy(report: SimulationReport) -> float:
    return report.reuse.energy_uj_per_image


# What is searched unless others are given.
OBJECTIVES: tuple[Objective, ...] = (
    _Speedup(
        name="speedup",
        words="speed",
        unit="x of a dense design of equal area",
        label="× dense, equal area",
        maximise=True,
        low=_ABOVE_0,
        read=_speedup,
    ),
    _Energy(
        name="energy_uj_per_image",
        words="energy",
        unit="uJ per image",
        label="µJ per image",
        maximise=False,
        low=_ABOVE_0,
        read=_energy,
    ),
    QUALITIES[ACCURACY],
)
_BUILT_IN = {objective.name: objective for objective in OBJECTIVES}


def of_quality(objectives: Sequence[Objective], quality: str) -> tuple[Objective, ...]:
    """The objectives for a workload whose accuracy is of that kind."""
    return tuple(QUALITIES[quality] if each.name == ACCURACY else each for each in objectives)


def stored_objectives(stored: Sequence[Mapping[str, Any]], quality: str) -> tuple[Objective, ...]:
    """The objectives that `Objective.to_dict` described; those of a user's cannot read.

    Raises:
        ConfigError: one breaks a rule, or is not that of this program which has its name.
    """
    found = []
    for each in stored:
        try:
            found.append(_BUILT_IN.get(each.get("name", "")) or Objective(**each))
        except TypeError as error:
            raise ConfigError(f"objectives must be those of a search, got {show(each)}") from error
        if found[-1].to_dict() != each:
            raise ConfigError(f"objectives must be as this program writes them, got {show(each)}")
    if problems := objective_problems(found):
        raise ConfigError(problems)
    return of_quality(found, quality)


def objective_problems(objectives: Any) -> list[str]:
    """What keeps objectives from being searched together; nothing if all is well."""
    is_list = isinstance(objectives, list | tuple)
    if not is_list or not all(isinstance(each, Objective) for each in objectives):
        return [
            f"search objectives must be a list of Objective, got {show(objectives)}; use "
            "[*OBJECTIVES, Objective(...)]"
        ]
    names = [each.name for each in objectives]
    if ACCURACY not in names or len(set(names)) < len(names) or len(names) < 2:
        return [
            f"search objectives must be {ACCURACY}, which reuse pays with, and at least one other, "
            f"each once, got {', '.join(names) or 'none'}; leave them out for "
            f"{', '.join(_BUILT_IN)}"
        ]
    odd = [each.name for each in objectives if each.name in _BUILT_IN and type(each) is Objective]
    return [
        f"search objectives must have names of their own, got {name!r} for another than this "
        "program's; rename it"
        for name in odd
    ]


def name_problems(names: Any, path: str) -> list[str]:
    """What keeps names from being those of objectives, before any file is looked at."""
    known = tuple(_BUILT_IN)
    texts = isinstance(names, list | tuple) and all(isinstance(each, str) for each in names)
    if not texts or ACCURACY not in names or len({*names}) < len(names) or len(names) < 2:
        return [
            f"{path} must be {ACCURACY}, which reuse pays with, and at least one other of "
            f"{', '.join(known)} and file.py:NAME, each once, got {show(names)}; leave it out for "
            f"{', '.join(known)}"
        ]
    return [
        f"{path} must be of {', '.join(known)} and file.py:NAME, got {show(each)}; "
        f"{choose(each, known)}"
        for each in names
        if each not in known and not is_in_file(each)
    ]


def find_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Objectives by name: this program's, in their usual order, then those of a user's files.

    Args:
        names: keys of this program's, `file.py:NAME` or `package.module:NAME` (executed).

    Raises:
        ConfigError: there is none of a name, or it is no objective.
    """
    found = [objective for name, objective in _BUILT_IN.items() if name in names]
    for name in names:
        if name in _BUILT_IN:
            continue
        own = users_object(name, "objective")
        if not isinstance(own, Objective):
            raise ConfigError(
                f"objective {name!r} must be an Objective, got {show(own)}; make one by "
                "codesign.Objective(name=..., words=..., unit=..., maximise=..., read=...)"
            )
        found.append(own)
    return tuple(found)


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
