"""Writes files whole or not at all: what was there before stays until all is written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Of the name of what is written beside: with more, a name as long as can be would be too long.
_SHOWN_NAME = 40
# What a killed process left is that of nobody after so long without a change.
_ABANDONED_S = 60.0


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give the path of a new file in the same folder, which takes the place of `path` at the end.

    A link is followed, and the mode of a file that was there is kept. What is no regular file, such
    as `/dev/stdout`, is given itself. If anything is raised, `path` stays as it was and nothing is
    left beside it; what a killed process left there of a file of that name is removed.

    Args:
        path: of the file; its folder must exist.

    Raises:
        OSError: it can't be written; with `path` as its filename.
    """
    given, target = Path(path), Path(os.path.realpath(path))
    new = target.with_name(f".{target.name[:_SHOWN_NAME]}.{os.getpid()}.new")
    with naming(path, new):
        # Not of the target: where `/dev/stdout` is a pipe, its link leads to no path.
        if given.exists() and not given.is_file():
            yield given
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _clear_abandoned(target)
        try:
            yield new
            with new.open("rb") as file:
                os.fsync(file.fileno())  # some file systems find only then that they are full
            if target.exists():
                shutil.copymode(target, new)
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)


def write_atomically(path: str | Path, text: str) -> Path:
    """Write a text file as `replacing` does.

    Args:
        path: of the file.
        text: written as UTF-8, line ends as they are; what has no UTF-8, such as a file name of
            other bytes, is escaped.

    Returns:
        The path as given.

    Raises:
        OSError: with `path` as its filename.
    """
    with replacing(path) as new:
        new.write_bytes(text.encode(errors="backslashreplace"))
    return Path(path)


@contextmanager
def naming(path: str | Path, own: Path) -> Iterator[None]:
    """Say of what can't be written how the user calls it, and what to do where there is no room.

    Args:
        path: as it was given.
        own: the file or directory that is written in its place, `path` itself if it is temporary;
            an error of another file passes.

    Raises:
        OSError: with `path` as its filename.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe has seen enough
        raise
    except Exception as error:
        number = _error_number(error)
        name = getattr(error, "filename", None)
        if number is None or not (name is None or own in (Path(name), *Path(name).parents)):
            raise
        raise OSError(number, _reason(number, temporary=Path(path) == own), str(path)) from error


def _clear_abandoned(target: Path) -> None:
    """Remove what processes that are gone had begun to write in place of a file."""
    begun = re.compile(rf"\.{re.escape(target.name[:_SHOWN_NAME])}\.(\d{{1,9}})\.new")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            found = begun.fullmatch(entry.name)
            if found is None or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):  # another process was faster
                is_old = time.time() - entry.stat().st_mtime > _ABANDONED_S
                if is_old and _is_gone(int(found[1])):
                    os.unlink(entry.path)


def _is_gone(process: int) -> bool:
    """Whether no process of this machine has that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's
        return False
    return False


def _error_number(error: Exception) -> int | None:
    """Of the system's error, also where safetensors tells it; None for any other."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told and type(error).__module__.startswith("safetensors") else None


def _reason(number: int, *, temporary: bool) -> str:
    if number not in _FULL:
        return os.strerror(number)
    fix = "set TMPDIR to a folder that has some" if temporary else "write to another place"
    return f"{os.strerror(number)}; make room there, or {fix}"
