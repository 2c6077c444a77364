"""What may stand in a trace's provenance: plain JSON values, those known by name in their type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workloads.errors import show

DEEPEST = 32  # lists and mappings inside each other


def provenance_problems(provenance: object) -> list[str]:
    """Rules that a provenance breaks, each by the place in it; none if it is one."""
    if not isinstance(provenance, Mapping):
        return [f"provenance must be a mapping, got {show(provenance)}; use {{'model': ...}}"]
    problem = _problem(provenance, (), 1)
    if problem is not None:
        return [f"provenance must hold JSON values: {problem}; change it or leave it out"]
    return [
        f"provenance.{name} must be {rule}, got {show(provenance[name])}; leave it out"
        for name, (is_right, rule) in _KNOWN.items()
        if name in provenance and not is_right(provenance[name])
    ]


def _problem(value: Any, path: tuple[Any, ...], depth: int) -> str | None:
    """The first thing that JSON, a page or a terminal can't show, and where it stands."""
    if isinstance(value, Mapping | list | tuple):
        return _inner_problem(value, path, depth)
    if isinstance(value, str):
        fits, allowed = _is_text(value), "texts without lone surrogates"
    elif isinstance(value, int):  # a bool too
        fits, allowed = type(value) in (int, bool) and abs(value) < 2**64, "integers below 2^64"
    else:
        fits = value is None or (isinstance(value, float) and math.isfinite(value))
        allowed = "texts, finite numbers, lists and dicts"
    place = "".join(f"[{show(each)}]" for each in path)
    return None if fits else f"{allowed}, got {show(value)} in {place}"


def _inner_problem(
    value: Mapping[Any, Any] | Sequence[Any], path: tuple[Any, ...], depth: int
) -> str | None:
    if depth > DEEPEST:
        return f"{DEEPEST} inside each other at most, got more"
    is_mapping = isinstance(value, Mapping)
    for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
        if is_mapping and not _is_text(key):
            return f"texts as names, got {show(key)}"
        problem = _problem(each, (*path, key), depth + 1)
        if problem is not None:
            return problem
    return None


def _is_text(value: object) -> bool:
    """A text that UTF-8 can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _is_fractions(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, int | float) and type(each) is not bool and 0 <= each <= 1
        for each in value.values()
    )


_TEXT = (lambda value: value is None or isinstance(value, str)), "a text or null"
_TEXTS = _is_list_of_texts, "a list of texts"
_NAMES = (
    (
        lambda value: (
            isinstance(value, list | tuple) and all(isinstance(x, str | int) for x in value)
        )
    ),
    "a list of texts",
)
# What pages and replays read.
_KNOWN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": _TEXT,
    "weights": _TEXT,
    "source": _TEXT,
    "precision": _TEXT,
    "score": _TEXT,
    "input_dtypes": _TEXTS,
    "input_names": _TEXTS,
    "classes": _NAMES,
    "zero_weights": (_is_fractions, "a number from 0 to 1 for each layer"),
    "not_counted": (
        lambda value: isinstance(value, Mapping) and all(type(x) is int for x in value.values()),
        "the calls of each operation",
    ),
    "versions": (
        lambda value: isinstance(value, Mapping) and _is_list_of_texts(list(value.values())),
        "a text for each package",
    ),
}
