"""One file to carry to a board: this command and all it needs of the project, as a Python zip."""

from __future__ import annotations

import zipfile
from pathlib import Path

from accelerators import ConfigError
from codesign.boards.measure import start
from codesign.boards.measure.rows import package_version
from workloads.writing import replacing

_FIRST_LINE = b"#!/usr/bin/env python3\n"
# What needs PyTorch and numpy alone, and the compiled reuse, which needs numba.
_CARRIED = (
    "accelerators",
    "workloads",
    "simulator/decisions",
    "simulator/kernels",
    "simulator/policies",
    "codesign/boards/measure",
)
_SINGLE = (
    "simulator/boards/__init__.py",
    "simulator/boards/software.py",
    "codesign/__init__.py",
    "codesign/boards/__init__.py",
    "codesign/cli/__init__.py",
    "codesign/cli/on_board.py",
    "codesign/cli/outputs.py",
)


def check_pack(path: Path) -> None:
    """Refuse a name that Python would not run.

    Raises:
        ConfigError: a name that does not end in `.pyz`.
    """
    if path.suffix != ".pyz":
        raise ConfigError(f"--pack must name a .pyz file, got {str(path)!r}; try measure.pyz")


def pack(path: Path) -> None:
    """Write a `.pyz` file, whole or not at all, that `python3 FILE.pyz` runs as `codesign measure`.

    Raises:
        ConfigError: a name that does not end in `.pyz`.
        OSError: with `path` as its filename.
    """
    check_pack(path)
    home = Path(__file__).parents[3]
    found = [file for place in _CARRIED for file in sorted((home / place).rglob("*"))]
    files = [file for file in found if file.is_file() and "__pycache__" not in file.parts]
    with replacing(path) as new:
        new.write_bytes(_FIRST_LINE)
        with zipfile.ZipFile(new, "a", zipfile.ZIP_DEFLATED) as made:
            for file in (*files, *(home / each for each in _SINGLE)):
                made.write(file, file.relative_to(home).as_posix())
            # Its own imports the timing and the pages too.
            made.writestr("simulator/__init__.py", '"""What `codesign measure` needs of it."""\n')
            made.writestr(
                "similarity_codesign.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: similarity-codesign\nVersion: {package_version()}\n",
            )
            made.write(start.__file__, "__main__.py")
        new.chmod(new.stat().st_mode | 0o111)
