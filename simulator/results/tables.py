"""Tables and numbers as readers see them, on a page and on a terminal alike."""

import json
from collections.abc import Mapping
from typing import Any

NOTHING = "\N{EN DASH}"


def column(key: str, name: str, unit: str = "", *, text: bool = False) -> dict[str, Any]:
    """A column of a table: its key in the rows, its heading, its unit; text stands left."""
    return {"key": key, "name": name, "unit": unit, "text": text}


def shown(value: Any) -> str:
    """A value as readers see it: numbers short, nothing as a dash, nested values as JSON."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return value if isinstance(value, str) else str(value)  # what is marked up stays so


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few significant digits, without an exponent where it can be; or a dash."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.{digits}g}"
    if abs(value) >= 1e-3:
        return f"{value:#.{digits}g}".rstrip(".")
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share of 1 in percent, without the sign; a dash where it is unknown."""
    return NOTHING if share is None else f"{100 * share:.1f}"


def named(values: Mapping[str, Any]) -> str:
    """`name value` pairs in a line."""
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())
