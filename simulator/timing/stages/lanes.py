"""The array as independent lanes: each sums one output, and takes the next when it is done."""

from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from accelerators import ConfigError, IndependentLanes
from accelerators.units.lanes import word_weights
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.rows import SharedRows
from simulator.kernels.scheduling import scheduled
from simulator.timing.stages.array import Multiplying
from simulator.timing.stages.stage import Counts, Work, register
from simulator.timing.tiles import Tiles, cut
from simulator.timing.tiling import Tiling
from simulator.timing.transfers import (
    Transfer,
    access_bytes,
    banked_cycles,
    byte_count,
    ceil_div,
)


@register
class Independent(Multiplying):
    """Lanes work on outputs of a tile, each at its own pace, a product a cycle.

    A tile's outputs are handed to lanes as `simulator.kernels.scheduling.scheduled` says; the next
    tile starts when the last lane is done. Where no depth is decided, sums are equally long, and
    the array may as well work in step, as an output-stationary array whose operands are shared:
    the layer does what is faster. Rows that share results are always multiplied so.

    Lanes that are not in step share nothing: a product reads an activation, alone, and a word of
    weights serves one lane for as many products. Each lane asks one bank of the activation buffer a
    cycle, see `banked_cycles`. An output is written to the output buffer once, alone, a skipped one
    too.

    Not modelled: lanes that meet at a bank of the weight buffer, for the next word is fetched while
    one is used; lanes that read the same activation at the same time.
    """

    units = ("lanes",)

    @property
    def unit(self) -> IndependentLanes:
        """The unit."""
        unit = self.accelerator.lanes
        assert unit is not None
        return unit

    @property
    def depth(self) -> DepthDecisions | None:
        """How far sums go."""
        return None if self.left.decisions is None else self.left.decisions.depth

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return self.accelerator.array.rows * self.accelerator.array.columns

    @cached_property
    def word(self) -> int:
        """Weights that a lane reads at once."""
        return word_weights(self.accelerator)

    def check(self) -> None:
        """An index reaches every element of an order."""
        depth, unit, k = self.depth, self.unit, self.left.layer.gemm.k
        if depth is None or depth.order is None or k <= 2**unit.index_bits:
            return
        raise ConfigError(
            f"Accelerator.lanes.index_bits must tell the k={k} elements of layer "
            f"{self.left.layer.name!r} apart, got {unit.index_bits}; use {(k - 1).bit_length()} or "
            "more"
        )

    def work(self, tiles: Tiles) -> Work:
        """Each lane by itself, or all in step where that is faster."""
        decisions = self.left.decisions
        # What lanes share in step comes to all at once: no skew.
        in_step = replace(super().work(tiles), latency_cycles=0)
        if decisions is not None and isinstance(decisions.rows, SharedRows):
            return in_step
        alone = self._alone(tiles)
        if self.depth is not None:
            return alone
        together, apart = (_occupancy(work, tiles) for work in (in_step, alone))
        # One of the two for the layer: which it is can't depend on what is only known as it runs.
        return in_step if together.sum() <= apart.sum() else alone

    def _alone(self, tiles: Tiles) -> Work:
        """Every lane at its own pace."""
        accelerator, depth = self.accelerator, self.depth
        outputs = tiles.m * tiles.n
        if depth is None:
            cycles = ceil_div(outputs, self.lanes) * tiles.k
            products, words = outputs * tiles.k, outputs * ceil_div(tiles.k, self.word)
        else:
            cycles, products, words = self._scheduled(tiles, depth)
        bits, weights = accelerator.operand_bits, accelerator.weight_buffer
        activations = accelerator.activation_buffer
        moved = (
            access_bytes(products, 1, bits, activations),
            words * (weights.width_bits // 8),
            access_bytes(outputs, 1, accelerator.accumulator_bits, accelerator.output_buffer),
            0,
        )
        limits = self.port_limits(tiles, *moved)
        needed = products * ceil_div(bits, activations.width_bits)
        limits["activation_buffer"] = banked_cycles(needed, activations.ports, self.lanes)
        orders = self._orders(tiles)
        return Work(
            limits={"array": cycles, **limits},
            busy_cycles={"array": cycles},
            transfers=orders,
            actions=partial(self._lane_actions, tiles, moved, words, orders),
        )

    def _scheduled(self, tiles: Tiles, depth: DepthDecisions) -> tuple[np.ndarray, ...]:
        """Cycles, products and words of weights of every tile, of the tiles' shape."""
        cut_by, left, gemm = tiles.cut, self.left, self.left.layer.gemm
        decisions = left.decisions
        assert isinstance(cut_by, Tiling) and decisions is not None
        computed = np.ones((1, left.m), bool)
        if decisions.rows is not None and not isinstance(decisions.rows, SharedRows):
            computed = decisions.rows.is_computed  # of whole products: these have no runs
        columns = np.ones((1, gemm.n), bool)
        if decisions.columns is not None:
            columns = np.tile(decisions.columns.is_computed, (gemm.count, 1))
        terms = np.broadcast_to(depth.terms, (gemm.count, gemm.m, gemm.n))
        found = scheduled(
            terms.reshape(left.products, left.m, gemm.n),
            computed,
            columns,
            (_bounds(left.m, cut_by.rows), _bounds(left.n, cut_by.columns)),
            self.lanes,
            self.word,
        )
        order = (0, 1, 2) if cut_by.rows_outermost else (0, 2, 1)
        return tuple(np.ascontiguousarray(each.transpose(order)) for each in found)

    def _orders(self, tiles: Tiles) -> tuple[Transfer, ...]:
        """Indices that travel: those of a column beside its weights, or one order for all."""
        depth = self.depth
        if depth is None or depth.order is None:
            return ()
        bits = self.unit.index_bits
        if depth.order.ndim == 1:
            moved = np.zeros(tiles.shape, np.int64)
            moved.flat[0] = byte_count(len(depth.order), bits)
        else:
            weights = next(each for each in tiles.transfers if each.kind == "weights")
            elements = ceil_div(8 * weights.moved_bytes, self.accelerator.operand_bits)
            moved = byte_count(elements, bits)
        return (Transfer(kind="orders", moved_bytes=moved),)

    def _lane_actions(
        self, tiles: Tiles, moved: tuple[Any, ...], words: Any, orders: tuple[Transfer, ...]
    ) -> Counts:
        counts = dict(self._actions(tiles, *moved))
        bits = self.accelerator.operand_bits, self.accelerator.accumulator_bits
        # A product writes and reads two operands, and reads and writes its sum; a sum leaves once.
        registers = self.left.macs * (4 * bits[0] + 2 * bits[1])
        registers += tiles.total(tiles.m * tiles.n) * bits[1]
        counts["array", "register_byte"] = byte_count(registers, 1)
        counts["lanes", "address"] = self.left.macs
        if orders:
            loaded = sum(8 * int(each.moved_bytes.sum()) for each in orders)
            counts["lanes", "read_order"] = tiles.total(words)
            counts["lanes", "write_order"] = ceil_div(loaded, self.unit.index_bits * self.word)
        return counts


def _bounds(total: int, size: int) -> np.ndarray:
    """Where consecutive tiles begin, and where the last ends."""
    return np.concatenate([[0], np.cumsum(cut(total, size))])


def _occupancy(work: Work, tiles: Tiles) -> np.ndarray:
    """Cycles of each tile, whatever sets them."""
    slowest = np.zeros(tiles.shape, np.int64)
    for cycles in work.limits.values():
        np.maximum(slowest, cycles, out=slowest)
    return slowest
