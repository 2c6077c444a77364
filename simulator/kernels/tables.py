"""Clusters that outlive a batch: the table behind `LshReuse(scope="stream")`.

Deep Reuse, III-B2 and Algorithm 1: a signature that was seen in an earlier batch finds its cluster
in a table, and its rows take that cluster's result. The paper's table grows without end; a real one
has so many entries, forgets, and may not trust an old result forever.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from accelerators import REPLACEMENTS, CentroidCache, ConfigError
from accelerators.rules import show
from simulator.kernels.hashing import hash_rows, lane_thresholds, lane_weights
from simulator.kernels.lanes import padded

# What is kept of one layer from batch to batch; read, never changed. For T = count x s tables, one
# for each GEMM and sub-matrix, that keep E clusters together, table by table:
#   shape            (3,) int64: count, k and L
#   batches          (1,) int64: seen so far
#   kept             (count, s) int64: clusters that each table keeps
#   signatures       (E,) uint64
#   uses             (E,) int64: sub-vectors that took the cluster's result so far
#   made             (E,) int64: number of the batch, from 0, in which it was computed
#   representatives  (E, L) float32: what was multiplied by the weights
#   places, stamps   (E,) int64: entry (set x ways + way), and the time of the last access (`lru`)
#                    or of the insertion (`fifo`); none for a table without end
#   clocks, random   (count, s) int64 and uint64: accesses so far; state of the random replacement
LayerMemory = Mapping[str, np.ndarray]

# Multiplier and increment of a 64-bit linear congruential generator (Knuth, MMIX): the random
# replacement.
LCG_MULTIPLIER = 6364136223846793005
LCG_INCREMENT = 1442695040888963407
# Odd 64-bit constant nearest 2^64 / golden ratio (Knuth, TAOCP 3, 6.4): spreads signatures.
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Primitive polynomials over GF(2) of degree 1, 2, ... 24, after one of degree 0; bit i is x^i's.
POLYNOMIALS = (
    0x1, 0x3, 0x7, 0xB, 0x13, 0x25, 0x43, 0x83, 0x11D, 0x211, 0x409, 0x805, 0x1053, 0x201B, 0x4443,
    0x8003, 0x1100B, 0x20009, 0x40081, 0x80027, 0x100009, 0x200005, 0x400003, 0x800021, 0x1000087,
)  # fmt: skip
_POLYNOMIALS = np.array(POLYNOMIALS, np.uint64)
# Arrays of a memory with a value for each cluster, and those that only a finite table has.
_OF_ENTRIES = ("signatures", "uses", "made", "representatives", "places", "stamps")
_OF_FINITE = ("places", "stamps")
_MOST_ENTRIES = 2**40
# More uses than any cluster has.
_FOREVER = 2**62


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
                ("refresh_after", self.refresh_after, True, 1, _FOREVER),
                ("warm_up_batches", self.warm_up_batches, False, 0, _FOREVER),
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


@dataclass(frozen=True, kw_only=True)
class ServedBatch:
    """What the tables of one layer did with a batch.

    Attributes:
        ids: `(count, s, m)` int32, cluster of each sub-vector, in the order of first use.
        clusters: `(count, s, 1)` int32, clusters used.
        signatures: `(total,)` uint64 of each.
        ages: `(total,)` int64, batches since it was computed; 0 in this one.
        representatives: `(total, L)` float32 of each.
        memory: what the tables keep.
    """

    ids: np.ndarray
    clusters: np.ndarray
    signatures: np.ndarray
    ages: np.ndarray
    representatives: np.ndarray
    memory: LayerMemory


def empty_memory(count: int, k: int, length: int) -> LayerMemory:
    """Tables that have seen nothing, for a layer's `count` GEMMs of k columns."""
    tables = (count, math.ceil(k / length))
    none = np.empty(0, np.int64)
    return {
        "shape": np.array([count, k, length], np.int64),
        "batches": np.zeros(1, np.int64),
        "kept": np.zeros(tables, np.int64),
        "signatures": np.empty(0, np.uint64),
        "uses": none,
        "made": none,
        "representatives": np.empty((0, length), np.float32),
        "places": none,
        "stamps": none,
        "clocks": np.zeros(tables, np.int64),
        "random": np.ones(tables, np.uint64),
    }


def check_memory(
    layer: str, memory: LayerMemory, cache: ClusterCache, shape: tuple[int, int, int], hashes: int
) -> None:
    """A memory must be one that a batch of this layer left; a file may hold anything.

    Args:
        layer: its name, for messages.
        memory: what the tables keep.
        cache: the kind of table.
        shape: count, k and L of the layer.
        hashes: H, bits of a signature.

    Raises:
        ConfigError: naming the layer.
    """
    known = memory.get("shape")
    if known is None or known.dtype != np.int64 or known.tolist() != list(shape):
        raise ConfigError(
            f"memory of layer {layer!r} must be of (count, k, L) = {shape}, got "
            f"{show(None if known is None else tuple(known.ravel().tolist()), tuple)}; start "
            "without memory"
        )
    empty = empty_memory(*shape)
    kept = memory.get("kept", np.empty(0))
    counted = kept.shape == empty["kept"].shape and kept.dtype == np.int64 and (kept >= 0).all()
    entries = int(kept.sum()) if counted and kept.max(initial=0) <= _MOST_ENTRIES else -1
    broken = [name for name in empty if name not in memory] or ["kept"] * (entries < 0)
    for name in () if broken else empty:
        held, wanted = memory[name], empty[name]
        size = wanted.shape
        if name in _OF_ENTRIES and (cache.entries is not None or name not in _OF_FINITE):
            size = (entries, *wanted.shape[1:])
        fits = held.shape == size and held.dtype == wanted.dtype
        if not fits or (held.dtype == np.int64 and not (held >= 0).all()):
            broken.append(name)
    if not broken:
        broken += _broken_values(memory, cache, hashes)
    if broken:
        raise ConfigError(
            f"memory of layer {layer!r} must be what an earlier batch left, got others in "
            f"{', '.join(broken)}; start without memory"
        )


def _broken_values(memory: LayerMemory, cache: ClusterCache, hashes: int) -> list[str]:
    """Arrays of the right kind whose values no batch leaves."""
    owners = np.repeat(np.arange(memory["kept"].size), memory["kept"].ravel())
    places, entries = memory["places"], cache.entries or 0
    falling = (np.diff(places) <= 0) & (np.diff(owners[: places.size]) == 0)
    checks = {
        "kept": not entries or memory["kept"].max(initial=0) <= entries,
        "signatures": not (memory["signatures"] >> np.uint64(hashes)).any(),
        "made": (memory["made"] < memory["batches"][0]).all(),
        "representatives": np.isfinite(memory["representatives"]).all(),
        "places": (places < entries).all() and not falling.any(),
    }
    return [name for name, holds in checks.items() if not holds]


def serve_batch(
    rows: np.ndarray,
    order: np.ndarray,
    cache: ClusterCache,
    projections: np.ndarray,
    thresholds: np.ndarray,
    memory: LayerMemory,
    *,
    first_only: bool = False,
) -> ServedBatch:
    """Send a batch's rows, in stream order, through the tables of a layer.

    Args:
        rows: `(count, m, k)` float32, in the layer's own order.
        order: `(k,)` int64, the column at each place of the rows that are cut.
        cache: the kind of table.
        projections: `(H, L)` float32.
        thresholds: `(count, s, H)` float32.
        memory: what the tables keep of earlier batches; not changed.
        first_only: represent a new cluster by its first row instead of its mean.
    """
    count, m, k = rows.shape
    length = projections.shape[1]
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    kept = memory["kept"]
    starts = np.concatenate([[0], np.cumsum(kept)])
    ids = np.empty((*kept.shape, m), np.int32)
    signatures = np.empty(m, np.uint64)
    now = int(memory["batches"][0])
    warming = now < cache.warm_up_batches
    tables = []
    for i in range(count):
        columns = np.ascontiguousarray(rows[i].T, dtype=np.float32)
        for j in range(kept.shape[1]):
            first = j * length
            last = min(first + length, k)
            hash_rows(
                columns, order, first, last, padded(length), weights, limits[i, j], signatures
            )
            at = i * kept.shape[1] + j
            table = _Table(cache, memory, slice(starts[at], starts[at + 1]), (i, j))
            table.look_up(signatures, ids[i, j], warming, 2 ** projections.shape[0])
            table.represent(columns[order[first:last]], ids[i, j], first_only)
            tables.append(table)
    return ServedBatch(
        ids=ids,
        clusters=np.array([t.fresh.size for t in tables], np.int32).reshape(*kept.shape, 1),
        signatures=np.concatenate([t.signatures[t.used] for t in tables]),
        ages=np.concatenate([now - t.made[t.used] for t in tables]),
        representatives=np.concatenate([t.representatives for t in tables]),
        memory=_remember(memory, tables, cache),
    )


def _remember(memory: LayerMemory, tables: "list[_Table]", cache: ClusterCache) -> LayerMemory:
    """What is kept after a batch."""
    shape, none = memory["kept"].shape, np.empty(0, np.int64)
    finite = cache.entries is not None
    return {
        "shape": memory["shape"],
        "batches": memory["batches"] + 1,
        "kept": np.array([t.kept.size for t in tables], np.int64).reshape(shape),
        "signatures": np.concatenate([t.signatures[t.kept] for t in tables]),
        "uses": np.concatenate([t.uses[t.kept] for t in tables]),
        "made": np.concatenate([t.made[t.kept] for t in tables]),
        "representatives": np.concatenate([t.kept_representatives() for t in tables]),
        "places": np.concatenate([t.places for t in tables]) if finite else none,
        "stamps": np.concatenate([t.stamps[t.kept] for t in tables]) if finite else none,
        "clocks": np.array([t.clock for t in tables], np.int64).reshape(shape),
        "random": np.concatenate([t.random for t in tables]).reshape(shape),
    }


class _Table:
    """One sub-matrix's table during one batch.

    Its clusters are numbered in a pool: those kept from earlier batches, then the new ones.
    """

    def __init__(
        self, cache: ClusterCache, memory: LayerMemory, part: slice, place: tuple[int, int]
    ) -> None:
        self.cache = cache
        self.stored = memory["representatives"][part]
        self.signatures = memory["signatures"][part]
        self.uses = memory["uses"][part]
        self.made = memory["made"][part]
        self.now = int(memory["batches"][0])
        self.old = self.signatures.size
        finite = cache.entries is not None
        self.places = memory["places"][part] if finite else np.empty(0, np.int64)
        self.stamps = memory["stamps"][part] if finite else np.zeros(self.old, np.int64)
        self.clock = int(memory["clocks"][place])
        self.random = memory["random"][place].reshape(1).copy()

    def look_up(self, signatures: np.ndarray, ids: np.ndarray, warming: bool, most: int) -> None:
        """Find or make the cluster of every row; `most` signatures are different."""
        cache, rows, room = self.cache, signatures.size, self.old + signatures.size
        self.signatures = _extended(self.signatures, room)
        self.uses, self.stamps = _extended(self.uses, room), _extended(self.stamps, room)
        self.made = np.concatenate([self.made, np.full(rows, self.now)])
        number = np.full(room, -1, np.int32)
        used = np.empty(rows, np.int64)
        if cache.entries:
            slots = np.full(cache.entries, -1, np.int64)
            slots[self.places] = np.arange(self.old)
        else:
            # At least twice as many as are needed, so that a free one is found soon.
            slots = np.full(1 << (2 * min(room, most)).bit_length(), -1, np.int64)
            _index(slots, self.signatures, self.old)
        found = _look_up(
            signatures, self.old, slots, self.signatures, self.uses, self.stamps, number, used,
            ids, cache.sets, cache.set_ways, REPLACEMENTS.index(cache.replacement),
            cache.refresh_after or _FOREVER, warming, self.clock, self.random,
        )  # fmt: skip
        self.clock += rows
        self.number, self.used = number, used[:found]
        self.fresh = self.used >= self.old
        if cache.entries:
            self.places = np.flatnonzero(slots >= 0)
            self.kept = slots[self.places]
        else:
            self.kept = np.sort(slots[slots >= 0])

    def represent(self, columns: np.ndarray, ids: np.ndarray, first_only: bool) -> None:
        """Give a new cluster the mean, or the first, of its rows; an old one keeps what it had."""
        self.representatives = np.zeros((self.used.size, self.stored.shape[1]), np.float32)
        self.representatives[~self.fresh] = self.stored[self.used[~self.fresh]]
        if first_only:
            _, firsts = np.unique(ids, return_index=True)
            self.representatives[self.fresh, : len(columns)] = columns[:, firsts[self.fresh]].T
        else:
            average(columns, ids, self.fresh, self.representatives)

    def kept_representatives(self) -> np.ndarray:
        """`(kept, L)` float32."""
        kept = np.empty((self.kept.size, self.stored.shape[1]), np.float32)
        old = self.kept < self.old
        kept[old] = self.stored[self.kept[old]]
        kept[~old] = self.representatives[self.number[self.kept[~old]]]
        return kept


def _extended(values: np.ndarray, room: int) -> np.ndarray:
    """A copy with room for more."""
    return np.concatenate([values, np.zeros(room - values.size, values.dtype)])


@njit(cache=True, nogil=True)
def set_index(signature, sets):
    """The set in which a cache keeps a signature; the hardware's cache and the table's.

    For 2^b sets, the remainder of the signature by a polynomial of degree b over GF(2), in which
    each bit of the set is the XOR of some of the signature's; else the remainder of the numbers.
    The b low bits alone take few values: few hyperplanes part short sub-vectors. The bits above
    them still tell the members of a set apart, so tags are no longer. After Gonzalez et al.,
    "Eliminating cache conflict misses through XOR-based placement functions", ICS 1997.
    """
    sets = np.uint64(sets)
    one = np.uint64(1)
    mask = sets - one
    if sets & mask:
        return np.int64(signature % sets)
    bits = np.uint64(0)
    while sets >> bits > one:
        bits += one
    index = signature & mask
    polynomial = _POLYNOMIALS[bits]
    power = polynomial ^ sets  # x^b's remainder, then those of higher powers
    above = signature >> bits if bits else np.uint64(0)
    while above:
        if above & one:
            index ^= power
        power <<= one
        if power & sets:
            power ^= polynomial
        above >>= one
    return np.int64(index)


@njit(cache=True, nogil=True)
def random_way(random, ways):
    """Any way of a full set, from the 31 highest bits of the next state."""
    random[0] = random[0] * np.uint64(LCG_MULTIPLIER) + np.uint64(LCG_INCREMENT)
    return np.int64((random[0] >> np.uint64(33)) % np.uint64(ways))


@njit(cache=True, nogil=True)
def _probe(slots, pool_signatures, signature):
    """The slot that holds a signature, or the free one for it: open addressing."""
    mask = np.uint64(slots.size - 1)
    slot = ((signature * _MIX) >> np.uint64(32)) & mask  # the product's high bits are mixed best
    while slots[slot] >= 0 and pool_signatures[slots[slot]] != signature:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@njit(cache=True, nogil=True)
def _index(slots, pool_signatures, old):
    """Enter the clusters of earlier batches into a table without end."""
    for cluster in range(old):
        slots[_probe(slots, pool_signatures, pool_signatures[cluster])] = cluster


@njit(cache=True, nogil=True)
def _entry(slots, pool_signatures, stamps, signature, sets, ways, replacement, random):
    """The entry of a set that holds a signature, else a free one, else the one to be replaced."""
    first = set_index(signature, sets) * ways
    for entry in range(first, first + ways):
        if slots[entry] < 0 or pool_signatures[slots[entry]] == signature:
            return entry
    if replacement == 2:
        return first + random_way(random, ways)
    leaving = first
    for entry in range(first + 1, first + ways):
        if stamps[slots[entry]] < stamps[slots[leaving]]:
            leaving = entry
    return leaving


@njit(cache=True, nogil=True)
def _look_up(
    signatures, old, slots, pool_signatures, uses, stamps, number, used, ids, sets, ways,
    replacement, refresh_after, warming, clock, random,
):  # fmt: skip
    """Algorithm 1 of Deep Reuse, line 6 on, with a table that may forget.

    Args:
        signatures: `(m,)` uint64, in stream order.
        old: clusters of earlier batches, the first of the pool.
        slots: in and out, cluster of each slot or entry, -1 for none.
        pool_signatures: in and out, `(pool,)` uint64; the pool has room for m more clusters.
        uses: in and out, `(pool,)` int64.
        stamps: in and out, `(pool,)` int64.
        number: out, `(pool,)` int32, -1 on entry: the cluster's number in this batch.
        used: out, `(m,)` int64, the pool's cluster for each number.
        ids: out, `(m,)` int32, number of each row's cluster.
        sets: of the table.
        ways: of a set; 0 for a table without end.
        replacement: index into `REPLACEMENTS`.
        refresh_after: uses after which a cluster is stale.
        warming: whether clusters of earlier batches are stale.
        clock: accesses before this batch.
        random: in and out, `(1,)` uint64.

    Returns:
        Clusters used in this batch.
    """
    pool, found = old, 0
    for row in range(signatures.size):
        signature = signatures[row]
        if ways:
            slot = _entry(
                slots, pool_signatures, stamps, signature, sets, ways, replacement, random
            )
        else:
            slot = _probe(slots, pool_signatures, signature)
        cluster = slots[slot]
        known = cluster >= 0 and pool_signatures[cluster] == signature
        if not known or uses[cluster] >= refresh_after or (warming and cluster < old):
            # A refreshed cluster stays where it stands in the order of insertion.
            stamps[pool] = stamps[cluster] if known else clock + row
            cluster = pool
            pool += 1
            slots[slot] = cluster
            pool_signatures[cluster] = signature
        uses[cluster] += 1
        if replacement == 0:
            stamps[cluster] = clock + row
        if number[cluster] < 0:
            number[cluster] = found
            used[found] = cluster
            found += 1
        ids[row] = number[cluster]
    return found


@njit(cache=True, nogil=True)
def average(columns, ids, fresh, representatives):
    """Write the mean of the rows of every fresh cluster.

    Args:
        columns: `(L or fewer, m)` float32, the sub-matrix, column by column.
        ids: `(m,)` int32, cluster of each row.
        fresh: `(clusters,)` bool.
        representatives: out, `(clusters, L)` float32, zero where fresh.
    """
    sizes = np.zeros(fresh.size, np.int64)
    for row in range(ids.size):
        sizes[ids[row]] += 1
    sums = np.empty(fresh.size, np.float32)
    for column in range(columns.shape[0]):
        sums[:] = np.float32(0.0)
        values = columns[column]
        for row in range(ids.size):
            sums[ids[row]] += values[row]
        for cluster in range(fresh.size):
            if fresh[cluster]:
                scale = np.float32(1.0) / np.float32(sizes[cluster])
                representatives[cluster, column] = sums[cluster] * scale
