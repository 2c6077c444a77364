"""The dense design of equal area: what the reuse units' silicon would buy without reuse."""

import math
from dataclasses import replace

from accelerators import Accelerator, ConfigError, SramBuffer, SystolicArray, area_by_part
from simulator.timing.array import ceil_div, gemm_cycles
from simulator.timing.dense import dense_timing
from simulator.timing.engine import COMPILED, Engine
from simulator.timing.layer import LayerTiming, check_stationary_tile
from workloads.gemm import Gemm, Layer

Timings = list[tuple[Layer, LayerTiming]]

# Array shapes that the closed form ranks best and that are then timed in full.
_SHAPES_TIMED = 4
# How often a shape that turned out too large gives up a column before it is dropped.
_COLUMNS_GIVEN_UP = 16
# Factors tried on all three buffers; the array takes what area is left.
_BUFFER_FACTORS = (0.5, 1.0, 2.0, 4.0)


def time_dense(
    layers: tuple[Layer, ...], accelerator: Accelerator, engine: Engine = COMPILED
) -> Timings:
    """Every layer on the dense array; layers of one shape are timed once."""
    known: dict[tuple[Gemm, int], LayerTiming] = {}
    for layer in layers:
        shape = (layer.gemm, layer.input_elements)
        if shape not in known:
            known[shape] = dense_timing(layer, accelerator, engine)
    return [(layer, known[layer.gemm, layer.input_elements]) for layer in layers]


def equal_area_dense(
    layers: tuple[Layer, ...], accelerator: Accelerator, engine: Engine = COMPILED
) -> tuple[Accelerator, Timings]:
    """The fastest dense design found that is no larger than `accelerator`.

    The area of the reuse units goes to a larger array, to larger buffers, or to both: for each
    factor on the three buffers, the array takes the area left, in the shapes that need the fewest
    compute cycles; the best are timed in full. The dense design with the same array and buffers is
    among the candidates, so this one is never slower than it.

    Args:
        layers: the workload.
        accelerator: a design, with or without reuse units.
        engine: times the design found; the search for it always uses the compiled engine.
    """
    budget_mm2 = sum(area_by_part(accelerator).values())
    plain = accelerator.without_reuse()
    if not accelerator.has_reuse:
        return plain, time_dense(layers, plain, engine)
    best = (plain, time_dense(layers, plain))
    for factor in _BUFFER_FACTORS:
        roomy = _with_buffers(plain, factor)
        for candidate in _largest_arrays(layers, roomy, budget_mm2):
            timings = time_dense(layers, candidate)
            if _cycles(timings) < _cycles(best[1]):
                best = (candidate, timings)
    design = replace(best[0], name=f"{accelerator.name}_equal_area_dense")
    return design, best[1] if engine is COMPILED else time_dense(layers, design, engine)


def _cycles(timings: Timings) -> int:
    return sum(timing.cycles for _, timing in timings)


def _with_buffers(accelerator: Accelerator, factor: float) -> Accelerator:
    """The design with its three buffers scaled."""

    def scaled(buffer: SramBuffer) -> SramBuffer:
        capacity = int(buffer.capacity_bytes * factor)
        return replace(buffer, capacity_bytes=min(2**30, max(buffer.bytes_per_cycle, capacity)))

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
    shapes = [
        replace(array, rows=rows, columns=min(units // rows, 4096))
        for rows in range(1, min(units, 4096) + 1)
        # Shapes no more than 16 times longer than wide, as arrays are built.
        if rows <= 16 * (units // rows) and units // rows <= 16 * rows
    ]
    gemms = [(layer.gemm.count, layer.gemm.m, layer.gemm.n, layer.gemm.k) for layer in layers]

    def compute_cycles(shape: SystolicArray) -> int:
        return sum(count * gemm_cycles(shape, m, n, k)[0] for count, m, n, k in gemms)

    designs = []
    for shape in sorted(shapes, key=compute_cycles)[:_SHAPES_TIMED]:
        design = _fitted(accelerator, shape, budget_mm2)
        if design is not None and _holds_tiles(layers, design):
            designs.append(design)
    return designs


def _fitted(
    accelerator: Accelerator, shape: SystolicArray, budget_mm2: float
) -> Accelerator | None:
    """The design with this array, fewer columns if need be, and ports that feed it."""
    for fewer in range(min(_COLUMNS_GIVEN_UP, shape.columns)):
        array = replace(shape, columns=shape.columns - fewer)
        stationary_inputs = array.dataflow == "input_stationary"
        streams = (array.rows, array.columns)
        inputs, weights = streams[::-1] if stationary_inputs else streams
        buffers = {
            "activation_buffer": (inputs * accelerator.operand_bits, 1),
            "weight_buffer": (weights * accelerator.operand_bits, 1),
            # A partial sum is read and written back.
            "output_buffer": (2 * array.columns * accelerator.accumulator_bits, 2),
        }
        changes = {
            name: _with_rate(getattr(accelerator, name), bits, ports)
            for name, (bits, ports) in buffers.items()
        }
        if any(each.capacity_bytes < each.bytes_per_cycle for each in changes.values()):
            continue
        design = replace(accelerator, array=array, **changes)  # type: ignore[arg-type]
        if math.fsum(area_by_part(design).values()) <= budget_mm2:
            return design
    return None


def _with_rate(buffer: SramBuffer, bits_per_cycle: int, ports: int) -> SramBuffer:
    """The buffer with ports that move at least so many bits a cycle; never fewer than it has."""
    if 8 * buffer.bytes_per_cycle >= bits_per_cycle:
        return buffer
    while ceil_div(bits_per_cycle, ports) > 4096:
        ports *= 2
    width = 8 * ceil_div(ceil_div(bits_per_cycle, ports), 8)
    return replace(buffer, ports=ports, width_bits=width)


def _holds_tiles(layers: tuple[Layer, ...], accelerator: Accelerator) -> bool:
    """Whether the buffers hold the least that dense layers need."""
    try:
        check_stationary_tile(accelerator)
    except ConfigError:
        return False
    columns = min(accelerator.array.columns, max(layer.gemm.n for layer in layers))
    row_bits = columns * accelerator.accumulator_bits
    return accelerator.output_buffer.capacity_bytes * 8 >= 2 * row_bits
