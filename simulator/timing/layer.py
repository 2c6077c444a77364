"""What timing says of one layer on one design."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError, SramBuffer
from simulator.timing.array import ceil_div
from simulator.timing.schedule import LIMITS, Schedule
from workloads.traces.layer import Gemm

# Of two ways no more than this apart in cycles, the one with the fewer DRAM bytes is taken.
AS_FAST = 1.01
# A plan of reuse may be so much slower than the fastest, if it moves that many fewer bytes.
WORTH_WAITING = 1.25
# Tiles, and operations, of a layer at most: what memory and 64-bit counts hold.
MOST_TILES = 2**21
_MOST_MACS = 2**50
# (part, action) -> how often; priced by `accelerators.energy_per_action`.
ActionCounts = Counter[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class LayerTiming:
    """Cycles and actions of one layer.

    Attributes:
        cycles: from the first load to the last store.
        busy_cycles: block -> cycles in which it works; the blocks overlap, so these do not add up.
        critical_cycles: limit -> cycles of the critical path that it is to blame for; these add up
            to `cycles`. Limits are the blocks and the buffers, whose ports or sizes hold
            the blocks up; all but `array` are stalls of the array.
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
    moved = burst_bytes(transferred_bytes, accelerator)
    return np.ceil(moved / accelerator.dram.bandwidth_bytes_per_cycle).astype(np.int64)


def burst_bytes(transferred_bytes: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """Bytes of the whole bursts that transfers take."""
    burst = accelerator.dram.burst_bytes
    return -(-np.asarray(transferred_bytes) // burst) * burst


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


def register_bytes(accelerator: Accelerator, m, n, k) -> int:
    """Register bytes that the array's units read and write for `(m, k)` by `(k, n)` products.

    For an operation a unit reads what stays in it, and reads and writes the two that pass: an
    operand and a partial sum, or two operands by a sum that it reads and writes as well. What stays
    is written once a fold, or read once where it is the sum.

    Args:
        accelerator: the design.
        m: rows of all products, an array of integers.
        n: columns, likewise; broadcast to `m`.
        k: elements of a row, likewise.
    """
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    array = accelerator.array
    match array.dataflow:
        case "weight_stationary":
            each, kept = 3 * operand + 2 * accumulator, k * n * operand
        case "output_stationary":
            each, kept = 4 * operand + 2 * accumulator, m * n * accumulator
        case "input_stationary":
            each, kept = 3 * operand + 2 * accumulator, k * m * operand
        case _:
            raise ValueError(f"unknown dataflow {array.dataflow!r}")
    return byte_count(int(np.sum(m * n * k)) * each + int(np.sum(kept + 0 * m)), 1)


def check_feeds(accelerator: Accelerator) -> None:
    """The buffers that feed the array must hold two of what it takes at once.

    That is a fold of the operand that stays in the array, and a slice, one element for each row or
    column that it enters by, of one that streams.

    Raises:
        ConfigError: with every buffer that is too small.
    """
    array = accelerator.array
    fold = array.rows * array.columns
    match array.dataflow:
        case "weight_stationary":
            inputs, weights = array.rows, fold
        case "output_stationary":
            inputs, weights = array.rows, array.columns
        case "input_stationary":
            inputs, weights = fold, array.rows
        case _:
            raise ValueError(f"unknown dataflow {array.dataflow!r}")
    broken = []
    for field, what, elements in (
        ("activation_buffer", "inputs", inputs),
        ("weight_buffer", "weights", weights),
    ):
        needed = 2 * byte_count(elements, accelerator.operand_bits)
        capacity = getattr(accelerator, field).capacity_bytes
        if capacity < needed:
            unit = "folds" if elements == fold else "slices"
            broken.append(
                f"Accelerator.{field}.capacity_bytes must hold the {what} of two {unit} of the "
                f"{array.rows}x{array.columns} array, got {capacity}; use {needed} or more"
            )
    if broken:
        raise ConfigError(broken)


def check_tiles(gemm: Gemm, tiles: int) -> None:
    """A huge layer must be refused, not run out of memory or of 64 bits.

    Raises:
        ConfigError: it takes too many tiles or operations.
    """
    if tiles > MOST_TILES:
        raise ConfigError(
            f"Accelerator must run a layer of {gemm} in at most {MOST_TILES} tiles, got "
            f"{tiles}; use larger buffers or a smaller layer"
        )
    if gemm.macs > _MOST_MACS:
        raise ConfigError(
            f"Accelerator must run a layer of at most {_MOST_MACS} multiply-accumulates, got "
            f"{gemm.macs} in {gemm}; use a smaller layer"
        )


def least_traffic(runs: list) -> tuple:
    """Of `(makespan, scheduled)` pairs no more than 1 % slower than the fastest, the one that moves
    the fewest DRAM bytes; the faster of two that move as many."""
    enough = AS_FAST * min(makespan.cycles for makespan, _ in runs)
    return min(
        (run for run in runs if run[0].cycles <= enough),
        key=lambda run: (run[1].dram_bytes, run[0].cycles),
    )


def least_traffic_times_cycles(runs: list) -> tuple:
    """Of `(makespan, scheduled)` pairs no more than a quarter slower than the fastest, the one with
    the least product of cycles and DRAM bytes: a little time may save most of the energy."""
    enough = WORTH_WAITING * min(makespan.cycles for makespan, _ in runs)
    return min(
        (run for run in runs if run[0].cycles <= enough),
        key=lambda run: (run[0].cycles * run[1].dram_bytes, run[0].cycles),
    )
