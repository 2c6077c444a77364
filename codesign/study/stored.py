"""Whether what a study file says of its trials can be: checked when it is opened, all of it.

A message says the trial and what is wrong. Whatever the file holds, nothing here raises but for
errors of this program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import tomli_w
from optuna.trial import FrozenTrial, TrialState

from accelerators import ConfigError
from accelerators.rules import show
from codesign.evaluation.held_out import RATIOS, HeldOut
from codesign.evaluation.objective import Objective
from codesign.evaluation.objectives import ACCURACY, QUALITIES, stored_objectives
from codesign.optimisers.registry import OPTIMISERS, is_optimiser_name
from codesign.space.constraints import CONSTRAINT_NAMES, Constraints, constraint_problems
from codesign.space.described import described_space
from codesign.space.design_space import DesignSpace
from codesign.space.parameters import Parameter
from simulator.results.stored import is_number, summary_problems
from workloads.errors import told

SPECIFICATION = "specification"
# An attribute of a study: a trial's number follows; the value is its evaluation on all images.
CONFIRMED = "confirmed "
# Attribute of what became of the front on inputs that the search did not see.
HELD_OUT = "held out"
# Another: how many trials there are to be in all.
ASKED = "asked"
# An attribute of a trial: a stated limit follows; the value is by how much it is exceeded.
EXCESS = "constraints:"
# Settings that no start has a name for.
_ORIGINS = ("sampler", "neighbour")
# Of an evaluation, as `Evaluation` has them; a trial's also has `repeat_of`.
_EVALUATION = ("state", "summary", "reason", "seconds", "images")


def study_problems(attributes: Mapping[str, Any], trials: list[FrozenTrial]) -> list[str]:
    """What is wrong with a study that was read: its specification, or each of its trials.

    Args:
        attributes: of the study.
        trials: of the study, by number.
    """
    specification = attributes.get(SPECIFICATION)
    problems = specification_problems(specification)
    if problems:
        return problems
    assert isinstance(specification, Mapping), "it was checked"
    numbers = [frozen.number for frozen in trials]
    if numbers != list(range(len(trials))):  # of a database, of which rows were lost
        return [f"trials must be numbered from 0 on without a gap, got {show(numbers)}"]
    reader = _Reader(specification)
    for number, frozen in enumerate(trials):
        problems += [f"trial {number}: {problem}" for problem in reader.problems(frozen, trials)]
    for key, record in attributes.items():
        if key.startswith(CONFIRMED):
            problems += [f"{key}: {each}" for each in reader.confirmed(key, record, trials)]
        elif key == HELD_OUT:
            problems += [f"{key}: {each}" for each in reader.held_out(record, trials)]
        elif key == ASKED:
            if not is_count(record, 1):
                problems.append(f"{ASKED} must be a whole number of at least 1, got {show(record)}")
        elif key != SPECIFICATION:
            problems.append(f"the study must have no attribute {show(key)}")
    return problems


def read_space(description: Any) -> DesignSpace:
    """The space that `DesignSpace.to_dict` described.

    Raises:
        ConfigError: it describes none, or one whose parts do not fit together.
    """
    try:
        space = described_space(description)
        described = space.to_dict()
        problems = [
            f"{part} must be as this program writes it, got {show(description[part])}"
            for part in ("layers", "parameters", "start")
            if described[part] != description[part]
        ]
        problems += [
            f"start.{show(origin)} must give every parameter one of its choices"
            for origin, values in space.start.items()
            if not all(_is_choice(values[p.name], p.choices) for p in space.parameters)
        ]
        if not space.start or not space.parameters or not all(space.fronts.values()):
            problems.append("start, parameters and each of the fronts must hold something")
        if problems:
            raise ConfigError(problems)
        for values in space.start.values():
            # A setting that no design can have makes infeasible trials, and is allowed.
            with suppress(ConfigError):
                space.build(values)
    except ConfigError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ConfigError(
            f"it must be one that designs can be made of, got none ({told(error)})"
        ) from error
    return space


def stored_parameters(given: Any) -> list[Parameter]:
    """The parameters of a specification; none where it does not describe them."""
    try:
        found = [Parameter.from_dict(each) for each in given]
    except (ConfigError, LookupError, TypeError):
        return []
    return found if [each.to_dict() for each in found] == given else []


def specification_problems(given: Any) -> list[str]:
    """Rules that a specification of the present format breaks."""
    if not isinstance(given, Mapping):
        return [f"specification must be a table, got {show(given)}"]
    problems = []

    def must(name: str, words: str, holds: bool) -> None:
        if not holds:
            found = show(given[name]) if name in given else "nothing"
            problems.append(f"specification.{name} must be {words}, got {found}")

    get = given.get
    must("name", "text", type(get("name")) is str)
    seed = get("seed")
    must("seed", "a whole number of at least 0", type(seed) is int and seed >= 0)
    must("batch", "a whole number of at least 1", is_count(get("batch"), 1))
    must("digest", "text", type(get("digest")) is str)
    must("quality", f"one of {', '.join(QUALITIES)}", is_among(get("quality"), QUALITIES))
    objectives = _objectives(given)
    must("objectives", "those of a search", bool(objectives))
    names = f"one of {', '.join(OPTIMISERS)}, or FILE:NAME"
    must("optimiser", names, is_optimiser_name(get("optimiser")))
    first = get("first_images")
    must("first_images", "nothing or at least 1", first is None or is_count(first, 1))
    learns = get("calibrate_under_reuse")
    must("calibrate_under_reuse", "true or nothing", learns in (None, True, False))
    must("plan", "a table or nothing", get("plan") is None or _is_plan(get("plan")))
    versions = get("versions")
    is_texts = isinstance(versions, Mapping) and all(type(v) is str for v in versions.values())
    must("versions", "a table of texts", is_texts)
    workload = get("workload")
    is_workload = isinstance(workload, Mapping) and all(
        is_count(workload.get(name), 1) for name in ("images", "macs")
    )
    must("workload", "a table with images and macs, at least 1 each", is_workload)
    baseline = get("baseline")
    is_baseline = isinstance(baseline, Mapping) and _are_values(
        [baseline.get(objective.name) for objective in objectives], objectives
    )
    must("baseline", "a value of each objective", is_baseline)
    limits = get("constraints")
    if isinstance(limits, Mapping) and {*limits} <= {*CONSTRAINT_NAMES}:
        known = all(is_number(limit) for limit in limits.values())
        problems += (
            constraint_problems(limits, "specification.constraints")
            if known
            else ["specification.constraints must be numbers"]
        )
    else:
        must("constraints", f"a table of {', '.join(CONSTRAINT_NAMES)}", False)
    try:
        read_space(get("space"))
    except ConfigError as error:
        problems += [f"specification.space: {each}" for each in error.violations]
    return problems


class _Reader:
    """Checks the trials of a study whose specification is sound."""

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self.space = read_space(specification["space"])
        self.objectives = _objectives(specification)
        self.baseline: Mapping[str, float] = specification["baseline"]
        self.limits = Constraints(**specification["constraints"])
        first, images = specification.get("first_images"), specification["workload"]["images"]
        self.images = {images, *(() if first is None else (first,))}

    def problems(self, frozen: FrozenTrial, trials: list[FrozenTrial]) -> list[str]:
        """What is wrong with a trial."""
        problems = [*params_problems(frozen, self.space.parameters)]
        origin = frozen.user_attrs.get("origin")
        origins = (*_ORIGINS, *self.space.start)
        if not is_among(origin, origins):
            problems.append(f"origin must be one of {', '.join(origins)}, got {show(origin)}")
        if frozen.state == TrialState.RUNNING:
            return problems  # what was measured is told before it is finished, and told again
        if frozen.state not in (TrialState.COMPLETE, TrialState.FAIL):
            return [*problems, f"it must be running or finished, got {frozen.state.name.lower()}"]
        record = frozen.user_attrs.get("evaluation")
        if not isinstance(record, Mapping) or "repeat_of" not in record:
            return [*problems, f"evaluation must be a table, got {show(record)}"]
        values = frozen.values if frozen.state == TrialState.COMPLETE else None
        limited = (key for key in frozen.system_attrs if key.startswith(EXCESS))
        has_limits = {key.removeprefix(EXCESS) for key in limited}
        problems += self._evaluation(record, values, is_limited=bool(has_limits))
        if problems or values is None:
            return [*problems, *_repeat_problems(frozen, record["repeat_of"], trials)]
        stated = {*self.limits.to_dict()}
        if has_limits != stated:
            return [f"{EXCESS}... must be of the stated limits, got {show(sorted(has_limits))}"]
        named = dict(zip((o.name for o in self.objectives), values, strict=True))
        excess = self.limits.excess(named, record["summary"], self.baseline)
        for name, over in excess.items():
            found = frozen.system_attrs[f"{EXCESS}{name}"]
            if not is_number(found) or abs(found - over) > 1e-6 * (1 + abs(over)):
                problems.append(f"{EXCESS}{name} must be {over:g}, got {show(found)}")
        wanted = "infeasible" if any(over > 0 for over in excess.values()) else "complete"
        if not problems and record["state"] != wanted:
            problems.append(f"state must be {wanted!r}, got {show(record['state'])}")
        return [*problems, *_repeat_problems(frozen, record["repeat_of"], trials)]

    def confirmed(self, key: str, record: Any, trials: list[FrozenTrial]) -> list[str]:
        """What is wrong with what a trial was found to be on all images."""
        digits = key.removeprefix(CONFIRMED)
        known = digits.isascii() and digits.isdigit() and len(digits) < 10
        number = int(digits) if known else len(trials)
        if number >= len(trials) or trials[number].state != TrialState.COMPLETE:
            return [f"it must be of a complete one of {len(trials)} trials"]
        if not isinstance(record, Mapping) or "values" not in record:
            return [f"it must be a table with values, got {show(record)}"]
        if odd := {*record} - {*_EVALUATION, "values", "excess"}:
            return [f"it must be an evaluation, got {show(sorted(map(str, odd)))}"]
        excess, values = record.get("excess", {}), record["values"]
        if (
            not isinstance(excess, Mapping)
            or not {*excess} <= {*self.limits.to_dict()}
            or not all(map(is_number, excess.values()))
        ):
            return [f"excess must be numbers for the stated limits, got {show(excess)}"]
        if isinstance(values, Mapping):
            values = [values.get(objective.name) for objective in self.objectives]
        return self._evaluation(record, values, is_limited=record.get("state") == "infeasible")

    def held_out(self, record: Any, trials: list[FrozenTrial]) -> list[str]:
        """What is wrong with what the front was found to be on inputs held out."""
        try:
            found = HeldOut.from_dict(record)
            every = [found.baseline, *found.trials.values()]
            names = [each.name for each in self.objectives]
            sound = is_count(found.images, 1) and type(found.source) is str
            sound &= all(_are_values([v[n] for n in names], self.objectives) for v in every)
            sound &= all(is_number(v[n], 0) for v in found.trials.values() for n in RATIOS)
            sound &= all(0 <= number < len(trials) for number in found.trials)
        except (AttributeError, LookupError, TypeError, ValueError):
            sound = False
        return [] if sound else [f"it must be values of trials, got {show(record)}"]

    def _evaluation(self, record: Mapping[str, Any], values: Any, *, is_limited: bool) -> list[str]:
        """What is wrong with an evaluation.

        Args:
            record: as it is stored.
            values: of the objectives, if it has them.
            is_limited: whether it may be infeasible although it has been measured.
        """
        missing = [name for name in _EVALUATION if name not in record]
        if missing:
            return [f"evaluation must have {', '.join(missing)}, got none"]
        state, summary, reason = record["state"], record["summary"], record["reason"]
        states = ("infeasible", "failed") if values is None else ("complete", "infeasible")
        problems = []
        if not is_among(state, states):
            problems.append(f"state must be one of {', '.join(states)}, got {show(state)}")
        if (reason is not None) if state == "complete" else (type(reason) is not str or not reason):
            problems.append(f"reason must be {'nothing' if reason else 'told'}, got {show(reason)}")
        if not is_number(record["seconds"], 0):
            problems.append(f"seconds must be at least 0, got {show(record['seconds'])}")
        images = record["images"]
        if images is not None and (type(images) is not int or images not in self.images):
            known = " or ".join(map(str, sorted(self.images)))
            problems.append(f"images must be {known}, got {show(images)}")
        measured = values is not None or (is_limited and bool(summary))
        if not measured:
            return [*problems, *([] if summary == {} else ["summary must be empty without values"])]
        if values is not None and not _are_values(values, self.objectives):
            rules = ", ".join(objective.rule for objective in self.objectives)
            problems.append(f"values must be {rules}, got {show(values)}")
        problems += [f"summary.{problem}" for problem in summary_problems(summary)]
        if problems or values is None:
            return problems
        return [
            f"{objective.name} must be that of the summary, {same:g}, got {value:g}"
            for objective, value in zip(self.objectives, values, strict=True)
            if (same := objective.recalled(summary)) is not None
            and abs(value - same) > 1e-9 * abs(same)
        ]


def params_problems(frozen: FrozenTrial, parameters: Any) -> Iterator[str]:
    """What is wrong with the parameters of a trial."""
    known = {parameter.name: parameter for parameter in parameters}
    if {*frozen.params} != {*known}:
        odd = sorted({*frozen.params} ^ {*known})
        yield f"parameters must be those of the space, got others: {show(odd)}"
        return
    for name, parameter in known.items():
        stored, is_own = frozen.params[name], frozen.distributions[name] == parameter.distribution
        if parameter.ordered:
            is_own &= type(stored) is int and 0 <= stored < len(parameter.choices)
        else:
            is_own &= _is_choice(stored, parameter.choices)
        if not is_own:
            yield f"{name} must be one of its choices, got {show(stored)}"


def _repeat_problems(frozen: FrozenTrial, repeat_of: Any, trials: list[FrozenTrial]) -> list[str]:
    """A repeat has what an earlier trial has."""
    if repeat_of is None:
        return []
    if not is_count(repeat_of, 0) or repeat_of >= frozen.number:
        return [f"repeat_of must be an earlier trial, got {show(repeat_of)}"]
    if frozen.values != trials[repeat_of].values:
        return [f"values must be those of trial {repeat_of}, which it repeats"]
    return []


def _objectives(specification: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives of a specification; none where it does not describe them."""
    stored, quality = specification.get("objectives"), specification.get("quality")
    if not isinstance(stored, list) or not all(isinstance(each, Mapping) for each in stored):
        return ()
    try:
        return stored_objectives(stored, str(quality) if is_among(quality, QUALITIES) else ACCURACY)
    except ConfigError:
        return ()


def _are_values(values: Any, objectives: Sequence[Objective]) -> bool:
    """Whether they are a value of each objective that can be."""
    return (
        type(values) is list
        and len(values) == len(objectives) > 0
        and all(o.holds(value) for o, value in zip(objectives, values, strict=True))
    )


def _is_plan(plan: Any) -> bool:
    """Whether it can be written as a study file."""
    try:
        return isinstance(plan, Mapping) and bool(tomli_w.dumps(plan))
    except (TypeError, ValueError, AttributeError, RecursionError):
        return False


def is_among(value: Any, known: Any) -> bool:
    """Whether it is one of some texts."""
    return type(value) is str and value in known


def is_count(value: Any, least: int) -> bool:
    """Whether it is a whole number of at least so many."""
    return type(value) is int and least <= value < 2**63


def _is_choice(value: Any, choices: Sequence[Any]) -> bool:
    """By kind too: `True` is not the number 1."""
    return any(type(value) is type(each) and value == each for each in choices)
