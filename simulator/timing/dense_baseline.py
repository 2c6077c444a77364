"""The dense design of equal area: what the reuse units' silicon would buy without reuse."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from accelerators import (
    DATAFLOWS,
    Accelerator,
    ConfigError,
    SramBuffer,
    SystolicArray,
    area_by_part,
)
from simulator.timing.choosing import least_traffic
from simulator.timing.dataflows.dataflow import dataflow_of, gemm_cycles
from simulator.timing.engines.engine import COMPILED, Engine
from simulator.timing.layer import LayerTiming
from simulator.timing.pipeline import layer_timing
from simulator.timing.transfers import byte_count, ceil_div
from workloads.traces.layer import Gemm, Layer

Timings = list[tuple[Layer, LayerTiming]]

BUFFERS = ("activation_buffer", "weight_buffer", "output_buffer")
# Capacities that each buffer may take; the array gets the area that they leave.
_CAPACITIES = tuple(1 << bits for bits in range(11, 21))  # 2 KiB to 1 MiB
# Designs that the closed form ranks best and that are then timed in full.
_DESIGNS_TIMED = 8
# How often a shape that turned out too large gives up a column before it is dropped.
_COLUMNS_GIVEN_UP = 16
# Arrays are no more than this many times longer than wide.
_LONGEST = 16


def time_dense(
    layers: tuple[Layer, ...], accelerator: Accelerator, engine: Engine = COMPILED
) -> Timings:
    """Every layer on the dense array; layers of one shape are timed once."""
    known: dict[tuple[Gemm, int], LayerTiming] = {}
    for layer in layers:
        shape = (layer.gemm, layer.input_elements)
        if shape not in known:
            known[shape] = layer_timing(layer, None, accelerator, engine)
    return [(layer, known[layer.gemm, layer.input_elements]) for layer in layers]


def same_array_dense(accelerator: Accelerator) -> Accelerator:
    """The dense design with the same array and capacities.

    Ports that only the reuse units need are left out: a wide port costs energy at every access.
    """
    plain = accelerator.without_reuse()
    if not accelerator.has_reuse:
        return plain
    fed = with_rates(plain, plain.array)
    changes = {
        name: getattr(fed, name)
        for name in BUFFERS
        if getattr(fed, name).bytes_per_cycle < getattr(plain, name).bytes_per_cycle
    }
    return replace(plain, **changes)


def equal_area_dense(
    layers: tuple[Layer, ...], accelerator: Accelerator, engine: Engine = COMPILED
) -> tuple[Accelerator, Timings]:
    """The fastest dense design found that is no larger than `accelerator`.

    The whole area, the reuse units' included, is spent anew: each of the three buffers takes any
    power of two from 2 KiB to 1 MiB, its ports as wide as the array needs, and the array what is
    left, in any shape up to 16 times longer than wide; under the design's own dataflow, or under
    any where lanes or weight tables ask for theirs. A closed form ranks all of these; the best, and
    the best one's neighbours in buffer sizes, are timed in full. Of those within 1 % of the fastest
    the one with the least DRAM traffic is taken. The dense design with the same array
    (`same_array_dense`) is among the candidates, and this one is never slower than it.

    Args:
        layers: the workload.
        accelerator: a design, with or without reuse units.
        engine: times the design found; the search for it always uses the compiled engine.
    """
    if not accelerator.has_reuse:
        return accelerator, time_dense(layers, accelerator, engine)
    return best_dense(layers, accelerator, engine)


def best_dense(
    layers: tuple[Layer, ...],
    accelerator: Accelerator,
    engine: Engine = COMPILED,
    *,
    dataflows: tuple[str, ...] | None = None,
) -> tuple[Accelerator, Timings]:
    """The same search also for a design without reuse units: is it as fast as its area can be?

    Args:
        layers: the workload.
        accelerator: a design, with or without reuse units.
        engine: as for `equal_area_dense`.
        dataflows: that the array may have; `None` for those that `equal_area_dense` tries.
    """
    plain = same_array_dense(accelerator)
    budget_mm2 = math.fsum(area_by_part(accelerator).values())
    timed = [_Timed(plain, time_dense(layers, plain))]
    for dataflow in dataflows or _dataflows(accelerator):
        array = replace(plain.array, dataflow=dataflow)
        ranked = _ranked(layers, replace(plain, array=array), budget_mm2)
        for candidates in (ranked[:_DESIGNS_TIMED], None):
            tried = candidates or _neighbours(ranked, _least_traffic(timed).design)
            for capacities, shape in tried:
                design = _fitted(plain, capacities, shape, budget_mm2)
                if design is None:
                    continue
                try:
                    timed.append(_Timed(design, time_dense(layers, design)))
                except ConfigError:  # a buffer holds no tile, or a layer needs too many
                    continue
    best, timings = _least_traffic(timed)
    design = replace(best, name=f"{accelerator.name}_equal_area_dense")
    return design, timings if engine is COMPILED else time_dense(layers, design, engine)


def _dataflows(accelerator: Accelerator) -> tuple[str, ...]:
    """Those that a dense design may have: the design's own, as far as the design chose it.

    Units with an output each ask for one; a dense design is free of that and may have any.
    """
    if accelerator.lanes is None and accelerator.weight_tables is None:
        return (accelerator.array.dataflow,)
    return DATAFLOWS


class _Timed(NamedTuple):
    """A design with the time of every layer on it."""

    design: Accelerator
    timings: Timings

    @property
    def cycles(self) -> int:
        """Of all layers."""
        return sum(timing.cycles for _, timing in self.timings)

    @property
    def dram_bytes(self) -> int:
        """Of all layers."""
        return sum(sum(timing.dram_bytes.values()) for _, timing in self.timings)


def _least_traffic(timed: list[_Timed]) -> _Timed:
    """Of the designs about as fast as the fastest, and no slower than the first, the one that moves
    the fewest DRAM bytes; the faster of two that move as many."""
    return least_traffic([each for each in timed if each.cycles <= timed[0].cycles])


# Capacities of the three buffers, and the array.
_Candidate = tuple[tuple[int, ...], SystolicArray]


def _ranked(layers: tuple[Layer, ...], plain: Accelerator, budget_mm2: float) -> list[_Candidate]:
    """Every choice of capacities with its best shape, best first by the closed form."""
    narrow = with_rates(plain, plain.array)
    areas = area_by_part(narrow)
    unit_mm2 = areas["array"] / (plain.array.rows * plain.array.columns)
    others_mm2 = math.fsum(areas[part] for part in areas if part not in ("array", *BUFFERS))
    buffer_mm2 = np.array([_buffer_areas(narrow, name) for name in BUFFERS])
    grid = np.array(list(product(range(len(_CAPACITIES)), repeat=len(BUFFERS))))
    spent_mm2 = others_mm2 + buffer_mm2[np.arange(len(BUFFERS)), grid].sum(axis=1)
    units = np.floor((budget_mm2 - spent_mm2) / unit_mm2)
    grid, units = grid[units >= 1], units[units >= 1].astype(np.int64)
    if not len(units):
        return []
    rows = np.arange(1, min(4096, math.isqrt(int(units.max()) * _LONGEST)) + 1)
    columns = np.minimum(units[:, None] // rows, 4096)
    capacities = np.array(_CAPACITIES)[grid]
    cycles = np.full(columns.shape, np.inf)
    fits = (columns >= 1) & (rows <= _LONGEST * columns) & (columns <= _LONGEST * rows)
    choice, shape = np.nonzero(fits)
    # Parts do not check themselves, so one array stands for many.
    array = replace(plain.array, rows=rows[shape], columns=columns[fits])  # type: ignore[arg-type]
    cycles[fits] = _estimate(layers, plain, array, capacities[choice])
    best = cycles.argmin(axis=1)
    order = np.argsort(cycles.min(axis=1), kind="stable")
    return [
        (
            tuple(int(capacity) for capacity in capacities[each]),
            replace(
                plain.array, rows=int(rows[best[each]]), columns=int(columns[each, best[each]])
            ),
        )
        for each in order
        if np.isfinite(cycles[each, best[each]])
    ]


def _buffer_areas(design: Accelerator, name: str) -> list[float]:
    """Area of one buffer at each capacity; infinite where its ports do not fit."""
    found = []
    for capacity in _CAPACITIES:
        buffer = replace(getattr(design, name), capacity_bytes=capacity)
        if capacity < buffer.bytes_per_cycle:
            found.append(math.inf)
        else:
            found.append(area_by_part(replace(design, **{name: buffer}))[name])
    return found


def _estimate(
    layers: tuple[Layer, ...], plain: Accelerator, array: SystolicArray, capacities: np.ndarray
) -> np.ndarray:
    """Cycles of many designs at once, the busier of array and DRAM in each layer.

    Args:
        layers: the workload.
        plain: everything but array and capacities.
        array: with `(d,)` rows and columns.
        capacities: `(d, 3)` bytes, as `BUFFERS`.
    """
    operand, accumulator = plain.operand_bits, plain.accumulator_bits
    activation, weight, output = capacities.T
    total = np.zeros(len(capacities))
    shapes = Counter((layer.gemm, layer.input_elements) for layer in layers)
    for (gemm, elements), times in shapes.items():
        # Floating point, so that no size overflows.
        inputs = float(byte_count(elements // gemm.count, operand))
        weights = float(byte_count(gemm.k * gemm.n, operand))
        columns = np.minimum(array.columns, gemm.n)
        fitting = output // 2 // byte_count(columns, accumulator)
        tile_rows = np.clip(fitting, 1, gemm.m)
        row_tiles = ceil_div(gemm.m, tile_rows)
        # All tiles equal; a tile of no room at all is ruled out.
        compute, latency = gemm_cycles(array, ceil_div(gemm.m, row_tiles), gemm.n, gemm.k)
        compute = compute * row_tiles + latency
        again_inputs = (inputs > activation) & (inputs * tile_rows > gemm.m * activation // 2)
        column_tiles = ceil_div(gemm.n, array.columns)
        moved = inputs * np.where(again_inputs, column_tiles, 1)
        moved = moved + weights * np.where(weights > weight, row_tiles, 1)
        moved = moved + byte_count(gemm.m * gemm.n, operand)
        dram = moved / plain.dram.bandwidth_bytes_per_cycle
        cycles = np.where(fitting >= 1, np.maximum(compute, dram), np.inf)
        total += times * gemm.count * cycles
    return total


def _neighbours(ranked: list[_Candidate], best: Accelerator) -> list[_Candidate]:
    """The candidates whose capacities are half, the same or twice the best one's."""
    sizes = [getattr(best, name).capacity_bytes for name in BUFFERS]
    return [
        (capacities, shape)
        for capacities, shape in ranked
        if all(
            size <= 2 * capacity and capacity <= 2 * size
            for size, capacity in zip(sizes, capacities, strict=True)
        )
    ]


def _fitted(
    plain: Accelerator, capacities: tuple[int, ...], shape: SystolicArray, budget_mm2: float
) -> Accelerator | None:
    """The design, with fewer columns if need be, and ports that feed its array."""
    for fewer in range(min(_COLUMNS_GIVEN_UP, shape.columns)):
        array = replace(shape, columns=shape.columns - fewer)
        try:
            design = with_rates(plain, array, capacities)
        except ConfigError:  # a buffer is smaller than what its ports move in a cycle
            continue
        if math.fsum(area_by_part(design).values()) <= budget_mm2:
            return design
    return None


def with_rates(
    plain: Accelerator, array: SystolicArray, capacities: tuple[int, ...] | None = None
) -> Accelerator:
    """The design with an array, and buffers just wide enough to feed it.

    Args:
        plain: a dense design.
        array: its array.
        capacities: bytes of each of `BUFFERS`; `None` leaves them.

    Raises:
        ConfigError: a buffer does not hold what its ports move in a cycle.
    """
    inputs, weights = dataflow_of(array).streams(array)
    # A partial sum is read and written back.
    sums = 2 * array.columns * plain.accumulator_bits
    rates = (inputs * plain.operand_bits, weights * plain.operand_bits, sums)
    changes = {}
    for index, (name, bits) in enumerate(zip(BUFFERS, rates, strict=True)):
        buffer: SramBuffer = getattr(plain, name)
        ports = 2 if name == "output_buffer" else 1
        while ceil_div(bits, ports) > 4096:
            ports *= 2
        changes[name] = replace(
            buffer,
            capacity_bytes=buffer.capacity_bytes if capacities is None else capacities[index],
            width_bits=8 * ceil_div(ceil_div(bits, ports), 8),
            ports=ports,
        )
    return replace(plain, array=array, **changes)  # type: ignore[arg-type]
