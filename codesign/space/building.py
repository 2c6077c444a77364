"""Builds designs of what a search chooses; what it does not choose follows from what it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from accelerators import Accelerator, Reconstructor, SramBuffer
from codesign.space.checks import SEARCHED_UNITS, has_searched_units
from codesign.space.parameters import KIB
from simulator import ReusePolicy


def dense_design(base: Accelerator, values: Mapping[str, Any]) -> Accelerator:
    """The design without reuse units; buffers are as wide as the array reads and writes them."""
    rows, columns = values["array.rows"], values["array.columns"]
    operand = base.operand_bits
    widths = {
        "activation_buffer": rows * operand,
        "weight_buffer": columns * operand,
        "output_buffer": columns * base.accumulator_bits,
    }
    buffers = {
        name: SramBuffer(
            capacity_bytes=values[f"{name}.kib"] * KIB,
            width_bits=width,
            ports=2 if name == "output_buffer" else 1,  # a sum is read and written back
        )
        for name, width in widths.items()
    }
    array = replace(base.array, rows=rows, columns=columns, fold_timing=values["array.fold_timing"])
    plain = base.without_reuse(f"{base.name}_searched_dense")
    return replace(plain, array=array, **buffers)  # type: ignore[arg-type]


def reuse_design(
    base: Accelerator, values: Mapping[str, Any], policies: Iterable[ReusePolicy]
) -> Accelerator:
    """The design with reuse units.

    The front-end holds the longest sub-vector and signature in use, and the buffers are as wide as
    the array and the reconstructor read and write them in a cycle, as in the presets. Policies
    without hashes and lengths, such as a user's own, leave the front-end as long as it is.
    """
    design, accumulator = dense_design(base, values), base.accumulator_bits
    # Units that no usual parameter is of, such as a user's own, stay as they are.
    varied = SEARCHED_UNITS if has_searched_units(base) else ()
    kept: dict[str, Any] = {
        name: unit
        for name, unit in base.units.items()
        if base.parts()[name].exploits and name not in varied
    }
    name = f"{base.name}_searched"
    if not varied:
        return replace(design, name=name, **kept)
    assert base.front_end and base.cache and base.reconstructor  # checked by DesignSpace
    sums = values["reconstructor.sums_per_cycle"]
    # Ports as wide as the base design's, and as many as it takes: a further port is dearer than
    # a wider one, in wires and banks that the area model does not see.
    width = min(sums, base.reconstructor.width)
    ports = -(-sums // width)
    sum_bits = width * accumulator
    used = list(policies)
    longest = max(getattr(each, "length", base.front_end.max_length) or 0 for each in used)
    hashes = max(getattr(each, "hashes", base.front_end.max_hashes) for each in used)
    operand = base.operand_bits
    return replace(
        design,
        name=name,
        **kept,
        # Every lane reads a sub-vector.
        activation_buffer=replace(
            design.activation_buffer,
            width_bits=max(design.activation_buffer.width_bits, longest * operand),
            ports=values["front_end.lanes"],
        ),
        # Every row gathered reads a result, reads the sum so far and writes it back.
        output_buffer=replace(
            design.output_buffer,
            width_bits=max(design.output_buffer.width_bits, sum_bits),
            ports=2 * ports,
        ),
        front_end=replace(
            base.front_end,
            max_hashes=hashes,
            max_length=longest,
            lanes=values["front_end.lanes"],
            projection=values["front_end.projection"],
        ),
        cache=replace(
            base.cache,
            entries=values["cache.entries"],
            ways=values["cache.ways"],
            banks=values["cache.banks"],
            clear_entries_per_cycle=values["cache.clear_entries_per_cycle"],
        ),
        centroid_buffer=SramBuffer(
            capacity_bytes=values["centroid_buffer.kib"] * KIB,
            width_bits=sum_bits,
            ports=max(2, ports),  # the array reads a centroid and writes a result in a cycle
        ),
        reconstructor=Reconstructor(ports=ports, width=width),
    )
