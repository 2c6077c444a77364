"""A layer under reuse: the decisions replayed on front-end, cache, array and reconstructor."""

from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.reuse.decisions import ReuseDecisions
from simulator.timing.array import ceil_div, gemm_cycles
from simulator.timing.cache import CacheReplay, replay
from simulator.timing.dense import check_weight_tile
from simulator.timing.layer import (
    ActionCounts,
    LayerTiming,
    byte_count,
    register_bytes,
    transfer_cycles,
)
from simulator.timing.pipeline import makespan_cycles
from workloads.gemm import Layer


@dataclass(frozen=True, kw_only=True)
class _Traffic:
    """DRAM bytes of every tile, `(count, groups, column tiles, s)` int64 each."""

    activation: np.ndarray
    weight: np.ndarray
    spill_in: np.ndarray
    spill_out: np.ndarray
    output: np.ndarray


def reuse_timing(layer: Layer, decisions: ReuseDecisions, accelerator: Accelerator) -> LayerTiming:
    """Time a layer whose rows share results as `decisions` say.

    Loops, outermost first: GEMMs, row groups, column tiles (of n), sub-matrices; the innermost is
    a tile. A tile is hashed while its signatures go through the cache; then its centroids are
    multiplied by the array; then its rows are gathered and added to the group's partial sums.
    Tiles overlap, one block apart, through double buffers.

    Column tiles are chosen to be fastest: one, or several that keep the group's partial sums in
    half of the output buffer but hash the group again each.

    Paid, beside the multiplications: clearing the table, hashing, accumulating and dividing
    centroids, refills of a cache that is too small, one gather-add per sub-vector, and the DRAM
    traffic of what does not fit: partial sums of a group beyond half of the output buffer, and
    centroids, their results and the ids beyond half of the centroid buffer, travel out and back
    for every tile. Activations of a group are loaded once where they fit half of the activation
    buffer, else each tile loads the channels it touches. All weights are loaded once where they
    fit the weight buffer, else once per group.

    Not modelled: the wait of a spilled byte's return for its own way out; halo rows.

    Raises:
        ConfigError: the accelerator has no reuse units, or not the ones the decisions need.
    """
    _check(decisions, accelerator)
    replayed = replay(decisions, accelerator.reuse_units.cache)
    timings = (
        _tiled(layer, decisions, replayed, accelerator, columns)
        for columns in _column_tiles(decisions, accelerator)
    )
    return min(timings, key=lambda timing: timing.cycles)


def _column_tiles(decisions: ReuseDecisions, accelerator: Accelerator) -> list[np.ndarray]:
    """Ways to cut n worth trying, each the `(column tiles,)` int64 widths of its tiles.

    All of n; and once, twice, four times ... the array's columns, as long as the group's partial
    sums fit half of the output buffer. A larger buffer allows all that a smaller one does.
    """
    n, width = decisions.gemm.n, accelerator.array.columns
    row_bits = _rows_per_group(decisions) * accelerator.accumulator_bits
    fitting = accelerator.output_buffer.capacity_bytes * 8 // 2 // row_bits
    choices = [np.array([n], np.int64)]
    while width < n and width <= fitting:
        tiles = np.full(ceil_div(n, width), width, np.int64)
        tiles[-1] = n - width * (len(tiles) - 1)
        choices.append(tiles)
        width *= 2
    return choices


def _tiled(
    layer: Layer,
    decisions: ReuseDecisions,
    replayed: CacheReplay,
    accelerator: Accelerator,
    columns: np.ndarray,
) -> LayerTiming:
    """Time a layer with n cut into tiles of `columns`."""
    # (count, groups, column tiles, s): the order in which tiles are worked on.
    clusters = decisions.clusters.transpose(0, 2, 1).astype(np.int64)[:, :, None, :]
    shape = (*clusters.shape[:2], len(columns), clusters.shape[3])
    front_end, cache, hash_and_cache = _front_cycles(decisions, replayed, clusters, accelerator)
    array = gemm_cycles(accelerator.array, clusters, columns[:, None], decisions.widths)
    gather = _gather_cycles(decisions, columns, accelerator)[:, None]
    blocks = np.stack(
        [np.broadcast_to(cycles, shape).ravel() for cycles in (hash_and_cache, array, gather)]
    )
    traffic = _traffic(layer, decisions, clusters, accelerator, columns)
    load = transfer_cycles(traffic.activation + traffic.weight + traffic.spill_in, accelerator)
    store = transfer_cycles(traffic.output + traffic.spill_out, accelerator)

    def total(cycles: np.ndarray) -> int:
        return int(np.broadcast_to(cycles, shape).sum())

    return LayerTiming(
        cycles=int(makespan_cycles(load.ravel(), blocks, store.ravel())),
        busy_cycles={
            "memory": total(load) + total(store),
            "front_end": total(front_end),
            "cache": total(cache),
            "array": total(array),
            "reconstruction": total(gather),
        },
        actions=_actions(decisions, replayed, traffic, accelerator, columns),
        macs=decisions.macs,
    )


def _check(decisions: ReuseDecisions, accelerator: Accelerator) -> None:
    """The accelerator must be able to do what was decided."""
    if decisions.projection == "int8" and accelerator.reuse_units.front_end.projection == "sign":
        raise ConfigError(
            "Accelerator.front_end.projection must be 'int8' for a policy with int8 projections, "
            "got 'sign'; use projection='sign' in the policy or 'int8' in the front-end"
        )
    check_weight_tile(accelerator)


def _rows_per_group(decisions: ReuseDecisions) -> int:
    return decisions.gemm.m // decisions.groups


def _front_cycles(
    decisions: ReuseDecisions, replayed: CacheReplay, clusters: np.ndarray, accelerator: Accelerator
):
    """Busy cycles of front-end and cache, and of both together, `(count, groups, 1, s)` each.

    A lane takes one sub-vector a cycle; longer sub-vectors or signatures than it is built for take
    several. The cache takes a signature when it comes, after its table was cleared, and at the end
    hands each centroid on.
    """
    unit, cache = accelerator.reuse_units.front_end, accelerator.reuse_units.cache
    rows = _rows_per_group(decisions)
    passes = ceil_div(decisions.hashes, unit.max_hashes) * ceil_div(
        decisions.widths, unit.max_length
    )
    hashing = np.broadcast_to(ceil_div(rows, unit.lanes) * passes, clusters.shape)
    refills = replayed.refills.transpose(0, 2, 1)[:, :, None, :]
    accessing = (
        ceil_div(cache.entries, cache.clear_entries_per_cycle)
        + ceil_div(rows, cache.accesses_per_cycle)
        + refills * cache.miss_cycles
        + ceil_div(clusters, cache.accesses_per_cycle)
    )
    return hashing, accessing, unit.latency_cycles + np.maximum(hashing, accessing)


def _gather_cycles(
    decisions: ReuseDecisions, columns: np.ndarray, accelerator: Accelerator
) -> np.ndarray:
    """Cycles to rebuild a tile: a port gathers `width` partial sums of a row a cycle."""
    unit = accelerator.reuse_units.reconstructor
    return ceil_div(_rows_per_group(decisions) * ceil_div(columns, unit.width), unit.ports)


def _id_bits(decisions: ReuseDecisions) -> int:
    """Bits of a cluster's number: a group of r rows has at most r clusters."""
    largest = min(_rows_per_group(decisions), 2**decisions.hashes)
    return max(1, (largest - 1).bit_length())


def _channels_touched(layer: Layer, decisions: ReuseDecisions) -> np.ndarray:
    """`(s,)` int64, elements of `k` in the input channels that each sub-matrix reads from."""
    convolution = layer.convolution
    taps = int(np.prod(convolution.kernel)) if layer.kind == "conv" and convolution else 1
    starts = np.arange(len(decisions.widths), dtype=np.int64) * decisions.sub_vector_length
    return (ceil_div(starts + decisions.widths, taps) - starts // taps) * taps


def _traffic(
    layer: Layer,
    decisions: ReuseDecisions,
    clusters: np.ndarray,
    accelerator: Accelerator,
    columns: np.ndarray,
) -> _Traffic:
    """DRAM bytes of every tile; `clusters` is `(count, groups, 1, s)`."""
    gemm, widths = decisions.gemm, decisions.widths
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    rows = _rows_per_group(decisions)
    shape = (*clusters.shape[:2], len(columns), clusters.shape[3])
    group_elements = layer.input_elements // (gemm.count * decisions.groups)
    group_bytes = byte_count(group_elements, operand)
    resident = group_bytes <= accelerator.activation_buffer.capacity_bytes // 2
    read = widths if resident else _channels_touched(layer, decisions)
    activation = np.zeros(shape, np.int64)
    # Each tile's share of the group's input, by what it reads; rounded so that they add up.
    activation[:, :, slice(0, 1) if resident else slice(None)] = np.diff(
        np.concatenate([[0], np.cumsum(read)]) * group_bytes // gemm.k
    )

    weight = np.zeros(shape, np.int64)
    all_weights = byte_count(gemm.k * gemm.n, operand)
    once = all_weights <= accelerator.weight_buffer.capacity_bytes
    weight[:, slice(0, 1) if once else slice(None)] = byte_count(columns[:, None] * widths, operand)

    sums = byte_count(rows * columns, accumulator)
    excess_sums = np.maximum(0, sums - accelerator.output_buffer.capacity_bytes // 2)[:, None]
    held = (
        byte_count(clusters * widths, operand)
        + byte_count(clusters * columns[:, None], accumulator)
        + byte_count(rows, _id_bits(decisions))
    )
    excess = np.maximum(0, held - accelerator.reuse_units.centroid_buffer.capacity_bytes // 2)
    spill_in, spill_out = excess.copy(), excess.copy()
    spill_in[..., 1:] += excess_sums  # the first tile starts from nothing
    spill_out[..., :-1] += excess_sums  # the last one's sums leave as outputs
    output = np.zeros(shape, np.int64)
    output[..., -1] = byte_count(rows * columns, operand)
    return _Traffic(
        activation=activation,
        weight=weight,
        spill_in=spill_in,
        spill_out=spill_out,
        output=output,
    )


def _actions(
    decisions: ReuseDecisions,
    replayed: CacheReplay,
    traffic: _Traffic,
    accelerator: Accelerator,
    columns: np.ndarray,
) -> ActionCounts:
    """Everything that is done for the layer, counted."""
    gemm, array = decisions.gemm, accelerator.array
    times = len(columns)  # every column tile hashes, accumulates and divides anew
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    per_sub_matrix = decisions.clusters.sum(axis=(0, 2), dtype=np.int64)
    centroid_elements = int((per_sub_matrix * decisions.widths).sum())
    k_folds = ceil_div(decisions.widths, array.rows)
    result_writes = int((per_sub_matrix * k_folds).sum()) * gemm.n
    elements = gemm.count * gemm.m * gemm.k
    sub_vectors, clusters = decisions.sub_vectors, decisions.total_clusters
    gathered = sub_vectors * gemm.n
    outputs = gemm.count * gemm.m * gemm.n
    weight_reads = gemm.count * decisions.groups * gemm.k * gemm.n
    refills, evictions = int(replayed.refills.sum()), int(replayed.evictions.sum())
    folded_columns = int(ceil_div(columns, array.columns).sum())  # n folds of all column tiles
    id_bytes = times * byte_count(sub_vectors, _id_bits(decisions))
    row_bytes = byte_count(decisions.sub_vector_length, 16) + 2  # running sums and a count
    loaded_activation, loaded_weight = int(traffic.activation.sum()), int(traffic.weight.sum())
    spilled_in, spilled_out = int(traffic.spill_in.sum()), int(traffic.spill_out.sum())
    return ActionCounts(
        {
            ("front_end", "project"): times * elements * decisions.hashes,
            ("front_end", "compare"): times * sub_vectors * decisions.hashes,
            ("cache", "lookup"): times * sub_vectors,
            # All but a cluster's first sub-vector read to add to it; the end reads to hand it on.
            ("cache", "read_row"): times * sub_vectors,
            ("cache", "write_row"): times * (sub_vectors + refills),
            ("cache", "accumulate"): times * (elements - centroid_elements),
            ("cache", "divide"): times * centroid_elements,
            ("cache", "clear_entry"): times
            * decisions.clusters.size
            * accelerator.reuse_units.cache.entries,
            ("array", "mac"): decisions.macs,
            ("array", "register_byte"): register_bytes(accelerator, decisions.macs)
            + byte_count(weight_reads, operand),
            ("activation_buffer", "write_byte"): loaded_activation,
            ("activation_buffer", "read_byte"): times * byte_count(elements, operand),
            ("weight_buffer", "write_byte"): loaded_weight,
            ("weight_buffer", "read_byte"): byte_count(weight_reads, operand),
            ("centroid_buffer", "write_byte"): times * byte_count(centroid_elements, operand)
            + byte_count(result_writes, accumulator)
            + id_bytes
            + times * evictions * row_bytes,
            ("centroid_buffer", "read_byte"): byte_count(
                centroid_elements * folded_columns, operand
            )
            + byte_count(result_writes - clusters * gemm.n + gathered, accumulator)
            + id_bytes
            + times * refills * row_bytes,
            ("reconstructor", "add"): gathered - outputs,
            ("output_buffer", "write_byte"): byte_count(gathered, accumulator),
            # One read per later sub-matrix, and one to store the outputs.
            ("output_buffer", "read_byte"): byte_count(gathered, accumulator),
            ("dram", "read_byte"): loaded_activation + loaded_weight + spilled_in,
            ("dram", "write_byte"): int(traffic.output.sum()) + spilled_out,
        }
    )
