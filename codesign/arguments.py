"""Checks of arguments that several functions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerators.rules import show


def integer_problems(path: str, given: Mapping[str, Any], least: Mapping[str, int]) -> list[str]:
    """A message for each value that is no whole number, or too small.

    Args:
        path: begins each message.
        given: name -> value.
        least: name -> the smallest value allowed; 1 where it is not told.
    """
    return [
        f"{path}{name} must be an integer of at least {least.get(name, 1)}, got {show(value)}"
        for name, value in given.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < least.get(name, 1)
    ]
