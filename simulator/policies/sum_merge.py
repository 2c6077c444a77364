"""Merged sums: what several filters add up alike is added up once and kept (as SumMerge)."""

from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np

from accelerators.rules import integer, refuse, violations
from simulator.policies.technique import Technique, register
from simulator.policies.weight_plans import WeightPlanned, index_bits


@dataclass(frozen=True, kw_only=True, eq=False)
class SumGraph:
    """Which sums are made of which, for a block of columns.

    Attributes:
        parts: of each kept sum, the numbers of activations, or of earlier sums (k and more), that
            it adds up.
        labels: `(k + sums, columns)`, the weight with which each activation and kept sum goes into
            each column; 0 where it does not.
    """

    parts: list[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SumMerge(WeightPlanned):
    """Shares sums among filters in whatever order, unlike nested groups, and keeps them.

    Prabhakar et al., "SumMerge", ICS 2021, choose a graph of shared sums for each tile of filters
    offline; their heuristic was not found, and this one is ours: of every set of a block's filters,
    larger sets first, among equally large ones that which saves most, activations that have the
    same weights in all filters of the set are added up once, if that saves operands: s activations
    for q filters take s + q in place of s q. Then each filter sums what is left by its weights and
    multiplies each sum once. Exact: in integers bit for bit.

    Attributes:
        filters: columns of a block, 2 to 4.
        sums: kept for a block at most, 1 to 65536; the largest first.

    Raises:
        ConfigError: at construction, with every violated rule; at `calibrate`, where a layer's
            weights do not repeat.
    """

    filters: int = field(default=4, metadata=integer(2, 4))
    sums: int = field(default=256, metadata=integer(1, 65536))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "SumMerge"))

    @property
    def block_columns(self) -> int:
        """The filters."""
        return self.filters

    def graph(self, block: np.ndarray) -> SumGraph:
        """The sums of a `(k, columns)` block of weights."""
        filters = block.shape[1]
        labels, parts = block.astype(np.float64), list[np.ndarray]()
        for size in range(filters, 1, -1):
            waiting = list(combinations(range(filters), size))
            while waiting and len(parts) < self.sums:
                found = {each: _alike(labels, each) for each in waiting}
                best = max(waiting, key=lambda each: _saved(found[each], size))
                waiting.remove(best)
                groups = found[best][: self.sums - len(parts)]
                if not groups:
                    break
                made = np.zeros((len(groups), filters))
                for number, group in enumerate(groups):
                    made[number, best] = labels[group[0], best]
                    labels[np.ix_(group, np.array(best))] = 0
                parts += groups
                labels = np.concatenate([labels, made])
        return SumGraph(parts=parts, labels=labels)

    def counts(self, block: np.ndarray) -> dict[str, int]:
        """Of the sums that are shared, and those of each filter."""
        k = len(block)
        graph = self.graph(block)
        used = graph.labels != 0
        values = [np.unique(column[column != 0]).size for column in graph.labels.T]
        operands = np.concatenate([*graph.parts, np.nonzero(used)[0]]).astype(np.int64)
        sums = len(graph.parts)
        sum_reads = int(np.count_nonzero(operands >= k))
        return {
            "multiplies": sum(values),
            "sum_adds": len(operands) - sums - sum(values),
            "result_adds": sum(max(0, each - 1) for each in values),
            "inputs": len(operands) - sum_reads,
            "sum_reads": sum_reads,
            "kept_sums": sums,
            "steps": len(operands),
            "entries": len(operands),
            # An activation or sum, and whether a sum ends with it.
            "entry_bits": index_bits(k + sums) + 1,
            "listed": sum(values),
        }

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "sum_merge", **asdict(self)}


def _alike(labels: np.ndarray, filters: tuple[int, ...]) -> list[np.ndarray]:
    """Activations and sums with the same weights in all of these filters, none of them 0, where
    adding them up first saves operands; the largest groups first."""
    own = labels[:, filters]
    candidates = np.flatnonzero((own != 0).all(axis=1))
    codes = np.zeros(len(candidates), np.int64)
    for column in own[candidates].T:
        values, numbers = np.unique(column, return_inverse=True)
        codes = codes * len(values) + numbers
    order = np.argsort(codes, kind="stable")
    groups = np.split(candidates[order], np.flatnonzero(np.diff(codes[order])) + 1)
    shared = len(filters)
    worth = [each for each in groups if len(each) * shared > len(each) + shared]
    return sorted(worth, key=len, reverse=True)


def _saved(groups: list[np.ndarray], filters: int) -> int:
    """Additions that groups save."""
    return sum((len(group) - 1) * (filters - 1) for group in groups)


register(
    Technique(
        name="sum_merge",
        title="SumMerge",
        axis="weights",
        word="factorise",
        grain="row of a block of columns",
        rule="Sums of activations that several filters of a block take with equal weights are made "
        "once and kept; a greedy choice of ours. Static and exact.",
        evidence="none: the weights alone",
        source="Prabhakar et al., SumMerge, ICS 2021; the heuristic is this project's",
        policy=SumMerge,
        units=("weight_tables",),
        trained="nothing; weights of few values help, by quantisation or clustering",
        published=("SumMerge",),
        choices={"filters": (2, 3, 4), "sums": (16, 64, 256, 1024)},
        start={"filters": 4, "sums": 256},
        own=("filters",),
    )
)
