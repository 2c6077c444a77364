"""Masks of output positions: which are computed, what fills the rest in, and what bears it."""

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import AddressList, ConfigError, preset
from simulator import (
    PerforationMask,
    PerforationReuse,
    PerLayer,
    ReusedForward,
    VirtualPooling,
    decide,
    greedy_perforation,
    perforation_impacts,
    techniques,
    virtual_pooling_layers,
)
from simulator.analysis.position_choice import IMPACT
from simulator.policies.perforation import windows_of_positions
from simulator.running.product import product
from simulator.testing.examples import conv_layer, example_weights
from simulator.timing.pipeline import layer_timing
from tests.builders import roomy_design
from workloads import capture
from workloads.traces.layer import Convolution, Gemm, Layer


class Small(nn.Module):
    """Two convolutions, whose results are written over, and a classifier."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.last = nn.Linear(6 * 16, 3)

    def forward(self, frames):
        kept = torch.relu_(self.first(frames))
        kept = torch.relu_(self.second(kept))
        return self.last(torch.max_pool2d(kept, 2).flatten(1))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(3)
    return Small()


@pytest.fixture(scope="module")
def trace(small):
    generator = torch.Generator().manual_seed(4)
    frames = torch.randn(6, 1, 8, 8, generator=generator)
    return capture(small, frames, labels=torch.tensor([0, 1, 2, 0, 1, 2]))


def cross_entropy(trace, model, policy, name):
    """Of a model with one layer under a policy."""
    frames = torch.from_numpy(trace.inputs[0].copy())
    with torch.no_grad():
        chosen = PerLayer({} if policy is None else {name: policy})
        answers = ReusedForward(chosen)(model, frames)
        expected = torch.from_numpy(trace.labels.astype(np.int64))
        return float(nn.functional.cross_entropy(answers, expected))


def strided_layer(stride):
    return Layer(
        name="conv",
        kind="conv",
        gemm=Gemm(m=2 * 4, n=3, k=9),
        images=2,
        row_images=2,
        convolution=Convolution(
            kernel=(3, 3), stride=(stride, stride), padding=(1, 1), dilation=(1, 1)
        ),
        input_shape=(2, 1, 2 * stride, 2 * stride),
        output_shape=(2, 3, 2, 2),
        weights_are_parameters=True,
    )


@pytest.mark.parametrize(
    "policy",
    [PerforationReuse(computed=0.3), PerforationMask(positions=(2, 9)), VirtualPooling(stride=3)],
)
def test_a_constant_map_is_exact(policy):
    layer = conv_layer()
    rows = np.full((1, 40, 36), 0.7, np.float32)
    weights = example_weights(layer)
    made = policy.decide(layer, rows, {})
    assert made.macs < layer.gemm.macs
    np.testing.assert_allclose(product(made, rows, weights), rows @ weights, rtol=1e-6)


def test_a_mask_is_told_and_must_fit():
    mask = PerforationMask(positions=[1, 4, 18])
    assert mask.describe() == {"policy": "perforation_mask", "positions": [1, 4, 18]}
    assert mask.decided(conv_layer()).rows.computed.tolist() == [1, 4, 18]
    with pytest.raises(ConfigError, match="must be less than the 9 of layer 'conv', got 18"):
        mask.decided(conv_layer(size=(3, 3)))
    for wrong in ((), (1, 1), (3, 2), (-1, 2), (0.5, 1), "ab", (True, 2)):
        with pytest.raises(ConfigError, match=r"PerforationMask\.positions must be positions in"):
            PerforationMask(positions=wrong)


def test_largest_weights_are_kept_and_the_first_of_equal_ones():
    weights = np.array([[1, 5, 2], [5, 0, 2], [1, 1, 9]])
    of = [PerforationMask.of_largest(weights, share).positions for share in (1e-3, 0.34, 0.5, 1)]
    # 9; then the fives; round(4.5) = 4: the first of the twos.
    assert of == [(8,), (1, 3, 8), (1, 2, 3, 8), tuple(range(9))]


def test_virtual_pooling_computes_a_quarter_and_only_adds():
    layer = conv_layer(images=2, size=(4, 4), n=16)
    made = VirtualPooling().decided(layer)
    assert made.rows.computed.tolist() == [0, 2, 8, 10]  # 4 rows of 16
    assert made.macs * 4 == layer.gemm.macs
    # Column 3 repeats column 2, as row 3 does row 2.
    taken = [[1, 2, 1, 1], [2, 4, 2, 2], [1, 2, 1, 1], [1, 2, 1, 1]]
    assert made.rows.taps_of_positions.reshape(4, 4).tolist() == taken
    design = preset("listed_16x16")
    assert all(item.component == "int_adder" for item in design.reconstructor.bill(design))
    timing = layer_timing(layer, made, design)
    # An add for two taps, 3 for four: 5 of two and one of four an image, and 16 columns.
    assert timing.actions["reconstructor", "add"] == 2 * (6 * 1 + 3) * 16
    assert timing.busy_cycles["reconstructor"] == 2 * (16 - 7 + 6 * 2 + 4)


def test_entries_that_are_not_counted_name_a_row_again():
    layer = conv_layer(images=2, size=(4, 4), n=16)
    made = VirtualPooling().decided(layer)
    plain = roomy_design(address_list=AddressList(entries=16, taps=4))
    counted = roomy_design(address_list=AddressList(entries=16, taps=4, counted=True))
    found = [
        layer_timing(layer, made, design).actions["reconstructor", "add"]
        for design in (plain, counted)
    ]
    assert found == [2 * 12 * 3 * 16, 2 * (6 + 3) * 16]
    # 4 addresses of 16 bits; and 0, 1 or 2 for one, two or four of them.
    assert (plain.address_list.entry_bits, counted.address_list.entry_bits) == (64, 66)
    with pytest.raises(ConfigError, match=r"in equal shares where entries are counted, got 4"):
        layer_timing(layer, VirtualPooling(stride=3).decided(layer), counted)


def test_virtual_pooling_skips_strides_and_single_positions():
    policy, plain = VirtualPooling(), strided_layer(1)
    assert policy.applies_to(plain) and policy.decided(plain).macs * 4 == plain.gemm.macs
    assert not policy.applies_to(strided_layer(2)) and policy.decided(strided_layer(2)) is None
    assert policy.decided(conv_layer(size=(1, 1))) is None


class Pooled(nn.Module):
    """Three convolutions: one before overlapping windows, one before others, one before a sum."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.third = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, frames):
        kept = torch.max_pool2d(torch.relu(self.first(frames)), 3, 2)
        kept = nn.functional.avg_pool2d(torch.relu(self.second(kept)), 2, 2)
        return (kept + self.third(kept)).flatten(1)


def test_weights_of_the_pooling_structure():
    trace = capture(Pooled(), torch.randn(2, 1, 9, 9))
    first, second, third = trace.layers
    windows = windows_of_positions(first)
    # 3x3 with stride 2 on 9x9: four windows a side, from 0, 2, 4 and 6: places 2, 4 and 6 lie in
    # two of them, the others in one.
    sides = np.array([1, 1, 2, 1, 2, 1, 2, 1, 1])
    assert windows.tolist() == np.outer(sides, sides).tolist()
    assert windows[0, 0] == 1 and windows.max() == 4
    # 2x2 with stride 2 on 4x4: each place in one.
    assert windows_of_positions(second).tolist() == np.ones((4, 4)).tolist()
    assert windows_of_positions(third) is None
    policy = PerforationReuse(computed=9 / 81, mask="pooling_structure")
    assert policy.computed_positions(first).tolist() == (windows == 4).tolist()
    more = PerforationReuse(computed=30 / 81, mask="pooling_structure").computed_positions(first)
    assert more.sum() == 30 and windows[more].sum() == 9 * 4 + 21 * 2
    assert policy.decided(second).macs * 8 == second.gemm.macs
    assert policy.decided(third) is None
    with pytest.raises(ConfigError, match="layer 'conv' must say what follows it"):
        policy.decided(conv_layer())


def test_impacts_are_those_of_the_gradient(small, trace):
    found = perforation_impacts(trace, small)
    frames = torch.from_numpy(trace.inputs[0].copy())
    first = small.first(frames)
    second = small.second(torch.relu(first))
    answers = small.last(torch.max_pool2d(torch.relu(second), 2).flatten(1))
    loss = nn.functional.cross_entropy(answers, torch.from_numpy(trace.labels.astype(np.int64)))
    slopes = torch.autograd.grad(loss, (first, second))
    assert set(found) == {"first", "second"}
    for name, values, slope in zip(found, (second, first), slopes[::-1], strict=True):
        expected = (values * slope).abs().sum(dim=1).mean(dim=0).detach()
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-8)
    assert not any(each.grad is not None for each in small.parameters())


def test_impacts_follow_the_rates(small, trace):
    mask = PerLayer({"first": PerforationReuse(computed=0.2)})
    dense, perforated = (perforation_impacts(trace, small, each) for each in (None, mask))
    assert not np.allclose(dense["second"], perforated["second"])


def test_the_first_greedy_step_is_the_best_of_all(small, trace):
    steps = []
    policy = greedy_perforation(
        trace, small, time_left=0.9, rates=(0.5, 0.25), masks=("grid", "uniform"),
        progress=steps.append,
    )  # fmt: skip
    assert policy.policies == {each.layer: each.policy for each in steps}
    dense = cross_entropy(trace, small, None, "first")

    # Half of either layer's positions; of `second`, more multiplications.
    gains = {}
    for name in ("first", "second"):
        for mask in ("grid", "uniform"):
            chosen = PerforationReuse(computed=0.5, mask=mask)
            run = decide(trace, PerLayer({name: chosen}), model=small)
            saved = trace.layer(name).gemm.macs - run.decisions[name].macs
            gains[name, mask] = (cross_entropy(trace, small, chosen, name) - dense) / saved
    assert min(gains, key=gains.get) == (steps[0].layer, steps[0].policy.mask)


def test_greedy_rates_reach_the_time_that_is_asked_for(small, trace):
    steps = []
    policy = greedy_perforation(
        trace, small, time_left=0.4, masks=("grid", IMPACT), progress=steps.append
    )
    left = [step.time_left for step in steps]
    assert left == sorted(left, reverse=True) and left[-1] <= 0.4 < left[-2]
    run = decide(trace, policy, model=small)
    convolutions = [each for each in trace.layers if each.kind == "conv"]
    macs = sum(
        each.gemm.macs if run.decisions[each.name] is None else run.decisions[each.name].macs
        for each in convolutions
    )
    assert macs / sum(each.gemm.macs for each in convolutions) == pytest.approx(left[-1])
    # What it was told of the model is what the executor finds.
    assert run.accuracy == pytest.approx(steps[-1].correct)
    for name, each in policy.policies.items():
        assert name in run.decisions and each.describe()["policy"].startswith("perforation")


def test_greedy_rates_may_count_cycles(small, trace):
    # The first layer takes 507 cycles and more with any mask, for what fills it in; the second
    # layer's 1449 are 1221 with half of its positions: a rate of 0.9 saves nothing, and is passed.
    design, steps = preset("listed_16x16"), []
    greedy_perforation(
        trace, small, time_left=0.95, masks=("grid",), rates=(0.9, 0.5), accelerator=design,
        progress=steps.append,
    )  # fmt: skip
    times = {
        each.name: layer_timing(each, None, design).cycles
        for each in trace.layers
        if each.kind == "conv"
    }
    (step,) = steps
    assert step.policy == PerforationReuse(computed=0.5) and step.layer == "second"
    layer = trace.layer("second")
    saved = times["second"] - layer_timing(layer, step.policy.decided(layer), design).cycles
    assert step.time_left == pytest.approx(1 - saved / sum(times.values()))


def test_rules_of_a_choice_come_together(small, trace):
    with pytest.raises(ConfigError) as error:
        greedy_perforation(trace, small, time_left=0, rates=(0.5, 0.7), masks=("square",))
    assert [each.split(" must")[0] for each in error.value.violations] == [
        "time_left",
        "rates",
        "masks",
    ]
    with pytest.raises(ConfigError, match="layers must be convolutions of the trace, got 'last'"):
        greedy_perforation(trace, small, layers=["last"])


def test_virtual_pooling_takes_the_least_sensitive_layers_first(small, trace):
    steps = []
    policy = virtual_pooling_layers(trace, small, most_lost=1.0, progress=steps.append)
    assert set(policy.policies) == {"first", "second"}
    alone = []
    virtual_pooling_layers(
        trace, small, most_lost=1.0, layers=[steps[1].layer], progress=alone.append
    )
    assert alone[0].loss >= steps[0].loss
    assert virtual_pooling_layers(trace, small, most_lost=-1.0).policies == {}


def test_both_are_in_the_catalogue():
    known = techniques()
    assert known["perforation"].policy is PerforationReuse
    assert known["vip"].policy is VirtualPooling
    assert set(known["vip"].units) == {"address_list", "reconstructor"}
