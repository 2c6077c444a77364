"""MERCURY: signatures that the array makes, and a result cache that replaces nothing."""

import numpy as np
import pytest

from accelerators import ConfigError, ResultCache, preset
from simulator import ClusterCache, LshReuse, ResultCacheReuse, decide, simulate, techniques
from simulator.kernels.tables import keep_first, set_index
from simulator.running.product import product
from simulator.testing.examples import conv_layer, example_rows, example_weights
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.pipeline import layer_timing
from tests.builders import matrix_layer, roomy_design
from workloads import capture, digits, trained_cifarnet

TABLE = {"entries": 64, "ways": 4}
REMEMBERING = roomy_design(
    front_end=None,
    cache=None,
    result_cache=ResultCache(**TABLE, max_hashes=32, clear_entries_per_cycle=64),
)


def whole(**changes):
    """A policy of whole rows that looks everywhere."""
    return ResultCacheReuse(**{**TABLE, "only_where_it_pays": False} | changes)


def test_a_sub_vector_is_a_channels_patch():
    layer = conv_layer(channels=4)
    assert ResultCacheReuse().length_in(layer) == 9
    assert ResultCacheReuse().length_in(matrix_layer("fc", m=8, n=2, k=6)) == 6
    assert ResultCacheReuse(length=12).length_in(layer) == 12


def test_x_and_2x_share_a_signature_at_threshold_0():
    layer = matrix_layer("fc", m=4, n=3, k=8)
    row = np.random.default_rng(0).standard_normal(8)
    rows = np.stack([row, 2 * row, -row, 0.1 * row])[None].astype(np.float32)
    made = whole().decide(layer, rows, {})
    assert made.rows.ids.tolist() == [[[0, 0, 1, 0]]]
    weights = example_weights(layer)
    # The first one's result, not a mean.
    np.testing.assert_array_equal(product(made, rows, weights)[0, 1], (rows @ weights)[0, 0])


def test_distinct_signatures_are_dense_bit_for_bit():
    layer = matrix_layer("fc", m=64, n=16, k=16)
    rng = np.random.default_rng(1)
    rows = rng.integers(-100, 100, (1, 64, 16)).astype(np.float32)
    weights = rng.integers(-100, 100, (1, 16, 16)).astype(np.float32)
    made = whole(hashes=32).decide(layer, rows, {})
    assert made.rows.total_clusters == 64 and made.macs == layer.gemm.macs
    np.testing.assert_array_equal(product(made, rows, weights), rows @ weights)
    dense = layer_timing(layer, None, REMEMBERING)
    assert layer_timing(layer, made, REMEMBERING).cycles > dense.cycles


def test_hashing_costs_h_of_n_columns():
    # Four kinds of ten rows: 60 % hit. 1 / (0.4 + 20/512) = 2.28.
    layer = matrix_layer("fc", m=10, n=512, k=8)
    kinds = np.random.default_rng(2).standard_normal((4, 8))
    rows = kinds[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]][None].astype(np.float32)
    made = whole(hashes=20).decide(layer, rows, {})
    timing = layer_timing(layer, made, REMEMBERING)
    assert made.macs == 4 * 8 * 512
    assert timing.actions["array", "mac"] == 4 * 8 * 512 + 10 * 8 * 20
    assert layer.gemm.macs / timing.actions["array", "mac"] == pytest.approx(2.28, abs=0.005)


def test_timing_by_hand():
    # 64 vectors of 16 elements of 8 kinds, and 32 columns, on 16 x 16 units.
    layer = matrix_layer("fc", m=64, n=32, k=16)
    kinds = np.random.default_rng(3).standard_normal((8, 16))
    rows = kinds[np.arange(64) % 8][None].astype(np.float32)
    made = whole(hashes=20).decide(layer, rows, {})
    timing = layer_timing(layer, made, REMEMBERING)
    # Hashing: two folds (20 bits on 16 columns) of 2 x 16 + 16 + 64 - 2 = 110 cycles. What is left:
    # two folds (32 columns) of 2 x 16 + 16 + 8 - 2 = 54.
    assert timing.busy_cycles["array"] == 2 * 110 + 2 * 54
    # Each vector a cycle, after a cycle that clears 64 entries.
    assert timing.busy_cycles["result_cache"] == 64 + 1
    assert timing.actions["result_cache", "lookup"] == 64
    assert timing.actions["result_cache", "compare"] == 64 * 20
    assert timing.actions["result_cache", "write"] == 8
    assert timing.actions["array", "mac"] == 64 * 16 * 20 + 8 * 16 * 32
    assert timing.critical_cycles["array"] == 2 * 110 + 2 * 54
    # Results are handed out beside it, 64 rows of 32 columns; then one cycle to load and to store.
    assert timing.cycles == 2 * 110 + 2 * 54 + timing.critical_cycles["dram"] + 64
    assert layer_timing(layer, made, REMEMBERING, EVENT).cycles == timing.cycles


def test_a_full_set_keeps_what_it_has():
    signatures = np.array([7, 9, 5, 5, 7, 9, 5], np.uint64)
    ids, clusters = np.empty(7, np.int32), np.empty(1, np.int32)
    firsts, kept = np.empty(7, np.int64), np.empty(7, bool)
    total = keep_first(
        signatures, np.arange(7), np.array([0, 7]), 1, 2, ids, clusters, firsts, kept
    )
    # 7 and 9 take both entries; every 5 is computed anew.
    assert ids.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert (total, clusters.tolist(), firsts[:5].tolist()) == (5, [5], [0, 1, 2, 3, 6])
    assert kept[:5].tolist() == [True, True, False, False, False]


def plain_table(signatures, entries, ways):
    """Numbers of one tile's clusters, with sets of a dictionary."""
    sets, numbers, found = {}, [], 0
    for signature in signatures:
        held = sets.setdefault(int(set_index(np.uint64(signature), entries // ways)), {})
        if signature in held:
            numbers.append(held[signature])
            continue
        if len(held) < ways:
            held[signature] = found
        numbers.append(found)
        found += 1
    return numbers


@pytest.mark.parametrize("scope", [{}, {"scope": "tile", "tile_rows": 7}])
@pytest.mark.parametrize(("entries", "ways"), [(1, 1), (4, 2), (6, 2), (16, 4)])
def test_decisions_are_those_of_a_plain_table(entries, ways, scope):
    layer = conv_layer(images=2, size=(5, 6))
    rows = example_rows(layer, 7)
    policy = whole(hashes=4, entries=entries, ways=ways, **scope)
    made = policy.decide(layer, rows, {})
    hashed = LshReuse(hashes=4, length=9, thresholds="zero", projection="int8", **scope).decide(
        layer, rows, {}
    )
    for j in range(4):
        signatures = hashed.evidence.values[hashed.rows.clusters_of(0, j)].tolist()
        for tile in range(made.rows.groups):
            own = np.flatnonzero(made.rows.looks.tile_numbers[0] == tile)
            expected = plain_table([signatures[i] for i in own], entries, ways)
            assert made.rows.ids[0, j, own].tolist() == expected


def test_it_is_left_off_where_it_does_not_pay():
    # 20 bits for 64 columns: break-even at 31 %.
    rng = np.random.default_rng(5)
    layer = matrix_layer("fc", m=100, n=64, k=8)
    policy = ResultCacheReuse()
    for distinct, pays in ((75, False), (60, True)):
        rows = rng.standard_normal((distinct, 8))[np.arange(100) % distinct][None]
        rows = rows.astype(np.float32)
        state = policy.calibrate(layer, rows)
        # Two different rows may share a signature of 20 bits.
        hashed = LshReuse(
            hashes=20, length=8, thresholds="zero", projection="int8", scope="batch"
        ).decide(layer, rows, {})
        assert state["hits"][0] == np.float32(1 - hashed.rows.total_clusters / 100)
        assert (policy.decide(layer, rows, state) is not None) == pays
        assert policy.pays(layer, state) == pays
    with pytest.raises(ConfigError, match=r"must hold arrays \{'hits': \(1,\)\}"):
        policy.decide(layer, rows, {})


def test_rules_are_told():
    with pytest.raises(ConfigError, match="ways must divide entries=64, got 3; use 1"):
        ResultCacheReuse(entries=64, ways=3)
    with pytest.raises(ConfigError, match="representative must be 'first', got 'centroid'"):
        ResultCacheReuse(representative="centroid")
    layer = matrix_layer("fc", m=10, n=8, k=8)
    rows = np.ones((1, 10, 8), np.float32)
    with pytest.raises(ConfigError) as error:
        layer_timing(layer, whole(hashes=33, entries=32).decide(layer, rows, {}), REMEMBERING)
    assert [each.split(" must")[0] for each in error.value.violations] == [
        "Accelerator.result_cache (entries, ways)",
        "Accelerator.result_cache.max_hashes",
    ]
    with pytest.raises(ConfigError, match="must have result_cache to run"):
        layer_timing(layer, whole().decide(layer, rows, {}), roomy_design())


def test_a_stream_may_replace_nothing():
    # Two entries: what comes third is computed in each frame, and the first two in none.
    rng = np.random.default_rng(6)
    layer = matrix_layer("fc", m=4, n=3, k=8)
    kinds = rng.standard_normal((3, 8)).astype(np.float32)
    rows = kinds[[0, 1, 2, 2]][None]
    cache = ClusterCache(entries=2, ways=2, replacement="none")
    policy = LshReuse(
        hashes=20, length=8, thresholds="zero", scope="stream", representative="first", cache=cache
    )
    first, memory = policy.decide_next(layer, rows, {}, None)
    second, memory = policy.decide_next(layer, rows, {}, memory)
    assert first.rows.ids.tolist() == second.rows.ids.tolist() == [[[0, 1, 2, 3]]]
    assert first.rows.ages.tolist() == [0, 0, 0, 0]
    assert second.rows.ages.tolist() == [1, 1, 0, 0]
    assert memory["kept"].tolist() == [[2]]


@pytest.mark.parametrize("engine", [COMPILED, EVENT])
def test_what_is_not_kept_is_fetched_each_time(engine):
    # One entry. The first signature stays; each of the others' second and later accesses is a
    # refill, and each of all their accesses a write back.
    layer = matrix_layer("fc", m=6, n=3, k=8)
    kinds = np.random.default_rng(8).standard_normal((2, 8)).astype(np.float32)
    rows = kinds[[0, 1, 1, 0, 1, 0]][None]
    policy = LshReuse(hashes=16, length=8, thresholds="zero", scope="batch")
    made = policy.decide(layer, rows, {})
    cache = preset("reuse_16x16").cache
    small = type(cache)(entries=1, ways=1, replacement="none", miss_cycles=5)
    ones = np.ones(1, np.int64)
    found = engine.replay(made, small, vectors_per_group=ones, cycles_per_group=ones)
    assert (found.refills.item(), found.evictions.item()) == (2, 3)
    assert found.cycles.item() == 6 + 2 * 5


def test_a_network_runs_under_it():
    network, _ = trained_cifarnet("digits")
    frames = digits("test").take(8)
    trace = capture(network, frames.images, labels=frames.labels)
    policy = ResultCacheReuse(thresholds="spread", only_where_it_pays=False, scope="tile",
                              tile_rows=256)  # fmt: skip
    run = decide(trace, policy, model=network)
    assert 0 < run.decisions["conv2"].remaining_ratio < 1
    report = simulate(trace, preset("remembering_16x16"), run)
    assert report.reuse.cycles > 0 and report.accuracy is not None


def test_it_is_in_the_catalogue():
    entry = techniques()["mercury"]
    assert entry.policy is ResultCacheReuse and entry.published == ("SimCNN/MERCURY",)
