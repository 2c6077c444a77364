"""Whether a simulation read from a file is one: its shape, and that its numbers fit together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from accelerators import Accelerator, ConfigError
from accelerators.rules import show
from simulator.results.lookup import (
    DENSE,
    FORMAT_VERSION,
    IDLE,
    REUSE,
    equal_area_design,
    given_design,
    in_present_names,
)
from simulator.timing.schedule import BLOCKS, LIMITS, most_blamed

# Of the design as given -> the designs that a report of it has; see `SimulationReport.designs`.
DESIGNS = {
    DENSE: (DENSE,),
    REUSE: (DENSE, "dense_equal_area", REUSE),
    IDLE: (DENSE, "dense_equal_area", IDLE),
}
# Sums of the same numbers in another order differ by their rounding, which is far less.
_TOLERANCE = 1e-6

# Says whether a value may be; the words say what it must be.
_Rule = tuple[str, Callable[[Any], bool]]


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a value, whatever it is, is a finite number from `low` to `high`."""
    if type(value) is not int and type(value) is not float:
        return False
    # An integer too large for a float is no number of ours.
    return low <= value <= high and abs(value) < 1e300


def _or_none(rule: _Rule) -> _Rule:
    words, holds = rule
    return f"{words}, or nothing", lambda value: value is None or holds(value)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


_COUNT: _Rule = ("a whole number of at least 0", _count)
_POSITIVE_COUNT: _Rule = ("a whole number of at least 1", lambda v: _count(v) and v > 0)
_AMOUNT: _Rule = ("a finite number of at least 0", lambda v: is_number(v, 0))
_POSITIVE: _Rule = ("a finite number above 0", lambda v: is_number(v, 0) and v > 0)
_FRACTION: _Rule = ("from 0 to 1", lambda v: is_number(v, 0, 1))
# Of what a model gives that may not be finite.
_ERROR: _Rule = ("a number", lambda v: is_number(v) or type(v) is float)
_TEXT: _Rule = ("text", lambda v: type(v) is str)
_TABLE: _Rule = ("a table", lambda v: isinstance(v, Mapping))
_LIST: _Rule = ("a list that is not empty", lambda v: type(v) is list and bool(v))

_SUMMARY: dict[str, _Rule] = {
    "format_version": (f"1 to {FORMAT_VERSION}", lambda v: _count(v) and 1 <= v <= FORMAT_VERSION),
    "verdict": _TEXT,
    "speedup_equal_array": _POSITIVE,
    "speedup_equal_area": _POSITIVE,
    "energy_ratio_equal_array": _POSITIVE,
    "energy_ratio_equal_area": _POSITIVE,
    "accuracy": _or_none(_FRACTION),
    "dense_accuracy": _or_none(_FRACTION),
    "agreement": _or_none(_FRACTION),
    "output_mse": _or_none(_ERROR),
    "error_bound": _or_none(_TABLE),
    "policy": _TABLE,
    "designs": _TABLE,
}
_DESIGN: dict[str, _Rule] = {
    "accelerator": _TABLE,
    "images": _POSITIVE_COUNT,
    "cycles": _POSITIVE_COUNT,
    "bound_by": _TEXT,
    "utilization": _AMOUNT,
    "latency_ms_per_image": _POSITIVE,
    "energy_uj_per_image": _POSITIVE,
    "area_mm2": _POSITIVE,
    "layers": _LIST,
}
_LAYER: dict[str, _Rule] = {
    "layer": _TEXT,
    "kind": _TEXT,
    **dict.fromkeys(("m", "n", "k", "count", "compute_cycles", "cycles"), _POSITIVE_COUNT),
    "macs": _COUNT,
    "bound_by": _TEXT,
    "utilization": _AMOUNT,
    "remaining_ratio": _or_none(_AMOUNT),
    "relative_mse": _or_none(_ERROR),
}
# Of what is done above the layers, which reports of before do not tell.
_ABOVE: dict[str, _Rule] = {"unit": _TEXT, "cycles": _COUNT, "bound_by": _TEXT}
_KINDS_OF_DRAM_BYTES = ("inputs", "weights", "outputs", "spilled_sums", "spilled_results")
# Table of a design and of each of its layers -> the names in it, whether all must be there, and
# what each must be. Units of a design's own, and what they move, may be there too.
_AMOUNTS: dict[str, tuple[tuple[str, ...], bool, _Rule]] = {
    "busy_cycles": (BLOCKS, True, _COUNT),
    "critical_cycles": (LIMITS, False, _COUNT),
    "dram_bytes": (_KINDS_OF_DRAM_BYTES, True, _COUNT),
}
# What a summary says of two designs: how its name begins -> amount of a design.
_RATIOS = {"speedup_": "cycles", "energy_ratio_": "energy_uj_per_image"}


def summary_problems(summary: Any) -> list[str]:
    """Rules that a stored simulation breaks; see `SimulationReport.to_dict`.

    Args:
        summary: as it was read, without the workload.

    Returns:
        A message for each, such as `designs.reuse.cycles must be ...`; none if all is well. Those
        on how numbers fit together come only where each of them is sound.
    """
    problems = _problems(summary, _SUMMARY, "")
    if problems:
        return problems
    summary = in_present_names(summary)
    designs = summary["designs"]
    given = summary.get("design", REUSE)  # reports of format 1 have no other
    known = DESIGNS.get(given) if type(given) is str else None
    if known is None:
        return [f"design must be one of {', '.join(DESIGNS)}, got {show(given)}"]
    # A dense design may stand beside the best one of its area.
    may_be = {*known, "dense_equal_area"}
    if not {*known} <= {*designs} <= may_be:
        return [f"designs must be a table of {', '.join(known)}, got {show(sorted(designs))}"]
    for name in designs:
        problems += _design_problems(designs[name], f"designs.{name}")
    intervals = summary.get("intervals", {})  # reports of before have none
    if type(intervals) is not dict or not all(map(_is_interval, intervals.values())):
        problems.append(f"intervals must be pairs of numbers by name, got {show(intervals)}")
    if problems:
        return problems
    others = {"equal_array": designs[DENSE], "equal_area": equal_area_design(summary)}
    for end, other in others.items():
        for beginning, amount in _RATIOS.items():
            ratio = given_design(summary)[amount] / other[amount]
            expected = 1 / ratio if amount == "cycles" else ratio
            problems += _unequal(f"{beginning}{end}", summary[f"{beginning}{end}"], expected)
    return problems


def _is_interval(value: Any) -> bool:
    """Whether a value is a lowest and a highest number."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value))


def _problems(given: Any, rules: Mapping[str, _Rule], path: str) -> list[str]:
    """Values of a table that are missing or break their rule."""
    if type(given) is not dict:
        return [f"{path.rstrip('.') or 'it'} must be a table, got {show(given)}"]
    return [
        f"{path}{name} must be {words}, got {show(given[name]) if name in given else 'nothing'}"
        for name, (words, holds) in rules.items()
        if name not in given or not holds(given[name])
    ]


def _design_problems(design: Any, path: str) -> list[str]:
    """Rules that one of the designs breaks; see `DesignReport.to_dict`."""
    problems = _problems(design, _DESIGN, f"{path}.")
    if problems:
        return problems
    try:
        accelerator = Accelerator.from_dict(design["accelerator"])
    except ConfigError as error:
        return [f"{path}.accelerator: {each}" for each in error.violations]
    above = design.get("above", [])
    if type(above) is not list:
        return [f"{path}.above must be a list, got {show(above)}"]
    parts: list[tuple[Any, str]] = []
    for kind, rules, found in (("layers", _LAYER, design["layers"]), ("above", _ABOVE, above)):
        for index, part in enumerate(found):
            place = f"{path}.{kind}.{index}"
            problems += _problems(part, rules, f"{place}.") or _amount_problems(
                part, place, accelerator
            )
            parts.append((part, place))
    problems += _amount_problems(design, path, accelerator)
    on_chip = tuple(name for name, part in accelerator.parts().items() if part.unit.on_chip)
    areas = design.get("area_by_part_mm2")
    if type(areas) is dict:  # of an earlier version, without the parts that came later
        areas = {name: 0.0 for name in on_chip if name not in accelerator.units} | areas
    problems += _table_problems(areas, on_chip, True, _AMOUNT, f"{path}.area_by_part_mm2")
    if problems:
        return problems
    cycles = sum(part["cycles"] for part, _ in parts)
    problems += _unequal(f"{path}.cycles", design["cycles"], cycles)
    for each, place in [(design, path), *parts]:
        blamed = each["critical_cycles"]
        problems += _unequal(f"{place}.cycles", each["cycles"], sum(blamed.values()))
        longest = most_blamed(blamed)
        if each["bound_by"] != longest:
            problems.append(f"{place}.bound_by must be {longest!r}, got {show(each['bound_by'])}")
    for name in (*_AMOUNTS, "energy_pj"):
        for key, value in design[name].items():
            total = sum(part[name].get(key, 0) for part, _ in parts)
            problems += _unequal(f"{path}.{name}.{key}", value, total)
    images = design["images"]
    time_ms = design["cycles"] / accelerator.clock_hz * 1e3 / images
    energy_uj = sum(design["energy_pj"].values()) * 1e-6 / images
    return [
        *problems,
        *_unequal(f"{path}.latency_ms_per_image", design["latency_ms_per_image"], time_ms),
        *_unequal(f"{path}.energy_uj_per_image", design["energy_uj_per_image"], energy_uj),
        *_unequal(f"{path}.area_mm2", design["area_mm2"], sum(areas.values())),
    ]


def _amount_problems(holder: Mapping[str, Any], path: str, accelerator: Accelerator) -> list[str]:
    """Rules that the tables of a design or a layer break."""
    parts = tuple(accelerator.parts())
    energies = ((*parts, "leakage"), False, _AMOUNT)
    problems = []
    for name, (known, whole, rule) in (_AMOUNTS | {"energy_pj": energies}).items():
        table = holder.get(name)
        more: Iterable[str] = parts
        if name == "dram_bytes" and type(table) is dict:
            more = (kind for kind in table if type(kind) is str and kind.isidentifier())
        problems += _table_problems(table, known, whole, rule, f"{path}.{name}", more)
    return problems


def _table_problems(
    table: Any,
    known: tuple[str, ...],
    whole: bool,
    rule: _Rule,
    path: str,
    more: Iterable[str] = (),
) -> list[str]:
    """Rules that a table of amounts breaks; there may be more in it than what is known."""
    words, holds = rule
    names = {*table} if type(table) is dict else set()
    if not names or (whole and not names >= {*known}) or not names <= {*known, *more}:
        return [f"{path} must be a table of {', '.join(known)}, got {show(table)}"]
    return [
        f"{path}.{name} must be {words}, got {show(value)}"
        for name, value in table.items()
        if not holds(value)
    ]


def _unequal(path: str, found: float, expected: float) -> list[str]:
    """A message if two numbers that must be the same are not."""
    if math.isclose(found, expected, rel_tol=_TOLERANCE):
        return []
    return [f"{path} must be {expected:g}, as the rest says, got {found:g}"]
