"""Sums that end early before a ReLU: SnaPEA, prediction from a part, ZAP."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from accelerators import ConfigError, SumPredictor, preset
from simulator import (
    PerLayer,
    PredictedPart,
    SnapeaReuse,
    ZapReuse,
    calibrate,
    decide,
    relu_after,
    simulate,
    why_dense,
)
from simulator.decisions.depth import DepthDecisions
from simulator.kernels.prefixes import ended_terms
from simulator.policies.policy import Operands
from simulator.policies.predicted_part import high_bits
from simulator.policies.profiling import Choice, chosen, thresholds_of
from simulator.policies.snapea import representatives
from simulator.running.product import product
from simulator.testing.examples import before_a_relu, conv_layer, example_rows, example_weights
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.pipeline import layer_timing
from tests.builders import matrix_layer
from tests.unit.test_after import Block, Of, of, seeded
from workloads import capture, quantise
from workloads.models import load
from workloads.traces.after import Affine

ALL = (
    SnapeaReuse(),
    SnapeaReuse(mode="predictive", loss=0.05),
    PredictedPart(),
    PredictedPart(part="high_bits"),
    PredictedPart(part="signs"),
    ZapReuse(steps=10),
)
each_policy = pytest.mark.parametrize("policy", ALL, ids=lambda each: str(each)[:40])


def decided(policy, layer, rows, weights, affine=None):
    rows, weights = (np.asarray(x, np.float32)[None] for x in (rows, weights))
    state = policy.calibrate(
        layer, rows, Operands(read=lambda: weights, read_affine=lambda: affine)
    )
    return policy.decide(layer, rows, state)


def fc(m, n, k):
    return before_a_relu(matrix_layer("fc", m=m, n=n, k=k))


def test_snapea_by_hand():
    weights = np.array([[3], [1], [-2], [-4]])
    made = decided(SnapeaReuse(), fc(2, 1, 4), [[0, 1, 2, 1], [1, 1, 2, 1]], weights)
    # 0, 1, -3: ends after three of four; 3, 4, 0, -4: all four, for 0 is not below 0.
    assert made.depth.terms.tolist() == [[[3], [4]]]
    assert made.depth.order.tolist() == [[0], [1], [2], [3]]
    assert made.macs == made.evidence.checks == 7
    # The same filter in another order of its own.
    mixed = decided(SnapeaReuse(), fc(2, 1, 4), [[2, 0, 1, 1], [2, 1, 1, 1]], weights[[2, 0, 3, 1]])
    assert mixed.depth.terms.tolist() == [[[3], [4]]]
    assert mixed.depth.order.ravel().tolist() == [1, 3, 0, 2]
    # Largest first: 0, 1, -3 by -4 alone.
    large = decided(SnapeaReuse(largest_first=True), fc(1, 1, 4), [[0, 1, 2, 1]], weights)
    assert large.depth.order.ravel().tolist() == [0, 1, 3, 2]
    assert large.depth.terms.tolist() == [[[3]]]


def test_bias_and_a_negative_scale_turn_the_order():
    affine = Affine(scale=np.array([[-1.0]], np.float32), shift=np.array([[-2.0]], np.float32))
    layer, x = fc(2, 1, 4), [[0, 1, 2, 1], [1, 1, 2, 1]]
    made = decided(SnapeaReuse(), layer, x, [[3], [1], [-2], [-4]], affine)
    # The ReLU sees -2 - 3 x0 - x1 + 2 x2 + 4 x3: 2 x2 and 4 x3 come first, 6 in both rows.
    assert made.depth.order.ravel().tolist() == [2, 3, 0, 1]
    # 6, 6, 5: never below 0. 6, 3, 2: likewise.
    assert made.depth.terms.tolist() == [[[4], [4]]]
    below = replace(affine, shift=np.array([[-8.0]], np.float32))
    made = decided(SnapeaReuse(), layer, x, [[3], [1], [-2], [-4]], below)
    # -8 + 2 x 2 = -4, then 0, then -3 or -1.
    assert made.depth.terms.tolist() == [[[4], [3]]]
    # What is 0 after the ReLU is -shift / scale before.
    rows, weights = np.asarray([x], np.float32), np.array([[[3], [1], [-2], [-4]]], np.float32)
    assert product(made, rows, weights).ravel().tolist() == [-7, -8]
    # Without a positive weight, and below 0 from the start, nothing is multiplied at all.
    none = Affine(scale=np.ones((1, 1), np.float32), shift=np.full((1, 1), -1, np.float32))
    made = decided(SnapeaReuse(), fc(1, 1, 2), [[1, 1]], [[-1], [-2]], none)
    assert made.depth.terms.tolist() == [[[0]]]


def slowly(rows, weights, order, shift, prefix, threshold):
    """Terms of each output, one product after the other."""
    terms = np.zeros((len(rows), weights.shape[1]), int)
    for i, j in np.ndindex(terms.shape):
        total = np.float64(shift[j])
        own = weights[order[:, j], j]
        for place in range(len(own) + 1):
            if place == prefix[j] > 0 and total < threshold[j]:
                break
            if place >= prefix[j] and total < 0 and (own[place:] <= 0).all():
                break
            if place < len(own):
                total += float(rows[i, order[place, j]]) * float(own[place])
        terms[i, j] = min(place, len(own))
    return terms


@pytest.mark.parametrize("policy", ALL[:2], ids=["exact", "predictive"])
@pytest.mark.parametrize("largest_first", [False, True])
def test_snapea_is_what_plain_loops_find(policy, largest_first):
    policy = replace(policy, largest_first=largest_first, samples=40)
    rng = np.random.default_rng(1)
    # Quarters: sums of float32 are exact, in whatever order.
    rows = rng.integers(0, 8, (300, 21)) / 4.0
    weights = rng.integers(-8, 9, (21, 5)) / 4.0
    affine = Affine(
        scale=np.array([[1, -1, 0.5, 1, 2]], np.float32),
        shift=np.array([[0.25, -3, 0, 4, -1]], np.float32),
    )
    layer = fc(300, 5, 21)
    made = decided(policy, layer, rows, weights, affine)
    scaled = weights * affine.scale
    state = policy.calibrate(
        layer,
        rows.astype(np.float32)[None],
        Operands(read=lambda: weights.astype(np.float32)[None], read_affine=lambda: affine),
    )
    expected = slowly(
        rows, scaled, made.depth.order, affine.shift[0], state["prefix"], state["threshold"]
    )
    np.testing.assert_array_equal(made.depth.terms[0], expected)
    dense = np.maximum(rows @ scaled + affine.shift, 0)
    found = product(made, rows.astype(np.float32)[None], weights.astype(np.float32)[None])[0]
    found = np.maximum(found * affine.scale + affine.shift, 0)
    if policy.mode == "exact":
        np.testing.assert_allclose(found, dense, atol=1e-5)
        return
    assert (state["prefix"] > 0).any()
    lost = np.square(found - dense).sum() / np.square(dense).sum()
    assert 0 < lost < 0.2  # 0.05 on the rows that were looked at


def test_the_kernel_takes_any_number_of_rows_and_products():
    rng = np.random.default_rng(0)
    for k, m in ((1, 1), (2, 3), (7, 255), (8, 256), (9, 257), (5, 600)):
        weights = rng.integers(-3, 4, (k, 2)).astype(np.float32)
        rows = rng.integers(0, 4, (m, k)).astype(np.float32)
        order = np.stack([np.argsort(-np.sign(weights[:, j]), kind="stable") for j in range(2)], 1)
        terms = np.empty((2, m), np.int32)
        shift = np.array([1, -1], np.float32)
        ended_terms(
            np.ascontiguousarray(rows.T),
            np.ascontiguousarray(np.take_along_axis(weights, order, axis=0).T),
            np.ascontiguousarray(order.T),
            shift,
            np.zeros(2, np.int64),
            np.zeros(2, np.float32),
            (weights > 0).sum(axis=0),
            terms,
        )
        expected = slowly(rows, weights, order, shift, np.zeros(2, int), np.zeros(2))
        np.testing.assert_array_equal(terms.T, expected)


def test_representatives_are_the_largest_of_groups_of_like_magnitude():
    weights = np.array([0.1, -5, 2, -0.3, 4, 1.0])
    assert representatives(weights, 2).tolist() == [1, 5]  # of 5, 4, 2 and of 1, 0.3, 0.1
    assert representatives(weights, 3).tolist() == [1, 2, 3]
    assert representatives(weights, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert representatives(weights, 0).size == 0


@each_policy
def test_only_layers_before_a_relu_of_their_own_are_touched(policy):
    model = seeded(Block())
    x = torch.randn(2, 3, 8, 8)
    trace = capture(model, x)
    reasons = policy.reasons(trace)
    assert "conv1" not in reasons
    assert "an addition" in reasons["conv2"]
    assert "an addition" in reasons["down"]
    assert "the model's output" in reasons["last"]
    stem = reasons.get("stem", "")
    assert ("may be below 0" in stem) == policy.needs_nonnegative
    run = decide(trace, policy, model=model)
    made = {name for name, each in run.decisions.items() if each is not None}
    assert made == {layer.name for layer in trace.layers} - set(reasons)


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda x: F.prelu(x, torch.full((4,), 0.25)), "PReLU"),
        (lambda x: F.leaky_relu(x, 0.1), "leaky ReLU"),
        (F.silu, "SiLU"),
        (F.gelu, "GELU"),
        (torch.sigmoid, "sigmoid"),
        (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), "interpolation"),
        (lambda x: F.avg_pool2d(x, 2).relu(), "avg pool"),
        (lambda x: F.batch_norm(x, None, None, training=True).relu(), "not understood"),
        (lambda x: x.relu() + x, "read by relu, add"),
        (lambda x: x.relu() - x.clamp(max=0), "read by"),
    ],
)
def test_reasons_name_what_stands_in_the_way(function, word):
    trace = of(lambda m, x, _: m.next(function(x)))
    reason = why_dense(trace.layer("conv"), needs_nonnegative=False)
    assert word in reason
    assert relu_after(trace.layer("conv")) is None
    with pytest.raises(ConfigError, match="must have a layer whose sums may end early"):
        decide(trace, PredictedPart())


@pytest.mark.parametrize(
    "function",
    [
        F.relu6,
        lambda x: x.clamp(0, 1),
        lambda x: F.max_pool2d(x.relu(), 2),
        lambda x: F.max_pool2d(x, 2).relu(),
        lambda x: x.flatten(2).relu().view(x.shape),
    ],
)
@pytest.mark.parametrize("policy", ALL[:2], ids=["exact", "predictive"])
def test_what_comes_beside_a_relu_is_borne(function, policy):
    class Two(Of):
        def forward(self, x):
            return self.second(function(self.norm(self.conv(x.abs()))))

        def __init__(self):
            super().__init__(None)
            self.second = nn.Conv2d(4, 5, 1)

    model = seeded(Two())
    trace = capture(model, torch.randn(2, 3, 16, 16))
    assert "conv" not in policy.reasons(trace)
    run = decide(trace, policy, model=model)
    assert run.decisions["conv"].macs < trace.layer("conv").gemm.macs
    if policy.mode == "exact":
        assert run.output_error < 1e-10


def test_traces_of_earlier_releases_and_groups_have_their_reasons():
    layer = conv_layer()
    assert "nobody knows what follows" in why_dense(layer, needs_nonnegative=False)
    known = before_a_relu(layer)
    assert why_dense(known, needs_nonnegative=True) == ""
    unsure = replace(known, input_is_nonnegative=None)
    assert "nobody knows whether" in why_dense(unsure, needs_nonnegative=True)
    assert why_dense(unsure, needs_nonnegative=False) == ""
    grouped = before_a_relu(conv_layer(groups=2))
    assert "groups" in SnapeaReuse().why_dense(grouped)
    assert PredictedPart().why_dense(grouped) == ""
    assert "map of two dimensions" in ZapReuse().why_dense(fc(2, 2, 2))
    shifted = replace(known, after=replace(known.after, number=-1))
    with pytest.raises(ConfigError, match="must come with the scale and shift"):
        SnapeaReuse().calibrate(shifted, example_rows(layer, 0), lambda: example_weights(layer))


def camvid():
    model = load("resnet18_camvid")
    generator = torch.Generator().manual_seed(0)
    frames = torch.nn.functional.interpolate(
        torch.randn(2, 3, 6, 8, generator=generator), scale_factor=8, mode="bilinear"
    )
    return model, capture(model, frames)


def test_snapea_is_exact_on_a_real_network():
    model, trace = camvid()
    policy = SnapeaReuse(largest_first=True)
    run = decide(trace, policy, model=model)
    made = {name: each for name, each in run.decisions.items() if each is not None}
    blocks = {f"layer{stage}.{block}.conv1" for stage in range(1, 5) for block in range(2)}
    assert set(made) == blocks  # the first convolution of each block
    assert all(each.macs < each.gemm.macs for each in made.values())
    assert run.output_error < 1e-10
    assert run.agreement == 1


def test_snapea_is_exact_on_integers():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 12, 12)
    model = quantise(seeded(Block()), x)
    trace = capture(model, x)
    run = decide(trace, SnapeaReuse(), model=model)
    assert run.decisions["conv1"].macs < trace.layer("conv1").gemm.macs
    assert run.output_error < 1e-6


def test_part_of_all_is_exact_and_a_part_saves():
    model, trace = camvid()
    for whole in (
        PredictedPart(channels=1.0, threshold=0.0),
        PredictedPart(part="high_bits", bits=8, threshold=0.0),
        PredictedPart(part="signs", threshold=-1e9),
        ZapReuse(computed=1.0, threshold=5.0, steps=2),
        ZapReuse(threshold=0.0, steps=2),
    ):
        run = decide(trace, whole, model=model)
        assert all(each is None or each.macs == each.gemm.macs for each in run.decisions.values())
        assert run.output_error < 1e-10
    errors, work = [], []
    for loss in (0.0, 0.01, 0.1):
        run = decide(trace, PredictedPart(part="high_bits", bits=3, loss=loss), model=model)
        work.append(sum(each.macs for each in run.decisions.values() if each is not None))
        errors.append(run.output_error)
    assert work == sorted(work, reverse=True) and work[0] > work[2]
    assert errors == sorted(errors)


def test_part_by_hand():
    layer = fc(3, 1, 4)
    rows = [[1, 0, 0, 0], [0, 1, 5, 0], [0, 1, 0, 0]]
    weights = [[1], [-1], [1], [1]]
    made = decided(PredictedPart(channels=0.5, threshold=0.0), layer, rows, weights)
    # Of the first two elements 1, -1, -1: the second result would have been 4, and is lost.
    assert made.depth.terms.tolist() == [[[4], [2], [2]]]
    assert (made.macs, made.evidence.checks) == (8, 3)
    signs = decided(PredictedPart(part="signs", threshold=0.0), layer, rows, weights)
    # Signs 1, 0, -1: only the last is below 0, after no product and four additions a result.
    assert signs.depth.terms.tolist() == [[[4], [4], [0]]]
    assert (signs.macs, signs.evidence.additions) == (8, 12)
    bits = decided(PredictedPart(part="high_bits", bits=2, threshold=0.0), layer, rows, weights)
    # 1 of at most 5 is 51 of 255 steps, less than 64: its two high bits are 0.
    assert bits.depth.terms.tolist() == [[[4], [4], [4]]]
    # The predictor multiplies the high bits of all twelve; one given up has no other product.
    assert bits.evidence.products == 12
    assert PredictedPart(part="high_bits", bits=2).terms(layer) == 0
    assert PredictedPart(channels=0.3).elements(conv_layer()) == 9  # one of four channels


def test_high_bits_cut_the_low_ones_off():
    values = np.array([0, 1, -1, 0.6, 0.3, -0.9], np.float32)
    # 255 steps: 0.6 is 153, 0.3 is 76.5, 0.9 is 229.5; rounded to even.
    for bits, expected in ((8, (0, 255, -255, 153, 76, -230)), (1, (0, 128, -128, 128, 0, -128))):
        steps = high_bits(values, np.float32(1), bits) * 255
        np.testing.assert_allclose(steps, expected, atol=1 if bits == 8 else 1e-3)


def test_thresholds_stay_within_what_may_be_lost():
    rng = np.random.default_rng(0)
    partial = rng.standard_normal(200)
    lost = np.maximum(partial + 0.7 * rng.standard_normal(200), 0) ** 2
    found = thresholds_of(partial, lost, np.full(200, 30), 5)
    assert found
    for each in found:
        below = partial < np.float32(each.threshold)
        assert each.saved == 30 * below.sum()
        assert each.lost == pytest.approx(lost[below].sum())
    assert thresholds_of(np.ones(5), np.ones(5), np.ones(5), 1) == []
    # Two filters: of four choices, those that save most for what they lose.
    cheap, dear = (
        [Choice(size=1, threshold=0.0, saved=saved, lost=lost) for saved, lost in pairs]
        for pairs in (((10, 1), (12, 3)), ((10, 8), (4, 4)))
    )
    assert [each and each.lost for each in chosen([cheap, dear], 0.5)] == [None, None]
    assert [each and each.lost for each in chosen([cheap, dear], 2)] == [1, None]
    assert [each and each.lost for each in chosen([cheap, dear], 9)] == [1, 8]
    assert [each and each.lost for each in chosen([cheap, dear], 11)] == [3, 8]
    for budget in range(13):
        total = sum(each.lost for each in chosen([cheap, dear], budget) if each)
        assert total <= budget


@pytest.mark.parametrize("computed", [0.0, 0.25, 0.4, 0.5, 1.0])
@pytest.mark.parametrize("pattern", ["checkerboard", "uniform"])
def test_patterns_have_their_share(computed, pattern):
    layer = before_a_relu(conv_layer(size=(20, 20)))
    found = ZapReuse(computed=computed, pattern=pattern).computed_positions(layer)
    assert found.shape == (20, 20)
    assert found.mean() == pytest.approx(computed, abs=0.01)
    if computed == 0.5 and pattern == "checkerboard":
        assert not (found[1:] == found[:-1]).any() and not (found[:, 1:] == found[:, :-1]).any()


def test_zap_learns_where_maps_are_zero():
    # Halves of a map are above and below 0: neighbours tell.
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([1.0, -1]).view(2, 1, 1, 1) / 9
        model[0].bias[:] = 0
    maps = torch.nn.functional.interpolate(
        torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(1)), scale_factor=8
    )
    trace = capture(model, maps)
    policy = ZapReuse(threshold=0.4, computed=0.5)
    state = calibrate(trace, policy)
    run = decide(trace, policy, model=model, calibration=state)
    made = run.decisions["0"]
    zeros = np.matmul(trace.rows("0"), trace.weights("0")) <= 0
    others = ~np.tile(policy.computed_positions(trace.layer("0")).ravel(), 6)
    gone = made.depth.terms[0] == 0
    assert not gone[~others].any()
    right = (gone == zeros[0])[others].mean()
    assert right > 0.9  # half of them are zeros
    assert made.evidence.products == 2 * 9 * gone.size
    assert made.evidence.checks == others.sum() * 2
    again = calibrate(trace, policy)
    for name, values in state["0"].items():
        np.testing.assert_array_equal(values, again["0"][name])


def test_what_stands_for_ended_sums_is_checked():
    gemm = conv_layer().gemm
    terms = np.zeros((1, 1, 1), np.int32)
    DepthDecisions(gemm=gemm, terms=terms, ended=np.zeros((1, 1, 3), np.float32))
    for ended, zeroed in (
        (np.zeros((1, 2, 3)), True),
        (np.zeros(3), True),
        (np.full((1, 1, 3), np.nan), True),
        (np.zeros((1, 1, 3)), False),
    ):
        with pytest.raises(ConfigError, match=r"DepthDecisions\.ended must be finite numbers"):
            DepthDecisions(gemm=gemm, terms=terms, ended=ended, zeroed=zeroed)


def test_states_and_layers_are_checked():
    layer = before_a_relu(conv_layer())
    rows = example_rows(layer, 0)
    with pytest.raises(ConfigError, match="must hold what SnapeaReuse learned"):
        SnapeaReuse().decide(layer, rows, {})
    with pytest.raises(ConfigError, match="must read the weights"):
        SnapeaReuse().calibrate(layer, rows)
    with pytest.raises(ConfigError, match=r"SnapeaReuse\.mode .*\n?.*"):
        SnapeaReuse(mode="quick", loss=2.0)
    per_layer = PerLayer({"conv": SnapeaReuse()})
    per_layer.check_layers([layer])
    with pytest.raises(ConfigError, match="nobody knows what follows"):
        per_layer.check_layers([conv_layer()])


def test_depth_saves_energy_on_a_systolic_array_and_cycles_on_lanes():
    model, trace = camvid()
    run = decide(trace, PredictedPart(part="channels", channels=0.25, loss=0.05), model=model)
    systolic, lanes = (
        simulate(trace, preset(name), run) for name in ("predictor_16x16", "predictor_lanes_16x16")
    )
    assert systolic.reuse.cycles == systolic.dense.cycles
    assert systolic.reuse.energy_pj["array"] < systolic.dense.energy_pj["array"]
    plain = decide(trace, PredictedPart(threshold=-1e9), model=model)
    nothing = simulate(trace, preset("predictor_lanes_16x16"), plain)
    assert lanes.reuse.cycles < nothing.reuse.cycles
    ordered = decide(trace, SnapeaReuse(), model=model)
    with pytest.raises(ConfigError, match=r"Accelerator\.lanes must be there"):
        simulate(trace, preset("predictor_16x16"), ordered)
    assert simulate(trace, preset("predictor_lanes_16x16"), ordered).reuse.cycles > 0
    with pytest.raises(ConfigError, match="must have sum_predictor to run"):
        simulate(trace, preset("lanes_16x16"), ordered)


def test_the_network_that_predicts_is_paid_for():
    model, trace = camvid()
    run = decide(trace, ZapReuse(steps=5), model=model)
    design = preset("predictor_16x16")
    report = simulate(trace, design, run)
    products = sum(each.evidence.products for each in run.decisions.values() if each is not None)
    layers = [each for each in report.reuse.layers if run.decisions[each.layer.name] is not None]
    counted = sum(each.timing.actions["sum_predictor", "multiply"] for each in layers)
    assert counted == products > 0
    without = replace(design, sum_predictor=SumPredictor())
    with pytest.raises(ConfigError, match=r"multipliers must be at least 1"):
        simulate(trace, without, run)
    few = replace(design, sum_predictor=replace(design.sum_predictor, thresholds=8))
    with pytest.raises(ConfigError, match=r"thresholds must hold the 16 columns"):
        simulate(trace, few, run)


def test_cycles_of_the_predictor_by_hand():
    layer = before_a_relu(conv_layer(images=1, size=(4, 4), n=3))
    rows = example_rows(layer, 0)
    weights = example_weights(layer)
    policy = ZapReuse(steps=2, threshold=0.0)
    made = policy.decide(layer, rows, policy.calibrate(layer, rows, lambda: weights))
    design = preset("predictor_16x16")
    slow = replace(design, sum_predictor=SumPredictor(multipliers=1))
    # 16 positions x 3 channels x 2 kernels of 9 products, one a cycle, in whatever tiles.
    timing = layer_timing(layer, made, slow)
    assert timing.busy_cycles["sum_predictor"] == 16 * 3 * 18 == 864
    assert timing.cycles >= 864 > layer_timing(layer, None, design).cycles
    assert timing.cycles == layer_timing(layer, made, slow, EVENT).cycles
    assert timing.actions["sum_predictor", "check"] == 8 * 3  # every other position
    assert layer_timing(layer, made, design).busy_cycles["sum_predictor"] == 864 // 16


def test_signs_are_not_added_up_for_nothing():
    layer = before_a_relu(conv_layer(images=1, size=(4, 4), n=3))
    rows, weights = example_rows(layer, 0), example_weights(layer)
    policy = PredictedPart(part="signs", threshold=0.0)
    made = policy.decide(layer, rows, policy.calibrate(layer, rows, lambda: weights))
    design = preset("predictor_lanes_16x16")
    additions = 16 * 3 * layer.gemm.k
    one = replace(design, sum_predictor=SumPredictor(adders=1))
    for engine in (COMPILED, EVENT):
        timing = layer_timing(layer, made, one, engine)
        # 16 positions x 3 channels x k signs, one a cycle, in whatever tiles.
        assert timing.busy_cycles["sum_predictor"] == additions <= timing.cycles
    ready = layer_timing(layer, made, design)
    assert ready.busy_cycles["sum_predictor"] == additions // 16
    without = replace(design, sum_predictor=SumPredictor())
    with pytest.raises(ConfigError, match=r"adders must be at least 1 where signs predict"):
        layer_timing(layer, made, without)
