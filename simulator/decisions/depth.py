"""How far each output's sum goes."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from accelerators import ConfigError
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
        ended: float32 that broadcasts to `(count, 1, n)`, what outputs are in place of that 0: a
            product whose result is shifted before the ReLU is 0 after it where it is minus the
            shift. `None` for 0.

    Raises:
        ConfigError: the terms are of another shape or number, or an order leaves elements out.
    """

    gemm: Gemm
    terms: np.ndarray = field(repr=False)
    order: np.ndarray | None = field(default=None, repr=False)
    zeroed: bool = True
    ended: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """The terms must be of this layer, the order of all its elements."""
        gemm, terms, order = self.gemm, self.terms, self.order
        shape = (gemm.count, gemm.m, gemm.n)
        pairs = zip(terms.shape[::-1], shape[::-1], strict=False)
        fits = terms.ndim <= 3 and all(given in (1, wanted) for given, wanted in pairs)
        if not fits or not 0 <= terms.min() <= terms.max() <= gemm.k:
            raise ConfigError(
                f"DepthDecisions.terms must be numbers from 0 to k={gemm.k} that broadcast to "
                f"(count, m, n) = {shape}, got shape {terms.shape}"
                + (f" from {int(terms.min())} to {int(terms.max())}" if fits else "")
                + "; give how many products of each output are computed"
            )
        if self.ended is not None:
            self._check_ended(self.ended)
        if order is None:
            return
        whole = order.shape in ((gemm.k,), (gemm.k, gemm.n))
        every = np.arange(gemm.k).reshape(-1, *(1,) * (order.ndim - 1))
        if not whole or not (np.sort(order, axis=0) == every).all():
            raise ConfigError(
                f"DepthDecisions.order must be a permutation of the k={gemm.k} elements, of shape "
                f"({gemm.k},) or ({gemm.k}, {gemm.n}), got shape {order.shape}; name each once"
            )

    def _check_ended(self, ended: np.ndarray) -> None:
        gemm = self.gemm
        shape = (gemm.count, 1, gemm.n)
        pairs = zip(ended.shape, shape, strict=False)
        fits = ended.ndim == 3 and all(given in (1, wanted) for given, wanted in pairs)
        if fits and self.zeroed and np.isfinite(ended).all():
            return
        raise ConfigError(
            f"DepthDecisions.ended must be finite numbers that broadcast to (count, 1, n) = "
            f"{shape}, with zeroed=True, got shape {ended.shape} with zeroed={self.zeroed}; give "
            "one of each column"
        )

    @cached_property
    def remaining_ratio(self) -> float:
        """Fraction of the multiplications that are computed."""
        return float(self.terms.mean(dtype=np.float64)) / self.gemm.k
