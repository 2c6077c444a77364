"""Reading files out of a folder, a zip or a tar, alike and without extracting anything."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workloads.streams.image_set import StreamError

LARGEST_FILE_BYTES = 64 * 2**20  # twice CIFAR-10's largest file: bounds what a bad archive can ask


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
        StreamError: if it is missing, damaged or none of these.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        yield _guarded(
            path,
            [file.relative_to(path).as_posix() for file in files],
            lambda name: (path / name).stat().st_size,
            lambda name: (path / name).read_bytes(),
        )
    elif not path.is_file():
        raise StreamError(f"archive must be an existing file or folder, got {str(path)!r}")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as opened:
            entries = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
            yield _guarded(path, entries, lambda name: opened.getinfo(name).file_size, opened.read)
    elif _is_tar(path):
        yield from _open_tar(path)
    else:
        raise StreamError(
            f"{path} must be a .tar.gz, .tar or .zip archive or a folder, but is none of these; "
            "it may be damaged or partly downloaded"
        )


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def _open_tar(path: Path) -> Iterator[Archive]:
    try:
        with tarfile.open(path) as opened:
            members = {member.name: member for member in opened.getmembers() if member.isfile()}

            def read(name: str) -> bytes:
                stream = opened.extractfile(members[name])
                assert stream is not None  # a regular file always has one
                return stream.read()

            yield _guarded(path, list(members), lambda name: members[name].size, read)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def _guarded(
    path: Path,
    names: Sequence[str],
    size_bytes: Callable[[str], int],
    read: Callable[[str], bytes],
) -> Archive:
    def guarded_read(name: str) -> bytes:
        try:
            if size_bytes(name) > LARGEST_FILE_BYTES:
                raise StreamError(
                    f"{path}: {name} must have at most {LARGEST_FILE_BYTES} bytes, "
                    f"got {size_bytes(name)}"
                )
            return read(name)
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise _damaged(path, error, name) from error
        except (NotImplementedError, RuntimeError) as error:  # zip: method unknown, or encrypted
            raise _damaged(path, error, name) from error

    return Archive(path=path, names=names, read=guarded_read)


def _damaged(path: Path, error: Exception, name: str = "") -> StreamError:
    where = f"{path}: {name}" if name else str(path)
    return StreamError(f"{where} can't be read ({error}); fetch the archive again")
