"""Reads a cost table's CSV file into curves and a grid, and says all that is wrong with one.

The columns are those of ``data/hwcomponents_45nm.csv``; ``data/SOURCES.md`` describes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from accelerators.reading import csv_rows, refuse_file
from accelerators.rules import choose, quoted, show

if TYPE_CHECKING:
    from scipy.interpolate import RegularGridInterpolator

COLUMNS = (
    "component",
    "parameter",
    "tech_node_nm",
    "action",
    "energy_pj",
    "area_mm2",
    "leakage_mw",
    "source",
)
NUMBERS = ("tech_node_nm", "energy_pj", "area_mm2", "leakage_mw")

ACTIONS: dict[str, tuple[str, ...]] = {
    "int_multiplier": ("multiply",),
    "int_adder": ("add",),
    "int_mac": ("mac",),
    "register": ("read", "write"),
    "comparator": ("compare",),
    "sram": ("read", "write"),
}
"""Every component and what it can do; a file may leave out only ``int_mac``."""

_PUBLISHED_NAMES = {
    "AladdinIntMAC": "int_mac",
    "AladdinMultiplier": "int_multiplier",
    "AladdinAdder": "int_adder",
    "AladdinRegister": "register",
    "AladdinComparator": "comparator",
    "SRAM": "sram",
}
_PARAMETERS = {"int_mac": ("multiplier_width", "adder_width"), "sram": ("size_kib", "width_bits")}
_LARGEST = 1e12  # pJ, mm2, mW, KiB: far above any component, far below where a product overflows
SRAM_COLUMNS = ("read", "write", "area", "leakage")


@dataclass(frozen=True)
class Curve:
    """A positive quantity against a number of bits: a power law between neighbouring points.

    Attributes:
        points: ``(bits, value)``, ascending in bits; all values are positive, or all are zero.
        lone_slope: exponent used if there is one point only.
    """

    points: tuple[tuple[float, float], ...]
    lone_slope: float

    def at(self, bits: float) -> float:
        """The value at ``bits``: exact at a point, the end slope continued beyond the ends."""
        for known, value in self.points:
            if known == bits or value == 0.0:
                return value
        if len(self.points) == 1:
            known, value = self.points[0]
            return value * (bits / known) ** self.lone_slope
        right = next(
            (i for i, point in enumerate(self.points) if point[0] > bits), len(self.points) - 1
        )
        (x0, y0), (x1, y1) = self.points[max(right, 1) - 1], self.points[max(right, 1)]
        return y0 * (bits / x0) ** (math.log(y1 / y0) / math.log(x1 / x0))


@dataclass(frozen=True, eq=False)
class SramGrid:
    """One SRAM macro's energy per access, area and leakage over (capacity, width).

    Attributes:
        sizes_bytes: capacities of the rows, ascending, at least two.
        widths_bits: widths of the rows, ascending, at least two.
        values: ``(sizes, widths, 4)`` array: read pJ, write pJ, area mm2, leakage mW.
    """

    sizes_bytes: tuple[float, ...]
    widths_bits: tuple[float, ...]
    values: np.ndarray
    _logarithms: RegularGridInterpolator = field(init=False, repr=False)
    _zero: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        zero = (self.values == 0.0).all(axis=(0, 1))  # leakage that a source leaves out
        logarithms = np.log(np.where(zero, 1.0, self.values))
        from scipy.interpolate import RegularGridInterpolator

        axes = (np.log2(self.sizes_bytes), np.log2(self.widths_bits))
        object.__setattr__(self, "_zero", zero)
        # extrapolates (fill_value=None) only by the last bit of log2 at the ends; `at` clips
        interpolator = RegularGridInterpolator(
            axes, logarithms, bounds_error=False, fill_value=None
        )
        object.__setattr__(self, "_logarithms", interpolator)

    def at(self, size_bytes: float, width_bits: float) -> tuple[float, float, float, float]:
        """``(read_pj, write_pj, area_mm2, leakage_mw)`` of a macro within the grid's upper ends.

        Below the smallest capacity the energy is that of the smallest, area and leakage shrink in
        proportion; below the smallest width everything is as at the smallest.
        """
        smallest, largest = self.sizes_bytes[0], self.sizes_bytes[-1]
        narrowest, widest = self.widths_bits[0], self.widths_bits[-1]
        size = min(max(size_bytes, smallest), largest)
        width = min(max(width_bits, narrowest), widest)
        found = np.exp(self._logarithms((np.log2(size), np.log2(width))))
        read, write, area, leakage = (float(value) for value in np.where(self._zero, 0.0, found))
        share = min(size_bytes / smallest, 1.0)
        return read, write, area * share, leakage * share


@dataclass(frozen=True, eq=False)
class CostRows:
    """A checked file: one curve per component and quantity, one grid for SRAM.

    Attributes:
        node_nm: technology node.
        source: the citations of its rows, joined.
        curves: ``(component, action | "area" | "leakage")`` to a curve over bits.
        macs: ``(multiplier bits, adder bits)`` to ``{"mac" | "area" | "leakage": value}``.
        sram: the grid.
    """

    node_nm: float
    source: str
    curves: dict[tuple[str, str], Curve]
    macs: dict[tuple[float, float], dict[str, float]]
    sram: SramGrid


@dataclass
class _Findings:
    """What a file holds, and what is wrong with it, while it is read."""

    label: str
    problems: list[str] = field(default_factory=list)
    nodes: set[float] = field(default_factory=set)
    sources: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    values: dict[str, dict[tuple[float, ...], dict[str, float]]] = field(default_factory=dict)


def read_cost_rows(text: str, label: str) -> CostRows:
    """Checks and reads the text of a cost table.

    Args:
        text: the file's text.
        label: how messages call the table, for example ``"CostTable[mine.csv]"``.

    Raises:
        ConfigError: with every broken rule (at most 20), by line and column.
    """
    findings = _Findings(label)
    for at, row in csv_rows(
        text, label, lambda header: _header_problems(header, label), findings.problems
    ):
        _read_row(at, {name: row[name].strip() for name in COLUMNS}, findings)
    refuse_file(findings.problems, label)
    if len(findings.nodes) > 1:
        listed = ", ".join(f"{node:g}" for node in sorted(findings.nodes))
        findings.problems.append(
            f"{label} column tech_node_nm must name one technology node, got {listed}; "
            "keep one node per file"
        )
    _check_complete(findings)
    refuse_file(findings.problems, label)
    return CostRows(
        node_nm=findings.nodes.pop(),
        source="; ".join(findings.sources),
        curves=_curves(findings),
        macs=dict(findings.values.get("int_mac", {})),  # type: ignore[arg-type]
        sram=_grid(findings),
    )


def _header_problems(header: list[str], label: str) -> list[str]:
    """Columns that are missing."""
    given = ", ".join(header) if header else "an empty file"
    return [
        f"{label} must have the column {name}, got {given[:200]}; "
        f"add it, the columns are {','.join(COLUMNS)}"
        for name in COLUMNS
        if name not in header
    ]


def _read_row(at: str, row: dict[str, str], findings: _Findings) -> None:
    """Adds one row to the findings, or what is wrong with it."""
    before = len(findings.problems)
    component = _PUBLISHED_NAMES.get(row["component"], row["component"])
    numbers = {name: _number(row[name], f"{at} {name}", findings) for name in NUMBERS}
    if component not in ACTIONS:
        known = [*ACTIONS, *_PUBLISHED_NAMES]
        findings.problems.append(
            f"{at} component must be {quoted(known)}, got {show(row['component'], str)}; "
            f"{choose(row['component'], known)}"
        )
        return
    action = "mac" if (component, row["action"]) == ("int_mac", "compute") else row["action"]
    if action not in ACTIONS[component]:
        findings.problems.append(
            f"{at} action must be {quoted(ACTIONS[component])} for {component}, "
            f"got {show(action, str)}; {choose(action, ACTIONS[component])}"
        )
    key = _parameters(component, row["parameter"], f"{at} parameter", findings)
    if len(findings.problems) > before:
        return
    findings.nodes.add(numbers["tech_node_nm"])
    findings.sources[" ".join(row["source"].split())] = None
    known_values = findings.values.setdefault(component, {}).setdefault(key, {})
    for name, quantity in (("energy_pj", action), ("area_mm2", "area"), ("leakage_mw", "leakage")):
        value = numbers[name]
        if known_values.setdefault(quantity, value) != value:
            findings.problems.append(
                f"{at} {name} must be that of the earlier row of {component} "
                f"{row['parameter']}, {known_values[quantity]:g}, got {value:g}; "
                "keep one value"
            )


def _number(given: str, path: str, findings: _Findings) -> float:
    """A positive number (leakage may be 0); 1 in its place if it is broken."""
    may_be_zero = path.endswith("leakage_mw")
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if (
        not math.isfinite(value)
        or value > _LARGEST
        or value < 0
        or (value == 0 and not may_be_zero)
    ):
        least = "of 0 or more" if may_be_zero else "above 0"
        fix = (
            "give the value in the unit of the column's name"
            if given
            else "take what your source lacks from another, and name both in the column source"
        )
        findings.problems.append(
            f"{path} must be a number {least} and at most {_LARGEST:g}, got {show(given, str)}; "
            f"{fix}"
        )
        return 1.0
    return value


def _parameters(component: str, given: str, path: str, findings: _Findings) -> tuple[float, ...]:
    """The numbers of ``"name=value;name=value"`` in the component's order."""
    names = _PARAMETERS.get(component, ("width",))
    pairs = dict(
        (part.partition("=")[0].strip(), part.partition("=")[2]) for part in given.split(";")
    )
    values: list[float] = []
    for name in names:
        try:
            values.append(float(pairs.get(name, "")))
        except ValueError:
            values.append(math.nan)
    if set(pairs) != set(names) or not all(0 < value <= _LARGEST for value in values):
        form = ";".join(f"{name}=<number>" for name in names)
        findings.problems.append(
            f"{path} must be {form} for {component}, got {show(given, str)}; "
            "write it so, numbers above 0"
        )
    return tuple(values)


def _shown(component: str, key: tuple[float, ...]) -> str:
    """A component's parameters as its rows write them."""
    names = _PARAMETERS.get(component, ("width",))
    return ";".join(f"{name}={value:g}" for name, value in zip(names, key, strict=True))


def _check_complete(findings: _Findings) -> None:
    """Every component has every action; SRAM fills a grid; zero leakage is zero throughout."""
    label = findings.label
    for component, actions in ACTIONS.items():
        cells = findings.values.get(component, {})
        for action in actions:
            lacking = [key for key, found in cells.items() if action not in found]
            if (not cells and component != "int_mac") or lacking:
                where = f" at {_shown(component, lacking[0])}" if lacking else ""
                findings.problems.append(
                    f"{label} must have rows for {component} {action}{where}, got none; add them"
                )
        zeros = sum(found["leakage"] == 0.0 for found in cells.values())
        if 0 < zeros < len(cells):
            findings.problems.append(
                f"{label} column leakage_mw must be above 0 on all rows of {component} "
                f"or 0 on all, got 0 on {zeros} of {len(cells)}; give the missing values"
            )
    cells = findings.values.get("sram", {})
    sizes, widths = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    for name, axis in (("size_kib", sizes), ("width_bits", widths)):
        if cells and len(axis) < 2:
            findings.problems.append(
                f"{label} must have sram rows of at least two {name}, got {axis[0]:g} only; "
                "add rows of another"
            )
    holes = [(size, width) for size in sizes for width in widths if (size, width) not in cells]
    if holes:
        size, width = holes[0]
        findings.problems.append(
            f"{label} must have sram rows at every size_kib and width_bits, got none at "
            f"size_kib={size:g};width_bits={width:g} and {len(holes) - 1} more; add them"
        )


def _curves(findings: _Findings) -> dict[tuple[str, str], Curve]:
    """One curve per component but MAC and SRAM, and per quantity."""
    curves = {}
    for component, actions in ACTIONS.items():
        if component in _PARAMETERS:
            continue
        cells = findings.values[component]
        slope = 2.0 if component == "int_multiplier" else 1.0
        for quantity in (*actions, "area", "leakage"):
            points = tuple((key[0], cells[key][quantity]) for key in sorted(cells))
            curves[component, quantity] = Curve(points, slope)
    return curves


def _grid(findings: _Findings) -> SramGrid:
    """The SRAM rows as an array over (capacity, width)."""
    cells = findings.values["sram"]
    sizes, widths = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    values = np.array(
        [
            [[cells[size, width][name] for name in SRAM_COLUMNS] for width in widths]
            for size in sizes
        ]
    )
    return SramGrid(tuple(size * 1024 for size in sizes), tuple(widths), values)
