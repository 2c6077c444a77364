"""Where a command writes: looked at before it works, so that what it finds is not lost."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from accelerators import ConfigError


def check_files(*, inputs: Iterable[Path | None] = (), **paths: Path | None) -> None:
    """Refuse what cannot be written as a file; missing directories are made when it is.

    Args:
        inputs: files that are read, which none may take the place of.
        paths: option, such as `html` for `--html` -> path, or `None` where it is not given.

    Raises:
        ConfigError: with each path, the rule and the fix.
    """
    problems = []
    taken = {_real(path): "one that is read" for path in inputs if path is not None}
    for option, path in paths.items():
        if path is None:
            continue
        real = _real(path)
        problem = _file_problem(real)
        if problem is None and real in taken and not _is_device(real):
            problem = f"{taken[real]}; give another path"
        if problem is not None:
            problems.append(f"--{option} {path} must be a file that can be written, got {problem}")
        taken[real] = f"that of --{option}"
    if problems:
        raise ConfigError(problems)


def check_directory(path: Path, *, replaced: bool = False) -> None:
    """Refuse `--out` where it cannot be made, or nothing can be written into it.

    Args:
        path: the directory.
        replaced: it is written beside and moved to its place, for which its parent must be
            writable and itself no mount point.

    Raises:
        ConfigError: with the path, the rule and the fix.
    """
    real = _real(path)
    problem = _directory_problem(real)
    if problem is None and replaced and os.path.ismount(real):
        problem = "a mount point, which cannot be replaced; name a directory in it"
    if problem is None and replaced:
        problem = _directory_problem(real.parent)
    if problem is not None:
        raise ConfigError(f"--out {path} must be a directory to write into, got {problem}")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_device(path: Path) -> bool:
    """Such as /dev/stdout, which is written to directly."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _file_problem(path: Path) -> str | None:
    if path.is_dir():
        return "a directory; name a file in it"
    if path.exists() and not os.access(path, os.W_OK):
        return "one that is read-only; give another path"
    if _is_device(path):
        return None
    return _directory_problem(path.parent)


def _directory_problem(path: Path) -> str | None:
    """Of the directory or, where there is none, of the one in which it would be made."""
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        return f"the file {there} in its place; give another path"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there}, which is read-only; give another path"
    return None
