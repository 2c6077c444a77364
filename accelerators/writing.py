"""Writes text files whole or not at all, as `workloads.writing` does for the rest."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: str | Path, text: str) -> None:
    """Write a file beside the one that is there, and put it into its place.

    A link is followed; what is no regular file, such as `/dev/stdout`, is written to directly.

    Args:
        path: of the file; its folder must exist.
        text: written as UTF-8, line ends as they are.

    Raises:
        OSError: with `path` as its filename; what was there is there still.
    """
    target, data = Path(os.path.realpath(path)), text.encode()
    new = target.with_name(f".{target.name[:40]}.{os.getpid()}.new")
    try:
        if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
            target.write_bytes(data)
            return
        try:
            new.write_bytes(data)
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
