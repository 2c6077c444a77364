"""The command line; `codesign --help` lists its commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from codesign.cli.commands import COMMANDS


class _Loaded(Mapping[str, Any]):
    """Name -> command; its file is imported when it is asked for, as some take seconds."""

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        return _command(name)


@cache
def _command(name: str) -> Any:
    file = import_module(f"codesign.cli.{name}")
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    settings = {"cls": TellingCommand, "epilog": file.EPILOG} | getattr(file, "SETTINGS", {})
    alone.command(name, **settings)(file.command)
    return typer.main.get_command(alone)


class _Commands(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Loaded()  # type: ignore[assignment]


class TellingCommand(TyperCommand):
    """A command that tells of an option given twice, of which the last counts, as elsewhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        from codesign.cli.terminal import note

        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        twice = {each for each in order if order.count(each) > 1 and not each.multiple}
        for option in sorted(twice, key=lambda each: each.opts[0]):
            if option.param_type_name == "option":
                note(f"{option.opts[0]} is given several times; the last counts.")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="codesign",
    cls=_Commands,
    help="Is similarity reuse worth building for a model, its inputs and a silicon budget?",
    epilog="Start with: codesign demo\n\n"
    "Exit status: 0 done; 1 a bug; 2 wrong input; 3 nothing found, as every design tried failed or "
    "is beyond a limit; 4 Ray has died; 129, 130 and 143 stopped by a hang-up, Ctrl-C or SIGTERM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _any() -> None:
    """A program of several commands, whichever there are."""
