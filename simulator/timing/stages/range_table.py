"""The range table: the keys of a tile's vectors are made and looked up."""

from functools import partial

import numpy as np

from accelerators import ConfigError, RangeTable
from simulator.decisions.evidence import Ranges
from simulator.timing.passes import passes_of
from simulator.timing.stages.looking import Looking
from simulator.timing.stages.stage import Counts, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import ceil_div, port_cycles


@register
class Ranging(Looking):
    """`width` elements become ranges a cycle; a whole key is looked up in the cycle after.

    Between tiles the table changes places with the last tile's, a set a cycle. Old results come
    from the DRAM and new ones go there, as those of every stream's table.
    """

    units = ("range_table",)
    track = "ranging"

    @property
    def unit(self) -> RangeTable:
        """The unit."""
        unit = self.accelerator.range_table
        assert unit is not None
        return unit

    @property
    def evidence(self) -> Ranges:
        """What the layer was decided by.

        Raises:
            ConfigError: it was decided by something else.
        """
        assert self.left.decisions is not None
        evidence = self.left.decisions.evidence
        if isinstance(evidence, Ranges):
            return evidence
        raise ConfigError(
            f"decisions of layer {self.left.layer.name!r} must look ranges up for a range table to "
            f"work, got {evidence.words}; decide with RangeTableReuse"
        )

    def check(self) -> None:
        """The table is the one that was decided with, and keys fit."""
        unit, decided, name = self.unit, self.evidence.cache, self.left.layer.name
        wanted = (decided.entries, decided.set_ways, decided.replacement)
        given = (unit.entries, unit.ways, unit.replacement)
        broken = []
        if wanted != given:
            broken.append(
                "Accelerator.range_table (entries, ways, replacement) must be those that layer "
                f"{name!r} was decided with, {wanted}, got {given}; change one of them"
            )
        held = unit.max_length * unit.range_bits
        if self.evidence.key_bits > held:
            broken.append(
                f"Accelerator.range_table must hold keys of layer {name!r}, "
                f"{self.evidence.key_bits} bits, got {unit.max_length} x {unit.range_bits}; use a "
                "larger max_length, or a shorter length"
            )
        if broken:
            raise ConfigError(broken)

    def work(self, tiles: Tiles) -> Work:
        """What takes longer of making keys and of reading vectors sets the pace."""
        cut, shared, unit = passes_of(tiles), self.shared, self.unit
        steps = np.maximum(1, ceil_div(shared.widths, unit.width))[:, None]
        swapping = unit.entries // unit.ways
        ranging = cut.of_tile((shared.looks.vectors * steps + swapping)[None]) * tiles.looked
        reads = self.vector_reads(tiles)
        return Work(
            limits={
                "range_table": ranging,
                "activation_buffer": port_cycles(reads, self.accelerator.activation_buffer),
            },
            latency_cycles=1 * tiles.looked,
            busy_cycles={"range_table": ranging},
            actions=partial(self._actions, tiles, reads),
        )

    def _actions(self, tiles: Tiles, reads: np.ndarray) -> Counts:
        shared, times = self.shared, passes_of(tiles).times_looked
        elements = shared.gemm.count * int((shared.widths[:, None] * shared.looks.vectors).sum())
        # A set's keys are moved in or out as a look-up reads them, or a new key is written.
        swapped = shared.clusters.size * (self.unit.entries // self.unit.ways)
        return {
            ("range_table", "range"): times * elements,
            ("range_table", "lookup"): times * (shared.sub_vectors + swapped),
            ("range_table", "write"): times * (shared.total_clusters + swapped),
            ("activation_buffer", "read_byte"): tiles.total(reads),
        }
