"""Following: each of a tile's vectors is compared with the leaders so far."""

from functools import cached_property, partial

import numpy as np
from numba import njit

from accelerators import ConfigError, LeaderTable
from simulator.decisions.evidence import Leaders
from simulator.decisions.rows import SharedRows
from simulator.timing.passes import passes_of
from simulator.timing.stages.stage import Counts, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import ceil_div, port_cycles, vector_bytes


@register
class Following(Stage):
    """Vectors come one after the other: what one becomes decides what the next is compared with.

    A vector takes a step for each `width` of its elements and each turn of the lanes over what it
    is compared with, see `followed`, at least one; and no fewer cycles than let those before it be
    decided on. Its sum is read and written in that time. A cluster's sum is divided as it leaves,
    beside the comparisons; those that a tile has at its end, while the next one's vectors come.
    """

    units = ("leader_table",)
    track = "following"

    @property
    def unit(self) -> LeaderTable:
        """The unit."""
        unit = self.accelerator.leader_table
        assert unit is not None
        return unit

    @property
    def shared(self) -> SharedRows:
        """The layer's rows."""
        assert self.left.decisions is not None
        return self.left.decisions.shared

    @property
    def evidence(self) -> Leaders:
        """How many leaders there were at a time."""
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if not isinstance(evidence, Leaders):
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must follow leaders for a leader "
                f"table to work, got {evidence.words}; decide with LeaderReuse"
            )
        return evidence

    @property
    def averages(self) -> bool:
        """Whether members are summed up."""
        return self.shared.representative == "centroid"

    @cached_property
    def steps(self) -> np.ndarray:
        """`(v, 1)` int64, cycles that a lane takes for a comparison."""
        return ceil_div(self.shared.widths, self.unit.width)[:, None]

    def check(self) -> None:
        """There are as many leaders, as long, as was decided with, and means where decided."""
        unit, name, broken = self.unit, self.left.layer.name, []
        longest = int(self.shared.widths.max())
        for field, needed, what in (
            ("entries", self.evidence.entries, "leaders that layer {} was decided with"),
            ("max_length", longest, "elements of the vectors of layer {}"),
        ):
            held = getattr(unit, field)
            if held < needed:
                broken.append(
                    f"Accelerator.leader_table.{field} must hold the {needed} "
                    f"{what.format(repr(name))}, got {held}; use {needed} or more"
                )
        if self.averages and not unit.means:
            broken.append(
                "Accelerator.leader_table.means must be True for clusters that take their mean, "
                f"as in layer {name!r}, got False; change it, or decide with "
                "representative='first'"
            )
        if broken:
            raise ConfigError(broken)

    @cached_property
    def followed(self) -> tuple[np.ndarray, np.ndarray]:
        """`(count, v, tiles)` int64, cycles for all vectors, and what they are compared with."""
        return followed(self.shared, self.evidence.entries, self.unit)

    @property
    def dividing_cycles(self) -> np.ndarray:
        """`(v, 1)` int64, for each cluster."""
        if not self.averages:
            return np.zeros((len(self.shared.widths), 1), np.int64)
        return ceil_div(self.shared.widths, self.unit.divided_elements)[:, None]

    def work(self, tiles: Tiles) -> Work:
        """What takes longest of comparing, dividing and reading sets the pace."""
        cut = passes_of(tiles)
        comparing, _ = self.followed
        clusters, each = self.shared.clusters.astype(np.int64), self.dividing_cycles
        cycles = np.maximum(comparing, clusters * each)
        # The sums that are there when the last vector came.
        still_open = np.minimum(clusters, self.evidence.entries)
        behind = np.maximum(comparing + still_open * each - cycles, 0)
        following = cut.of_tile(cycles) * tiles.looked
        vectors = vector_bytes(self.shared, self.accelerator)[None]
        vector_reads = cut.of_tile(vectors) * tiles.looked
        reading = port_cycles(vector_reads, self.accelerator.activation_buffer)
        return Work(
            limits={"leader_table": following, "activation_buffer": reading},
            latency_cycles=(self.unit.latency_cycles + cut.of_tile(behind)) * tiles.looked,
            busy_cycles={"leader_table": following},
            actions=partial(self._actions, tiles, vector_reads),
        )

    def _actions(self, tiles: Tiles, vector_reads: np.ndarray) -> Counts:
        shared, (_, comparisons) = self.shared, self.followed
        times, widths = passes_of(tiles).times_looked, shared.widths[:, None]
        vectors = np.broadcast_to(shared.looks.vectors, comparisons.shape)
        clusters = shared.clusters.astype(np.int64)

        def total(values: np.ndarray) -> int:
            return times * int(values.sum())

        counts = {
            # A vector's squared length is one more product.
            "correlate": total((comparisons + vectors) * widths),
            "compare": total(comparisons),
            "judge": total(vectors),
            "keep": total((vectors + clusters) * widths),
        }
        if self.averages:
            entered = total(vectors * self.steps)
            counts |= {
                # All but a cluster's first member read its sum; it is read once more to hand it on.
                "read_sums": entered,
                "write_sums": entered,
                "accumulate": total((vectors - clusters) * widths),
                "divide": total(clusters * widths),
            }
        return {
            **{("leader_table", name): count for name, count in counts.items()},
            ("activation_buffer", "read_byte"): tiles.total(vector_reads),
        }


def followed(shared: SharedRows, entries: int, unit: LeaderTable) -> tuple[np.ndarray, np.ndarray]:
    """Cycles that all vectors take, and what they are compared with.

    A vector is compared with the `undecided` ones before it in its tile, and with the leaders among
    those before these, the latest `entries` of them.

    Returns:
        Cycles and comparisons, `(count, v, tiles)` int64 each.
    """
    cycles = np.zeros(shared.clusters.shape, np.int64)
    comparisons, looks = np.zeros_like(cycles), shared.looks
    # So that what comes `undecided + 1` vectors later knows what this one is.
    least = ceil_div(unit.latency_cycles, unit.undecided + 1)
    for index, view in np.ndindex(shared.clusters.shape[:2]):
        order, bounds = looks.orders[view // looks.segments]
        _follow(
            shared.ids[index, view], order, bounds,
            (entries, unit.undecided, unit.lanes),
            (int(ceil_div(shared.widths[view], unit.width)), least),
            cycles[index, view], comparisons[index, view],
        )  # fmt: skip
    return cycles, comparisons


@njit(cache=True, nogil=True)
def _follow(ids, order, bounds, sizes, pace, cycles, comparisons):
    """Fill in a view's `(tiles,)` cycles and comparisons.

    Args:
        ids: `(p,)` int32.
        order: `(vectors,)` int64, the vectors tile after tile.
        bounds: `(tiles + 1,)` int64, each tile's first of them.
        sizes: leaders held, vectors that wait to be decided on, lanes.
        pace: cycles of a turn, and of a vector at least.
        cycles: out.
        comparisons: out.
    """
    entries, undecided, lanes = sizes
    steps, least = pace
    for tile in range(cycles.size):
        known, first = 0, bounds[tile]
        for place in range(first, bounds[tile + 1]):
            decided = place - undecided - 1
            if decided >= first:
                known = max(known, ids[order[decided]] + 1)
            compared = min(known, entries) + min(place - first, undecided)
            turns = max(1, (compared + lanes - 1) // lanes)
            cycles[tile] += max(turns * steps, least)
            comparisons[tile] += compared
