"""Checks of arguments that several functions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.errors import show

LARGEST_SEED = 2**32 - 1
"""That every generator takes."""


def integer_problems(path: str, given: Mapping[str, Any], least: Mapping[str, int]) -> list[str]:
    """A message for each value that is no whole number, too small, or a seed that is too large.

    Args:
        path: begins each message.
        given: name -> value.
        least: name -> the smallest value allowed; 1 where it is not told.
    """
    problems = []
    for name, value in given.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < least.get(name, 1):
            problems.append(
                f"{path}{name} must be an integer of at least {least.get(name, 1)}, "
                f"got {show(value)}"
            )
        elif name == "seed" and value > LARGEST_SEED:
            problems.append(
                f"{path}seed must be an integer of at most {LARGEST_SEED}, got {show(value)}"
            )
    return problems
