"""Energy, area and leakage of a component, from a cited table, between and beyond its rows."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import TypedDict, Unpack

from accelerators.cost_rows import ACTIONS, CostRows, read_cost_rows
from accelerators.reading import refuse_endless
from accelerators.rules import ConfigError, choose, quoted, refuse, show

BUILT_IN_TABLES = (
    "hwcomponents_45nm",
    "hwcomponents_28nm",
    "hwcomponents_22nm",
    "horowitz_2014_45nm",
)
"""Tables shipped with the package; ``data/SOURCES.md`` says what to know about them."""

_SIZED_BY = {"int_mac": ("bits", "adder_bits"), "sram": ("size_bytes", "width_bits")}
_DEFAULT_SIZE = {"adder_bits": 32}
_LARGEST_PARAMETER = 2.0**40
_LARGEST_FILE_BYTES = 16 * 2**20


class Size(TypedDict, total=False):
    """What sizes a component: what :class:`CostTable` lists for it, and nothing else.

    ``bits``: width of an arithmetic component or of a register; ``adder_bits``: width of the adder
    of an ``int_mac``, 32 by default; ``size_bytes``: capacity of an ``sram``; ``width_bits``: bits
    of one of its accesses.
    """

    bits: float
    adder_bits: float
    size_bytes: float
    width_bits: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CostTable:
    """What one action of one component costs, in one technology.

    Components and what sizes them: ``int_multiplier``, ``int_adder``, ``register`` and
    ``comparator`` (``bits``); ``int_mac`` (``bits`` of the multiplier, ``adder_bits``); ``sram``
    (``size_bytes``, ``width_bits``). Values are exact on the table's rows; between them SRAM is
    bilinear in log2 capacity and log2 width on the logarithm of the value, arithmetic is a power
    law in bits. See ``data/SOURCES.md`` for what happens beyond the rows and for the error between
    them. Voltage, temperature and wires between components are not modelled.

    Attributes:
        name: a built-in name, or the path of the user's file.
        node_nm: technology node.
        source: one line of citation.
    """

    name: str
    node_nm: float
    source: str
    rows: CostRows = field(repr=False)

    def energy_pj(self, component: str, action: str, **size: Unpack[Size]) -> float:
        """Energy of one action in pJ; for ``sram`` of one access of the full width.

        Args:
            component: one of the components above.
            action: ``mac``, ``multiply``, ``add``, ``compare``, ``read`` or ``write``.
            **size: what sizes the component, see :class:`Size`.

        Raises:
            ConfigError: an unknown component or action, or a size unknown, missing or not positive.
        """
        if isinstance(component, str) and component in ACTIONS:
            known = ACTIONS[component]
            if not isinstance(action, str) or action not in known:
                raise ConfigError(
                    f"CostTable[{self.name}].energy_pj action must be {quoted(known)} for "
                    f"{component}, got {show(action, str)}; {choose(action, known)}"
                )
        return self._cost(component, action, size)

    def area_mm2(self, component: str, **size: Unpack[Size]) -> float:
        """Area of one component in mm2; arguments and errors as :meth:`energy_pj`."""
        return self._cost(component, "area", size)

    def leakage_mw(self, component: str, **size: Unpack[Size]) -> float:
        """Leakage of one component in mW; arguments and errors as :meth:`energy_pj`."""
        return self._cost(component, "leakage", size)

    def _cost(self, component: str, quantity: str, given: Size) -> float:
        """One quantity of one component, after checking what sizes it."""
        label = f"CostTable[{self.name}]"
        if not isinstance(component, str) or component not in ACTIONS:
            names = tuple(ACTIONS)
            raise ConfigError(
                f"{label} component must be {quoted(names)}, "
                f"got {show(component, str)}; {choose(component, names)}"
            )
        wanted = _SIZED_BY.get(component, ("bits",))
        complete: dict[str, object] = {**_DEFAULT_SIZE, **given}
        problems = [
            f"{label}.{component} must be sized by {quoted(wanted)}, got {name}; leave it out"
            for name in given
            if name not in wanted
        ] + [
            f"{label}.{component}.{name} must be a number above 0 and at most "
            f"{_LARGEST_PARAMETER:g}, got {show(complete.get(name), (int, float))}; "
            f"give {name}=..."
            for name in wanted
            if not _is_size(complete.get(name))
        ]
        refuse(problems)
        return _priced(self, component, quantity, *(float(complete[name]) for name in wanted))  # type: ignore[arg-type]


def _is_size(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 < value <= _LARGEST_PARAMETER
    )


@lru_cache(maxsize=65536)
def _priced(table: CostTable, component: str, quantity: str, *sizes: float) -> float:
    """One checked look-up; remembered, as a search asks for the same few again and again."""
    if component == "sram":
        return _memory(table, *sizes)[quantity]
    if component == "int_mac":
        row = table.rows.macs.get((sizes[0], sizes[1]))
        if row is not None:
            return row[quantity]
        # HWComponents' MAC is its multiplier plus its adder to the last digit
        multiply, add = ("multiply", "add") if quantity == "mac" else (quantity, quantity)
        return _priced(table, "int_multiplier", multiply, sizes[0]) + _priced(
            table, "int_adder", add, sizes[1]
        )
    return table.rows.curves[component, quantity].at(sizes[0])


@lru_cache(maxsize=16384)
def _memory(table: CostTable, size_bytes: float, width_bits: float) -> dict[str, float]:
    """Read and write energy, area and leakage of a memory of any size, built of macros.

    Wider than the table: equal macros side by side, each access opens all of them. Deeper than
    the table: as many full macros as fit and one for the rest; an access opens one of them, priced
    as a full one.
    """
    grid = table.rows.sram
    columns = max(1, math.ceil(width_bits / grid.widths_bits[-1]))
    column_bytes, column_bits = size_bytes / columns, width_bits / columns
    largest = grid.sizes_bytes[-1]
    full = math.ceil(column_bytes / largest) - 1
    read, write, area, leakage = grid.at(column_bytes - full * largest, column_bits)
    if full:
        read, write, full_area, full_leakage = grid.at(largest, column_bits)
        area, leakage = area + full * full_area, leakage + full * full_leakage
    return {
        "read": columns * read,
        "write": columns * write,
        "area": columns * area,
        "leakage": columns * leakage,
    }


def cost_table(name_or_path: str | os.PathLike[str]) -> CostTable:
    """A cost table by name, or the user's own from a CSV file with the same columns.

    A file is read again only after it changed.

    Args:
        name_or_path: one of :data:`BUILT_IN_TABLES`, or a path that ends in ``.csv``.

    Raises:
        ConfigError: an unknown name, a file that can't be read, or a file that breaks rules (all of
            them together, at most 20).
    """
    if isinstance(name_or_path, str) and name_or_path in BUILT_IN_TABLES:
        return _built_in(name_or_path)
    given = os.fspath(name_or_path) if isinstance(name_or_path, os.PathLike) else name_or_path
    if not isinstance(given, str) or not given.lower().endswith(".csv"):
        raise ConfigError(
            f"CostTable must be {quoted(BUILT_IN_TABLES)} or the path of a .csv file, "
            f"got {show(given, str)}; {choose(given, BUILT_IN_TABLES)}"
        )
    label = f"CostTable[{given}]"
    try:
        refuse_endless(given)
        found = Path(given).stat()
    except (OSError, ValueError) as error:
        raise _unreadable(label, error) from error
    if found.st_size > _LARGEST_FILE_BYTES:
        raise ConfigError(
            f"{label} must be a file of at most {_LARGEST_FILE_BYTES} bytes, got {found.st_size}; "
            "keep one row per component, size and action"
        )
    return _from_file(given, found.st_mtime_ns, found.st_size)


def _unreadable(label: str, error: Exception) -> ConfigError:
    """The error for a file that the system can't read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConfigError(
        f"{label} must be a readable file of UTF-8 text, got: {reason}; check the path and the file"
    )


@cache
def _built_in(name: str) -> CostTable:
    text = (resources.files("accelerators") / "data" / f"{name}.csv").read_text(encoding="utf-8")
    return _table(name, text)


@lru_cache(maxsize=32)
def _from_file(path: str, _modified_ns: int, _size_bytes: int) -> CostTable:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise _unreadable(f"CostTable[{path}]", error) from error
    return _table(path, text)


def _table(name: str, text: str) -> CostTable:
    rows = read_cost_rows(text, f"CostTable[{name}]")
    return CostTable(name=name, node_nm=rows.node_nm, source=rows.source, rows=rows)
