"""Plans that sum activations by the value of their weight: static and exact."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators import ConfigError
from workloads.traces.layer import Gemm


@dataclass(frozen=True, kw_only=True)
class WeightPlan:
    """What one row takes, once the weights were put in an order in which sums are shared.

    Columns are cut into blocks of `filters`, the last one maybe smaller; a block has a table. The
    values of results don't change: all is counted from the weights alone. Numbers of blocks are
    `(count, blocks)` int64, of one row.

    Attributes:
        gemm: shape of the layer's products.
        filters: columns of a block.
        multiplies: finished sums that are multiplied.
        sum_adds: additions that make sums.
        result_adds: additions of products to results.
        inputs: activations that are read.
        sum_reads: sums that were kept and are read again.
        kept_sums: sums that are kept for it.
        steps: operands that an adder takes, one after the other.
        entries: of the table, each naming an activation or a kept sum.
        entry_bits: of one.
        listed: weights in the table.

    Raises:
        ConfigError: blocks do not cut the columns, or counts are of other blocks or negative.
    """

    units: ClassVar[tuple[str, ...]] = ("weight_tables",)

    gemm: Gemm
    filters: int
    multiplies: np.ndarray = field(repr=False)
    sum_adds: np.ndarray = field(repr=False)
    result_adds: np.ndarray = field(repr=False)
    inputs: np.ndarray = field(repr=False)
    sum_reads: np.ndarray = field(repr=False)
    kept_sums: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)
    entries: np.ndarray = field(repr=False)
    entry_bits: np.ndarray = field(repr=False)
    listed: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        """Every block has its counts."""
        shape = (self.gemm.count, -(-self.gemm.n // max(1, self.filters)))
        for name in COUNTS:
            counts = getattr(self, name)
            if counts.shape != shape or counts.dtype.kind != "i" or counts.min(initial=0) < 0:
                raise ConfigError(
                    f"WeightPlan.{name} must be whole numbers of at least 0 of shape (count, "
                    f"blocks) = {shape}, got {counts.dtype} of shape {counts.shape}; count for "
                    f"each block of {self.filters} columns"
                )

    @property
    def adds(self) -> np.ndarray:
        """`(count, blocks)` int64, all additions."""
        return self.sum_adds + self.result_adds

    @property
    def cycles(self) -> np.ndarray:
        """`(count, blocks)` int64, with an adder and, beside it, a multiplier."""
        return np.maximum(self.steps, self.multiplies)

    @property
    def macs(self) -> int:
        """Multiplications of all rows."""
        return self.gemm.m * int(self.multiplies.sum())

    def table_bits(self, weight_bits: int) -> np.ndarray:
        """`(count, blocks)` int64, bits of each block's table, which holds weights of so many."""
        return self.entries * self.entry_bits + self.listed * weight_bits


COUNTS = (
    "multiplies", "sum_adds", "result_adds", "inputs", "sum_reads", "kept_sums", "steps",
    "entries", "entry_bits", "listed",
)  # fmt: skip
"""What a plan counts for each block."""
