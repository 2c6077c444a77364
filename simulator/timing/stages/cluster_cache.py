"""The cache of clusters: what it does with a tile's signatures, and whether it is the one decided.

In a stream its table made the decisions: a tile loads its table instead of clearing one, and what
it forgot is not fetched again but computed anew.
"""

from dataclasses import replace

import numpy as np

from accelerators import CentroidCache, ConfigError
from simulator.decisions.box import Decisions
from simulator.timing.engines.compiled_cache import CacheReplay
from simulator.timing.engines.engine import Engine
from simulator.timing.transfers import ceil_div


def check_cache(decisions: Decisions, built: CentroidCache) -> None:
    """A stream's decisions must be those that the design's cache makes.

    Raises:
        ConfigError: they come from another table, or from one that can't be built.
    """
    decided = decisions.signatures.cache
    if decided is None:
        return
    fix = "decide with LshReuse(scope='stream', cache=ClusterCache.of(design.cache))"
    if decided.entries is None:
        raise ConfigError(
            f"Accelerator.cache can't hold clusters without end, which layer {decisions.layer!r} "
            f"was decided with; {fix}"
        )
    wanted = (decided.entries, decided.set_ways, decided.replacement)
    given = (built.entries, built.ways, built.replacement)
    if wanted != given:
        raise ConfigError(
            "Accelerator.cache (entries, ways, replacement) must be those that layer "
            f"{decisions.layer!r} was decided with, {wanted}, got {given}; {fix}"
        )


def replay_cache(
    engine: Engine, decisions: Decisions, cache: CentroidCache, **rates: np.ndarray
) -> CacheReplay:
    """Send a tile's signatures through the cache, see `compiled_cache.replay`.

    A stream's cache made the decisions: what it forgot is not fetched again but computed anew, and
    the running sum of a new cluster that leaves is divided and handed on as those at the end are.
    So banks and updates take time, refills do not exist. Also an access to an old cluster, which
    adds nothing, is charged the update.
    """
    if decisions.signatures.cache is None:
        return engine.replay(decisions, cache, **rates)
    replayed = engine.replay(decisions, replace(cache, miss_cycles=0), **rates)
    nothing = np.zeros_like(replayed.refills)
    return replace(replayed, refills=nothing, evictions=nothing)


def around_cycles(decisions: Decisions, cache: CentroidCache) -> np.ndarray:
    """Cycles of a tile before its first signature and after its last, `(count, v, tiles)`.

    Before, the cache's valid bits are cleared; or, in a stream, its tags change places with the
    last tile's, one set a bank and cycle: the ways of a set are one word of the tags' memory.
    After, its new clusters are handed on, one a bank and cycle.
    """
    if decisions.signatures.cache is None:
        entering = ceil_div(cache.entries, cache.clear_entries_per_cycle)
    else:
        entering = ceil_div(cache.entries // cache.ways, cache.banks)
    handed_on = decisions.shared.new_clusters.astype(np.int64)
    return entering + ceil_div(handed_on, cache.banks)


def cache_actions(
    decisions: Decisions,
    cache: CentroidCache,
    replayed: CacheReplay,
    *,
    times: int,
    row_length: int,
    tag_reads: int,
) -> dict[tuple[str, str], int]:
    """What the cache does for all tiles.

    Not modelled: that a cache which keeps first rows has nothing to update on a hit (its energy is
    counted so, its cycles are not).

    Args:
        decisions: the layer's.
        cache: the unit.
        replayed: what it did with the signatures.
        times: passes that look at rows.
        row_length: elements of one of its rows.
        tag_reads: that a signature takes.
    """
    shared, in_stream = decisions.shared, decisions.signatures.cache is not None
    averaged = shared.representative == "centroid"
    added, clusters = shared.new_cluster_rows, shared.new_clusters.astype(np.int64)
    widths = shared.widths[:, None]
    # A first row is written once and read once; a mean is updated by every row.
    # A row of the cache is as long as a lane; a longer sub-vector has several.
    rows = ceil_div(widths, row_length)
    touched = int(((added if averaged else clusters) * rows).sum())
    elements = int((clusters * widths).sum())
    refills = times * int(replayed.refills.sum())
    sets = cache.entries // cache.ways
    # A set's tags are moved in or out as a look-up reads them.
    swapped = 2 * shared.clusters.size * sets if in_stream else 0
    return {
        ("cache", "lookup"): times * tag_reads * (shared.sub_vectors + swapped),
        # All but a cluster's first read to add to it; the end reads to hand it on.
        ("cache", "read_row"): times * touched,
        ("cache", "write_row"): times * touched + refills,
        ("cache", "accumulate"): averaged * times * (int((added * widths).sum()) - elements),
        ("cache", "divide"): averaged * times * elements,
        ("cache", "clear_entry"): times * shared.clusters.size * cache.entries * (not in_stream),
    }
