"""Independent lanes: what scattered depth saves there, and what lanes pay for it, by hand."""

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators import (
    AddressList,
    ConfigError,
    IndependentLanes,
    SramBuffer,
    SystolicArray,
    preset,
)
from simulator import Decisions, DepthDecisions, ReuseRun, SkippedOutputs, simulate
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.rows import KeptRows
from simulator.kernels.scheduling import scheduled
from simulator.timing.choosing import AS_FAST
from simulator.timing.dense_baseline import same_array_dense
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import Remaining
from simulator.timing.tiling import tilings
from simulator.timing.transfers import banked_cycles
from tests.builders import even_decisions, matrix_layer, roomy_design
from workloads import Gemm, WorkloadTrace

LANES = roomy_design(
    array=SystolicArray(rows=2, columns=2, dataflow="output_stationary", fold_timing="overlapped"),
    activation_buffer=SramBuffer(capacity_bytes=2**20, width_bits=8, ports=1024),
    weight_buffer=SramBuffer(capacity_bytes=2**20, width_bits=32, ports=64),
    output_buffer=SramBuffer(capacity_bytes=2**20, width_bits=32, ports=64),
    lanes=IndependentLanes(),
)


def ending(layer, terms, order=None):
    """Sums that end after so many products."""
    depth = DepthDecisions(gemm=layer.gemm, terms=np.asarray(terms, np.int32), order=order)
    return Decisions(layer=layer.name, gemm=layer.gemm, depth=depth)


def in_one_tile(layer, decisions, design):
    left = Remaining.of(layer, decisions)
    many = tilings(left, design)
    gemm = layer.gemm
    whole = next(
        t for t in map(many.one, range(len(many.rows))) if (t.rows, t.columns) == (gemm.m, gemm.n)
    )
    return Run(left, design, COMPILED, stages_of(left, design, COMPILED), whole.tiles(left))


def test_sums_that_end_early_by_hand():
    layer = matrix_layer("fc", m=4, n=2, k=8)
    terms = [[8, 2], [3, 8], [0, 4], [5, 1]]
    order = np.stack([np.arange(8), np.arange(8)[::-1]], axis=1)
    run = in_one_tile(layer, ending(layer, terms, order), LANES)
    # Column after column: 8, 3, 5 and 2 products go to the four lanes; the next 8 to the one that
    # is free after 2 (until 10), 4 to that after 3 (7), 1 to that after 5 (6). A cycle to load
    # 4 x 8 + 2 x 8 bytes and 16 indices of 13 bits, one to store 8 results.
    assert run.cycles == 1 + 10 + 1
    timing = run.timing()
    assert timing.critical_cycles == {"dram": 2, "array": 10}
    assert timing.macs == timing.actions["array", "mac"] == 31
    assert timing.dram_bytes["orders"] == 26
    actions = timing.actions
    assert actions["activation_buffer", "read_byte"] == 31  # nothing that is read serves two lanes
    # Of four weights: 2 + 1 + 2 in the first column, 1 + 2 + 1 + 1 in the second.
    assert actions["weight_buffer", "read_byte"] == 4 * 10
    assert actions["lanes", "read_order"] == 10
    assert actions["lanes", "write_order"] == 4  # 16 indices, four at a time
    assert actions["lanes", "address"] == 31
    # The skipped output is written too; each is read once more, to be stored.
    assert actions["output_buffer", "write_byte"] == actions["output_buffer", "read_byte"] == 8 * 4
    # Four 8-bit and two 32-bit accesses a product, 32 bits for each sum that leaves.
    assert actions["array", "register_byte"] == (31 * 96 + 8 * 32) // 8
    # One order for all columns is loaded once: 8 indices of 13 bits.
    shared = in_one_tile(layer, ending(layer, terms, np.arange(8)), LANES).timing()
    assert shared.dram_bytes["orders"] == 13
    plain = in_one_tile(layer, ending(layer, terms), LANES).timing()
    assert "orders" not in plain.dram_bytes and ("lanes", "read_order") not in plain.actions


def test_banks_turn_lanes_away():
    # Of two lanes on two banks, half of the time both ask one: 1.5 are served.
    assert banked_cycles(12, 2, 2) == 8
    assert banked_cycles(12, 1, 5) == 12
    layer = matrix_layer("fc", m=8, n=4, k=16)
    made = ending(layer, np.full((8, 4), 16))
    few = SramBuffer(capacity_bytes=2**20, width_bits=8, ports=2)
    timing = in_one_tile(layer, made, replace(LANES, activation_buffer=few)).timing()
    # Of four lanes on two banks 2 (1 - 1/16) = 1.875 are served: 512 / 1.875 = 273.07.
    assert timing.critical_cycles["activation_buffer"] == 274
    assert timing.bound_by == "activation_buffer"


def test_dense_layers_work_in_step_unless_lanes_by_themselves_are_faster():
    layer = matrix_layer("fc", m=4, n=4, k=8)
    dense = layer_timing(layer, None, LANES)
    # Four folds of 2 x 2 sums; each activation serves two columns.
    assert dense.busy_cycles["array"] == 4 * 8
    assert dense.actions["activation_buffer", "read_byte"] == 4 * 8 * 2
    # 3 x 1 outputs: in step two folds; by themselves the lanes take all at once.
    odd = matrix_layer("fc", m=3, n=1, k=64)
    assert layer_timing(odd, None, LANES).busy_cycles["array"] == 64
    assert layer_timing(odd, None, same_array_dense(LANES)).busy_cycles["array"] == 2 * 64


def test_rows_and_columns_are_taken_off_before():
    layer = matrix_layer("fc", m=4, n=3, k=8)
    kept = np.array([[False, True, False, False]])
    sources = np.array([[0, DROPPED, 2]])
    made = replace(
        ending(layer, [[8, 8, 1], [8, 8, 8], [2, 8, 3], [4, 8, 5]]),
        rows=KeptRows(gemm=layer.gemm, kept=kept, results=np.zeros((1, 4, 3), np.float32)),
        columns=ColumnDecisions(gemm=layer.gemm, sources=sources),
    )
    timing = layer_timing(layer, made, replace(LANES, address_list=AddressList(entries=4)))
    assert timing.macs == timing.actions["activation_buffer", "read_byte"] == 8 + 2 + 4 + 1 + 3 + 5


def test_rows_that_share_work_in_step():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    shared = even_decisions(layer, length=8, clusters=10)
    plain = replace(LANES, lanes=None)
    found, systolic = (layer_timing(layer, shared, each) for each in (LANES, plain))
    assert found.busy_cycles == systolic.busy_cycles and found.actions == systolic.actions
    assert found.cycles <= systolic.cycles  # operands come to all lanes at once


def test_an_index_must_reach():
    layer = matrix_layer("fc", m=4, n=2, k=8)
    small = replace(LANES, lanes=IndependentLanes(index_bits=2))
    with pytest.raises(ConfigError, match=r"lanes\.index_bits must tell the k=8 elements.*use 3"):
        layer_timing(layer, ending(layer, [[8]], np.arange(8)), small)
    layer_timing(layer, ending(layer, [[8]]), small)
    with pytest.raises(ConfigError, match=r"array\.dataflow must be 'output_stationary'"):
        replace(LANES, array=SystolicArray(rows=2, columns=2, fold_timing="overlapped"))


def plain_scheduled(terms, lanes):
    """The same with Python's own heap."""
    free = [0] * lanes
    for length in terms:
        if length:
            heapq.heapreplace(free, free[0] + length)
    return max(free)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_scheduling_is_that_of_a_heap(lanes, m, n, seed):
    rng = np.random.default_rng(seed)
    terms = rng.integers(0, 30, (2, m, n)).astype(np.int32)
    computed = rng.random((2, m)) < 0.8
    kept = rng.random((2, n)) < 0.8
    rows_at, columns_at = np.unique([0, m // 2, m]), np.unique([0, n // 2, n])
    cycles, products, words = scheduled(terms, computed, kept, (rows_at, columns_at), lanes, 4)
    for index, row, column in np.ndindex(cycles.shape):
        rows = np.arange(rows_at[row], rows_at[row + 1])
        rows = rows[computed[index, rows]]
        chosen = np.flatnonzero(kept[index])[columns_at[column] : columns_at[column + 1]]
        tile = terms[index][np.ix_(rows, chosen)].T.ravel()
        place = index, row, column
        assert products[place] == tile.sum() and words[place] == (-(-tile // 4)).sum()
        assert cycles[place] == plain_scheduled(tile.tolist(), lanes)
        longest = tile.max(initial=0)
        assert max(-(-tile.sum() // lanes), longest) <= cycles[place]
        assert cycles[place] <= tile.sum() // lanes + longest


@pytest.mark.parametrize(("m", "n", "k"), [(40, 16, 33), (17, 3, 100), (200, 33, 20)])
def test_both_engines_agree_and_less_depth_is_faster(m, n, k):
    layer = matrix_layer("fc", m=m, n=n, k=k)
    design, rng = preset("lanes_16x16"), np.random.default_rng(0)
    before = None
    for share in (1.0, 0.6, 0.2, 0.0):
        made = ending(layer, np.where(rng.random((m, n)) < share, k, k // 8))
        one, other = (layer_timing(layer, made, design, engine) for engine in (COMPILED, EVENT))
        assert one.cycles == other.cycles and one.critical_cycles == other.critical_cycles
        assert one.cycles * 256 >= one.macs
        if before is None:
            # Nothing is taken off: no faster than dense, but for what a cut of less traffic costs.
            assert AS_FAST * one.cycles >= layer_timing(layer, None, design).cycles
        else:
            assert one.cycles <= before
        before = one.cycles


def test_the_same_decisions_save_energy_on_a_systolic_array_and_cycles_on_lanes():
    gemm = Gemm(m=256, n=32, k=144)
    trace = WorkloadTrace.from_gemms([("fc", gemm)])
    skipped = np.random.default_rng(0).random((gemm.m, gemm.n)) < 0.5
    policy = SkippedOutputs(masks={"fc": skipped})
    rows = np.zeros((1, gemm.m, gemm.k), np.float32)
    made = {"fc": policy.decide(trace.layers[0], rows, {})}
    run = ReuseRun(policy={}, images=trace.images, decisions=made, relative_mse={"fc": 0.0})
    systolic, lanes = (
        simulate(trace, preset(name), run) for name in ("dense_16x16", "lanes_16x16")
    )
    assert systolic.reuse.cycles == systolic.dense.cycles
    assert systolic.reuse.energy_pj["array"] < systolic.dense.energy_pj["array"]
    assert lanes.reuse.cycles < lanes.dense.cycles
    # The lanes' dense designs are systolic; that of equal area is faster than that of the array.
    assert lanes.dense_equal_area.accelerator.lanes is None
    assert lanes.dense_equal_area.cycles < lanes.dense.cycles
