"""What becomes of a product's columns: computed, dropped, or equal to another."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

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
    """

    gemm: Gemm
    sources: np.ndarray = field(repr=False)

    @cached_property
    def computed(self) -> np.ndarray:
        """`(groups,)` int64, columns that are computed for each run of rows."""
        return np.count_nonzero(self.sources == np.arange(self.gemm.n), axis=1)

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the columns that are computed, averaged over the groups."""
        return float(self.computed.mean()) / self.gemm.n
