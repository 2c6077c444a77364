"""The file of a nested search: an Optuna journal with a study for each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from accelerators import PROJECTIONS, ConfigError
from accelerators.rules import show
from codesign.evaluation.layers import LAYER_OBJECTIVES
from codesign.evaluation.objective import Objective, directions_of
from codesign.space.parameters import Parameter
from codesign.study.records import record_of
from codesign.study.store import (
    check_regular,
    damaged,
    directions,
    locked,
    open_storage,
    readable,
    storing,
)
from codesign.study.stored import (
    SPECIFICATION,
    is_among,
    is_count,
    params_problems,
    stored_parameters,
)
from simulator.results.stored import is_number

FORMAT_VERSION = 1
ACQUISITIONS = ("logehvi", "ei")
DIRECTIONS = directions(directions_of(LAYER_OBJECTIVES))
# Attributes of a trial that is told, and of one of an earlier version.
_TOLD, _TOLD_BEFORE = {"origin", "evaluation"}, {"reason", "seconds"}
# What is chosen of a layer's reuse; the first two of every layer.
_SETTINGS = ("hashes", "length", "thresholds", "order")


@contextmanager
def open_layers(
    path: Path, specifications: Mapping[str, Mapping[str, Any]], *, resume: bool
) -> Iterator[dict[str, optuna.Study]]:
    """Open the study of each layer to write to it; only one process can at a time.

    Args:
        path: the journal.
        specifications: layer -> what is searched; stored in a new file, compared with an old one.
        resume: whether the file must exist, or must not.

    Raises:
        ConfigError: it exists or not against `resume`, is in use, damaged, or of another search.
        OSError: the disk refuses it, with `path` as its filename.
    """
    with locked(path, resume=resume):
        with storing(path):
            storage, journal = open_storage(path, only=None)
            there = [study.study_name for study in storage.get_all_studies()]
            # A search that was cut off at once has stored only the first of the layers.
            if there != list(specifications)[: len(there)]:
                raise ConfigError(
                    f"{path}: the layers must be {', '.join(there)}, got "
                    f"{', '.join(specifications)}; give the same, or another path"
                )
            studies = {name: optuna.load_study(study_name=name, storage=storage) for name in there}
            for name, study in studies.items():
                if study.user_attrs or study.trials:
                    _check(path, study)
                    _compare(path, study, specifications[name])
            if journal is not None:
                journal.mend()
            for name, given in specifications.items():
                if name not in there:
                    studies[name] = optuna.create_study(
                        study_name=name, storage=storage, directions=DIRECTIONS
                    )
                if SPECIFICATION not in studies[name].user_attrs:
                    studies[name].set_user_attr(SPECIFICATION, dict(given))
        yield studies


def read_layers(path: Path) -> dict[str, optuna.Study]:
    """Layer -> its study, also while a search is running.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    check_regular(path)
    if not path.is_file():
        raise ConfigError(
            f"{path} must be a nested search, got no such file; run `codesign nested` "
            "(nested_search) first"
        )
    storage, _ = open_storage(path, only=None)
    with readable(path):
        names = [study.study_name for study in storage.get_all_studies()]
        studies = {name: optuna.load_study(study_name=name, storage=storage) for name in names}
    found = {name: study for name, study in studies.items() if study.user_attrs or study.trials}
    first = next(iter(found.values())).user_attrs.get(SPECIFICATION) if found else None
    if not isinstance(first, Mapping) or "parameters" not in first:
        raise ConfigError(f"{path} must be a nested search, got another study; see load_study")
    for study in found.values():
        _check(path, study)
    return found


def _check(path: Path, study: optuna.Study) -> None:
    """All that is stored of a layer must be what this program writes.

    Raises:
        ConfigError: something is not.
    """
    with readable(path):
        attributes, trials = study.user_attrs, study.get_trials(deepcopy=False)
    specification = attributes.get(SPECIFICATION)
    problems = _specification_problems(specification)
    if study.directions != DIRECTIONS or {*attributes} != {SPECIFICATION}:
        problems.append("it must be of a nested search, got another study")
    if isinstance(specification, Mapping) and not problems:
        parameters = stored_parameters(specification["parameters"])
        problems += [
            f"setting {frozen.number}: {problem}"
            for frozen in trials
            for problem in _trial_problems(frozen, parameters)
        ]
    if problems:
        raise damaged(path, [f"layer {study.study_name!r}: {problem}" for problem in problems])


def _specification_problems(given: Any) -> list[str]:
    """Rules that the specification of a layer breaks."""
    if not isinstance(given, Mapping):
        return [f"specification must be a table, got {show(given)}"]
    names = [each.name for each in stored_parameters(given.get("parameters"))]
    seed = given.get("seed")
    rules = {
        "format_version": given.get("format_version") == FORMAT_VERSION,
        "name": type(given.get("name")) is str,
        "seed": type(seed) is int and seed >= 0,
        "projection": is_among(given.get("projection"), PROJECTIONS),
        "acquisition": is_among(given.get("acquisition"), ACQUISITIONS),
        "digest": type(given.get("digest")) is str,
        "images": is_count(given.get("images"), 1),
        "parameters": {*_SETTINGS[:2]} <= {*names} <= {*_SETTINGS} and len({*names}) == len(names),
    }
    return [
        f"specification.{name} must be as this program writes it, got {show(given.get(name))}"
        for name, holds in rules.items()
        if not holds
    ]


def _trial_problems(frozen: FrozenTrial, parameters: Sequence[Parameter]) -> list[str]:
    """What is wrong with a setting of a layer."""
    problems = list(params_problems(frozen, parameters))
    if frozen.state == TrialState.RUNNING:
        return problems  # what was measured is told before it is finished, and told again
    record = record_of(frozen)
    if not isinstance(record, Mapping) or not {"reason", "seconds"} <= {*record}:
        return [*problems, f"reason and seconds must be told, got {show(frozen.user_attrs)}"]
    if not is_number(record["seconds"], 0):
        problems.append(f"seconds must be at least 0, got {show(record['seconds'])}")
    if frozen.state == TrialState.COMPLETE:
        values = frozen.values
        whole = type(values) is list and len(values) == len(LAYER_OBJECTIVES)
        held = whole and all(map(Objective.holds, LAYER_OBJECTIVES, values))
        if not held or record["reason"] is not None or record["state"] != "complete":
            problems.append(f"error must be at least 0 and compression 1, got {show(values)}")
    elif frozen.state != TrialState.FAIL or type(record["reason"]) is not str:
        problems.append("it must be complete, or have failed for a reason")
    elif record["state"] != "failed":
        problems.append(f"state must be 'failed', got {show(record['state'])}")
    if not ({*frozen.user_attrs} == _TOLD_BEFORE or {*frozen.user_attrs} == _TOLD):
        problems.append(f"it must be a setting, got {show(sorted(frozen.user_attrs))}")
    return problems


def _compare(path: Path, study: optuna.Study, given: Mapping[str, Any]) -> None:
    """A search goes on only as what it began as."""
    stored = study.user_attrs[SPECIFICATION]
    changed = [key for key in given if stored.get(key) != given[key]]
    if changed:
        raise ConfigError(
            f"{path}: {', '.join(changed)} must be what the search of layer "
            f"{study.study_name!r} began with, got another; give the same, or another path"
        )
