"""Tilings: how a layer is cut by rows and columns, where its rows are not shared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.decisions.evidence import Differences
from simulator.decisions.weights import WeightPlan
from simulator.timing.choosing import AS_FAST, Way, least_traffic
from simulator.timing.dataflows.dataflow import dataflow_of, gemm_cycles
from simulator.timing.remaining import Remaining
from simulator.timing.tiles import Tiles, check_tiles, cut
from simulator.timing.transfers import Transfer, banked_cycles, byte_count, ceil_div, port_cycles

# Tilings that the closed form ranks best and that are then scheduled in full.
_TILINGS_SCHEDULED = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class _Operands:
    """Bytes of one product's inputs (not unfolded) and weights, and what the array computes; of
    products of several sizes, the largest."""

    m: int
    n: int
    k: int
    inputs: int
    weights: int

    @classmethod
    def of(cls, left: Remaining, accelerator: Accelerator) -> "_Operands":
        bits = accelerator.operand_bits
        return cls(
            m=left.m,
            n=left.n,
            k=left.k,
            inputs=byte_count(int(left.input_elements.max()), bits),
            weights=byte_count(int(left.weight_bits(bits, np.array([left.n])).max()), 1),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiling:
    """How a layer is cut, and in which order its tiles are worked on.

    Attributes:
        rows: of a tile, of m; or `(t,)` of many tilings, as the other two.
        columns: of a tile, of n. A tile has all of k.
        rows_outermost: whether all column tiles of a row tile come one after the other; else all
            row tiles of a column tile.
        sizes: of the layer's operands.
        accelerator: the design that the layer is cut for.
    """

    rows: Any
    columns: Any
    rows_outermost: Any
    sizes: _Operands
    accelerator: Accelerator

    def one(self, index: int) -> "Tiling":
        """One of many tilings."""
        return Tiling(
            rows=int(self.rows[index]),
            columns=int(self.columns[index]),
            rows_outermost=bool(self.rows_outermost[index]),
            sizes=self.sizes,
            accelerator=self.accelerator,
        )

    def tiles(self, left: Remaining) -> Tiles:
        """The layer's tiles, `(count, outer tiles, inner tiles)`."""
        sizes, products = self.sizes, left.products
        check_tiles(
            left.layer.gemm,
            products * ceil_div(sizes.m, self.rows) * ceil_div(sizes.n, self.columns),
        )
        row_cut, column_cut = cut(sizes.m, self.rows), cut(sizes.n, self.columns)
        # Row and column tile of each tile, as (1, outer, inner).
        by_row = (slice(None), slice(None), None) if self.rows_outermost else np.s_[:, None, :]
        rows = row_cut[None][by_row]
        by_column = np.s_[:, None, :] if self.rows_outermost else (slice(None), slice(None), None)
        columns = left.columns_of(column_cut)[by_column]
        copied = left.copied_columns(column_cut)[by_column]
        k: Any = left.k if len(left.elements) == 1 else left.elements[:, None, None]
        # Sizes of their own for each product, or one for all.
        m, n = np.broadcast_to(rows, (len(columns), *rows.shape[1:])), columns
        if left.computed_before is not None:
            m = left.computed_rows(row_cut)[by_row]
            n = columns * (m > 0)
        shape = (products, *np.broadcast_shapes(rows.shape, columns.shape)[1:])
        # Rows are looked at for their first column tile; of a dense layer nobody asks.
        looked = (
            1
            if left.decisions is None
            else (np.arange(column_cut.size) == 0).astype(np.int64)[None][by_column]
        )
        transfers = self._transfers(left, row_cut, by_column, columns, copied, shape)
        actions = {}
        if left.kept:
            # A product of which all is kept needs no weights.
            transfers[1].moved_bytes[~(m > 0).any(axis=(1, 2))] = 0
            bits, of_rows = self.accelerator.operand_bits, columns + copied
            kept = np.zeros(shape, np.int64)
            if left.updated_in_place:
                transfers[2].moved_bytes[...] = byte_count(m * of_rows, bits)
            else:  # what the batch before left is loaded, and stored beside what is computed
                kept[...] = byte_count((rows - m) * of_rows, bits)
                actions["output_buffer", "read_byte"] = int(kept.sum())
            transfers += (Transfer(kind="kept_results", moved_bytes=kept, buffer="output_buffer"),)
        tiles = Tiles(
            shape=shape,
            rows=rows,
            looked=looked,
            m=m,
            n=n,
            k=k,
            inputs="activation_buffer",
            sums="output_buffer",
            handed_rows=rows,
            handed_columns=columns,
            results=self._results(left, row_cut, rows, m),
            copied_rows=m if left.kept else rows,
            copied_columns=copied,
            transfers=transfers,
            actions=actions,
            cut=self,
        )
        if left.incremental is None:
            return tiles
        return self._of_differences(left, tiles, left.incremental.terms_of_tiles(row_cut)[by_row])

    def _transfers(
        self,
        left: Remaining,
        row_cut: np.ndarray,
        by_column: Any,
        columns: np.ndarray,
        copied: np.ndarray,
        shape: tuple[int, ...],
    ) -> tuple[Transfer, ...]:
        """What every tile moves: `inputs`, `weights`, `outputs`."""
        bits = self.accelerator.operand_bits
        again_inputs, again_weights, input_loads, weight_loads = loads(self)
        # Each row tile's share of the input, rounded so that they add up.
        whole = byte_count(left.input_elements, bits)[:, None]
        share = np.diff(np.concatenate([[0], np.cumsum(row_cut)]) * whole // left.m, axis=1)
        share = share * input_loads
        column_bits = left.weight_bits(bits, cut(left.n, self.columns))[by_column]
        each_weights = byte_count(column_bits, 1) * weight_loads
        inputs, weights = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        first, every = slice(0, 1), slice(None)
        if self.rows_outermost:
            rows = row_cut[None, :, None]
            inputs[:, :, every if again_inputs else first] = share[:, :, None]
            weights[:, every if again_weights else first] = each_weights
        else:
            rows = row_cut[None, None, :]
            inputs[:, every if again_inputs else first] = share[:, None, :]
            weights[:, :, every if again_weights else first] = each_weights
        outputs = np.empty(shape, np.int64)
        outputs[...] = byte_count(rows * (columns + copied), bits)
        return (
            Transfer(kind="inputs", moved_bytes=inputs, buffer="activation_buffer"),
            Transfer(kind="weights", moved_bytes=weights, buffer="weight_buffer"),
            Transfer(kind="outputs", moved_bytes=outputs, stored=True),
        )

    def _of_differences(self, left: Remaining, tiles: Tiles, terms: np.ndarray) -> Tiles:
        """The same with the elements of k that any row of a tile multiplies.

        Weights that nothing is multiplied by do not travel: where they are loaded once for all
        tiles, those are loaded that any row multiplies. The weights of one element of k for a
        tile's columns lie together, and take whole bursts. Inputs travel as they are packed.

        Args:
            left: with differences that are added to earlier results.
            tiles: as if all of k were multiplied.
            terms: elements of k that each tile multiplies; broadcasts to the tiles.
        """
        inputs, weights = tiles.transfers[:2]
        _, again, _, loaded = loads(self)
        burst = self.accelerator.dram.burst_bytes
        bits = self.accelerator.operand_bits
        each = ceil_div(byte_count(tiles.handed_columns, bits), burst) * burst
        assert left.incremental is not None and left.decisions is not None
        of_load = terms if again else left.incremental.terms_of_tiles(np.array([left.m]))[..., None]
        wanted = (of_load * each * loaded).astype(np.int64)
        np.minimum(weights.moved_bytes, wanted, out=weights.moved_bytes)
        evidence = left.decisions.evidence
        packed = evidence.stored_bits if isinstance(evidence, Differences) else None
        if packed is not None:
            stored = min(byte_count(packed, 1), self.sizes.inputs)
            inputs.moved_bytes[...] = inputs.moved_bytes * stored // self.sizes.inputs
        return replace(tiles, k=np.maximum(1, terms))

    def _results(
        self, left: Remaining, row_cut: np.ndarray, rows: np.ndarray, m: np.ndarray
    ) -> np.ndarray:
        """Results that each tile's rows are made of: a skipped row takes all that its entry names,
        a computed one its own."""
        unit = self.accelerator.address_list
        if not left.handed_out or unit is None:
            return m
        if unit.counted:
            return left.taken_results(row_cut).reshape(m.shape)
        return m + (rows - m) * unit.taps

    def best(self, runs: Sequence[Way]) -> Way:
        """The one with the least traffic, of those about as fast as the fastest."""
        return least_traffic(runs)

    def blame(
        self, tiles: Tiles, critical_cycles: dict[str, int], busy_cycles: int
    ) -> dict[str, int]:
        """Charge the array's cycles that only the cutting of rows costs to the buffer behind it.

        Every row tile fills and drains the array anew. Where all rows' partial sums do not fit
        half of the output buffer, that buffer is to blame; else the inputs' buffer, or the DRAM
        whose transfers the tiles hide: `activation_buffer`.
        """
        array, sizes = self.accelerator.array, self.sizes
        if not busy_cycles:
            return critical_cycles
        # All rows of a product that are computed, in one tile of each column tile's width.
        m = tiles.m.sum(axis=(1, 2))[:, None]
        columns = tiles.handed_columns.reshape(len(tiles.handed_columns), -1)
        k = tiles.k if isinstance(tiles.k, int) else tiles.k.max(axis=(1, 2))[:, None]
        one_tile, _ = gemm_cycles(array, m, columns, k)
        one_tile = int((one_tile * (m > 0) * (columns > 0)).sum()) * (tiles.shape[0] // len(m))
        moved = critical_cycles.get("array", 0) * max(0, busy_cycles - one_tile) // busy_cycles
        if not moved:
            return critical_cycles
        sums = byte_count(sizes.m * self.columns, self.accelerator.accumulator_bits)
        fits = sums <= self.accelerator.output_buffer.capacity_bytes // 2
        buffer = "activation_buffer" if fits else "output_buffer"
        return critical_cycles | {
            "array": critical_cycles["array"] - moved,
            buffer: critical_cycles.get(buffer, 0) + moved,
        }


def best_tilings(left: Remaining, accelerator: Accelerator) -> list[Tiles]:
    """The layer under the tilings that are worth scheduling in full.

    Tiles are taken by rows or by columns, in sizes whose partial sums fit half of the output
    buffer, so that sums never spill: a tile has all of k. In either order an operand is loaded once
    where all of it fits its buffer; the outer one also where its tile fits half of its buffer; else
    once per tile. Rows of a convolution's halo that two tiles share are counted once; an operand's
    tile that does not fit is loaded for every fold that streams it. The closed form `_estimate`
    ranks the tilings; the best by cycles, and the best by traffic of those about as fast, are
    taken.

    Raises:
        ConfigError: a buffer does not hold one tile, or the layer needs too many of them.
    """
    many = tilings(left, accelerator)
    lanes, depth = accelerator.lanes is not None, left.longest_sum is not None
    chosen: dict[int, None] = {}
    # Lanes work by themselves where depth is decided; where it is not, as they may.
    for apart in (False,) * (not lanes or not depth) + (True,) * lanes:
        cycles, moved = _estimate(many, left, apart=apart)
        by_cycles = np.lexsort((moved, cycles))
        by_bytes = np.lexsort((cycles, moved, cycles > AS_FAST * cycles.min()))
        chosen |= dict.fromkeys((*by_cycles[:_TILINGS_SCHEDULED], *by_bytes[:_TILINGS_SCHEDULED]))
    return [many.one(each).tiles(left) for each in chosen]


def tilings(left: Remaining, accelerator: Accelerator) -> Tiling:
    """Tilings worth trying, `(t,)` float64 and bool each.

    Column tiles of once, twice, four times ... the array's columns; for each the most rows that
    fit, fewer that keep the inputs in their buffer, halves and quarters of both, and m cut into
    one, two, four ... equal tiles. The last ones do not depend on a buffer, so that a larger buffer
    loses none of them. Rows that are handed out, or added to others, lie beside the results that
    they are made of, so half as many fit.
    """
    sizes = _Operands.of(left, accelerator)
    beside = left.handed_out or left.incremental is not None
    bits = accelerator.accumulator_bits * (2 if beside else 1)
    half = accelerator.output_buffer.capacity_bytes // 2
    inputs_half = accelerator.activation_buffer.capacity_bytes // 2
    resident_rows = max(1, sizes.m * inputs_half // max(1, sizes.inputs))
    columns, found = min(sizes.n, accelerator.array.columns), set()
    least = byte_count(columns, bits)
    if half < least:
        raise ConfigError(
            f"Accelerator.output_buffer.capacity_bytes must hold two rows of {columns} partial "
            f"sums{' and of what is made of them' * beside}, got {2 * half}; use "
            f"{2 * least} or more"
        )
    halved = {ceil_div(sizes.m, 1 << power) for power in range(sizes.m.bit_length())}
    while True:
        fitting = half // byte_count(columns, bits)
        if fitting < 1:
            break
        by_output = min(sizes.m, fitting)
        by_input = min(by_output, resident_rows)
        cut_rows = {ceil_div(size, part) for size in (by_output, by_input) for part in (1, 2, 4)}
        for size in cut_rows | {rows for rows in halved if rows <= fitting}:
            # Equal tiles: the last one is not left with a few rows.
            found.add((ceil_div(sizes.m, ceil_div(sizes.m, size)), columns))
        if columns == sizes.n:
            break
        columns = min(2 * columns, sizes.n)
    shapes = np.repeat(np.array(sorted(found, reverse=True), np.float64), 2, axis=0)
    return Tiling(
        rows=shapes[:, 0],
        columns=shapes[:, 1],
        rows_outermost=np.arange(len(shapes)) % 2 == 0,
        sizes=sizes,
        accelerator=accelerator,
    )


def loads(tiling: Tiling) -> tuple:
    """How operands travel under one tiling, or many.

    Returns:
        Whether inputs, and weights, are loaded again for every tile of the other operand; and how
        often a tile's inputs, and weights, are loaded for it: once where they stay in half of their
        buffer, else for every fold that streams them.
    """
    accelerator, sizes = tiling.accelerator, tiling.sizes
    input_room = accelerator.activation_buffer.capacity_bytes
    weight_room = accelerator.weight_buffer.capacity_bytes
    rows_outermost = np.asarray(tiling.rows_outermost)
    input_tile = np.ceil(sizes.inputs * tiling.rows / sizes.m)
    weight_tile = np.ceil(sizes.weights * tiling.columns / sizes.n)
    input_stays = (sizes.inputs <= input_room) | (input_tile <= input_room // 2)
    weight_stays = (sizes.weights <= weight_room) | (weight_tile <= weight_room // 2)
    again_inputs = (sizes.inputs > input_room) & ~(rows_outermost & input_stays)
    again_weights = (sizes.weights > weight_room) & ~(~rows_outermost & weight_stays)
    array = accelerator.array
    folds = dataflow_of(array).loads(array, tiling.rows, tiling.columns)
    return (
        again_inputs,
        again_weights,
        np.where(input_stays, 1, folds[0]),
        np.where(weight_stays, 1, folds[1]),
    )


def _estimate(tiling: Tiling, left: Remaining, *, apart: bool) -> tuple:
    """Cycles, and DRAM bytes, of many tilings, `(t,)` float64 each: no size overflows.

    The busier of array and DRAM sets the pace. Where it is the array, the first load and the last
    store are not hidden; where it is the DRAM, the last tile's product is not. Operands that are
    loaded once travel while the first tiles of the outer dimension are worked on, so these are
    taken apart from the rest. Every tile is taken to compute the same share of its rows, and of
    their products where units are lanes that work `apart`.
    """
    sizes, accelerator, computed_share = tiling.sizes, tiling.accelerator, left.computed_share
    bits, bandwidth = accelerator.operand_bits, accelerator.dram.bandwidth_bytes_per_cycle
    row_tiles, column_tiles = ceil_div(sizes.m, tiling.rows), ceil_div(sizes.n, tiling.columns)
    last_rows = sizes.m - tiling.rows * (row_tiles - 1)
    last_columns = sizes.n - tiling.columns * (column_tiles - 1)
    array = np.zeros(len(tiling.rows))
    for rows, many_rows in ((tiling.rows, row_tiles - 1), (last_rows, 1)):
        computed = rows if computed_share == 1 else np.ceil(rows * computed_share)
        for columns, many_columns in ((tiling.columns, column_tiles - 1), (last_columns, 1)):
            if left.decisions is not None and left.decisions.weights is not None:
                plan = left.decisions.weights
                last_tile = _tables_occupancy(accelerator, plan, computed, columns)
            elif apart:
                last_tile = _lanes_occupancy(accelerator, left, computed * columns)
            else:
                last_tile = _occupancy(accelerator, computed, columns, sizes.k)
            array += many_rows * many_columns * last_tile
    again_inputs, again_weights, input_loads, weight_loads = loads(tiling)
    inputs, weights = sizes.inputs * input_loads, sizes.weights * weight_loads
    outputs = byte_count(sizes.m * sizes.n, bits)
    moved = inputs * np.where(again_inputs, column_tiles, 1)
    moved = moved + weights * np.where(again_weights, row_tiles, 1) + outputs
    outer, inner = (
        np.where(tiling.rows_outermost, one, other)
        for one, other in ((row_tiles, column_tiles), (column_tiles, row_tiles))
    )
    # The first outer tile: all of the inner operand, one tile of the outer one.
    inner_bytes = np.where(tiling.rows_outermost, weights, inputs)
    outer_again = np.where(tiling.rows_outermost, again_inputs, again_weights)
    outer_tile = np.where(tiling.rows_outermost, inputs / row_tiles, weights / column_tiles)
    first = inner_bytes + outer_tile * np.where(outer_again, inner, 1) + outputs / outer
    load = inputs / row_tiles + weights / column_tiles
    store = byte_count(last_rows * last_columns, bits)
    start = np.maximum(array / outer + load / bandwidth, first / bandwidth)
    rest = np.maximum(array - array / outer + store / bandwidth, (moved - first) / bandwidth)
    return np.maximum(start + rest, moved / bandwidth + last_tile), moved


def _occupancy(accelerator: Accelerator, rows, columns, k: int):
    """Cycles that a tile holds the array, its buffers' ports included."""
    dataflow = dataflow_of(accelerator.array)
    inputs, weights, sum_writes, sum_reads = dataflow.product_bytes(
        accelerator,
        rows,
        columns,
        k,
        inputs=accelerator.activation_buffer,
        sums=accelerator.output_buffer,
    )
    return np.maximum.reduce(
        [
            dataflow.cycles(accelerator.array, rows, columns, k)[0],
            port_cycles(inputs, accelerator.activation_buffer),
            port_cycles(weights, accelerator.weight_buffer),
            port_cycles(sum_writes + sum_reads, accelerator.output_buffer),
        ]
    )


def _lanes_occupancy(accelerator: Accelerator, left: Remaining, outputs):
    """Cycles that outputs hold independent lanes; of different depth, about: when the last one is
    begun, half of the longest sum is left on average."""
    array, activations = accelerator.array, accelerator.activation_buffer
    lanes, products = array.rows * array.columns, outputs * left.mean_sum
    each = ceil_div(outputs, lanes) * left.mean_sum
    if left.longest_sum is not None and left.mean_sum < left.longest_sum:
        each = products / lanes + left.longest_sum / 2
    return np.maximum.reduce(
        [
            each,
            banked_cycles(products, activations.ports, lanes),
            port_cycles(products * accelerator.operand_bits // 8, accelerator.weight_buffer),
            port_cycles(outputs * accelerator.accumulator_bits // 8, accelerator.output_buffer),
        ]
    )


def _tables_occupancy(accelerator: Accelerator, plan: WeightPlan, rows, columns):
    """Cycles that weight tables hold the array, all blocks taken to be as long as on average."""
    array, activations = accelerator.array, accelerator.activation_buffer
    folds = ceil_div(rows, array.rows)
    blocks = ceil_div(columns, plan.filters)
    tables = blocks * float(plan.table_bits(accelerator.operand_bits).mean()) / 8
    return np.maximum.reduce(
        [
            folds * ceil_div(blocks, array.columns) * float(plan.cycles.mean()),
            banked_cycles(
                rows * blocks * float(plan.inputs.mean()),
                activations.ports,
                array.rows * array.columns,
            ),
            port_cycles(folds * tables, accelerator.weight_buffer),
            port_cycles(rows * columns * accelerator.accumulator_bits, accelerator.output_buffer)
            / 8,
        ]
    )
