"""Clusters that outlive a batch: the tables behind `LshReuse(scope="stream")`.

Deep Reuse, III-B2 and Algorithm 1: a signature that was seen in an earlier batch finds its cluster
in a table, and its rows take that cluster's result. The paper's table grows without end; a real one
has so many entries, forgets, and may not trust an old result forever.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accelerators import REPLACEMENTS, ConfigError
from accelerators.rules import show
from simulator.decisions.table import FOREVER, ClusterCache
from simulator.kernels.hashing import hash_rows, lane_thresholds, lane_weights
from simulator.kernels.lanes import padded
from simulator.kernels.tables import average_fresh, enter, look_up
from simulator.policies.policy import LayerMemory

# Arrays of a memory. For T = count x s tables, one for each GEMM and sub-matrix, that keep E
# clusters together, table by table:
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
# Arrays with a value for each cluster, and those that only a finite table has.
_OF_ENTRIES = ("signatures", "uses", "made", "representatives", "places", "stamps")
_OF_FINITE = ("places", "stamps")
_MOST_ENTRIES = 2**40


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


Signer = Callable[[np.ndarray, np.ndarray, tuple[int, int], np.ndarray], None]
"""Writes `(m,)` uint64 signatures of sub-vectors: gets `(k, m)` float32 columns, the columns of a
sub-matrix, the numbers of its GEMM and of itself, and where to write."""


def signs_of(projections: np.ndarray, thresholds: np.ndarray) -> Signer:
    """Signatures by the signs of projections.

    Args:
        projections: `(H, L)` float32.
        thresholds: `(count, s, H)` float32.
    """
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    width = padded(projections.shape[1])

    def sign(
        columns: np.ndarray, own: np.ndarray, place: tuple[int, int], signatures: np.ndarray
    ) -> None:
        hash_rows(columns, own, 0, own.size, width, weights, limits[place], signatures)

    return sign


def serve_batch(
    rows: np.ndarray,
    order: np.ndarray,
    cache: ClusterCache,
    sign: Signer,
    memory: LayerMemory,
    *,
    length: int,
    bits: int,
    first_only: bool = False,
) -> ServedBatch:
    """Send a batch's rows, in stream order, through the tables of a layer.

    Args:
        rows: `(count, m, k)` float32, in the layer's own order.
        order: `(k,)` int64, the column at each place of the rows that are cut.
        cache: the kind of table.
        sign: makes signatures.
        memory: what the tables keep of earlier batches; not changed.
        length: L.
        bits: of a signature.
        first_only: represent a new cluster by its first row instead of its mean.
    """
    count, m, k = rows.shape
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
            sign(columns, order[first:last], (i, j), signatures)
            at = i * kept.shape[1] + j
            table = _Table(cache, memory, slice(starts[at], starts[at + 1]), (i, j))
            table.look_up(signatures, ids[i, j], warming, 2**bits)
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
            enter(slots, self.signatures, self.old)
        found = look_up(
            signatures, self.old, slots, self.signatures, self.uses, self.stamps, number, used,
            ids, cache.sets, cache.set_ways, REPLACEMENTS.index(cache.replacement),
            cache.refresh_after or FOREVER, warming, self.clock, self.random,
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
            average_fresh(columns, ids, self.fresh, self.representatives)

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
