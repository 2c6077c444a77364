"""What a search makes large or small: an objective reads a report and knows how it is told.

An objective is one entry here, or one `Objective` in a user's file; the evaluator, the optimisers,
what is stored, tables, plots and words ask it, and nothing else knows its name.
"""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from accelerators import ConfigError
from accelerators.rules import choose, show
from codesign.evaluation.objective import ABOVE_0, Objective
from codesign.space.lookup import find
from simulator import SimulationReport
from simulator.results.differences import ACCURACY_DROP, AGREEMENTS, ratio_text
from simulator.results.lookup import given_design
from simulator.results.tables import number
from workloads.user_files import is_located

# What every search must weigh: what reuse pays with.
ACCURACY = "accuracy"


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


def _of_answers(quality: str, report: SimulationReport) -> float:
    found = report.agreement if quality in AGREEMENTS else report.accuracy
    return _known(quality, found, report)


def _of_outputs(report: SimulationReport) -> float:
    error = report.output_error
    return _known("output_fidelity", None if error is None else max(0.0, 1.0 - error), report)


def _of_layers(report: SimulationReport) -> float:
    """One less the mean error of the layers that reuse."""
    errors = [layer.relative_mse for layer in report.reuse.layers if layer.relative_mse is not None]
    return 1.0 - sum(errors) / len(errors) if errors else 1.0


def _quality(quality: str, words: str, phrase: str, meaning: str, **others: Any) -> Accuracy:
    told = {"quality": quality, "words": words, "phrase": phrase, "meaning": meaning}
    return Accuracy(**{"read": partial(_of_answers, quality), **told, **others})


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


# What is searched unless others are given.
OBJECTIVES: tuple[Objective, ...] = (
    _Speedup(
        name="speedup",
        words="speed",
        unit="x of a dense design of equal area",
        label="× dense, equal area",
        maximise=True,
        low=ABOVE_0,
        read=attrgetter("speedup_equal_area"),
    ),
    _Energy(
        name="energy_uj_per_image",
        words="energy",
        unit="uJ per image",
        label="µJ per image",
        maximise=False,
        low=ABOVE_0,
        read=attrgetter("reuse.energy_uj_per_image"),
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
        if each not in known and not is_located(each)
    ]


def find_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Objectives by name: this program's, in their usual order, then those of a user's files.

    Args:
        names: keys of this program's, `file.py:NAME` or `package.module:NAME` (executed).

    Raises:
        ConfigError: there is none of a name, or it is no objective.
    """
    own = [find("objective", name, _BUILT_IN, Objective) for name in names if name not in _BUILT_IN]
    return (*(each for name, each in _BUILT_IN.items() if name in names), *own)
