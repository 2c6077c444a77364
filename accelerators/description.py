"""Writes a tree of frozen dataclasses as a dictionary or as Python, and reads the dictionary."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelerators.rules import ABSENT, ConfigError, nearest, show, violations

Described = TypeVar("Described")

CLASS = "class"
"""Key of a description under which a subclass names itself."""


def class_name(kind: type) -> str:
    """``module:Class``, as a description names a class."""
    return f"{_module_name(kind)}:{kind.__qualname__}"


def _module_name(kind: type) -> str:
    """Where a class is imported from; of one in a file that was executed, the file's name."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None or getattr(module, "__spec__", None) is not None:
        return kind.__module__
    return Path(file).stem


def described_class(kind: type[Described], description: object) -> type[Described]:
    """``kind`` or the subclass of it that a description names, among those that are loaded.

    Raises:
        ConfigError: there is no such class. Nothing is imported to look for it.
    """
    if not isinstance(description, Mapping) or CLASS not in description:
        return kind
    known = {class_name(each): each for each in (kind, *_subclasses(kind))}
    given = description[CLASS]
    if isinstance(given, str) and given in known:
        return known[given]
    raise ConfigError(
        f"{kind.__name__}.{CLASS} must be a loaded class of designs, got {show(given, str)}; "
        "import the file that defines it first (on the command line: --accelerator FILE.py:NAME)"
    )


def _subclasses(kind: type[Described]) -> Iterator[type[Described]]:
    """All of them, a later one of a name after an earlier one."""
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def _plain(value: Any) -> Any:
    """A number as Python's own (a subclass of ``float`` such as NumPy's prints differently)."""
    return float(value) if isinstance(value, float) else value


def as_dict(instance: Any) -> dict[str, Any]:
    """Every field by name, nested dataclasses as dictionaries."""
    described = {}
    for entry in fields(instance):
        value = getattr(instance, entry.name)
        described[entry.name] = as_dict(value) if is_dataclass(value) else _plain(value)
    return described


def _literal(value: Any) -> str:
    """Source text of a number, a string or ``None``, strings in double quotes where they can be."""
    text = repr(_plain(value))
    simple = isinstance(value, str) and text[0] == "'" and '"' not in text and "\\" not in text
    return f'"{text[1:-1]}"' if simple else text


def _call(instance: Any, indent: str, classes: set[type]) -> str:
    """``Class(field=..., ...)``, one field a line, and the classes it needs."""
    kind = type(instance)
    classes.add(kind)
    lines = []
    for entry in fields(instance):
        value = getattr(instance, entry.name)
        inside = _call(value, indent + "    ", classes) if is_dataclass(value) else _literal(value)
        lines.append(f"{indent}    {entry.name}={inside},\n")
    return f"{kind.__name__}(\n{''.join(lines)}{indent})"


def as_python(instance: Any) -> str:
    """Source text: imports from this package and of classes of one's own, then
    ``accelerator = Accelerator(...)``."""
    classes: set[type] = set()
    built = _call(instance, "", classes)
    package = __name__.partition(".")[0]
    imported: dict[str, list[str]] = {package: []}
    for kind in sorted(classes, key=lambda kind: kind.__name__):
        own = kind.__module__.partition(".")[0] == package
        imported.setdefault(package if own else _module_name(kind), []).append(kind.__name__)
    imports = "".join(
        "".join([f"from {module} import (\n", *(f"    {name},\n" for name in names), ")\n"])
        for module, names in imported.items()
    )
    return f"{imports}\naccelerator = {built}\n"


def read_description(kind: type[Described], description: object) -> Described:
    """Builds a self-checking dataclass and its parts from nested dictionaries.

    Raises:
        ConfigError: unknown keys, missing keys and broken rules of the whole tree, together.
    """
    path = kind.__name__
    if not isinstance(description, Mapping):
        raise ConfigError(
            f"{path} must be a mapping of its fields, got {show(description)}; "
            "use the result of to_dict()"
        )
    problems: list[str] = []
    values = _values(kind, description, path, problems)
    if problems:
        unchecked = object.__new__(kind)  # not built, as it would raise: only looked at
        for name, value in values.items():
            object.__setattr__(unchecked, name, value)
        raise ConfigError([*problems, *violations(unchecked, path)])
    return kind(**values)


def _values(
    kind: type, description: Mapping[Any, Any], path: str, problems: list[str]
) -> dict[str, Any]:
    """A value for every field of ``kind``; ``ABSENT`` where one is missing without a default."""
    entries = {entry.name: entry for entry in fields(kind)}
    for key, value in description.items():
        if key not in entries and key != CLASS:
            near = nearest(key, [name for name in entries if name not in description])
            fix = f"use {near}" if near else f"the fields are {', '.join(entries)}"
            shown = key[:60] if isinstance(key, str) else show(key)
            problems.append(f"{path}.{shown} must be a known field, got {show(value)}; {fix}")
    values: dict[str, Any] = {}
    for name, entry in entries.items():
        part = entry.metadata.get("part")
        if name not in description:
            if entry.default is MISSING:
                problems.append(f"{path}.{name} must be given, got nothing; add it")
                values[name] = ABSENT
            else:
                values[name] = entry.default
        elif part is not None and isinstance(description[name], Mapping):
            values[name] = part(**_values(part, description[name], f"{path}.{name}", problems))
        else:
            values[name] = description[name]
    return values
