"""Cycles derived by hand."""

import numpy as np
import pytest

from accelerators import CentroidCache, ConfigError, Dram, Reconstructor, SramBuffer
from simulator.timing.cache import replay as cache_replay
from simulator.timing.dense import dense_timing
from simulator.timing.reuse import reuse_timing
from tests.builders import buffer, cifarnet_conv2, even_decisions, matrix_layer, roomy_design


def replay(decisions, cache, vectors=1, cycles=1):
    """`cache.replay` of a front-end that makes `vectors` signatures every `cycles`."""
    sub_matrices = decisions.ids.shape[1]
    return cache_replay(
        decisions,
        cache,
        vectors_per_group=np.full(sub_matrices, vectors, np.int64),
        cycles_per_group=np.full(sub_matrices, cycles, np.int64),
    )


def test_worked_example_dense():
    timing = dense_timing(cifarnet_conv2(), roomy_design())
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
    timing = reuse_timing(layer, decisions, design)
    # 160 sub-matrices x 4 folds x (256 + 46).
    assert timing.busy_cycles["array"] == 160 * 4 * 302 == 193_280
    # One sub-vector hashed a cycle, one 64-wide row gathered a cycle: 25,600 x 160 each.
    assert timing.busy_cycles["front_end"] == timing.busy_cycles["reconstruction"] == 4_096_000
    # The cache clears (1 cycle), takes 25,600 signatures and hands on 256 centroids a tile.
    assert timing.busy_cycles["cache"] == 160 * (1 + 25_600 + 256)
    # 160 tiles at the pace of the cache, then the last tile's array and gather; before the first
    # the load of 10 columns of activations and weights: (10,240 + 640) / 65,536 -> 1 cycle, and
    # at the end the store: 1,638,400 / 65,536 = 25 cycles.
    assert timing.cycles == 1 + 160 * 25_857 + 4 * 302 + 25_600 + 25
    # About 2.5x, bound by front-end and cache, not by the array.
    dense = dense_timing(layer, design)
    assert dense.cycles / timing.cycles == pytest.approx(2.46, abs=0.01)
    assert timing.bound_by == "cache"
    assert timing.macs == 160 * 256 * 10 * 64


def test_spilled_partial_sums_travel_for_every_sub_matrix():
    layer = matrix_layer("fc", m=256, n=64, k=40)
    decisions = even_decisions(layer, length=10, clusters=16)
    small = roomy_design(output_buffer=buffer(64 * 2**10))
    roomy = reuse_timing(layer, decisions, roomy_design())
    spilled = reuse_timing(layer, decisions, small)
    # 256 x 64 sums of 4 bytes are 65,536; half of the buffer holds 32,768: the rest goes out after
    # each of the first three of four sub-matrices, and comes back before each of the last three.
    for direction in ("read_byte", "write_byte"):
        extra = spilled.actions["dram", direction] - roomy.actions["dram", direction]
        assert extra == 3 * 32_768


def test_column_tiles_hash_again_instead_of_spilling():
    layer = matrix_layer("fc", m=256, n=64, k=40)
    decisions = even_decisions(layer, length=10, clusters=16)
    # Half of 32 KiB holds 256 rows of 16 sums: four column tiles of one array width each. Slow
    # memory makes spilling 49,152 bytes three times each way worse than hashing four times.
    design = roomy_design(
        output_buffer=buffer(32 * 2**10),
        dram=Dram(bandwidth_bytes_per_cycle=4),
        reconstructor=Reconstructor(ports=1, width=16),
    )
    timing = reuse_timing(layer, decisions, design)
    assert timing.busy_cycles["front_end"] == 4 * 4 * 256
    assert timing.actions["front_end", "project"] == 4 * 256 * 40 * 10
    # The array and the reconstructor do no more than for one tile of 64 columns.
    assert timing.busy_cycles["array"] == 4 * 4 * (16 + 46)
    assert timing.busy_cycles["reconstruction"] == 4 * 4 * 256
    # Activations and weights are in their buffers and are loaded once; nothing is spilled.
    assert timing.actions["dram", "read_byte"] == 256 * 40 + 40 * 64
    assert timing.actions["dram", "write_byte"] == 256 * 64


def test_traffic_without_spills_moves_every_byte_once():
    layer = cifarnet_conv2(images=4)
    decisions = even_decisions(layer, length=10, clusters=16, groups=4)
    design = roomy_design()
    for timing in (reuse_timing(layer, decisions, design), dense_timing(layer, design)):
        assert timing.actions["dram", "read_byte"] == 4 * 64 * 256 + 1600 * 64
        assert timing.actions["dram", "write_byte"] == 4 * 256 * 64


def test_activations_that_do_not_fit_are_loaded_by_channel():
    layer = cifarnet_conv2(images=1)
    decisions = even_decisions(layer, length=10, clusters=16)
    small = roomy_design(activation_buffer=buffer(1024))
    timing = reuse_timing(layer, decisions, small)
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
        reuse_timing(
            layer, decisions, roomy_design(cache=CentroidCache(entries=n, ways=4, miss_cycles=20))
        )
        for n in (8, 4)
    )
    # Eight entries of four ways are two sets: signatures 0 to 7 fill both, nothing is evicted.
    # Clearing eight entries one a cycle takes eight cycles, four take four.
    assert small.busy_cycles["cache"] - roomy.busy_cycles["cache"] == 56 * 20 - 4
    assert small.macs == roomy.macs


def test_one_way_sets_conflict_by_the_low_bits_of_the_signature():
    layer = matrix_layer("fc", m=8, n=4, k=2)
    decisions = even_decisions(layer, length=2, clusters=2)
    object.__setattr__(decisions, "signatures", np.array([1, 3], np.uint64))
    # Two sets of one way: signatures 1 and 3 share set 1 and throw each other out, 8 - 2 refills.
    assert replay(decisions, CentroidCache(entries=2, ways=1)).refills.sum() == 6
    # Four sets: 1 and 3 lie apart.
    assert replay(decisions, CentroidCache(entries=4, ways=1)).refills.sum() == 0


def test_longer_and_more_hashes_than_a_lane_has_take_more_passes():
    layer = matrix_layer("fc", m=64, n=16, k=40)
    one = reuse_timing(layer, even_decisions(layer, length=10, clusters=4), roomy_design())
    long = even_decisions(layer, length=20, clusters=4, hashes=17)
    two = reuse_timing(layer, long, roomy_design())
    assert one.busy_cycles["front_end"] == 4 * 64
    # Half as many sub-vectors, two passes for L = 20 > 16 and two for H = 17 > 16.
    assert two.busy_cycles["front_end"] == 2 * 64 * 2 * 2


def test_slow_memory_bounds_the_layer():
    layer = matrix_layer("fc", m=4, n=1024, k=1024)
    timing = dense_timing(layer, roomy_design(dram=Dram(bandwidth_bytes_per_cycle=1)))
    assert timing.bound_by == "memory"
    # Every byte once at one byte a cycle: 4 KiB in, 1 MiB of weights, 4 KiB out.
    assert timing.busy_cycles["memory"] == 4096 + 2**20 + 4096
    assert timing.cycles >= timing.busy_cycles["memory"]


def test_buffers_that_hold_no_tile_are_named():
    layer = matrix_layer("fc", m=4, n=64, k=64)
    with pytest.raises(ConfigError, match=r"weight_buffer.capacity_bytes .* use 512 or more"):
        dense_timing(layer, roomy_design(weight_buffer=SramBuffer(capacity_bytes=511)))
    with pytest.raises(ConfigError, match=r"output_buffer.capacity_bytes .* use 128 or more"):
        dense_timing(layer, roomy_design(output_buffer=SramBuffer(capacity_bytes=64)))


def test_reuse_needs_its_units():
    layer = matrix_layer("fc", m=8, n=4, k=4)
    decisions = even_decisions(layer, length=2, clusters=2)
    with pytest.raises(ConfigError, match="must have reuse units"):
        reuse_timing(layer, decisions, roomy_design().without_reuse())
    object.__setattr__(decisions, "projection", "int8")
    with pytest.raises(ConfigError, match=r"front_end\.projection must be 'int8'"):
        reuse_timing(layer, decisions, roomy_design())
