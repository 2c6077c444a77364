"""The range table: equal ranges of all elements take the first one's result, over a stream."""

from dataclasses import replace

import numpy as np
import pytest

from accelerators import ConfigError, RangeTable, preset
from simulator import ClusterCache, RangeTableReuse, techniques
from simulator.running.product import product
from simulator.testing.examples import example_weights
from simulator.timing.pipeline import layer_timing
from tests.builders import matrix_layer, roomy_design

UNIT = {"deviation": np.ones(1, np.float32)}
LAYER = matrix_layer("fc", m=6, n=16, k=4)


def served(policy, batches, layer=LAYER):
    """Decisions on one batch after the other, with a deviation of 1."""
    made, memory = [], None
    for rows in batches:
        decisions, memory = policy.decide_next(layer, rows, UNIT, memory)
        made.append(decisions)
    return made, memory


def test_rows_of_equal_ranges_take_the_first_ones_result():
    # Ranges of width 1: 0.2 and 0.9 lie in one, 1.0 and -0.1 in others.
    rows = np.array([[0.2, 0.2], [0.9, 0.9], [1.0, 0.2], [-0.1, 0.2], [0.5, 0.0], [1.99, 0.99]])
    rows = np.repeat(rows, 2, axis=1)[None].astype(np.float32)
    (made,), _ = served(RangeTableReuse(range_width=1.0), [rows])
    assert made.rows.ids.tolist() == [[[0, 0, 1, 2, 0, 1]]]
    weights = example_weights(LAYER)
    np.testing.assert_allclose(
        product(made, rows, weights)[0],
        (rows @ weights)[0, [0, 0, 2, 3, 0, 2]],
        rtol=1e-5,
        atol=1e-5,
    )
    # Halving the width parts 0.2 from 0.9.
    (finer,), _ = served(RangeTableReuse(range_width=0.5), [rows])
    assert finer.rows.total_clusters > made.rows.total_clusters


def test_ranges_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    layer = matrix_layer("fc", m=200, n=3, k=6)
    rows = rng.standard_normal((1, 200, 6)).astype(np.float32)
    policy = RangeTableReuse(range_width=0.8, length=3, range_bits=2)
    made = policy.decide(layer, rows, UNIT)
    for j in range(2):
        seen, expected = {}, []
        for row in rows[0, :, 3 * j : 3 * j + 3]:
            # Two bits: -2 and 1 hold all beyond.
            key = tuple(np.clip(np.floor(row / np.float32(0.8)), -2, 1))
            expected.append(seen.setdefault(key, len(seen)))
        assert made.rows.ids[0, j].tolist() == expected


def test_an_equal_frame_multiplies_nothing_and_fine_ranges_are_dense():
    rng = np.random.default_rng(1)
    rows = rng.integers(-50, 50, (1, 6, 4)).astype(np.float32)
    (first, second), memory = served(RangeTableReuse(range_width=0.5, range_bits=16), [rows, rows])
    assert first.macs == LAYER.gemm.macs and second.macs == 0
    weights = rng.integers(-50, 50, (1, 4, 16)).astype(np.float32)
    np.testing.assert_array_equal(product(first, rows, weights), rows @ weights)
    np.testing.assert_array_equal(product(second, rows, weights), rows @ weights)
    assert memory["kept"].tolist() == [[6]]


def test_a_finite_table_forgets():
    rows = (np.arange(6) * 10.0)[:, None].repeat(4, axis=1)[None].astype(np.float32)
    cache = ClusterCache(entries=2, ways=2)
    (_, second), memory = served(RangeTableReuse(range_width=1.0, cache=cache), [rows, rows])
    assert second.macs == LAYER.gemm.macs and memory["kept"].tolist() == [[2]]
    kept = ClusterCache(entries=2, ways=2, replacement="none")
    (_, second), _ = served(RangeTableReuse(range_width=1.0, cache=kept), [rows, rows])
    assert second.macs == LAYER.gemm.macs * 4 // 6


def test_timing_by_hand():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    kinds = np.random.default_rng(3).standard_normal((8, 16)) * 9
    rows = kinds[np.arange(64) % 8][None].astype(np.float32)
    table = RangeTable(entries=32, ways=4, max_length=16, width=8)
    design = roomy_design(front_end=None, cache=None, range_table=table)
    policy = RangeTableReuse(range_width=0.5, cache=ClusterCache(entries=32, ways=4))
    (first, second), _ = served(policy, [rows, rows], layer)
    timing = layer_timing(layer, first, design)
    # Two steps for each of 64 vectors of 16 elements, 8 at a time; the table's 8 sets come in.
    assert timing.busy_cycles["range_table"] == 2 * 64 + 8
    # A fold of 8 rows: 2 x 16 + 16 + 8 - 2.
    assert timing.busy_cycles["array"] == 54
    assert timing.actions["range_table", "range"] == 64 * 16
    assert timing.actions["range_table", "lookup"] == 64 + 8
    assert timing.actions["range_table", "write"] == 8 + 8
    # Keys of 16 x 8 bits, a valid bit and the age among 4 ways, in and out; 8 results of 16 x 4
    # bytes out.
    table_bytes = 32 * (128 + 1 + 2) // 8
    assert timing.dram_bytes["spilled_results"] == 2 * table_bytes + 8 * 16 * 4
    again = layer_timing(layer, second, design)
    assert again.macs == 0 and again.busy_cycles["array"] == 0 and again.cycles < timing.cycles


def test_rules_are_told():
    with pytest.raises(ConfigError, match=r"RangeTableReuse.length must not exceed .* got 5"):
        RangeTableReuse(range_width=1.0, length=5).decide(LAYER, np.ones((1, 6, 4)), UNIT)
    changing = replace(LAYER, weights_are_parameters=False)
    with pytest.raises(ConfigError, match="whose right-hand matrix stays, got fc"):
        RangeTableReuse(range_width=1.0).check_layers([changing])
    small = RangeTableReuse(range_width=1.0, cache=ClusterCache(entries=32, ways=4))
    (made,), _ = served(small, [np.ones((1, 6, 4), np.float32)])
    with pytest.raises(ConfigError, match=r"range_table \(entries, ways, replacement\) must be"):
        layer_timing(LAYER, made, preset("ranging_16x16"))


def test_both_are_in_the_catalogue():
    known = techniques()
    assert known["range_table"].policy is RangeTableReuse
    assert known["similar_features"].policy is None and "leaders" in known["similar_features"].how
