"""Cycles derived by hand."""

from dataclasses import replace

import numpy as np
import pytest

from accelerators import (
    CentroidCache,
    ConfigError,
    Dram,
    Reconstructor,
    SramBuffer,
    SystolicArray,
)
from simulator.timing.dataflows.dataflow import gemm_cycles
from simulator.timing.dense_baseline import equal_area_dense
from simulator.timing.engines.compiled_cache import replay as cache_replay
from simulator.timing.engines.event_cache import replay as event_replay
from simulator.timing.pipeline import layer_timing
from tests.builders import WIDE, buffer, cifarnet_conv2, even_decisions, matrix_layer, roomy_design


def replay(decisions, cache, vectors=1, cycles=1, by=cache_replay):
    """An engine's replay of a front-end that makes `vectors` signatures every `cycles`."""
    sub_matrices = decisions.rows.ids.shape[1]
    return by(
        decisions,
        cache,
        vectors_per_group=np.full(sub_matrices, vectors, np.int64),
        cycles_per_group=np.full(sub_matrices, cycles, np.int64),
    )


def test_sequential_folds_by_hand():
    ws = SystolicArray(rows=16, columns=16)
    # conv2, 100 images on 16x16: 1600/16 = 100 by 64/16 = 4 folds of 25,600 + 2*16 + 16 - 2.
    assert gemm_cycles(ws, 25_600, 64, 1600) == (100 * 4 * (25_600 + 46), 0)
    # A partial fold costs a full one: ceil(17/16) x ceil(1/16) folds.
    assert gemm_cycles(ws, 5, 1, 17) == (2 * (5 + 46), 0)
    # Outputs stay: ceil(5/16) x ceil(1/16) folds of 17 + 16 + 16 - 2, nothing to load first.
    assert gemm_cycles(replace(ws, dataflow="output_stationary"), 5, 1, 17) == (47, 0)
    # Inputs stay: ceil(17/16) x ceil(5/16) folds of 1 + 2*16 + 16 - 2.
    assert gemm_cycles(replace(ws, dataflow="input_stationary"), 5, 1, 17) == (2 * 47, 0)


def test_overlapped_folds_by_hand():
    ws = SystolicArray(rows=16, columns=16, fold_timing="overlapped")
    # 100 rows: 20/16 gives folds of 16 and 4 weight rows, 40/16 three columns of them. Each streams
    # 100 rows, longer than any load: 6 x 100. Before: 16 cycles to load the first; after: skew.
    assert gemm_cycles(ws, 100, 40, 20) == (600, 16 + 16 + 16 - 2)
    # Three rows stream faster than the next weights load: folds take 16 and 4 cycles. The last
    # fold's results do not wait for the 4 - 3 cycles by which the next product's load is longer.
    assert gemm_cycles(ws, 3, 40, 20) == (3 * (16 + 4), 46 - 1)
    # Two weight rows and five columns are all that is used.
    assert gemm_cycles(ws, 3, 5, 2) == (3, 2 + 2 + 5 - 2)
    # Outputs stay: ceil(20/16) x ceil(40/16) folds of k = 9.
    os = replace(ws, dataflow="output_stationary")
    assert gemm_cycles(os, 20, 40, 9) == (6 * 9, 16 + 16 - 2)


def test_banks_and_updates_hold_signatures_up():
    layer = matrix_layer("fc", m=8, n=4, k=2)
    decisions = even_decisions(layer, length=2, clusters=4)  # signatures 0 1 2 3 0 1 2 3
    cache = CentroidCache(entries=4, ways=1, banks=2)

    def cycles(vectors=1, **changes):
        return int(replay(decisions, replace(cache, **changes), vectors).cycles.sum())

    # One at a time: a signature a cycle, done in the cycle in which it is taken.
    assert cycles() == 8
    # Four at a time in two banks (even and odd): two a cycle.
    assert cycles(4) == 4
    # In one bank they take a cycle each again.
    assert cycles(4, banks=1) == 8
    # An access of 1 + 2 cycles holds its bank: 0 1 at 0, 2 3 at 3, 0 1 at 6, 2 3 at 9, done at 12.
    assert cycles(4, update_cycles=2) == 12
    # Pipelined banks only keep a cluster from itself: 0 1 at 0, 2 3 at 1, the next group at 2
    # waits for cluster 0 and 1 until 3, then 4; the last is done at 4 + 3.
    assert cycles(4, update_cycles=2, pipelined=True) == 7


def test_replacement_policies_differ_as_they_should():
    layer = matrix_layer("fc", m=6, n=4, k=2)
    decisions = even_decisions(layer, length=2, clusters=3)
    object.__setattr__(decisions.rows, "ids", np.array([[[0, 1, 0, 2, 0, 1]]], np.int32))
    cache = CentroidCache(entries=2, ways=2)

    def refills(replacement):
        return int(replay(decisions, replace(cache, replacement=replacement)).refills.sum())

    # 0 1 0, then 2 needs room. Least recently used: 1 goes, 0 hits, 1 is refilled: one refill.
    assert refills("lru") == 1
    # First in: 0 goes; 0 is refilled and throws 1 out; 1 is refilled: two.
    assert refills("fifo") == 2
    assert refills("random") in (1, 2)


def test_packing_hashes_several_short_sub_vectors_a_cycle():
    layer = matrix_layer("fc", m=90, n=16, k=20)
    decisions = even_decisions(layer, length=5, clusters=4)
    plain = roomy_design(cache=CentroidCache(entries=64, ways=1, banks=4))
    packed = replace(plain, front_end=replace(plain.front_end, packing=True))
    # 16 elements hold three sub-vectors of 5: 30 cycles for 90, four sub-matrices.
    busy = [
        layer_timing(layer, decisions, each).busy_cycles["front_end"] for each in (plain, packed)
    ]
    assert busy == [4 * 90, 4 * 30]


def test_narrow_ports_slow_the_array_and_are_blamed():
    layer = matrix_layer("fc", m=256, n=16, k=16)
    narrow = SramBuffer(capacity_bytes=2**20, width_bits=32)
    timing = layer_timing(layer, None, roomy_design(activation_buffer=narrow))
    # 256 rows of 16 bytes through 4 bytes a cycle: 1,024 cycles for what the array does in 302.
    # It may as well take them in 16 tiles, which hides all but the first tile's load.
    assert timing.busy_cycles["array"] == 16 * (16 + 46)
    assert timing.bound_by == "activation_buffer"
    assert timing.critical_cycles["activation_buffer"] == 1024
    assert timing.cycles == sum(timing.critical_cycles.values())


def test_dram_latency_and_bursts():
    layer = matrix_layer("fc", m=16, n=16, k=16)
    slow = Dram(bandwidth_bytes_per_cycle=8, latency_cycles=100, burst_bytes=64)
    fast = layer_timing(layer, None, roomy_design(dram=Dram(bandwidth_bytes_per_cycle=8)))
    late = layer_timing(layer, None, roomy_design(dram=slow))
    # 512 bytes in and 256 out are whole bursts already: only the latency of the load is added.
    assert late.cycles - fast.cycles == 100
    odd = matrix_layer("fc", m=5, n=3, k=7)
    # 35 + 21 bytes are one burst of 64, and so are 15 bytes out: 8 cycles each.
    assert layer_timing(odd, None, roomy_design(dram=slow)).busy_cycles["dram"] == 16


def test_worked_example_dense():
    timing = layer_timing(cifarnet_conv2(), None, roomy_design())
    assert timing.busy_cycles["array"] == 10_258_400
    assert timing.macs == 25_600 * 64 * 1600
    assert timing.bound_by == "array"
    # Memory is fast: 1,638,400 + 102,400 bytes in, 1,638,400 out at 65,536 a cycle, four tiles.
    # Only the first tile's load (25 cycles of activations, 0.39 of weights: 26) and the last
    # tile's store (6.25: 7) are not hidden.
    assert timing.cycles == 10_258_400 + 26 + 7


def test_worked_example_reuse():
    layer, design = cifarnet_conv2(), roomy_design()
    decisions = even_decisions(layer, length=10, clusters=256)
    assert decisions.remaining_ratio == pytest.approx(0.01)
    timing = layer_timing(layer, decisions, design)
    # 160 sub-matrices x 4 folds x (256 + 46).
    assert timing.busy_cycles["array"] == 160 * 4 * 302 == 193_280
    # One sub-vector hashed a cycle, one 64-wide row gathered a cycle: 25,600 x 160 each.
    assert timing.busy_cycles["front_end"] == timing.busy_cycles["reconstructor"] == 4_096_000
    # The cache clears (1 cycle), takes 25,600 signatures and hands on 256 centroids a tile.
    assert timing.busy_cycles["cache"] == 160 * (1 + 25_600 + 256)
    # 160 tiles at the pace of the cache, then the last tile's array and gather; before the first
    # the load of 10 columns of activations and weights: (10,240 + 640) / 65,536 -> 1 cycle, and
    # at the end the store: 1,638,400 / 65,536 = 25 cycles.
    assert timing.cycles == 1 + 160 * 25_857 + 4 * 302 + 25_600 + 25
    # About 2.5x, bound by front-end and cache, not by the array.
    dense = layer_timing(layer, None, design)
    assert dense.cycles / timing.cycles == pytest.approx(2.46, abs=0.01)
    assert timing.bound_by == "cache"
    assert timing.macs == 160 * 256 * 10 * 64


def test_spilled_partial_sums_travel_for_every_sub_matrix():
    layer = matrix_layer("fc", m=256, n=64, k=40)
    decisions = even_decisions(layer, length=10, clusters=16)
    small = roomy_design(output_buffer=buffer(64 * 2**10))
    roomy = layer_timing(layer, decisions, roomy_design())
    spilled = layer_timing(layer, decisions, small)
    # 256 x 64 sums of 4 bytes are 65,536; half of the buffer holds 32,768: the rest goes out after
    # each of the first three of four sub-matrices, and comes back before each of the last three.
    for direction in ("read_byte", "write_byte"):
        extra = spilled.actions["dram", direction] - roomy.actions["dram", direction]
        assert extra == 3 * 32_768


def tight_design(centroid_buffer: SramBuffer):
    """Half of 32 KiB holds 256 rows of 16 sums, or 64 rows of 64; memory is slow."""
    return roomy_design(
        output_buffer=buffer(32 * 2**10),
        centroid_buffer=centroid_buffer,
        dram=Dram(bandwidth_bytes_per_cycle=4),
        reconstructor=Reconstructor(ports=1, width=16),
    )


def test_results_come_first_where_they_fit():
    layer = matrix_layer("fc", m=256, n=64, k=40)
    decisions = even_decisions(layer, length=10, clusters=16)
    timing = layer_timing(layer, decisions, tight_design(WIDE))
    # Hashed and multiplied once; then four passes gather 64 rows each, in 16-wide pieces.
    assert timing.busy_cycles["front_end"] == 4 * 256
    assert timing.busy_cycles["array"] == 4 * 4 * (16 + 46)
    assert timing.busy_cycles["reconstructor"] == 4 * 4 * 64 * 4
    assert timing.dram_bytes == {
        "inputs": 256 * 40,
        "weights": 40 * 64,
        "outputs": 256 * 64,
        "spilled_sums": 0,
        "spilled_results": 0,
    }


def test_passes_that_only_gather_leave_the_array_alone():
    layer = matrix_layer("fc", m=256, n=64, k=40)
    decisions = even_decisions(layer, length=10, clusters=16)
    design = tight_design(WIDE)
    inputs_stay = replace(design, array=replace(design.array, dataflow="input_stationary"))
    timing = layer_timing(layer, decisions, inputs_stay)
    # Four sub-matrices of one fold of 64 + 2 x 16 + 16 - 2 cycles, once; then rows are gathered.
    assert timing.busy_cycles["array"] == 4 * (64 + 46)
    # 16 clusters of 40 elements by 64: each operation three bytes and two sums, each input kept.
    assert timing.actions["array", "register_byte"] == 16 * 40 * 64 * 11 + 16 * 40


def test_column_tiles_hash_again_where_results_do_not_fit():
    layer = matrix_layer("fc", m=256, n=64, k=40)
    decisions = even_decisions(layer, length=10, clusters=16)
    timing = layer_timing(layer, decisions, tight_design(buffer(2**10)))
    # Four column tiles of one array width each hash all rows again.
    assert timing.busy_cycles["front_end"] == 4 * 4 * 256
    assert timing.actions["front_end", "project"] == 4 * 256 * 40 * 10
    # The array and the reconstructor do no more than for one tile of 64 columns.
    assert timing.busy_cycles["array"] == 4 * 4 * (16 + 46)
    assert timing.busy_cycles["reconstructor"] == 4 * 4 * 256
    # A tile holds 16 centroids of 10 bytes, 16 results of 16 sums of 4 bytes, and 256 ids of 8
    # bits: 160 + 1,024 + 256 bytes. What exceeds 512 travels out and back for each of 16 tiles.
    assert timing.dram_bytes["spilled_results"] == 16 * 2 * (160 + 1024 + 256 - 512)
    assert timing.dram_bytes["spilled_sums"] == 0
    # Results first would send 4 x (16 x 64 x 4 + 256) bytes out, and the 16 KiB of results back
    # for each of its four passes.


def test_traffic_without_spills_moves_every_byte_once():
    layer = cifarnet_conv2(images=4)
    decisions = even_decisions(layer, length=10, clusters=16, groups=4)
    design = roomy_design()
    for timing in (layer_timing(layer, decisions, design), layer_timing(layer, None, design)):
        assert timing.actions["dram", "read_byte"] == 4 * 64 * 256 + 1600 * 64
        assert timing.actions["dram", "write_byte"] == 4 * 256 * 64


def test_activations_that_do_not_fit_are_loaded_by_channel():
    layer = cifarnet_conv2(images=1)
    decisions = even_decisions(layer, length=10, clusters=16)
    small = roomy_design(activation_buffer=buffer(1024))
    timing = layer_timing(layer, decisions, small)
    # Two channels are 50 columns: five sub-vectors of 10, of which the third reads both channels:
    # six channels of 256 bytes where two would do. 64 channels: 32 such pairs.
    assert timing.actions["dram", "read_byte"] == 32 * 6 * 256 + 1600 * 64


def test_small_cache_refills_and_costs_time_not_clusters():
    layer = matrix_layer("fc", m=64, n=16, k=10)
    decisions = even_decisions(layer, length=10, clusters=8)
    # Eight clusters in turn through four entries, least recently used first out: every access
    # after the first eight meets a cluster evicted four accesses ago. 64 - 8 refills; each of the
    # 60 accesses after the first four evicts one.
    replayed = replay(decisions, CentroidCache(entries=4, ways=4))
    assert replayed.refills.sum() == 56
    assert replayed.evictions.sum() == 60
    roomy, small = (
        layer_timing(
            layer, decisions, roomy_design(cache=CentroidCache(entries=n, ways=4, miss_cycles=20))
        )
        for n in (8, 4)
    )
    # Eight entries of four ways are two sets: of the signatures 0 to 7 four have an even number of
    # bits set (0, 3, 5, 6) and four an odd one, which fill both; nothing is evicted.
    # Clearing eight entries one a cycle takes eight cycles, four take four.
    assert small.busy_cycles["cache"] - roomy.busy_cycles["cache"] == 56 * 20 - 4
    assert small.macs == roomy.macs


@pytest.mark.parametrize(
    ("signatures", "sets", "conflict"),
    [
        # Two sets, x + 1: x leaves 1, so what counts is the parity of the bits.
        ((1, 2), 2, True),
        ((1, 3), 2, False),
        # Four sets, x^2 + x + 1: x^2 leaves x + 1, x^3 leaves x^2 + x, hence 1.
        ((0b0011, 0b0100), 4, True),
        ((0b0001, 0b1000), 4, True),
        ((0b0001, 0b0100), 4, False),
        # x^8 is (x^3)^2 x^2.
        ((0b0011, 0b100000000), 4, True),
        # Eight sets, x^3 + x + 1: x^3 leaves x + 1.
        ((0b0011, 0b1000), 8, True),
        ((0b0001, 0b1000), 8, False),
        # Three sets, no power of two: the remainder, of 1 and 4 the same, of 1 and 3 not.
        ((1, 4), 3, True),
        ((1, 3), 3, False),
    ],
)
def test_one_way_sets_conflict_by_the_remainder_of_the_signature(signatures, sets, conflict):
    layer = matrix_layer("fc", m=8, n=4, k=2)
    decisions = even_decisions(layer, length=2, clusters=2)
    object.__setattr__(decisions.evidence, "values", np.array(signatures, np.uint64))
    # In one set of one way two clusters in turn throw each other out: 8 - 2 refills.
    for each in (cache_replay, event_replay):
        found = replay(decisions, CentroidCache(entries=sets, ways=1), by=each)
        assert found.refills.sum() == (6 if conflict else 0)


def test_a_bank_is_that_of_the_set():
    layer = matrix_layer("fc", m=8, n=4, k=2)
    decisions = even_decisions(layer, length=2, clusters=2)
    cache = CentroidCache(entries=4, ways=1, banks=2)
    # Two at a time, modulo x^2 + x + 1. x^3 + x^2 leaves 1 + x + 1 = x: sets 1 and 2, banks 1 and
    # 0, four groups of a cycle. x^2 leaves x + 1: sets 1 and 3 are both in bank 1, two cycles each.
    for signatures, cycles in (((0b0001, 0b1100), 4), ((0b0001, 0b0100), 8)):
        object.__setattr__(decisions.evidence, "values", np.array(signatures, np.uint64))
        for each in (cache_replay, event_replay):
            assert replay(decisions, cache, 2, by=each).cycles.sum() == cycles


def test_longer_and_more_hashes_than_a_lane_has_take_more_passes():
    layer = matrix_layer("fc", m=64, n=16, k=40)
    one = layer_timing(layer, even_decisions(layer, length=10, clusters=4), roomy_design())
    long = even_decisions(layer, length=20, clusters=4, hashes=17)
    two = layer_timing(layer, long, roomy_design())
    assert one.busy_cycles["front_end"] == 4 * 64
    # Half as many sub-vectors, two passes for L = 20 > 16 and two for H = 17 > 16.
    assert two.busy_cycles["front_end"] == 2 * 64 * 2 * 2


def test_slow_memory_bounds_the_layer():
    layer = matrix_layer("fc", m=4, n=1024, k=1024)
    timing = layer_timing(layer, None, roomy_design(dram=Dram(bandwidth_bytes_per_cycle=1)))
    assert timing.bound_by == "dram"
    # Every byte once at one byte a cycle: 4 KiB in, 1 MiB of weights, 4 KiB out.
    assert timing.busy_cycles["dram"] == 4096 + 2**20 + 4096
    assert timing.cycles >= timing.busy_cycles["dram"]


def test_buffers_that_hold_no_tile_are_named():
    layer = matrix_layer("fc", m=4, n=64, k=64)
    with pytest.raises(ConfigError, match=r"weight_buffer.capacity_bytes .* use 512 or more"):
        layer_timing(layer, None, roomy_design(weight_buffer=SramBuffer(capacity_bytes=511)))
    with pytest.raises(ConfigError, match=r"output_buffer.capacity_bytes .* use 128 or more"):
        layer_timing(layer, None, roomy_design(output_buffer=SramBuffer(capacity_bytes=64)))
    # Outputs stay: a slice of 16 inputs and one of 16 weights stream, each twice.
    design = roomy_design(
        array=SystolicArray(rows=16, columns=16, dataflow="output_stationary"),
        activation_buffer=SramBuffer(capacity_bytes=16),
        weight_buffer=SramBuffer(capacity_bytes=16),
    )
    with pytest.raises(ConfigError) as raised:
        layer_timing(layer, None, design)
    assert [each.split(" must")[0] for each in raised.value.violations] == [
        "Accelerator.activation_buffer.capacity_bytes",
        "Accelerator.weight_buffer.capacity_bytes",
    ]
    assert all(each.endswith("use 32 or more") for each in raised.value.violations)


def test_rows_cut_for_a_small_output_buffer_are_charged_to_it():
    layer = matrix_layer("fc", m=1024, n=16, k=16)
    timing = layer_timing(layer, None, roomy_design(output_buffer=buffer(2 * 64 * 16 * 4)))
    # Half holds 64 rows of 16 sums: 16 tiles of 64 + 46 cycles, where one would take 1,024 + 46.
    assert timing.busy_cycles["array"] == 16 * (64 + 46)
    critical = timing.critical_cycles
    assert critical["output_buffer"] / (critical["output_buffer"] + critical["array"]) == (
        pytest.approx(15 * 46 / (16 * (64 + 46)), abs=1 / timing.cycles)
    )
    assert sum(critical.values()) == timing.cycles


def test_registers_by_hand():
    # 5 x 7 by 7 x 3: 105 operations.
    layer = matrix_layer("fc", m=5, n=3, k=7)
    moved = {}
    for dataflow in ("weight_stationary", "output_stationary", "input_stationary"):
        array = SystolicArray(rows=16, columns=16, dataflow=dataflow)
        moved[dataflow] = layer_timing(layer, None, roomy_design(array=array)).actions[
            "array", "register_byte"
        ]
    assert moved == {
        # One byte read; one byte and four passed on; 21 weights written once.
        "weight_stationary": 105 * (1 + 2 + 8) + 21,
        # Two bytes passed on, a sum read and written; 15 sums of four bytes read once.
        "output_stationary": 105 * (4 + 8) + 60,
        "input_stationary": 105 * (1 + 2 + 8) + 35,
    }


def test_reuse_needs_its_units():
    layer = matrix_layer("fc", m=8, n=4, k=4)
    decisions = even_decisions(layer, length=2, clusters=2)
    with pytest.raises(
        ConfigError, match="must have front_end, cache, centroid_buffer, reconstructor to"
    ):
        layer_timing(layer, decisions, roomy_design().without_reuse())
    object.__setattr__(decisions.evidence, "projection", "int8")
    with pytest.raises(ConfigError, match=r"front_end\.projection must be 'int8'"):
        layer_timing(layer, decisions, roomy_design())


def test_a_tile_that_does_not_stay_is_loaded_for_every_fold():
    # Outputs stay in the array: 1,024 x 16 of them are 64 folds of 16 rows, and each streams all of
    # the 64 KiB of weights, which half of 1 KiB does not hold.
    array = SystolicArray(rows=16, columns=16, dataflow="output_stationary")
    small = buffer(2**10)
    layer = matrix_layer("fc", m=1024, n=16, k=4096)
    timing = layer_timing(
        layer, None, roomy_design(array=array, activation_buffer=small, weight_buffer=small)
    )
    assert timing.dram_bytes["weights"] == 64 * 4096 * 16
    assert timing.dram_bytes["inputs"] == 1024 * 4096


def test_a_layer_of_too_many_tiles_is_refused():
    layer = matrix_layer("fc", m=2**40, n=16, k=16)
    with pytest.raises(ConfigError, match="in at most 2097152 tiles"):
        layer_timing(layer, None, roomy_design(output_buffer=buffer(2**12)))
    layer = matrix_layer("fc", m=16, n=16, k=2**43)
    with pytest.raises(ConfigError, match="of at most 1125899906842624 multiply-accumulates"):
        layer_timing(layer, None, roomy_design())


def test_equal_area_passes_over_designs_that_need_too_many_tiles():
    # 2^21 rows in 2 KiB of sums are 2^16 tiles; candidates with less room need more than the bound.
    layer = matrix_layer("fc", m=2**21, n=2**12, k=1)
    design = roomy_design()
    dense, timings = equal_area_dense((layer,), design)
    assert timings[0][1].cycles <= layer_timing(layer, None, design.without_reuse()).cycles
    assert not dense.has_reuse


def test_first_rows_are_kept_without_adding_or_dividing():
    layer = matrix_layer("fc", m=40, n=8, k=10)
    means = even_decisions(layer, length=5, clusters=4)
    firsts = replace(means, rows=replace(means.rows, representative="first"))
    averaged, kept = (layer_timing(layer, each, roomy_design()) for each in (means, firsts))
    # 40 rows of 10 elements, of which 2 x 4 clusters keep 5: the others are added.
    assert averaged.actions["cache", "accumulate"] == 400 - 40
    assert averaged.actions["cache", "divide"] == 40
    assert kept.actions["cache", "accumulate"] == kept.actions["cache", "divide"] == 0
    # Each of 80 sub-vectors updates its mean; a first row is written once and read once.
    for action in ("read_row", "write_row"):
        assert averaged.actions["cache", action] == 80
        assert kept.actions["cache", action] == 8
    assert kept.cycles == averaged.cycles


def test_columns_in_another_order_touch_other_channels():
    layer = cifarnet_conv2(images=1)
    decisions = even_decisions(layer, length=10, clusters=4)
    order = np.arange(1600).reshape(64, 25).T.ravel()
    last = replace(decisions, rows=replace(decisions.rows, column_order=order))
    # 16 KiB of activations do not fit half a buffer of 16 KiB: every tile loads the channels it
    # touches. In order (c, kh, kw) ten columns lie in one channel of 25 taps, or in two: 4 of 5
    # sub-matrices end within the channel they begin in. In order (kh, kw, c) each has ten.
    design = roomy_design(activation_buffer=buffer(16 * 1024))
    channel = 16 * 16
    first_bytes, last_bytes = (
        layer_timing(layer, each, design).dram_bytes["inputs"] for each in (decisions, last)
    )
    assert first_bytes == 160 * 6 // 5 * channel
    assert last_bytes == 160 * 10 * channel
