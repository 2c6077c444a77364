"""The systolic array: the multiply-accumulate units."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerators.cost_table import CostTable
from accelerators.rules import ConfigError, choose, integer, one_of, quoted, show
from accelerators.units.unit import Design, Item, Unit, register_byte_pj

DATAFLOWS = ("weight_stationary", "output_stationary", "input_stationary")
"""Which operand stays in the array."""

FOLD_TIMINGS = ("sequential", "overlapped")
"""How consecutive folds of a product follow each other, see :class:`SystolicArray`."""

# What stays under each dataflow that designs may name: those above, and what a user registers.
_STAYS = dict(zip(DATAFLOWS, ("weights", "outputs", "inputs"), strict=True))


def register_dataflow(name: str, *, stays: str) -> None:
    """Let designs name a dataflow, as ``simulator.timing.dataflows.register`` does for its class.

    Args:
        name: in :attr:`SystolicArray.dataflow`.
        stays: the operand that stays in the array: ``"weights"``, ``"outputs"`` or ``"inputs"``.

    Raises:
        ConfigError: there is no such operand.
    """
    operands = ("weights", "outputs", "inputs")
    if stays not in operands:
        raise ConfigError(
            f"register_dataflow.stays must be {quoted(operands)}, got {show(stays, str)}; "
            f"{choose(stays, operands)}"
        )
    _STAYS[name] = stays


def _dataflows() -> tuple[str, ...]:
    return tuple(_STAYS)


def _fold_timings() -> tuple[str, ...]:
    return FOLD_TIMINGS


@dataclass(frozen=True, kw_only=True)
class SystolicArray(Unit):
    """A grid of multiply-accumulate units; each holds a weight, an activation and a partial sum.

    Attributes:
        rows: units along the reduction dimension, 1 to 4096.
        columns: units along the output dimension, 1 to 4096.
        dataflow: which operand stays, ``"weight_stationary"``, ``"output_stationary"`` or
            ``"input_stationary"``, or a name under :func:`register_dataflow`.
        fold_timing: ``"sequential"``: a fold starts when the one before has left the array, and a
            partial fold costs a full one, as SCALE-Sim counts. ``"overlapped"``, this project's
            own model: a second register a unit takes the next fold's stationary operand while the
            array works, results leave while the next fold starts, and a partial fold costs what it
            uses.
    """

    words = "systolic array"
    colour = "#4178be"

    rows: int = field(metadata=integer(1, 4096))
    columns: int = field(metadata=integer(1, 4096))
    dataflow: str = field(default="weight_stationary", metadata=one_of(_dataflows))
    fold_timing: str = field(default="sequential", metadata=one_of(_fold_timings))

    def bill(self, design: Design) -> list[Item]:
        """A multiply-accumulator and its registers a unit."""
        units = self.rows * self.columns
        return [
            Item(
                units,
                "int_mac",
                {"bits": design.operand_bits, "adder_bits": design.accumulator_bits},
            ),
            Item(units, "register", {"bits": self._register_bits(design)}),
        ]

    def prices(self, design: Design, table: CostTable) -> dict[str, float]:
        """``mac``: one multiply-accumulate without its registers; ``register_byte``: one byte read
        from or written to a register of a unit."""
        return {
            "mac": table.energy_pj(
                "int_mac", "mac", bits=design.operand_bits, adder_bits=design.accumulator_bits
            ),
            "register_byte": register_byte_pj(table),
        }

    def _register_bits(self, design: Design) -> int:
        """Two operands and a partial sum; overlapped folds double the one that stays."""
        operand, accumulator = design.operand_bits, design.accumulator_bits
        stays = accumulator if _STAYS[self.dataflow] == "outputs" else operand
        return 2 * operand + accumulator + (stays if self.fold_timing == "overlapped" else 0)
