"""The table that a stream's clusters are kept in, as a policy asks for it."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from accelerators import REPLACEMENTS, CentroidCache
from accelerators.rules import Relation, integer, one_of, optional, refuse, violations

# More uses than any cluster has.
FOREVER = 2**62


def _ways_fit(cache: "ClusterCache") -> list[str]:
    """Sets are of equal size."""
    if cache.ways is None or (cache.entries is not None and cache.entries % cache.ways == 0):
        return []
    if cache.entries is None:
        return [
            f"ways must be None with entries=None, got {cache.ways}; a table without end has no "
            "sets"
        ]
    return [
        f"ways must divide entries={cache.entries}, got {cache.ways}; "
        f"use {math.gcd(cache.entries, cache.ways)}"
    ]


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
        replacement: which entry of a full set is forgotten: `lru`, `fifo` or `random`; or `none`:
            a signature that finds its set full is computed, each time, and not kept.
        refresh_after: sub-vectors that may take one result, the first included; the next finds it
            stale and its cluster is computed anew, in the same entry. `None`: never.
        warm_up_batches: first batches of a stream that only fill the table: no cluster of an
            earlier batch is trusted, all are computed anew.

    Raises:
        ConfigError: at construction, with every violated rule.
    """

    entries: int | None = field(default=None, metadata=optional(integer(1, 2**24)))
    ways: int | None = field(default=None, metadata=optional(integer(1, 2**24)))
    replacement: str = field(default="lru", metadata=one_of(lambda: REPLACEMENTS))
    refresh_after: int | None = field(default=None, metadata=optional(integer(1, FOREVER)))
    warm_up_batches: int = field(default=0, metadata=integer(0, FOREVER))

    RELATIONS: ClassVar[tuple[Relation, ...]] = (Relation(("entries", "ways"), _ways_fit),)

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "ClusterCache"))

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
