"""Rules of values that a user gives, checked together and told in one error.

A field of a frozen dataclass carries its rule in its metadata, as in `accelerators.rules`, whose
twin this is (neither package knows the other)::

    epochs: int = field(default=50, metadata=integer(1, 10**6))

`keep_fields` checks a dataclass, and keeps numbers as Python's own types, of which JSON knows how
to write them; `problems` checks the arguments of a function. A message says the path, the rule,
what was given and the fix.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from workloads.errors import InputError, show

# Multiply-accumulates of a layer, and elements of a tensor: at 2 bytes each, and 1000 cycles a byte
# of the slowest DRAM, cycles of a layer fit 64 bits.
LARGEST_LAYER = 2**51
_LARGEST_NUMBER = 1e100

Rule = Callable[[Any], Any]
"""Gives a value as it is kept, or raises `Broken`."""


class Broken(Exception):
    """The rule that a value breaks, what was given, and the fix."""

    def __init__(self, must: str, given: object, fix: str) -> None:
        super().__init__(f"must {must}, got {show(given)}; {fix}")


def problems(
    path: str, given: Mapping[str, Any], rules: Mapping[str, Mapping[str, Rule]]
) -> list[str]:
    """A message for each value that breaks its rule; each begins with the path and the name."""
    return _checked(path, given, rules)[1]


def refuse(found: Sequence[str], error: type[InputError]) -> None:
    """Raise one error of that class with all messages, if there are any."""
    if found:
        raise error("\n".join(found))


def keep_fields(instance: Any, label: str, error: type[InputError]) -> None:
    """Check the fields of a frozen dataclass by the rules in their metadata; keep what these give.

    Args:
        instance: the dataclass.
        label: how messages call it.
        error: what is raised, with a message for each broken rule.
    """
    rules = _rules_of(type(instance))  # type: ignore[arg-type]
    values, found = _checked(f"{label}.", vars(instance), rules)
    refuse(found, error)
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@cache
def _rules_of(kind: type) -> dict[str, Mapping[str, Rule]]:
    """The rules of a dataclass: thousands of products may be made of one."""
    return {each.name: each.metadata for each in fields(kind) if "rule" in each.metadata}


def _checked(
    path: str, given: Mapping[str, Any], rules: Mapping[str, Mapping[str, Rule]]
) -> tuple[dict[str, Any], list[str]]:
    values, found = {}, []
    for name, rule in rules.items():
        try:
            values[name] = rule["rule"](given[name])
        except Broken as broken:
            found.append(f"{path}{name} {broken}")
    return values, found


def whole(value: object, least: int, most: int = LARGEST_LAYER) -> int | None:
    """`value` as an int in a range, both ends valid, or None where it is not one (as a bool)."""
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except Exception:  # what a user's own class raises is no whole number either
        return None
    return number if least <= number <= most else None


def integer(least: int, most: int | None = None, *, fix: str = "") -> dict[str, Rule]:
    """A whole number of any integer type; without `most`, up to what a layer may have."""

    def rule(value: object) -> int:
        number = whole(value, least, LARGEST_LAYER if most is None else most)
        if number is not None:
            return number
        if most is not None:
            must = f"be an integer from {least} to {most}"
        elif type(value) is int and value > LARGEST_LAYER:
            must = f"be a whole number of at most {LARGEST_LAYER}"
        else:
            must = f"be a whole number of at least {least}"
        raise Broken(must, value, fix or f"use {least}")

    return {"rule": rule}


def kept_by(keep: Callable[[Any], Any], must: str, fix: str) -> dict[str, Rule]:
    """What `keep` makes of a value, which must not be None: `must` says what it then has to be."""

    def rule(value: object) -> Any:
        kept = keep(value)
        if kept is None:
            raise Broken(must, value, fix)
        return kept

    return {"rule": rule}


def true_of(test: Callable[[Any], bool], must: str, fix: str) -> dict[str, Rule]:
    """A value of which `test` is true, kept as it is."""

    def rule(value: object) -> Any:
        if not test(value):
            raise Broken(must, value, fix)
        return value

    return {"rule": rule}


def number(*, above: float | None = None, below: float | None = None, fix: str) -> dict[str, Rule]:
    """A finite int or float of at least 0, or above `above`; below `below`."""
    must = "be a finite number" + (" >= 0" if above is None else f" above {above:g}")
    must += "" if below is None else f" and below {below:g}"

    def is_in_range(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low = value >= 0 if above is None else value > above  # neither is true of NaN
        return low and (value <= _LARGEST_NUMBER if below is None else value < below)

    return true_of(is_in_range, must, fix)


def one_of(names: Sequence[str]) -> dict[str, Rule]:
    """A text among a few names."""

    def rule(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        near = difflib.get_close_matches(value[:100], names, n=1) if isinstance(value, str) else []
        fix = f"use {near[0]!r}" if near else "use one of these"
        raise Broken(f"be one of {', '.join(names)}", value, fix)

    return {"rule": rule}


def flag(fix: str = "use one of these") -> dict[str, Rule]:
    """True or False, also NumPy's."""
    kinds = bool, np.bool_
    return kept_by(
        lambda value: bool(value) if isinstance(value, kinds) else None, "be True or False", fix
    )


def instance_of(kind: type, *, optional: bool = False, fix: str = "") -> dict[str, Rule]:
    """An object of a class (a dataclass, if the fix shall name its fields), or None."""
    known = "" if fix else ", ".join(f"{each.name}=..." for each in fields(kind))
    return true_of(
        lambda value: isinstance(value, kind) or (optional and value is None),
        f"be a {kind.__name__}{' or None' * optional}",
        fix or f"use {kind.__name__}({known})",
    )
