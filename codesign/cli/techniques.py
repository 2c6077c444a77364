"""The command `codesign techniques`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelerators import Accelerator, ConfigError, presets
from accelerators.rules import choose, show
from accelerators.units.unit import parts_of
from codesign.cli.terminal import guarded, say, table
from simulator.results.tables import column

if TYPE_CHECKING:
    from simulator import Technique

EPILOG = (
    "Example: codesign techniques; then codesign techniques leaders, and codesign simulate trace "
    "--technique leaders --set tolerance=0.2 --accelerator leader_32x32"
)


@guarded
def command(
    name: Annotated[str | None, typer.Argument(help="Explain this one.")] = None,
    axis: Annotated[
        str | None,
        typer.Option(help="Only those that take work off this: rows, columns, depth, frames, ..."),
    ] = None,
) -> None:
    """List the techniques that exploit redundancy, or explain one with its published figures."""
    from simulator import techniques
    from simulator.policies.technique import AXES

    known = techniques()
    if name is not None:
        if name not in known:
            raise ConfigError(
                f"technique must be of {', '.join(known)}, got {show(name, str)}; "
                f"{choose(name, list(known))}"
            )
        _explain(known[name])
        return
    if axis is not None and axis not in AXES:
        raise ConfigError(
            f"--axis must be of {', '.join(AXES)}, got {show(axis, str)}; {choose(axis, AXES)}"
        )
    columns = [
        column("name", "Technique", text=True),
        column("axis", "Takes off", text=True),
        column("word", "How", text=True),
        column("grain", "Grain", text=True),
        column("units", "Units", text=True),
        column("settings", "Settings, as it starts", text=True),
        column("trained", "Trained", text=True),
        column("source", "Source", text=True),
    ]
    listed = [each for each in known.values() if axis in (None, each.axis)]
    listed.sort(key=lambda each: (AXES.index(each.axis), each.policy is None, each.name))
    table(columns, [_row(each) for each in listed])
    say(
        "\nEach with --technique NAME --set FIELD=VALUE of simulate, compare and search, several "
        "with + between them;\nthose whose settings are in brackets are not decided on a trace: "
        "`codesign techniques NAME` says why, and more of each."
    )


def _row(technique: Technique) -> dict[str, Any]:
    """A technique as a row of the list."""
    settings = ", ".join(f"{of}={value}" for of, value in _searched(technique).items())
    return {
        "name": technique.name,
        "axis": technique.axis,
        "word": technique.word,
        "grain": technique.grain,
        "units": ", ".join(_words_of(technique.units)) or "none",
        "settings": settings if technique.policy is not None else "(see its page)",
        "trained": technique.trained or "no",
        "source": technique.source,
    }


def _searched(technique: Technique) -> dict[str, Any]:
    """Field -> value that it starts with, of those that a search chooses."""
    return {
        of: technique.start.get(of, choices[0]) for of, choices in technique.choices.items()
    } or dict(technique.start)


def _words_of(units: Sequence[str]) -> list[str]:
    """Units as pages call them; those that no accelerator has, by name."""
    parts = parts_of(Accelerator)
    return [
        parts[name].words if name in parts else f"{name.replace('_', ' ')} (not here)"
        for name in units
    ]


def _ready(technique: Technique) -> list[str]:
    """Ready designs that have its units; all of them have none."""
    if not technique.units:
        return ["any"]
    return [
        name
        for name, design in presets().items()
        if all(getattr(design, each, None) is not None for each in technique.units)
    ]


def _explain(technique: Technique) -> None:
    """A technique with all that is known of it."""
    from simulator.results.published import published_figures

    say(f"{technique.name}: {technique.title} ({technique.source})\n\n{technique.rule}\n")
    trained = technique.trained or "nothing"
    say(f"Takes off: {technique.axis}, by {technique.grain}; word: {technique.word}.")
    say(f"Looked at: {technique.evidence}. Trained: {trained}.")
    say(f"Units: {', '.join(_words_of(technique.units)) or 'none'}.")
    if technique.options:
        say(f"Makes use of, where there: {', '.join(_words_of(technique.options))}.")
    if technique.policy is not None:
        say(f"Ready designs: {', '.join(_ready(technique)) or 'none'}.")
    if technique.policy is None:
        say(f"\nNot decided on a trace: {technique.how}.")
    else:
        say("")
        table(
            [
                column("field", "Setting", text=True),
                column("start", "Starts as", text=True),
                column("choices", "A search chooses from", text=True),
            ],
            [
                {
                    "field": of,
                    "start": _text(_start(technique, of)),
                    "choices": ", ".join(map(_text, technique.choices.get(of, ()))) or "no",
                }
                for of in technique.fields
            ],
        )
    figures = published_figures(technique.published)
    if not figures:
        say("\nNo published figures at hand.")
        return
    say("\nPublished; evidence A abstract or authors' page, C authors' code, S survey, N notes, D "
        "derived, M measured here, R recalled and not found again:")  # fmt: skip
    table(
        [
            column("network", "Network", text=True),
            column("data", "Data", text=True),
            column("metric", "Figure", text=True),
            column("value", "Value", text=True),
            column("note", "Evidence", text=True),
            column("source", "Source", text=True),
        ],
        figures,
    )


def _start(technique: Technique, of: str) -> Any:
    """What a field starts with."""
    if of in technique.start:
        return technique.start[of]
    (found,) = (each for each in fields(technique.policy) if each.name == of)  # type: ignore[arg-type]
    if found.default is not MISSING:
        return found.default
    return "must be given" if found.default_factory is MISSING else found.default_factory()


def _text(value: Any) -> str:
    """A setting as a command line has it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
