"""Techniques of columns, and networks that are written anew for them, by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from accelerators import ConfigError, preset
from accelerators.units import ChannelGate
from simulator import (
    DroppedColumns,
    FeatureBoosting,
    LshReuse,
    SimilarFilters,
    SubFlow,
    Together,
    calibrate,
    decide,
    importance_by_gradient,
    simulate,
)
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.evidence import Static
from simulator.policies.feature_boosting import channel_means
from simulator.policies.similar_filters import similar_columns
from simulator.running.product import product
from simulator.testing.examples import conv_layer, example_rows, example_weights
from simulator.timing.pipeline import layer_timing
from tests.builders import roomy_design
from workloads import capture
from workloads.models import CifarNet, ModelError, ResNet20
from workloads.models.boosting import BoostedConv2d, boost, boosted_resnet20, set_density
from workloads.models.load import load
from workloads.models.octconv import OctaveConv2d, OctaveResNet20, octave_ratio
from workloads.traces.layer import Convolution, Gemm, Layer
from workloads.traces.unfold import rows_of


def macs(trace):
    return {layer.name: layer.gemm.macs for layer in trace.layers}


# Decisions on columns.


def test_columns_of_any_run_are_united():
    gemm = Gemm(m=6, n=5, k=4)
    sources = np.array([[0, 0, DROPPED, 3, DROPPED], [DROPPED, 1, DROPPED, 1, DROPPED]])
    elements = np.array([[True, False, False, False], [True, True, False, False]])
    columns = ColumnDecisions(gemm=gemm, sources=sources, elements=elements)
    assert columns.shares
    np.testing.assert_array_equal(columns.multiplied, [1, 2])
    assert columns.remaining_ratio == (2 * 1 + 1 * 2) / (2 * 5 * 4)
    both = columns.united()
    np.testing.assert_array_equal(both.sources, [[0, 1, DROPPED, 3, DROPPED]])
    np.testing.assert_array_equal(both.elements, [[True, True, False, False]])


def test_elements_must_be_of_the_layer():
    gemm = Gemm(m=2, n=2, k=3)
    with pytest.raises(ConfigError, match=r"elements must be bool of shape \(groups, k\) = \(1, 3"):
        ColumnDecisions(gemm=gemm, sources=np.arange(2)[None], elements=np.ones((1, 2), bool))


# Similar filters.


def test_equal_filters_share_and_results_stay():
    weights = np.array([[1.0, 3, 1, 0, 0], [2, 4, 2, 0, 0]])
    np.testing.assert_array_equal(similar_columns(weights, 0), [0, 1, 0, 3, 3])
    layer = conv_layer(n=4)
    given = example_weights(layer)
    given[:, :, 2] = given[:, :, 0]
    rows = example_rows(layer, 1)
    policy = SimilarFilters(tolerance=0)
    made = policy.decide(layer, rows, policy.calibrate(layer, rows, lambda: given))
    np.testing.assert_array_equal(made.columns.sources, [[0, 1, 0, 3]])
    np.testing.assert_array_equal(product(made, rows, given), np.matmul(rows, given))
    assert made.macs == layer.gemm.macs * 3 // 4


def test_distances_of_filters_by_hand():
    # Of unit columns: 60 degrees are 1 apart, a right angle sqrt(2).
    angles = np.radians([0, 60, 90])
    weights = np.stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_array_equal(similar_columns(weights, 0.51), [0, 1, 2])
    np.testing.assert_array_equal(similar_columns(weights, 0.52), [0, 1, 1])  # 2 sin 15 = 0.518
    # The middle one is nearest to both others.
    np.testing.assert_array_equal(similar_columns(weights, 1.42), [1, 1, 1])


def test_clusters_of_filters_lie_within_those_of_a_larger_tolerance():
    weights = np.random.default_rng(0).standard_normal((9, 40))
    tolerances = np.linspace(0, 2, 21)
    labels = [similar_columns(weights, float(each)) for each in tolerances]
    for finer, coarser in pairwise(labels):
        pairs = set(zip(finer, coarser, strict=True))
        assert len(pairs) == len(set(finer.tolist()))


def test_similar_filters_multiply_with_similar_rows():
    model = torch.nn.Conv2d(4, 16, 3, padding=1, bias=False)
    with torch.no_grad():
        model.weight[8:] = model.weight[:8]
    trace = capture(model.eval(), torch.randn(2, 4, 12, 12, generator=torch.manual_seed(0)))
    rows = LshReuse(hashes=4, length=None)
    alone, both = (
        decide(trace, each) for each in (rows, Together(rows, SimilarFilters(tolerance=0)))
    )
    name = trace.layers[0].name
    assert 2 * both.decisions[name].macs == alone.decisions[name].macs
    timing = layer_timing(trace.layers[0], both.decisions[name], preset("reuse_16x16"))
    assert timing.macs == both.decisions[name].macs
    assert timing.dram_bytes["outputs"] == 2 * 144 * 16


# SubFlow.


def test_masks_of_a_smaller_budget_lie_within_those_of_a_larger_one():
    layer = conv_layer(n=12)
    rows, weights = example_rows(layer, 0), example_weights(layer)
    kept = []
    for budget in (0.1, 0.25, 0.5, 0.9):
        policy = SubFlow(budget=budget)
        made = policy.decide(layer, rows, policy.calibrate(layer, rows, lambda: weights))
        kept.append({*np.flatnonzero(made.columns.is_computed[0]).tolist()})
        assert len(kept[-1]) == math.ceil(budget * 12)
    assert all(small < large for small, large in pairwise(kept))
    assert SubFlow(budget=1).decide(layer, rows, {}) is None


def test_the_channel_of_largest_results_stays():
    layer = conv_layer(n=3)
    rows, weights = example_rows(layer, 0), example_weights(layer)
    weights[:, :, 1] *= 10
    policy = SubFlow(budget=0.1)
    made = policy.decide(layer, rows, policy.calibrate(layer, rows, lambda: weights))
    np.testing.assert_array_equal(made.columns.sources, [[DROPPED, 1, DROPPED]])
    assert isinstance(made.evidence, Static)


def test_importance_by_gradient_is_that_of_a_slow_reference():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(5 * 36, 4)
    ).double()
    images, labels = torch.randn(6, 3, 8, 8).double(), torch.tensor([0, 1, 2, 3, 0, 1])
    found = importance_by_gradient(model, images, labels)
    assert all(weight.grad is None for weight in model.parameters())
    weight, step = model[0].weight, 1e-6
    expected = np.zeros(5)
    for place in np.ndindex(*weight.shape):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                losses.append(torch.nn.functional.cross_entropy(model(images), labels).item())
                weight[place] -= sign * step
        expected[place[0]] += abs(weight[place].item() * (losses[0] - losses[1]) / (2 * step))
    np.testing.assert_allclose(found["0"]["importance"], expected, rtol=1e-5)
    trace = capture(model.float(), images.float())
    kept = decide(trace, SubFlow(budget=0.4), calibration=found).decisions["0"].columns
    assert {*np.flatnonzero(kept.is_computed[0])} == {*np.argsort(-expected)[:2]}


# Feature boosting and suppression.


def two_boosted(channels=8, n=8, density=1.0, seed=0):
    """Two convolutions, the second of which sees what the first leaves out."""
    torch.manual_seed(seed)
    model = boost(
        torch.nn.Sequential(
            torch.nn.Conv2d(channels, n, 3, padding=1, bias=False),
            torch.nn.ReLU(),
            torch.nn.Conv2d(n, n, 3, padding=1, bias=False),
        ),
        density,
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BoostedConv2d):
                module.gate.weight[:, :-1] = 0.3 * torch.randn(n, module.gate.in_features - 1)
    images = torch.randn(3, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    return model.eval(), images.abs() + 0.1


def test_boosting_a_network_changes_no_answer_until_it_learns():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    for plain in (ResNet20(), CifarNet()):
        plain.train()(images)  # so that normalisation has statistics of its own
        boosted = boost(plain.eval(), 1.0)
        torch.testing.assert_close(boosted(images), plain(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="above 0 and at most 1, got 0"):
        boost(plain, 0)
    with pytest.raises(ModelError, match="must have a convolution of one group"):
        boost(torch.nn.Linear(2, 2))


def test_a_boosted_convolution_is_that_of_plain_loops():
    model, images = two_boosted(density=0.4)
    module = model[0]
    found = module(images).detach().numpy()
    weight = module.gate.weight.detach().numpy()
    dense = module.boosted(images).detach().numpy()
    for image in range(3):
        means = [float(abs(channel).mean()) for channel in images[image]]
        gains = [max(0.0, float(row[:-1] @ np.array(means) + row[-1])) for row in weight]
        kept = sorted(range(8), key=lambda channel: -gains[channel])[: math.ceil(0.4 * 8)]
        for channel in range(8):
            expected = gains[channel] * dense[image, channel] if channel in kept else 0
            np.testing.assert_allclose(found[image, channel], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_decisions_leave_out_what_the_network_does(density):
    model, images = two_boosted(density=density)
    trace = capture(model, images)
    run = decide(trace, FeatureBoosting(density=density), model=model)
    assert run.output_mse < 1e-10
    first, second = (run.decisions[f"{place}.boosted"] for place in (0, 2))
    kept = math.ceil(density * 8)
    assert (first.columns.computed <= kept).all()
    # What is 0 in the second one's input is what the first left out.
    seen = first.columns.is_computed
    np.testing.assert_array_equal(second.columns.elements.reshape(3, 8, 9)[:, :, 0], seen)
    # A network that keeps all channels, of which fewer are computed, answers as one that keeps few.
    whole, _ = two_boosted(density=1.0)
    other = decide(capture(whole, images), FeatureBoosting(density=density), model=whole)
    for name in ("0.boosted", "2.boosted"):
        np.testing.assert_array_equal(
            other.decisions[name].columns.sources, run.decisions[name].columns.sources
        )


def test_half_of_the_channels_leave_a_quarter_of_the_work():
    model, images = two_boosted(channels=8, n=8, density=0.5)
    with torch.no_grad():
        for place in (0, 2):
            model[place].gate.weight[:, -1] = 5  # all gains are above 0
            model[place].gate.weight[:, :-1] *= 0.1
    trace = capture(model, images)
    run = decide(trace, FeatureBoosting(density=0.5), model=model)
    dense = macs(trace)["2.boosted"]
    assert dense == 3 * 36 * 72 * 8
    assert run.decisions["2.boosted"].macs == dense // 4
    # The gate: a product of C + 1 by n an image, of which the last row is b.
    assert macs(trace)["2.gate"] == 3 * (8 + 1) * 8
    assert run.decisions["2.gate"] is None
    whole = decide(trace, FeatureBoosting(density=1.0))
    assert whole.decisions["0.boosted"].macs == macs(trace)["0.boosted"]


def test_channels_of_an_image_are_found_in_its_rows():
    for kernel, stride, padding, size in (
        ((3, 3), 1, 1, (7, 6)),
        ((3, 3), 2, 1, (7, 6)),
        ((2, 2), 2, 0, (8, 6)),
        ((1, 1), 1, 0, (3, 5)),
        ((5, 5), 1, 0, (7, 9)),
    ):
        convolution = Convolution(
            kernel=kernel, stride=(stride,) * 2, padding=(padding,) * 2, dilation=(1, 1)
        )
        made = convolution.output_size(size)
        layer = Layer(
            name="conv.boosted",
            kind="conv",
            gemm=Gemm(m=2 * math.prod(made), n=4, k=3 * math.prod(kernel)),
            images=2,
            row_images=2,
            convolution=convolution,
            input_shape=(2, 3, *size),
            output_shape=(2, 4, *made),
            weights_are_parameters=True,
        )
        given = np.random.default_rng(0).standard_normal(layer.input_shape).astype(np.float32)
        np.testing.assert_allclose(
            channel_means(layer, rows_of(layer, given)), np.abs(given).mean(axis=(2, 3)), rtol=1e-5
        )


def test_a_kernel_that_misses_pixels_has_no_means():
    model = boost(torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1, stride=2)), 0.5)
    trace = capture(model.eval(), torch.randn(1, 4, 6, 6))
    with pytest.raises(ConfigError, match=r"kernels meet every pixel, got layer '0\.boosted'"):
        decide(trace, FeatureBoosting(density=0.5))


def test_a_network_without_gates_runs_dense_and_wrong_gates_are_refused():
    trace = capture(CifarNet().eval(), torch.randn(1, 3, 32, 32))
    run = decide(trace, FeatureBoosting(density=0.5))
    assert not any(run.decisions.values())
    model, images = two_boosted()
    trace = capture(model, images)
    states = calibrate(trace, FeatureBoosting(density=0.5))
    states["0.boosted"] = {"gate": states["0.boosted"]["gate"][:-1]}
    with pytest.raises(ConfigError, match=r"'0\.boosted' must hold arrays"):
        decide(trace, FeatureBoosting(density=0.5), calibration=states)


def test_learning_under_reuse_reads_the_gates_too():
    model, images = two_boosted(density=0.5)
    trace = capture(model, images)
    policy = FeatureBoosting(density=0.5)
    plain, under = (calibrate(trace, policy, model=each) for each in (None, model))
    for name, state in plain.items():
        np.testing.assert_array_equal(state["gate"], under[name]["gate"])


def test_the_channel_gate_costs_cycles_by_hand():
    model, images = two_boosted(density=1.0)
    trace = capture(model, images)
    design = roomy_design(channel_gate=ChannelGate(lanes=10, channels=8))
    report = simulate(trace, design, FeatureBoosting(density=1.0))
    # Each layer: 3 images of 8 x 36 values, 10 a cycle, all of whose columns are computed
    # together: ceil(864 / 10) and 3 x 8 gains.
    assert report.reuse.busy_cycles["channel_gate"] == 2 * (87 + 24)
    assert report.reuse.cycles >= report.dense.cycles
    run = decide(trace, FeatureBoosting(density=1.0))
    layer = next(layer for layer in trace.layers if layer.name == "2.boosted")
    timing = layer_timing(layer, run.decisions[layer.name], design)
    assert timing.actions["channel_gate", "accumulate"] == 864
    assert timing.actions["channel_gate", "insert"] == 24
    with pytest.raises(ConfigError, match="must have channel_gate to run"):
        simulate(trace, roomy_design(), FeatureBoosting(density=1.0))
    small = roomy_design(channel_gate=ChannelGate(channels=7))
    with pytest.raises(ConfigError, match=r"must hold the 8 channels of layer '0\.boosted'"):
        simulate(trace, small, FeatureBoosting(density=1.0))


def test_each_image_alone_has_the_columns_it_has_in_a_batch():
    model, images = two_boosted(density=0.5)
    policy = FeatureBoosting(density=0.5)
    batch = decide(capture(model, images), policy, model=model)
    for image in range(3):
        alone = decide(capture(model, images[image : image + 1]), policy, model=model)
        for name in ("0.boosted", "2.boosted"):
            np.testing.assert_array_equal(
                alone.decisions[name].columns.sources[0],
                batch.decisions[name].columns.sources[image],
            )


def test_density_of_a_network_can_be_changed():
    model = boosted_resnet20(density=0.5)
    set_density(model, 0.25)
    found = {module.density for module in model.modules() if isinstance(module, BoostedConv2d)}
    assert found == {0.25}
    assert model.normalise == "imagenet"


# Octave convolutions.


@pytest.mark.parametrize(
    ("alpha", "ratio"), [(0.125, 0.824), (0.25, 0.672), (0.5, 0.4375), (0.75, 0.297)]
)
def test_octave_convolutions_have_the_work_of_the_closed_form(alpha, ratio):
    assert octave_ratio(alpha) == pytest.approx(ratio, abs=5e-4)
    images = torch.randn(1, 3, 32, 32)
    plain = macs(capture(ResNet20().eval(), images))
    trace = capture(OctaveResNet20(alpha).eval(), images)
    found: dict[str, int] = {}
    for name, work in macs(trace).items():
        whole = name.rpartition(".")[0] or name
        found[whole] = found.get(whole, 0) + work
    assert found.keys() == plain.keys()
    for name, work in found.items():
        expected = octave_ratio(alpha) * plain[name]
        if name in ("conv1", "layer3.2.conv2"):  # nothing comes in, or goes out, at half the size
            expected = ((1 - alpha) + alpha / 4) * plain[name]
        elif name == "linear":
            expected = plain[name]
        assert work == expected
    assert len(trace.layers) == 1 + 2 + 2 + 17 * 4


@pytest.mark.parametrize("alpha", [0, 0.02, 0.04, 0.98])
def test_a_stage_may_be_the_first_with_channels_at_half_the_size(alpha):
    # 0.02: one of 64, none of 32; 0.04: one of 32, none of 16.
    made = OctaveResNet20(alpha).eval()(torch.randn(1, 3, 32, 32))
    assert made.shape == (1, 10) and made.isfinite().all()


@pytest.mark.parametrize("alpha", [0.125, 0.25, 0.5, 0.75])
def test_octaves_hold_fewer_activations(alpha):
    layer = OctaveConv2d(16, 32, alpha, alpha)
    high, low = 16 - int(alpha * 16), int(alpha * 16)
    made = layer((torch.randn(1, high, 8, 8), torch.randn(1, low, 4, 4)))
    assert sum(each.numel() for each in made) == (1 - 0.75 * alpha) * 32 * 64


def test_an_octave_convolution_is_that_of_its_paths():
    torch.manual_seed(0)
    layer = OctaveConv2d(8, 8, 0.5, 0.5)
    high, low = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)
    made_high, made_low = layer((high, low))

    def convolved(path, given):
        return torch.nn.functional.conv2d(given, path.weight, padding=1)

    pooled = high.reshape(2, 4, 4, 2, 4, 2).mean(dim=(3, 5))
    enlarged = convolved(layer.low_to_high, low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(made_high, convolved(layer.high_to_high, high) + enlarged)
    expected = convolved(layer.low_to_low, low) + convolved(layer.high_to_low, pooled)
    torch.testing.assert_close(made_low, expected)


def test_octave_networks_by_name_learn():
    model = load("octave_resnet20_a25").train()
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    steps = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(weight.grad is not None for weight in model.parameters())
    with pytest.raises(ModelError, match="alpha"):
        OctaveResNet20(1.0)


def test_maps_of_half_the_size_eat_the_gain():
    # Of an array that fills and drains for every fold, cycles fall by less than the work does.
    images = torch.randn(1, 3, 32, 32)
    design = preset("dense_16x16")
    traces = [capture(model.eval(), images) for model in (ResNet20(), OctaveResNet20(0.5))]
    plain, octaves = (sum(macs(trace).values()) for trace in traces)
    before, after = (simulate(trace, design).reuse.cycles for trace in traces)
    assert octaves / plain < 0.46
    assert after / before > 1.2 * octaves / plain


def test_dropped_columns_and_sub_flow_drop_as_many():
    layer = conv_layer(n=8)
    rows, weights = example_rows(layer, 0), example_weights(layer)
    by_size, by_use = DroppedColumns(fraction=0.5), SubFlow(budget=0.5)
    made = [
        each.decide(layer, rows, each.calibrate(layer, rows, lambda: weights))
        for each in (by_size, by_use)
    ]
    assert made[0].macs == made[1].macs == layer.gemm.macs // 2
