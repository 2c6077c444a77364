"""The study file: an Optuna journal that holds every trial, and how it is opened.

One line of the journal is one step, flushed to disk before the next is taken. A trial is asked for
in one line, with all its parameters, and told in two: what was measured, then its values.
"""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from accelerators import ConfigError
from codesign.trials import OBJECTIVES

FILE_NAME = "study.journal"
STUDY_NAME = "codesign"
SPECIFICATION = "specification"
# Of the specification and of what is stored of each trial.
FORMAT_VERSION = 1
# What must be the same for a study to go on with the same numbers, and how to call it.
FIXED = {
    "seed": "seed",
    "batch": "batch",
    "space": "design space",
    "objectives": "objectives",
    "quality": "kind of accuracy",
    "digest": "workload (its weights and inputs)",
    "first_images": "number of images that every trial is judged on first",
}
# Packages of which another version may give other numbers.
NUMBERS_OF = ("torch", "numpy", "scipy", "numba", "optuna")
DIRECTIONS: list[StudyDirection | Literal["minimize", "maximize"]] = [
    "maximize" if objective.maximise else "minimize" for objective in OBJECTIVES
]


def study_file(path: str | Path) -> Path:
    """The journal that `path` means: itself, or `study.journal` in a directory."""
    path = Path(path)
    return path if path.suffix == ".journal" else path / FILE_NAME


def holds_study(path: Path) -> bool:
    """Whether there is a journal with anything in it."""
    return path.is_file() and path.stat().st_size > 0


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around steps that write to the journal: what the disk refuses names the file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path, *, resume: bool) -> Iterator[None]:
    """Hold a journal, to write to it; only one process can at a time.

    A line that was being written when a process died is cut off. The operating system ends the
    lock with the process, also when it is killed.

    Args:
        path: the journal.
        resume: whether the study must exist, or must not.

    Raises:
        ConfigError: it exists or not against `resume`, or is in use.
        OSError: the disk refuses it, with `path` as its filename.
    """
    exists = holds_study(path)
    if exists and not resume:
        raise ConfigError(
            f"{path} must not exist, got a study; go on with it by --resume (resume=True), or give "
            "another path"
        )
    if resume and not exists:
        raise ConfigError(
            f"{path} must be a study to go on with, got none; start it without --resume"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{path} must not be in use, got a search that is running on it; wait for it, or "
                "give another path"
            ) from error
        # Optuna's own lock, held while it writes one line; nobody else can be writing now.
        with storing(path):
            Path(f"{path}.lock").unlink(missing_ok=True)
            mend(path)
        yield


@contextmanager
def open_study(
    path: Path, specification: Mapping[str, Any], *, resume: bool
) -> Iterator[optuna.Study]:
    """Open a study to write to it, see `locked`.

    Args:
        path: the journal.
        specification: what is searched; stored in a new study, compared with that of an old one.
        resume: whether the study must exist, or must not.

    Raises:
        ConfigError: it exists or not against `resume`, is in use, damaged, or of another search.
        OSError: the disk refuses it, with `path` as its filename.
    """
    with locked(path, resume=resume):
        with storing(path):
            study = _open(path, create=True)
            stored = study.user_attrs.get(SPECIFICATION)
            if stored is None and not study.trials:
                study.set_user_attr(SPECIFICATION, dict(specification))
            else:
                _check_format(path, stored or {})
                _compare(path, stored or {}, specification)
                _warn_of_versions(path, stored or {}, specification)
        yield study


def read_study(path: Path) -> optuna.Study:
    """Open a study to look at it, also while a search is running on it.

    Raises:
        ConfigError: there is none, it is damaged, or of another format.
    """
    if not path.is_file():
        raise ConfigError(f"{path} must be a study, got no such file; run a search first")
    study = _open(path, create=False)
    if SPECIFICATION not in study.user_attrs:
        raise ConfigError(f"{path} must be a study of this program, got one without specification")
    _check_format(path, study.user_attrs[SPECIFICATION])
    return study


def mend(path: Path) -> None:
    """Cut a last line that was not written whole; every line before it stays."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _open(path: Path, *, create: bool) -> optuna.Study:
    # Nothing is asked of this study's own sampler.
    sampler = optuna.samplers.RandomSampler()
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        if create:
            return optuna.create_study(
                study_name=STUDY_NAME,
                storage=storage,
                directions=DIRECTIONS,
                sampler=sampler,
                load_if_exists=True,
            )
        return optuna.load_study(study_name=STUDY_NAME, storage=storage, sampler=sampler)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"{path} must be a study of this program, got a damaged or foreign file "
            f"({type(error).__name__}: {error}); restore it or give another path"
        ) from error


def _check_format(path: Path, stored: Mapping[str, Any]) -> None:
    """Another format is not read as if it were this one."""
    found = stored.get("format_version")
    if found != FORMAT_VERSION:
        raise ConfigError(
            f"{path}: the format_version must be {FORMAT_VERSION}, got {found!r}; use the version "
            "of this program that wrote it, or search again"
        )


def _warn_of_versions(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Going on with other packages is allowed."""
    before, now = stored.get("versions", {}), given["versions"]
    changed = [
        f"{package} {before.get(package, 'unknown')} (now {now[package]})"
        for package in NUMBERS_OF
        if before.get(package) != now[package]
    ]
    if changed:
        warnings.warn(
            f"{path} was begun with {', '.join(changed)}: its new trials may have other numbers "
            "than if it had gone on with those",
            stacklevel=5,
        )


def _compare(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A study goes on only as what it began as."""
    problems = []
    for key, name in FIXED.items():
        if stored.get(key) != given[key]:
            shown = (
                f"{stored.get(key)!r}, got {given[key]!r}"
                if key in ("seed", "batch")
                else ("what it was when the study began, got another")
            )
            problems.append(f"{path}: the {name} must be {shown}; give the same, or another path")
    if problems:
        raise ConfigError(problems)
