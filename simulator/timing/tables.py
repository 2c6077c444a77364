"""A stream's tables on the hardware: the cache that made the decisions, and what it moves."""

from dataclasses import replace

import numpy as np

from accelerators import Accelerator, CentroidCache, ConfigError
from simulator.decisions.box import Decisions
from simulator.timing.array import ceil_div
from simulator.timing.engines.compiled_cache import CacheReplay
from simulator.timing.engines.engine import Engine
from simulator.timing.layer import byte_count
from simulator.timing.traffic import Plan, Traffic, by_tile, id_bits, rows_per_group


def check_cache(decisions: Decisions, accelerator: Accelerator) -> None:
    """A stream's decisions must be those that the design's cache makes.

    Raises:
        ConfigError: they come from another table, or from one that can't be built.
    """
    decided, built = decisions.signatures.cache, accelerator.reuse_units.cache
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


def entering_cycles(decisions: Decisions, cache: CentroidCache) -> int:
    """Cycles until the cache is ready for a tile.

    Its valid bits are cleared; or, in a stream, its tags change places with the last tile's, one
    set a bank and cycle: the ways of a set are one word of the tags' memory.
    """
    if decisions.signatures.cache is None:
        return ceil_div(cache.entries, cache.clear_entries_per_cycle)
    return ceil_div(cache.entries // cache.ways, cache.banks)


def table_bytes(decisions: Decisions, cache: CentroidCache) -> int:
    """Bytes of a tile's table: for each entry its tag, a valid bit, its age and its uses.

    The results lie in the DRAM at their entry's number, so no address is kept.
    """
    table = decisions.signatures.cache
    assert table is not None
    tag = max(0, decisions.signatures.hashes - (cache.entries // cache.ways).bit_length() + 1)
    age = 0 if cache.replacement == "random" else (cache.ways - 1).bit_length()
    uses = 0 if table.refresh_after is None else table.refresh_after.bit_length()
    return byte_count(cache.entries, tag + 1 + age + uses)


def swapped_sets(decisions: Decisions, cache: CentroidCache) -> int:
    """Sets whose tags are written and read for all tables once; 0 without a stream."""
    if decisions.signatures.cache is None:
        return 0
    return 2 * decisions.shared.clusters.size * (cache.entries // cache.ways)


def with_tables(
    moved: Traffic, decisions: Decisions, accelerator: Accelerator, plan: Plan
) -> Traffic:
    """What a stream's tiles move: their tables, the old results that are used, and the new ones.

    Each pass that hashes loads a tile's table as it was before the batch; the last stores it. All
    new results are stored, also those forgotten within the batch. Weights are loaded where a tile
    has new clusters.

    Not modelled: that old results and weights are asked for only when a tile is hashed.
    """
    if decisions.signatures.cache is None:
        return moved
    used, new = (
        by_tile(decisions.shared.clusters).astype(np.int64),
        by_tile(decisions.shared.new_clusters),
    )
    columns, bits = plan.multiplied_columns[:, None], accelerator.accumulator_bits
    old_results = byte_count((used - new) * columns, bits)
    new_results = byte_count(new * columns, bits)
    if not plan.results_first:
        results_in = moved.results_in + old_results
        results_out = moved.results_out + new_results
    else:
        # Results that do not stay on the chip lie in the DRAM anyway: the old ones already.
        travels = moved.results_out[:, :, :1] > 0
        ids = byte_count(rows_per_group(decisions), id_bits(decisions))
        results_in, results_out = moved.results_in.copy(), moved.results_out.copy()
        results_in[:, :, :1] += old_results[:, :, :1] * ~travels
        results_out[:, :, :1] = new_results[:, :, :1] + ids * travels
    table = table_bytes(decisions, accelerator.reuse_units.cache)
    tables_in = np.zeros_like(results_in) + table * plan.hashing[:, None]
    tables_out = np.zeros_like(results_out)
    tables_out[:, :, np.flatnonzero(plan.hashing)[-1]] = table
    return replace(
        moved,
        weights=moved.weights * (new > 0),
        results_in=results_in,
        results_out=results_out,
        tables_in=tables_in,
        tables_out=tables_out,
    )
