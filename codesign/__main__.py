"""`codesign` and `python -m codesign`: the command line.

`codesign measure` starts before the rest is imported, for boards with PyTorch and numpy alone.
"""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["measure"]:
        from codesign.measure.command import main as measure

        sys.exit(measure(sys.argv[2:]))
    from codesign.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
