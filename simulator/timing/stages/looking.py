"""What stages share that look at a tile's vectors, and that compare them one after the other."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TypeVar

import numpy as np

from accelerators import ConfigError, LeaderTable, NeighbourMatcher
from simulator.decisions.evidence import Evidence
from simulator.decisions.rows import SharedRows
from simulator.timing.passes import passes_of
from simulator.timing.stages.stage import Counts, Stage, Work
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import ceil_div, port_cycles, vector_bytes

Asked = TypeVar("Asked", bound=Evidence)


class Looking(Stage):
    """Vectors are read from the activation buffer, in every pass that looks at them."""

    @property
    def shared(self) -> SharedRows:
        """The layer's rows."""
        assert self.left.decisions is not None
        return self.left.decisions.shared

    def vector_reads(self, tiles: Tiles) -> np.ndarray:
        """int64, bytes of the accesses that read vectors; broadcasts to the tiles."""
        read = vector_bytes(self.shared, self.accelerator)[None]
        return passes_of(tiles).of_tile(read) * tiles.looked


class Comparing(Looking):
    """One unit compares each vector with others of its tile, and sums up the members of a cluster.

    A lane of it takes `width` elements of a comparison a cycle.
    """

    @property
    @abstractmethod
    def unit(self) -> LeaderTable | NeighbourMatcher:
        """The unit."""

    @property
    @abstractmethod
    def comparisons(self) -> np.ndarray:
        """`(count, v, tiles)` int64, pairs of vectors that are compared."""

    @property
    @abstractmethod
    def paced(self) -> tuple[np.ndarray, np.ndarray]:
        """`(count, v, tiles)` int64 cycles for all vectors of a tile, and after them, while the
        next tile's come, for what is left of its sums; they broadcast."""

    @property
    @abstractmethod
    def done(self) -> Mapping[str, np.ndarray]:
        """Action -> `(count, v, tiles)` int64, how often the unit does what it alone has, when it
        looks."""

    def _evidence(self, kind: type[Asked], *, deciding: str, policy: str) -> Asked:
        """What the layer was decided by.

        Args:
            kind: what the unit works on.
            deciding: how, for messages.
            policy: by what, likewise.

        Raises:
            ConfigError: it was decided by something else.
        """
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if not isinstance(evidence, kind):
            raise ConfigError(
                f"decisions of layer {self.left.layer.name!r} must {deciding} for a "
                f"{self.unit.words} to work, got {evidence.words}; decide with {policy}"
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

    def _means_problems(self) -> list[str]:
        """Means are taken where they were decided on."""
        if self.unit.means or not self.averages:
            return []
        return [
            f"Accelerator.{self.units[0]}.means must be True for clusters that take their mean, "
            f"as in layer {self.left.layer.name!r}, got False; change it, or decide with "
            "representative='first'"
        ]

    def work(self, tiles: Tiles) -> Work:
        """What takes longer of the unit and of reading vectors sets the pace."""
        cut, name = passes_of(tiles), self.units[0]
        cycles, behind = self.paced
        comparing = cut.of_tile(cycles) * tiles.looked
        vector_reads = self.vector_reads(tiles)
        reading = port_cycles(vector_reads, self.accelerator.activation_buffer)
        return Work(
            limits={name: comparing, "activation_buffer": reading},
            latency_cycles=(self.unit.latency_cycles + cut.of_tile(behind)) * tiles.looked,
            busy_cycles={name: comparing},
            actions=partial(self._actions, tiles, vector_reads),
        )

    def _actions(self, tiles: Tiles, vector_reads: np.ndarray) -> Counts:
        vectors = self.shared.looks.vectors
        # A vector's squared length is one more product.
        products = (self.comparisons + vectors) * self.shared.widths[:, None]
        done = {"correlate": products, **self.done, **(self._summed if self.averages else {})}
        times, counted = passes_of(tiles).times_looked, self.comparisons.shape
        return {
            **{
                (self.units[0], action): times * int(np.broadcast_to(each, counted).sum())
                for action, each in done.items()
            },
            ("activation_buffer", "read_byte"): tiles.total(vector_reads),
        }

    @property
    def _summed(self) -> Mapping[str, np.ndarray]:
        """Action -> how often, of the table of sums."""
        widths, vectors = self.shared.widths[:, None], self.shared.looks.vectors
        clusters = self.shared.clusters.astype(np.int64)
        return {
            # All but a cluster's first member read its sum; it is read once more to hand it on.
            "read_sums": vectors * self.steps,
            "write_sums": vectors * self.steps,
            "accumulate": (vectors - clusters) * widths,
            "divide": clusters * widths,
        }
