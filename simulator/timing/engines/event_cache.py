"""The centroid cache of the event engine: the reference, cycle by cycle and access by access.

It follows the rules of `simulator.timing.engines.compiled_cache.replay` in plain Python, with
objects for what is there in hardware: banks, sets, a dispatcher that looks at the waiting
signatures in every cycle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from accelerators import CentroidCache
from simulator.decisions.box import Decisions
from simulator.kernels.tables import LCG_INCREMENT, LCG_MULTIPLIER, POLYNOMIALS
from simulator.timing.engines.compiled_cache import CacheReplay


class _Random:
    """Numbers for the random replacement: a 64-bit linear congruential generator."""

    def __init__(self) -> None:
        self._state = 1

    def below(self, limit: int) -> int:
        """The next number, from its 31 highest bits."""
        self._state = (LCG_MULTIPLIER * self._state + LCG_INCREMENT) % 2**64
        return (self._state >> 33) % limit


@dataclass
class _Set:
    """Entries that a signature may be in.

    `ways` holds the cluster of each; `order` the same clusters, the first to be replaced first.
    """

    ways: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


@dataclass
class _Table:
    """The entries of one tile, and what they cost."""

    cache: CentroidCache
    signatures: Sequence[int]  # of each cluster
    refills: int = 0
    evictions: int = 0

    def __post_init__(self) -> None:
        self._sets: dict[int, _Set] = {}
        self._known: set[int] = set()
        self._random = _Random()

    def set_of(self, cluster: int) -> int:
        """The set that a cluster belongs in: by long division, for a power of two of sets."""
        sets = self.cache.entries // self.cache.ways
        rest = self.signatures[cluster]
        if sets.bit_count() > 1:
            return rest % sets
        degree = sets.bit_length() - 1
        while rest >= sets and degree:
            rest ^= POLYNOMIALS[degree] << (rest.bit_length() - 1 - degree)
        return rest if degree else 0

    def access(self, cluster: int) -> int:
        """Find or make the cluster's entry; cycles that the bank is held for it."""
        place = self._sets.setdefault(self.set_of(cluster), _Set())
        if cluster in place.ways:
            if self.cache.replacement == "lru":
                place.order.remove(cluster)
                place.order.append(cluster)
            return 1
        if len(place.ways) < self.cache.ways:
            place.ways.append(cluster)
            place.order.append(cluster)
        else:
            self.evictions += 1
            if self.cache.replacement != "none":
                self._replace(place, cluster)
        if cluster not in self._known:
            self._known.add(cluster)
            return 1
        self.refills += 1
        return 1 + self.cache.miss_cycles

    def _replace(self, place: _Set, cluster: int) -> None:
        """Let the cluster take the place of one of a full set."""
        if self.cache.replacement == "random":
            leaving = place.ways[self._random.below(self.cache.ways)]
        else:
            leaving = place.order[0]
        place.order.remove(leaving)
        place.ways[place.ways.index(leaving)] = cluster
        place.order.append(cluster)


def _replay_tile(
    stream: Sequence[int], table: _Table, vectors: int, interval: int
) -> tuple[int, int]:
    """One tile's signatures through an empty table: (cycles, of which waiting)."""
    cache = table.cache
    bank_free = [0] * cache.banks
    update_done = [0] * len(table.signatures)
    groups = [stream[i : i + vectors] for i in range(0, len(stream), vectors)]
    here: list[int] = []  # signatures that are there and not taken yet
    arrived = cycle = end = waiting = 0
    while arrived < len(groups) or here:
        # The front-end makes the next group while earlier ones are taken; one is looked at a time.
        if not here and cycle >= (arrived + 1) * interval - 1:
            here = list(groups[arrived])
            arrived += 1
        if not here:
            waiting += 1
        left = []
        for cluster in here:
            bank = table.set_of(cluster) % cache.banks
            hazard = cache.pipelined and update_done[cluster] > cycle
            if bank_free[bank] > cycle or hazard:
                left.append(cluster)
                continue
            held_until = cycle + table.access(cluster)
            update_done[cluster] = held_until + cache.update_cycles
            bank_free[bank] = held_until if cache.pipelined else update_done[cluster]
            end = max(end, update_done[cluster])
        here = left
        cycle += 1
    return end, waiting


def replay(
    decisions: Decisions,
    cache: CentroidCache,
    *,
    vectors_per_group: np.ndarray,
    cycles_per_group: np.ndarray,
) -> CacheReplay:
    """Send every signature through the cache; see `compiled_cache.replay`."""
    shared, looks = decisions.shared, decisions.shared.looks
    found = np.zeros((4, *shared.clusters.shape), np.int64)
    first = 0
    for i, view, tile in np.ndindex(shared.clusters.shape):
        last = first + int(shared.clusters[i, view, tile])
        table = _Table(cache, decisions.signatures.values[first:last].tolist())
        own = looks.tile_numbers[view // looks.segments] == tile
        stream = shared.ids[i, view, own].tolist()
        vectors, interval = int(vectors_per_group[view]), int(cycles_per_group[view])
        times = _replay_tile(stream, table, vectors, interval)
        found[:, i, view, tile] = *times, table.refills, table.evictions
        first = last
    cycles, waiting, refills, evictions = found
    return CacheReplay(cycles=cycles, waiting_cycles=waiting, refills=refills, evictions=evictions)
