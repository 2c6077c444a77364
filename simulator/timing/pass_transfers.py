"""What tiles of passes move to and from the DRAM: operands, results, and what does not fit."""

import numpy as np

from accelerators import Accelerator
from simulator.decisions.evidence import Ranges, Signatures
from simulator.decisions.rows import SharedRows
from simulator.decisions.table import ClusterCache
from simulator.timing.pass_grid import PassGrid
from simulator.timing.remaining import Remaining
from simulator.timing.transfers import Transfer, byte_count, ceil_div
from workloads.traces.layer import Layer


def pass_transfers(
    left: Remaining, accelerator: Accelerator, cut_by: PassGrid
) -> tuple[Transfer, ...]:
    """DRAM bytes of every tile: operands, finished results, and what does not fit."""
    shared = shared_rows(left)
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
    left: Remaining, accelerator: Accelerator, cut_by: PassGrid, nothing: np.ndarray
) -> np.ndarray:
    """Weights that tiles load."""
    looks, gemm, bits = shared_rows(left).looks, left.layer.gemm, accelerator.operand_bits
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
    left: Remaining, accelerator: Accelerator, cut_by: PassGrid, nothing: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes of finished outputs, and of partial sums that travel out and in."""
    looks, bits = shared_rows(left).looks, accelerator.accumulator_bits
    half = accelerator.output_buffer.capacity_bytes // 2
    columns = cut_by.of_pass(cut_by.gathered_columns)
    finished = begun = cut_by.finished_rows(looks)
    if cut_by.gathered_rows is None:
        begun = cut_by.of_tiles(looks.open_rows)
    outputs = nothing.copy()
    stored = columns + cut_by.of_pass(cut_by.copied_columns)
    outputs[..., -1] = byte_count(finished * stored, accelerator.operand_bits)[..., 0]
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
    left: Remaining, accelerator: Accelerator, cut_by: PassGrid, nothing: np.ndarray
) -> np.ndarray:
    """Activations that tiles load."""
    shared, looks, gemm = shared_rows(left), shared_rows(left).looks, left.layer.gemm
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
    left: Remaining, accelerator: Accelerator, cut_by: PassGrid, nothing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes out and in of centroids, their results and ids that do not fit the centroid buffer."""
    shared, buffer = shared_rows(left), accelerator.centroid_buffer
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
    cut_by: PassGrid,
    results_out: np.ndarray,
    results_in: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The same with the old results that a stream's tiles use, and the new ones."""
    shared, bits = shared_rows(left), accelerator.accumulator_bits
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
    left: Remaining, accelerator: Accelerator, cut_by: PassGrid, nothing: np.ndarray
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
    table = stream_cache(left)
    assert table is not None and table.entries is not None and left.decisions is not None
    evidence = left.decisions.evidence
    if isinstance(evidence, Ranges):  # kept whole
        tag = evidence.key_bits
    else:
        hashes = left.decisions.signatures.hashes
        tag = max(0, hashes - (table.entries // table.set_ways).bit_length() + 1)
    ordered = table.replacement not in ("random", "none")
    age = (table.set_ways - 1).bit_length() if ordered else 0
    uses = 0 if table.refresh_after is None else table.refresh_after.bit_length()
    return byte_count(table.entries, tag + 1 + age + uses)


def stream_cache(left: Remaining) -> ClusterCache | None:
    """The table that a stream's clusters are kept in; `None` without a stream."""
    assert left.decisions is not None
    evidence = left.decisions.evidence
    return evidence.cache if isinstance(evidence, Signatures | Ranges) else None


def shared_rows(left: Remaining) -> SharedRows:
    """The layer's rows."""
    assert left.decisions is not None
    return left.decisions.shared


def id_bits(left: Remaining) -> int:
    """Bits of a cluster's number: a tile of so many vectors has at most as many clusters."""
    assert left.decisions is not None
    largest, evidence = int(shared_rows(left).looks.vectors.max()), left.decisions.evidence
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
