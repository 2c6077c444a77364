"""The event engine and the compiled engine find the same, cycle for cycle."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelerators import (
    CentroidCache,
    ConfigError,
    Dram,
    LshFrontEnd,
    Reconstructor,
    SramBuffer,
    SystolicArray,
    preset,
)
from accelerators.units import AddressList
from accelerators.units.array import DATAFLOWS, FOLD_TIMINGS
from accelerators.units.cache import REPLACEMENTS
from accelerators.units.front_end import PROJECTIONS
from simulator import (
    LIMITS,
    ClusterCache,
    Decisions,
    Looks,
    LshReuse,
    SharedRows,
    Signatures,
    simulate,
)
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.rows import FilledRows, KeptRows
from simulator.timing.engines import compiled, event, event_cache
from simulator.timing.engines import compiled_cache as cache
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import Remaining
from simulator.timing.schedule import Schedule
from simulator.timing.tiling import tilings
from tests.builders import cifarnet_conv2, matrix_layer, roomy_design
from workloads import capture

MANY = 5000
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32 - 1)
projections = st.sampled_from(PROJECTIONS)


@st.composite
def schedules(draw):
    """Any tiles, also ones that load, do or store nothing."""
    stages, tiles = draw(st.integers(1, 4)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(seeds))
    longest = draw(st.sampled_from([1, 3, 10, 1000]))

    def cycles(*shape: int) -> np.ndarray:
        present = rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
        return rng.integers(0, longest, shape, endpoint=True) * present

    return Schedule(
        stages=tuple(f"block{i}" for i in range(stages)),
        load_cycles=cycles(tiles),
        load_latency_cycles=int(rng.integers(0, longest, endpoint=True)),
        store_cycles=cycles(tiles),
        occupancy_cycles=cycles(stages, tiles),
        latency_cycles=cycles(stages, tiles),
        limits=rng.integers(0, len(LIMITS), (stages, tiles)).astype(np.int8),
    )


@st.composite
def caches(draw):
    """Small caches of every kind."""
    ways = draw(st.sampled_from([1, 2, 3, 8]))
    banks = draw(st.sampled_from([1, 2, 4, 16]))
    return CentroidCache(
        entries=ways * banks * draw(st.sampled_from([1, 2, 5, 64])),
        ways=ways,
        banks=banks,
        update_cycles=draw(st.sampled_from([0, 0, 1, 3, 8])),
        pipelined=draw(st.booleans()),
        replacement=draw(st.sampled_from(REPLACEMENTS)),
        clear_entries_per_cycle=draw(st.sampled_from([1, 16])),
        miss_cycles=draw(st.sampled_from([0, 1, 7, 30])),
    )


buffers = st.builds(
    SramBuffer,
    capacity_bytes=st.sampled_from([2**12, 2**14, 2**18]),
    width_bits=st.sampled_from([8, 64, 512]),
    ports=st.sampled_from([1, 2, 8]),
)


@st.composite
def designs(draw):
    """Accelerators of every kind with reuse units."""
    return roomy_design(
        array=SystolicArray(
            rows=draw(st.integers(1, 24)),
            columns=draw(st.integers(1, 24)),
            dataflow=draw(st.sampled_from(DATAFLOWS)),
            fold_timing=draw(st.sampled_from(FOLD_TIMINGS)),
        ),
        activation_buffer=draw(buffers),
        weight_buffer=draw(buffers),
        output_buffer=draw(buffers),
        centroid_buffer=draw(buffers),
        dram=Dram(
            bandwidth_bytes_per_cycle=draw(st.sampled_from([0.3, 4.0, 25.6, 512.0])),
            latency_cycles=draw(st.sampled_from([0, 1, 40, 500])),
            burst_bytes=draw(st.sampled_from([1, 32, 100])),
        ),
        operand_bits=draw(st.sampled_from([8, 16])),
        front_end=LshFrontEnd(
            max_hashes=draw(st.integers(1, 20)),
            max_length=draw(st.integers(1, 20)),
            lanes=draw(st.integers(1, 5)),
            projection="int8",
            packing=draw(st.booleans()),
            latency_cycles=draw(st.sampled_from([0, 8, 100])),
        ),
        cache=draw(caches()),
        reconstructor=Reconstructor(ports=draw(st.integers(1, 4)), width=draw(st.integers(1, 32))),
    )


@st.composite
def layers_and_decisions(draw):
    """A linear layer and any clusters of its rows."""
    images, rows = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    layer = matrix_layer(
        "fc", images * rows, draw(st.integers(1, 60)), draw(st.integers(1, 60)), images
    )
    length = draw(st.integers(max(1, layer.gemm.k // 6), layer.gemm.k))
    hashes = draw(st.integers(6, 24))
    groups = draw(st.sampled_from([1, images]))
    kinds = draw(st.integers(1, layer.gemm.m))
    return layer, any_decisions(
        layer, length, hashes, groups, kinds, draw(seeds), draw(projections)
    )


def any_decisions(layer, length, hashes, groups, kinds, seed, projection="sign"):
    """Rows of `kinds` kinds, some more frequent, in each sub-matrix and group anew."""
    rng = np.random.default_rng(seed)
    gemm = layer.gemm
    sub_matrices = -(-gemm.k // length)
    ids = np.empty((gemm.count, sub_matrices, groups, gemm.m // groups), np.int32)
    clusters = np.empty((gemm.count, sub_matrices, groups), np.int32)
    signatures = []
    for place in np.ndindex(clusters.shape):
        drawn = np.minimum(rng.geometric(1 / kinds, ids.shape[-1]), 2 * kinds)
        _, first, number = np.unique(drawn, return_index=True, return_inverse=True)
        # Numbered in the order in which they appear.
        ids[place] = first.argsort().argsort()[number]
        clusters[place] = len(first)
        # Distinct; few low bits differ, so that sets overflow and banks collide.
        found = set()
        while len(found) < len(first):
            found.add(int(rng.integers(0, max(2**hashes, 4 * len(first)))))
        signatures += rng.permutation(sorted(found)).tolist()
    return Decisions(
        layer=layer.name,
        gemm=gemm,
        rows=SharedRows(
            gemm=gemm,
            looks=Looks(gemm=gemm, sub_vector_length=length, tiles=groups),
            ids=ids.reshape(gemm.count, sub_matrices, gemm.m),
            clusters=clusters,
            centroids=None,
        ),
        evidence=Signatures(
            hashes=hashes, projection=projection, values=np.array(signatures, np.uint64)
        ),
    )


def same_makespan(schedule):
    makespan = compiled.run(schedule)
    assert event.run(schedule) == makespan
    assert sum(makespan.critical_cycles.values()) == makespan.cycles


def same_replay(decisions, part, vectors, interval):
    sub_matrices = decisions.rows.ids.shape[1]
    rates = {
        "vectors_per_group": np.resize(np.array(vectors, np.int64), sub_matrices),
        "cycles_per_group": np.resize(np.array(interval, np.int64), sub_matrices),
    }
    found, expected = (each.replay(decisions, part, **rates) for each in (cache, event_cache))
    for name in ("cycles", "waiting_cycles", "refills", "evictions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


def same_layers(layer, decisions, design):
    for timing in (
        lambda engine: layer_timing(layer, None, design, engine),
        lambda engine: layer_timing(layer, decisions, design, engine),
    ):
        found, expected = timing(COMPILED), timing(EVENT)
        assert found.cycles == expected.cycles
        assert found.critical_cycles == expected.critical_cycles
        assert found.busy_cycles == expected.busy_cycles
        assert found.actions == expected.actions  # refills and evictions among them
        same_makespan(found.schedule)


@st.composite
def taken_off(draw, layer):
    """Decisions of any kind but shared rows: rows filled or kept, columns dropped, sums ended."""
    gemm, images = layer.gemm, layer.row_images
    rng, share = np.random.default_rng(draw(seeds)), draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    rows = columns = depth = None
    kind = draw(st.sampled_from(["filled", "kept", "all"]))
    if kind == "filled":
        positions = gemm.m // images
        computed = np.flatnonzero(rng.random(positions) >= share)
        computed = computed if computed.size else np.zeros(1, np.int64)
        taps = np.abs(np.arange(positions)[:, None] - computed).argmin(axis=1)
        rows = FilledRows(
            gemm=gemm, images=images, computed=computed, taps=taps[:, None].astype(np.int32)
        )
    elif kind == "kept":
        rows = KeptRows(gemm=gemm, kept=rng.random((gemm.count, gemm.m)) < share)
    if draw(st.booleans()):
        sources = np.where(rng.random(gemm.n) < share, DROPPED, np.arange(gemm.n))
        sources[0] = 0
        columns = ColumnDecisions(gemm=gemm, sources=sources[None])
    if draw(st.booleans()):
        terms = np.where(rng.random((1, gemm.m, gemm.n)) < share, 0, gemm.k).astype(np.int32)
        depth = DepthDecisions(gemm=gemm, terms=terms)
    return Decisions(layer=layer.name, gemm=gemm, rows=rows, columns=columns, depth=depth)


@given(st.data(), layers_and_decisions(), designs())
@settings(relaxed, max_examples=60)
def test_engines_agree_on_any_decisions_and_less_work_is_not_more(data, pair, design):
    layer, decisions = pair[0], data.draw(taken_off(pair[0]))
    design = replace(design, address_list=AddressList(entries=1024, ports=2))
    same_layers(layer, decisions, design)
    timing, dense = (layer_timing(layer, each, design) for each in (decisions, None))
    assert timing.macs == timing.actions["array", "mac"] == decisions.macs <= dense.macs
    assert timing.macs <= design.array.rows * design.array.columns * timing.cycles
    assert sum(timing.critical_cycles.values()) == timing.cycles
    if decisions.macs == dense.macs:
        # Tilings are ranked by an estimate, so that nothing taken off is no faster than dense holds
        # for each of them.
        left, plain = (Remaining.of(layer, each) for each in (decisions, None))
        many = tilings(left, design)
        for tiling in map(many.one, range(len(many.rows))):
            runs = (
                Run(each, design, COMPILED, stages_of(each, design, COMPILED), tiling.tiles(each))
                for each in (left, plain)
            )
            assert next(runs).cycles >= next(runs).cycles


vectors = st.lists(st.integers(1, 12), min_size=1, max_size=3)
intervals = st.lists(st.sampled_from([1, 1, 2, 5]), min_size=1, max_size=3)


@given(schedules())
@settings(relaxed, max_examples=1000)
def test_engines_agree_on_any_schedule(schedule):
    same_makespan(schedule)


@given(layers_and_decisions(), caches(), vectors, intervals)
@settings(relaxed, max_examples=600)
def test_engines_agree_on_any_cache(pair, part, each, interval):
    same_replay(pair[1], part, each, interval)


@given(layers_and_decisions(), designs())
@settings(relaxed, max_examples=400)
def test_engines_agree_on_any_layer(pair, design):
    same_layers(*pair, design)


@given(layers_and_decisions(), designs(), seeds, st.sampled_from([0.0, 0.1, 0.7, 1.0]))
@settings(relaxed, max_examples=150)
def test_engines_agree_on_any_stream(pair, design, seed, share):
    layer, decisions = pair
    old = np.random.default_rng(seed).random(decisions.evidence.values.size) >= share
    stream = replace(
        decisions,
        rows=replace(decisions.rows, ages=old.astype(np.int64)),
        evidence=replace(decisions.evidence, cache=ClusterCache.of(design.cache)),
    )
    same_layers(layer, stream, design)
    timing = layer_timing(layer, stream, design)
    assert timing.macs == stream.macs
    assert not timing.busy_cycles["array"] or share
    moved = timing.actions["dram", "read_byte"] + timing.actions["dram", "write_byte"]
    # Energy pays for whole bursts.
    payload, bursts = sum(timing.dram_bytes.values()), len(timing.schedule.load_cycles)
    assert payload <= moved <= payload + 2 * bursts * (design.dram.burst_bytes - 1)


@pytest.mark.slow
@given(schedules())
@settings(relaxed, max_examples=10 * MANY)
def test_engines_agree_on_many_schedules(schedule):
    same_makespan(schedule)


@pytest.mark.slow
@given(layers_and_decisions(), caches(), vectors, intervals)
@settings(relaxed, max_examples=2 * MANY)
def test_engines_agree_on_many_caches(pair, part, each, interval):
    same_replay(pair[1], part, each, interval)


@pytest.mark.slow
@given(layers_and_decisions(), designs())
@settings(relaxed, max_examples=MANY)
def test_engines_agree_on_many_layers(pair, design):
    same_layers(*pair, design)


@given(schedules(), st.integers(1, 14))
@settings(relaxed, max_examples=200)
def test_a_timeline_tells_what_the_engine_did(schedule, max_tiles):
    slices = event.timeline(schedule)
    cycles = event.run(schedule).cycles
    for track in (event.DMA, *schedule.stages):
        own = [each for each in slices if each.track == track]
        # Nothing but work and waits that are blamed on something.
        assert not own or own[0].start == 0
        assert all(a.end == b.start for a, b in pairwise(own))
        work = sum(each.end - each.start for each in own if each.kind == "work")
        if track == event.DMA:
            assert work == schedule.load_cycles.sum() + schedule.store_cycles.sum()
        else:
            assert work == schedule.occupancy_cycles[schedule.stages.index(track)].sum()
    assert all(0 <= each.start < each.end <= cycles for each in slices)
    first = [each for each in slices if each.tile < max_tiles]
    assert event.timeline(schedule, max_tiles) == first


def test_worked_example_on_both_engines():
    layer = cifarnet_conv2(images=1)
    decisions = any_decisions(layer, 10, 10, 1, 20, 0)
    same_layers(layer, decisions, roomy_design())


def test_simulate_takes_either_engine():
    import torch

    model = torch.nn.Linear(20, 30)
    rows = torch.randn(40, 20, generator=torch.Generator().manual_seed(0)).round()
    trace = capture(model, rows)
    design, policy = preset("reuse_16x16"), LshReuse(hashes=6, length=5, scope="batch")
    found, expected = (
        simulate(trace, design, policy, engine=engine) for engine in ("compiled", "event")
    )
    assert found.to_dict() == expected.to_dict()
    message = r"simulate.engine must be one of 'compiled', 'event', got 'events'; use 'event'"
    with pytest.raises(ConfigError, match=message):
        simulate(trace, design, policy, engine="events")
