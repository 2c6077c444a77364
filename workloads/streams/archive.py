"""Reading files out of a folder, a zip or a tar, alike and without extracting anything."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workloads.errors import told
from workloads.reading import regular_file
from workloads.streams.image_set import StreamError

# Twice CIFAR-10's largest file, and ten times all of it: bounds what a bad archive can ask for.
LARGEST_FILE_BYTES = 64 * 2**20
LARGEST_ARCHIVE_BYTES = 2 * 2**30

_UNPACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The files of a folder, zip or tar.

    Attributes:
        path: the folder or archive file.
        names: path of every file inside, with '/' between parts, in stored or sorted order.
        read: returns the bytes of one of `names`. Raises StreamError for damage.
    """

    path: Path
    names: Sequence[str]
    read: Callable[[str], bytes]


@contextmanager
def open_archive(path: str | Path) -> Iterator[Archive]:
    """Open a folder, `.zip`, `.tar` or `.tar.gz` for reading.

    Raises:
        StreamError: if it is missing, damaged or none of these, claims more than a data set of
            small images holds, or names a file twice.
    """
    folder = Path(path).expanduser() if isinstance(path, str | Path) else None
    if folder is not None and os.path.isdir(folder):
        yield _folder(folder)
        return
    file = regular_file(path, "archive", StreamError, also=" or folder")
    with ExitStack() as opened:
        yield _opened(file, opened)


def _folder(path: Path) -> Archive:
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    except OSError as error:
        raise StreamError(f"{path} must be a readable folder, got {told(error)}") from error
    return _guarded(path, sizes, lambda name: (path / name).read_bytes())


def _opened(path: Path, stack: ExitStack) -> Archive:
    try:
        if zipfile.is_zipfile(path):
            return _zip(path, stack.enter_context(zipfile.ZipFile(path)))
        if (content := _tar(path, stack)) is not None:
            return content
    except StreamError:
        raise
    except Exception as error:  # damage raises many kinds of errors
        raise _damaged(path, error) from error
    raise StreamError(
        f"{path} must be a .tar.gz, .tar or .zip archive or a folder, but is none of these; "
        "it may be damaged or partly downloaded"
    )


def _zip(path: Path, opened: zipfile.ZipFile) -> Archive:
    entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    _check_once(path, [entry.filename for entry in entries])
    return _guarded(path, {each.filename: each.file_size for each in entries}, opened.read)


def _tar(path: Path, stack: ExitStack) -> Archive | None:
    """The files of a tar; None if it is none."""
    with path.open("rb") as file:
        start = file.read(6)
    unpack = next((each for magic, each in _UNPACKED.items() if start.startswith(magic)), open)
    stream = stack.enter_context(unpack(path, "rb"))
    try:
        opened = stack.enter_context(tarfile.TarFile(fileobj=_Bounded(stream, path)))
    except tarfile.ReadError:  # its first header is none
        return None
    members: dict[str, tarfile.TarInfo] = {}
    claimed = 0
    for member in opened:
        claimed += member.size if member.isfile() else 0
        if claimed > LARGEST_ARCHIVE_BYTES:
            raise StreamError(
                f"{path} must hold at most {LARGEST_ARCHIVE_BYTES} bytes unpacked, got {claimed} "
                f"with {member.name}; give the archive of the data set alone"
            )
        if member.isfile():
            _check_once(path, [member.name], members)
            members[member.name] = member

    def read(name: str) -> bytes:
        stream = opened.extractfile(members[name])
        assert stream is not None  # a regular file always has one
        return stream.read()

    return _guarded(path, {name: member.size for name, member in members.items()}, read)


class _Bounded(io.RawIOBase):
    """A stream that gives no more at once than an archive's file may have.

    A header may ask for gigabytes, which a compressed archive of a few megabytes can give.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """As of a file; a StreamError for more than is allowed."""
        if size > LARGEST_FILE_BYTES + tarfile.RECORDSIZE:
            raise StreamError(
                f"{self._path} must hold files and headers of at most {LARGEST_FILE_BYTES} bytes, "
                f"got {size}; it is damaged or no data set of images"
            )
        return self._stream.read(size)

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._stream.tell()


def _check_once(path: Path, names: Sequence[str], before: Container[str] = ()) -> None:
    """Refuse a name that an archive holds twice: which one is meant can't be told."""
    seen: set[str] = set()
    for name in names:
        if name in seen or name in before:
            raise StreamError(f"{path} must hold each file once, got {name} twice; pack it again")
        seen.add(name)


def _guarded(path: Path, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> Archive:
    def guarded_read(name: str) -> bytes:
        if sizes[name] > LARGEST_FILE_BYTES:
            raise StreamError(
                f"{path}: {name} must have at most {LARGEST_FILE_BYTES} bytes, got {sizes[name]}"
            )
        try:
            return read(name)
        except StreamError:
            raise
        except Exception as error:  # damage, an unknown method, a password: of many kinds
            raise _damaged(path, error, name) from error

    return Archive(path=path, names=list(sizes), read=guarded_read)


def _damaged(path: Path, error: Exception, name: str = "") -> StreamError:
    where = f"{path}: {name}" if name else str(path)
    return StreamError(f"{where} can't be read ({told(error)}); fetch the archive again")
