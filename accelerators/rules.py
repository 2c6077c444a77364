"""Rules declared beside the fields they hold for, and the one error that reports them all.

A field of a frozen dataclass carries its rule in its metadata::

    rows: int = field(metadata=integer(1, 4096))

and :func:`violations` checks a whole tree of such dataclasses without raising, so that every broken
rule can be reported together; :func:`problems` checks the arguments of a function. A message says
the path, the rule, what was given and the fix.
"""

from __future__ import annotations

import difflib
import math
import numbers
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

Named = TypeVar("Named")

FieldRule = Callable[[Any, str], list[str]]
"""``rule(value, path)`` gives the violations, none if the value is valid."""

_SHOWN_CHARACTERS = 60
_SHOWN_INT_BITS = 64


class ConfigError(ValueError):
    """A configuration breaks one or more rules; ``str()`` lists every violation, one per line.

    Attributes:
        violations: one message per broken rule, in the order of the fields.
    """

    violations: tuple[str, ...]

    def __init__(self, violations: str | Sequence[str]) -> None:
        listed = (violations,) if isinstance(violations, str) else tuple(violations)
        super().__init__(listed)  # in args, so that the error survives pickling
        self.violations = listed

    def __str__(self) -> str:
        return "\n".join(self.violations)


class _Absent:
    """Stands for a field that a description leaves out; reported by the reader, not by rules."""

    def __repr__(self) -> str:
        return "<absent>"


ABSENT = _Absent()


@dataclass(frozen=True)
class Relation:
    """A rule over several fields of one object.

    Attributes:
        needs: fields that must be valid on their own before the relation is looked at.
        check: gives messages without the object's path, or none if the relation holds.
    """

    needs: tuple[str, ...]
    check: Callable[[Any], list[str]]


def violations(instance: object, path: str) -> list[str]:
    """Every broken rule of a dataclass and of the dataclasses inside it.

    Args:
        instance: a dataclass instance whose fields declare rules; its class may list
            ``RELATIONS`` over several fields, and the classes of its fields' values
            ``OWNER_RELATIONS`` over the instance that has them.
        path: how messages call the instance, for example ``"Accelerator.cache"``.

    Returns:
        One message per violation, in field order, relations after fields. Never raises.
    """
    found: list[str] = []
    broken: set[str] = set()
    for entry in fields(instance):  # type: ignore[arg-type]
        rule = entry.metadata.get("rule")
        value = getattr(instance, entry.name)
        if value is ABSENT:
            broken.add(entry.name)
            continue
        problems = rule(value, f"{path}.{entry.name}") if rule is not None else []
        if problems:
            broken.add(entry.name)
            found.extend(problems)
    relations = list(getattr(type(instance), "RELATIONS", ()))
    for entry in fields(instance):  # type: ignore[arg-type]
        if entry.name not in broken:
            held = getattr(instance, entry.name)
            relations.extend(getattr(type(held), "OWNER_RELATIONS", ()))
    for relation in relations:
        if broken.isdisjoint(relation.needs):
            found.extend(f"{path}.{message}" for message in relation.check(instance))
    return found


def problems(
    path: str, given: Mapping[str, object], rules: Mapping[str, Mapping[str, FieldRule]]
) -> list[str]:
    """Every broken rule of a function's arguments, in the order of the rules.

    Args:
        path: begins each message, before the argument's name, for example ``"simulate."``.
        given: name -> value.
        rules: name -> rule, as a field has it.
    """
    return [
        message
        for name, checked in rules.items()
        for message in checked["rule"](given[name], f"{path}{name}")
    ]


def refuse(broken: Sequence[str]) -> None:
    """Raise one `ConfigError` with all messages, if there are any."""
    if broken:
        raise ConfigError(broken)


def show(value: object, expected: type | tuple[type, ...] = ()) -> str:
    """A short text of any value for a message; the type is added unless it is an expected one.

    Never raises, whatever ``repr`` of the value does.
    """
    allowed = expected if isinstance(expected, tuple) else (expected,)
    kind = type(value)
    if kind is int and value.bit_length() > _SHOWN_INT_BITS:  # type: ignore[attr-defined]
        return f"an integer of {value.bit_length()} bits"  # type: ignore[attr-defined]
    try:
        text = reprlib.repr(value) if not isinstance(value, str) else repr(value)
    except Exception:  # a value given by a user may break even repr; its type still says enough
        text = "a value without a repr"
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 3] + "..."
    if value is None or kind in allowed:
        return text
    return f"{text} ({kind.__name__})"


def nearest(given: object, names: Iterable[str]) -> str | None:
    """The name that a misspelled one most likely means, or ``None`` if none is near."""
    if not isinstance(given, str):
        return None
    found = difflib.get_close_matches(given[:100], list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def choose(given: object, names: Sequence[str]) -> str:
    """The fix of a message about an unknown name: the nearest name, or the advice to pick one."""
    if len(names) == 1:
        return f"use {names[0]!r}"
    near = nearest(given, names)
    return f"use {near!r}" if near else "use one of these"


def named(path: str, given: object, known: Mapping[str, Named]) -> Named:
    """What goes by a name; a `ConfigError` that tells the nearest if nothing does."""
    if isinstance(given, str) and given in known:
        return known[given]
    names = tuple(known)
    raise ConfigError(
        f"{path} must be {quoted(names)}, got {show(given, str)}; {choose(given, names)}"
    )


def quoted(names: Sequence[str]) -> str:
    """Names as they stand in a message: ``'a'`` alone, ``one of 'a', 'b'`` for several."""
    text = ", ".join(repr(name) for name in names)
    return text if len(names) == 1 else f"one of {text}"


def flag() -> dict[str, FieldRule]:
    """``True`` or ``False``."""

    def rule(value: object, path: str) -> list[str]:
        if type(value) is bool:
            return []
        return [f"{path} must be True or False, got {show(value)}; use one of these"]

    return {"rule": rule}


def integer(low: int, high: int, *, multiple_of: int = 1) -> dict[str, FieldRule]:
    """A whole number of Python's type ``int`` in ``[low, high]``, both of them valid."""
    wanted = "an integer" if multiple_of == 1 else f"a multiple of {multiple_of}"
    must = f"must be {wanted} from {low} to {high}"

    def rule(value: object, path: str) -> list[str]:
        if type(value) is not int:
            return [f"{path} {must}, got {show(value)}; {_whole_number_fix(value, low, high)}"]
        if not low <= value <= high:
            return [f"{path} {must}, got {show(value, int)}; use {low if value < low else high}"]
        if value % multiple_of:
            below = value - value % multiple_of
            fix = " or ".join(
                str(number) for number in (below, below + multiple_of) if low <= number <= high
            )
            return [f"{path} {must}, got {value}; use {fix}"]
        return []

    return {"rule": rule}


def _whole_number_fix(value: object, low: int, high: int) -> str:
    """What to write instead of a value that is not an ``int``: its whole number, if it has one."""
    if _is_number(value, numbers.Integral) and low <= value <= high:  # type: ignore[operator]
        return "convert it by int(...)"
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
    integral = isinstance(value, float) and value.is_integer()
    whole = int(value) if digits or integral else None  # type: ignore[call-overload]
    if whole is not None and low <= whole <= high:
        return f"use {whole}"
    return "use a whole number in that range"


def _is_number(value: object, kind: type) -> bool:
    """Whether a value is a number of that kind of whatever type, such as NumPy's."""
    return isinstance(value, kind) and not isinstance(value, bool)


def integer_of(*allowed: int) -> dict[str, FieldRule]:
    """One of a few whole numbers."""
    text = ", ".join(str(number) for number in allowed[:-1]) + f" or {allowed[-1]}"

    def rule(value: object, path: str) -> list[str]:
        if type(value) is not int:
            known = _is_number(value, numbers.Integral) and value in allowed
            advice = "convert it by int(...)" if known else "use one of these integers"
            return [f"{path} must be {text}, got {show(value)}; {advice}"]
        if value not in allowed:
            fix = min(allowed, key=lambda number: abs(number - value))
            return [f"{path} must be {text}, got {show(value, int)}; use {fix}"]
        return []

    return {"rule": rule}


def real(low: float, high: float) -> dict[str, FieldRule]:
    """A finite ``int`` or ``float`` (no ``bool``) in ``[low, high]``, both of them valid."""
    must = f"must be a finite number from {low:g} to {high:g}"

    def rule(value: object, path: str) -> list[str]:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            known = _is_number(value, numbers.Real) and low <= value <= high  # type: ignore[operator]
            advice = "convert it by float(...)" if known else "use a number in that range"
            return [f"{path} {must}, got {show(value)}; {advice}"]
        if isinstance(value, float) and math.isnan(value):
            return [f"{path} {must}, got nan; use a number in that range"]
        if not low <= value <= high:
            fix = low if value < low else high
            return [f"{path} {must}, got {show(value, (int, float))}; use {fix:g}"]
        return []

    return {"rule": rule}


def one_of(names: Callable[[], Sequence[str]]) -> dict[str, FieldRule]:
    """A string among names that are read when the rule is first used."""

    def rule(value: object, path: str) -> list[str]:
        known = names()
        if type(value) is str and value in known:
            return []
        return [f"{path} must be {quoted(known)}, got {show(value, str)}; {choose(value, known)}"]

    return {"rule": rule}


def text(longest: int, example: str) -> dict[str, FieldRule]:
    """A string of 1 to ``longest`` characters."""
    must = f"must be a string of 1 to {longest} characters"

    def rule(value: object, path: str) -> list[str]:
        if type(value) is str and 1 <= len(value) <= longest:
            return []
        return [f"{path} {must}, got {show(value, str)}; use a name such as {example!r}"]

    return {"rule": rule}


def true_of(test: Callable[[Any], bool], must: str, fix: str) -> dict[str, FieldRule]:
    """A value of which ``test`` is true; ``must`` says so in words, as in "be a policy"."""

    def rule(value: object, path: str) -> list[str]:
        return [] if test(value) else [f"{path} must {must}, got {show(value)}; {fix}"]

    return {"rule": rule}


def optional(checked: dict[str, FieldRule]) -> dict[str, FieldRule]:
    """``None``, which stands for unknown, or what another rule allows."""
    inner = checked["rule"]

    def rule(value: object, path: str) -> list[str]:
        return [] if value is None else inner(value, path)

    return {"rule": rule}


def part(kind: type, *, optional: bool = False, **place: object) -> dict[str, Any]:
    """A nested dataclass of exactly this class, checked with its own rules; or ``None``.

    Args:
        kind: the class.
        optional: whether ``None`` is valid.
        **place: what the class says of itself and is otherwise in this field, for whoever reads
            the metadata: for units ``words``, ``colour`` and ``exploits``.
    """
    wanted = f"a {kind.__name__} or None" if optional else f"a {kind.__name__}"

    def rule(value: object, path: str) -> list[str]:
        if type(value) is kind:
            return violations(value, path)
        if value is None and optional:
            return []
        return [f"{path} must be {wanted}, got {show(value)}; use {kind.__name__}(...)"]

    return {"rule": rule, "part": kind, **place}
