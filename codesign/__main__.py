"""`codesign` and `python -m codesign`: the command line.

`codesign measure` starts before the rest is imported, for boards with PyTorch and numpy alone.
"""

import os
import sys

from codesign.cli import stopping
from codesign.cli.commands import COMMANDS


def main() -> None:
    """Run the command line. A signal while it is still being loaded ends it at once."""
    _open_streams()
    if sys.argv[1:2] == ["measure"]:
        stopping.install()
        from codesign.cli.on_board import main as measure

        with stopping.running():
            code = measure(sys.argv[2:])
        sys.exit(stopping.exit_code() if stopping.is_stopping() else code)
    if any(map(COMMANDS.get, sys.argv[1:2])):  # it runs on Ray
        from codesign.cli.supervision import supervise

        supervise()
    else:
        stopping.install()
    from codesign.cli.app import app

    app()


def _open_streams() -> None:
    """Open what the shell closed, to nowhere: what is opened next must not take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
