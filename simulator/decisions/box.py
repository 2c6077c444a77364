"""The decisions on one layer: what is taken off its box of m x n x k multiplications."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse
from simulator.decisions.columns import ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import (
    ArraySignatures,
    Evidence,
    Leaders,
    Neighbours,
    Signatures,
    Static,
)
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import rows_left
from simulator.decisions.rows import FilledRows, KeptRows, RowDecisions, SharedRows
from simulator.decisions.weights import WeightPlan
from workloads.traces.layer import Gemm


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What a policy decided on one layer, made once and read by accuracy, timing and cost.

    Rows are reduced first, then columns, then depth: each sees the box that the one before left.
    What is decided on columns and depth of rows that are not computed has no effect. What a second
    technique decides on the rows that a first one left is `then`, of a layer of these rows alone.

    Attributes:
        layer: name of the layer.
        gemm: its shape.
        rows: what becomes of rows, `None` where all are computed.
        columns: what becomes of columns, likewise.
        depth: how far sums go, likewise.
        weights: a plan by which activations are summed before they are multiplied, of all rows and
            columns; `None` for none. It changes no value.
        evidence: what had to be looked at to know it.
        then: what is decided on the rows that are left, of the product of as many rows; `None` for
            nothing. Rows must be filled, kept, or shared whole, and columns and depth are left to
            it.

    Raises:
        ConfigError: the parts are of another layer, or have no meaning together.
    """

    layer: str
    gemm: Gemm
    rows: RowDecisions | None = None
    columns: ColumnDecisions | None = None
    depth: DepthDecisions | None = None
    weights: WeightPlan | None = None
    evidence: Evidence = field(default_factory=Static)
    then: "Decisions | None" = None

    def __post_init__(self) -> None:
        """What hardware is priced by must be what was decided, and have a meaning together."""
        parts = (self.rows, self.columns, self.depth, self.weights)
        broken = [
            f"decisions of layer {self.layer!r} must be of its shape {self.gemm}, got "
            f"{part.gemm}; decide on this layer"
            for part in parts
            if part is not None and part.gemm != self.gemm
        ]
        refuse(broken)
        broken = [f"decisions of layer {self.layer!r} must {rule}" for rule in self._contradictions]
        refuse(broken)
        if self.then is not None:
            _check_nested(self, self.then)

    @property
    def _contradictions(self) -> list[str]:
        """What can't be decided together."""
        rows, columns = self.rows, self.columns
        groups = 1 if columns is None else columns.groups
        found = []
        if self.weights is not None and (rows, columns, self.depth) != (None, None, None):
            found.append(
                "plan by weights alone, got rows, columns or depth beside the plan; let the plan "
                "be the second of two techniques, on the rows that are left"
            )
        if columns is not None and columns.elements is not None:
            for what, other in (
                ("sharing rows", isinstance(rows, SharedRows)),
                ("depth", self.depth),
            ):
                if other:
                    found.append(
                        f"not leave out elements of rows beside {what}, got both; leave one out"
                    )
        match rows:
            case SharedRows():
                if self.depth is not None:
                    found.append(
                        "not end sums of rows that share them, got both rows and depth; leave the "
                        "depth out, or share no rows"
                    )
                if groups > 1 and rows.looks.tile_of is not None:
                    found.append(
                        f"have the same columns for all rows that share within tiles, got {groups} "
                        "runs with columns of their own; decide on columns for all rows"
                    )
                elif rows.groups % groups:
                    found.append(
                        f"share rows within runs of the same columns, got {groups} runs with "
                        f"columns of their own and {rows.groups} with clusters; cluster within "
                        "each run, or decide on columns for all rows"
                    )
            case FilledRows():
                if rows.images % groups:
                    found.append(
                        f"fill rows in from such with the same columns, got {groups} runs with "
                        f"columns of their own in {rows.images} images; decide on columns for "
                        "whole images"
                    )
            case IncrementalRows():
                if self.columns is not None or self.depth is not None or self.then is not None:
                    found.append(
                        "add differences to whole results, which columns or sums that end early "
                        "do not leave, got other parts beside rows; leave them out"
                    )
            case KeptRows() | None:
                pass
            case _:
                found.append(f"decide on rows in a known way, got {type(rows).__name__}; use one")
        return found

    @property
    def units(self) -> tuple[str, ...]:
        """Fields of an `Accelerator` that do what was decided, those that look first."""
        rows = () if self.rows is None else self.rows.units
        left = [unit for unit in rows if unit not in self.evidence.replaces]
        copying = ("reconstructor",) if self.columns is not None and self.columns.shares else ()
        then = () if self.then is None else self.then.units
        weights = () if self.weights is None else self.weights.units
        return tuple(dict.fromkeys((*self.evidence.units, *left, *copying, *weights, *then)))

    @cached_property
    def macs(self) -> int:
        """Multiplications left to the array: of computed rows, their computed columns' terms."""
        gemm, columns = self.gemm, self.columns
        if self.then is not None:
            return self.then.macs
        if self.weights is not None:
            return self.weights.macs
        if columns is None and self.depth is None:
            return gemm.macs if self.rows is None else self.rows.macs
        groups = 1 if columns is None else columns.groups
        if isinstance(self.rows, SharedRows):
            assert columns is not None
            shared = self.rows
            clusters = shared.new_clusters.sum(axis=0, dtype=np.int64)
            per_run = clusters.reshape(len(shared.widths), groups, -1).sum(axis=2)
            elements = shared.widths * shared.looks.taps_of_view
            return int((elements @ per_run) @ columns.computed)
        shape = (gemm.count, groups, gemm.m // groups, gemm.n)
        left = np.ones(shape[:3], bool) if self.rows is None else self.rows.is_computed
        left = left.reshape(shape[:3])
        if self.depth is None:
            assert columns is not None
            return int((left.sum(axis=2) @ (columns.computed * columns.multiplied)).sum())
        terms = np.broadcast_to(self.depth.terms, (gemm.count, gemm.m, gemm.n)).reshape(shape)
        own = np.ones((1, gemm.n), bool) if columns is None else columns.is_computed
        return int(np.einsum("igrn,igr,gn->", terms, left, own, dtype=np.int64))

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the multiplications left; of shared rows, of the sub-vectors (r_c)."""
        if (self.columns, self.depth, self.weights, self.then) == (None, None, None, None):
            return 1.0 if self.rows is None else self.rows.remaining_ratio
        return self.macs / self.gemm.macs

    @property
    def shared(self) -> SharedRows:
        """The rows, where they are shared.

        Raises:
            ConfigError: they are not.
        """
        if not isinstance(self.rows, SharedRows):
            raise ConfigError(
                f"decisions of layer {self.layer!r} must share rows, got "
                f"{type(self.rows).__name__}; decide with LshReuse"
            )
        return self.rows

    @property
    def signatures(self) -> Signatures:
        """The evidence, where it is signatures.

        Raises:
            ConfigError: it is not.
        """
        if not isinstance(self.evidence, Signatures):
            raise ConfigError(
                f"decisions of layer {self.layer!r} must have signatures, got "
                f"{self.evidence.words}; decide with LshReuse"
            )
        return self.evidence

    def check_claims(self) -> None:
        """Check that the evidence is what was decided.

        Raises:
            ConfigError: see `check` of `Signatures`, `Neighbours` and `Leaders`.
        """
        if isinstance(self.evidence, Signatures | ArraySignatures | Neighbours | Leaders):
            where = f"decisions of layer {self.layer!r}"
            self.evidence.check(where, self.shared.clusters)
        if self.then is not None:
            self.then.check_claims()

    def without_operands(self) -> "Decisions":
        """The decisions as timing and cost need them."""
        return replace(
            self,
            rows=None if self.rows is None else self.rows.without_operands(),
            then=None if self.then is None else self.then.without_operands(),
        )


def _check_nested(decisions: Decisions, then: Decisions) -> None:
    """What is decided next must be on what is left."""
    parts = (decisions.columns, decisions.depth, decisions.weights)
    if parts != (None, None, None) or decisions.rows is None:
        raise ConfigError(
            f"decisions of layer {decisions.layer!r} must leave columns and depth to what is "
            "decided on their rows, and decide on rows, got other parts beside it; decide on "
            "columns and depth there"
        )
    left = rows_left(decisions.layer, decisions.rows)
    m = left if isinstance(left, int) else len(left)
    wanted = (decisions.layer, m, decisions.gemm.n, decisions.gemm.k, decisions.gemm.count)
    found = (then.layer, then.gemm.m, then.gemm.n, then.gemm.k, then.gemm.count)
    if found != wanted:
        raise ConfigError(
            f"decisions of layer {decisions.layer!r} must be followed by such on rows that they "
            f"leave, (layer, m, n, k, count) = {wanted}, got {found}; decide on these rows"
        )
