"""Matching: a tile's vectors are compared with their neighbours, and members are summed up."""

from functools import cached_property, partial

import numpy as np

from accelerators import ConfigError, NeighbourMatcher
from simulator.decisions.evidence import Neighbours
from simulator.decisions.rows import SharedRows
from simulator.timing.passes import passes_of
from simulator.timing.stages.stage import Counts, Stage, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import ceil_div, port_cycles, vector_bytes


@register
class Matching(Stage):
    """Vectors enter one after the other while lanes compare them with the neighbours kept.

    A comparison takes a lane a cycle for each `width` elements, and so does a vector that enters;
    lanes are busy with whatever vectors have neighbours left, so that none idles before the last.
    A vector and what is read of the sums that it joins, or of those that are handed on, take the
    table of means once in that time; what is still open at the end of a tile, at most as many
    clusters as the farthest neighbour is vectors away, is handed on after it.

    Not modelled: conflicts of the line buffer's banks.
    """

    units = ("neighbour_matcher",)
    track = "matching"

    @property
    def unit(self) -> NeighbourMatcher:
        """The unit."""
        unit = self.accelerator.neighbour_matcher
        assert unit is not None
        return unit

    @property
    def shared(self) -> SharedRows:
        """The layer's rows."""
        assert self.left.decisions is not None
        return self.left.decisions.shared

    @property
    def evidence(self) -> Neighbours:
        """The layer's comparisons."""
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if not isinstance(evidence, Neighbours):
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must compare neighbours for a "
                f"neighbour matcher to work, got {evidence.words}; decide with NeighbourReuse"
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
        """The line buffer reaches back to every neighbour, and means are taken where decided."""
        reach, unit, broken = self.evidence.reach, self.unit, []
        needed = reach * int(self.steps.max())
        if unit.line_entries < needed:
            broken.append(
                "Accelerator.neighbour_matcher.line_entries must hold the vectors back to the "
                f"farthest neighbour in layer {self.left.layer.name!r}, {reach} of up to "
                f"{int(self.shared.widths.max())} elements, {unit.width} an entry, got "
                f"{unit.line_entries}; use {needed} or more, smaller tiles or a smaller block"
            )
        if self.averages and not unit.means:
            broken.append(
                "Accelerator.neighbour_matcher.means must be True for clusters that take their "
                f"mean, as in layer {self.left.layer.name!r}, got False; change it, or decide "
                "with representative='first'"
            )
        if broken:
            raise ConfigError(broken)

    def work(self, tiles: Tiles) -> Work:
        """What takes longest of comparing, entering and reading sets the pace."""
        cut, looked = passes_of(tiles), self.shared.looks.vectors[None]
        compared = ceil_div(self.evidence.comparisons * self.steps, self.unit.lanes)
        cycles = np.maximum(compared, looked * self.steps)
        if self.averages:
            still_open = np.minimum(self.shared.clusters, self.evidence.reach).astype(np.int64)
            cycles = cycles + still_open * self.steps
        matching = cut.of_tile(cycles) * tiles.looked
        vectors = vector_bytes(self.shared, self.accelerator)[None]
        vector_reads = cut.of_tile(vectors) * tiles.looked
        reading = port_cycles(vector_reads, self.accelerator.activation_buffer)
        return Work(
            limits={"neighbour_matcher": matching, "activation_buffer": reading},
            latency_cycles=self.unit.latency_cycles * tiles.looked,
            busy_cycles={"neighbour_matcher": matching},
            actions=partial(self._actions, tiles, vector_reads),
        )

    def _actions(self, tiles: Tiles, vector_reads: np.ndarray) -> Counts:
        shared, comparisons = self.shared, self.evidence.comparisons
        times, widths = passes_of(tiles).times_looked, shared.widths[:, None]
        vectors = np.broadcast_to(shared.looks.vectors, comparisons.shape)
        clusters = shared.clusters.astype(np.int64)

        def total(values: np.ndarray) -> int:
            return times * int(values.sum())

        entered = total(vectors * self.steps)
        counts = {
            # A vector's squared length is one more product.
            "correlate": total((comparisons + vectors) * widths),
            "test": total(comparisons),
            "read_line": total(comparisons * self.steps),
            "write_line": entered,
        }
        if self.averages:
            counts |= {
                # All but a cluster's first member read its sum; it is read once more to hand it on.
                "read_sums": entered,
                "write_sums": entered,
                "accumulate": total((vectors - clusters) * widths),
                "divide": total(clusters * widths),
            }
        return {
            **{("neighbour_matcher", name): count for name, count in counts.items()},
            ("activation_buffer", "read_byte"): tiles.total(vector_reads),
        }
