"""The command `codesign presets`."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from typing import Annotated

import typer

from accelerators import (
    BUILT_IN_TABLES,
    area_by_part,
    cost_table,
    dram_kinds,
    preset,
    presets,
)
from codesign.cli.terminal import guarded, say, table
from simulator.results.tables import column

EPILOG = "Example: codesign presets reuse_16x16 > my_design.py"


@guarded
def command(
    name: Annotated[str | None, typer.Argument(help="Print this one as Python.")] = None,
) -> None:
    """List the ready designs and cost tables, or print one design as Python to change."""
    if name is not None:
        say(preset(name).to_python().rstrip())
        return
    columns = [
        column("name", "Design", text=True),
        column("array", "Array", "rows × columns"),
        column("buffers", "Buffers", "KiB activations, weights, outputs"),
        column("clock", "Clock", "MHz"),
        column("area", "Area", "mm²"),
        column("reuse", "Reuse units", text=True),
    ]
    rows = []
    for design in presets().values():
        buffers = (design.activation_buffer, design.weight_buffer, design.output_buffer)
        unit = design.front_end
        others = [
            part.words
            for name, part in design.parts().items()
            if part.exploits and name in design.units
        ]
        rows.append(
            {
                "name": design.name,
                "array": f"{design.array.rows} × {design.array.columns}",
                "buffers": ", ".join(f"{buffer.capacity_bytes / 1024:g}" for buffer in buffers),
                "clock": f"{design.clock_hz / 1e6:g}",
                "area": sum(area_by_part(design).values()),
                "reuse": ", ".join(others) or "none"
                if unit is None
                else f"{unit.max_hashes} hashes of {unit.max_length}, {unit.projection}",
            }
        )
    table(columns, rows)
    _tell_costs()


def _tell_costs() -> None:
    """What a design may be priced by."""
    from simulator.results.costs import dram_with_energy

    columns = [
        column("name", "Cost table", text=True),
        column("node", "Node", "nm"),
        column("source", "Source", text=True),
    ]
    tables = [cost_table(each) for each in BUILT_IN_TABLES]
    kinds = [dram_with_energy(kind) for kind in dram_kinds()]
    say("\nCost tables, for `--technology` and a design's field of that name; or a .csv of yours:")
    table(
        columns,
        [
            {"name": each.name, "node": f"{each.node_nm:g}", "source": each.source}
            for each in tables
        ],
    )
    say(f"\nKinds of DRAM, for a design's dram.kind: {', '.join(kinds)}")
