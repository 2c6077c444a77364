"""How much each group of layers shares at the start of a search: by what its loss costs all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelerators import ConfigError
from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.space.technique_parameters import TECHNIQUE, names_of
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import DENSE
from simulator import PerLayer, decide

# Mean squared errors of the answers, over the mean square of the dense ones, that the starts keep
# to, if errors of groups add up: our choice. Each costs a trial, so that there are few, each twice
# the one before; the search picks, and goes on from there. On street video 0.04 cost no point of
# mean IoU; at 0.16 answers differ much, but a workload that is judged by few classes may bear it.
_BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16)
# Prices of an error in parts of all multiplications, from dear to cheap.
_PRICES = np.geomspace(1e3, 1e-3, 241)
# Begins the name of such a start.
_ALLOTTED = "error_"
# Thirds of the choices of what groups have of their own, where no error can be measured. On
# recorded activations of CifarNet (24 trials, leaders and LSH, two seeds each) fronts had 5 to 50 %
# more hypervolume with these two than without. With a model measured starts take their place.
_THIRDS = {"start_low": 1, "start_high": 2}

# Called with how many settings of groups are measured, and of how many.
OnMeasured = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Borne:
    """What one group bears, alone under reuse: of each choice of what it has its own of.

    Attributes:
        parameter: `GROUP.TECHNIQUE.FIELD`.
        choices: of it.
        work: of all multiplications of the workload, what is left of the group's.
        errors: relative mean squared error of the model's answers; infinite where unknown.
    """

    parameter: str
    choices: tuple[Any, ...]
    work: np.ndarray
    errors: np.ndarray


def further_starts(space: TechniqueSpace) -> dict[str, Mapping[str, Any]]:
    """Of the starts of a space, those that `with_further_starts` gave it."""
    return {
        name: values
        for name, values in space.start.items()
        if name.startswith(_ALLOTTED) or name in _THIRDS
    }


def with_further_starts(
    space: TechniqueSpace,
    workload: Workload,
    on_measured: OnMeasured | None = None,
) -> TechniqueSpace:
    """The space with further starts, in which groups share as much as they bear.

    Each group is run alone under its technique at the start, once for each choice of its own, on
    the calibration inputs where there are any, with no label of theirs. Errors of groups are taken
    to add up. A price of error against multiplications then tells each group's choice; the starts
    are of the cheapest prices whose errors keep to 0.01, 0.02, 0.04, 0.08 and 0.16; of two alike
    the first.

    Args:
        space: of the workload.
        workload: where it has no model, or no outputs, nothing can be measured: all groups then
            share alike, at a third and at two thirds of their choices.
        on_measured: see `OnMeasured`.
    """
    if not space.start:
        return space
    first, starts = next(iter(space.start.values())), dict(space.start)
    if workload.model is None or (workload.calibration or workload.trace).outputs is None:
        starts |= {name: _at_thirds(space, first, thirds) for name, thirds in _THIRDS.items()}
        return replace(space, start=starts)
    with single_thread():
        borne = list(_borne(space, first, workload, on_measured))
    for bound in _BOUNDS:
        chosen = allotted(borne, bound)
        if chosen and {**first, **chosen} not in starts.values():
            starts[f"{_ALLOTTED}{bound:g}"] = {**first, **chosen}
    return replace(space, start=starts)


def _at_thirds(space: TechniqueSpace, start: Mapping[str, Any], thirds: int) -> dict[str, Any]:
    """A start with what each group has its own of at so many thirds of its choices."""
    own = {
        name
        for technique in space.chosen_techniques
        for of in technique.own
        for name in names_of(technique, of, space.groups)
    }
    moved = {
        parameter.name: parameter.choices[(len(parameter.choices) - 1) * thirds // 3]
        for parameter in space.parameters
        if parameter.name in own
    }
    return {**start, **moved}


def allotted(borne: list[Borne], bound: float) -> Mapping[str, Any] | None:
    """Parameter -> its choice, of the cheapest price of errors that add up to a bound at most;
    `None` where even the dearest exceeds it."""
    found = None
    for price in _PRICES:
        places = [int(np.argmin(price * each.errors + each.work)) for each in borne]
        total = math.fsum(each.errors[at] for each, at in zip(borne, places, strict=True))
        if total > bound:
            break
        found = {each.parameter: each.choices[at] for each, at in zip(borne, places, strict=True)}
    return found or None


def _borne(
    space: TechniqueSpace,
    start: Mapping[str, Any],
    workload: Workload,
    on_measured: OnMeasured | None,
) -> Iterator[Borne]:
    """What each group that has a technique at the start bears of it."""
    choices = {parameter.name: parameter.choices for parameter in space.parameters}
    dense = {**start, **{f"{group}{TECHNIQUE}": DENSE for group in space.groups}}
    asked = [
        (group, technique.name, name)
        for group in space.groups
        for technique in space.chosen_techniques
        if start[f"{group}{TECHNIQUE}"] == technique.name
        for of in technique.own
        for name in names_of(technique, of, (group,))
    ]
    runs, done = sum(len(choices[name]) for _, _, name in asked), 0
    for group, technique_name, name in asked:
        alone = {**dense, f"{group}{TECHNIQUE}": technique_name}
        work, errors = [], []
        for choice in choices[name]:
            left, error = _measured(space, group, {**alone, name: choice}, workload)
            work.append(left)
            errors.append(error)
            done += 1
            if on_measured is not None:
                on_measured(done, runs)
        yield Borne(
            parameter=name, choices=choices[name], work=np.array(work), errors=np.array(errors)
        )


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
