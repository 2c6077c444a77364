"""Where a study is kept: an Optuna journal that holds every trial, or a database, and its opening.

One line of the journal is one step, flushed to disk before the next is taken. A trial is asked for
in one line, with all its parameters, and told in a few: what was measured, then its values, which
make it finished. In a database a step is a transaction.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
import tomli_w
from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from accelerators import ConfigError
from codesign.trials import OBJECTIVES
from workloads.writing import write_atomically

FILE_NAME = "study.journal"
PLAN_NAME = "study.toml"
STUDY_NAME = "codesign"
SPECIFICATION = "specification"
# Of the specification and of what is stored of each trial.
FORMAT_VERSION = 2
# What must be the same for a study to go on with the same numbers, and how to call it.
FIXED = {
    "seed": "seed",
    "batch": "batch",
    "space": "design space",
    "objectives": "objectives",
    "optimiser": "optimiser",
    "constraints": "constraints",
    "quality": "kind of accuracy",
    "digest": "workload (its weights and inputs)",
    "first_images": "number of images that every trial is judged on first",
    "calibrate_under_reuse": "choice of calibrating under reuse",
}
# Packages of which another version may give other numbers.
NUMBERS_OF = ("torch", "numpy", "scipy", "numba", "optuna")
DIRECTIONS: list[StudyDirection | Literal["minimize", "maximize"]] = [
    "maximize" if objective.maximise else "minimize" for objective in OBJECTIVES
]


# A journal, or the URL of a database.
Place = Path | str


def study_place(storage: str | Path) -> Place:
    """Where a study is: the URL given, the journal, or `study.journal` in the directory."""
    if isinstance(storage, str) and "://" in storage:
        return storage
    path = Path(storage)
    return path if path.suffix == ".journal" else path / FILE_NAME


def holds_study(place: Place) -> bool:
    """Whether there is a study: a journal with anything in it, or one in the database.

    Raises:
        ConfigError: the database cannot be reached.
    """
    if isinstance(place, Path):
        return place.is_file() and place.stat().st_size > 0
    file = _sqlite_file(place)
    if file is not None and not file.is_file():  # asking would make it
        return False
    with readable(place):
        return STUDY_NAME in optuna.get_all_study_names(_storage(place))


def check_resume(place: Place, *, resume: bool) -> None:
    """There must be a study to go on with, or none.

    Raises:
        ConfigError: it exists or not against `resume`, or the database cannot be reached.
    """
    exists = holds_study(place)
    if exists and not resume:
        raise ConfigError(
            f"{_shown(place)} must not exist, got a study; go on with it by --resume "
            "(resume=True), or give another path"
        )
    if resume and not exists:
        raise ConfigError(
            f"{_shown(place)} must be a study to go on with, got none; start it without --resume"
        )


@contextmanager
def storing(place: Place) -> Iterator[None]:
    """Around steps that write a study: what the disk or the database refuses names it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        raise OSError(errno.EIO, str(cause).partition("\n")[0], _shown(place)) from error


@contextmanager
def locked(place: Place, *, resume: bool) -> Iterator[None]:
    """Hold a journal or a database, to write to it; only one process can at a time.

    A line of a journal that was being written when a process died is cut off. The operating system
    ends the lock with the process, also when it is killed. Processes on different machines are not
    kept apart in a database on a server.

    Args:
        place: the journal, or the URL of the database.
        resume: whether the study must exist, or must not.

    Raises:
        ConfigError: it exists or not against `resume`, or is in use.
        OSError: the disk refuses it, with the place as its filename.
    """
    check_resume(place, resume=resume)
    lock = _lock_file(place)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{_shown(place)} must not be in use, got a search that is running on it; wait for "
                "it, or give another path"
            ) from error
        check_resume(place, resume=resume)  # another may have come and gone since
        with storing(place):
            if isinstance(place, Path):
                # Optuna's own lock, held while it writes one line; nobody else can be writing now.
                Path(f"{place}.lock").unlink(missing_ok=True)
                mend(place)
        yield


@contextmanager
def open_study(
    place: Place, specification: Mapping[str, Any], *, resume: bool
) -> Iterator[optuna.Study]:
    """Open a study to write to it, see `locked`.

    Args:
        place: the journal, or the URL of the database.
        specification: what is searched; stored in a new study, compared with that of an old one.
        resume: whether the study must exist, or must not.

    Raises:
        ConfigError: it exists or not against `resume`, is in use, damaged, or of another search.
        OSError: the disk refuses it, with the place as its filename.
    """
    with locked(place, resume=resume):
        with storing(place):
            study = _open(place, create=True)
            stored = study.user_attrs.get(SPECIFICATION)
            if stored is None and not study.trials:
                study.set_user_attr(SPECIFICATION, dict(specification))
            else:
                _check_format(place, stored or {})
                _compare(place, stored or {}, specification)
                _warn_of_versions(place, stored or {}, specification)
        yield study


def plan_text(plan: Mapping[str, Any]) -> str:
    """A study's plan as the text of its file; see `StudyPlan`."""
    return tomli_w.dumps(plan)


def keep_plan(place: Place, plan: Mapping[str, Any] | None) -> None:
    """Write the plan beside the journal in a study's directory, as `study.toml`."""
    if plan is not None and isinstance(place, Path) and place.name == FILE_NAME:
        write_atomically(place.with_name(PLAN_NAME), plan_text(plan))


def read_study(place: Place) -> optuna.Study:
    """Open a study to look at it, also while a search is running on it.

    Raises:
        ConfigError: there is none, it is damaged, or of another format.
    """
    if isinstance(place, Path) and not place.is_file():
        raise ConfigError(f"{place} must be a study, got no such file; run a search first")
    if isinstance(place, str) and not holds_study(place):
        raise ConfigError(f"{_shown(place)} must hold a study, got none; run a search first")
    study = _open(place, create=False)
    if SPECIFICATION not in study.user_attrs:
        raise ConfigError(
            f"{_shown(place)} must be a study of this program, got one without specification"
        )
    _check_format(place, study.user_attrs[SPECIFICATION])
    return study


def mend(path: Path) -> None:
    """Cut a last line that was not written whole; every line before it stays."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _open(place: Place, *, create: bool) -> optuna.Study:
    # Nothing is asked of this study's own sampler.
    sampler = optuna.samplers.RandomSampler()
    with readable(place):
        storage = _storage(place)
        if create:
            return optuna.create_study(
                study_name=STUDY_NAME,
                storage=storage,
                directions=DIRECTIONS,
                sampler=sampler,
                load_if_exists=True,
            )
        return optuna.load_study(study_name=STUDY_NAME, storage=storage, sampler=sampler)


def _storage(place: Place) -> JournalStorage | RDBStorage:
    if isinstance(place, Path):
        return JournalStorage(JournalFileBackend(str(place)))
    return RDBStorage(place)


@contextmanager
def readable(place: Place) -> Iterator[None]:
    """Around what opens a study: what is no study of this program becomes one error."""
    kind = "file" if isinstance(place, Path) else "database"
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{_shown(place)} must have its database driver installed, got {error}; install it, or "
            "use sqlite:///FILE.db"
        ) from error
    except (
        ValueError, KeyError, TypeError, AssertionError, SQLAlchemyError, StorageInternalError,
    ) as error:  # fmt: skip
        told = str(error).partition("\n")[0]
        raise ConfigError(
            f"{_shown(place)} must be a study of this program, got a damaged or foreign {kind} "
            f"({type(error).__name__}: {told}); restore it or give another path"
        ) from error


def _shown(place: Place) -> str:
    """The place in a message; never a password."""
    if isinstance(place, Path):
        return str(place)
    try:
        return make_url(place).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return place.partition("://")[0] + "://..."


def _sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; `None` for another URL."""
    with readable(url):
        parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, ":memory:")
    return Path(str(parsed.database)) if is_file else None


def _lock_file(place: Place) -> Path:
    """What is locked while a search runs: the journal, or a file for the database."""
    if isinstance(place, Path):
        return place
    file = _sqlite_file(place)
    if file is not None:
        return Path(f"{file}.lock")
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"codesign-{name}.lock"


def _check_format(place: Place, stored: Mapping[str, Any]) -> None:
    """Another format is not read as if it were this one."""
    found = stored.get("format_version")
    if found != FORMAT_VERSION:
        raise ConfigError(
            f"{_shown(place)}: the format_version must be {FORMAT_VERSION}, got {found!r}; use the "
            "version of this program that wrote it, or search again"
        )


def _warn_of_versions(place: Place, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Going on with other packages is allowed."""
    before, now = stored.get("versions", {}), given["versions"]
    changed = [
        f"{package} {before.get(package, 'unknown')} (now {now[package]})"
        for package in NUMBERS_OF
        if before.get(package) != now[package]
    ]
    if changed:
        warnings.warn(
            f"{_shown(place)} was begun with {', '.join(changed)}: its new trials may have other "
            "numbers than if it had gone on with those",
            stacklevel=5,
        )


def _compare(place: Place, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A study goes on only as what it began as."""
    problems = []
    for key, name in FIXED.items():
        if stored.get(key) != given[key]:
            shown = (
                f"{stored.get(key)!r}, got {given[key]!r}"
                if key in ("seed", "batch", "optimiser", "constraints")
                else ("what it was when the study began, got another")
            )
            problems.append(
                f"{_shown(place)}: the {name} must be {shown}; give the same, or another path"
            )
    if problems:
        raise ConfigError(problems)
