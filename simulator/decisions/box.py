"""The decisions on one layer: what is taken off its box of m x n x k multiplications."""

from dataclasses import dataclass, field, replace

from accelerators import ConfigError
from simulator.decisions.columns import ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.evidence import Evidence, Signatures, Static
from simulator.decisions.rows import RowDecisions, SharedRows
from workloads.traces.layer import Gemm


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What a policy decided on one layer, made once and read by accuracy, timing and cost.

    Rows are reduced first, then columns, then depth: each sees the box that the one before left.

    Attributes:
        layer: name of the layer.
        gemm: its shape.
        rows: what becomes of rows, `None` where all are computed.
        columns: what becomes of columns, likewise.
        depth: how far sums go, likewise.
        evidence: what had to be looked at to know it.
    """

    layer: str
    gemm: Gemm
    rows: RowDecisions | None = None
    columns: ColumnDecisions | None = None
    depth: DepthDecisions | None = None
    evidence: Evidence = field(default_factory=Static)

    def __post_init__(self) -> None:
        """What hardware is priced by must be what was decided."""
        parts = (self.rows, self.columns, self.depth)
        for part in parts:
            if part is not None and part.gemm != self.gemm:
                raise ConfigError(
                    f"decisions of layer {self.layer!r} must be of its shape {self.gemm}, got "
                    f"{part.gemm}; decide on this layer"
                )

    @property
    def units(self) -> tuple[str, ...]:
        """Fields of an `Accelerator` that do what was decided, those that look first."""
        rows = () if self.rows is None else self.rows.units
        return tuple(dict.fromkeys((*self.evidence.units, *rows)))

    @property
    def macs(self) -> int:
        """Multiplications left to the array."""
        return self.gemm.macs if self.rows is None else self.rows.macs

    @property
    def remaining_ratio(self) -> float:
        """Fraction of the multiplications left; of shared rows, of the sub-vectors (r_c)."""
        ratio = 1.0
        for part in (self.rows, self.columns, self.depth):
            ratio *= 1.0 if part is None else part.remaining_ratio
        return ratio

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
            ConfigError: see `Signatures.check`.
        """
        if isinstance(self.evidence, Signatures):
            where = f"decisions of layer {self.layer!r}"
            self.evidence.check(where, self.shared.clusters)

    def without_operands(self) -> "Decisions":
        """The decisions as timing and cost need them."""
        return replace(self, rows=None if self.rows is None else self.rows.without_operands())
