"""What a packed file starts with: it runs from a folder, as numba keeps compiled code beside files.

The folder is kept, so that only the first run compiles. `pack` writes this file as `__main__.py`;
nothing else of the project can be imported before it is done.
"""

import atexit
import hashlib
import os
import runpy
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path


def unpacked(packed: Path) -> Path:
    """The folder that holds a packed file's contents, unpacked if it does not yet.

    It is named by the file's contents, in the user's cache folder; where that cannot be written, it
    is a temporary one, which goes with the process.
    """
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    try:
        kept = _caches() / f"measure-{digest[:16]}"
        if not kept.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _unpack(packed, kept)
        return kept
    except (OSError, RuntimeError):  # full, read-only, or nobody's home
        passing = tempfile.TemporaryDirectory(prefix="measure-")
        atexit.register(passing.cleanup)
        _unpack(packed, Path(passing.name) / "contents")
        return Path(passing.name) / "contents"


def _caches() -> Path:
    """As platformdirs has it, which need not be there."""
    own = os.environ.get("SIMILARITY_CODESIGN_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "similarity-codesign"


def _unpack(packed: Path, target: Path) -> None:
    """Whole or not at all; another process may be as far."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".measure-") as beside:
        whole = Path(beside) / "contents"
        with zipfile.ZipFile(packed) as file:
            file.extractall(whole)
        with suppress(OSError):
            whole.rename(target)
    if not target.is_dir():
        raise OSError(f"{target} cannot be made")


if __name__ == "__main__":
    sys.path.insert(0, str(unpacked(Path(__file__).parent)))
    runpy.run_module("codesign.cli.on_board", run_name="__main__")
