"""How far each output's sum goes."""

from dataclasses import dataclass, field

import numpy as np

from workloads.traces.layer import Gemm


@dataclass(frozen=True, kw_only=True)
class DepthDecisions:
    """How many of the k products of each output are computed, in a given order.

    Attributes:
        gemm: shape of the layer's products.
        terms: int32 that broadcasts to `(count, m, n)`, 0 (the output is skipped) to k.
        order: `(k,)` or `(k, n)` int64, the element of k at each place of the sum, for all columns
            or each; `None` for the layer's own order.
        zeroed: whether an output whose sum ends early is 0, as one that will be negative before a
            ReLU; else it is the partial sum. A skipped output is 0 in either case.
    """

    gemm: Gemm
    terms: np.ndarray = field(repr=False)
    order: np.ndarray | None = field(default=None, repr=False)
    zeroed: bool = True

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the multiplications that are computed."""
        return float(self.terms.mean(dtype=np.float64)) / self.gemm.k
