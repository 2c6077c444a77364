"""Passes: how a layer is cut where its rows are shared, and what its tiles move."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.decisions.evidence import Signatures
from simulator.decisions.rows import SharedRows
from simulator.decisions.table import ClusterCache
from simulator.timing.choosing import Way, least_traffic_times_cycles
from simulator.timing.remaining import Remaining
from simulator.timing.tiles import MOST_TILES, Tiles, check_tiles, cut
from simulator.timing.transfers import Transfer, access_bytes, byte_count, ceil_div
from workloads.traces.layer import Layer

# Columns of the narrowest pass where several taps multiply by each.
_NARROWEST = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Passes:
    """Passes over the tiles of vectors, P of them; in each, every view of a tile is a tile of work.

    Arrays of tiles are `(count, tiles of vectors, P, v)`, or with the passes outside
    `(count, P, tiles of vectors, v)`; what follows the `of_` methods broadcasts to them.

    Attributes:
        outside: whether all tiles of vectors are worked on in one pass after the other; else all
            passes in one tile of vectors after the other.
        looks_again: whether each pass looks at vectors for its columns; else the first pass of a
            tile does, and what it found of all views stays for the others.
        results_first: whether the first pass finds the results of all centroids and the later
            ones only gather them; else every pass does all for its columns.
        multiplied_columns: `(P,)` int64, columns of n that the pass multiplies; 0 where it only
            gathers.
        gathered_rows: `(P,)` int64, rows of a tile that the pass rebuilds where results come first;
            `None`: all that meet it.
        gathered_columns: `(P,)` int64, columns of them.
    """

    outside: bool
    looks_again: bool
    results_first: bool
    multiplied_columns: np.ndarray
    gathered_rows: np.ndarray | None
    gathered_columns: np.ndarray

    def of_pass(self, values: np.ndarray) -> np.ndarray:
        """`(P,)` values."""
        return values[:, None, None] if self.outside else values[:, None]

    def of_tile(self, values: np.ndarray) -> np.ndarray:
        """`(count, v, tiles)` values."""
        turned = values.transpose(0, 2, 1)
        return turned[:, None] if self.outside else turned[:, :, None]

    def of_tiles(self, values: np.ndarray) -> np.ndarray:
        """`(tiles,)` values, the same for all views."""
        return values[:, None] if self.outside else values[:, None, None]

    @property
    def looked(self) -> np.ndarray:
        """`(P,)` int64, 1 where the pass looks at vectors."""
        looked = (self.multiplied_columns > 0).astype(np.int64)
        if not self.looks_again:
            looked[1:] = 0
        return looked

    @property
    def times_looked(self) -> int:
        """Passes that look at vectors."""
        return int(self.looked.sum())

    def best(self, runs: Sequence[Way]) -> Way:
        """The one with the least product of cycles and traffic, of those worth waiting for."""
        return least_traffic_times_cycles(runs)

    def blame(
        self, tiles: Tiles, critical_cycles: dict[str, int], busy_cycles: int
    ) -> dict[str, int]:
        """As it is: the decisions, not the buffers, say how large tiles are."""
        return critical_cycles

    def shape(self, shared: SharedRows) -> tuple[int, int, int, int]:
        """Of the tiles of work."""
        count, views, tiles = shared.clusters.shape
        passes = len(self.multiplied_columns)
        return (count, passes, tiles, views) if self.outside else (count, tiles, passes, views)

    def tiles(self, left: Remaining, accelerator: Accelerator) -> Tiles:
        """The layer's tiles; the innermost are the views of a tile of vectors."""
        shared, looks = _shared(left), _shared(left).looks
        clusters = self.of_tile(shared.new_clusters).astype(np.int64)
        columns = self.of_pass(self.multiplied_columns) * looks.taps_of_view * (clusters > 0)
        times = self.times_looked  # every such pass looks, and hands on, anew
        buffer, length = accelerator.centroid_buffer, shared.sub_vector_length
        assert buffer is not None  # the decisions ask for it
        centroid_bytes = access_bytes(length, length, accelerator.operand_bits, buffer)
        bits, results = id_bits(left), shared.gemm.count * int(looks.handed.sum())
        multiplying = int(np.count_nonzero(self.multiplied_columns))
        if self.gathered_rows is None:
            handed_rows, taken = (self.of_tile(each[None]) for each in (looks.summed, looks.handed))
        else:
            handed_rows = taken = self.of_pass(self.gathered_rows)
        return Tiles(
            shape=self.shape(shared),
            rows=self.of_tile(looks.vectors[None]),
            looked=self.of_pass(self.looked),
            m=clusters,
            n=columns,
            k=shared.widths,
            inputs="centroid_buffer",
            sums="centroid_buffer",
            handed_rows=handed_rows,
            handed_columns=self.of_pass(self.gathered_columns),
            results=taken,
            transfers=_transfers(left, accelerator, self),
            actions={
                ("centroid_buffer", "write_byte"): times
                * (shared.total_clusters * centroid_bytes + byte_count(shared.sub_vectors, bits)),
                ("centroid_buffer", "read_byte"): multiplying * byte_count(results, bits),
            },
            cut=self,
        )


def passes_of(tiles: Tiles) -> Passes:
    """The passes that tiles of shared rows were cut by.

    Raises:
        ConfigError: their rows are not shared.
    """
    if isinstance(tiles.cut, Passes):
        return tiles.cut
    raise ConfigError(
        f"tiles must be of shared rows to be looked at vector by vector, got "
        f"{type(tiles.cut).__name__}; do not ask for the unit"
    )


def best_passes(left: Remaining, accelerator: Accelerator) -> list[Tiles]:
    """The layer under all passes worth trying.

    Loops, outermost first: GEMMs, tiles of vectors, passes, views; or GEMMs, passes, tiles of
    vectors, views. The innermost is a tile of work. A tile's vectors are looked at; then its
    centroids are multiplied by the array, with the weights of all taps that meet them; then their
    results are gathered for the rows that take them and added to these rows' partial sums, once
    for all taps.

    Partial sums beyond half of the output buffer travel out and back for every tile, and so do a
    tile's centroids, results and ids beyond half of the centroid buffer; where results come first,
    all of a group's results and ids travel unless they fit. Sums of rows that meet pixels of
    several tiles stay begun from the first to the last of them. Activations of a tile are loaded
    once where they fit half of the activation buffer, and only what is new where those that the
    next tiles read as well do; else each tile of work loads the channels it touches. All weights
    are loaded once where they fit the weight buffer, or, with the passes outside, where those of a
    pass fit half of it; else once per tile of vectors.

    In a stream (`Signatures.cache`), only new clusters are multiplied; a tile loads its table, and
    the old results that its rows use. Each pass that looks loads a tile's table as it was before
    the batch; the last stores it. All new results are stored, also those forgotten within the
    batch. Weights are loaded where a tile has new clusters.

    Not modelled: the wait of a spilled byte's return for its own way out; halo rows of images; that
    old results and weights are asked for only when a tile is looked at.

    Raises:
        ConfigError: the layer needs too many tiles.
    """
    shared = _shared(left)
    check_tiles(left.layer.gemm, shared.clusters.size)
    return [each.tiles(left, accelerator) for each in passes(left, accelerator)]


def passes(left: Remaining, accelerator: Accelerator) -> list[Passes]:
    """Passes worth trying.

    By columns: all of n at once; and once, twice, four times ... the array's columns, or 8 where a
    pixel is looked at once, as long as the partial sums of a tile fit half of the output buffer:
    each pass looks again or, in tiles, the first one looks for all. Where there are several tiles
    that need several passes, also with the passes outside, which look again. Results first, only
    where a group's sums do not fit: then as many rows at once as do, in powers of two. Those of
    more tiles than can be scheduled are left out; all of n at once is always there.
    """
    shared, n = _shared(left), left.n
    looks = shared.looks
    rows = int(looks.open_rows.max())
    half_bits = accelerator.output_buffer.capacity_bytes * 8 // 2
    columns_fitting = half_bits // (rows * accelerator.accumulator_bits)
    found = [_by_columns(n, n, outside=False)]
    width = accelerator.array.columns if looks.taps == 1 else _NARROWEST
    while width < n and width <= columns_fitting:
        found.append(_by_columns(n, width, outside=False))
        if looks.tile_of is not None:
            found.append(_by_columns(n, width, outside=False, looks_again=False))
        if looks.tile_of is not None and looks.tiles > 1:
            found.append(_by_columns(n, width, outside=True))
        width *= 2
    rows_fitting = half_bits // (n * accelerator.accumulator_bits)
    height = 1 << (min(rows, rows_fitting).bit_length() - 1) if rows_fitting else 0
    if columns_fitting < n and height and looks.tile_of is None:
        gathered = cut(rows, height)
        nothing = np.zeros(1, np.int64)
        found.append(
            Passes(
                outside=False,
                looks_again=True,
                results_first=True,
                multiplied_columns=np.concatenate([[n], np.zeros_like(gathered)]),
                gathered_rows=np.concatenate([nothing, gathered]),
                gathered_columns=np.concatenate([nothing, np.full_like(gathered, n)]),
            )
        )
    most = MOST_TILES // shared.clusters.size
    return found[:1] + [each for each in found[1:] if len(each.multiplied_columns) <= most]


def _by_columns(n: int, width: int, *, outside: bool, looks_again: bool = True) -> Passes:
    columns = cut(n, width)
    return Passes(
        outside=outside,
        looks_again=looks_again,
        results_first=False,
        multiplied_columns=columns,
        gathered_rows=None,
        gathered_columns=columns,
    )


def _transfers(left: Remaining, accelerator: Accelerator, cut_by: Passes) -> tuple[Transfer, ...]:
    """DRAM bytes of every tile: operands, finished results, and what does not fit."""
    shared = _shared(left)
    nothing = np.zeros(cut_by.shape(shared), np.int64)
    weights = _weights(left, accelerator, cut_by, nothing)
    outputs, sums_out, sums_in = _sums(left, accelerator, cut_by, nothing)
    results_out, results_in = _results(left, accelerator, cut_by, nothing)
    tables: tuple[Transfer, ...] = ()
    if stream_cache(left) is not None:
        weights = weights * (cut_by.of_tile(shared.new_clusters) > 0)
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


def _weights(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> np.ndarray:
    """Weights that tiles load."""
    looks, gemm, bits = _shared(left).looks, left.layer.gemm, accelerator.operand_bits
    room = accelerator.weight_buffer.capacity_bytes
    columns = cut_by.of_pass(cut_by.multiplied_columns)
    weights = nothing + byte_count(columns * looks.widths * looks.taps_of_view, bits)
    of_pass = byte_count(gemm.k * int(cut_by.multiplied_columns.max()), bits)
    if cut_by.outside:
        if of_pass <= room // 2:
            weights[:, :, 1:] = 0
    elif byte_count(gemm.k * left.n, bits) <= room:
        weights[:, 1:] = 0
    return weights


def _sums(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes of finished outputs, and of partial sums that travel out and in."""
    looks, bits = _shared(left).looks, accelerator.accumulator_bits
    half = accelerator.output_buffer.capacity_bytes // 2
    columns = cut_by.of_pass(cut_by.gathered_columns)
    if cut_by.gathered_rows is None:
        finished, begun = cut_by.of_tiles(looks.finished_rows), cut_by.of_tiles(looks.open_rows)
    else:
        finished = begun = cut_by.of_pass(cut_by.gathered_rows)
    outputs = nothing.copy()
    outputs[..., -1] = byte_count(finished * columns, accelerator.operand_bits)[..., 0]
    # Sums that a tile leaves begun, and finds so.
    stay = looks.open_rows - looks.finished_rows
    going, coming = cut_by.of_tiles(stay), cut_by.of_tiles(np.append(0, stay[:-1]))
    elsewhere = 0 if cut_by.outside else np.maximum(going, coming) * (left.n - columns)
    excess = np.maximum(0, byte_count(begun * columns + elsewhere, bits) - half)
    sums_out, sums_in = nothing + excess, nothing + excess
    # The first view starts from what the tile finds; the last one leaves what stays begun, and the
    # rest as outputs.
    sums_in[..., 0] = np.minimum(excess, byte_count(coming * columns, bits))[..., 0]
    sums_out[..., -1] = np.minimum(excess, byte_count(going * columns, bits))[..., 0]
    return outputs, sums_out, sums_in


def _inputs(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> np.ndarray:
    """Activations that tiles load."""
    shared, looks, gemm = _shared(left), _shared(left).looks, left.layer.gemm
    elements, bits = left.layer.input_elements // gemm.count, accelerator.operand_bits
    half = accelerator.activation_buffer.capacity_bytes // 2
    if looks.loaded is None:
        tile_bytes = np.full(looks.tiles, byte_count(elements // looks.tiles, bits), np.int64)
        window_bytes = int(tile_bytes[0])
    else:
        loaded, total = looks.loaded, byte_count(elements, bits)
        window_bytes = ceil_div(loaded.window * total, loaded.positions)
        own = loaded.fresh if window_bytes <= half else loaded.touched
        tile_bytes = np.diff(np.concatenate([[0], np.cumsum(own)]) * total // loaded.positions)
    fits = window_bytes <= half or int(tile_bytes.max()) <= half
    read = looks.widths if fits or looks.taps > 1 else _channels_touched(left.layer, shared)
    # Each view's share of the tile's input, by what it reads; rounded so that they add up.
    vectors = looks.vectors
    whole = (looks.widths[:, None] * vectors).sum(axis=0)
    ends = np.cumsum(read[:, None] * vectors, axis=0) * tile_bytes // np.maximum(1, whole)
    share = np.diff(np.concatenate([np.zeros((1, looks.tiles), np.int64), ends]), axis=0)
    inputs = nothing + cut_by.of_tile(share[None]) * cut_by.of_pass(cut_by.looked)
    if cut_by.outside:
        if byte_count(elements, bits) <= accelerator.activation_buffer.capacity_bytes:
            inputs[:, 1:] = 0
    elif fits:
        inputs[:, :, 1:] = 0
    return inputs


def _results(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes out and in of centroids, their results and ids that do not fit the centroid buffer."""
    shared, buffer = _shared(left), accelerator.centroid_buffer
    assert buffer is not None  # the decisions ask for it
    half, bits = buffer.capacity_bytes // 2, id_bits(left)
    vectors = cut_by.of_tile(shared.looks.vectors[None])
    columns = cut_by.of_pass(cut_by.multiplied_columns) * shared.looks.taps_of_view
    clusters = cut_by.of_tile(shared.clusters).astype(np.int64)
    results = byte_count(clusters * columns, accelerator.accumulator_bits)
    if not cut_by.results_first:
        centroids = byte_count(
            cut_by.of_tile(shared.new_clusters) * shared.widths, accelerator.operand_bits
        )
        found = centroids + byte_count(vectors, bits)
        if not cut_by.looks_again:
            found = found.sum(axis=3, keepdims=True)
        held = found + results
        spilled = nothing + np.maximum(0, held - half)
        return spilled, spilled
    assert cut_by.gathered_rows is not None
    results = results[:, :, :1]
    held = results + byte_count(vectors, bits)
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
    columns = cut_by.of_pass(cut_by.multiplied_columns)
    used = cut_by.of_tile(shared.clusters).astype(np.int64)
    new = cut_by.of_tile(shared.new_clusters)
    old_results = byte_count((used - new) * columns, bits)
    new_results = byte_count(new * columns, bits)
    if not cut_by.results_first:
        return results_out + new_results, results_in + old_results
    # Results that do not stay on the chip lie in the DRAM anyway: the old ones already.
    travels = results_out[:, :, :1] > 0
    ids = byte_count(shared.gemm.m // shared.groups, id_bits(left))
    results_in[:, :, :1] += old_results[:, :, :1] * ~travels
    results_out[:, :, :1] = new_results[:, :, :1] + ids * travels
    return results_out, results_in


def _tables(
    left: Remaining, accelerator: Accelerator, cut_by: Passes, nothing: np.ndarray
) -> tuple[Transfer, ...]:
    """A stream's tables: loaded for every pass that looks, stored by the last."""
    table = table_bytes(left, accelerator)
    loaded = nothing + table * cut_by.of_pass(cut_by.looked)
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


def id_bits(left: Remaining) -> int:
    """Bits of a cluster's number: a tile of so many vectors has at most as many clusters."""
    assert left.decisions is not None
    largest, evidence = int(_shared(left).looks.vectors.max()), left.decisions.evidence
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
