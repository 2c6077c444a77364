"""Values of fields as they are written on a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

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

    Several values have commas between them, `0,3`; those of names are `conv1=0.1,layer2.*=0.2`.

    Args:
        option: begins the message, and ends with the field's name: "--set array.rows".
        text: as written.
        kind: the field's type: int, float, bool, str or None, or several of them as a union; or a
            sequence or tuple of one of them, or a mapping of names to one.

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
    wanted = " or ".join(map(_words, kinds))
    fix = f"write {wanted}" + (f", in {' or '.join(units)}" if units else "")
    raise ConfigError(f"{option} must be given {wanted}, got {show(text)}; {fix}")


def _kinds(kind: Any) -> list[Any]:
    """Those of a type that can be written."""
    given = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    plain = [each for each in _WORDS if each in given]
    return [*plain, *(each for each in given if _of_several(each) is not None)]


def _of_several(kind: Any) -> type | None:
    """Of a sequence or mapping, the type of its values; `None` where no text stands for it."""
    found = get_args(kind)
    if get_origin(kind) is Mapping and found[0] is str:
        found = found[1:]
    elif get_origin(kind) is not Sequence and found[1:] != (...,):
        return None
    return found[0] if found and found[0] in (int, float, str) else None


def _words(kind: Any) -> str:
    """What is to be written."""
    own = _of_several(kind)
    if own is None:
        return _WORDS[kind]
    if get_origin(kind) is Mapping:
        return f"NAME=VALUE with commas between them, values being {_WORDS[own]}"
    return f"{_WORDS[own]} with commas between them"


def _read(text: str, kind: Any, units: dict[str, int]) -> Any:
    """Raises: ValueError or ArithmeticError: it is no value of this type."""
    own = _of_several(kind)
    if own is not None:
        return _several(text, kind, own, units)
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


def _several(text: str, kind: Any, own: type, units: dict[str, int]) -> Any:
    """Raises: ValueError or ArithmeticError: it is no such sequence or mapping."""
    parts = [each.strip() for each in text.split(",")]
    if get_origin(kind) is not Mapping:
        return tuple(_read(each, own, units) for each in parts)
    found: dict[str, Any] = {}
    for each in parts:
        name, _, value = each.rpartition("=")
        if not name or name in found:
            raise ValueError
        found[name] = _read(value, own, units)
    return found
