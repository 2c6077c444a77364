"""Hashing: a tile's rows pass the front-end, their signatures the cache."""

from functools import cached_property, partial
from typing import Any

import numpy as np

from accelerators import CentroidCache, ConfigError, LshFrontEnd
from simulator.timing.engines.compiled_cache import CacheReplay
from simulator.timing.passes import passes_of
from simulator.timing.stages.cluster_cache import (
    around_cycles,
    cache_actions,
    check_cache,
    replay_cache,
)
from simulator.timing.stages.looking import Looking
from simulator.timing.stages.stage import Counts, Work, register
from simulator.timing.tiles import Tiles
from simulator.timing.transfers import access_bytes, ceil_div, port_cycles


@register
class Hashing(Looking):
    """Rows are hashed while the cache, cleared before, takes signatures and hands centroids on.

    Paid are clearing the table, hashing, accumulating and dividing centroids, and refills of a
    cache that is too small.
    """

    units = ("front_end", "cache")
    track = "hashing"

    @property
    def front_end(self) -> LshFrontEnd:
        """The unit that hashes."""
        unit = self.accelerator.front_end
        assert unit is not None
        return unit

    @property
    def cache(self) -> CentroidCache:
        """The unit that finds clusters."""
        unit = self.accelerator.cache
        assert unit is not None
        return unit

    @property
    def decisions(self) -> Any:
        """The layer's."""
        return self.left.decisions

    def check(self) -> None:
        """Clusters are found by hashing, as the front-end multiplies, and in the stream's cache."""
        assert self.shared is not None
        built, wanted = self.front_end.projection, self.decisions.signatures.projection
        # Wired-up coefficients do one kind only; an int8 multiplier does them all.
        if built not in ("int8", wanted):
            raise ConfigError(
                f"Accelerator.front_end.projection must be 'int8' or {wanted!r} for a policy with "
                f"{wanted} projections, got {built!r}; change one of them"
            )
        check_cache(self.decisions, self.cache)

    @cached_property
    def rate(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors hashed at once, and cycles that takes, `(v,)` int64 each.

        A lane takes one sub-vector a cycle, or as many short ones as it has elements for if it
        packs; longer sub-vectors or signatures than it is built for take several passes.
        """
        unit, widths = self.front_end, self.shared.widths
        packed = np.maximum(1, unit.max_length // widths) if unit.packing else 1
        hashes = self.decisions.signatures.hashes
        cycles = ceil_div(hashes, unit.max_hashes) * ceil_div(widths, unit.max_length)
        return np.broadcast_to(unit.lanes * packed, cycles.shape).astype(np.int64), cycles

    @cached_property
    def replayed(self) -> CacheReplay:
        """What the cache did with the layer's signatures, whatever the passes."""
        vectors, interval = self.rate
        return replay_cache(
            self.engine,
            self.decisions,
            self.cache,
            vectors_per_group=vectors,
            cycles_per_group=interval,
        )

    @cached_property
    def hashing_cycles(self) -> np.ndarray:
        """`(v, tiles)` int64, until the front-end is done with a tile."""
        vectors, interval = self.rate
        looked = self.shared.looks.vectors
        return ceil_div(looked, vectors[:, None]) * interval[:, None]

    @cached_property
    def cache_cycles(self) -> np.ndarray:
        """`(count, v, tiles)` int64, until the cache is done with a tile."""
        return around_cycles(self.decisions, self.cache) + self.replayed.cycles

    def work(self, tiles: Tiles) -> Work:
        """Both units work at once, so together they may take longer than either alone; the busier
        one is to blame."""
        cut = passes_of(tiles)
        hashing = cut.of_tile(self.hashing_cycles[None]) * tiles.looked
        together = cut.of_tile(self.cache_cycles) * tiles.looked
        caching = together - cut.of_tile(self.replayed.waiting_cycles) * tiles.looked
        vector_reads = self.vector_reads(tiles)
        reading = port_cycles(vector_reads, self.accelerator.activation_buffer)
        return Work(
            limits={"front_end": hashing, "cache": caching, "activation_buffer": reading},
            occupancy_cycles=together,
            latency_cycles=self.front_end.latency_cycles * tiles.looked,
            busy_cycles={"front_end": hashing, "cache": caching},
            actions=partial(self._actions, tiles, vector_reads),
        )

    def _actions(self, tiles: Tiles, vector_reads: np.ndarray) -> Counts:
        decisions, unit = self.decisions, self.front_end
        shared, hashes = self.shared, decisions.signatures.hashes
        elements = shared.gemm.count * int((shared.widths[:, None] * shared.looks.vectors).sum())
        # One element in three is added by a sparse projection.
        sparsity = 3 if decisions.signatures.projection == "sparse" else 1
        times = passes_of(tiles).times_looked
        buffer = self.accelerator.centroid_buffer
        assert buffer is not None  # shared rows ask for it
        length = shared.sub_vector_length + 1  # running sums and a count
        row_bytes = access_bytes(length, length, 16, buffer)
        return {
            ("front_end", "project"): times * elements * hashes // sparsity,
            ("front_end", "compare"): times * shared.sub_vectors * hashes,
            **cache_actions(
                decisions,
                self.cache,
                self.replayed,
                times=times,
                row_length=unit.max_length,
                tag_reads=ceil_div(hashes, unit.max_hashes),
            ),
            ("activation_buffer", "read_byte"): tiles.total(vector_reads),
            # A running sum that leaves the cache waits beside the centroids.
            ("centroid_buffer", "write_byte"): times
            * int(self.replayed.evictions.sum())
            * row_bytes,
            ("centroid_buffer", "read_byte"): times * int(self.replayed.refills.sum()) * row_bytes,
        }
