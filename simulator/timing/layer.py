"""What timing says of one layer on one design."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator

BLOCKS = ("memory", "front_end", "cache", "array", "reconstruction")

# (part, action) -> how often; priced by `accelerators.energy_per_action`.
ActionCounts = Counter[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class LayerTiming:
    """Cycles and actions of one layer.

    Attributes:
        cycles: from the first load to the last store.
        busy_cycles: block -> cycles in which it works; the blocks overlap, so these do not add up.
        actions: what was done, to be priced.
        macs: multiply-accumulates that the array did.
    """

    cycles: int
    busy_cycles: dict[str, int]
    actions: ActionCounts
    macs: int

    @property
    def bound_by(self) -> str:
        """The block that works longest; it sets the pace of a long layer."""
        return max(BLOCKS, key=lambda block: self.busy_cycles[block])


def byte_count(elements, bits: int):
    """Bytes of whole elements; integers or arrays of integers."""
    return -(-elements * bits // 8)


def transfer_cycles(transferred_bytes: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """`int64` cycles of DMA transfers, each rounded up to whole cycles."""
    bandwidth = accelerator.dram.bandwidth_bytes_per_cycle
    return np.ceil(np.asarray(transferred_bytes) / bandwidth).astype(np.int64)


def register_bytes(accelerator: Accelerator, macs: int) -> int:
    """Register bytes that the array's units read and write for `macs` operations.

    Each reads its weight, passes on an activation (a read and a write) and a partial sum (a read
    and a write).
    """
    return byte_count(macs, 3 * accelerator.operand_bits + 2 * accelerator.accumulator_bits)
