"""The command `codesign measure`, for `codesign --help`; `codesign.boards.measure` has its options.

`codesign.__main__` starts it before anything else is imported, for boards with little installed.
"""

from __future__ import annotations

from typing import Any

import typer

EPILOG = ""
SETTINGS: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
    "add_help_option": False,
}


def command(context: typer.Context) -> None:
    """Time a network and its layers on this device, such as a Raspberry Pi."""
    from codesign.cli.on_board import main as measure

    raise typer.Exit(measure(context.args))
