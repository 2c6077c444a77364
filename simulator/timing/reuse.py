"""A layer under reuse: the decisions replayed on front-end, cache, array and reconstructor."""

from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.reuse.decisions import ReuseDecisions
from simulator.timing.array import ceil_div, gemm_cycles
from simulator.timing.cache import CacheReplay
from simulator.timing.engine import COMPILED, Engine
from simulator.timing.layer import (
    ActionCounts,
    LayerTiming,
    byte_count,
    check_stationary_tile,
    port_cycles,
    register_bytes,
    transfer_cycles,
)
from simulator.timing.schedule import Makespan, Schedule, slowest
from workloads.gemm import Layer

STAGES = ("hashing", "array", "reconstruction")


@dataclass(frozen=True, kw_only=True)
class _Traffic:
    """DRAM bytes of every tile, `(count, groups, column tiles, s)` int64 each."""

    activation: np.ndarray
    weight: np.ndarray
    spill_in: np.ndarray
    spill_out: np.ndarray
    output: np.ndarray

    @property
    def loads(self) -> np.ndarray:
        """Bytes in."""
        return self.activation + self.weight + self.spill_in

    @property
    def stores(self) -> np.ndarray:
        """Bytes out."""
        return self.output + self.spill_out

    @property
    def total_bytes(self) -> int:
        """Bytes in and out, of all tiles."""
        return int(self.loads.sum() + self.stores.sum())


def reuse_timing(
    layer: Layer,
    decisions: ReuseDecisions,
    accelerator: Accelerator,
    engine: Engine = COMPILED,
) -> LayerTiming:
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
    vectors, interval = _front_end_rate(decisions, accelerator)
    replayed = engine.replay(
        decisions, accelerator.cache, vectors_per_group=vectors, cycles_per_group=interval
    )
    scheduled = [
        _Scheduled(layer, decisions, replayed, accelerator, columns)
        for columns in _column_tiles(decisions, accelerator)
    ]
    runs = [(engine.run(each.schedule), each) for each in scheduled]
    makespan, best = min(runs, key=lambda run: (run[0].cycles, run[1].traffic.total_bytes))
    return best.timing(makespan)


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


class _Scheduled:
    """A layer with n cut into tiles of `columns`.

    Arrays are `(count, groups, column tiles, s)`, the order in which tiles are worked on, or
    broadcast to it.
    """

    def __init__(
        self,
        layer: Layer,
        decisions: ReuseDecisions,
        replayed: CacheReplay,
        accelerator: Accelerator,
        columns: np.ndarray,
    ) -> None:
        self.decisions, self.replayed, self.accelerator = decisions, replayed, accelerator
        self.columns = columns
        self.clusters = _by_tile(decisions.clusters).astype(np.int64)
        self.shape = (*self.clusters.shape[:2], len(columns), self.clusters.shape[3])
        self.traffic = _traffic(layer, decisions, self.clusters, accelerator, columns)
        self.busy: dict[str, np.ndarray] = {}
        stages = (self._hash(), self._multiply(), self._rebuild())
        occupancy, limits, latency = zip(*stages, strict=True)
        traffic = self.traffic
        self.schedule = Schedule(
            stages=STAGES,
            load_cycles=transfer_cycles(traffic.loads, accelerator).ravel(),
            load_latency_cycles=accelerator.dram.latency_cycles,
            store_cycles=transfer_cycles(traffic.stores, accelerator).ravel(),
            occupancy_cycles=np.stack([part.ravel() for part in occupancy]),
            latency_cycles=np.stack([self._full(part) for part in latency]),
            limits=np.stack([part.ravel() for part in limits]),
        )

    def _full(self, values) -> np.ndarray:
        """One value a tile, flat."""
        return np.broadcast_to(values, self.shape).astype(np.int64).ravel()

    def _hash(self):
        """Hash a tile's rows while the cache, cleared before, takes them and hands centroids on."""
        decisions, accelerator = self.decisions, self.accelerator
        cache, rows = accelerator.cache, _rows_per_group(decisions)
        vectors, interval = _front_end_rate(decisions, accelerator)
        hashing = ceil_div(rows, vectors) * interval
        around = ceil_div(cache.entries, cache.clear_entries_per_cycle) + ceil_div(
            self.clusters, cache.banks
        )
        accessing = _by_tile(self.replayed.cycles)
        waiting = _by_tile(self.replayed.waiting_cycles)
        self.busy["front_end"] = hashing
        self.busy["cache"] = around + accessing - waiting
        reads = byte_count(rows * decisions.widths, accelerator.operand_bits)
        reading = port_cycles(reads, accelerator.activation_buffer)
        # Both work at once, so together they may take longer than either alone; the busier one
        # is to blame.
        _, limits = slowest(
            {
                "front_end": hashing,
                "cache": self.busy["cache"],
                "activation_buffer": reading,
            },
            self.shape,
        )
        occupancy = np.broadcast_to(np.maximum(around + accessing, reading), self.shape)
        return occupancy.astype(np.int64), limits, accelerator.front_end.latency_cycles

    def _multiply(self):
        """Multiply a tile's centroids by their rows of the weights."""
        decisions, accelerator, columns = self.decisions, self.accelerator, self.columns[:, None]
        widths, array = decisions.widths, accelerator.array
        cycles, latency = gemm_cycles(array, self.clusters, columns, widths)
        self.busy["array"] = cycles
        centroid_passes, weight_passes, updates = _array_passes(
            accelerator, self.clusters, columns, widths
        )
        centroids = byte_count(self.clusters * widths * centroid_passes, accelerator.operand_bits)
        weights = byte_count(columns * widths * weight_passes, accelerator.operand_bits)
        results = byte_count(self.clusters * columns * updates, accelerator.accumulator_bits)
        occupancy, limits = slowest(
            {
                "array": cycles,
                "weight_buffer": port_cycles(weights, accelerator.weight_buffer),
                "centroid_buffer": port_cycles(
                    centroids + 2 * results, accelerator.centroid_buffer
                ),
            },
            self.shape,
        )
        return occupancy, limits, latency

    def _rebuild(self):
        """Gather a tile's rows and add them up: a port takes `width` sums of a row a cycle."""
        decisions, accelerator, columns = self.decisions, self.accelerator, self.columns[:, None]
        unit, rows = accelerator.reconstructor, _rows_per_group(decisions)
        cycles = ceil_div(rows * ceil_div(columns, unit.width), unit.ports)
        self.busy["reconstruction"] = cycles
        moved = byte_count(rows * columns, accelerator.accumulator_bits)
        occupancy, limits = slowest(
            {
                "reconstruction": cycles,
                "centroid_buffer": port_cycles(moved, accelerator.centroid_buffer),
                "output_buffer": port_cycles(2 * moved, accelerator.output_buffer),
            },
            self.shape,
        )
        return occupancy, limits, 0

    def timing(self, makespan: Makespan) -> LayerTiming:
        """The layer as an engine saw it."""
        schedule = self.schedule
        busy = {block: int(self._full(cycles).sum()) for block, cycles in self.busy.items()}
        return LayerTiming(
            cycles=makespan.cycles,
            critical_cycles=makespan.critical_cycles,
            busy_cycles={
                "memory": int(schedule.load_cycles.sum() + schedule.store_cycles.sum()),
                **busy,
            },
            actions=_actions(
                self.decisions, self.replayed, self.traffic, self.accelerator, self.columns
            ),
            macs=self.decisions.macs,
            schedule=schedule,
        )


def _by_tile(values: np.ndarray) -> np.ndarray:
    """`(count, s, groups)` as `(count, groups, 1, s)`."""
    return values.transpose(0, 2, 1)[:, :, None, :]


def _array_passes(accelerator: Accelerator, clusters, columns, widths):
    """How often a centroid is streamed, a weight is streamed, and a result is updated."""
    array = accelerator.array
    match array.dataflow:
        case "weight_stationary":
            return ceil_div(columns, array.columns), 1, ceil_div(widths, array.rows)
        case "output_stationary":
            return ceil_div(columns, array.columns), ceil_div(clusters, array.rows), 1
        case "input_stationary":
            return 1, ceil_div(clusters, array.columns), ceil_div(widths, array.rows)
    raise ValueError(f"unknown dataflow {array.dataflow!r}")


def _check(decisions: ReuseDecisions, accelerator: Accelerator) -> None:
    """The accelerator must be able to do what was decided."""
    if not accelerator.has_reuse:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have reuse units to run layer "
            f"{decisions.layer!r} under reuse, got none; add front_end, cache, centroid_buffer "
            "and reconstructor, or use NoReuse()"
        )
    built, wanted = accelerator.front_end.projection, decisions.projection
    # Wired-up coefficients do one kind only; an int8 multiplier does them all.
    if built not in ("int8", wanted):
        raise ConfigError(
            f"Accelerator.front_end.projection must be 'int8' or {wanted!r} for a policy with "
            f"{wanted} projections, got {built!r}; change one of them"
        )
    check_stationary_tile(accelerator)


def _rows_per_group(decisions: ReuseDecisions) -> int:
    return decisions.gemm.m // decisions.groups


def _front_end_rate(decisions: ReuseDecisions, accelerator: Accelerator):
    """Sub-vectors hashed at once, and cycles that takes, `(s,)` int64 each.

    A lane takes one sub-vector a cycle, or as many short ones as it has elements for if it packs;
    longer sub-vectors or signatures than it is built for take several passes.
    """
    unit = accelerator.front_end
    packed = np.maximum(1, unit.max_length // decisions.widths) if unit.packing else 1
    passes = ceil_div(decisions.hashes, unit.max_hashes) * ceil_div(
        decisions.widths, unit.max_length
    )
    return np.broadcast_to(unit.lanes * packed, passes.shape).astype(np.int64), passes


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
    excess = np.maximum(0, held - accelerator.centroid_buffer.capacity_bytes // 2)
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
    gemm = decisions.gemm
    times = len(columns)  # every column tile hashes, accumulates and divides anew
    sparsity = 3 if decisions.projection == "sparse" else 1  # one element in three is added
    operand, accumulator = accelerator.operand_bits, accelerator.accumulator_bits
    tiles = _by_tile(decisions.clusters).astype(np.int64)
    centroid_passes, weight_passes, updates = _array_passes(
        accelerator, tiles, columns[:, None], decisions.widths
    )
    centroid_elements = int((tiles * decisions.widths).sum())
    per_column_tile = np.broadcast_to(centroid_passes, traffic.weight.shape)
    centroid_reads = int((tiles * decisions.widths * per_column_tile).sum())
    result_writes = int((tiles * updates * columns[:, None]).sum())
    weight_reads = int(
        np.broadcast_to(
            columns[:, None] * decisions.widths * weight_passes, traffic.weight.shape
        ).sum()
    )
    elements = gemm.count * gemm.m * gemm.k
    sub_vectors, clusters = decisions.sub_vectors, decisions.total_clusters
    gathered = sub_vectors * gemm.n
    outputs = gemm.count * gemm.m * gemm.n
    refills, evictions = int(replayed.refills.sum()), int(replayed.evictions.sum())
    id_bytes = times * byte_count(sub_vectors, _id_bits(decisions))
    row_bytes = byte_count(decisions.sub_vector_length, 16) + 2  # running sums and a count
    loaded_activation, loaded_weight = int(traffic.activation.sum()), int(traffic.weight.sum())
    spilled_in, spilled_out = int(traffic.spill_in.sum()), int(traffic.spill_out.sum())
    return ActionCounts(
        {
            ("front_end", "project"): times * elements * decisions.hashes // sparsity,
            ("front_end", "compare"): times * sub_vectors * decisions.hashes,
            ("cache", "lookup"): times * sub_vectors,
            # All but a cluster's first sub-vector read to add to it; the end reads to hand it on.
            ("cache", "read_row"): times * sub_vectors,
            ("cache", "write_row"): times * (sub_vectors + refills),
            ("cache", "accumulate"): times * (elements - centroid_elements),
            ("cache", "divide"): times * centroid_elements,
            ("cache", "clear_entry"): times * decisions.clusters.size * accelerator.cache.entries,
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
            ("centroid_buffer", "read_byte"): byte_count(centroid_reads, operand)
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
