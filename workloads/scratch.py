"""Directories for what is not yet whole; what a killed process left of them goes at the next start.

Each holds a file that is locked for as long as its process lives: the operating system ends the
lock with the process, however that ends. A directory whose lock can be had is nobody's any more.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import lock_descriptor

# The locked file: a directory without it is not ours.
MARK = ".codesign-scratch"
# In a scratch directory, what was at the place of the one that will be published from it.
REPLACED = "replaced"
_TRACES = "trace-"
_LONGEST_MARK = 10_000


class Scratch:
    """A directory that goes with the last reference to it, or with the process.

    Args:
        parent: where it is made.
        prefix: of its name.
        target: a directory in `parent` that it will be moved to.

    Attributes:
        path: of the directory.
        remove: takes it away; it may be called again.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, parent: Path, prefix: str, target: Path | None = None) -> None:
        clear_abandoned(parent, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = _marked(self.path, target)
            self.remove = weakref.finalize(self, _remove, self.path, lock)
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    @classmethod
    def temporary(cls) -> Self:
        """In the folder for temporary files, for a trace that is kept nowhere else."""
        return cls(Path(tempfile.gettempdir()), _TRACES)

    @classmethod
    def beside(cls, target: Path) -> Self:
        """In the folder of a trace that will be written there."""
        return cls(target.parent, _prefix(target), target)


def clear_temporary() -> None:
    """Remove what killed processes left in the folder for temporary files."""
    with suppress(OSError):  # there may be no such folder
        clear_abandoned(Path(tempfile.gettempdir()), _TRACES)


def restore(target: Path) -> None:
    """Put back the trace that a killed process had moved away to put another in its place."""
    with suppress(OSError, ValueError):  # a name that no file can have: who opens it says so
        if not target.exists():
            target = Path(os.path.realpath(target))  # a trace is published where a link leads
            clear_abandoned(target.parent, _prefix(target))


def clear_abandoned(parent: Path, prefix: str) -> None:
    """Remove scratch directories of this user, made on this machine, whose process is gone.

    What one of them holds of a trace that nothing has replaced yet is moved back.
    """
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError, ValueError):  # another process was faster, or no mark
                    _clear(Path(entry.path))


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}.new-"  # with the whole name, a long one would be too long


def _marked(path: Path, target: Path | None) -> int:
    """Lock a new directory; gives the open file."""
    lock = os.open(path / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # without locks nobody else can have it, so it counts as in use
        lock_descriptor(lock, blocking=False)
    # Only then: while the mark is empty, the directory is not taken for abandoned.
    mark = {"host": os.uname().nodename, "target": None if target is None else target.name}
    os.write(lock, json.dumps(mark).encode())
    return lock


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _clear(path: Path) -> None:
    """Remove one directory, if it is abandoned."""
    file = os.open(path / MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owners = {os.fstat(file).st_uid, os.lstat(path).st_uid}
        mark = _read_mark(file)
        if owners != {os.getuid()} or mark is None or mark.get("host") != os.uname().nodename:
            return
        if not lock_descriptor(file, blocking=False):  # its process lives
            return
        target, replaced = mark.get("target"), path / REPLACED
        if isinstance(target, str) and replaced.is_dir() and Path(target).name == target:
            with suppress(OSError):  # the new trace is there: the old one has had its time
                os.rename(replaced, path.with_name(target))
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(file)


def _read_mark(file: int) -> dict[str, Any] | None:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return None
    mark = json.loads(os.read(file, _LONGEST_MARK))
    return mark if isinstance(mark, dict) else None
