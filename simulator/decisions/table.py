"""The table that a stream's clusters are kept in, as a policy asks for it."""

import math
from dataclasses import dataclass

from accelerators import REPLACEMENTS, CentroidCache, ConfigError
from accelerators.rules import show

# More uses than any cluster has.
FOREVER = 2**62


@dataclass(frozen=True, kw_only=True)
class ClusterCache:
    """The table in which a stream's clusters are kept; each sub-matrix of a layer has one.

    A signature that the table holds takes the result that was computed when its entry was made;
    another makes an entry of its own, and where its set is full, one of the set is forgotten. A
    forgotten signature that comes again makes a new cluster, in the same batch as well.

    Attributes:
        entries: clusters held at once, 1 to 16777216; `None`: all of them, the paper's table.
        ways: entries of one set, must divide `entries`; `None`: any entry may hold any cluster.
            Sets are chosen as the hardware's cache does.
        replacement: which entry of a full set is forgotten: `lru`, `fifo` or `random`.
        refresh_after: sub-vectors that may take one result, the first included; the next finds it
            stale and its cluster is computed anew, in the same entry. `None`: never.
        warm_up_batches: first batches of a stream that only fill the table: no cluster of an
            earlier batch is trusted, all are computed anew.

    Raises:
        ConfigError: at construction, with every violated rule.
    """

    entries: int | None = None
    ways: int | None = None
    replacement: str = "lru"
    refresh_after: int | None = None
    warm_up_batches: int = 0

    def __post_init__(self) -> None:
        """Check every rule."""
        broken = [
            f"ClusterCache.{name} must be {'None or ' * optional}an integer from {least} to "
            f"{most}, got {show(value)}; use a whole number in that range"
            for name, value, optional, least, most in (
                ("entries", self.entries, True, 1, 2**24),
                ("ways", self.ways, True, 1, 2**24),
                ("refresh_after", self.refresh_after, True, 1, FOREVER),
                ("warm_up_batches", self.warm_up_batches, False, 0, FOREVER),
            )
            if not (optional and value is None) and not _is_whole(value, least, most)
        ]
        if type(self.replacement) is not str or self.replacement not in REPLACEMENTS:
            choices = ", ".join(map(repr, REPLACEMENTS[:-1])) + f" or {REPLACEMENTS[-1]!r}"
            broken.append(
                f"ClusterCache.replacement must be {choices}, got {show(self.replacement)}; "
                f"use {REPLACEMENTS[0]!r}"
            )
        if not broken and self.ways is not None:
            if self.entries is None:
                broken.append(
                    f"ClusterCache.ways must be None with entries=None, got {self.ways}; "
                    "a table without end has no sets"
                )
            elif self.entries % self.ways:
                broken.append(
                    f"ClusterCache.ways must divide entries={self.entries}, got {self.ways}; "
                    f"use {math.gcd(self.entries, self.ways)}"
                )
        if broken:
            raise ConfigError(broken)

    @classmethod
    def of(cls, cache: CentroidCache) -> "ClusterCache":
        """The table that a design's cache can be; add a refresh or a warm-up by `replace`."""
        return cls(entries=cache.entries, ways=cache.ways, replacement=cache.replacement)

    @property
    def set_ways(self) -> int:
        """Entries of one set; 0 for a table without end."""
        return self.ways or self.entries or 0

    @property
    def sets(self) -> int:
        """Number of sets; 0 for a table without end."""
        return self.entries // self.set_ways if self.entries else 0


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
