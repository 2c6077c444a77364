"""Following: each of a tile's vectors is compared with the leaders so far."""

from functools import cached_property

import numpy as np
from numba import njit

from accelerators import ConfigError, LeaderTable
from simulator.decisions.evidence import Leaders
from simulator.decisions.rows import SharedRows
from simulator.timing.stages.looking import Comparing
from simulator.timing.stages.stage import register
from simulator.timing.transfers import ceil_div


@register
class Following(Comparing):
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
    def evidence(self) -> Leaders:
        """How many leaders there were at a time."""
        return self._evidence(Leaders, deciding="follow leaders", policy="LeaderReuse")

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
        broken += self._means_problems()
        if broken:
            raise ConfigError(broken)

    @cached_property
    def followed(self) -> tuple[np.ndarray, np.ndarray]:
        """`(count, v, tiles)` int64, cycles for all vectors, and what they are compared with."""
        return followed(self.shared, self.evidence.entries, self.unit)

    @property
    def comparisons(self) -> np.ndarray:
        """`(count, v, tiles)` int64, with leaders, and with vectors that may become some."""
        return self.followed[1]

    @property
    def dividing_cycles(self) -> np.ndarray:
        """`(v, 1)` int64, for each cluster."""
        if not self.averages:
            return np.zeros((len(self.shared.widths), 1), np.int64)
        return ceil_div(self.shared.widths, self.unit.divided_elements)[:, None]

    @property
    def paced(self) -> tuple[np.ndarray, np.ndarray]:
        """What takes longer of comparing and dividing; then the sums that are there when the last
        vector came."""
        comparing, _ = self.followed
        clusters, each = self.shared.clusters.astype(np.int64), self.dividing_cycles
        cycles = np.maximum(comparing, clusters * each)
        still_open = np.minimum(clusters, self.evidence.entries)
        return cycles, np.maximum(comparing + still_open * each - cycles, 0)

    @property
    def done(self) -> dict[str, np.ndarray]:
        """Distances, and registers that are written."""
        shared = self.shared
        clusters = shared.clusters.astype(np.int64)
        return {
            "compare": self.comparisons,
            "judge": shared.looks.vectors,
            "keep": (shared.looks.vectors + clusters) * shared.widths[:, None],
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
