"""Matching: a tile's vectors are compared with their neighbours, and members are summed up."""

import numpy as np

from accelerators import ConfigError, NeighbourMatcher
from simulator.decisions.evidence import Neighbours
from simulator.timing.stages.looking import Comparing
from simulator.timing.stages.stage import register
from simulator.timing.transfers import ceil_div


@register
class Matching(Comparing):
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
    def evidence(self) -> Neighbours:
        """The layer's comparisons."""
        return self._evidence(Neighbours, deciding="compare neighbours", policy="NeighbourReuse")

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
        broken += self._means_problems()
        if broken:
            raise ConfigError(broken)

    @property
    def comparisons(self) -> np.ndarray:
        """`(count, v, tiles)` int64, with neighbours."""
        return self.evidence.comparisons

    @property
    def paced(self) -> tuple[np.ndarray, np.ndarray]:
        """What takes longer of comparing and entering, and handing on what is still open."""
        compared = ceil_div(self.comparisons * self.steps, self.unit.lanes)
        cycles = np.maximum(compared, self.shared.looks.vectors * self.steps)
        if self.averages:
            still_open = np.minimum(self.shared.clusters, self.evidence.reach).astype(np.int64)
            cycles = cycles + still_open * self.steps
        return cycles, np.zeros_like(cycles)

    @property
    def done(self) -> dict[str, np.ndarray]:
        """Tests, and entries of the line buffer."""
        return {
            "test": self.comparisons,
            "read_line": self.comparisons * self.steps,
            "write_line": self.shared.looks.vectors * self.steps,
        }
