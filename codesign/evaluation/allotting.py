"""How much each group of layers shares at the start of a search: by what its loss costs all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codesign.evaluation.workload import Workload
from codesign.space.technique_parameters import TECHNIQUE, names_of
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import DENSE
from simulator import NoReuse, PerLayer, decide

# Mean squared errors of the answers, over the mean square of the dense ones, that the starts keep
# to, if errors of groups add up: our choice. On street video 0.04 cost no point of mean IoU.
_BOUNDS = (0.01, 0.02, 0.04, 0.08)
# Prices of an error in parts of all multiplications, from dear to cheap.
_PRICES = np.geomspace(1e3, 1e-3, 241)


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


def with_allotted_starts(
    space: TechniqueSpace,
    workload: Workload,
    on_progress: Callable[[int, int], None] | None = None,
) -> TechniqueSpace:
    """The space with further starts, in which groups share as much as they bear.

    Each group is run alone under its technique at the start, once for each choice of its own, on
    the calibration inputs where there are any. Errors of groups are taken to add up. A price of
    error against multiplications then tells each group's choice; the starts are of the cheapest
    prices whose errors keep to 0.01, 0.02, 0.04 and 0.08.

    Args:
        space: with a start.
        workload: the workload; without a model the space stays as it is.
        on_progress: told how many runs are done, of how many.
    """
    if workload.model is None:
        return space
    borne = list(_borne(space, workload, on_progress))
    starts = {
        f"error_{bound:g}": {**space.start["start"], **chosen}
        for bound in _BOUNDS
        if (chosen := allotted(borne, bound)) is not None
    }
    return replace(space, start={**space.start, **starts})


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
    workload: Workload,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Borne]:
    """What each group of a technique bears."""
    trace = workload.calibration or workload.trace
    total = sum(layer.gemm.macs for layer in trace.layers)
    start = space.start["start"]
    choices = {parameter.name: parameter.choices for parameter in space.parameters}
    none = {f"{group}{TECHNIQUE}": DENSE for group in space.groups}
    dense: dict[str, Any] = {**start, **none}
    asked = []
    for group in space.groups:
        for technique in space.chosen_techniques:
            if start[f"{group}{TECHNIQUE}"] == technique.name:
                asked += [
                    (group, technique.name, name)
                    for of in technique.own
                    for name in names_of(technique, of, (group,))
                ]
    runs = sum(len(choices[name]) for _, _, name in asked)
    done = 0
    for group, technique_name, name in asked:
        work, errors = [], []
        for choice in choices[name]:
            values = {**dense, f"{group}{TECHNIQUE}": technique_name, name: choice}
            policies = space.policies_of(values)
            run = decide(
                trace,
                PerLayer(policies) if policies else NoReuse(),
                model=workload.model,
                layer_errors=False,
            )
            made = (run.decisions[layer] for layer in space.groups[group])
            layers = (trace.layer(layer) for layer in space.groups[group])
            macs = sum(
                layer.gemm.macs if each is None else each.macs
                for layer, each in zip(layers, made, strict=True)
            )
            work.append(macs / total)
            errors.append(math.inf if run.output_error is None else run.output_error)
            done += 1
            if on_progress is not None:
                on_progress(done, runs)
        yield Borne(
            parameter=name,
            choices=choices[name],
            work=np.array(work),
            errors=np.array(errors),
        )
