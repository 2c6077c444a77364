"""The file of a nested search: an Optuna journal with a study for each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from accelerators import ConfigError
from codesign.store import SPECIFICATION, locked, readable, storing

# Error is made small, compression large.
DIRECTIONS: tuple[Literal["minimize", "maximize"], ...] = ("minimize", "maximize")


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
            storage = _storage(path)
            there = [study.study_name for study in storage.get_all_studies()]
            # A search that was cut off at once has stored only the first of the layers.
            if there != list(specifications)[: len(there)]:
                raise ConfigError(
                    f"{path}: the layers must be {', '.join(there)}, got "
                    f"{', '.join(specifications)}; give the same, or another path"
                )
            studies = {
                name: optuna.create_study(
                    study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True
                )
                for name in specifications
            }
            for name, study in studies.items():
                _check_specification(path, study, specifications[name])
        yield studies


def read_layers(path: Path) -> dict[str, optuna.Study]:
    """Layer -> its study, also while a search is running.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path} must be a nested search, got no such file; run `codesign nested` "
            "(nested_search) first"
        )
    storage = _storage(path)
    studies = {
        study.study_name: optuna.load_study(study_name=study.study_name, storage=storage)
        for study in storage.get_all_studies()
    }
    found = {name: study for name, study in studies.items() if SPECIFICATION in study.user_attrs}
    if not found or "parameters" not in next(iter(found.values())).user_attrs[SPECIFICATION]:
        raise ConfigError(f"{path} must be a nested search, got another study; see load_study")
    return found


def _storage(path: Path) -> JournalStorage:
    with readable(path):
        return JournalStorage(JournalFileBackend(str(path)))


def _check_specification(path: Path, study: optuna.Study, given: Mapping[str, Any]) -> None:
    """A search goes on only as what it began as."""
    stored = study.user_attrs.get(SPECIFICATION)
    if stored is None:
        study.set_user_attr(SPECIFICATION, dict(given))
        return
    changed = [key for key in given if stored.get(key) != given[key]]
    if changed:
        raise ConfigError(
            f"{path}: {', '.join(changed)} must be what the search of layer "
            f"{study.study_name!r} began with, got another; give the same, or another path"
        )
