"""What every reader here asks of a path before it reads."""

from __future__ import annotations

import errno
import os
import stat


def refuse_endless(path: str | bytes | os.PathLike[str]) -> None:
    """Raise an OSError for a device or a pipe, whose reading may not end; for nothing else."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a device or a pipe, no file", os.fsdecode(path))
