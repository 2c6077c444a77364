"""Values, JSON and bytes that users should not bring but do: what the fuzz tests attack with.

A test that uses these says which errors are documented; anything else that comes out is a failure.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

DEEP = 5000  # beyond every limit of recursion
MANY_DIGITS = 10**5000  # more than Python turns into text


class Unspeakable:
    """Raises whatever it is asked: its text, its truth, its length, its elements, a comparison."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("no")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __getitem__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _refuse
    __hash__ = __index__ = __int__ = __float__ = __array__ = _refuse


class Text(str):
    """A text of a class of its own."""


class Endless:
    """An iterable without an end."""

    def __iter__(self) -> Any:
        while True:
            yield 1


def nested(depth: int = DEEP) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def knot() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = [1]
    value.append(value)
    return value


# Name -> makes the value; a new one each time, as some can be changed.
NASTY_VALUES: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "true": lambda: True,
    "false": lambda: False,
    "zero": lambda: 0,
    "one": lambda: 1,
    "seven": lambda: 7,
    "minus one": lambda: -1,
    "2**31": lambda: 2**31,
    "2**63": lambda: 2**63,
    "10**30": lambda: 10**30,
    "-10**30": lambda: -(10**30),
    "many digits": lambda: MANY_DIGITS,
    "whole float": lambda: 3.0,
    "tiny": lambda: 5e-324,
    "huge float": lambda: 1e308,
    "negative float": lambda: -0.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "complex": lambda: 1j,
    "fraction": lambda: Fraction(1, 3),
    "numpy int": lambda: np.int64(3),
    "numpy bool": lambda: np.bool_(True),
    "numpy float": lambda: np.float32(0.5),
    "numpy nan": lambda: np.float64(math.nan),
    "empty text": lambda: "",
    "digits": lambda: "12",
    "a name": lambda: "conv1",
    "no": lambda: "no",
    "long text": lambda: "x" * 100_000,
    "surrogate": lambda: "a\udc80b",
    "null byte": lambda: "a\0b",
    "line ends": lambda: "a\nb\r\tc",
    "escape code": lambda: "\x1b[31mred",
    "markup": lambda: "<script>alert(1)</script>&\"'",
    "path": lambda: "../../etc/passwd",
    "absolute path": lambda: "/dev/zero",
    "dunder": lambda: "__class__",
    "text of own class": lambda: Text("conv1"),
    "bytes": lambda: b"\xff\x00",
    "empty list": lambda: [],
    "list": lambda: [1, 2, 3],
    "list of texts": lambda: ["a", "b"],
    "tuple of nothing": lambda: (None,),
    "tuple of huge": lambda: (10**30, -1),
    "nested": nested,
    "knot": knot,
    "empty dict": lambda: {},
    "dict": lambda: {"a": 1},
    "dict of numbers": lambda: {1: 2, None: nested(3)},
    "set": lambda: {1, 2},
    "iterator": lambda: iter([1]),
    "endless": Endless,
    "empty array": lambda: np.array([]),
    "array": lambda: np.arange(6).reshape(2, 3),
    "array of objects": lambda: np.array([None, "x"], dtype=object),
    "scalar array": lambda: np.array(3),
    "class": lambda: int,
    "function": lambda: len,
    "object": object,
    "path object": lambda: Path("nowhere"),
    "unspeakable": Unspeakable,
    "list of unspeakable": lambda: [Unspeakable()],
}

# Those that JSON can hold; Python's reader takes NaN and the infinities too.
_JSON_VALUES = [
    name
    for name, make in NASTY_VALUES.items()
    if type(make()) in (type(None), bool, int, float, str, list, dict)
    and name
    not in ("many digits", "nested", "knot", "dict of numbers", "list of unspeakable", "long text")
]


def mutate_json(value: Any, random: Random) -> Any:
    """A copy of what JSON holds with one or two places changed, deleted, repeated or wrapped."""
    changed = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2))):
        places = list(_places([changed]))
        holder, key = random.choice(places[1:] or places)
        _mutate_at(holder, key, random)
        if holder is places[0][0]:
            changed = holder[0] if holder else None
    return changed


def _places(holder: Any) -> Any:
    """Every (list or dict, key) inside, outermost first."""
    items = holder.items() if isinstance(holder, dict) else enumerate(holder)
    for key, value in list(items):
        yield holder, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _mutate_at(holder: Any, key: Any, random: Random) -> None:
    value = holder[key]
    kind = random.choice(("replace", "replace", "number", "delete", "wrap", "repeat", "rename"))
    if kind == "number" and isinstance(value, int | float):
        holder[key] = random.choice(
            (value + 1, value - 1, -value, value * 2, value * 10**30, float(value), str(value), 0)
        )
    elif kind == "delete":
        del holder[key]
    elif kind == "wrap":
        holder[key] = random.choice(([value], {"value": value}, [[[value]]], str(value)))
    elif kind == "repeat" and isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(value))
    elif kind == "rename" and isinstance(holder, dict):
        holder[random.choice(("x", "name", f"{key} ", "../x", "a\udc80"))] = holder.pop(key)
    else:
        holder[key] = NASTY_VALUES[random.choice(_JSON_VALUES)]()


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """A file's bytes cut short, with bits flipped, bytes overwritten, inserted, left out, twice."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        size = random.choice((1, 2, 8, 64))
        kind = random.choice(("cut", "flip", "flip", "overwrite", "insert", "drop", "twice"))
        if kind == "cut":
            del changed[at:]
        elif kind == "flip" and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == "overwrite":
            fill = random.choice((b"\0", b"\xff", b"9", b"[", b'"', b"\n"))
            changed[at : at + size] = fill * min(size, len(changed) - at)
        elif kind == "insert":
            changed[at:at] = random.randbytes(size)
        elif kind == "drop":
            del changed[at : at + size]
        else:
            changed[at:at] = changed[max(0, at - 1000) : at]
    return bytes(changed)
