"""SnaPEA: sums in an order by sign, which end when they can't be above 0 any more."""

from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators.rules import flag, integer, one_of, real
from simulator.decisions.box import Decisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import PartialSums
from simulator.kernels.prefixes import ended_terms
from simulator.policies.early import EarlyNegatives
from simulator.policies.policy import LayerState
from simulator.policies.profiling import Choice, chosen, thresholds_of
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

MODES = ("exact", "predictive")
# Lengths of the group that a prediction is made from, as fractions of k.
_GROUPS = (1 / 32, 1 / 16, 1 / 8, 1 / 4)


@dataclass(frozen=True, kw_only=True)
class SnapeaReuse(EarlyNegatives):
    """Each filter's products are computed in an order of its own, and end early below 0.

    Akhlaghi et al., "SnaPEA", ISCA 2018. Inputs are at least 0, so a filter's products with
    positive weights come first; while those with negative weights follow, the sum only falls, and
    once it is below 0 the output is 0 after the ReLU: nothing is lost (*exact*). Bias and batch
    normalisation are folded into weights and the value that a sum begins with. Padding's zeros are
    products like others.

    *Predictive* also gives up sums that are likely to be below 0: of a filter's weights, sorted by
    magnitude and cut into N groups, the largest of each group come first (as the paper is
    remembered); if their sum is below Th, the output is 0. N and Th are found for each filter on
    calibration rows, offline: each filter is profiled for a few N, and of each N the thresholds
    that lose some of its outputs; then steps are taken over all filters, each time the one that
    saves most products for what it loses, until what is lost of the squared outputs after the ReLU
    is `loss` of all of them. (The paper limits the network's accuracy; here it is each layer's
    output.) A filter that has no such step stays exact.

    Layers that it may not be used on run dense, see `reasons`: whose input may be below 0, and
    those without a ReLU that sees nothing but their own result; nor has a column an order of its
    own where a layer has groups.

    Attributes:
        mode: `exact` or `predictive`.
        loss: of a layer's squared outputs, how much may be lost, 0 to 1; predictive only.
        largest_first: whether products of one sign are sorted by their weights' magnitude, so that
            sums fall faster; else they stay in the filter's order.
        samples: rows that N and Th are found on.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where no layer may
            end its sums, or activations are not finite.
    """

    needs_nonnegative = True

    mode: str = field(default="exact", metadata=one_of(lambda: MODES))
    loss: float = field(default=0.02, metadata=real(0, 1))
    largest_first: bool = field(default=False, metadata=flag())
    samples: int = field(default=1024, metadata=integer(1, 2**20))

    def why_dense(self, layer: Layer) -> str:
        """Why a layer runs dense; empty where sums may end."""
        if layer.gemm.count > 1:
            return "its columns of several groups have no order of their own"
        return super().why_dense(layer)

    def learned(
        self, layer: Layer, rows: np.ndarray, weights: np.ndarray, shift: np.ndarray
    ) -> LayerState:
        """The order of each filter, and of predictive ones N and Th."""
        matrix, n = weights[0], layer.gemm.n
        prefix = np.zeros(n, np.int64)
        threshold = np.full(n, -np.inf, np.float32)
        if self.mode == "predictive" and self.loss > 0:
            prefix, threshold = self._profiled(rows[0], matrix, shift[0])
        order = np.stack([self._order(matrix[:, j], int(prefix[j])) for j in range(n)])
        ordered = np.take_along_axis(matrix.T, order, axis=1)
        places = np.arange(layer.gemm.k)
        positive = (ordered > 0) & (places >= prefix[:, None])
        falling = np.where(positive, places + 1, prefix[:, None]).max(axis=1)
        return {
            "order": order,
            "weights": ordered,
            "prefix": prefix,
            # Finite, so that states can be compared and saved as they are.
            "threshold": np.maximum(threshold, np.finfo(np.float32).min),
            "falling": falling,
        }

    def _order(self, weights: np.ndarray, prefix: int) -> np.ndarray:
        """The elements of k: those that predict, then positive weights, negative ones and zeros."""
        group = representatives(weights, prefix)
        rank = np.where(weights > 0, 1, np.where(weights < 0, 2, 3))
        rank[group] = 0
        magnitude = -np.abs(weights) if self.largest_first else np.zeros(len(weights), np.float32)
        return np.lexsort((np.arange(len(weights)), magnitude, rank)).astype(np.int64)

    def _profiled(
        self, rows: np.ndarray, weights: np.ndarray, shift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """N and Th of every filter."""
        k, n = weights.shape
        some = rows[:: max(1, len(rows) // self.samples)]
        lost = np.square(np.maximum(some @ weights + shift, 0), dtype=np.float64)
        sizes = sorted({max(1, round(part * k)) for part in _GROUPS})
        choices: list[list[Choice]] = [[] for _ in range(n)]
        exact = self._exact_terms(some, weights, shift)
        for size in sizes:
            first = np.zeros_like(weights)
            for j in range(n):
                group = representatives(weights[:, j], size)
                first[group, j] = weights[group, j]
            partial = some @ first + shift
            for j in range(n):
                saved = np.maximum(exact[:, j] - size, 0)
                choices[j] += thresholds_of(partial[:, j], lost[:, j], saved, size)
        found = chosen(choices, self.loss * lost.sum())
        prefix = np.array([0 if each is None else each.size for each in found], np.int64)
        threshold = [-np.inf if each is None else each.threshold for each in found]
        return prefix, np.array(threshold, np.float32)

    def _exact_terms(self, rows: np.ndarray, weights: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """`(rows, n)` int32, products that the exact mode computes."""
        n, k = weights.shape[1], weights.shape[0]
        order = np.stack([self._order(weights[:, j], 0) for j in range(n)])
        terms = np.empty((n, len(rows)), np.int32)
        ended_terms(
            np.ascontiguousarray(rows.T), np.take_along_axis(weights.T, order, axis=1).copy(),
            order, shift, np.zeros(n, np.int64), np.zeros(n, np.float32),
            np.minimum((weights > 0).sum(axis=0), k), terms,
        )  # fmt: skip
        return terms.T

    def ending(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions:
        """Where each sum ends."""
        gemm = layer.gemm
        terms = np.empty((gemm.n, gemm.m), np.int32)
        ended_terms(
            np.ascontiguousarray(rows[0].T), np.ascontiguousarray(state["weights"]),
            np.ascontiguousarray(state["order"]), state["shift"][0], state["prefix"],
            state["threshold"], state["falling"], terms,
        )  # fmt: skip
        depth = DepthDecisions(
            gemm=gemm,
            terms=np.ascontiguousarray(terms.T)[None],
            order=np.ascontiguousarray(state["order"].T),
            ended=state["ended"],
        )
        evidence = PartialSums(checks=int(terms.sum(dtype=np.int64)))
        return Decisions(layer=layer.name, gemm=gemm, depth=depth, evidence=evidence)

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "snapea", **asdict(self)}


def representatives(weights: np.ndarray, number: int) -> np.ndarray:
    """The largest weight, by magnitude, of each of so many groups of weights of like magnitude.

    Args:
        weights: `(k,)` of one filter.
        number: of groups; 0 gives none.

    Returns:
        `(number,)` int64 places, ascending.
    """
    if number == 0:
        return np.zeros(0, np.int64)
    by_size = np.argsort(-np.abs(weights), kind="stable")
    return np.sort(np.array([part[0] for part in np.array_split(by_size, number)]))


register(
    Technique(
        name="snapea",
        title="SnaPEA",
        axis="depth",
        word="skip",
        grain="output",
        rule="Each filter's products come in an order by the sign of its weights; a sum ends when "
        "it is below 0 and can only fall, or, predictive, when a first group of products says so.",
        evidence="the sign of partial sums",
        source="Akhlaghi et al., SnaPEA, ISCA 2018",
        policy=SnapeaReuse,
        units=("lanes", "sum_predictor"),
        trained="nothing; predictive: group and threshold of each filter are found on calibration "
        "inputs",
        published=("SnaPEA exact", "SnaPEA predictive", "SnaPEA"),
        choices={"mode": MODES, "loss": (0.001, 0.01, 0.03, 0.1), "largest_first": (False, True)},
        start={"mode": "exact", "loss": 0.01, "largest_first": True},
        own=("loss",),
    )
)
