"""Writes text files whole or not at all, as `workloads.writing` does for the rest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_whole(path: str | Path, text: str) -> None:
    """Write a file beside the one that is there, and put it into its place.

    A link is followed, and the mode of a file that was there is kept; what is no regular file, such
    as `/dev/stdout`, is written to directly.

    Args:
        path: of the file; its folder must exist.
        text: written as UTF-8, line ends as they are.

    Raises:
        OSError: with `path` as its filename; what was there is there still.
    """
    target, data = Path(os.path.realpath(path)), text.encode()
    new = target.with_name(f".{target.name[:40]}.{os.getpid()}.new")
    try:
        # Not of the target: where `/dev/stdout` is a pipe, its link leads to no path.
        if os.path.exists(path) and not (target.is_file() and os.access(target, os.W_OK)):
            Path(path).write_bytes(data)
            return
        try:
            new.write_bytes(data)
            if target.exists():
                shutil.copymode(target, new)
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
