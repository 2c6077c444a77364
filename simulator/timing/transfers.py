"""What moves: whole elements, bursts and accesses, and the cycles that moving them takes."""

from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, SramBuffer
from simulator.decisions.rows import SharedRows


def ceil_div(a, b):
    """Smallest integer of at least a / b; also element by element."""
    return -(-a // b)


def byte_count(elements, bits: int):
    """Bytes of whole elements; integers or arrays of integers."""
    return -(-elements * bits // 8)


def transfer_cycles(transferred_bytes: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """`int64` cycles that DMA transfers occupy the DRAM: whole bursts, rounded up."""
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


def banked_cycles(reads, banks: int, askers: int):
    """Cycles, at least, of reads by so many that each ask one of the banks at random; `int64`.

    `B (1 - (1 - 1/B)^A)` of A askers are served by B banks in a cycle on average: Strecker's
    approximation of memory interference, which forgets those that were turned away (Carnegie-Mellon
    University, 1970).
    """
    served = banks * (1 - (1 - 1 / banks) ** askers)
    return np.ceil(np.asarray(reads) / served).astype(np.int64)


def vector_bytes(shared: SharedRows, accelerator: Accelerator) -> np.ndarray:
    """`(v, tiles)` int64, bytes of the activation buffer's accesses that read a tile's vectors."""
    widths = shared.widths[:, None]
    elements, bits = shared.looks.vectors * widths, accelerator.operand_bits
    return access_bytes(elements, widths, bits, accelerator.activation_buffer)


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """Something that tiles load from the DRAM, or store there.

    Attributes:
        kind: what it is, a name in `LayerTiming.dram_bytes`.
        moved_bytes: of each tile, int64 of the tiles' shape.
        stored: whether it leaves; else it is loaded.
        buffer: field of the buffer whose bytes are written by a load, or read by a store; `None`
            where the stage that works on it counts that.
    """

    kind: str
    moved_bytes: np.ndarray
    stored: bool = False
    buffer: str | None = None
