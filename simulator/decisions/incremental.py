"""Rows of which only differences are multiplied, and added to a result that is remembered."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from accelerators.rules import refuse
from simulator.kernels.differences import bits_of_terms, ones
from workloads.traces.layer import Gemm

# Elements of a row that one byte of marks stands for.
_IN_BYTE = 8


@dataclass(frozen=True, kw_only=True)
class IncrementalRows:
    """Rows whose results are those of an earlier row, with the product of a difference added.

    The earlier row lies `lag` rows before: where the rows of the batch before and of this one are
    numbered through, row r is added to row r - lag. With as many rows as a batch has, that is the
    same row of the batch before; with those of one image, the same position of the frame before,
    the last one of the batch before for the first frame; with 1, the position to the left.

    Attributes:
        gemm: shape of the layer's products.
        lag: rows from a row to the one that its difference is taken from, 1 to m.
        anew: `(count, m)` bool, rows that are computed whole, from nothing.
        marks: `(count, ceil(k / 8), m)` uint8, a bit for each element that is multiplied: element
            8 i + j of a row is bit j of byte i. All of a row that is computed anew are; of others,
            those that differ.
        keeps: whether results are remembered for the batch after; else all sources lie in this one.
        on_chip: whether a design has room on the chip for what is remembered; else it lies in the
            DRAM. Timing sets it.
        exact: whether values are integers, whose sums are then kept in float64, which holds them
            exactly; else in float32, where each frame's rounding stays in the sum.
        differences: `(count, m, k)` float32, what is multiplied: of a row that is computed anew,
            all of it. `None` once the results were computed.
        results: `(count, lag, n)` float32, or float64 where exact: the last results of the batch
            before; `None` where no row needs them, or once the results were computed.

    Raises:
        ConfigError: the arrays are not those of such a layer.
    """

    gemm: Gemm
    lag: int
    anew: np.ndarray = field(repr=False)
    marks: np.ndarray = field(repr=False)
    keeps: bool = True
    on_chip: bool = False
    exact: bool = False
    differences: np.ndarray | None = field(default=None, repr=False)
    results: np.ndarray | None = field(default=None, repr=False)

    units: ClassVar[tuple[str, ...]] = ("result_adder",)

    def __post_init__(self) -> None:
        """Marks for every element, a source for every row."""
        gemm, broken = self.gemm, []
        shape, marks = (gemm.count, gemm.m), (gemm.count, -(-gemm.k // _IN_BYTE), gemm.m)
        if not 1 <= self.lag <= gemm.m:
            broken.append(
                f"IncrementalRows.lag must be from 1 to m={gemm.m}, got {self.lag}; give the rows "
                "from a row to the one before that its difference is taken from"
            )
        if self.anew.shape != shape or self.anew.dtype != bool:
            broken.append(
                f"IncrementalRows.anew must be bool of shape (count, m) = {shape}, got "
                f"{self.anew.dtype} of shape {self.anew.shape}; mark the rows that are computed "
                "whole"
            )
        elif not self.keeps and not self.anew[:, : self.lag].all():
            broken.append(
                "IncrementalRows.anew must mark all rows whose source is no row of this batch "
                "where nothing is remembered, got some that it does not; compute them whole"
            )
        if self.marks.shape != marks or self.marks.dtype != np.uint8:
            broken.append(
                f"IncrementalRows.marks must be uint8 of shape (count, ceil(k / 8), m) = {marks}, "
                f"got {self.marks.dtype} of shape {self.marks.shape}; use incremental()"
            )
        refuse(broken)

    @cached_property
    def terms(self) -> np.ndarray:
        """`(count, m)` int64, elements of each row that are multiplied."""
        return ones(self.marks)

    @property
    def is_computed(self) -> np.ndarray:
        """`(count, m)` bool, rows of which anything is multiplied."""
        return np.bitwise_or.reduce(self.marks, axis=1) != 0

    @property
    def is_added(self) -> np.ndarray:
        """`(count, m)` bool, rows to whose results something is added, or that are handed on.

        Of results that are remembered, those that stay as they are need nothing.
        """
        return ~self.anew & self.is_computed if self.keeps else ~self.anew

    @property
    def needs_results(self) -> bool:
        """Whether a row's source lies in the batch before."""
        return not self.anew[:, : self.lag].all()

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the multiplications that are left."""
        return int(self.terms.sum()) / (self.gemm.count * self.gemm.m * self.gemm.k)

    @property
    def macs(self) -> int:
        """Multiplications left to the array: of each element that is multiplied, n."""
        return int(self.terms.sum()) * self.gemm.n

    def terms_of_tiles(self, rows: np.ndarray) -> np.ndarray:
        """Elements of k that any row of a tile multiplies.

        Args:
            rows: `(t,)` int64 rows of consecutive tiles, m in all.

        Returns:
            `(count, t)` int64.
        """
        starts = np.cumsum(rows) - rows
        return ones(np.bitwise_or.reduceat(self.marks, starts, axis=2))

    def elements_of(self, index: int) -> np.ndarray:
        """int64 numbers of the elements of k that any row of one product multiplies."""
        of_rows = np.bitwise_or.reduce(self.marks[index], axis=1)
        return np.flatnonzero(np.unpackbits(of_rows, bitorder="little", count=self.gemm.k))

    def without_operands(self) -> "IncrementalRows":
        """The same as timing and cost need it."""
        return replace(self, differences=None, results=None)


def incremental(
    gemm: Gemm,
    differences: np.ndarray,
    anew: np.ndarray,
    *,
    lag: int,
    keeps: bool = True,
    exact: bool = False,
) -> IncrementalRows:
    """Rows that are added to earlier ones, with marks of what differs.

    Args:
        gemm: shape of the layer's products.
        differences: `(count, m, k)` float32, k-major (see `workloads.traces.unfold`).
        anew: see `IncrementalRows`, as the next.
        lag: of all rows.
        keeps: whether results are remembered.
        exact: whether values are integers.
    """
    columns = np.ascontiguousarray(differences.transpose(0, 2, 1))
    return IncrementalRows(
        gemm=gemm,
        lag=lag,
        anew=anew,
        marks=bits_of_terms(columns, anew),
        keeps=keeps,
        exact=exact,
        differences=differences,
    )
