"""The array with weight tables: activations are summed by their weights, then multiplied."""

from functools import partial
from typing import Any

import numpy as np

from accelerators import ConfigError, WeightTables
from accelerators.rules import refuse
from simulator.decisions.weights import WeightPlan
from simulator.timing.stages.array import Multiplying
from simulator.timing.stages.stage import Counts, Work, register
from simulator.timing.tiles import Tiles, cut
from simulator.timing.tiling import Tiling
from simulator.timing.transfers import access_bytes, banked_cycles, byte_count, ceil_div


@register
class Factorised(Multiplying):
    """Columns of units work tables off, a block of columns each, a row of the layer in each unit.

    A fold is as many rows as the array has, and as many blocks of the plan as it has columns; it
    takes as long as the longest table of its blocks (`WeightPlan.cycles`: an operand of a sum a
    cycle, and beside it a multiplication). A table is read once for all units of its column; each
    unit reads its own activations, one by one, from the banks of the activation buffer
    (`banked_cycles`), and writes its results one by one.

    Not modelled: units of a column whose banks are never the same, as they lag behind one another.
    """

    units = ("weight_tables",)

    @property
    def unit(self) -> WeightTables:
        """The unit."""
        unit = self.accelerator.weight_tables
        assert unit is not None
        return unit

    @property
    def plan(self) -> WeightPlan:
        """What the tables say."""
        made = self.left.decisions
        if made is None or made.weights is None:
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must plan rows that are not shared "
                "for weight tables to sum, got other decisions; do not ask for the unit"
            )
        return made.weights

    def check(self) -> None:
        """The tables' blocks, and the sums that they keep, fit the units."""
        plan, unit, name = self.plan, self.unit, self.left.layer.name
        broken = [
            f"Accelerator.weight_tables.{field} must hold the {needed} {what} of layer {name!r}, "
            f"got {held}; use {needed} or more"
            for field, needed, held, what in (
                ("filters", plan.filters, unit.filters, "columns of a block"),
                ("sums", int(plan.kept_sums.max()), unit.sums, "sums that are kept"),
            )
            if held < needed
        ]
        columns = self.accelerator.array.columns
        if columns % plan.filters and columns < plan.gemm.n:
            broken.append(
                f"Accelerator.array.columns must be a multiple of the {plan.filters} columns of a "
                f"block of layer {name!r}, got {columns}; use {columns - columns % plan.filters}"
            )
        refuse(broken)

    def work(self, tiles: Tiles) -> Work:
        """Folds of rows and tables."""
        plan, accelerator = self.plan, self.accelerator
        array, weights = accelerator.array, accelerator.weight_buffer
        activations = accelerator.activation_buffer
        folds = ceil_div(tiles.m, array.rows)
        cycles = folds * self._of_tiles(tiles, plan.cycles, folded=True)
        inputs = tiles.m * self._of_tiles(tiles, plan.inputs)
        tables = access_bytes(
            plan.table_bits(accelerator.operand_bits), weights.width_bits, 1, weights
        )
        outputs = tiles.m * tiles.n
        moved = (
            access_bytes(inputs, 1, accelerator.operand_bits, activations),
            folds * self._of_tiles(tiles, tables),
            access_bytes(outputs, 1, accelerator.accumulator_bits, accelerator.output_buffer),
            0,
        )
        limits = self.port_limits(tiles, *moved)
        needed = inputs * ceil_div(accelerator.operand_bits, activations.width_bits)
        limits["activation_buffer"] = banked_cycles(
            needed, activations.ports, array.rows * array.columns
        )
        return Work(
            limits={"array": cycles, **limits},
            busy_cycles={"array": cycles, "weight_tables": cycles},
            actions=partial(self._sums, tiles, moved),
        )

    def _of_tiles(self, tiles: Tiles, counts: np.ndarray, *, folded: bool = False) -> np.ndarray:
        """`(1 or count, row tiles, column tiles)` or the other way round, of a number that every
        block has: its sum over a tile's blocks, or over their folds the largest of each."""
        cut_by, columns = tiles.cut, self.accelerator.array.columns
        assert isinstance(cut_by, Tiling)
        blocks = ceil_div(cut(self.left.n, cut_by.columns), self.plan.filters)
        ends = np.cumsum(blocks)
        found = []
        for first, end in zip(ends - blocks, ends, strict=True):
            if folded:
                starts = np.arange(first, end, columns)
                each = np.maximum.reduceat(counts[:, :end], starts, axis=1)
            else:
                each = counts[:, first:end]
            found.append(each.sum(axis=1))
        of_columns = np.stack(found, axis=1)
        return of_columns[:, None, :] if cut_by.rows_outermost else of_columns[:, :, None]

    def _sums(self, tiles: Tiles, moved: tuple[Any, ...]) -> Counts:
        plan, accelerator = self.plan, self.accelerator
        counts = dict(self._actions(tiles, *moved))
        del counts["array", "mac"]
        rows = plan.gemm.m
        done = {
            name: rows * int(getattr(plan, name).sum())
            for name in ("multiplies", "sum_adds", "inputs", "sum_reads", "kept_sums", "steps")
        }
        # An activation is written and read; a sum read and written for each operand; a product's
        # sum read, and its result read and written; results leave.
        sums = 2 * done["steps"] + 3 * done["multiplies"] + tiles.total(tiles.m * tiles.n)
        bits = 2 * accelerator.operand_bits * done["inputs"] + accelerator.accumulator_bits * sums
        counts["array", "register_byte"] = byte_count(bits, 1)
        counts["weight_tables", "address"] = done["inputs"]
        counts["weight_tables", "add"] = done["sum_adds"]
        counts["weight_tables", "multiply"] = done["multiplies"]
        if done["kept_sums"]:
            counts["weight_tables", "read_sum"] = done["sum_reads"]
            counts["weight_tables", "write_sum"] = done["kept_sums"]
        return counts
