"""Where a study is kept: an Optuna journal that holds every trial, or a database, and its opening.

One line of the journal is one step, flushed to disk before the next is taken. A trial is asked for
in one line, with all its parameters, and told in a few: what was measured, then its values, which
make it finished. In a database a step is a transaction.
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import optuna
import tomli_w
from filelock import lock_descriptor
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from accelerators import ConfigError
from codesign.study.journal import CheckedJournal
from codesign.study.same_search import check_same_search
from codesign.study.stored import SPECIFICATION, study_problems
from workloads.errors import told
from workloads.writing import write_atomically

FILE_NAME = "study.journal"
PLAN_NAME = "study.toml"
STUDY_NAME = "codesign"
# Of the specification and of what is stored of each trial.
FORMAT_VERSION = 2
# Within which somebody who only looked whether a study is locked has let it go.
_LOOK_SECONDS = 0.2
# What Optuna keeps a study in; another database with tables is not ours to write to.
_TABLES = frozenset({
    "studies", "study_directions", "study_user_attributes", "trials", "trial_params",
    "trial_values", "trial_user_attributes", "trial_system_attributes", "version_info",
})  # fmt: skip
_SHOWN_PROBLEMS = 5
# What Optuna and SQLAlchemy raise for what they find in a file that is no study.
_FOUND_THERE = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    RuntimeError, SQLAlchemyError, sqlite3.Error, OptunaError,
)  # fmt: skip

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
        ConfigError: the database cannot be reached, or what is there is no file or not Optuna's.
    """
    file = place if isinstance(place, Path) else _sqlite_file(place)
    if file is not None:
        check_regular(file)
        if not file.is_file() or not file.stat().st_size:  # asking would make it
            return False
    if isinstance(place, Path):
        return True
    if file is not None:
        _check_database(place, file)
    with readable(place):
        return STUDY_NAME in optuna.get_all_study_names(RDBStorage(place))


def check_regular(path: Path) -> None:
    """A directory is no study, and reading a device or a pipe may never end.

    Raises:
        ConfigError: there is something that is no file.
    """
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "a device or a pipe"
        raise ConfigError(f"{path} must be a file, got {kind}; give another path")


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

    The operating system ends the lock with the process, also when it is killed. Processes on
    different machines are not kept apart in a database on a server.

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
        if not _lock(file):
            raise ConfigError(
                f"{_shown(place)} must not be in use, got a search that is running on it; wait for "
                "it, or give another path"
            )
        check_resume(place, resume=resume)  # another may have come and gone since
        yield


@contextmanager
def open_study(
    place: Place, specification: Mapping[str, Any], *, resume: bool
) -> Iterator[optuna.Study]:
    """Open a study to write to it, see `locked`.

    All of a study that is there is checked before anything is written. A line of a journal that was
    being written when a process died is cut off then.

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
            storage, journal = open_storage(place, only=STUDY_NAME)
            create = None if resume else _directions_in(specification)
            study = _open(place, storage, create=create)
            is_begun = SPECIFICATION in study.user_attrs or len(study.trials) > 0
            if is_begun:
                _check(place, study)
                stored = study.user_attrs[SPECIFICATION]
                check_same_search(_shown(place), stored, specification)
            if journal is not None:
                journal.mend()
            if not is_begun:
                study.set_user_attr(SPECIFICATION, dict(specification))
        yield study


def is_in_use(place: Place) -> bool | None:
    """Whether a search is running on a study; `None` where nobody can tell, as on a server."""
    if isinstance(place, str) and _sqlite_file(place) is None:
        return None
    try:
        with _lock_file(place).open("rb") as file:
            return not _lock(file)
    except FileNotFoundError:
        return False
    except OSError:  # a disk without locks
        return None


def _lock(file: BinaryIO) -> bool:
    """Lock a file if nobody holds it for longer than a look; it ends when the file is closed."""
    if lock_descriptor(file.fileno(), blocking=False):
        return True
    time.sleep(_LOOK_SECONDS)
    return lock_descriptor(file.fileno(), blocking=False)


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
    if not holds_study(place):
        if isinstance(place, str):
            raise ConfigError(f"{_shown(place)} must hold a study, got none; run a search first")
        found = "an empty file" if place.is_file() else "no such file"
        raise ConfigError(f"{place} must be a study, got {found}; run a search first")
    storage, _ = open_storage(place, only=STUDY_NAME)
    study = _open(place, storage)
    if SPECIFICATION not in study.user_attrs:
        raise ConfigError(
            f"{_shown(place)} must be a study of this program, got one without specification"
        )
    _check(place, study)
    return study


def stored_specification(place: Place) -> Mapping[str, Any] | None:
    """What a study that is there searches; `None` where it was cut off before it said so.

    Raises:
        ConfigError: it is damaged, or of another format.
    """
    storage, _ = open_storage(place, only=STUDY_NAME)
    study = _open(place, storage)
    if SPECIFICATION not in study.user_attrs:
        return None
    _check(place, study)
    return study.user_attrs[SPECIFICATION]


def open_storage(
    place: Place, *, only: str | None
) -> tuple[JournalStorage | RDBStorage, CheckedJournal | None]:
    """Read a journal or reach a database.

    Args:
        place: the journal, or the URL of the database.
        only: the name that a journal's one study must have, or `None` for any names.

    Returns:
        The storage, and the journal if it is one.

    Raises:
        ConfigError: it is damaged or foreign, or the database cannot be reached.
    """
    if isinstance(place, Path):
        journal = CheckedJournal(place, only=only)
        with readable(place, journal):
            return JournalStorage(journal), journal
    with readable(place):
        return RDBStorage(place), None


def directions(maximise: Iterable[bool]) -> list[StudyDirection]:
    """For each objective Optuna's direction, where more is better or not."""
    return [StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE for more in maximise]


def _directions_in(specification: Mapping[str, Any]) -> list[StudyDirection]:
    return directions(each["maximise"] for each in specification["objectives"])


def _open(
    place: Place,
    storage: JournalStorage | RDBStorage,
    *,
    create: Sequence[StudyDirection] | None = None,
) -> optuna.Study:
    """The study that is there, or a new one of objectives of these directions."""
    # Nothing is asked of this study's own sampler.
    sampler = optuna.samplers.RandomSampler()
    with readable(place):
        if create is not None:
            return optuna.create_study(
                study_name=STUDY_NAME,
                storage=storage,
                directions=create,
                sampler=sampler,
            )
        return optuna.load_study(study_name=STUDY_NAME, storage=storage, sampler=sampler)


def _check(place: Place, study: optuna.Study) -> None:
    """All that a study holds must be what this program writes.

    Raises:
        ConfigError: it is of another format, or something is not.
    """
    with readable(place):
        attributes, trials = study.user_attrs, study.get_trials(deepcopy=False)
    stored = attributes.get(SPECIFICATION)
    found = stored.get("format_version") if isinstance(stored, Mapping) else FORMAT_VERSION
    if found != FORMAT_VERSION:  # not read as if it were this one
        raise ConfigError(
            f"{_shown(place)}: the format_version must be {FORMAT_VERSION}, got {found!r}; use the "
            "version of this program that wrote it, or search again"
        )
    problems = study_problems(attributes, trials)
    if not problems and study.directions != _directions_in(attributes[SPECIFICATION]):
        problems = [f"directions must be those of the objectives, got {study.directions}"]
    if problems:
        raise damaged(place, problems)


def damaged(place: Place, problems: Sequence[str]) -> ConfigError:
    """The error of a study that does not hold what this program writes."""
    kind = "file" if isinstance(place, Path) else "database"
    more = len(problems) - _SHOWN_PROBLEMS
    return ConfigError(
        [
            f"{_shown(place)} must be a study of this program, got a damaged or foreign {kind}; "
            "restore it or give another path",
            *problems[:_SHOWN_PROBLEMS],
            *([f"and {more} more"] if more > 0 else []),
        ]
    )


@contextmanager
def readable(place: Place, journal: CheckedJournal | None = None) -> Iterator[None]:
    """Around what opens or reads a study: what is no study of this program becomes one error."""
    kind = "file" if isinstance(place, Path) else "database"
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{_shown(place)} must have its database driver installed, got {error}; install it, or "
            "use sqlite:///FILE.db"
        ) from error
    except (ConfigError, OSError):
        raise
    except _FOUND_THERE as error:
        where = "" if journal is None else f" in {journal.place}"
        raise ConfigError(
            f"{_shown(place)} must be a study of this program, got a damaged or foreign {kind}"
            f"{where} ({told(error)}); restore it or give another path"
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


def _check_database(url: str, file: Path) -> None:
    """An SQLite database must be whole, and empty or Optuna's; nothing is written to find out.

    Raises:
        ConfigError: it is not.
    """
    # What a killed process left half done has to be undone by a writer.
    mode = "rw" if Path(f"{file}-journal").exists() else "ro"
    with readable(url):
        address = f"{file.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True)) as database:
            asked = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {str(name) for (name,) in asked}
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise ValueError(str(found))
        missing = sorted(_TABLES - tables)
        if tables and missing:
            raise ValueError(f"no table {', '.join(missing)}")


def _lock_file(place: Place) -> Path:
    """What is locked while a search runs: the journal, or a file for the database."""
    if isinstance(place, Path):
        return place
    file = _sqlite_file(place)
    if file is not None:
        return Path(f"{file}.lock")
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"codesign-{name}.lock"
