"""Fields of a design and of the units it has, named by their paths: `dram.kind`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from accelerators import Accelerator
from accelerators.rules import show

Owner = TypeVar("Owner")


# By name: a class in a user's file may write its annotations as text.
_KINDS = {kind.__name__: kind for kind in (bool, int, float, str)}


def field_types(instance: Any, before: str = "") -> dict[str, type]:
    """Path -> type of every number, name and switch of a design and of the parts it has."""
    found: dict[str, type] = {}
    for entry in dataclasses.fields(instance):
        value, path = getattr(instance, entry.name), f"{before}{entry.name}"
        if dataclasses.is_dataclass(value):
            found |= field_types(value, f"{path}.")
        elif value is not None:
            named = entry.type if isinstance(entry.type, str) else entry.type.__name__
            found[path] = _KINDS.get(named, type(value))
    return found


def field_value(instance: Any, path: str) -> Any:
    """The value at a path; `None` of a part that is not there."""
    for name in path.split("."):
        instance = getattr(instance, name, None)
    return instance


def with_fields(design: Accelerator, values: Mapping[str, Any]) -> Accelerator:
    """The design with other values; those of parts that it does not have are passed over.

    Args:
        design: what is changed.
        values: path -> value.

    Raises:
        ConfigError: the values make no valid design.
    """
    description = design.to_dict()
    for path, value in values.items():
        *parts, name = path.split(".")
        owner: Any = description
        for part in parts:
            owner = owner and owner[part]
        if owner is not None:
            owner[name] = value
    return type(design).from_dict(description)


def wrong_kinds(path: str, values: object, present: object) -> list[str]:
    """A message for values of a field that are of another kind than what it has now.

    Numbers stand where a number is, and texts and switches where such are; `None` tells no kind.
    """
    kind = _kind_of(present)
    given = values if isinstance(values, list | tuple) else ()
    wrong = [each for each in given if each is not None and _kind_of(each) != kind]
    if kind is None or not wrong:
        return []
    return [f"{path} must be {kind}, as {show(present)} is now, got {show(wrong[0])}; use {kind}"]


def _kind_of(value: object) -> str | None:
    kinds = {bool: "true or false", int: "numbers", float: "numbers", str: "texts"}
    return kinds.get(type(value))
