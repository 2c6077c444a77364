"""What every policy that decides must keep: the shipped suites, and what those of here add.

A further policy joins by a line in `POLICIES`.
"""

import json
import math
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelerators import Accelerator, ConfigError, preset
from simulator import (
    AnsweredRegions,
    CachedAnswers,
    ChangedPositions,
    Clockwork,
    DeepFeatureFlow,
    DroppedColumns,
    DroppedTokens,
    Eva2,
    EveryNthFrame,
    FeatureBoosting,
    FilledRows,
    FineChanges,
    HyperCubeReuse,
    KMeansReuse,
    LeaderReuse,
    LshReuse,
    NeighbourReuse,
    NoScope,
    PerforationMask,
    PerforationReuse,
    PositionDifferences,
    PredictedPart,
    QuantisedDifferences,
    RangeTableReuse,
    RegionOfInterest,
    ResultCacheReuse,
    SimilarFilters,
    SkippedOutputs,
    SnapeaReuse,
    SpatialDifferences,
    SubFlow,
    SubVectorPolicy,
    SumMerge,
    VirtualPooling,
    WeightRepetition,
    ZapReuse,
)
from simulator.running.product import product
from simulator.testing import (
    ColumnSuite,
    DepthSuite,
    FrameSuite,
    PolicySuite,
    RowSuite,
    TokenSuite,
)
from simulator.testing.examples import (
    before_a_relu,
    conv_layer,
    decide_on,
    example_rows,
    example_weights,
)
from simulator.timing.pipeline import layer_timing
from tests.builders import matrix_layer
from workloads.traces.layer import Layer

# Name -> a policy, coarse enough to form clusters on a few rows.
POLICIES = {
    "lsh": LshReuse(hashes=3, length=4),
    "lsh_plain": LshReuse(hashes=3, length=5, thresholds="zero", projection="int8"),
    "lsh_mean": LshReuse(hashes=3, length=4, thresholds="mean"),
    "lsh_sparse_batch": LshReuse(hashes=4, length=7, scope="batch", projection="sparse"),
    "lsh_first": LshReuse(hashes=3, length=4, representative="first"),
    "lsh_channels_last": LshReuse(hashes=3, length=4, order="channels_last"),
    "lsh_whole_rows": LshReuse(hashes=4, length=None, order="channels_last"),
    "lsh_normalised": LshReuse(hashes=3, length=4, normalised=True, order="channels_last"),
    "lsh_euclidean": LshReuse(hashes=3, length=4, metric="euclidean", bucket_width=2.0),
    "lsh_pca": LshReuse(hashes=6, length=4, learning="pca", projection="int8"),
    "lsh_pca_euclidean": LshReuse(
        hashes=2, length=4, learning="pca", projection="int8", metric="euclidean", scope="batch"
    ),
    "lsh_itq": LshReuse(hashes=6, length=4, learning="itq", projection="int8"),
    "lsh_task": LshReuse(hashes=3, length=4, learning="task", projection="int8"),
    "lsh_task_sign": LshReuse(hashes=3, length=4, learning="task", order="channels_last"),
    "lsh_tiles": LshReuse(hashes=2, length=4, scope="tile", tile_rows=7),
    "lsh_blocks_first": LshReuse(
        hashes=2, length=5, scope="tile", tile_rows=5, tile_shape="block", representative="first"
    ),
    "k_means": KMeansReuse(clusters=3, length=4),
    "k_means_euclidean": KMeansReuse(
        clusters=0.3, length=5, metric="euclidean", scope="batch", representative="first"
    ),
    "hyper_cube": HyperCubeReuse(bins=2, dimensions=2, length=4),
    "hyper_cube_first": HyperCubeReuse(
        bins=3, dimensions=3, length=9, primary="first", order="channels_last", scope="batch"
    ),
    "leaders": LeaderReuse(tolerance=0.7, length=4),
    "leaders_absolute": LeaderReuse(
        tolerance=1.0, distance="absolute", length=7, scope="batch", representative="first"
    ),
    "leaders_in_strips": LeaderReuse(
        tolerance=1.5, length=None, scope="tile", tile_rows=7, order="channels_last"
    ),
    "leaders_in_blocks": LeaderReuse(
        tolerance=0.7,
        length=5,
        entries=2,
        scope="tile",
        tile_rows=9,
        tile_shape="block",
        representative="first",
    ),
    "result_cache": ResultCacheReuse(hashes=5, entries=8, ways=2, only_where_it_pays=False),
    "result_cache_in_tiles": ResultCacheReuse(
        hashes=4,
        length=4,
        entries=4,
        ways=4,
        thresholds="spread",
        scope="tile",
        tile_rows=7,
        order="channels_last",
        only_where_it_pays=False,
    ),
    "neighbours": NeighbourReuse(threshold=0.6, length=4, neighbourhood="window"),
    "neighbours_in_one_block": NeighbourReuse(
        threshold=0.5, block_rows=4, block_columns=5, representative="first"
    ),
    "perforation": PerforationReuse(computed=0.4),
    "perforation_uniform": PerforationReuse(computed=0.3, mask="uniform"),
    "virtual_pooling": VirtualPooling(),
    "region_of_interest": RegionOfInterest(region=(0, 0, 0.5, 0.6)),
    "answered_regions": AnsweredRegions(background=(0,)),
    "changed_positions": ChangedPositions(threshold=2.0),
    "changed_positions_copied": ChangedPositions(threshold=2.5, form="copy"),
    "fine_changes": FineChanges(threshold=0.2),
    "fine_changes_in_streams": FineChanges(threshold=0.2, images="streams", refresh=4),
    "position_differences": PositionDifferences(threshold=2.0),
    "quantised_differences": QuantisedDifferences(levels=32),
    "spatial_differences": SpatialDifferences(),
    "dropped_columns": DroppedColumns(columns={"conv": (1,)}),
    "dropped_fraction": DroppedColumns(fraction=0.4),
    "similar_filters": SimilarFilters(tolerance=1.4),
    "skipped_outputs": SkippedOutputs(masks={"conv": [[True, False, False]]}),
    "sub_flow": SubFlow(budget=0.6),
    "ucnn": WeightRepetition(),
    "ucnn_pairs": WeightRepetition(filters=2, largest_sum=16),
    "sum_merge": SumMerge(filters=2),
}
CLUSTERINGS = {name: each for name, each in POLICIES.items() if isinstance(each, SubVectorPolicy)}
# So fine that every distinct sub-vector is a cluster of its own.
EXACT = {
    "lsh": LshReuse(hashes=62, length=18),
    "lsh_first": LshReuse(hashes=62, length=18, representative="first", order="channels_last"),
    "lsh_normalised": LshReuse(hashes=62, length=18, normalised=True),
    "lsh_euclidean": LshReuse(hashes=8, length=4, metric="euclidean", bucket_width=1e-3),
    "lsh_pca": LshReuse(hashes=62, length=None, learning="pca", projection="int8"),
    "lsh_itq": LshReuse(hashes=62, length=None, learning="itq", projection="int8"),
    "k_means": KMeansReuse(clusters=1.0, length=4, order="channels_last"),
    "hyper_cube": HyperCubeReuse(bins=2**15, dimensions=4, length=4, order="channels_last"),
    "leaders": LeaderReuse(tolerance=0, length=4, entries=2, order="channels_last"),
    "leaders_absolute": LeaderReuse(tolerance=0.0, distance="absolute", representative="first"),
    "result_cache": ResultCacheReuse(hashes=62, length=18, only_where_it_pays=False),
    "neighbours": NeighbourReuse(threshold=1.0, length=4, order="channels_last"),
    "perforation": PerforationReuse(computed=1.0),
    "virtual_pooling": VirtualPooling(stride=1),
    "region_of_interest": RegionOfInterest(region=(0, 0, 1, 1)),
    "answered_regions": AnsweredRegions(background=()),
    "changed_positions": ChangedPositions(threshold=0),
    "changed_positions_copied": ChangedPositions(threshold=0, form="copy"),
    "fine_changes": FineChanges(threshold=0.0, images="streams"),
    "position_differences": PositionDifferences(threshold=0.0, refresh=1),
    "dropped_fraction": DroppedColumns(),
    "similar_filters": SimilarFilters(tolerance=0),
    "skipped_outputs": SkippedOutputs(masks={"conv": [[False] * 3]}),
    "sub_flow": SubFlow(budget=1),
}
# Settings that leave less and less.
BOLDER = {
    "lsh": (LshReuse(hashes=2, length=4), LshReuse(hashes=1, length=4)),
    "k_means": (KMeansReuse(clusters=2, length=4), KMeansReuse(clusters=1, length=4)),
    "hyper_cube": (HyperCubeReuse(bins=1, dimensions=2, length=4),),
    "leaders": (
        LeaderReuse(tolerance=1.0, length=4),
        LeaderReuse(tolerance=1.5, length=4),
        LeaderReuse(tolerance=100.0, length=4),
    ),
    "result_cache": (
        ResultCacheReuse(hashes=3, entries=16, ways=2, only_where_it_pays=False),
        ResultCacheReuse(hashes=2, entries=16, ways=2, only_where_it_pays=False),
        ResultCacheReuse(hashes=1, entries=16, ways=2, only_where_it_pays=False),
    ),
    "neighbours": (
        NeighbourReuse(threshold=0.3, length=4, neighbourhood="window"),
        NeighbourReuse(threshold=0.0, length=4, neighbourhood="window", block_columns=3),
    ),
    "perforation": (PerforationReuse(computed=0.2), PerforationReuse(computed=0.05)),
    "virtual_pooling": (VirtualPooling(stride=3), VirtualPooling(stride=5)),
    "changed_positions": (ChangedPositions(threshold=2.5), ChangedPositions(threshold=30)),
    "fine_changes": (FineChanges(threshold=0.5), FineChanges(threshold=2.0)),
    "position_differences": (
        PositionDifferences(threshold=2.7),
        PositionDifferences(threshold=9.0),
    ),
    "quantised_differences": (QuantisedDifferences(levels=8), QuantisedDifferences(levels=2)),
    "dropped_columns": (DroppedColumns(columns={"conv": (0, 1)}),),
    "dropped_fraction": (DroppedColumns(fraction=0.7),),
    "similar_filters": (SimilarFilters(tolerance=2),),
    "sub_flow": (SubFlow(budget=0.3),),
    "skipped_outputs": (SkippedOutputs(masks={"conv": [[True, True, False]]}),),
}
STREAM = LshReuse(hashes=3, length=4, scope="stream")


class LevelSuite(RowSuite):
    """Of rows that are brought to levels, the first frame's are not dense either."""

    def test_equal_rows_are_exact(self):
        rows = np.tile(example_rows(self.layer, 3)[:, :1], (1, self.layer.gemm.m, 1))
        made, weights = decide_on(self.policy, self.layer, rows), example_weights(self.layer)
        found = product(made, rows, weights)
        levels = np.broadcast_to(made.rows.differences[:, :1] @ weights, found.shape)
        np.testing.assert_allclose(found, levels, **CLOSE)


SUITES = {
    DroppedColumns: ColumnSuite,
    SimilarFilters: ColumnSuite,
    QuantisedDifferences: LevelSuite,
    SkippedOutputs: DepthSuite,
    SubFlow: ColumnSuite,
    SumMerge: PolicySuite,
    WeightRepetition: PolicySuite,
}


def suite_of(name, policy):
    """A class that pytest collects: the suite of the policy's kind."""
    return type(
        f"Test_{name}",
        (SUITES.get(type(policy), RowSuite),),
        {
            "policy": policy,
            "exact": EXACT.get(name),
            "exact_tolerance": 1e-4 if isinstance(policy, SubVectorPolicy) else 0,
            "bolder": BOLDER.get(name, ()),
        },
    )


for _name, _policy in (POLICIES | {"lsh_stream": STREAM}).items():
    globals()[f"Test_{_name}"] = suite_of(_name, _policy)


class TestDeepFeatureFlow(FrameSuite):
    policy = DeepFeatureFlow(interval=2, tile=2, radius=2, step=1)
    exact = DeepFeatureFlow(interval=1)
    bolder = (
        DeepFeatureFlow(interval=3, tile=2, radius=2),
        DeepFeatureFlow(interval=6, tile=4, radius=2, reach=0),
    )


class TestDeepFeatureFlowInTheMiddle(FrameSuite):
    policy = DeepFeatureFlow(interval=3, target="0", tile=2, radius=3, step=1)
    bolder = (DeepFeatureFlow(interval=6, target="0", tile=3, radius=4),)


class TestEva2(FrameSuite):
    policy = Eva2(longest=3, max_error=255, tile=2, radius=2, step=1)
    exact = Eva2(longest=1)
    bolder = (Eva2(longest=6, max_error=255, tile=3, radius=2),)


class TestEva2ByItsError(FrameSuite):
    policy = Eva2(max_error=29, tile=2, reach=0, radius=2, step=1)
    exact = Eva2(max_error=0, tile=2)
    bolder = (Eva2(max_error=200, tile=2, reach=0, radius=2, step=1),)


class TestRangeTable(RowSuite):
    policy = RangeTableReuse(range_width=1.0, length=4)
    exact = RangeTableReuse(range_width=1e-4, length=18, range_bits=16)
    exact_tolerance = 1e-4
    bolder = (RangeTableReuse(range_width=2.0, length=4), RangeTableReuse(range_width=9, length=4))


class TestPerforationMask(RowSuite):
    """Of a layer of 20 positions."""

    policy = PerforationMask(positions=(0, 4, 9, 13, 17))
    exact = PerforationMask(positions=range(20))
    bolder = (PerforationMask(positions=(3, 9)), PerforationMask(positions=(9,)))


@dataclass(frozen=True, kw_only=True)
class GatedExample(FeatureBoosting):
    """With a gate of its own, where the suites know no other layer's weights."""

    def calibrate(self, layer, rows, weights=None):
        shape = 1, layer.input_shape[1] + 1, layer.gemm.n
        gate = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
        gate[:, -1] += 3  # so that every gain is above 0
        return super().calibrate(layer, rows, lambda: gate)


class TestFeatureBoosting(ColumnSuite):
    layer = conv_layer(n=6, name="conv.boosted")
    policy = GatedExample(density=0.6)
    exact = GatedExample(density=1)
    bolder = (GatedExample(density=0.4), GatedExample(density=0.1))


class TestSnapeaExact(DepthSuite):
    """Its sums end where they end: nothing turns that off."""

    policy = SnapeaReuse()
    bolder = (
        SnapeaReuse(mode="predictive", loss=0.05),
        SnapeaReuse(mode="predictive", loss=0.5),
    )
    layer = before_a_relu(conv_layer())


class TestSnapeaLargestFirst(DepthSuite):
    policy = SnapeaReuse(mode="predictive", loss=0.1, largest_first=True, samples=7)
    layer = before_a_relu(conv_layer(channels=3))


class TestPartOfChannels(DepthSuite):
    policy = PredictedPart(channels=0.5, threshold=-0.5)
    exact = PredictedPart(channels=1.0, threshold=0.0)
    bolder = (
        PredictedPart(channels=0.5, threshold=0.0),
        PredictedPart(channels=0.5, threshold=1.0),
    )
    layer = before_a_relu(conv_layer(groups=2, channels=8))


class TestPartOfBits(DepthSuite):
    policy = PredictedPart(part="high_bits", bits=3, loss=0.001)
    exact = PredictedPart(part="high_bits", bits=3, threshold=-1e9)
    bolder = (
        PredictedPart(part="high_bits", bits=3, loss=0.05),
        PredictedPart(part="high_bits", bits=3, loss=0.6),
    )
    layer = before_a_relu(conv_layer())


class TestPartOfSigns(DepthSuite):
    policy = PredictedPart(part="signs", loss=0.01)
    exact = PredictedPart(part="signs", threshold=-1e9)
    layer = before_a_relu(conv_layer())


class TestZap(DepthSuite):
    policy = ZapReuse(threshold=0.4, steps=20)
    exact = ZapReuse(threshold=0.0, steps=20)
    bolder = (ZapReuse(threshold=0.6, steps=20), ZapReuse(threshold=2.0, steps=20))
    layer = before_a_relu(conv_layer(images=3))


class TestZapOfAllPositions(TestZap):
    policy = ZapReuse(threshold=0.6, steps=20, pattern="uniform", computed=0.25)
    exact = ZapReuse(threshold=1.0, steps=20, computed=1.0)
    bolder = ()


class TestEveryNthFrame(FrameSuite):
    policy = EveryNthFrame(n=2)
    exact = EveryNthFrame(n=1)
    bolder = (EveryNthFrame(n=3), EveryNthFrame(n=6))


class TestNoScope(FrameSuite):
    # Frames are drawn from the standard normal distribution: they differ by 2 in the mean square.
    policy = NoScope(threshold=2.0, against="answered")
    exact = NoScope(threshold=0.0)
    bolder = (NoScope(threshold=2.0, against="answered", skip=2), NoScope(threshold=1e30))


class TestNoScopeInBlocks(FrameSuite):
    policy = NoScope(threshold=2.0, distance=2, blocks=3)
    exact = NoScope(threshold=0.0, blocks=2)
    bolder = (NoScope(threshold=1e30, distance=2, blocks=3),)


class TestClockwork(FrameSuite):
    policy = Clockwork(rates="2=2")
    exact = Clockwork(rates="*=1")
    bolder = (Clockwork(rates="2=2 5=6"), Clockwork(rates="2=3 5=6"), Clockwork(rates="*=6"))


class TestAdaptiveClockwork(FrameSuite):
    policy = Clockwork(changes="2=0.25")
    exact = Clockwork(changes="2=0")
    bolder = (Clockwork(changes="2=1e30"),)


class TestCachedAnswers(FrameSuite):
    policy = CachedAnswers(layers="2 5", threshold=0.99)
    exact = CachedAnswers(layers="2", threshold=2)
    bolder = (CachedAnswers(layers="2 5", threshold=0.5),)


class TestDroppedTokens(TokenSuite):
    policy = DroppedTokens(first_layer="blocks.1.query", dropped=(2, 5))
    exact = DroppedTokens(first_layer="blocks.1.query", dropped=())
    bolder = (
        DroppedTokens(first_layer="blocks.1.query", dropped=(1, 2, 5)),
        DroppedTokens(first_layer="blocks.0.query", dropped=(1, 2, 5)),
    )


# Built of the float32 sums of at most 36 products of order one.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
any_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
any_mask_or_clustering = pytest.mark.parametrize(
    "policy",
    [each for each in POLICIES.values() if isinstance(each, PerforationReuse | SubVectorPolicy)],
    ids=[k for k, v in POLICIES.items() if isinstance(v, PerforationReuse | SubVectorPolicy)],
)
any_clustering = pytest.mark.parametrize("policy", CLUSTERINGS.values(), ids=CLUSTERINGS)
hastily = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def few_steps_of_learning(monkeypatch):
    """Learning is the same with fewer steps, and these properties ask no quality of it."""
    monkeypatch.setattr("simulator.policies.hyperplanes._STEPS", 5)
    monkeypatch.setattr("simulator.policies.hyperplanes._ROTATION_STEPS", 5)


@st.composite
def layers(draw) -> Layer:
    """Convolutions, some of two groups."""
    groups = draw(st.sampled_from([1, 2]))
    return conv_layer(
        images=draw(st.integers(1, 3)),
        channels=groups * draw(st.sampled_from([1, 3])),
        size=(draw(st.integers(2, 5)), draw(st.integers(1, 5))),
        n=draw(st.integers(1, 4)),
        groups=groups,
    )


def reconstructed(decisions, rows):
    """The `(count, m, k)` rows that the decisions stand for, column by column, one at a time."""
    if isinstance(decisions.rows, FilledRows):
        filled = decisions.rows
        taken = filled.computed[filled.taps[:, 0]]
        images = np.arange(filled.images)[:, None] * filled.positions
        return rows[:, (images + taken).ravel()]
    gemm, length = decisions.gemm, decisions.rows.sub_vector_length
    order = (
        np.arange(gemm.k) if decisions.rows.column_order is None else decisions.rows.column_order
    )
    ordered = rows[:, :, order].astype(np.float64)
    found, result = np.empty_like(ordered), np.empty_like(ordered)
    tiles = decisions.rows.looks.tile_numbers[0]
    start = 0
    for i, j, group in np.ndindex(decisions.rows.clusters.shape):
        columns = slice(j * length, min((j + 1) * length, gemm.k))
        for cluster in range(decisions.rows.clusters[i, j, group]):
            members = np.flatnonzero((tiles == group) & (decisions.rows.ids[i, j] == cluster))
            part = ordered[i, members, columns]
            norms = np.ones((len(members), 1))
            if decisions.rows.scales is not None:
                norms = np.linalg.norm(part, axis=1, keepdims=True)
                part = part / norms
            centroid = decisions.rows.centroids[start, : part.shape[1]]
            match decisions.rows.representative:
                case "centroid":
                    np.testing.assert_allclose(centroid, part.mean(axis=0), **CLOSE)
                case "first":
                    np.testing.assert_allclose(centroid, part[0], **CLOSE)
                case other:
                    raise AssertionError(other)
            assert not decisions.rows.centroids[start, part.shape[1] :].any()
            found[i, members, columns] = centroid * norms
            start += 1
    assert start == len(decisions.rows.centroids)
    result[:, :, order] = found
    return result


@any_mask_or_clustering
@given(layer=layers(), seed=st.integers(0, 2**16))
@hastily
def test_decisions_are_clusters_of_the_stream(policy, layer, seed):
    if isinstance(policy, SubVectorPolicy):
        policy = replace(policy, length=policy.length and min(policy.length, layer.gemm.k))
    rows = example_rows(layer, seed)
    decisions = decide_on(policy, layer, rows)
    if decisions is None:
        assert layer.gemm.m == layer.row_images
        return
    gemm = layer.gemm
    assert decisions.macs <= gemm.macs
    weights = example_weights(layer, seed)
    np.testing.assert_allclose(
        product(decisions, rows, weights), reconstructed(decisions, rows) @ weights, **CLOSE
    )
    if isinstance(decisions.rows, FilledRows):
        computed = len(decisions.rows.computed) * layer.row_images
        assert decisions.macs == gemm.count * computed * gemm.k * gemm.n
        return
    sub_matrices = math.ceil(gemm.k / decisions.rows.sub_vector_length)
    assert decisions.rows.ids.shape == (gemm.count, sub_matrices, gemm.m)
    assert decisions.rows.ids.dtype == decisions.rows.clusters.dtype == np.int32
    assert decisions.rows.clusters.shape == (gemm.count, sub_matrices, decisions.rows.groups)
    tiles = decisions.rows.looks.tile_numbers[0]
    for i, j, tile in np.ndindex(decisions.rows.clusters.shape):
        # Numbers come up one by one: none is left out, so no cluster is empty.
        numbers = list(dict.fromkeys(decisions.rows.ids[i, j, tiles == tile].tolist()))
        assert numbers == list(range(decisions.rows.clusters[i, j, tile]))
    total = int(decisions.rows.clusters.sum())
    assert decisions.rows.total_clusters == total == len(decisions.rows.centroids)
    assert decisions.remaining_ratio == total / (gemm.count * gemm.m * sub_matrices)


@any_mask_or_clustering
def test_one_row_a_group_runs_dense(policy):
    layer = conv_layer(images=3, size=(1, 1))
    if isinstance(policy, SubVectorPolicy):
        policy = replace(policy, scope="image" if policy.scope == "batch" else policy.scope)
    if policy.needs_calibration(layer):  # it must do with single rows too
        state = policy.calibrate(layer, example_rows(layer, 2), lambda: example_weights(layer))
        assert all(np.isfinite(values).all() for values in state.values())
    assert decide_on(policy, layer, example_rows(layer, 2)) is None


@any_mask_or_clustering
def test_equal_rows_are_one_cluster_and_exact(policy):
    layer = conv_layer()
    row = np.random.default_rng(3).standard_normal((1, 1, layer.gemm.k))
    rows = np.tile(row, (1, layer.gemm.m, 1)).astype(np.float32)
    decisions = decide_on(policy, layer, rows)
    if not isinstance(policy, PerforationReuse):  # its mask is blind
        assert (decisions.rows.clusters == 1).all()
    weights = example_weights(layer)
    np.testing.assert_allclose(product(decisions, rows, weights), rows @ weights, **CLOSE)


@pytest.mark.parametrize("name", [k for k, v in EXACT.items() if type(v) not in SUITES])
def test_distinct_clusters_are_exact(name):
    policy = EXACT[name]
    layer = conv_layer(size=(3, 4))
    # Random directions in 18 dimensions are far apart: 62 hyperplanes tell them from each other.
    rows = np.random.default_rng(5).standard_normal((1, layer.gemm.m, layer.gemm.k))
    rows = rows.astype(np.float32)
    decisions = decide_on(policy, layer, rows, calibration=rows)
    assert decisions.remaining_ratio == 1
    weights = example_weights(layer)
    np.testing.assert_allclose(product(decisions, rows, weights), rows @ weights, **CLOSE)


@any_policy
def test_description_survives_json(policy):
    described = policy.describe()
    assert json.loads(json.dumps(described)) == described
    parameters = {name: value for name, value in described.items() if name != "policy"}
    assert type(policy)(**parameters) == policy


@any_policy
def test_calibration_of_another_policy_is_refused(policy):
    layer = conv_layer()
    if policy.needs_calibration(layer):
        with pytest.raises(ConfigError, match="calibration of layer 'conv' must hold arrays"):
            policy.decide(layer, example_rows(layer, 10), {"else": np.zeros(3)})
    else:
        assert policy.decide(layer, example_rows(layer, 10), {}) is not None


def test_a_task_is_learned_from_weights():
    layer = conv_layer()
    with pytest.raises(ConfigError, match=r"weights of layer 'conv' must be given.*'task'"):
        POLICIES["lsh_task"].calibrate(layer, example_rows(layer, 12))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning": "itq"}, "projection must be 'int8' with learning='itq', got 'sign'"),
        (
            {"learning": "task", "projection": "sparse"},
            "projection must be 'int8' or 'sign' with learning='task', got 'sparse'",
        ),
        (
            {"learning": "task", "metric": "euclidean"},
            "metric must be 'angular' with learning='task', got 'euclidean'",
        ),
        ({"hashes": 63}, "hashes must be an integer from 1 to 62, got 63"),
    ],
)
def test_hashing_that_does_not_go_together_is_refused(parameters, message):
    with pytest.raises(ConfigError, match=f"LshReuse.{message}; use"):
        replace(LshReuse(hashes=4, length=4), **parameters)


def test_hyper_cubes_must_fit_a_key_and_a_sub_vector():
    with pytest.raises(ConfigError) as caught:
        HyperCubeReuse(bins=3, dimensions=40, length=20)
    key, sub_vector = caught.value.violations
    assert key.endswith("got 3**40; use at most 39 dimensions")  # 62 / log2(3) = 39.1
    assert sub_vector.endswith("must not exceed length=20, got 40; use 20 or less")


def test_learning_lessens_the_error():
    # Noise in half of the columns, whose weights are 0: what learns the task looks away.
    layer = matrix_layer("fc", m=256, n=4, k=8)
    rng = np.random.default_rng(13)
    rows = rng.standard_normal((1, 256, 8)).astype(np.float32)
    rows[..., 4:] *= 3
    weights = example_weights(layer)
    weights[:, 4:] = 0
    errors = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulator.policies.hyperplanes._STEPS", 100)
        for learning in ("none", "task"):
            policy = LshReuse(hashes=4, length=8, learning=learning, projection="int8")
            state = policy.calibrate(layer, rows, lambda: weights)
            result = product(policy.decide(layer, rows, state), rows, weights)
            errors[learning] = np.square(result - rows @ weights).mean()
    assert errors["task"] < 0.8 * errors["none"]


@any_policy
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_name_the_layer(policy, value):
    layer = conv_layer()
    rows = example_rows(layer, 9)
    rows[0, -1, 5] = value
    with pytest.raises(ConfigError, match="layer 'conv' must be finite"):
        decide_on(policy, layer, rows)
    if policy.needs_calibration(layer):
        with pytest.raises(ConfigError, match="layer 'conv' must be finite"):
            decide_on(policy, layer, example_rows(layer, 9), calibration=rows)


@any_policy
@pytest.mark.parametrize("shape", [(1, 0, 36), (1, 40, 35), (2, 40, 36), (40, 36)])
def test_rows_of_another_shape_or_none_name_the_layer(policy, shape):
    layer = conv_layer()
    with pytest.raises(ConfigError, match=r"layer 'conv' must be \(1, rows, 36\).* got shape"):
        policy.decide(layer, np.ones(shape, np.float32), {})


@any_clustering
def test_length_beyond_a_row_names_layer_and_parameter(policy):
    layer = conv_layer(channels=1)
    policy = replace(policy, length=10)
    given = rf"{type(policy).__name__}\.length.* must not exceed .* k=9 of layer 'conv'"
    with pytest.raises(ConfigError, match=given):
        decide_on(policy, layer, example_rows(layer, 0))
    with pytest.raises(ConfigError, match=given):
        policy.check_layers([layer])


@any_clustering
def test_every_broken_rule_is_named_at_once(policy):
    name = type(policy).__name__
    with pytest.raises(ConfigError) as caught:
        replace(policy, length=0, scope="frame", order="hwc", representative="last")
    assert [message.split(" must")[0] for message in caught.value.violations] == [
        f"{name}.length",
        f"{name}.scope",
        f"{name}.order",
        f"{name}.representative",
    ]


@any_clustering
def test_orders_are_those_of_unfolding(policy):
    layer = conv_layer()
    first, last = (
        replace(policy, order=order).column_order(layer)
        for order in ("channels_first", "channels_last")
    )
    assert first is None
    # Column (c, kh, kw) of four channels and nine taps comes to (kh, kw, c).
    assert last.reshape(3, 3, 4)[2, 1, 3] == np.ravel_multi_index((3, 2, 1), (4, 3, 3))
    assert replace(policy, order="channels_last").column_order(matrix_layer("fc", 4, 2, 9)) is None


@any_mask_or_clustering
def test_what_is_not_built_is_refused_by_hardware_alone(policy):
    layer = conv_layer()
    decisions = decide_on(policy, layer, example_rows(layer, 11))
    is_built = isinstance(
        policy, PerforationReuse | NeighbourReuse | LeaderReuse | ResultCacheReuse
    ) or (isinstance(policy, LshReuse) and policy.metric == "angular" and not policy.normalised)
    known = {field.name for field in fields(Accelerator)}
    assert (set(decisions.units) <= known) == is_built


def test_hardware_says_what_it_lacks():
    layer = matrix_layer("fc", m=8, n=2, k=6)
    rows = np.random.default_rng(0).standard_normal((1, 8, 6)).astype(np.float32)
    for policy, lacking in (
        (KMeansReuse(clusters=2, length=3), "distance_unit"),
        (LshReuse(hashes=4, length=3, normalised=True, thresholds="zero"), "scaler"),
    ):
        with pytest.raises(
            ConfigError, match=rf"layer 'fc'.* none here has a {lacking}; only decide\(\)"
        ):
            layer_timing(layer, policy.decide(layer, rows, {}), preset("reuse_16x16"))
