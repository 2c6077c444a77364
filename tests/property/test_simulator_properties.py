"""What must hold for any design, shape and decisions."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators import (
    CentroidCache,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    area_by_part,
    energy_per_action,
)
from accelerators.units.array import DATAFLOWS
from simulator import LshReuse, NoReuse, simulate
from simulator.results.costs import LEAKAGE, energy_by_part
from simulator.timing.choosing import WORTH_WAITING
from simulator.timing.dense_baseline import BUFFERS, equal_area_dense, time_dense
from simulator.timing.engines.engine import COMPILED
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import Remaining
from simulator.timing.tiles import cut
from simulator.timing.tiling import tilings
from tests.builders import matrix_layer, roomy_design
from workloads import Gemm, WorkloadTrace

sizes = st.integers(1, 200)
small_buffers = st.sampled_from([64, 512, 2048, 2**20]).map(
    lambda size: SramBuffer(capacity_bytes=size, width_bits=64)
)
kib = st.sampled_from([8, 16, 64, 256]).map(lambda size: SramBuffer(capacity_bytes=size * 1024))


@st.composite
def designs(draw):
    """Accelerators with reuse units, small and large."""
    ways = draw(st.sampled_from([1, 2, 8]))
    return roomy_design(
        rows=draw(st.integers(1, 40)),
        columns=draw(st.integers(1, 40)),
        activation_buffer=draw(kib),
        weight_buffer=draw(kib),
        output_buffer=draw(kib),
        centroid_buffer=draw(kib),
        dram=Dram(bandwidth_bytes_per_cycle=draw(st.sampled_from([0.5, 4.0, 25.6, 512.0]))),
        front_end=LshFrontEnd(
            max_hashes=draw(st.integers(1, 20)),
            max_length=draw(st.integers(1, 20)),
            lanes=draw(st.integers(1, 4)),
        ),
        cache=CentroidCache(
            entries=ways * draw(st.sampled_from([1, 4, 64])),
            ways=ways,
            banks=1,
            update_cycles=draw(st.integers(0, 3)),
            pipelined=draw(st.booleans()),
            replacement=draw(st.sampled_from(["lru", "fifo", "random"])),
            miss_cycles=draw(st.integers(0, 30)),
        ),
        reconstructor=Reconstructor(ports=draw(st.integers(1, 4)), width=draw(st.integers(1, 64))),
    )


@st.composite
def layers(draw):
    """Linear layers of one to four images."""
    images = draw(st.integers(1, 4))
    rows = draw(st.integers(2, 60))
    return matrix_layer("fc", m=images * rows, n=draw(sizes), k=draw(sizes), row_images=images)


@st.composite
def decided(draw, layer):
    """Decisions of LSH on rows of a few kinds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = rng.standard_normal((draw(st.integers(1, 40)), layer.gemm.k)).astype(np.float32)
    rows = kinds[rng.integers(0, len(kinds), layer.gemm.m)]
    policy = LshReuse(
        hashes=draw(st.integers(1, 24)),
        length=draw(st.integers(1, layer.gemm.k)),
        scope=draw(st.sampled_from(["image", "batch"])),
        thresholds="zero",
    )
    return policy.decide(layer, rows[None], {})


def every(many):
    """Each of many tilings."""
    return map(many.one, range(len(many.rows)))


def cycles_of(tiling, left, design):
    """Cycles of a dense layer under a tiling, on a design that it may not have been made for."""
    tiles = replace(tiling, accelerator=design).tiles(left)
    return Run(left, design, COMPILED, stages_of(left, design, COMPILED), tiles).cycles


@given(st.data(), designs(), layers())
@settings(max_examples=150, deadline=None)
def test_cycles_and_bytes_keep_their_bounds(data, design, layer):
    decisions = data.draw(decided(layer))
    units = design.array.rows * design.array.columns
    gemm = layer.gemm
    input_and_output = gemm.m * gemm.k + gemm.m * gemm.n
    for timing in (layer_timing(layer, None, design), layer_timing(layer, decisions, design)):
        assert timing.cycles >= timing.macs / units
        assert timing.cycles >= max(timing.busy_cycles.values())
        # Everything works one after the other at worst.
        schedule = timing.schedule
        assert timing.cycles <= (
            schedule.load_cycles.sum()
            + schedule.load_latency_cycles
            + schedule.occupancy_cycles.sum()
            + schedule.latency_cycles.sum()
            + schedule.store_cycles.sum()
        )
        assert sum(timing.critical_cycles.values()) == timing.cycles
        moved = timing.actions["dram", "read_byte"] + timing.actions["dram", "write_byte"]
        assert moved >= input_and_output + gemm.k * gemm.n
        assert moved <= timing.busy_cycles["dram"] * design.dram.bandwidth_bytes_per_cycle * (
            1 + 1e-9
        )
        assert all(count >= 0 for count in timing.actions.values())
    assert layer_timing(layer, None, design).macs == gemm.macs
    assert decisions.macs <= gemm.macs


def check_loads(loaded, size, tile, capacity_bytes, others, folds):
    """Bytes loaded of an operand of `size`, in tiles of `tile` bytes at most.

    `others` are the sizes of the other operand's tiles; `folds` says how many folds of each of
    them stream this operand.
    """
    assert loaded >= size
    if size <= capacity_bytes:
        assert loaded == size
    elif tile > capacity_bytes // 2:
        needed = [folds(other) for other in others]
        # A last tile that is smaller may be charged as the others are.
        assert sum(needed) * size <= loaded <= len(needed) * max(needed) * size


@given(designs(), layers(), st.sampled_from(DATAFLOWS), small_buffers, small_buffers)
@settings(max_examples=150, deadline=None)
def test_operands_travel_once_or_for_every_fold(design, layer, dataflow, inputs, weights):
    array = replace(design.array, dataflow=dataflow)
    design = replace(design, array=array, activation_buffer=inputs, weight_buffer=weights)
    gemm, left = layer.gemm, Remaining.of(layer, None)
    # Rows of the inputs that are streamed are not folded, nor are columns of such weights.
    row_folds = {"output_stationary": array.rows, "input_stationary": array.columns}
    column_folds = {"output_stationary": array.columns, "weight_stationary": array.columns}
    for tiling in every(tilings(left, design)):
        sizes = tiling.sizes
        loaded = {
            each.kind: each.moved_bytes.sum()
            for each in tiling.tiles(left).transfers
            if not each.stored
        }
        check_loads(
            loaded["inputs"],
            sizes.inputs,
            gemm.k * tiling.rows,
            inputs.capacity_bytes,
            cut(gemm.n, tiling.columns),
            lambda columns: -(-columns // column_folds.get(dataflow, columns)),
        )
        check_loads(
            loaded["weights"],
            sizes.weights,
            gemm.k * tiling.columns,
            weights.capacity_bytes,
            cut(gemm.m, tiling.rows),
            lambda rows: -(-rows // row_folds.get(dataflow, rows)),
        )


@given(st.data(), designs(), layers())
@settings(max_examples=80, deadline=None)
def test_more_of_anything_is_never_slower(data, design, layer):
    decisions = data.draw(decided(layer))
    cycles = layer_timing(layer, decisions, design).cycles
    faster_memory = replace(
        design,
        dram=Dram(bandwidth_bytes_per_cycle=2 * design.dram.bandwidth_bytes_per_cycle),
    )
    # Of plans at most a quarter slower than the fastest, one that moves fewer bytes may be taken.
    assert layer_timing(layer, decisions, faster_memory).cycles <= WORTH_WAITING * cycles
    # Dense tilings are ranked by an estimate, so the promise holds for each of them.
    left = Remaining.of(layer, None)
    for tiling in every(tilings(left, design)):
        slow, fast = (cycles_of(tiling, left, each) for each in (design, faster_memory))
        assert fast <= slow
    ports = 2 * design.reconstructor.ports
    # With several signatures at once, their order, and so what a small cache evicts, depends on
    # time; there faster parts may be unlucky, as in hardware.
    ordered = replace(design, front_end=replace(design.front_end, lanes=1))
    quick_misses = replace(ordered, cache=replace(design.cache, miss_cycles=0))
    assert (
        layer_timing(layer, decisions, quick_misses).cycles
        <= WORTH_WAITING * layer_timing(layer, decisions, ordered).cycles
    )
    large = replace(design, cache=replace(design.cache, entries=1024, ways=8))
    more_lanes = replace(large, front_end=replace(large.front_end, lanes=4 * large.front_end.lanes))
    assert (
        layer_timing(layer, decisions, more_lanes).cycles
        <= WORTH_WAITING * layer_timing(layer, decisions, large).cycles
    )
    for better in (
        replace(design, reconstructor=replace(design.reconstructor, ports=ports)),
        replace(
            design,
            centroid_buffer=SramBuffer(capacity_bytes=2 * design.centroid_buffer.capacity_bytes),
        ),
    ):
        assert layer_timing(layer, decisions, better).cycles <= WORTH_WAITING * cycles


@given(designs(), layers(), st.sampled_from(BUFFERS), st.sampled_from([2, 4, 16]))
@settings(max_examples=80, deadline=None)
def test_a_larger_buffer_is_never_slower_for_dense_layers(design, layer, buffer, factor):
    capacity = getattr(design, buffer).capacity_bytes
    larger = replace(
        design, **{buffer: replace(getattr(design, buffer), capacity_bytes=factor * capacity)}
    )
    # Tilings are ranked by an estimate, so the promise holds for each of them, and none is lost
    # but those that were cut to fit the smaller buffer.
    left = Remaining.of(layer, None)
    some, more = (tilings(left, each) for each in (design, larger))
    halved = {-(-layer.gemm.m // 2**power) for power in range(8)}
    assert {pair for pair in zip(some.rows, some.columns, strict=True) if pair[0] in halved} <= set(
        zip(more.rows, more.columns, strict=True)
    )
    for tiling in every(some):
        slow, fast = (cycles_of(tiling, left, each) for each in (design, larger))
        assert fast <= slow


@given(designs(), layers())
@settings(max_examples=40, deadline=None)
def test_equal_area_baseline_is_no_larger_and_no_slower(design, layer):
    dense, timings = equal_area_dense((layer,), design)
    assert sum(area_by_part(dense).values()) <= sum(area_by_part(design).values()) * (1 + 1e-12)
    assert not dense.has_reuse
    plain = time_dense((layer,), design.without_reuse())
    assert timings[0][1].cycles <= plain[0][1].cycles


@given(st.data(), designs(), layers())
@settings(max_examples=40, deadline=None)
def test_energy_is_the_sum_of_its_parts(data, design, layer):
    decisions = data.draw(decided(layer))
    timing = layer_timing(layer, decisions, design)
    energy = energy_by_part(design, timing.actions, timing.cycles)
    prices = energy_per_action(design)
    dynamic = sum(count * prices[action] for action, count in timing.actions.items())
    np.testing.assert_allclose(sum(energy.values()) - energy[LEAKAGE], dynamic, rtol=1e-9)
    assert all(value >= 0 for value in energy.values())
    # Only leakage knows time.
    twice = energy_by_part(design, timing.actions, 2 * timing.cycles)
    assert twice[LEAKAGE] == 2 * energy[LEAKAGE]
    assert {part: value for part, value in twice.items() if part != LEAKAGE} == {
        part: value for part, value in energy.items() if part != LEAKAGE
    }


@given(designs(), st.lists(st.tuples(sizes, sizes, sizes), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_no_reuse_is_the_dense_design(design, shapes):
    trace = WorkloadTrace.from_gemms(
        [(f"fc{i}", Gemm(m=m, n=n, k=k)) for i, (m, n, k) in enumerate(shapes)]
    )
    report = simulate(trace, design, NoReuse())
    assert report.speedup_equal_array == 1
    assert report.speedup_equal_area <= 1
    assert report.reuse.cycles == report.dense.cycles
    assert report.accuracy is None
    assert report.reuse.area_mm2 >= report.dense.area_mm2
