"""One file to carry to a board: this command and all it needs of the project, as a Python zip."""

from __future__ import annotations

import shutil
import tempfile
import zipapp
from pathlib import Path

from accelerators import ConfigError
from codesign.measure.rows import package_version

_START = "import runpy\n\nrunpy.run_module('codesign.measure', run_name='__main__')\n"
# Of codesign, only what needs PyTorch and numpy alone.
_CARRIED = ("accelerators", "workloads", "codesign/measure")


def pack(path: Path) -> None:
    """Write a `.pyz` file that `python3 FILE.pyz` runs as `codesign measure`.

    Raises:
        ConfigError: a name that does not end in `.pyz`.
    """
    if path.suffix != ".pyz":
        raise ConfigError(f"--pack must name a .pyz file, got {str(path)!r}; try measure.pyz")
    home = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for place in _CARRIED:
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(home / place, copy / place, ignore=unwanted)
        shutil.copy(home / "codesign" / "__init__.py", copy / "codesign")
        known = copy / "similarity_codesign.dist-info"
        known.mkdir()
        (known / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: similarity-codesign\nVersion: {package_version()}\n"
        )
        (copy / "__main__.py").write_text(_START)
        zipapp.create_archive(copy, path, interpreter="/usr/bin/env python3", compressed=True)
