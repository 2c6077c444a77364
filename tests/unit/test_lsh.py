"""LSH decisions against a plain reading of the paper, row by row."""

import numpy as np
import pytest

from accelerators import PROJECTIONS, ConfigError
from simulator import LshReuse, NoReuse, PerLayer, decide
from simulator.running.product import product
from tests.builders import matrix_layer
from workloads import Gemm, WorkloadTrace


def reference_clusters(rows, policy, layer, mean):
    """Deep Reuse III-B for one GEMM: dictionaries of signatures, in Python."""
    m, k = rows.shape
    projections = policy.projections(layer.name)
    groups = layer.row_images if policy.scope == "image" else 1
    ids, result = [], np.zeros((m, k), np.float64)
    for first in range(0, k, policy.length):
        columns = slice(first, min(first + policy.length, k))
        width = columns.stop - columns.start
        shifted = rows[:, columns] - mean[columns]
        bits = shifted @ projections[:, :width].T > 0
        row_ids = np.zeros(m, int)
        for group in range(groups):
            seen = {}
            begin = group * (m // groups)
            for row in range(begin, begin + m // groups):
                row_ids[row] = seen.setdefault(bits[row].tobytes(), len(seen))
            for cluster in seen.values():
                members = np.arange(begin, begin + m // groups)
                members = members[row_ids[members] == cluster]
                result[members, columns] = rows[members, columns].mean(axis=0)
        ids.append(row_ids)
    return np.array(ids), result


@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize(("hashes", "length"), [(1, 1), (4, 3), (10, 7), (31, 20), (62, 20)])
def test_clusters_are_those_of_the_paper(scope, projection, hashes, length):
    rng = np.random.default_rng(hashes)
    layer = matrix_layer("fc", m=96, n=5, k=20, row_images=3)
    # Few distinct rows with a little noise: clusters of many sizes. Eighths are exact in float32,
    # so that no dot product lies within rounding of its threshold by accident.
    rows = (rng.integers(-8, 8, (12, 20))[rng.integers(0, 12, 96)] / 8).astype(np.float32)
    rows += (rng.integers(0, 2, rows.shape) / 8).astype(np.float32)
    mean = (rng.integers(-8, 8, 20) / 64 + 1 / 1024).astype(np.float32)
    policy = LshReuse(
        hashes=hashes, length=length, scope=scope, projection=projection, thresholds="mean"
    )
    decisions = policy.decide(layer, rows[None], {"mean": mean[None]})
    ids, represented = reference_clusters(rows.astype(np.float64), policy, layer, mean)
    np.testing.assert_array_equal(decisions.rows.ids[0], ids)
    weights = rng.standard_normal((20, 5)).astype(np.float32)
    # Float32 sums of 20 products of order one: 1e-5 is a hundred roundings.
    np.testing.assert_allclose(
        product(decisions, rows, weights[None])[0], represented @ weights, atol=1e-5
    )
    groups = 3 if scope == "image" else 1
    expected = [
        [row.reshape(groups, -1)[group].max() + 1 for group in range(groups)] for row in ids
    ]
    np.testing.assert_array_equal(decisions.rows.clusters[0], expected)
    assert decisions.rows.total_clusters == np.sum(expected) == len(decisions.evidence.values)
    assert decisions.remaining_ratio == np.sum(expected) / (96 * -(-20 // length))


def test_plain_form_hashes_around_the_origin():
    layer = matrix_layer("fc", m=4, n=1, k=2)
    rows = np.array([[[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0], [3.0, 6.0]]], np.float32)
    plain = LshReuse(hashes=16, length=2, thresholds="zero").decide(layer, rows, {})
    # Positive multiples of one vector share every sign (equation 1 ignores magnitude).
    assert plain.rows.ids.tolist() == [[[0, 0, 1, 0]]]
    assert not LshReuse(hashes=4, length=2, thresholds="zero").needs_calibration(layer)


def test_equal_rows_share_and_cost_nothing_in_accuracy():
    layer = matrix_layer("fc", m=50, n=7, k=12)
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((5, 12)).astype(np.float32)
    rows = distinct[rng.integers(0, 5, 50)][None]
    weights = rng.standard_normal((1, 12, 7)).astype(np.float32)
    policy = LshReuse(hashes=40, length=6)
    decisions = policy.decide(layer, rows, policy.calibrate(layer, rows))
    assert decisions.rows.clusters.max() <= 5
    # Means of up to 50 equal float32 rows, and sums of 12 products.
    np.testing.assert_allclose(product(decisions, rows, weights), rows @ weights, atol=1e-5)


def test_more_hashes_never_merge_clusters():
    layer = matrix_layer("fc", m=200, n=1, k=8)
    rows = np.random.default_rng(1).standard_normal((1, 200, 8)).astype(np.float32)
    state = LshReuse(hashes=1, length=1).calibrate(layer, rows)  # serves any H and L
    totals = [
        LshReuse(hashes=hashes, length=8).decide(layer, rows, state).rows.total_clusters
        for hashes in (1, 2, 4, 8, 16, 32)
    ]
    assert totals == sorted(totals)


def test_one_row_a_group_runs_dense():
    layer = matrix_layer("fc", m=8, n=1, k=4, row_images=8)
    rows = np.ones((1, 8, 4), np.float32)
    assert LshReuse(hashes=4, length=2, thresholds="zero").decide(layer, rows, {}) is None
    batch = LshReuse(hashes=4, length=2, thresholds="zero", scope="batch").decide(layer, rows, {})
    assert batch.rows.total_clusters == 2


def test_every_broken_rule_is_named():
    with pytest.raises(ConfigError) as caught:
        LshReuse(hashes=63, length=0, scope="frame", thresholds="0", projection="int4", seed=-1)
    assert [message.rpartition("; ")[0] for message in caught.value.violations] == [
        "LshReuse.length must be an integer from 1 to 1048576, got 0",
        "LshReuse.scope must be one of 'image', 'batch', 'tile', 'stream', got 'frame'",
        "LshReuse.hashes must be an integer from 1 to 62, got 63",
        "LshReuse.thresholds must be one of 'zero', 'mean', 'spread', got '0'",
        "LshReuse.projection must be one of 'sign', 'sparse', 'int8', got 'int4'",
        f"LshReuse.seed must be an integer from 0 to {2**63 - 1}, got -1",
    ]


def test_spread_thresholds_tell_lengths_apart():
    # One column: every +-1 hyperplane cuts at its threshold alone.
    layer = matrix_layer("fc", m=200, n=1, k=1, row_images=1)
    rows = np.linspace(-3, 5, 200, dtype=np.float32)[None, :, None]
    calibration = np.array([[[0.0], [2.0]]], np.float32)  # mean 1, standard deviation 1
    at_mean = LshReuse(hashes=15, length=1, thresholds="mean")
    assert (
        at_mean.decide(layer, rows, at_mean.calibrate(layer, calibration)).rows.total_clusters == 2
    )
    policy = LshReuse(hashes=15, length=1, spread=2.0)
    decisions = policy.decide(layer, rows, policy.calibrate(layer, calibration))
    # 15 places in a sequence of the golden ratio, from -2 to 2 deviations about v times the mean.
    places = 2 * ((np.arange(15) + 0.5) * (5**0.5 - 1) / 2 % 1) - 1
    cuts = np.sort(1 + 2 * places * policy.projections("fc")[:, 0])
    assert cuts[0] > -1 and cuts[-1] < 3
    expected = np.searchsorted(cuts, rows[0, :, 0])
    np.testing.assert_array_equal(
        np.unique(expected, return_inverse=True)[1], decisions.rows.ids[0, 0]
    )


def test_length_beyond_a_row_names_layer_and_parameter():
    layer = matrix_layer("features.fc", m=8, n=1, k=4)
    with pytest.raises(ConfigError, match=r"LshReuse.length must not exceed .* k=4 of layer 'feat"):
        LshReuse(hashes=4, length=5).decide(layer, np.ones((1, 8, 4), np.float32), {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_name_the_layer(value):
    layer = matrix_layer("features.fc", m=8, n=1, k=4)
    rows = np.ones((1, 8, 4), np.float32)
    rows[0, 3, 2] = value
    with pytest.raises(ConfigError, match=r"layer 'features\.fc' must be finite"):
        LshReuse(hashes=4, length=2, thresholds="zero").decide(layer, rows, {})


def test_pattern_that_matches_nothing_is_named():
    policy = PerLayer({"conv*": LshReuse(hashes=4, length=2), "head.*": NoReuse()})
    with pytest.raises(ConfigError, match=r"'head\.\*' must match a layer; layers are conv1, fc"):
        policy.check_layers([matrix_layer(name, m=8, n=1, k=4) for name in ("conv1", "fc")])


def test_all_layers_shorter_than_length_are_named_at_once():
    rows = {"a": 3, "b": 9, "c": 20, "d": 9}
    trace = WorkloadTrace.from_gemms([(name, Gemm(m=8, n=2, k=k)) for name, k in rows.items()])
    ten, five = LshReuse(hashes=4, length=10), LshReuse(hashes=4, length=5)
    with pytest.raises(ConfigError) as caught:
        decide(trace, ten)
    assert caught.value.violations == (
        "LshReuse.length=10 must not exceed the row length k of a layer, got k=3 of layer 'a', "
        "k=9 of layer 'b', k=9 of layer 'd'; use 3 or less, or give these layers a policy of "
        "their own or NoReuse(): a, b, d",
    )
    with pytest.raises(ConfigError) as caught:
        decide(trace, PerLayer({"[ab]": five, "x": five, "*": ten}))
    pattern, first, second = caught.value.violations
    assert "'x' must match a layer" in pattern
    assert "NoReuse(): a" in first and "NoReuse(): d" in second
    PerLayer({"a": NoReuse(), "c": ten}, five).check_layers(trace.layers)  # all fit


def test_first_matching_pattern_decides():
    first, second = LshReuse(hashes=4, length=2), LshReuse(hashes=8, length=4)
    policy = PerLayer({"conv1": first, "conv*": second})
    assert policy.policy_of("conv1") is first
    assert policy.policy_of("conv2") is second
    assert policy.policy_of("fc") == NoReuse()


def test_policies_that_are_none_are_named_together():
    with pytest.raises(ConfigError) as caught:
        PerLayer({"conv1": (10, 10), "conv2": NoReuse()}, None)
    assert [message.split(",")[0] for message in caught.value.violations] == [
        "PerLayer.policies['conv1'] must be a policy",
        "PerLayer.default must be a policy",
    ]
