"""Measured latency and energy of networks on boards that people own, as rows with a source.

The table inside the project is ``data/baselines.csv`` (``data/SOURCES.md`` says whose numbers they
are). Measurements of one's own load from a file with the same columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from accelerators.reading import csv_rows, refuse_endless, refuse_file
from accelerators.rules import (
    ConfigError,
    FieldRule,
    Relation,
    integer,
    nearest,
    one_of,
    optional,
    real,
    refuse,
    show,
    text,
    violations,
)
from accelerators.writing import write_whole

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "binary")
"""Of the arithmetic; what is stored narrower than it is computed is said in the row's note."""

STATISTICS = ("mean", "median")
"""What ``latency_ms`` is of the runs."""

SPREADS = ("", "min-max", "quartiles", "p90")
"""What ``low_ms`` and ``high_ms`` are; ``p90`` gives ``high_ms`` alone."""

ENERGY_ORIGINS = ("", "measured", "derived")
"""``measured`` by a meter over the runs; ``derived`` by multiplying power and latency."""

_LONGEST = 500
_LARGEST = 1e12


def _short(longest: int = _LONGEST) -> dict[str, FieldRule]:
    """A string that may be empty."""

    def rule(value: object, path: str) -> list[str]:
        if type(value) is str and len(value) <= longest:
            return []
        return [
            f"{path} must be a string of at most {longest} characters, got {show(value, str)}; "
            "shorten it"
        ]

    return {"rule": rule}


def _cited() -> dict[str, FieldRule]:
    """Where a number comes from: a row without it is no baseline."""

    def rule(value: object, path: str) -> list[str]:
        if type(value) is str and 1 <= len(value.strip()) <= _LONGEST:
            return []
        return [
            f"{path} must say where the row comes from in 1 to {_LONGEST} characters, got "
            f"{show(value, str)}; name the publication and version, or who measured it with what"
        ]

    return {"rule": rule}


def _matching(pattern: str, form: str, example: str) -> dict[str, FieldRule]:
    """Empty, or text of one form."""

    def rule(value: object, path: str) -> list[str]:
        if type(value) is str and re.fullmatch(rf"({pattern})?", value):
            return []
        return [
            f"{path} must be {form} or empty, got {show(value, str)}; write it such as {example!r}"
        ]

    return {"rule": rule}


def _energy_has_an_origin(row: Baseline) -> list[str]:
    if (row.energy_mj is None) == (row.energy_origin == ""):
        return []
    given = row.energy_origin or "nothing"
    return [
        f"energy_origin must be 'measured' or 'derived' with energy_mj and empty without it, got "
        f"{given} with energy_mj={row.energy_mj}; say whether a meter measured the energy or power "
        "was multiplied by latency"
    ]


def _spread_is_said(row: Baseline) -> list[str]:
    given = {"low_ms": row.low_ms is not None, "high_ms": row.high_ms is not None}
    wanted = {"low_ms": row.spread in ("min-max", "quartiles"), "high_ms": row.spread != ""}
    if given != wanted:
        return [
            f"spread must name what low_ms={row.low_ms} and high_ms={row.high_ms} are, got "
            f"{row.spread!r}; use 'min-max' or 'quartiles' with both, 'p90' with high_ms alone, "
            "nothing with neither"
        ]
    around = row.spread == "min-max" or (row.spread == "quartiles" and row.statistic == "median")
    if around and not row.low_ms <= row.latency_ms <= row.high_ms:  # type: ignore[operator]
        return [
            f"latency_ms must lie from low_ms={row.low_ms:g} to high_ms={row.high_ms:g}, got "
            f"{row.latency_ms:g}; check that all three are milliseconds"
        ]
    return []


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One measurement of a network, or of one of its layers, on a device.

    Attributes:
        device: the board, ``"Pi 4B"``; 1 to 100 characters.
        clock_mhz: of the cores while measured, ``None`` if unknown.
        threads: used, ``None`` if unknown.
        framework: what ran the network, with its version if known.
        precision: of the arithmetic, one of ``PRECISIONS``.
        model: the network, in this project's spelling if it has it.
        input: ``"224x224x3"``, height x width x channels; empty if unknown.
        batch: inputs of one run; latency and energy are of the whole run.
        layer: empty for the whole network, else one layer's name.
        reuse: empty for dense, else the setting of reuse, ``"lsh hashes=10 length=10"``.
        latency_ms: of one run.
        statistic: what ``latency_ms`` is of the runs, ``"mean"`` or ``"median"``.
        low_ms, high_ms: the spread of the runs, ``None`` if unknown.
        spread: what these two are, one of ``SPREADS``.
        repeats: runs measured, ``None`` if unknown.
        power_w: mean while running, idle included; ``None`` if not metered.
        energy_mj: of one run, ``None`` if unknown.
        energy_origin: one of ``ENERGY_ORIGINS``, empty exactly if there is no energy.
        conditions: temperature, throttling, cooling, as far as known.
        source: who published or measured it, with its version; never empty.
        date: ``YYYY``, ``YYYY-MM`` or ``YYYY-MM-DD``; empty if unknown.
        note: anything else.

    Raises:
        ConfigError: with every broken rule.
    """

    device: str = field(metadata=text(100, "Pi 4B"))
    clock_mhz: float | None = field(default=None, metadata=optional(real(1, 1e5)))
    threads: int | None = field(default=None, metadata=optional(integer(1, 4096)))
    framework: str = field(metadata=text(100, "PyTorch 2.6"))
    precision: str = field(metadata=one_of(lambda: PRECISIONS))
    model: str = field(metadata=text(100, "resnet18"))
    input: str = field(
        default="",
        metadata=_matching(r"\d+x\d+x\d+", "height x width x channels", "224x224x3"),
    )
    batch: int = field(default=1, metadata=integer(1, 10**6))
    layer: str = field(default="", metadata=_short())
    reuse: str = field(default="", metadata=_short())
    latency_ms: float = field(metadata=real(1e-6, _LARGEST))
    statistic: str = field(metadata=one_of(lambda: STATISTICS))
    low_ms: float | None = field(default=None, metadata=optional(real(0, _LARGEST)))
    high_ms: float | None = field(default=None, metadata=optional(real(1e-6, _LARGEST)))
    spread: str = field(default="", metadata=one_of(lambda: SPREADS))
    repeats: int | None = field(default=None, metadata=optional(integer(1, 10**9)))
    power_w: float | None = field(default=None, metadata=optional(real(1e-6, 1e5)))
    energy_mj: float | None = field(default=None, metadata=optional(real(1e-9, _LARGEST)))
    energy_origin: str = field(default="", metadata=one_of(lambda: ENERGY_ORIGINS))
    conditions: str = field(default="", metadata=_short())
    source: str = field(metadata=_cited())
    date: str = field(
        default="", metadata=_matching(r"\d{4}(-\d\d){0,2}", "a date as YYYY-MM-DD", "2026-11-22")
    )
    note: str = field(default="", metadata=_short())

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(("energy_mj", "energy_origin"), _energy_has_an_origin),
        Relation(("low_ms", "high_ms", "latency_ms", "spread", "statistic"), _spread_is_said),
    )

    def __post_init__(self) -> None:
        refuse(violations(self, "Baseline"))

    @property
    def energy_label(self) -> str:
        """How far the energy may be trusted: "measured", "derived, unverified" or empty."""
        return "derived, unverified" if self.energy_origin == "derived" else self.energy_origin


BASELINE_COLUMNS = tuple(entry.name for entry in fields(Baseline))
"""Columns of a baseline file, in order; an empty cell is an unknown."""

_WHOLE = ("threads", "batch", "repeats")
_NUMBERS = ("clock_mhz", "latency_ms", "low_ms", "high_ms", "power_w", "energy_mj")


def read_baselines(path: str | Path) -> tuple[Baseline, ...]:
    """The rows of a baseline file.

    Args:
        path: CSV text with the columns ``BASELINE_COLUMNS`` in any order, of which those with a
            default may be missing.

    Raises:
        ConfigError: the file can't be read, or with every broken rule (at most 20), by line. A
            column of another name is refused, so that no unit is guessed.
    """
    place = Path(path)
    try:
        refuse_endless(place)
        content = place.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise ConfigError(
            f"Baselines[{place}] must be a readable text file, got {error}; give its path"
        ) from error
    return _read(content, f"Baselines[{place.name}]")


def write_baselines(path: str | Path, rows: Iterable[Baseline]) -> None:
    """Write a baseline file, whole or not at all, that :func:`read_baselines` reads back.

    Raises:
        OSError: with `path` as its filename.
    """
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(BASELINE_COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in BASELINE_COLUMNS])
    write_whole(path, content.getvalue())


def baselines(
    *,
    device: str | None = None,
    model: str | None = None,
    framework: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    layer: str | None = "",
    reuse: str | None = None,
    files: Sequence[str | Path] = (),
) -> tuple[Baseline, ...]:
    """The measurements that fit, of the built-in table and of files of one's own.

    Args:
        device: a board, ``"Pi 4B"``; ``None`` for all, as with the others.
        model: a network, ``"resnet18"``.
        framework: the first words of a framework's name, ``"ncnn"``.
        precision: one of ``PRECISIONS``.
        threads: rows with this number of threads; rows that don't say are left out.
        layer: ``""`` for whole networks, ``None`` for whole networks and layers.
        reuse: ``""`` for dense rows.
        files: baseline files whose rows come before the built-in ones.

    Returns:
        Rows in the order of the files; empty if all names are known but no row has them together.

    Raises:
        ConfigError: a name that no row has, with the nearest ones that rows have; or a file that
            can't be read.
    """
    rows = tuple(row for path in files for row in read_baselines(path)) + _built_in()
    wanted: dict[str, Any] = {
        "device": device,
        "model": model,
        "precision": precision,
        "threads": threads,
        "layer": layer,
        "reuse": reuse,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    problems = [
        _unknown(name, value, rows)
        for name, value in wanted.items()
        if not (value == "" and name in ("layer", "reuse"))
        and all(getattr(row, name) != value for row in rows)
    ]
    if framework is not None and not any(row.framework.startswith(framework) for row in rows):
        problems.append(_unknown("framework", framework, rows))
    refuse(problems)
    return tuple(
        row
        for row in rows
        if all(getattr(row, name) == value for name, value in wanted.items())
        and (framework is None or row.framework.startswith(framework))
    )


def _unknown(name: str, value: object, rows: Sequence[Baseline]) -> str:
    """The message about a value that no row has."""
    known = list(dict.fromkeys(str(getattr(row, name)) for row in rows))
    known = [each for each in known if each not in ("", "None")]
    listed = ", ".join(repr(each) for each in known[:20]) + (", ..." if len(known) > 20 else "")
    return f"baselines.{name} must be one that a row has, got {show(value, (str, int))}; " + (
        f"use {nearest(value, known)!r}" if nearest(value, known) else f"there are {listed}"
    )


@cache
def _built_in() -> tuple[Baseline, ...]:
    file = resources.files("accelerators") / "data" / "baselines.csv"
    return _read(file.read_text(encoding="utf-8"), "Baselines[built in]")


def _read(content: str, label: str) -> tuple[Baseline, ...]:
    """Checks and reads a file's text; ``label`` is how messages call it."""
    problems: list[str] = []
    rows: list[Baseline] = []
    if "\0" in content:  # as a file that was cut off while it was written
        raise ConfigError(f"{label} must be text, got NUL characters in it; write the file again")
    for at, cells in csv_rows(
        content, label, lambda header: _header_problems(header, label), problems
    ):
        try:
            rows.append(Baseline(**_values(cells)))
        except ConfigError as error:
            problems += [at + message.removeprefix("Baseline") for message in error.violations]
    if not rows and not problems:
        problems.append(f"{label} must hold a row, got a header alone; add one, or leave it out")
    refuse_file(problems, label)
    return tuple(rows)


def _header_problems(header: list[str], label: str) -> list[str]:
    """Columns that are missing, unknown or there twice."""
    needed = ("device", "framework", "precision", "model", "latency_ms", "statistic", "source")
    problems = []
    for name in dict.fromkeys(header):
        if name not in BASELINE_COLUMNS:
            near = nearest(name, [each for each in BASELINE_COLUMNS if each not in header])
            fix = f"use {near!r}, converted to its unit" if near else "drop it"
            problems.append(
                f"{label} columns must be among {','.join(BASELINE_COLUMNS)}, got {show(name, str)}"
                f"; {fix}"
            )
        if header.count(name) > 1:
            problems.append(f"{label} must have the column {name} once, got it twice; drop one")
    problems += [
        f"{label} must have the column {name}, got none; add it"
        for name in needed
        if name not in header
    ]
    return problems


def _values(cells: dict[str, str]) -> dict[str, Any]:
    """A row's cells as the fields' types; what is no number stays text, for the rules to refuse."""
    values: dict[str, Any] = {}
    for name, cell in cells.items():
        given = cell.strip()
        if given == "" and name in (*_WHOLE, *_NUMBERS):
            if name != "batch":  # an empty batch is 1, the default; an empty number is unknown
                values[name] = None
        elif name in _WHOLE:
            values[name] = int(given) if re.fullmatch(r"\d{1,12}", given) else given
        elif name in _NUMBERS:
            values[name] = _number(given)
        else:
            values[name] = given
    return values


def _number(given: str) -> float | str:
    try:
        return float(given)
    except ValueError:
        return given


def _cell(value: object) -> str:
    """A value as a file holds it: the shortest text that reads back the same."""
    if value is None:
        return ""
    return (
        f"{value:.12g}"
        if isinstance(value, float) and float(f"{value:.12g}") == value
        else str(value)
    )
