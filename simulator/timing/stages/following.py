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

    A vector takes a step for each `width` of its elements and each turn of the lanes over the
    leaders that are held when it comes, at least one; its sum is read and written in that time. A
    cluster's sum is divided as it leaves, beside the comparisons.

    Not modelled: that the last clusters of a tile are divided while the next one's vectors come.
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
    def turns(self) -> np.ndarray:
        """`(count, v, tiles)` int64, turns of the lanes over leaders, for all vectors."""
        return turns_of(self.shared, self.evidence.entries, self.unit.lanes)

    @cached_property
    def comparisons(self) -> np.ndarray:
        """`(count, v, tiles)` int64, vectors compared with leaders."""
        compared = turns_of(self.shared, self.evidence.entries, 1)
        # The first vector of a tile has none to be compared with, but takes its turn.
        return compared - (self.shared.looks.vectors > 0)

    def work(self, tiles: Tiles) -> Work:
        """What takes longest of comparing, dividing and reading sets the pace."""
        cut = passes_of(tiles)
        cycles = self.turns * self.steps
        if self.averages:
            each = ceil_div(self.shared.widths, self.unit.divided_elements)[:, None]
            cycles = np.maximum(cycles, self.shared.clusters * each)
        following = cut.of_tile(cycles) * tiles.looked
        vectors = vector_bytes(self.shared, self.accelerator)[None]
        vector_reads = cut.of_tile(vectors) * tiles.looked
        reading = port_cycles(vector_reads, self.accelerator.activation_buffer)
        return Work(
            limits={"leader_table": following, "activation_buffer": reading},
            latency_cycles=self.unit.latency_cycles * tiles.looked,
            busy_cycles={"leader_table": following},
            actions=partial(self._actions, tiles, vector_reads),
        )

    def _actions(self, tiles: Tiles, vector_reads: np.ndarray) -> Counts:
        shared, comparisons = self.shared, self.comparisons
        times, widths = passes_of(tiles).times_looked, shared.widths[:, None]
        vectors = np.broadcast_to(shared.looks.vectors, comparisons.shape)
        clusters = shared.clusters.astype(np.int64)

        def total(values: np.ndarray) -> int:
            return times * int(values.sum())

        counts = {
            # A vector's squared length is one more product.
            "correlate": total((comparisons + vectors) * widths),
            "test": total(comparisons),
            "lead": total(clusters * widths),
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


def turns_of(shared: SharedRows, entries: int, lanes: int) -> np.ndarray:
    """`(count, v, tiles)` int64, turns that lanes take over the leaders held, for all vectors.

    A vector is compared with the leaders that its tile has found before it, the latest `entries` of
    them, `lanes` in a turn; a tile's first vector takes a turn as well.
    """
    found = np.zeros(shared.clusters.shape, np.int64)
    looks = shared.looks
    for index, view in np.ndindex(shared.clusters.shape[:2]):
        order, bounds = looks.orders[view // looks.segments]
        _turns(shared.ids[index, view], order, bounds, entries, lanes, found[index, view])
    return found


@njit(cache=True, nogil=True)
def _turns(ids, order, bounds, entries, lanes, found):
    """Fill in a view's `(tiles,)` turns."""
    for tile in range(found.size):
        known = np.int64(0)
        for place in range(bounds[tile], bounds[tile + 1]):
            held = min(known, np.int64(entries))
            found[tile] += max(np.int64(1), (held + lanes - 1) // lanes)
            known = max(known, np.int64(ids[order[place]]) + 1)
