"""Writing a report's files."""

import os
from pathlib import Path


def write_atomically(path: str | Path, text: str) -> Path:
    """Write a text file as a whole or not at all: what was at `path` stays until all is written.

    What is no regular file, such as `/dev/stdout`, is written to directly.

    Args:
        path: of the file; a link is followed.
        text: written as UTF-8, line ends as they are.

    Returns:
        The path as given.

    Raises:
        OSError: with `path` as its filename.
    """
    path, data = Path(path), text.encode()
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return path
        new = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            new.write_bytes(data)
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path
