"""How much each group of layers shares: by what its loss costs all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelerators import ConfigError
from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.space.allotment import OUTPUT_ERROR, START_ERROR, Allotment
from codesign.space.parameters import Parameter
from codesign.space.technique_parameters import TECHNIQUE, names_of
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import DENSE, members
from codesign.space.techniques import dials as dials_in
from simulator import PerLayer, Technique, decide

# Errors that a search chooses from unless it is told others, each about 1.4 times the one before:
# our choice. `studies/018_reuse_on_a_wide_network.py` tells what some cost on street video.
_ERRORS = (
    0.0025, 0.0035, 0.005, 0.007, 0.01, 0.014, 0.02, 0.028,
    0.04, 0.057, 0.08, 0.11, 0.16, 0.23, 0.32,
)  # fmt: skip
# Those that a search starts from beside the first; few, as each costs a trial.
_FURTHER = (0.02, 0.08, 0.16)
# Prices of an error in parts of all multiplications, from dear to cheap.
_PRICES = np.geomspace(1e3, 1e-3, 241)
# Thirds of the choices of dials, where no error can be measured. On recorded activations of
# CifarNet (24 trials, leaders and LSH, two seeds each) fronts had 5 to 50 % more hypervolume with
# these two than without.
_THIRDS = {"start_low": 1, "start_high": 2}

# Called with how many settings of groups are measured, and of how many.
OnMeasured = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Borne:
    """What one group bears, alone under reuse: of each choice of its dial.

    Attributes:
        dial: `GROUP.TECHNIQUE.FIELD`.
        choices: of it.
        work: of all multiplications of the workload, what is left of the group's.
        errors: relative mean squared error of the model's answers; infinite where unknown.
        counts: whether its error is part of what is borne in all: groups that run dense at the
            start are not expected to reuse.
    """

    dial: str
    choices: tuple[Any, ...]
    work: np.ndarray
    errors: np.ndarray
    counts: bool = True


def with_dials_allotted(
    space: TechniqueSpace,
    workload: Workload,
    on_measured: OnMeasured | None = None,
) -> TechniqueSpace:
    """The space in which one parameter, `output_error`, sets how much each group shares.

    Each group is run alone under each technique, once for each choice of its dial, on the
    calibration inputs where there are any, with no label of theirs. Errors of groups are taken to
    add up. A price of error against multiplications then tells each group's choice; of each error
    the dials are those of the cheapest price that keeps to it. A search whose trials choose dials
    one by one hardly meets a good one: most of them ask as much of groups that bear little.

    Args:
        space: of the workload; where it has a parameter `output_error`, its choices are the errors.
        workload: where it has no model, or no outputs, nothing can be measured: the dials stay, and
            there are two more starts in which all groups share alike, at a third and at two thirds
            of their choices. So it is where no choice keeps to any error.
        on_measured: see `OnMeasured`.

    Raises:
        ConfigError: errors are asked for, and nothing can be measured or keeps to any of them.
    """
    if workload.model is None or (workload.calibration or workload.trace).outputs is None:
        if space.asked_errors is not None:
            raise ConfigError(
                f"space.parameters.{OUTPUT_ERROR!r} must be searched with a model that answers "
                "with a tensor, got none; leave it out, and choose of each dial, such as "
                f"{next(iter(space.dials))}"
            )
        return with_thirds(space)
    allotment = measured(space, workload, on_measured)
    return with_thirds(space) if allotment is None else allotted_space(space, allotment)


def measured(
    space: TechniqueSpace, workload: Workload, on_measured: OnMeasured | None = None
) -> Allotment | None:
    """What is allotted to each dial of a space; `None` where no choice keeps to any error.

    Raises:
        ConfigError: no choice keeps to any error that the space asks for.
    """
    asked = space.asked_errors
    with single_thread():
        borne = _borne(space, workload, on_measured)
    if asked is not None:
        _check_asked(asked, borne)
    errors: list[float] = []
    found: list[Mapping[str, Any]] = []
    for error in asked or _ERRORS:
        some = [allotted(of, error) for of in borne]
        if not any(some):
            continue
        # A technique that keeps to no such error comes as close as it can.
        settings = [each or _most_exact(of) for each, of in zip(some, borne, strict=True)]
        dials = {name: value for each in settings for name, value in each.items()}
        if not found or dials != found[-1]:
            errors.append(error)
            found.append(dials)
    if not found:
        return None
    return Allotment(
        errors=tuple(errors),
        choices={each.dial: each.choices for of in borne for each in of},
        settings={name: tuple(dials[name] for dials in found) for name in found[0]},
        asked=asked,
    )


def _check_asked(asked: Sequence[float], borne: Sequence[Sequence[Borne]]) -> None:
    """Tell which errors are less than what sharing least costs; there must be others."""
    least = min(_chosen(of, _PRICES[0])[1] for of in borne)
    below = ", ".join(f"{error:g}" for error in asked if error < least)
    if asked[-1] < least:
        raise ConfigError(
            f"space.parameters.{OUTPUT_ERROR!r} must reach {least:.2g}, which groups cost together "
            f"where they share least, got {below}; add larger ones, or let dials be more exact"
        )
    if below:
        warnings.warn(
            f"{OUTPUT_ERROR} {below} is left out of the search: groups that share least cost "
            f"{least:.2g} together",
            stacklevel=4,
        )


def allotted_space(space: TechniqueSpace, allotment: Allotment) -> TechniqueSpace:
    """The space without the dials, and with the error that is borne in their place."""
    dials = space.dials
    error = Parameter(name=OUTPUT_ERROR, choices=allotment.errors, ordered=True)
    first = float(error.nearest(START_ERROR))
    starts = {
        origin: {name: value for name, value in values.items() if name not in dials}
        | {OUTPUT_ERROR: first}
        for origin, values in space.start.items()
    }
    if starts:
        start = next(iter(starts.values()))
        starts |= {
            f"error_{bound:g}": start | {OUTPUT_ERROR: bound}
            for bound in _FURTHER
            if bound in allotment.errors and bound != first
        }
    kept = (each for each in space.parameters if each.name not in {*dials, OUTPUT_ERROR})
    return replace(space, parameters=(*kept, error), start=starts, allotment=allotment)


def with_thirds(space: TechniqueSpace) -> TechniqueSpace:
    """The space with two more starts; see `_THIRDS`."""
    if not space.start:
        return space
    first = next(iter(space.start.values()))
    starts = {
        name: {**first}
        | {
            parameter.name: parameter.choices[(len(parameter.choices) - 1) * thirds // 3]
            for parameter in space.parameters
            if parameter.name in space.dials
        }
        for name, thirds in _THIRDS.items()
    }
    return replace(space, start={**space.start, **starts})


def allotted(borne: Sequence[Borne], bound: float) -> Mapping[str, Any] | None:
    """Dial -> its choice, of the cheapest price of errors that add up to a bound at most; `None`
    where even the dearest exceeds it."""
    found = None
    for price in _PRICES:
        dials, error = _chosen(borne, price)
        if error > bound:
            break
        found = dials
    return found


def _chosen(borne: Sequence[Borne], price: float) -> tuple[Mapping[str, Any], float]:
    """Dial -> its choice at a price of an error, and what errors add up to."""
    places = [int(np.argmin(price * each.errors + each.work)) for each in borne]
    pairs = list(zip(borne, places, strict=True))
    error = math.fsum(each.errors[at] for each, at in pairs if each.counts)
    return {each.dial: each.choices[at] for each, at in pairs}, error


def _most_exact(borne: Sequence[Borne]) -> Mapping[str, Any]:
    return {each.dial: each.choices[int(np.argmin(each.errors))] for each in borne}


def _borne(
    space: TechniqueSpace, workload: Workload, on_measured: OnMeasured | None
) -> list[list[Borne]]:
    """What groups bear of each technique."""
    choices = {parameter.name: parameter.choices for parameter in space.parameters}
    start = next(iter(space.start.values()), {p.name: p.choices[0] for p in space.parameters})
    dense = {**start, **dict.fromkeys(space.switches, DENSE)}
    used = {group for group in space.groups if start[f"{group}{TECHNIQUE}"] != DENSE}
    runs, done = _runs(space), 0
    found = []
    for technique in space.chosen_techniques:
        of_technique = []
        for group, dial in _dials_of(space, technique):
            if not _may_choose(choices[f"{group}{TECHNIQUE}"], technique):
                none = np.zeros(len(choices[dial]))  # nothing is ever set to it
                of_technique.append(
                    Borne(dial=dial, choices=choices[dial], work=none, errors=none, counts=False)
                )
                continue
            alone = {**dense, f"{group}{TECHNIQUE}": technique.name}
            work, errors = [], []
            for choice in choices[dial]:
                left, error = _measured(space, group, {**alone, dial: choice}, workload)
                work.append(left)
                errors.append(error)
                done += 1
                if on_measured is not None:
                    on_measured(done, runs)
            of_technique.append(
                Borne(
                    dial=dial,
                    choices=choices[dial],
                    work=np.array(work),
                    errors=np.array(errors),
                    counts=not used or group in used,
                )
            )
        if of_technique:
            found.append(of_technique)
    return found


def _runs(space: TechniqueSpace) -> int:
    """How many settings of groups there are, of techniques that they may choose."""
    choices = {parameter.name: parameter.choices for parameter in space.parameters}
    return sum(
        len(choices[dial])
        for technique in space.chosen_techniques
        for group, dial in _dials_of(space, technique)
        if _may_choose(choices[f"{group}{TECHNIQUE}"], technique)
    )


def _may_choose(choices: Sequence[str], technique: Technique) -> bool:
    """Whether a technique is one of the choices, alone or with another."""
    return any(technique.name in members(choice) for choice in choices)


def _dials_of(space: TechniqueSpace, technique: Technique) -> list[tuple[str, str]]:
    """Groups and their dials of a technique."""
    return [
        (group, dial)
        for group in space.groups
        for of in dials_in(technique)
        for dial in names_of(technique, of, (group,))
    ]


def _measured(
    space: TechniqueSpace, group: str, values: Mapping[str, Any], workload: Workload
) -> tuple[float, float]:
    """Work and error, as in `Borne`, of a group with these values; what none can have costs all."""
    trace = workload.calibration or workload.trace
    try:
        run = decide(
            trace,
            PerLayer(space.policies_of(values)),
            model=workload.model,
            calibrate_under_reuse=workload.calibrate_under_reuse,
            layer_errors=False,
        )
    except ConfigError:  # as a trial it would be infeasible
        return 1.0, math.inf
    macs = sum(
        trace.layer(layer).gemm.macs if made is None else made.macs
        for layer in space.groups[group]
        for made in (run.decisions[layer],)
    )
    total = sum(layer.gemm.macs for layer in trace.layers)
    return macs / total, math.inf if run.output_error is None else run.output_error
