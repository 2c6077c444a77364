"""A layer without reuse on the array: tiling, memory traffic, schedule, actions."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.timing.array import ceil_div, gemm_cycles
from simulator.timing.engines.engine import COMPILED, Engine
from simulator.timing.layer import (
    AS_FAST,
    ActionCounts,
    LayerTiming,
    burst_bytes,
    byte_count,
    check_feeds,
    check_tiles,
    least_traffic,
    port_cycles,
    product_bytes,
    register_bytes,
    transfer_cycles,
)
from simulator.timing.schedule import Makespan, Schedule, slowest
from simulator.timing.traffic import cut
from workloads.traces.layer import Gemm, Layer

# Tilings that the closed form ranks best and that are then scheduled in full.
_TILINGS_SCHEDULED = 4


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a layer is cut, and in which order its tiles are worked on.

    Attributes:
        rows: of a tile, of m; or `(t,)` of many tilings, as the other two.
        columns: of a tile, of n. A tile has all of k.
        rows_outermost: whether all column tiles of a row tile come one after the other; else all
            row tiles of a column tile.
    """

    rows: Any
    columns: Any
    rows_outermost: Any

    def one(self, index: int) -> "Tiling":
        """One of many tilings."""
        return Tiling(
            rows=int(self.rows[index]),
            columns=int(self.columns[index]),
            rows_outermost=bool(self.rows_outermost[index]),
        )


def dense_timing(layer: Layer, accelerator: Accelerator, engine: Engine = COMPILED) -> LayerTiming:
    """Time a layer with every row multiplied, under the fastest tiling found.

    Tiles are taken by rows or by columns, in sizes whose partial sums fit half of the output
    buffer, so that sums never spill: a tile has all of k. In either order an operand is loaded once
    where all of it fits its buffer; the outer one also where its tile fits half of its buffer; else
    once per tile. Rows of a convolution's halo that two tiles share are counted once; an operand's
    tile that does not fit is loaded for every fold that streams it. The closed form `_estimate`
    ranks the tilings; the best by cycles, and the best by traffic of those about as fast, are
    scheduled in full, and the one with the least traffic within 1 % of the fastest is taken.

    Raises:
        ConfigError: a buffer does not hold one tile, or the layer needs too many of them.
    """
    check_feeds(accelerator)
    sizes = _Operands.of(layer, accelerator)
    tilings = _tilings(layer.gemm, sizes, accelerator)
    cycles, moved = _estimate(layer.gemm, sizes, accelerator, tilings)
    by_cycles = np.lexsort((moved, cycles))
    by_bytes = np.lexsort((cycles, moved, cycles > AS_FAST * cycles.min()))
    chosen = dict.fromkeys((*by_cycles[:_TILINGS_SCHEDULED], *by_bytes[:_TILINGS_SCHEDULED]))
    schedules = [_Scheduled(layer.gemm, sizes, accelerator, tilings.one(each)) for each in chosen]
    runs = [(engine.run(each.schedule), each) for each in schedules]
    makespan, best = least_traffic(runs)
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


def _tilings(gemm: Gemm, sizes: _Operands, accelerator: Accelerator) -> Tiling:
    """Tilings worth trying, `(t,)` float64 and bool each.

    Column tiles of once, twice, four times ... the array's columns; for each the most rows that
    fit, fewer that keep the inputs in their buffer, halves and quarters of both, and m cut into
    one, two, four ... equal tiles. The last ones do not depend on a buffer, so that a larger buffer
    loses none of them.
    """
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
    halved = {ceil_div(gemm.m, 1 << power) for power in range(gemm.m.bit_length())}
    while True:
        fitting = half // byte_count(columns, accelerator.accumulator_bits)
        if fitting < 1:
            break
        by_output = min(gemm.m, fitting)
        by_input = min(by_output, resident_rows)
        cut_rows = {ceil_div(size, part) for size in (by_output, by_input) for part in (1, 2, 4)}
        for size in cut_rows | {rows for rows in halved if rows <= fitting}:
            # Equal tiles: the last one is not left with a few rows.
            found.add((ceil_div(gemm.m, ceil_div(gemm.m, size)), columns))
        if columns == gemm.n:
            break
        columns = min(2 * columns, gemm.n)
    shapes = np.repeat(np.array(sorted(found, reverse=True), np.float64), 2, axis=0)
    return Tiling(
        rows=shapes[:, 0],
        columns=shapes[:, 1],
        rows_outermost=np.arange(len(shapes)) % 2 == 0,
    )


def _loads(gemm: Gemm, sizes: _Operands, accelerator: Accelerator, tiling: Tiling) -> tuple:
    """How operands travel.

    Returns:
        Whether inputs, and weights, are loaded again for every tile of the other operand; and how
        often a tile's inputs, and weights, are loaded for it: once where they stay in half of their
        buffer, else for every fold that streams them.
    """
    array = accelerator.array
    input_room = accelerator.activation_buffer.capacity_bytes
    weight_room = accelerator.weight_buffer.capacity_bytes
    rows_outermost = np.asarray(tiling.rows_outermost)
    input_tile = np.ceil(sizes.inputs * tiling.rows / gemm.m)
    weight_tile = byte_count(gemm.k * tiling.columns, accelerator.operand_bits)
    input_stays = (sizes.inputs <= input_room) | (input_tile <= input_room // 2)
    weight_stays = (sizes.weights <= weight_room) | (weight_tile <= weight_room // 2)
    again_inputs = (sizes.inputs > input_room) & ~(rows_outermost & input_stays)
    again_weights = (sizes.weights > weight_room) & ~(~rows_outermost & weight_stays)
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
        np.where(input_stays, 1, folds[0]),
        np.where(weight_stays, 1, folds[1]),
    )


def _estimate(gemm: Gemm, sizes: _Operands, accelerator: Accelerator, tiling: Tiling) -> tuple:
    """Cycles, and DRAM bytes, of many tilings, `(t,)` float64 each: no size overflows.

    The busier of array and memory sets the pace. Where it is the array, the first load and the last
    store are not hidden; where it is the memory, the last tile's product is not. Operands that are
    loaded once travel while the first tiles of the outer dimension are worked on, so these are
    taken apart from the rest.
    """
    bits, bandwidth = accelerator.operand_bits, accelerator.dram.bandwidth_bytes_per_cycle
    row_tiles, column_tiles = ceil_div(gemm.m, tiling.rows), ceil_div(gemm.n, tiling.columns)
    last_rows = gemm.m - tiling.rows * (row_tiles - 1)
    last_columns = gemm.n - tiling.columns * (column_tiles - 1)
    array = np.zeros(len(tiling.rows))
    for rows, many_rows in ((tiling.rows, row_tiles - 1), (last_rows, 1)):
        for columns, many_columns in ((tiling.columns, column_tiles - 1), (last_columns, 1)):
            last_tile = _occupancy(accelerator, rows, columns, gemm.k)
            array += many_rows * many_columns * last_tile
    again_inputs, again_weights, input_loads, weight_loads = _loads(
        gemm, sizes, accelerator, tiling
    )
    inputs, weights = sizes.inputs * input_loads, sizes.weights * weight_loads
    outputs = byte_count(gemm.m * gemm.n, bits)
    moved = inputs * np.where(again_inputs, column_tiles, 1)
    moved = moved + weights * np.where(again_weights, row_tiles, 1) + outputs
    outer, inner = (
        np.where(tiling.rows_outermost, one, other)
        for one, other in ((row_tiles, column_tiles), (column_tiles, row_tiles))
    )
    # The first outer tile: all of the inner operand, one tile of the outer one.
    inner_bytes = np.where(tiling.rows_outermost, weights, inputs)
    outer_again = np.where(tiling.rows_outermost, again_inputs, again_weights)
    outer_tile = np.where(tiling.rows_outermost, inputs / row_tiles, weights / column_tiles)
    first = inner_bytes + outer_tile * np.where(outer_again, inner, 1) + outputs / outer
    load = inputs / row_tiles + weights / column_tiles
    store = byte_count(last_rows * last_columns, bits)
    start = np.maximum(array / outer + load / bandwidth, first / bandwidth)
    rest = np.maximum(array - array / outer + store / bandwidth, (moved - first) / bandwidth)
    return np.maximum(start + rest, moved / bandwidth + last_tile), moved


def _occupancy(accelerator: Accelerator, rows, columns, k: int):
    """Cycles that a tile holds the array, its buffers' ports included."""
    inputs, weights, sum_writes, sum_reads = product_bytes(
        accelerator,
        rows,
        columns,
        k,
        inputs=accelerator.activation_buffer,
        sums=accelerator.output_buffer,
    )
    return np.maximum.reduce(
        [
            gemm_cycles(accelerator.array, rows, columns, k)[0],
            port_cycles(inputs, accelerator.activation_buffer),
            port_cycles(weights, accelerator.weight_buffer),
            port_cycles(sum_writes + sum_reads, accelerator.output_buffer),
        ]
    )


class _Scheduled:
    """A layer cut by a tiling; arrays are `(count, outer tiles, inner tiles)` int64."""

    def __init__(
        self, gemm: Gemm, sizes: _Operands, accelerator: Accelerator, tiling: Tiling
    ) -> None:
        self.gemm, self.sizes = gemm, sizes
        self.accelerator, self.tiling = accelerator, tiling
        tiles = gemm.count * ceil_div(gemm.m, tiling.rows) * ceil_div(gemm.n, tiling.columns)
        check_tiles(gemm, tiles)
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

    def _blame(self, critical_cycles: dict[str, int]) -> dict[str, int]:
        """Charge the array's cycles that only the cutting of rows costs to the buffer behind it.

        Every row tile fills and drains the array anew. Where all rows' partial sums do not fit
        half of the output buffer, that buffer is to blame; else the inputs' buffer, or the memory
        whose transfers the tiles hide: `activation_buffer`.
        """
        gemm, array = self.gemm, self.accelerator.array
        busy = int(self.array_cycles.sum())
        one_tile, _ = gemm_cycles(array, gemm.m, cut(gemm.n, self.tiling.columns), gemm.k)
        excess = max(0, busy - gemm.count * int(one_tile.sum()))
        moved = critical_cycles.get("array", 0) * excess // busy
        if not moved:
            return critical_cycles
        sums = byte_count(gemm.m * self.tiling.columns, self.accelerator.accumulator_bits)
        fits = sums <= self.accelerator.output_buffer.capacity_bytes // 2
        buffer = "activation_buffer" if fits else "output_buffer"
        return critical_cycles | {
            "array": critical_cycles["array"] - moved,
            buffer: critical_cycles.get(buffer, 0) + moved,
        }

    def timing(self, makespan: Makespan) -> LayerTiming:
        """The layer as an engine saw it."""
        gemm, schedule = self.gemm, self.schedule
        loaded, weights = int(self.inputs.sum()), int(self.weights.sum())
        weight_reads, sums = int(self.weight_reads.sum()), int(self.sum_writes.sum())
        actions = ActionCounts(
            {
                ("array", "mac"): gemm.macs,
                ("array", "register_byte"): gemm.count
                * register_bytes(self.accelerator, self.rows, self.columns, gemm.k),
                ("activation_buffer", "write_byte"): loaded,
                ("activation_buffer", "read_byte"): int(self.input_reads.sum()),
                ("weight_buffer", "write_byte"): weights,
                ("weight_buffer", "read_byte"): weight_reads,
                ("output_buffer", "write_byte"): sums,
                # Every update but the first reads the sum; one more read stores the output.
                ("output_buffer", "read_byte"): sums,
                ("dram", "read_byte"): int(
                    burst_bytes(self.inputs + self.weights, self.accelerator).sum()
                ),
                ("dram", "write_byte"): int(burst_bytes(self.stores, self.accelerator).sum()),
            }
        )
        return LayerTiming(
            cycles=makespan.cycles,
            critical_cycles=self._blame(makespan.critical_cycles),
            busy_cycles={
                "dram": int(schedule.load_cycles.sum() + schedule.store_cycles.sum()),
                "front_end": 0,
                "cache": 0,
                "array": int(self.array_cycles.sum()),
                "reconstructor": 0,
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
