"""Where a command writes: looked at before it works, so that what it finds is not lost."""

from __future__ import annotations

import os
from pathlib import Path

from accelerators import ConfigError


def check_files(**paths: Path | None) -> None:
    """Refuse what cannot be written as a file; missing directories are made when it is.

    Args:
        paths: option, such as `html` for `--html` -> path, or `None` where it is not given.

    Raises:
        ConfigError: with each path, the rule and the fix.
    """
    problems = []
    for option, path in paths.items():
        problem = None if path is None else _file_problem(Path(os.path.realpath(path)))
        if problem is not None:
            problems.append(f"--{option} {path} must be a file that can be written, got {problem}")
    if problems:
        raise ConfigError(problems)


def check_directory(path: Path) -> None:
    """Refuse `--out` where it cannot be made, or nothing can be written into it.

    Raises:
        ConfigError: with the path, the rule and the fix.
    """
    problem = _directory_problem(Path(os.path.realpath(path)))
    if problem is not None:
        raise ConfigError(f"--out {path} must be a directory to write into, got {problem}")


def _file_problem(path: Path) -> str | None:
    if path.is_dir():
        return "a directory; name a file in it"
    if path.exists() and not os.access(path, os.W_OK):
        return "one that is read-only; give another path"
    if path.exists() and not path.is_file():
        return None  # such as /dev/stdout, which is written to directly
    return _directory_problem(path.parent)


def _directory_problem(path: Path) -> str | None:
    """Of the directory or, where there is none, of the one in which it would be made."""
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        return f"the file {there} in its place; give another path"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there}, which is read-only; give another path"
    return None
