"""Values of fields as they are written on a command line."""

from __future__ import annotations

import re
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, get_args

from accelerators import ConfigError
from workloads.errors import show

# Ending of a field's name -> units that a value may have -> how many of the field's own.
_UNITS = {
    "_bytes": {"B": 1, "KiB": 2**10, "MiB": 2**20, "kB": 10**3, "MB": 10**6},
    "_hz": {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9},
}
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
# What can be written, in the order in which a text is taken for one.
_WORDS = {
    NoneType: "none", bool: "true or false", int: "whole numbers", float: "numbers", str: "text",
}  # fmt: skip


def can_be_written(kind: Any) -> bool:
    """Whether some text stands for a value of a field's type."""
    return bool(_kinds(kind))


def read_value(option: str, text: str, kind: Any) -> Any:
    """A value of a field's type; whether the field may have it, its owner says.

    Args:
        option: begins the message, and ends with the field's name: "--set array.rows".
        text: as written.
        kind: the field's type: int, float, bool, str or None, or several of them as a union.

    Raises:
        ConfigError: the text is no such value, or none of the types can be written.
    """
    kinds = _kinds(kind)
    units = next((of for ending, of in _UNITS.items() if option.endswith(ending)), {})
    for each in kinds:
        try:
            return _read(text, each, units)
        except (ValueError, ArithmeticError):
            pass
    if not kinds:
        raise ConfigError(f"{option} cannot be written on a command line; set it in Python")
    wanted = " or ".join(_WORDS[each] for each in kinds)
    fix = f"write {wanted}" + (f", in {' or '.join(units)}" if units else "")
    raise ConfigError(f"{option} must be given {wanted}, got {show(text)}; {fix}")


def _kinds(kind: Any) -> list[type]:
    """Those of a type that can be written."""
    given = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return [each for each in _WORDS if each in given]


def _read(text: str, kind: type, units: dict[str, int]) -> Any:
    """Raises: ValueError or ArithmeticError: it is no value of this type."""
    if kind is NoneType and text.lower() != "none":
        raise ValueError
    if kind is bool and text.lower() not in _TRUTHS:
        raise ValueError
    if kind in (bool, NoneType):
        return _TRUTHS.get(text.lower())
    found = re.fullmatch(r"([0-9.]{1,30}) ?([A-Za-z]+)", text)
    if found and found[2] in units:
        text = f"{(Decimal(found[1]) * units[found[2]]).normalize():f}"
    return kind(text)
