"""Checks of arguments that several functions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerators import Accelerator, ConfigError
from accelerators.rules import FieldRule
from workloads.errors import show

LARGEST_SEED = 2**32 - 1
"""That every generator takes."""


def whole(least: int = 1, most: int = 2**63 - 1) -> dict[str, FieldRule]:
    """The rule of a whole number."""

    def rule(value: object, path: str) -> list[str]:
        if type(value) is not int or value < least:
            return [f"{path} must be an integer of at least {least}, got {show(value)}"]
        if value > most:
            return [f"{path} must be an integer of at most {most}, got {show(value)}"]
        return []

    return {"rule": rule}


def among(known: Sequence[str]) -> dict[str, FieldRule]:
    """The rule of one of a few names."""

    def rule(value: object, path: str) -> list[str]:
        if isinstance(value, str) and value in known:
            return []
        return [f"{path} must be one of {', '.join(known)}, got {show(value)}"]

    return {"rule": rule}


def of_kind(kind: type | tuple[type, ...], words: str) -> dict[str, FieldRule]:
    """The rule of a value of a type, which words say."""

    def rule(value: object, path: str) -> list[str]:
        return [] if isinstance(value, kind) else [f"{path} must be {words}, got {show(value)}"]

    return {"rule": rule}


def integer_problems(path: str, given: Mapping[str, Any], least: Mapping[str, int]) -> list[str]:
    """A message for each value that is no whole number, too small, or a seed that is too large.

    Args:
        path: begins each message.
        given: name -> value.
        least: name -> the smallest value allowed; 1 where it is not told.
    """
    problems = []
    for name, value in given.items():
        most = LARGEST_SEED if name == "seed" else 2**63 - 1
        problems += whole(least.get(name, 1), most)["rule"](value, f"{path}{name}")
    return problems


def all_of(values: object, kind: type) -> bool:
    """Whether it is a tuple or a list of these alone."""
    return isinstance(values, tuple | list) and all(isinstance(each, kind) for each in values)


def is_table(values: object) -> bool:
    """Whether it is a mapping from texts."""
    return isinstance(values, Mapping) and all(isinstance(name, str) for name in values)


SEARCHED_UNITS = ("front_end", "cache", "centroid_buffer", "reconstructor")
"""Units that a search varies together, where a design has them all."""


def has_searched_units(base: Accelerator) -> bool:
    """Whether a design has all of them; those that another has stay as they are."""
    return all(name in base.units for name in SEARCHED_UNITS)


def check_design(base: Accelerator) -> None:
    """What is varied must be a design."""
    if not isinstance(base, Accelerator):
        raise ConfigError(
            f"DesignSpace.base must be an Accelerator, got {show(base)}; try preset('reuse_16x16')"
        )


def check_base(base: Accelerator, *, for_policy: bool = False) -> None:
    """There must be units to vary; a policy of a user's own says itself which it needs."""
    check_design(base)
    missing = [name for name in SEARCHED_UNITS if name not in base.units]
    if missing and not for_policy:
        raise ConfigError(
            f"DesignSpace.base must have reuse units, got {base.name!r} without "
            f"{', '.join(missing)}; use preset('reuse_16x16'), or add them"
        )
