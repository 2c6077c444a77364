"""The dense design of equal area: what the reuse units' silicon would buy without reuse."""

import math
from dataclasses import replace

import numpy as np

from accelerators import Accelerator, SystolicArray, area_by_part
from simulator.timing.array import gemm_cycles
from simulator.timing.dense import dense_timing
from simulator.timing.layer import LayerTiming
from workloads.gemm import Layer

Timings = list[tuple[Layer, LayerTiming]]

# Array shapes that the closed form ranks best and that are then timed in full.
_SHAPES_TIMED = 4
# Factors tried on all three buffers; the array takes what area is left.
_BUFFER_FACTORS = (0.5, 1.0, 2.0, 4.0)


def time_dense(layers: tuple[Layer, ...], accelerator: Accelerator) -> Timings:
    """Every layer on the dense array."""
    return [(layer, dense_timing(layer, accelerator)) for layer in layers]


def equal_area_dense(
    layers: tuple[Layer, ...], accelerator: Accelerator
) -> tuple[Accelerator, Timings]:
    """The fastest dense design found that is no larger than `accelerator`.

    The area of the reuse units goes to a larger array, to larger buffers, or to both: for each
    factor on the three buffers, the array takes the area left, in the shapes that need the fewest
    compute cycles; the best are timed in full. The dense design with the same array and buffers is
    among the candidates, so this one is never slower than it.

    Args:
        layers: the workload.
        accelerator: a design, with or without reuse units.
    """
    budget_mm2 = sum(area_by_part(accelerator).values())
    plain = accelerator.without_reuse()
    best = (plain, time_dense(layers, plain))
    if not accelerator.has_reuse:
        return best
    for factor in _BUFFER_FACTORS:
        roomy = _with_buffers(plain, factor)
        for candidate in _largest_arrays(layers, roomy, budget_mm2):
            timings = time_dense(layers, candidate)
            if _cycles(timings) < _cycles(best[1]):
                best = (candidate, timings)
    return replace(best[0], name=f"{accelerator.name}_equal_area_dense"), best[1]


def _cycles(timings: Timings) -> int:
    return sum(timing.cycles for _, timing in timings)


def _with_buffers(accelerator: Accelerator, factor: float) -> Accelerator:
    """The design with its three buffers scaled."""

    def scaled(buffer):
        least = buffer.width_bits // 8
        capacity = min(2**30, max(least, int(buffer.capacity_bytes * factor)))
        return replace(buffer, capacity_bytes=capacity)

    return replace(
        accelerator,
        activation_buffer=scaled(accelerator.activation_buffer),
        weight_buffer=scaled(accelerator.weight_buffer),
        output_buffer=scaled(accelerator.output_buffer),
    )


def _largest_arrays(
    layers: tuple[Layer, ...], accelerator: Accelerator, budget_mm2: float
) -> list[Accelerator]:
    """Designs whose array fills the budget, the few with the fewest compute cycles."""
    areas = area_by_part(accelerator)
    array = accelerator.array
    unit_mm2 = areas["array"] / (array.rows * array.columns)
    units = int((budget_mm2 - sum(areas.values()) + areas["array"]) / unit_mm2)
    # The buffers must hold a tile of the array; keep to those that do.
    operand_bytes = accelerator.operand_bits // 8
    units = min(units, accelerator.weight_buffer.capacity_bytes // (2 * operand_bytes))
    if units < 1:
        return []
    rows = np.arange(1, min(units, 4096) + 1)
    columns = np.minimum(units // rows, 4096)
    # Shapes no more than 16 times longer than wide, as arrays are built.
    keep = (rows <= 16 * columns) & (columns <= 16 * rows)
    rows, columns = rows[keep], columns[keep]
    cycles = np.array(
        [
            sum(
                layer.gemm.count * gemm_cycles(shape, layer.gemm.m, layer.gemm.n, layer.gemm.k)
                for layer in layers
            )
            for shape in (
                SystolicArray(rows=int(r), columns=int(c), dataflow=array.dataflow)
                for r, c in zip(rows, columns, strict=True)
            )
        ]
    )
    chosen = np.argsort(cycles, kind="stable")[:_SHAPES_TIMED]
    designs = (
        replace(
            accelerator,
            array=replace(array, rows=int(rows[index]), columns=int(columns[index])),
        )
        for index in chosen
    )
    # Floating-point area of one unit may round the last one in.
    return [
        design
        for design in designs
        if math.fsum(area_by_part(design).values()) <= budget_mm2 and _holds_tiles(layers, design)
    ]


def _holds_tiles(layers: tuple[Layer, ...], accelerator: Accelerator) -> bool:
    """Whether half of the output buffer holds a row of the array's partial sums."""
    columns = min(accelerator.array.columns, max(layer.gemm.n for layer in layers))
    row_bits = columns * accelerator.accumulator_bits
    return accelerator.output_buffer.capacity_bytes * 8 >= 2 * row_bits
