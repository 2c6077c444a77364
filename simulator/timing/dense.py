"""A layer without reuse on the array: tiling, memory traffic, schedule, actions."""

import math
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.timing.array import ceil_div, gemm_cycles
from simulator.timing.engine import COMPILED, Engine
from simulator.timing.layer import (
    ActionCounts,
    LayerTiming,
    byte_count,
    check_stationary_tile,
    port_cycles,
    product_bytes,
    register_bytes,
    transfer_cycles,
)
from simulator.timing.plan import cut
from simulator.timing.schedule import Makespan, Schedule, slowest
from workloads.gemm import Gemm, Layer

# Tilings that the closed form ranks best and that are then scheduled in full.
_TILINGS_SCHEDULED = 3
# Of tilings no more than this slower than the fastest, the one with the fewest bytes is taken.
_AS_FAST = 1.01
# Tiles of a layer that are scheduled at most, so that a huge one is refused and not out of memory.
_MOST_TILES = 2**24


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a layer is cut, and in which order its tiles are worked on.

    Attributes:
        rows: of a tile, of m.
        columns: of a tile, of n. A tile has all of k.
        rows_outermost: whether all column tiles of a row tile come one after the other; else all
            row tiles of a column tile.
    """

    rows: int
    columns: int
    rows_outermost: bool


def dense_timing(layer: Layer, accelerator: Accelerator, engine: Engine = COMPILED) -> LayerTiming:
    """Time a layer with every row multiplied, under the fastest tiling found.

    Tiles are taken by rows or by columns, in sizes whose partial sums fit half of the output
    buffer. In either order an operand is loaded once where all of it fits its buffer; the outer
    one also where its tile fits half of its buffer; else once per tile. Rows of a convolution's
    halo that two tiles share are counted once; an operand's tile that does not fit is loaded for
    every fold that streams it. The closed form `_estimate` ranks the tilings; the best by cycles,
    and the best by traffic of those about as fast, are scheduled in full, and the one with the
    least traffic within 1 % of the fastest is taken.

    Raises:
        ConfigError: a buffer does not hold one tile.
    """
    check_stationary_tile(accelerator)
    sizes = _Operands.of(layer, accelerator)
    estimates = {
        tiling: _estimate(layer.gemm, sizes, accelerator, tiling)
        for tiling in _tilings(layer.gemm, sizes, accelerator)
    }
    by_cycles = sorted(estimates, key=lambda tiling: estimates[tiling])
    enough = _AS_FAST * estimates[by_cycles[0]][0]
    by_bytes = sorted(
        (tiling for tiling in by_cycles if estimates[tiling][0] <= enough),
        key=lambda tiling: estimates[tiling][::-1],
    )
    chosen = dict.fromkeys(by_cycles[:_TILINGS_SCHEDULED] + by_bytes[:_TILINGS_SCHEDULED])
    schedules = [_Scheduled(layer.gemm, sizes, accelerator, tiling) for tiling in chosen]
    runs = [(engine.run(each.schedule), each) for each in schedules]
    enough = _AS_FAST * min(makespan.cycles for makespan, _ in runs)
    makespan, best = min(
        (run for run in runs if run[0].cycles <= enough),
        key=lambda run: (run[1].dram_bytes, run[0].cycles),
    )
    return best.timing(makespan)


@dataclass(frozen=True, kw_only=True)
class _Operands:
    """Bytes of one product's inputs (not unfolded) and weights."""

    inputs: int
    weights: int

    @classmethod
    def of(cls, layer: Layer, accelerator: Accelerator) -> "_Operands":
        gemm, bits = layer.gemm, accelerator.operand_bits
        return cls(
            inputs=byte_count(layer.input_elements // gemm.count, bits),
            weights=byte_count(gemm.k * gemm.n, bits),
        )


def _tilings(gemm: Gemm, sizes: _Operands, accelerator: Accelerator) -> list[Tiling]:
    """Tilings worth trying: column tiles of once, twice, four times ... the array's columns; for
    each the most rows that fit, fewer that keep the inputs in their buffer, and halves of both."""
    array = accelerator.array
    half = accelerator.output_buffer.capacity_bytes // 2
    inputs_half = accelerator.activation_buffer.capacity_bytes // 2
    resident_rows = max(1, gemm.m * inputs_half // max(1, sizes.inputs))
    columns, found = min(gemm.n, array.columns), set()
    least = byte_count(columns, accelerator.accumulator_bits)
    if half < least:
        raise ConfigError(
            f"Accelerator.output_buffer.capacity_bytes must hold two rows of {columns} partial "
            f"sums, got {2 * half}; use {2 * least} or more"
        )
    while True:
        fitting = half // byte_count(columns, accelerator.accumulator_bits)
        if fitting < 1:
            break
        by_output = min(gemm.m, fitting)
        by_input = min(by_output, resident_rows)
        for size in {ceil_div(size, part) for size in (by_output, by_input) for part in (1, 2, 4)}:
            # Equal tiles: the last one is not left with a few rows.
            found.add((ceil_div(gemm.m, ceil_div(gemm.m, size)), columns))
        if columns == gemm.n:
            break
        columns = min(2 * columns, gemm.n)
    return [
        Tiling(rows=rows, columns=columns, rows_outermost=order)
        for rows, columns in sorted(found, reverse=True)
        for order in (True, False)
    ]


def _loads(
    gemm: Gemm, sizes: _Operands, accelerator: Accelerator, tiling: Tiling
) -> tuple[bool, bool, int, int]:
    """How operands travel.

    Returns:
        Whether inputs, and weights, are loaded again for every tile of the other operand; and how
        often a tile's inputs, and weights, are loaded for it: once where they stay in half of their
        buffer, else for every fold that streams them.
    """
    array = accelerator.array
    input_room = accelerator.activation_buffer.capacity_bytes
    weight_room = accelerator.weight_buffer.capacity_bytes
    input_tile = math.ceil(sizes.inputs * tiling.rows / gemm.m)
    weight_tile = byte_count(gemm.k * tiling.columns, accelerator.operand_bits)
    input_stays = sizes.inputs <= input_room or input_tile <= input_room // 2
    weight_stays = sizes.weights <= weight_room or weight_tile <= weight_room // 2
    again_inputs = sizes.inputs > input_room and not (tiling.rows_outermost and input_stays)
    again_weights = sizes.weights > weight_room and not (not tiling.rows_outermost and weight_stays)
    match array.dataflow:
        case "weight_stationary":
            folds = (ceil_div(tiling.columns, array.columns), 1)
        case "output_stationary":
            folds = (
                ceil_div(tiling.columns, array.columns),
                ceil_div(tiling.rows, array.rows),
            )
        case "input_stationary":
            folds = (1, ceil_div(tiling.rows, array.columns))
        case _:
            raise ValueError(f"unknown dataflow {array.dataflow!r}")
    return (
        again_inputs,
        again_weights,
        1 if input_stays else folds[0],
        1 if weight_stays else folds[1],
    )


def _estimate(
    gemm: Gemm, sizes: _Operands, accelerator: Accelerator, tiling: Tiling
) -> tuple[float, int]:
    """Cycles, and DRAM bytes, in plain integers, for speed.

    The busier of array and memory sets the pace; the first load and the last store are not hidden.
    """
    bits = accelerator.operand_bits
    row_tiles, column_tiles = ceil_div(gemm.m, tiling.rows), ceil_div(gemm.n, tiling.columns)
    last_rows = gemm.m - tiling.rows * (row_tiles - 1)
    last_columns = gemm.n - tiling.columns * (column_tiles - 1)
    array = 0
    for rows, many_rows in ((tiling.rows, row_tiles - 1), (last_rows, 1)):
        for columns, many_columns in ((tiling.columns, column_tiles - 1), (last_columns, 1)):
            if many_rows and many_columns:
                array += many_rows * many_columns * _occupancy(accelerator, rows, columns, gemm.k)
    again_inputs, again_weights, input_loads, weight_loads = _loads(
        gemm, sizes, accelerator, tiling
    )
    moved = sizes.inputs * input_loads * (column_tiles if again_inputs else 1)
    moved += sizes.weights * weight_loads * (row_tiles if again_weights else 1)
    moved += byte_count(gemm.m * gemm.n, bits)
    exposed = sizes.inputs * tiling.rows // gemm.m + byte_count(gemm.k * tiling.columns, bits)
    exposed += byte_count(last_rows * last_columns, bits)
    bandwidth = accelerator.dram.bandwidth_bytes_per_cycle
    return max(array, moved / bandwidth) + exposed / bandwidth, moved


def _occupancy(accelerator: Accelerator, rows: int, columns: int, k: int) -> int:
    """Cycles that a tile holds the array, its buffers' ports included."""
    inputs, weights, sum_writes, sum_reads = product_bytes(
        accelerator,
        rows,
        columns,
        k,
        inputs=accelerator.activation_buffer,
        sums=accelerator.output_buffer,
    )
    return max(
        gemm_cycles(accelerator.array, rows, columns, k)[0],
        port_cycles(inputs, accelerator.activation_buffer),
        port_cycles(weights, accelerator.weight_buffer),
        port_cycles(sum_writes + sum_reads, accelerator.output_buffer),
    )


class _Scheduled:
    """A layer cut by a tiling; arrays are `(count, outer tiles, inner tiles)` int64."""

    def __init__(
        self, gemm: Gemm, sizes: _Operands, accelerator: Accelerator, tiling: Tiling
    ) -> None:
        self.gemm, self.sizes = gemm, sizes
        self.accelerator, self.tiling = accelerator, tiling
        tiles = gemm.count * ceil_div(gemm.m, tiling.rows) * ceil_div(gemm.n, tiling.columns)
        if tiles > _MOST_TILES:
            raise ConfigError(
                f"Accelerator must run a layer of {gemm} in at most {_MOST_TILES} tiles, got "
                f"{tiles}; use larger buffers or a smaller layer"
            )
        rows = cut(gemm.m, tiling.rows)
        columns = cut(gemm.n, tiling.columns)
        # Row and column tile of each tile, as (1, outer, inner).
        if tiling.rows_outermost:
            self.rows, self.columns = rows[None, :, None], columns[None, None, :]
        else:
            self.rows, self.columns = rows[None, None, :], columns[None, :, None]
        self.shape = (gemm.count, *np.broadcast_shapes(self.rows.shape, self.columns.shape)[1:])
        self._load(rows)
        self._occupy()
        self.schedule = Schedule(
            stages=("array",),
            load_cycles=transfer_cycles(self.inputs + self.weights, accelerator).ravel(),
            load_latency_cycles=accelerator.dram.latency_cycles,
            store_cycles=transfer_cycles(self.stores, accelerator).ravel(),
            occupancy_cycles=self.occupancy.reshape(1, -1),
            latency_cycles=self.latency.reshape(1, -1),
            limits=self.limits.reshape(1, -1),
        )

    def _load(self, rows: np.ndarray) -> None:
        """DRAM bytes of each tile: `inputs`, `weights`, `stores`."""
        gemm, bits, tiling = self.gemm, self.accelerator.operand_bits, self.tiling
        again_inputs, again_weights, input_loads, weight_loads = _loads(
            gemm, self.sizes, self.accelerator, tiling
        )
        # Each row tile's share of the input, rounded so that they add up.
        share = np.diff(np.concatenate([[0], np.cumsum(rows)]) * self.sizes.inputs // gemm.m)
        share = share * input_loads
        weights = byte_count(gemm.k * self.columns, bits) * weight_loads
        self.inputs = np.zeros(self.shape, np.int64)
        self.weights = np.zeros(self.shape, np.int64)
        first, every = slice(0, 1), slice(None)
        if tiling.rows_outermost:
            self.inputs[:, :, every if again_inputs else first] = share[None, :, None]
            self.weights[:, every if again_weights else first] = weights
        else:
            self.inputs[:, every if again_inputs else first] = share[None, None, :]
            self.weights[:, :, every if again_weights else first] = weights
        self.stores = np.broadcast_to(byte_count(self.rows * self.columns, bits), self.shape)

    @property
    def dram_bytes(self) -> int:
        """Bytes that travel to and from the DRAM."""
        return int(self.inputs.sum() + self.weights.sum() + self.stores.sum())

    def _occupy(self) -> None:
        """How long each tile holds the array, and the bytes that its buffers move meanwhile."""
        accelerator = self.accelerator
        rows, columns, k = self.rows, self.columns, self.gemm.k
        self.input_reads, self.weight_reads, self.sum_writes, sum_reads = (
            np.broadcast_to(moved, self.shape)
            for moved in product_bytes(
                accelerator,
                rows,
                columns,
                k,
                inputs=accelerator.activation_buffer,
                sums=accelerator.output_buffer,
            )
        )
        cycles, latency = gemm_cycles(accelerator.array, rows, columns, k)
        self.array_cycles = np.broadcast_to(cycles, self.shape)
        self.latency = np.ascontiguousarray(np.broadcast_to(latency, self.shape)).astype(np.int64)
        self.occupancy, self.limits = slowest(
            {
                "array": cycles,
                "activation_buffer": port_cycles(self.input_reads, accelerator.activation_buffer),
                "weight_buffer": port_cycles(self.weight_reads, accelerator.weight_buffer),
                "output_buffer": port_cycles(
                    self.sum_writes + sum_reads, accelerator.output_buffer
                ),
            },
            self.shape,
        )

    def timing(self, makespan: Makespan) -> LayerTiming:
        """The layer as an engine saw it."""
        gemm, schedule = self.gemm, self.schedule
        loaded, weights = int(self.inputs.sum()), int(self.weights.sum())
        weight_reads, sums = int(self.weight_reads.sum()), int(self.sum_writes.sum())
        actions = ActionCounts(
            {
                ("array", "mac"): gemm.macs,
                ("array", "register_byte"): register_bytes(self.accelerator, gemm.macs)
                + weight_reads,
                ("activation_buffer", "write_byte"): loaded,
                ("activation_buffer", "read_byte"): int(self.input_reads.sum()),
                ("weight_buffer", "write_byte"): weights,
                ("weight_buffer", "read_byte"): weight_reads,
                ("output_buffer", "write_byte"): sums,
                # Every update but the first reads the sum; one more read stores the output.
                ("output_buffer", "read_byte"): sums,
                ("dram", "read_byte"): loaded + weights,
                ("dram", "write_byte"): int(self.stores.sum()),
            }
        )
        return LayerTiming(
            cycles=makespan.cycles,
            critical_cycles=makespan.critical_cycles,
            busy_cycles={
                "memory": int(schedule.load_cycles.sum() + schedule.store_cycles.sum()),
                "front_end": 0,
                "cache": 0,
                "array": int(self.array_cycles.sum()),
                "reconstruction": 0,
            },
            dram_bytes={
                "inputs": loaded,
                "weights": weights,
                "outputs": int(self.stores.sum()),
                "spilled_sums": 0,
                "spilled_results": 0,
            },
            actions=actions,
            macs=gemm.macs,
            schedule=schedule,
        )
