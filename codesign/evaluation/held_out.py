"""Designs of a front on inputs that the search did not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from accelerators import ConfigError
from codesign.evaluation.evaluator import Evaluator
from codesign.evaluation.workload import Workload


def held_out_evaluator(workload: Workload, full: Evaluator) -> Evaluator | None:
    """Judges settings on the inputs held out; what is calibrated is so as in the search.

    Args:
        workload: of the search.
        full: judges on the inputs of the search.

    Returns:
        The evaluator; `None` where no inputs are held out.

    Raises:
        ConfigError, TraceError: see `Evaluator.of`; or the inputs judge in another way than those
            of the search, as without labels.
    """
    if workload.held_out is None:
        return None
    given = replace(
        workload,
        trace=workload.held_out,
        calibration=workload.calibration or workload.trace,
    )
    others = Evaluator.of(given, full.space, full.objectives)
    if others.quality != full.quality:
        raise ConfigError(
            f"Workload.held_out must be judged as the trace is, by {full.quality}, got "
            f"{others.quality}; give inputs with labels where the trace has some, and none where "
            "it has none"
        )
    return others


# Of a summary, what is kept beside the objectives.
RATIOS = ("speedup_equal_area", "energy_ratio_equal_area")


def ratios_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Speed and energy against the dense design of equal area."""
    return {name: summary[name] for name in RATIOS}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What became of a search's front on inputs that it did not see.

    Attributes:
        images: how many.
        source: where they come from, in words.
        baseline: objective -> value of the dense design with the base design's area on them.
        trials: number of a trial -> its values, and of its summary the ratios at equal area.
    """

    images: int
    source: str
    baseline: Mapping[str, float]
    trials: Mapping[int, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, to be stored with a study."""
        return {
            "images": self.images,
            "source": self.source,
            "baseline": dict(self.baseline),
            "trials": {str(number): dict(values) for number, values in self.trials.items()},
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> HeldOut:
        """What `to_dict` described."""
        trials = {int(number): values for number, values in given["trials"].items()}
        return cls(**{**given, "trials": trials})
