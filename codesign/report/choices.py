"""Which design to take: the best under each constraint, in each sense of best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accelerators import ConfigError
from accelerators.rules import one_of, real, violations
from codesign.evaluation.objectives import ACCURACY
from codesign.space.checks import of_kind
from codesign.space.constraints import measured_limits
from codesign.study.result import StudyResult, energy_delay_ratio, knee_of
from codesign.study.trial import Trial
from simulator.results.lookup import equal_area_design, given_design

# What a constraint may bound -> its name, its unit, and whether it is bounded from below.
QUANTITIES = {
    "accuracy": ("accuracy", "of 1", True),
    "area_mm2": ("area", "mm²", False),
    "power_mw": ("power", "mW", False),
    "latency_ms_per_image": ("time per image", "ms", False),
}


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A bound on one number of a design.

    Attributes:
        quantity: a key of `QUANTITIES`.
        bound: `accuracy` must be at least this, everything else at most.
        reason: where the bound comes from, in a few words.
    """

    quantity: str = field(metadata=one_of(lambda: tuple(QUANTITIES)))
    bound: float = field(metadata=real(-1e100, 1e100))
    reason: str = field(default="as asked for", metadata=of_kind(str, "a text"))

    def __post_init__(self) -> None:
        if broken := violations(self, "Constraint"):
            raise ConfigError(broken)

    def met_by(self, trial: Trial) -> bool:
        """Whether a complete trial keeps within the bound."""
        value = measured(trial, self.quantity)
        return value >= self.bound if QUANTITIES[self.quantity][2] else value <= self.bound


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best designs under some constraints.

    Attributes:
        constraints: all of which hold; none is no constraint.
        trials: complete trials that meet them, in the order of asking.
        best: sense of best -> the trial, `None` where no trial meets them: `Objective.sense` of
            each objective, `least_energy_delay`, with the least energy-delay product against dense
            of equal area, and `knee`, where the front of these trials bends most, see
            `codesign.evaluation.front.knee`.
    """

    constraints: tuple[Constraint, ...]
    trials: tuple[Trial, ...]
    best: Mapping[str, Trial | None]


LEAST_ENERGY_DELAY, KNEE = "least_energy_delay", "knee"


def measured(trial: Trial, quantity: str) -> float:
    """A number of a complete trial; power is the mean over an image, with DRAM."""
    assert trial.values is not None, "only complete trials are measured"
    numbers = measured_limits(given_design(trial.summary))
    return trial.values[ACCURACY] if quantity == "accuracy" else numbers[quantity]


def usual_constraints(result: StudyResult) -> tuple[Constraint, ...]:
    """What the search was told to keep; else the accuracy of dense, and what the search began with.

    Where its specification states no constraint on a quantity: the silicon of the first trial, and
    the power and time of dense on that much silicon, if the first trial is complete.
    """
    accuracy, loss = result.baseline[ACCURACY], result.accuracy.allowed_loss
    bounds = {"accuracy": (accuracy - loss, f"{100 * loss:g} points below the dense model")}
    if result.start.values is not None:
        area_mm2 = measured(result.start, "area_mm2")
        bounds["area_mm2"] = area_mm2, "of the design that the search starts from"
        dense = measured_limits(equal_area_design(result.start.summary))
        for name in ("power_mw", "latency_ms_per_image"):
            bounds[name] = dense[name], "of dense with the area of the start"
    for name, limit in result.specification.get("constraints", {}).items():
        is_loss = name == "accuracy_loss"
        bound = accuracy - limit if is_loss else limit
        bounds["accuracy" if is_loss else name] = bound, "stated with the search"
    return tuple(
        Constraint(quantity=quantity, bound=bound, reason=reason)
        for quantity, (bound, reason) in bounds.items()
    )


def choices(result: StudyResult, constraints: Sequence[Constraint]) -> tuple[Choice, ...]:
    """The best without a constraint, under each one, and under all of them where there are more."""
    sets: list[tuple[Constraint, ...]] = [(), *((constraint,) for constraint in constraints)]
    if len(constraints) > 1:
        sets.append(tuple(constraints))
    return tuple(_choice(result, each) for each in sets)


def _choice(result: StudyResult, constraints: tuple[Constraint, ...]) -> Choice:
    """Among all complete trials: off the front may be the only ones that keep to a bound."""
    met = tuple(
        trial
        for trial in result.of_state("complete")
        if all(constraint.met_by(trial) for constraint in constraints)
    )

    best: dict[str, Trial | None] = {}
    for objective in result.objectives:
        name, sign = objective.name, -1 if objective.maximise else 1
        # Of equals, the one with the least energy-delay product.
        best[objective.sense] = min(
            met,
            key=lambda trial: (sign * (trial.values or {})[name], energy_delay_ratio(trial)),
            default=None,
        )
    best[LEAST_ENERGY_DELAY] = min(met, key=energy_delay_ratio, default=None)
    best[KNEE] = knee_of(met, result.objectives)
    return Choice(constraints=constraints, trials=met, best=best)
