"""Two techniques on one layer: what the second decides on what the first one leaves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelerators import AddressList, ConfigError, Reconstructor, SumPredictor, preset
from simulator import (
    AnsweredRegions,
    ChangedPositions,
    Clockwork,
    Decisions,
    DroppedColumns,
    EveryNthFrame,
    KeptRows,
    LeaderReuse,
    LshReuse,
    NoReuse,
    PerLayer,
    PredictedPart,
    RegionOfInterest,
    SharedRows,
    SkippedOutputs,
    SnapeaReuse,
    Together,
    VirtualPooling,
    decide,
    decide_stream,
    simulate,
)
from simulator.decisions.left import layer_of_rows
from simulator.running.product import product
from simulator.testing import PolicySuite
from simulator.testing.examples import conv_layer, decide_on, example_rows, example_weights
from simulator.testing.reference import reference_macs, reference_product
from simulator.timing.pipeline import layer_timing
from tests.builders import matrix_layer
from workloads import capture, digits, trained_cifarnet

LAYER = conv_layer()
HASHED = LshReuse(hashes=3, length=4)
LEADING = LeaderReuse(tolerance=0.7, length=4)
INSIDE = RegionOfInterest(region=(0, 0, 0.5, 1))
HALF = VirtualPooling(stride=2)


class TestFilledThenShared(PolicySuite):
    policy = Together(HALF, HASHED)
    exact = Together(VirtualPooling(stride=1), NoReuse())


class TestKeptThenShared(PolicySuite):
    policy = Together(INSIDE, LEADING)

    def test_of_two_equal_batches_the_second_costs_no_more(self):
        # Fewer rows have other leaders, so that results of equal batches are not equal.
        first = self.batch(self.policy, 3)
        second = self.batch(self.policy, 3, first.memory)
        assert second.decisions.macs < first.decisions.macs


class TestFilledThenKept(PolicySuite):
    policy = Together(HALF, Together(NoReuse(), HASHED))


class TestSharedThenColumns(PolicySuite):
    policy = Together(LEADING, DroppedColumns(columns={LAYER.name: (0, 2)}))


class TestWholeRowsThenDepth(PolicySuite):
    policy = Together(
        LeaderReuse(tolerance=1.5, length=None),
        SkippedOutputs(masks={LAYER.name: ((True, *(False,) * (LAYER.gemm.n - 1)),)}),
    )


def _design():
    base = preset("every_64x64")
    return replace(
        base,
        address_list=AddressList(entries=4096, taps=4),
        reconstructor=base.reconstructor or Reconstructor(),
    )


def test_second_sees_the_rows_that_the_first_leaves():
    rows = example_rows(LAYER, 3)
    made = decide_on(Together(HALF, HASHED), LAYER, rows, calibration=rows)
    alone = decide_on(HALF, LAYER, rows)
    left = rows[:, np.flatnonzero(alone.rows.is_computed[0])]
    seen = layer_of_rows(LAYER, alone.rows)
    second = decide_on(HASHED, seen, left, calibration=rows)
    assert isinstance(made.then.rows, SharedRows)
    np.testing.assert_array_equal(made.then.rows.ids, second.rows.ids)
    assert made.macs == second.macs < alone.macs
    assert made.units == (*alone.units, *(u for u in second.units if u not in alone.units))


def test_depth_after_whole_rows_is_of_their_representatives():
    rows, weights = example_rows(LAYER, 3), example_weights(LAYER)
    policy = TestWholeRowsThenDepth.policy
    made = decide_on(policy, LAYER, rows)
    clusters = made.rows.total_clusters
    assert made.macs == clusters * LAYER.gemm.k * (LAYER.gemm.n - 1) == reference_macs(made)
    np.testing.assert_allclose(
        product(made, rows, weights), reference_product(made, rows, weights), 1e-4, 1e-4
    )
    assert not product(made, rows, weights)[..., 0].any()


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(
            Together(DroppedColumns(columns={LAYER.name: (0,)}), HASHED), id="columns before rows"
        ),
        pytest.param(Together(HASHED, INSIDE), id="kept after shared"),
        pytest.param(Together(INSIDE, HALF), id="filled after kept"),
        pytest.param(
            Together(HASHED, SkippedOutputs(masks={LAYER.name: ((True,) * LAYER.gemm.n,)})),
            id="depth after parts of rows",
        ),
    ],
)
def test_what_makes_no_sense_together_is_one_error(policy):
    with pytest.raises(ConfigError) as error:
        policy.check_layers([LAYER])
        decide_on(policy, LAYER, example_rows(LAYER, 1))
    assert len(error.value.violations) == 1


def test_order_of_construction():
    with pytest.raises(ConfigError, match=r"Together.second must decide on layers"):
        Together(HASHED, EveryNthFrame(n=2))
    with pytest.raises(ConfigError, match=r"Together.first must be a single technique"):
        Together(Together(HALF, HASHED), INSIDE)
    with pytest.raises(ConfigError, match=r"Together.second must not be of regions"):
        Together(EveryNthFrame(n=2), AnsweredRegions(background=(1,)))
    with pytest.raises(ConfigError, match=r"Together.first must be a policy, got 3"):
        Together(3, HASHED)


def _one_product(rows, columns, k, kept, then):
    """Decisions on a linear layer, kept rows first."""
    layer = matrix_layer("fc", rows, columns, k)
    decisions = Decisions(
        layer=layer.name,
        gemm=layer.gemm,
        rows=KeptRows(gemm=layer.gemm, kept=kept),
        then=then,
    )
    return layer, decisions


def test_rows_left_are_timed_as_a_product_of_so_many_rows():
    """Without a second technique of its own, nested decisions are those of kept rows."""
    kept = np.zeros((1, 96), bool)
    kept[0, 32:] = True
    small = matrix_layer("fc", 32, 24, 48)
    nothing = Decisions(layer=small.name, gemm=small.gemm)
    layer, nested = _one_product(96, 24, 48, kept, nothing)
    design = _design()
    found = layer_timing(layer, nested, design)
    alone = layer_timing(layer, replace(nested, then=None), design)
    assert found.macs == alone.macs == 32 * 24 * 48
    assert found.cycles >= layer_timing(small, None, design).cycles
    # 64 rows of 24 results are kept, loaded and stored again; 32 are stored.
    assert found.dram_bytes["kept_results"] == alone.dram_bytes["kept_results"] == 64 * 24
    assert found.dram_bytes["outputs"] == alone.dram_bytes["outputs"] == 96 * 24
    assert found.actions["address_list", "write"] == 96


def test_key_frames_leave_frames_to_share_rows_in():
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(4)
    trace = capture(model, images.images, labels=images.labels)
    hashed = PerLayer({"conv2": LshReuse(hashes=12, length=8)})
    policy = Together(EveryNthFrame(n=2), hashed)
    run = decide(trace, policy, model=model, calibration=trace)
    made = run.decisions["conv2"]
    assert isinstance(made.rows, KeptRows) and isinstance(made.then.rows, SharedRows)
    assert made.then.gemm.m * 2 == made.gemm.m
    key = capture(model, images.images[[0, 2]], labels=images.labels[[0, 2]])
    alone = decide(key, hashed, model=model, calibration=trace)
    np.testing.assert_array_equal(made.then.rows.ids, alone.decisions["conv2"].rows.ids)
    report = simulate(trace, preset("reuse_16x16"), run)
    of_keys = simulate(key, preset("reuse_16x16"), alone)
    assert report.reuse.layers[1].timing.cycles == of_keys.reuse.layers[1].timing.cycles


def test_kept_and_shared_over_a_stream():
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(3)
    policy = PerLayer(
        {"conv2": Together(RegionOfInterest(region=(0, 0, 1, 0.5)), LeaderReuse(tolerance=0.3))}
    )
    traces = [capture(model, images.images[i : i + 1]) for i in range(3)]
    first, *later = [run.decisions["conv2"] for run in decide_stream(traces, policy, model=model)]
    assert not first.rows.kept.any()
    assert all(each.rows.kept.mean() == 0.5 for each in later)
    assert all(each.then.gemm.m == each.gemm.m // 2 for each in later)


CHANGING = ChangedPositions(threshold=0.0)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(Together(CHANGING, LshReuse(hashes=6, length=None)), id="shared"),
        pytest.param(
            Together(CHANGING, LshReuse(hashes=6, length=None, scope="stream")), id="stream"
        ),
        pytest.param(Together(HALF, CHANGING), id="after filled rows"),
    ],
)
def test_of_equal_frames_all_but_the_first_cost_nothing(policy):
    frame = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    changed = frame.copy()
    changed[0, :, 4, 4] += 1
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    traces = [capture(model, torch.from_numpy(each)) for each in (frame, frame, frame, changed)]
    first, *equal, last = decide_stream(traces, policy, model=model)
    assert all(made.macs == 0 for run in equal for made in run.decisions.values())
    assert 0 < last.decisions["0"].macs < first.decisions["0"].macs
    if policy.first is HALF:  # nothing is lost beside it
        alone = decide(traces[-1], HALF, model=model)
        assert last.output_error == pytest.approx(alone.output_error)


def test_a_policy_of_frames_that_names_layers_may_be_the_first():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 1)).eval()
    trace = capture(model, torch.rand(4, 3, 8, 8))
    policy = Together(Clockwork(rates="1=2"), CHANGING)
    run = decide(trace, policy, model=model)
    assert run.decisions["1"].rows.kept.reshape(4, -1).all(axis=1).tolist() == [0, 1, 0, 1]
    with pytest.raises(ConfigError, match="must match a layer"):
        decide(trace, Together(Clockwork(rates="fc=2"), CHANGING), model=model)


def _before_relu():
    torch.manual_seed(1)
    relu = torch.nn.ReLU()
    model = torch.nn.Sequential(relu, torch.nn.Conv2d(2, 8, 3, padding=1), relu).eval()
    frames = torch.rand(1, 2, 12, 12)
    return model, capture(model, frames)


def test_sums_of_shared_rows_that_end_are_timed():
    model, trace = _before_relu()
    design = replace(_design(), sum_predictor=SumPredictor())
    sharing = LeaderReuse(tolerance=0.3, length=None)
    policy = Together(sharing, PredictedPart(threshold=0.0))
    made = decide(trace, policy, model=model, calibration=trace).decisions["1"]
    found = layer_timing(trace.layers[0], made, design)
    alone = layer_timing(trace.layers[0], replace(made, then=None), design)
    assert found.cycles == alone.cycles  # in step
    assert found.macs == made.then.macs < alone.macs
    assert found.actions["sum_predictor", "check"] == made.then.evidence.checks > 0
    ordered = Together(sharing, SnapeaReuse())
    made = decide(trace, ordered, model=model, calibration=trace).decisions["1"]
    with pytest.raises(ConfigError, match="not sum shared rows in an order of each column"):
        layer_timing(trace.layers[0], made, design)
