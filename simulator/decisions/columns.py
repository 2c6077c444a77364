"""What becomes of a product's columns, computed, dropped or equal to another; and which elements of
its rows they are multiplied by."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from accelerators import ConfigError
from workloads.traces.layer import Gemm

# In place of a column's number: its results are 0.
DROPPED = -1


@dataclass(frozen=True, kw_only=True)
class ColumnDecisions:
    """Which column's result each column takes, for each of `groups` equal runs of rows.

    Attributes:
        gemm: shape of the layer's products.
        sources: `(groups, n)` int64, the column's own number where it is computed, that of a column
            which is, or `DROPPED`. One group stands for all rows.
        elements: `(groups, k)` bool, elements of a run's rows that are multiplied: the others are
            known to be 0 in all of its rows, as those of an input channel that the layer before
            left out. `None` where all are multiplied.

    Raises:
        ConfigError: there are not as many columns or elements, m can't be cut into the groups, or a
            column takes the result of one that is not computed.
    """

    gemm: Gemm
    sources: np.ndarray = field(repr=False)
    elements: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Every source must be computed."""
        sources, gemm = self.sources, self.gemm
        if sources.ndim != 2 or sources.shape[1] != gemm.n or gemm.m % (len(sources) or gemm.m + 1):
            raise ConfigError(
                f"ColumnDecisions.sources must be (groups, n={gemm.n}) with groups that divide "
                f"m={gemm.m}, got shape {sources.shape}; give a source for each column"
            )
        elements, wanted = self.elements, (len(sources), gemm.k)
        if elements is not None and (elements.shape != wanted or elements.dtype != bool):
            raise ConfigError(
                f"ColumnDecisions.elements must be bool of shape (groups, k) = {wanted}, got "
                f"{elements.dtype} of shape {elements.shape}; mark those that are multiplied"
            )
        known = (sources >= 0) & (sources < gemm.n)
        ends = np.take_along_axis(sources, np.where(known, sources, 0), axis=1)
        right = np.where(known, ends == sources, sources == DROPPED)
        if not right.all():
            group, column = np.argwhere(~right)[0]
            raise ConfigError(
                "ColumnDecisions.sources must name a column that is computed, or DROPPED, got "
                f"{int(sources[group, column])} for column {int(column)}; name the column whose "
                "own number is its source"
            )

    @property
    def groups(self) -> int:
        """Runs of rows."""
        return len(self.sources)

    @cached_property
    def is_computed(self) -> np.ndarray:
        """`(groups, n)` bool, columns that are computed for each run of rows."""
        return self.sources == np.arange(self.gemm.n)

    @cached_property
    def computed(self) -> np.ndarray:
        """`(groups,)` int64, columns that are computed for each run of rows."""
        return np.count_nonzero(self.is_computed, axis=1)

    @cached_property
    def multiplied(self) -> np.ndarray:
        """`(groups,)` int64, elements of a row that are multiplied in each run."""
        if self.elements is None:
            return np.full(self.groups, self.gemm.k)
        return np.count_nonzero(self.elements, axis=1)

    @property
    def shares(self) -> bool:
        """Whether any column takes another's result."""
        return bool(np.any(~self.is_computed & (self.sources != DROPPED)))

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the multiplications of a run's columns that are left, over the groups."""
        return float(self.computed @ self.multiplied) / self.sources.size / self.gemm.k

    def united(self) -> "ColumnDecisions":
        """The same for all rows: columns that any run computes, elements that any multiplies.

        A column that no run computes takes the source that the first run which shares it names.
        """
        if self.groups == 1:
            return self
        own = np.arange(self.gemm.n)
        first = np.argmax(self.sources != DROPPED, axis=0)  # 0 of those that all drop
        sources = np.where(self.is_computed.any(axis=0), own, self.sources[first, own])
        elements = None if self.elements is None else np.any(self.elements, axis=0, keepdims=True)
        return ColumnDecisions(gemm=self.gemm, sources=sources[None], elements=elements)
