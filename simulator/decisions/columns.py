"""What becomes of a product's columns: computed, dropped, or equal to another."""

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

    Raises:
        ConfigError: there are not as many columns, m can't be cut into the groups, or a column
            takes the result of one that is not computed.
    """

    gemm: Gemm
    sources: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        """Every source must be computed."""
        sources, gemm = self.sources, self.gemm
        if sources.ndim != 2 or sources.shape[1] != gemm.n or gemm.m % (len(sources) or gemm.m + 1):
            raise ConfigError(
                f"ColumnDecisions.sources must be (groups, n={gemm.n}) with groups that divide "
                f"m={gemm.m}, got shape {sources.shape}; give a source for each column"
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

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the columns that are computed, averaged over the groups."""
        return float(self.computed.mean()) / self.gemm.n
