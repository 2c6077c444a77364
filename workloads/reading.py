"""What every reader asks of a path before it reads: a regular file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from workloads.errors import InputError, show


def regular_file(
    path: object, what: str, error: type[InputError], *, also: str = "", fix: str = ""
) -> Path:
    """The path of a file that ends, its user's home expanded.

    A device such as /dev/zero or a pipe would be read without an end, or wait for one.

    Args:
        path: a text or path.
        what: what the file is, such as "weights"; begins the message.
        error: what is raised.
        also: what else the reader takes, in words after "an existing file".
        fix: what to do instead; a sentence's end.

    Raises:
        InputError: of the class `error`: the path names no regular file.
    """
    got = ""
    try:
        expanded = Path(path).expanduser()  # type: ignore[arg-type]
        mode = os.stat(expanded).st_mode
        if stat.S_ISREG(mode):
            return expanded
        got = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
    except FileNotFoundError:
        got = "nothing of that name"
    except OSError as reason:
        got = reason.strerror or "what the system can't find"
    except (TypeError, ValueError, RuntimeError):  # no path, a null byte in it, no such user's home
        got = "what is no path"
    shown = show(str(path) if isinstance(path, str | os.PathLike) else path)
    raise error(
        f"{what} must be an existing file{also}, got {shown} ({got}){f'; {fix}' if fix else ''}"
    )


def refuse_endless(path: str | bytes | os.PathLike[str]) -> None:
    """Raise an OSError for a device or a pipe, whose reading may not end; for nothing else."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a device or a pipe, no file", os.fsdecode(path))
