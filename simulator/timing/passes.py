"""Passes: how a layer is cut where its rows are shared, and what its tiles move."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator
from simulator.decisions.evidence import Signatures
from simulator.decisions.rows import SharedRows
from simulator.decisions.table import ClusterCache
from simulator.timing.choosing import Way, least_traffic_times_cycles
from simulator.timing.remaining import Remaining
from simulator.timing.tiles import MOST_TILES, Tiles, check_tiles, cut
from simulator.timing.transfers import Transfer, access_bytes, byte_count, ceil_div
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Passes:
    """Passes over a group's sub-matrices, P of them; in each, every sub-matrix is a tile.

    Attributes:
        results_first: whether the first pass finds the results of all centroids and the later
            ones only gather them; else every pass does all for its columns.
        multiplied_columns: `(P,)` int64, columns of n that the pass multiplies and, before that,
            looks at rows for; 0 where it only gathers.
        gathered_rows: `(P,)` int64, rows of a group that the pass rebuilds.
        gathered_columns: `(P,)` int64, columns of them.
    """

    results_first: bool
    multiplied_columns: np.ndarray
    gathered_rows: np.ndarray
    gathered_columns: np.ndarray

    @property
    def looked(self) -> np.ndarray:
        """`(P,)` int64, 1 where the pass looks at rows."""
        return (self.multiplied_columns > 0).astype(np.int64)

    def best(self, runs: Sequence[Way]) -> Way:
        """The one with the least product of cycles and traffic, of those worth waiting for."""
        return least_traffic_times_cycles(runs)

    def blame(
        self, tiles: Tiles, critical_cycles: dict[str, int], busy_cycles: int
    ) -> dict[str, int]:
        """As it is: a tile has all rows of its group."""
        return critical_cycles

    def tiles(self, left: Remaining, accelerator: Accelerator) -> Tiles:
        """The layer's tiles, `(count, groups, P, s)`: the innermost are a group's sub-matrices."""
        shared = _shared(left)
        clusters = by_tile(shared.new_clusters).astype(np.int64)
        columns = self.multiplied_columns[:, None] * (clusters > 0)
        count, groups, _, sub_matrices = clusters.shape
        times = int(self.looked.sum())  # every such pass looks, and hands on, anew
        buffer, length = accelerator.centroid_buffer, shared.sub_vector_length
        assert buffer is not None  # the decisions ask for it
        centroid_bytes = access_bytes(length, length, accelerator.operand_bits, buffer)
        id_bytes = times * byte_count(shared.sub_vectors, id_bits(left))
        return Tiles(
            shape=(count, groups, len(self.multiplied_columns), sub_matrices),
            rows=np.full((1, 1, 1, 1), rows_per_group(shared), np.int64),
            looked=self.looked[:, None],
            m=clusters,
            n=columns,
            k=shared.widths,
            inputs="centroid_buffer",
            sums="centroid_buffer",
            handed_rows=self.gathered_rows[:, None],
            handed_columns=self.gathered_columns[:, None],
            results=self.gathered_rows[:, None],
            transfers=_transfers(left, accelerator, self),
            actions={
                ("centroid_buffer", "write_byte"): times * shared.total_clusters * centroid_bytes
                + id_bytes,
                ("centroid_buffer", "read_byte"): id_bytes,
            },
            cut=self,
        )


def best_passes(left: Remaining, accelerator: Accelerator) -> list[Tiles]:
    """The layer under all passes worth trying.

    Loops, outermost first: GEMMs, row groups, passes, sub-matrices; the innermost is a tile. A
    tile's rows are looked at; then its centroids are multiplied by the array; then its rows are
    gathered and added to the group's partial sums.

    Partial sums beyond half of the output buffer travel out and back for every tile, and so do a
    tile's centroids, results and ids beyond half of the centroid buffer; where results come first,
    all of a group's results and ids travel unless they fit. Activations of a group are loaded once
    where they fit half of the activation buffer, else each tile loads the channels it touches. All
    weights are loaded once where they fit the weight buffer, else once per group.

    In a stream (`Signatures.cache`), only new clusters are multiplied; a tile loads its table, and
    the old results that its rows use. Each pass that looks loads a tile's table as it was before
    the batch; the last stores it. All new results are stored, also those forgotten within the
    batch. Weights are loaded where a tile has new clusters.

    Not modelled: the wait of a spilled byte's return for its own way out; halo rows; that old
    results and weights are asked for only when a tile is looked at.

    Raises:
        ConfigError: the layer needs too many tiles.
    """
    shared = _shared(left)
    check_tiles(left.layer.gemm, shared.clusters.size)
    return [each.tiles(left, accelerator) for each in passes(left, accelerator)]


def passes(left: Remaining, accelerator: Accelerator) -> list[Passes]:
    """Passes worth trying.

    By columns: all of n at once; and once, twice, four times ... the array's columns, as long as
    the partial sums of a group fit half of the output buffer: each pass looks again. Results
    first, only where a group's sums do not fit: then as many rows at once as do, in powers of two.
    Those of more tiles than can be scheduled are left out; all of n at once is always there.
    """
    shared, n = _shared(left), left.n
    rows = rows_per_group(shared)
    half_bits = accelerator.output_buffer.capacity_bytes * 8 // 2
    columns_fitting = half_bits // (rows * accelerator.accumulator_bits)
    found = [_by_columns(rows, n, n)]
    width = accelerator.array.columns
    while width < n and width <= columns_fitting:
        found.append(_by_columns(rows, n, width))
        width *= 2
    rows_fitting = half_bits // (n * accelerator.accumulator_bits)
    height = 1 << (min(rows, rows_fitting).bit_length() - 1) if rows_fitting else 0
    if columns_fitting < n and height:
        gathered = cut(rows, height)
        nothing = np.zeros(1, np.int64)
        found.append(
            Passes(
                results_first=True,
                multiplied_columns=np.concatenate([[n], np.zeros_like(gathered)]),
                gathered_rows=np.concatenate([nothing, gathered]),
                gathered_columns=np.concatenate([nothing, np.full_like(gathered, n)]),
            )
        )
    most = MOST_TILES // shared.clusters.size
    return found[:1] + [each for each in found[1:] if len(each.gathered_rows) <= most]


def _by_columns(rows: int, n: int, width: int) -> Passes:
    columns = cut(n, width)
    return Passes(
        results_first=False,
        multiplied_columns=columns,
        gathered_rows=np.full_like(columns, rows),
        gathered_columns=columns,
    )


def _transfers(left: Remaining, accelerator: Accelerator, cut_by: Passes) -> tuple[Transfer, ...]:
    """DRAM bytes of every tile: operands, finished results, and what does not fit."""
    shared, gemm = _shared(left), left.layer.gemm
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    columns = cut_by.multiplied_columns[:, None]
    count, sub_matrices, groups = shared.clusters.shape
    nothing = np.zeros((count, groups, len(columns), sub_matrices), np.int64)

    weights = nothing + byte_count(columns * shared.widths, operand)
    if byte_count(gemm.k * left.n, operand) <= accelerator.weight_buffer.capacity_bytes:
        weights[:, 1:] = 0

    outputs = nothing.copy()
    outputs[..., -1] = byte_count(cut_by.gathered_rows * cut_by.gathered_columns, operand)

    sums = byte_count(cut_by.gathered_rows * cut_by.gathered_columns, accumulator)[:, None]
    excess = np.maximum(0, sums - accelerator.output_buffer.capacity_bytes // 2)
    sums_out, sums_in = nothing + excess, nothing + excess
    sums_in[..., 0] = 0  # the first tile starts from nothing
    sums_out[..., -1] = 0  # the last one's sums leave as outputs

    results_out, results_in = _results(left, accelerator, cut_by, nothing)
    tables: tuple[Transfer, ...] = ()
    if stream_cache(left) is not None:
        weights = weights * (by_tile(shared.new_clusters) > 0)
        results_out, results_in = _stream_results(
            left, accelerator, cut_by, results_out, results_in
        )
        tables = _tables(left, accelerator, cut_by, nothing)
    return (
        Transfer(
            kind="inputs",
            moved_bytes=_inputs(left, accelerator, cut_by, nothing),
            buffer="activation_buffer",
        ),
        Transfer(kind="weights", moved_bytes=weights, buffer="weight_buffer"),
        Transfer(kind="outputs", moved_bytes=outputs, stored=True),
        Transfer(kind="spilled_sums", moved_bytes=sums_in, buffer="output_buffer"),
        Transfer(kind="spilled_sums", moved_bytes=sums_out, stored=True, buffer="output_buffer"),
        Transfer(kind="spilled_results", moved_bytes=results_in, buffer="centroid_buffer"),
        Transfer(
            kind="spilled_results", moved_bytes=results_out, stored=True, buffer="centroid_buffer"
        ),
        *tables,
    )


def _inputs(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> np.ndarray:
    """Activations that tiles load."""
    shared, gemm = _shared(left), left.layer.gemm
    group_bytes = byte_count(
        left.layer.input_elements // (gemm.count * shared.groups), accelerator.operand_bits
    )
    fits = group_bytes <= accelerator.activation_buffer.capacity_bytes // 2
    read = shared.widths if fits else _channels_touched(left.layer, shared)
    # Each tile's share of the group's input, by what it reads; rounded so that they add up.
    share = np.diff(np.concatenate([[0], np.cumsum(read)]) * group_bytes // gemm.k)
    inputs = nothing + share * cut_by.looked[:, None]
    if fits:
        inputs[:, :, 1:] = 0
    return inputs


def _results(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes out and in of centroids, their results and ids that do not fit the centroid buffer."""
    shared, buffer = _shared(left), accelerator.centroid_buffer
    assert buffer is not None  # the decisions ask for it
    half, bits, rows = buffer.capacity_bytes // 2, id_bits(left), rows_per_group(shared)
    columns = cut_by.multiplied_columns[:, None]
    clusters = by_tile(shared.clusters).astype(np.int64)
    results = byte_count(clusters * columns, accelerator.accumulator_bits)
    if not cut_by.results_first:
        centroids = byte_count(
            by_tile(shared.new_clusters) * shared.widths, accelerator.operand_bits
        )
        held = centroids + results + byte_count(rows, bits)
        spilled = nothing + np.maximum(0, held - half)
        return spilled, spilled
    results = results[:, :, :1]
    held = results + byte_count(rows, bits)
    travels = held.sum(axis=3, keepdims=True) > half
    results_out, results_in = nothing.copy(), nothing.copy()
    results_out[:, :, :1] = held * travels
    row_ids = byte_count(cut_by.gathered_rows[1:, None], bits)
    results_in[:, :, 1:] = (results + row_ids) * travels
    return results_out, results_in


def _stream_results(
    left: Remaining,
    accelerator: Accelerator,
    cut_by: Passes,
    results_out: np.ndarray,
    results_in: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The same with the old results that a stream's tiles use, and the new ones."""
    shared, bits = _shared(left), accelerator.accumulator_bits
    columns = cut_by.multiplied_columns[:, None]
    used = by_tile(shared.clusters).astype(np.int64)
    new = by_tile(shared.new_clusters)
    old_results = byte_count((used - new) * columns, bits)
    new_results = byte_count(new * columns, bits)
    if not cut_by.results_first:
        return results_out + new_results, results_in + old_results
    # Results that do not stay on the chip lie in the DRAM anyway: the old ones already.
    travels = results_out[:, :, :1] > 0
    ids = byte_count(rows_per_group(shared), id_bits(left))
    results_in[:, :, :1] += old_results[:, :, :1] * ~travels
    results_out[:, :, :1] = new_results[:, :, :1] + ids * travels
    return results_out, results_in


def _tables(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> tuple[Transfer, ...]:
    """A stream's tables: loaded for every pass that looks, stored by the last."""
    table = table_bytes(left, accelerator)
    loaded = nothing + table * cut_by.looked[:, None]
    stored = nothing.copy()
    stored[:, :, np.flatnonzero(cut_by.looked)[-1]] = table
    return (
        Transfer(kind="spilled_results", moved_bytes=loaded),
        Transfer(kind="spilled_results", moved_bytes=stored, stored=True),
    )


def table_bytes(left: Remaining, accelerator: Accelerator) -> int:
    """Bytes of a tile's table: for each entry its tag, a valid bit, its age and its uses.

    The results lie in the DRAM at their entry's number, so no address is kept.
    """
    table, cache = stream_cache(left), accelerator.cache
    assert table is not None and cache is not None and left.decisions is not None
    hashes = left.decisions.signatures.hashes
    tag = max(0, hashes - (cache.entries // cache.ways).bit_length() + 1)
    age = 0 if cache.replacement == "random" else (cache.ways - 1).bit_length()
    uses = 0 if table.refresh_after is None else table.refresh_after.bit_length()
    return byte_count(cache.entries, tag + 1 + age + uses)


def stream_cache(left: Remaining) -> ClusterCache | None:
    """The table that a stream's clusters are kept in; `None` without a stream."""
    assert left.decisions is not None
    evidence = left.decisions.evidence
    return evidence.cache if isinstance(evidence, Signatures) else None


def _shared(left: Remaining) -> SharedRows:
    assert left.decisions is not None
    return left.decisions.shared


def by_tile(values: np.ndarray) -> np.ndarray:
    """`(count, s, groups)` as `(count, groups, 1, s)`."""
    return values.transpose(0, 2, 1)[:, :, None, :]


def rows_per_group(shared: SharedRows) -> int:
    """Rows that are clustered together."""
    return shared.gemm.m // shared.groups


def id_bits(left: Remaining) -> int:
    """Bits of a cluster's number: a group of r rows has at most r clusters."""
    assert left.decisions is not None
    largest, evidence = rows_per_group(_shared(left)), left.decisions.evidence
    # A stream's table may make two clusters of one signature.
    if isinstance(evidence, Signatures) and evidence.cache is None:
        largest = min(largest, 2**evidence.hashes)
    return max(1, (largest - 1).bit_length())


def _channels_touched(layer: Layer, shared: SharedRows) -> np.ndarray:
    """`(s,)` int64, elements of `k` in the input channels that each sub-matrix reads from."""
    convolution = layer.convolution
    taps = int(np.prod(convolution.kernel)) if layer.kind == "conv" and convolution else 1
    if shared.column_order is not None:  # the channels of one tap lie next to each other
        return np.minimum(shared.widths, layer.gemm.k // taps) * taps
    starts = np.arange(len(shared.widths), dtype=np.int64) * shared.sub_vector_length
    return (ceil_div(starts + shared.widths, taps) - starts // taps) * taps
