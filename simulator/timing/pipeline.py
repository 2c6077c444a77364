"""A layer under reuse: the decisions replayed on front-end, cache, array and reconstructor."""

import math

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.decisions.box import Decisions
from simulator.timing.array import ceil_div, gemm_cycles
from simulator.timing.engines.compiled_cache import CacheReplay
from simulator.timing.engines.engine import COMPILED, Engine
from simulator.timing.layer import (
    ActionCounts,
    LayerTiming,
    access_bytes,
    burst_bytes,
    byte_count,
    check_feeds,
    check_tiles,
    least_traffic_times_cycles,
    port_cycles,
    product_bytes,
    register_bytes,
    transfer_cycles,
)
from simulator.timing.schedule import Makespan, Schedule, slowest
from simulator.timing.tables import (
    check_cache,
    entering_cycles,
    replay_cache,
    swapped_sets,
    with_tables,
)
from simulator.timing.traffic import Plan, by_tile, id_bits, plans, rows_per_group, traffic
from workloads.traces.layer import Layer

STAGES = ("hashing", "array", "reconstructor")


def reuse_timing(
    layer: Layer,
    decisions: Decisions,
    accelerator: Accelerator,
    engine: Engine = COMPILED,
) -> LayerTiming:
    """Time a layer whose rows share results as `decisions` say.

    Loops, outermost first: GEMMs, row groups, passes, sub-matrices; the innermost is a tile. A
    tile is hashed while its signatures go through the cache; then its centroids are multiplied by
    the array; then its rows are gathered and added to the group's partial sums. Tiles overlap, one
    block apart, through double buffers. Of the passes that `plans` offers and that are at most a
    quarter slower than the fastest, those with the least product of cycles and DRAM bytes are
    taken.

    Paid, beside the multiplications: clearing the table, hashing, accumulating and dividing
    centroids, refills of a cache that is too small, one gather-add per sub-vector, and the DRAM
    traffic of what does not fit. Partial sums beyond half of the output buffer travel out and back
    for every tile, and so do a tile's centroids, results and ids beyond half of the centroid
    buffer; where results come first, all of a group's results and ids travel unless they fit.
    Activations of a group are loaded once where they fit half of the activation buffer, else each
    tile loads the channels it touches. All weights are loaded once where they fit the weight
    buffer, else once per group.

    In a stream (`Signatures.cache`), only new clusters are accumulated and multiplied; a tile loads
    its table instead of clearing one, and the old results that its rows use: see
    `simulator.timing.tables`.

    Not modelled: the wait of a spilled byte's return for its own way out; halo rows; that a cache
    which keeps first rows has nothing to update on a hit (its energy is counted so).

    Raises:
        ConfigError: the accelerator has no reuse units, or not the ones the decisions need.
    """
    _check(decisions, accelerator)
    check_tiles(layer.gemm, decisions.shared.clusters.size)
    vectors, interval = _front_end_rate(decisions, accelerator)
    replayed = replay_cache(
        engine,
        decisions,
        accelerator.reuse_units.cache,
        vectors_per_group=vectors,
        cycles_per_group=interval,
    )
    scheduled = [
        _Scheduled(layer, decisions, replayed, accelerator, plan)
        for plan in plans(decisions, accelerator)
    ]
    runs = [(engine.run(each.schedule), each) for each in scheduled]
    makespan, best = least_traffic_times_cycles(runs)
    return best.timing(makespan)


def check_units(decisions: Decisions, accelerator: Accelerator) -> None:
    """A design must have every unit that the decisions ask for.

    Raises:
        ConfigError: naming the units that it lacks, and those that no accelerator has.
    """
    missing = [name for name in decisions.units if getattr(accelerator, name, None) is None]
    unknown = [name for name in missing if not hasattr(accelerator, name)]
    what = f"decisions of layer {decisions.layer!r}, which look at {decisions.evidence.words}"
    if unknown:
        raise ConfigError(
            f"simulate.policy must be one that accelerators have units for, got {what}: none here "
            f"has a {', '.join(unknown)}; only decide() can apply them; use another policy"
        )
    if missing:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have {', '.join(missing)} to run {what}, got "
            "none; add what is missing, or use another policy"
        )


def _check(decisions: Decisions, accelerator: Accelerator) -> None:
    """The accelerator must be able to do what was decided."""
    check_units(decisions, accelerator)
    built, wanted = accelerator.reuse_units.front_end.projection, decisions.signatures.projection
    # Wired-up coefficients do one kind only; an int8 multiplier does them all.
    if built not in ("int8", wanted):
        raise ConfigError(
            f"Accelerator.front_end.projection must be 'int8' or {wanted!r} for a policy with "
            f"{wanted} projections, got {built!r}; change one of them"
        )
    check_cache(decisions, accelerator)
    check_feeds(accelerator)


def _front_end_rate(decisions: Decisions, accelerator: Accelerator):
    """Sub-vectors hashed at once, and cycles that takes, `(s,)` int64 each.

    A lane takes one sub-vector a cycle, or as many short ones as it has elements for if it packs;
    longer sub-vectors or signatures than it is built for take several passes.
    """
    unit = accelerator.reuse_units.front_end
    packed = np.maximum(1, unit.max_length // decisions.shared.widths) if unit.packing else 1
    passes = ceil_div(decisions.signatures.hashes, unit.max_hashes) * ceil_div(
        decisions.shared.widths, unit.max_length
    )
    return np.broadcast_to(unit.lanes * packed, passes.shape).astype(np.int64), passes


class _Scheduled:
    """A layer under one plan.

    Arrays are `(count, groups, passes, s)`, the order in which tiles are worked on, or broadcast
    to it.
    """

    def __init__(
        self,
        layer: Layer,
        decisions: Decisions,
        replayed: CacheReplay,
        accelerator: Accelerator,
        plan: Plan,
    ) -> None:
        self.decisions, self.replayed, self.plan = decisions, replayed, plan
        self.accelerator, self.units = accelerator, accelerator.reuse_units
        self.clusters = by_tile(decisions.shared.new_clusters).astype(np.int64)
        self.traffic = with_tables(
            traffic(layer, decisions, accelerator, plan), decisions, accelerator, plan
        )
        self.shape = self.traffic.inputs.shape
        self.hashing = plan.hashing[:, None]
        self.busy: dict[str, np.ndarray] = {}
        occupancy, limits, latency = zip(
            self._hash(), self._multiply(), self._rebuild(), strict=True
        )
        self.schedule = Schedule(
            stages=STAGES,
            load_cycles=transfer_cycles(self.traffic.loads, accelerator).ravel(),
            load_latency_cycles=accelerator.dram.latency_cycles,
            store_cycles=transfer_cycles(self.traffic.stores, accelerator).ravel(),
            occupancy_cycles=self._by_stage(occupancy, np.int64),
            latency_cycles=self._by_stage(latency, np.int64),
            limits=self._by_stage(limits, np.int8),
        )

    @property
    def dram_bytes(self) -> int:
        """Bytes that travel to and from the DRAM."""
        return self.traffic.total_bytes

    def _by_stage(self, parts, dtype) -> np.ndarray:
        """`(S, T)`, one value a stage and tile."""
        stacked = np.empty((len(parts), *self.shape), dtype)
        for row, part in zip(stacked, parts, strict=True):
            row[...] = part
        return stacked.reshape(len(parts), -1)

    def _sum(self, values) -> int:
        """Sum over all tiles, of values that may stand for several."""
        return int(np.sum(values)) * (math.prod(self.shape) // np.size(values))

    def _hash(self):
        """Hash a tile's rows while the cache, cleared before, takes them and hands centroids on."""
        decisions, cache = self.decisions, self.units.cache
        rows = rows_per_group(decisions)
        vectors, interval = _front_end_rate(decisions, self.accelerator)
        hashing = ceil_div(rows, vectors) * interval * self.hashing
        around = entering_cycles(decisions, cache) + ceil_div(self.clusters, cache.banks)
        together = (around + by_tile(self.replayed.cycles)) * self.hashing
        self.busy["front_end"] = hashing
        self.busy["cache"] = together - by_tile(self.replayed.waiting_cycles) * self.hashing
        buffer = self.accelerator.activation_buffer
        self.vector_reads = self.hashing * access_bytes(
            rows * decisions.shared.widths,
            decisions.shared.widths,
            self.accelerator.operand_bits,
            buffer,
        )
        reading = port_cycles(self.vector_reads, buffer)
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
        latency = self.units.front_end.latency_cycles * self.hashing
        return np.maximum(together, reading), limits, latency

    def _multiply(self):
        """Multiply a tile's centroids, if there are any, by their rows of the weights."""
        decisions, accelerator = self.decisions, self.accelerator
        widths = decisions.shared.widths
        columns = self.plan.multiplied_columns[:, None] * (self.clusters > 0)
        cycles, latency = gemm_cycles(accelerator.array, self.clusters, columns, widths)
        cycles = cycles * (columns > 0)  # a pass that only gathers streams nothing
        self.busy["array"] = cycles
        centroid_buffer = self.units.centroid_buffer
        self.centroid_reads, self.weight_reads, self.result_writes, self.result_reads = (
            product_bytes(
                accelerator,
                self.clusters,
                columns,
                widths,
                inputs=centroid_buffer,
                sums=centroid_buffer,
            )
        )
        occupancy, limits = slowest(
            {
                "array": cycles,
                "weight_buffer": port_cycles(self.weight_reads, accelerator.weight_buffer),
                "centroid_buffer": port_cycles(
                    self.centroid_reads + self.result_writes + self.result_reads,
                    centroid_buffer,
                ),
            },
            self.shape,
        )
        return occupancy, limits, latency * (columns > 0)

    def _rebuild(self):
        """Gather a tile's rows and add them up: a port takes `width` sums of a row a cycle."""
        unit, plan = self.units.reconstructor, self.plan
        rows, columns = plan.gathered_rows[:, None], plan.gathered_columns[:, None]
        cycles = ceil_div(rows * ceil_div(columns, unit.width), unit.ports)
        self.busy["reconstructor"] = cycles
        bits, output_buffer = self.accelerator.accumulator_bits, self.accelerator.output_buffer
        gathered = rows * access_bytes(columns, unit.width, bits, self.units.centroid_buffer)
        self.gather_reads = gathered
        self.sum_writes = rows * access_bytes(columns, unit.width, bits, output_buffer)
        occupancy, limits = slowest(
            {
                "reconstructor": cycles,
                "centroid_buffer": port_cycles(gathered, self.units.centroid_buffer),
                "output_buffer": port_cycles(2 * self.sum_writes, output_buffer),
            },
            self.shape,
        )
        return occupancy, limits, 0

    def timing(self, makespan: Makespan) -> LayerTiming:
        """The layer, in the time that an engine found."""
        moved = self.traffic
        return LayerTiming(
            cycles=makespan.cycles,
            critical_cycles=makespan.critical_cycles,
            busy_cycles={
                "dram": int(self.schedule.load_cycles.sum() + self.schedule.store_cycles.sum()),
                **{block: self._sum(cycles) for block, cycles in self.busy.items()},
            },
            dram_bytes={
                "inputs": int(moved.inputs.sum()),
                "weights": int(moved.weights.sum()),
                "outputs": int(moved.outputs.sum()),
                "spilled_sums": int((moved.sums_in + moved.sums_out).sum()),
                "spilled_results": int(
                    (
                        moved.results_in + moved.results_out + moved.tables_in + moved.tables_out
                    ).sum()
                ),
            },
            actions=self._actions(),
            macs=self.decisions.macs,
            schedule=self.schedule,
        )

    def _actions(self) -> ActionCounts:
        """Everything that is done for the layer, counted."""
        decisions, accelerator, moved = self.decisions, self.accelerator, self.traffic
        gemm, unit = decisions.gemm, self.units.front_end
        columns = self.plan.multiplied_columns[:, None] * (self.clusters > 0)
        operand = accelerator.operand_bits
        times = int(self.plan.hashing.sum())  # every such pass hashes, accumulates, divides anew
        sparsity = (
            3 if decisions.signatures.projection == "sparse" else 1
        )  # one element in three is added
        averaged = decisions.shared.representative == "centroid"
        elements = gemm.count * gemm.m * gemm.k
        bits = decisions.signatures.hashes
        sub_vectors, clusters = decisions.shared.sub_vectors, decisions.shared.total_clusters
        added = by_tile(decisions.shared.new_cluster_rows)
        # A first row is written once and read once; a mean is updated by every row.
        # A row of the cache is as long as a lane; a longer sub-vector has several.
        rows = ceil_div(decisions.shared.widths, unit.max_length)
        touched = int(((added if averaged else self.clusters) * rows).sum())
        tags = ceil_div(decisions.signatures.hashes, unit.max_hashes)
        centroid_elements = int((self.clusters * decisions.shared.widths).sum())
        gathered = sub_vectors * gemm.n
        buffer, length = self.units.centroid_buffer, decisions.shared.sub_vector_length
        centroid_writes = times * clusters * access_bytes(length, length, operand, buffer)
        refills = times * int(self.replayed.refills.sum())
        evictions = times * int(self.replayed.evictions.sum())
        id_bytes = times * byte_count(sub_vectors, id_bits(decisions))
        row_bytes = access_bytes(length + 1, length + 1, 16, buffer)  # running sums and a count
        weight_reads, result_writes = self._sum(self.weight_reads), self._sum(self.result_writes)
        sum_writes = self._sum(self.sum_writes)
        inputs, weights = int(moved.inputs.sum()), int(moved.weights.sum())
        results_in, results_out = int(moved.results_in.sum()), int(moved.results_out.sum())
        sums_in, sums_out = int(moved.sums_in.sum()), int(moved.sums_out.sum())
        return ActionCounts(
            {
                ("front_end", "project"): times
                * elements
                * decisions.signatures.hashes
                // sparsity,
                ("front_end", "compare"): times * sub_vectors * bits,
                # A set's tags are moved in or out as a look-up reads them.
                ("cache", "lookup"): times
                * tags
                * (sub_vectors + swapped_sets(decisions, self.units.cache)),
                # All but a cluster's first read to add to it; the end reads to hand it on.
                ("cache", "read_row"): times * touched,
                ("cache", "write_row"): times * touched + refills,
                ("cache", "accumulate"): averaged
                * times
                * (int((added * decisions.shared.widths).sum()) - centroid_elements),
                ("cache", "divide"): averaged * times * centroid_elements,
                ("cache", "clear_entry"): times
                * decisions.shared.clusters.size
                * self.units.cache.entries
                * (decisions.signatures.cache is None),
                ("array", "mac"): decisions.macs,
                ("array", "register_byte"): register_bytes(
                    accelerator,
                    self.clusters * (columns > 0),
                    columns,
                    decisions.shared.widths,
                ),
                ("activation_buffer", "write_byte"): inputs,
                ("activation_buffer", "read_byte"): self._sum(self.vector_reads),
                ("weight_buffer", "write_byte"): weights,
                ("weight_buffer", "read_byte"): weight_reads,
                ("centroid_buffer", "write_byte"): centroid_writes
                + result_writes
                + id_bytes
                + evictions * row_bytes
                + results_in,
                # Updates read the result back; then the rows gather it.
                ("centroid_buffer", "read_byte"): self._sum(self.centroid_reads)
                + self._sum(self.result_reads)
                + self._sum(self.gather_reads)
                + id_bytes
                + refills * row_bytes
                + results_out,
                ("reconstructor", "add"): gathered - gemm.count * gemm.m * gemm.n,
                ("output_buffer", "write_byte"): sum_writes + sums_in,
                # One read per later sub-matrix, and one to store the outputs.
                ("output_buffer", "read_byte"): sum_writes + sums_out,
                ("dram", "read_byte"): int(burst_bytes(moved.loads, accelerator).sum()),
                ("dram", "write_byte"): int(burst_bytes(moved.stores, accelerator).sum()),
            }
        )
