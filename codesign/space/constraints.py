"""Limits that a design must keep, stated with a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from accelerators import ConfigError
from accelerators.rules import show
from simulator.results.lookup import given_design

_LARGEST = 1e100

_PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Upper limits; `None` states none.

    The optimiser is given how far each trial is from each limit. A trial beyond one is
    `infeasible` and says which.

    Attributes:
        area_mm2: of the chip.
        power_mw: energy over time of an inference, DRAM included.
        latency_ms_per_image: time of the batch over its images.
        accuracy_loss: of the objective `accuracy`, against the dense baseline's; a fraction, 0 to
            1: 0.02 is two percentage points.
    """

    area_mm2: float | None = None
    power_mw: float | None = None
    latency_ms_per_image: float | None = None
    accuracy_loss: float | None = None

    def __post_init__(self) -> None:
        problems = constraint_problems(dict(vars(self)), "Constraints")
        if problems:
            raise ConfigError(problems)

    def to_dict(self) -> dict[str, float]:
        """The limits that are stated."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    def excess(
        self, values: Mapping[str, float], summary: Mapping[str, Any], baseline: Mapping[str, float]
    ) -> dict[str, float]:
        """Stated limit -> by how much it is exceeded, in its unit; at most 0 where it is kept.

        Args:
            values: objective -> value of a trial.
            summary: of its simulation, as in `Trial.summary`.
            baseline: objective -> value of the dense baseline.
        """
        measured = measured_limits(given_design(summary))
        measured["accuracy_loss"] = baseline["accuracy"] - values["accuracy"]
        return {name: measured[name] - limit for name, limit in self.to_dict().items()}

    def reason(self, excess: Mapping[str, float]) -> str | None:
        """Which limits are exceeded, in words; `None` where all are kept."""
        stated = self.to_dict()
        beyond = [
            f"Constraints.{name} must be at most {stated[name]:g}, got {stated[name] + over:.6g}"
            for name, over in excess.items()
            if over > 0
        ]
        return "; ".join(beyond) or None


def measured_limits(design: Mapping[str, Any]) -> dict[str, float]:
    """What a limit may be on -> what a simulated design has of it; power is with DRAM."""
    energy_uj, latency_ms = design["energy_uj_per_image"], design["latency_ms_per_image"]
    return {
        "area_mm2": design["area_mm2"],
        "power_mw": energy_uj / latency_ms,
        "latency_ms_per_image": latency_ms,
    }


CONSTRAINT_NAMES = tuple(constraint.name for constraint in fields(Constraints))


def constraint_problems(given: Mapping[str, Any], path: str) -> list[str]:
    """Rules that limits break.

    Args:
        given: name -> limit or None.
        path: what to call where they stand.
    """
    problems = []
    for name, limit in given.items():
        if limit is None:
            continue
        is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        finite = is_number and -_LARGEST <= limit <= _LARGEST
        may_be_zero = name == "accuracy_loss"
        if not finite or limit < 0 or (not limit and not may_be_zero):
            rule = "at least 0" if may_be_zero else "above 0"
            problems.append(
                f"{path}.{name} must be a number {rule}, got {show(limit)}; "
                "leave it out for no limit"
            )
        elif may_be_zero and limit > 1:
            fix = f"use {limit / 100:g} for {limit:g} percentage points"
            problems.append(
                f"{path}.{name} must be a fraction of at most 1, got {limit!r:.60}; "
                f"{fix if limit <= _PERCENT else 'leave it out for no limit'}"
            )
    return problems
