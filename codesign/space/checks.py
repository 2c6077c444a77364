"""Checks of arguments that several functions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerators import Accelerator, ConfigError
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


def all_of(values: object, kind: type) -> bool:
    """Whether it is a tuple or a list of these alone."""
    return isinstance(values, tuple | list) and all(isinstance(each, kind) for each in values)


def is_table(values: object) -> bool:
    """Whether it is a mapping from texts."""
    return isinstance(values, Mapping) and all(isinstance(name, str) for name in values)


def check_base(base: Accelerator) -> None:
    """There must be units to vary."""
    if not isinstance(base, Accelerator):
        raise ConfigError(
            f"DesignSpace.base must be an Accelerator, got {show(base)}; try preset('reuse_16x16')"
        )
    if not base.has_reuse:
        raise ConfigError(
            f"DesignSpace.base must have reuse units, got {base.name!r} without; use "
            "preset('reuse_16x16'), or add front_end, cache, centroid_buffer and reconstructor"
        )
