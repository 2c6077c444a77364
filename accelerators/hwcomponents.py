"""Writes a cost table of any node from HWComponents, an optional extra for Python 3.12.

``python -m accelerators.hwcomponents mine.csv --node-nm 32`` writes the rows that the tables in
``data/`` have; a design then names ``mine.csv`` as its technology. The built-in tables were made
with the same components and sizes. HWComponents states the range of nodes that it trusts.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from accelerators.cost_rows import COLUMNS, read_cost_rows
from accelerators.rules import ConfigError, show
from accelerators.writing import write_whole

PACKAGES = ("hwcomponents", "hwcomponents-cacti", "hwcomponents-library")
SIZES_KIB = tuple(2**bits for bits in range(11))
WIDTHS_BITS = (32, 64, 128, 256)
NODES_NM = (7.0, 180.0)
"""Nodes that are taken; CACTI interpolates from 22 to 90 nm and scales beyond."""

# The library imports hwcomponents-neurosim without asking for it.
_EXTRA = "with Python 3.12 or newer, run: pip install " + " ".join(
    (*PACKAGES, "hwcomponents-neurosim")
)
_SIGNIFICANT = 7


@dataclass(frozen=True, kw_only=True)
class _Component:
    """A component of HWComponents, at some sizes.

    Attributes:
        name: of its class.
        sizes: what is varied, as the class takes it.
        actions: what it does, as the class calls it.
    """

    name: str
    sizes: Sequence[Mapping[str, int]]
    actions: Sequence[str]

    @property
    def module(self) -> str:
        """The module that has the class."""
        return "hwcomponents_cacti" if self.name == "SRAM" else "hwcomponents_library"


COMPONENTS = (
    _Component(
        name="AladdinIntMAC",
        sizes=[{"adder_width": width, "multiplier_width": 8} for width in (32, 16)],
        actions=["mac"],
    ),
    _Component(
        name="AladdinMultiplier",
        sizes=[{"width": width} for width in (8, 16, 32)],
        actions=["multiply"],
    ),
    _Component(
        name="AladdinAdder", sizes=[{"width": width} for width in (8, 16, 32)], actions=["add"]
    ),
    _Component(name="AladdinRegister", sizes=[{"width": 8}], actions=["read", "write"]),
    _Component(
        name="AladdinComparator",
        sizes=[{"width": width} for width in (16, 32)],
        actions=["compare"],
    ),
    _Component(
        name="SRAM",
        sizes=[
            {"size": 8 * 1024 * kib, "width": width} for kib in SIZES_KIB for width in WIDTHS_BITS
        ],
        actions=["read", "write"],
    ),
)
"""What a table holds: the components and sizes of the built-in ones."""


# Makes a component: `build(component, tech_node=..., **sizes)`.
Build = Callable[..., Any]


def rows(node_nm: float, source: str, build: Build) -> Iterator[dict[str, Any]]:
    """The rows of a cost table, in units of its columns.

    Args:
        node_nm: technology node.
        source: citation, for every row.
        build: makes a component; its ``area`` is in m2, ``leak_power`` in W and the ``energy`` of
            what an action returns in J, as HWComponents has them.
    """
    for component in COMPONENTS:
        for size in component.sizes:
            model = build(component, tech_node=node_nm * 1e-9, **size)
            for action in component.actions:
                yield {
                    "component": component.name,
                    "parameter": _parameter(component.name, size),
                    "tech_node_nm": f"{node_nm:g}",
                    "action": action,
                    "energy_pj": _printed(getattr(model, action)().energy * 1e12),
                    "area_mm2": _printed(model.area * 1e6),
                    "leakage_mw": _printed(model.leak_power * 1e3),
                    "source": source,
                }


def _parameter(name: str, size: Mapping[str, int]) -> str:
    """What sizes a component, as a table's column has it."""
    if name == "SRAM":
        return f"size_kib={size['size'] / 8 / 1024:g};width_bits={size['width']}"
    return ";".join(f"{key}={value}" for key, value in size.items())


def _printed(value: float) -> str:
    return f"{value:.{_SIGNIFICANT}g}"


def table_text(node_nm: float) -> str:
    """The text of a cost table, made by the HWComponents that is installed.

    Raises:
        ConfigError: a node out of range, HWComponents is missing, or it fails.
    """
    least, most = NODES_NM
    if not least <= node_nm <= most:
        raise ConfigError(
            f"hwcomponents --node-nm must be {least:g} to {most:g}, "
            f"got {show(node_nm, (int, float))}; give the node in nanometres"
        )
    build, source = _installed()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(node_nm, source, build))
    read_cost_rows(text.getvalue(), "hwcomponents table")  # what is written can be read
    return text.getvalue()


def _installed() -> tuple[Build, str]:
    """What makes a component, and the citation of the versions that are installed."""
    try:
        source = "{} {}, {} {} (CACTI 7), {} {} (Aladdin)".format(
            *(word for package in PACKAGES for word in (package, version(package)))
        )
        modules = {each.module: import_module(each.module) for each in COMPONENTS}
    except (PackageNotFoundError, ImportError, SyntaxError) as error:
        python = ".".join(str(number) for number in sys.version_info[:2])
        raise ConfigError(
            f"HWComponents must be installed to make a cost table, got Python {python} and "
            f"{type(error).__name__}: {error}; {_EXTRA}"
        ) from error

    def build(component: _Component, **sizes: float) -> Any:
        try:
            return getattr(modules[component.module], component.name)(**sizes)
        except Exception as error:  # of the package's own, CACTI's exit code among them
            raise ConfigError(
                f"HWComponents must build {component.name} of {sizes}, got "
                f"{type(error).__name__}: {error}; try another --node-nm. If CACTI does not run on "
                "this machine, rebuild it: make in the package's folder hwcomponents_cacti/cacti"
            ) from error

    return build, source


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file that the command line names; 2 if it can't be."""
    parser = argparse.ArgumentParser(
        prog="python -m accelerators.hwcomponents",
        description="Write a cost table of any node from HWComponents.",
    )
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument("--node-nm", type=float, required=True, help="technology node")
    given = parser.parse_args(arguments)
    try:
        if given.out.suffix.lower() != ".csv":
            raise ConfigError(f"OUT must end in .csv, got {show(str(given.out), str)}; rename it")
        write_whole(given.out, table_text(given.node_nm))
    except (ConfigError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
