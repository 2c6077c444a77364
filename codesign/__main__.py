"""`codesign` and `python -m codesign`: the command line.

`codesign measure` starts before the rest is imported, for boards with PyTorch and numpy alone.
"""

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command line. Ctrl-C while it is still being loaded ends it without a word."""
    if sys.argv[1:2] == ["measure"]:
        from codesign.measure.command import main as measure

        sys.exit(measure(sys.argv[2:]))
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # not where it is ignored, as by nohup
        # Libraries turn an exception raised in the middle of their import into errors of their own.
        signal.signal(signal.SIGINT, _leave)
    from codesign.cli import app

    signal.signal(signal.SIGINT, usual)
    app()


def _leave(*_: Any) -> None:
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
