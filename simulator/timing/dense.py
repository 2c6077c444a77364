"""A layer without reuse on the array: tiling, memory traffic, cycles, actions."""

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.timing.array import ceil_div, folds, gemm_cycles
from simulator.timing.layer import (
    ActionCounts,
    LayerTiming,
    byte_count,
    register_bytes,
    transfer_cycles,
)
from simulator.timing.pipeline import makespan_cycles
from workloads.gemm import Layer


def dense_timing(layer: Layer, accelerator: Accelerator) -> LayerTiming:
    """Time a layer with every row multiplied, under the fastest of a few row tilings.

    Loops, outermost first: GEMMs, row tiles, columns of the array (n), rows of the array (k).
    A row tile's partial sums stay in half of the output buffer. Its activations are loaded once
    where they fit half of the activation buffer, else once per n fold. All weights are loaded once
    where they fit the weight buffer, else once per row tile. Rows of a convolution's halo that
    two tiles share are counted once.

    Raises:
        ConfigError: a buffer does not hold one tile.
    """
    timings = (_tiled(layer, accelerator, rows) for rows in _row_tiles(layer, accelerator))
    return min(timings, key=lambda timing: timing.cycles)


def _row_tiles(layer: Layer, accelerator: Accelerator) -> list[int]:
    """Row tiles worth trying: the largest that fit, and fractions that overlap better."""
    gemm, array = layer.gemm, accelerator.array
    check_weight_tile(accelerator)
    columns = min(array.columns, gemm.n)
    row_bytes = byte_count(columns, accelerator.accumulator_bits)
    half = accelerator.output_buffer.capacity_bytes // 2
    if half < row_bytes:
        raise ConfigError(
            f"Accelerator.output_buffer.capacity_bytes must hold two rows of {columns} partial "
            f"sums, got {2 * half}; use {2 * row_bytes} or more"
        )
    by_output = min(gemm.m, half // row_bytes)
    input_bytes = byte_count(layer.input_elements // gemm.count, accelerator.operand_bits)
    resident = gemm.m * (accelerator.activation_buffer.capacity_bytes // 2) // max(1, input_bytes)
    by_input = min(by_output, max(1, resident))
    sizes = {ceil_div(size, part) for size in (by_output, by_input) for part in (1, 2, 4)}
    # Equal tiles: the last one is not left with a few rows.
    return sorted({ceil_div(gemm.m, ceil_div(gemm.m, size)) for size in sizes}, reverse=True)


def check_weight_tile(accelerator: Accelerator) -> None:
    """The weight buffer must hold the weights of two folds."""
    array = accelerator.array
    needed = 2 * byte_count(array.rows * array.columns, accelerator.operand_bits)
    capacity = accelerator.weight_buffer.capacity_bytes
    if capacity < needed:
        raise ConfigError(
            f"Accelerator.weight_buffer.capacity_bytes must hold the weights of two folds of the "
            f"{array.rows}x{array.columns} array, got {capacity}; use {needed} or more"
        )


def _tiled(layer: Layer, accelerator: Accelerator, tile_rows: int) -> LayerTiming:
    """Time a layer with row tiles of `tile_rows`."""
    gemm, array = layer.gemm, accelerator.array
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    row_tiles, n_folds = ceil_div(gemm.m, tile_rows), ceil_div(gemm.n, array.columns)
    rows = np.full(row_tiles, tile_rows, np.int64)
    rows[-1] = gemm.m - tile_rows * (row_tiles - 1)
    columns = np.full(n_folds, array.columns, np.int64)
    columns[-1] = gemm.n - array.columns * (n_folds - 1)
    # Arrays below are (count, row tile, n fold).
    shape = (gemm.count, row_tiles, n_folds)

    input_bytes = byte_count(layer.input_elements // gemm.count, operand)
    # Largest remainder: the tiles' bytes add up to the input's.
    edges = np.concatenate([[0], np.cumsum(rows)]) * input_bytes // gemm.m
    activation = np.zeros(shape, np.int64)
    slices = np.diff(edges)
    fits = slices <= accelerator.activation_buffer.capacity_bytes // 2
    activation[:, :, 0] = slices
    activation[:, ~fits, 1:] = slices[~fits][:, None]

    weight = np.zeros(shape, np.int64)
    weights_resident = (
        byte_count(gemm.k * gemm.n, operand) <= accelerator.weight_buffer.capacity_bytes
    )
    weight[:, slice(0, 1) if weights_resident else slice(None)] = byte_count(
        gemm.k * columns, operand
    )

    store_bytes = np.broadcast_to(byte_count(rows[:, None] * columns, operand), shape)
    busy = np.broadcast_to(gemm_cycles(array, rows, array.columns, gemm.k)[:, None], shape)
    load = transfer_cycles(activation + weight, accelerator).ravel()
    store = transfer_cycles(store_bytes, accelerator).ravel()
    array_cycles = np.ascontiguousarray(busy).reshape(1, -1)

    k_folds = folds(array, gemm.k, 1)
    outputs = gemm.count * gemm.m * gemm.n
    weight_reads = gemm.count * row_tiles * gemm.k * gemm.n
    loaded_activation, loaded_weight = int(activation.sum()), int(weight.sum())
    actions = ActionCounts(
        {
            ("array", "mac"): gemm.macs,
            ("array", "register_byte"): register_bytes(accelerator, gemm.macs)
            + byte_count(weight_reads, operand),
            ("activation_buffer", "write_byte"): loaded_activation,
            ("activation_buffer", "read_byte"): byte_count(
                gemm.count * gemm.m * gemm.k * n_folds, operand
            ),
            ("weight_buffer", "write_byte"): loaded_weight,
            ("weight_buffer", "read_byte"): byte_count(weight_reads, operand),
            ("output_buffer", "write_byte"): byte_count(outputs * k_folds, accumulator),
            # One read per later k fold, and one to store the outputs.
            ("output_buffer", "read_byte"): byte_count(outputs * k_folds, accumulator),
            ("dram", "read_byte"): loaded_activation + loaded_weight,
            ("dram", "write_byte"): int(store_bytes.sum()),
        }
    )
    return LayerTiming(
        cycles=int(makespan_cycles(load, array_cycles, store)),
        busy_cycles={
            "memory": int(load.sum() + store.sum()),
            "front_end": 0,
            "cache": 0,
            "array": int(array_cycles.sum()),
            "reconstruction": 0,
        },
        actions=actions,
        macs=gemm.macs,
    )
