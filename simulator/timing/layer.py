"""What timing says of one layer on one design."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError, SramBuffer
from simulator.timing.array import ceil_div
from simulator.timing.schedule import LIMITS, Schedule

# (part, action) -> how often; priced by `accelerators.energy_per_action`.
ActionCounts = Counter[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class LayerTiming:
    """Cycles and actions of one layer.

    Attributes:
        cycles: from the first load to the last store.
        busy_cycles: block -> cycles in which it works; the blocks overlap, so these do not add up.
        critical_cycles: limit -> cycles of the critical path that it is to blame for; these add up
            to `cycles`. Limits are the blocks and the ports of the buffers; all but `array` are
            stalls of the array.
        dram_bytes: bytes to and from the DRAM by what they are: `inputs`, `weights` (both with what
            is loaded again), `outputs`, `spilled_sums` and `spilled_results` (out and back; in a
            stream also its tables, the old results that are used and the new ones).
        actions: what was done, to be priced.
        macs: multiply-accumulates that the array did.
        schedule: the tiles, for a timeline.
    """

    cycles: int
    busy_cycles: dict[str, int]
    critical_cycles: dict[str, int]
    dram_bytes: dict[str, int]
    actions: ActionCounts
    macs: int
    schedule: Schedule

    @property
    def bound_by(self) -> str:
        """The limit to blame for most of the cycles."""
        return max(LIMITS, key=lambda limit: self.critical_cycles.get(limit, 0))


def byte_count(elements, bits: int):
    """Bytes of whole elements; integers or arrays of integers."""
    return -(-elements * bits // 8)


def transfer_cycles(transferred_bytes: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """`int64` cycles that DMA transfers occupy the memory: whole bursts, rounded up."""
    dram = accelerator.dram
    bursts = -(-np.asarray(transferred_bytes) // dram.burst_bytes)
    return np.ceil(bursts * dram.burst_bytes / dram.bandwidth_bytes_per_cycle).astype(np.int64)


def port_cycles(moved_bytes, buffer: SramBuffer):
    """Cycles that a buffer's ports need to move bytes; integers or arrays of integers."""
    return -(-moved_bytes // buffer.bytes_per_cycle)


def access_bytes(elements, each, bits: int, buffer: SramBuffer):
    """Bytes of the whole accesses that move elements, `each` at a time at most.

    An access moves the buffer's full width, however much of it is used; integers or arrays.
    """
    word = buffer.width_bits // 8
    whole = ceil_div(byte_count(each, bits), word) * word
    rest = ceil_div(byte_count(elements % each, bits), word) * word
    return elements // each * whole + rest


def product_bytes(
    accelerator: Accelerator, m, n, k, *, inputs: SramBuffer, sums: SramBuffer
) -> tuple:
    """Bytes of all accesses that feed the array with an `(m, k)` by `(k, n)` product.

    Args:
        accelerator: the design.
        m: rows; m, n and k may be arrays of integers.
        n: columns.
        k: elements of a row.
        inputs: the buffer that rows are read from.
        sums: the buffer that partial sums are kept in.

    Returns:
        Bytes read from `inputs`, read from the weight buffer, written to `sums`, and read back
        from there by every update but the first.
    """
    array = accelerator.array
    rows, columns = array.rows, array.columns
    weights = accelerator.weight_buffer
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    match array.dataflow:
        case "weight_stationary":
            result = m * access_bytes(n, columns, accumulator, sums)
            return (
                m * ceil_div(n, columns) * access_bytes(k, rows, operand, inputs),
                k * access_bytes(n, columns, operand, weights),
                result * ceil_div(k, rows),
                result * (ceil_div(k, rows) - 1),
            )
        case "output_stationary":
            result = m * access_bytes(n, columns, accumulator, sums)
            return (
                k * ceil_div(n, columns) * access_bytes(m, rows, operand, inputs),
                k * ceil_div(m, rows) * access_bytes(n, columns, operand, weights),
                result,
                0 * result,
            )
        case "input_stationary":
            result = n * access_bytes(m, columns, accumulator, sums)
            return (
                k * access_bytes(m, columns, operand, inputs) * (n > 0),
                n * ceil_div(m, columns) * access_bytes(k, rows, operand, weights),
                result * ceil_div(k, rows),
                result * (ceil_div(k, rows) - 1),
            )
    raise ValueError(f"unknown dataflow {array.dataflow!r}")


def register_bytes(accelerator: Accelerator, macs: int) -> int:
    """Register bytes that the array's units read and write for `macs` operations.

    Each reads its weight, passes on an activation (a read and a write) and a partial sum (a read
    and a write).
    """
    return byte_count(macs, 3 * accelerator.operand_bits + 2 * accelerator.accumulator_bits)


def check_stationary_tile(accelerator: Accelerator) -> None:
    """The buffer that feeds the stationary operand must hold two tiles of it."""
    array = accelerator.array
    field = "activation_buffer" if array.dataflow == "input_stationary" else "weight_buffer"
    needed = 2 * byte_count(array.rows * array.columns, accelerator.operand_bits)
    capacity = getattr(accelerator, field).capacity_bytes
    if array.dataflow != "output_stationary" and capacity < needed:
        what = "inputs" if field == "activation_buffer" else "weights"
        raise ConfigError(
            f"Accelerator.{field}.capacity_bytes must hold the {what} of two folds of the "
            f"{array.rows}x{array.columns} array, got {capacity}; use {needed} or more"
        )
