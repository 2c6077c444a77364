"""Values on the 8-bit grids, pruned weights, and decisions that integers and values share."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from accelerators import ConfigError
from simulator import LshReuse, PerLayer, calibrate, decide
from simulator.running.product import product
from tests.builders import matrix_layer
from workloads import (
    Layer,
    Quantisation,
    TraceError,
    WorkloadTrace,
    capture,
    prune,
    quantise,
    quantise_as,
)
from workloads.models.integer_grid import InputGrid


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class Everything(nn.Module):
    """Uneven padding, groups, a transposed convolution, a layer called twice, one by keyword."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 4, 4, padding="same")
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.grouped = nn.Conv2d(6, 6, 3, stride=2, groups=3)
        self.twice = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.grouped(torch.relu(self.up(torch.relu(self.same(x)))))
        x = torch.relu(self.twice(x.permute(0, 2, 3, 1)))
        return self.head(input=self.twice(x).mean((1, 2)))


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Everything().eval()


@pytest.fixture(scope="module")
def quantised(model):
    return quantise(model, randn(16, 3, 8, 8))


@pytest.fixture(scope="module")
def trace(quantised):
    return capture(quantised, randn(5, 3, 8, 8))


def test_every_layer_reads_integers_of_its_own_grid(trace):
    assert [x.name for x in trace.layers] == ["same", "up", "grouped", "twice", "twice#2", "head"]
    assert trace.provenance["precision"] == "int8"
    for layer in trace.layers:
        grid, rows = layer.quantisation, trace.rows(layer.name)
        steps = grid.steps(rows)
        q = steps + grid.zero_point
        assert q.min() >= 0
        assert q.max() <= 255
        assert q.min() < q.max()
        np.testing.assert_array_equal(np.float32(grid.scale) * steps, rows)
    assert trace.layer("twice").quantisation == trace.layer("twice#2").quantisation
    # Of values on both sides of 0, and of the result of a ReLU.
    assert trace.layer("same").quantisation.zero_point > 0
    assert trace.layer("up").quantisation.zero_point == 0


def test_weights_are_127_steps_of_a_channel_each_way(model, quantised):
    for name, axis in (("same", 0), ("up", 1), ("grouped", 0), ("twice", 0), ("head", 0)):
        before = model.get_submodule(name).weight.detach().movedim(axis, 0).flatten(1)
        after = quantised.get_submodule(name).weight.detach().movedim(axis, 0).flatten(1)
        step = before.abs().amax(1, keepdim=True) / 127
        q = after / step
        torch.testing.assert_close(q, q.round(), atol=1e-4, rtol=0)
        assert q.abs().max() <= 127.001
        assert ((after - before).abs() <= step * 0.501).all()


def test_the_answer_is_that_of_integer_arithmetic(quantised, trace):
    """The last layer by hand: integers multiplied and summed, scaled and biased at the end."""
    layer, head = trace.layer("head"), quantised.head
    grid = layer.quantisation
    q = grid.steps(trace.rows("head")[0]).astype(np.int64) + grid.zero_point
    weight = head.weight.detach().numpy().astype(np.float64)
    scale = np.abs(weight).max(axis=1) / 127
    w = np.rint(weight / scale[:, None]).astype(np.int64)
    sums = q @ w.T - grid.zero_point * w.sum(axis=1)
    answer = sums * grid.scale * scale + head.bias.detach().numpy()
    np.testing.assert_allclose(trace.outputs, answer, rtol=1e-5, atol=1e-6)


def test_copies_and_files_keep_the_grids(model, quantised, trace, tmp_path):
    x = randn(5, 3, 8, 8)
    for copied in (
        copy.deepcopy(quantised),
        pickle.loads(pickle.dumps(quantised)),  # as Ray sends it
        quantise_as(model, trace),
    ):
        assert torch.equal(copied(x), quantised(x))
    again = quantise(model, randn(2, 3, 8, 8))
    again.load_state_dict(quantised.state_dict())
    assert torch.equal(again(x), quantised(x))
    loaded = WorkloadTrace.load(trace.save(tmp_path / "trace"))
    assert loaded.layers == trace.layers
    # Descriptions of layers in floating point are what they were before there was quantisation.
    dense = capture(model, x)
    assert dense.provenance["precision"] == "float32"
    assert "quantisation" not in dense.layers[0].to_dict()
    assert Layer.from_dict(dense.layers[0].to_dict()) == dense.layers[0]


def test_the_model_is_left_alone_and_the_copy_learns(model):
    before = copy.deepcopy(model.state_dict())
    network = quantise(prune(model, 0.5), randn(4, 3, 8, 8))
    network(randn(2, 3, 8, 8)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # Straight through every grid: the first layer gets a gradient.
    assert network.same.weight.grad.abs().sum() > 0


def test_a_layer_by_itself():
    network = quantise(nn.Linear(6, 4), randn(9, 6))
    trace = capture(network, randn(3, 6))
    assert trace.layers[0].quantisation == network.input_grid.quantisation
    again = quantise_as(network, trace)
    assert torch.equal(again(randn(3, 6)), network(randn(3, 6)))


def test_what_calibration_does_not_reach_stays_in_floating_point():
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    network = quantise(attention, randn(4, 5, 8))
    trace = capture(network, randn(2, 5, 8))
    assert trace.provenance["precision"] == "float32 and int8"
    found = {layer.name for layer in trace.layers if layer.quantisation}
    assert found == {"linear1", "linear2"}


class Tied(nn.Module):
    """The last layer's weights are also an embedding's."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 8)
        self.head = nn.Linear(8, 7)
        self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.words(ids))


def test_an_embedding_keeps_the_weights_that_a_layer_shares_with_it():
    network = Tied()
    made = quantise(network, torch.arange(7))
    assert torch.equal(made.words.weight, network.words.weight)
    assert not torch.equal(made.head.weight, network.words.weight)


class Restless(nn.Linear):
    """Arithmetic between the grid and the product."""

    def forward(self, input):
        return super().forward(input * 0.3)


def test_arithmetic_after_the_grid_is_refused():
    network = quantise(Restless(6, 4), randn(9, 6))
    with pytest.raises(TraceError, match=r"layer 'linear' must multiply its input as Quantisation"):
        capture(network, randn(3, 6))


@pytest.mark.parametrize(
    ("network", "calibration", "match"),
    [
        (nn.Sequential(nn.ReLU()), randn(2, 3), "must have a convolution or a linear layer"),
        (nn.Linear(3, 2), randn(0, 3), "calibration must hold at least one input"),
        (nn.Linear(3, 2), (), "calibration must hold at least one input"),
        (nn.Linear(3, 2), randn(2, 3) / 0, "must have a finite input to be calibrated"),
        (nn.Linear(3, 2).double(), randn(2, 3), "must have float32 weights, got torch.float64"),
        (nn.LazyLinear(2), randn(2, 3), "run a lazy module once"),
        (lambda x: x, randn(2, 3), "must be a torch.nn.Module, got function"),
        (
            torch_prune.l1_unstructured(nn.Linear(3, 2), "weight", 0.5),
            randn(2, 3),
            "must have its weight as a parameter",
        ),
    ],
)
def test_what_cannot_be_quantised(network, calibration, match):
    with pytest.raises(TraceError, match=match):
        quantise(network, calibration)


def test_another_models_trace_is_refused(trace):
    with pytest.raises(TraceError, match="none called same, up"):
        quantise_as(nn.Sequential(nn.Linear(6, 3)), trace)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": 0.0}, "scale must be a finite number above 0"),
        ({"scale": float("nan")}, "scale must be"),
        ({"zero_point": 256}, "zero_point must be an integer from 0 to 255"),
        ({"zero_point": 1.5}, "zero_point must be"),
        ({"bits": 0}, "bits must be"),
    ],
)
def test_a_grid_has_rules(changes, match):
    with pytest.raises(TraceError, match=match):
        Quantisation(**({"scale": 0.5, "zero_point": 3} | changes))


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(2.0**-20, 2.0**10, width=32),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_steps_are_read_back_exactly(scale, zero_point, seed):
    grid = InputGrid(torch.tensor(scale), torch.tensor(zero_point))
    values = torch.from_numpy(
        np.random.default_rng(seed).normal(0, 200 * scale, 300).astype(np.float32)
    )
    on_grid = grid(values).numpy()
    expected = np.clip(np.rint(values.numpy() / np.float32(scale)) + zero_point, 0, 255)
    steps = grid.quantisation.steps(on_grid)
    np.testing.assert_array_equal(steps * np.float32(scale), on_grid)
    # PyTorch multiplies by the rounded reciprocal: one step apart, and only halfway between two.
    assert np.abs(steps + zero_point - expected).max() <= 1


def raw_decisions(q, policy, name, thresholds, zero_point):
    """Signatures of raw integers, with thresholds moved by the zero point; exact in 64 bits."""
    projections = policy.projections(name).astype(np.int64)
    k, ids = q.shape[1], []
    for j, first in enumerate(range(0, k, policy.length)):
        part = q[:, first : first + policy.length].astype(np.int64)
        used = projections[:, : part.shape[1]]
        moved = thresholds[j] + zero_point * used.sum(axis=1)
        seen = {}
        bits = part @ used.T > moved
        ids.append([seen.setdefault(row.tobytes(), len(seen)) for row in bits])
    return np.array(ids)


@settings(max_examples=40, deadline=None)
@given(
    exponent=st.integers(-8, 2),
    zero_point=st.sampled_from([0, 7, 128]),
    projection=st.sampled_from(["sign", "sparse", "int8"]),
    thresholds=st.sampled_from(["zero", "mean"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_and_values_decide_alike(exponent, zero_point, projection, thresholds, seed):
    """A power of two as scale makes the float32 sums of the values exact, ties included."""
    rng = np.random.default_rng(seed)
    layer = matrix_layer("fc", m=48, n=3, k=11)
    q = rng.integers(0, 256, (6, 11))[rng.integers(0, 6, 48)] + rng.integers(0, 2, (48, 11))
    q = np.clip(q, 0, 255)
    grid = Quantisation(scale=2.0**exponent, zero_point=zero_point)
    values = ((q - zero_point) * np.float32(grid.scale)).astype(np.float32)[None]
    policy = LshReuse(hashes=9, length=4, projection=projection, thresholds=thresholds)
    mean = (rng.integers(0, 256, 11) - zero_point + 0.5).astype(np.float32)[None]
    on_values = policy.decide(layer, values, {"mean": mean * np.float32(grid.scale)})
    on_steps = policy.decide(layer, grid.steps(values), {"mean": mean})
    np.testing.assert_array_equal(on_values.rows.ids, on_steps.rows.ids)
    np.testing.assert_array_equal(on_values.evidence.values, on_steps.evidence.values)
    padded = np.zeros((3, 4))
    padded.reshape(-1)[:11] = mean[0] if thresholds == "mean" else 0.0
    thresholds = padded @ policy.projections("fc").T.astype(np.float64)
    expected = raw_decisions(q, policy, "fc", thresholds, zero_point)
    np.testing.assert_array_equal(on_steps.rows.ids[0], expected)


def test_reuse_multiplies_whole_centroids(quantised, trace):
    """The result by hand: rounded means of integers, in the model as in the recorded rows."""
    policy = LshReuse(hashes=6, length=9, scope="batch", thresholds="zero")
    layer = trace.layer("grouped")
    grid = layer.quantisation
    steps, weights = grid.steps(trace.rows("grouped")), trace.weights("grouped")
    made = policy.decide(layer, steps, {})
    represented = np.zeros_like(steps)
    for index in range(steps.shape[0]):
        for j, first in enumerate(range(0, steps.shape[2], 9)):
            columns = slice(first, first + 9)
            for cluster in np.unique(made.rows.ids[index, j]):
                rows = made.rows.ids[index, j] == cluster
                mean = steps[index, rows, columns].mean(axis=0)
                represented[index, rows, columns] = np.rint(mean)
    expected = represented @ weights
    rounded = replace(made, rows=made.rows.with_whole_centroids())
    assert (rounded.rows.centroids == np.rint(made.rows.centroids)).all()
    np.testing.assert_allclose(product(rounded, steps, weights), expected, rtol=1e-5, atol=1e-4)
    run = decide(trace, PerLayer({"grouped": policy}), model=quantised)
    dense = steps @ weights
    relative = np.square(expected - dense).mean() / np.square(dense).mean()
    assert relative > 0
    assert run.relative_mse["grouped"] == pytest.approx(relative, rel=1e-4)
    recorded = decide(trace, PerLayer({"grouped": policy}))
    assert recorded.relative_mse["grouped"] == pytest.approx(relative, rel=1e-4)
    assert run.output_mse > 0


def test_the_mean_is_that_of_the_integers(trace):
    policy = LshReuse(hashes=4, length=2)
    mean = calibrate(trace, policy)["up"]["mean"]
    grid = trace.layer("up").quantisation
    # Both are float32 means of the same rows.
    np.testing.assert_allclose(
        mean * grid.scale, trace.rows("up").mean(axis=1), rtol=1e-4, atol=1e-6
    )


def test_floats_do_not_calibrate_integers(model, quantised, trace):
    dense = capture(model, randn(5, 3, 8, 8))
    policy = LshReuse(hashes=4, length=2)
    with pytest.raises(ConfigError, match="calibration must be quantised as the trace is, got oth"):
        decide(trace, policy, calibration=dense)
    with pytest.raises(ConfigError, match=r"'same' of .* in floating point; pass the model that"):
        decide(trace, policy, model=model)
    with pytest.raises(ConfigError, match="model must"):
        decide(dense, policy, model=quantised)


class TestPrune:
    def test_the_smallest_weights_become_zero_for_good(self, model):
        network = prune(model, 0.5)
        for name, layer in network.named_modules():
            if not hasattr(layer, "weight"):
                continue
            before = model.get_submodule(name).weight.detach()
            zero = layer.weight.detach() == 0
            assert int(zero.sum()) == round(0.5 * zero.numel())
            assert before[zero].abs().max() <= before[~zero].abs().min()
            assert torch.equal(layer.weight.detach()[~zero], before[~zero])
        assert list(network.state_dict()) == list(model.state_dict())
        assert torch.equal(prune(model, 0.0).head.weight, model.head.weight)

    def test_patterns_choose_layers_and_the_trace_records_zeros(self, model):
        network = prune(model, {"twice": 0.25, "*e*": 0.5})
        found = capture(network, randn(2, 3, 8, 8)).provenance["zero_weights"]
        # 36 weights at a quarter; of `same`, `grouped` and `head` the half.
        assert found == {"twice": 0.25, "twice#2": 0.25, "same": 0.5, "grouped": 0.5, "head": 0.5}

    def test_zeros_stay_zeros_on_the_grid(self, model):
        pruned = prune(model, 0.5)
        network = quantise(pruned, randn(4, 3, 8, 8))
        assert (network.head.weight[pruned.head.weight == 0] == 0).all()

    @pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan"), True, "half", None])
    def test_fractions_out_of_range(self, model, fraction):
        with pytest.raises(TraceError, match=r"finite number >= 0 and below 1, got"):
            prune(model, fraction)

    def test_every_broken_rule_is_named(self, model):
        with pytest.raises(TraceError) as caught:
            prune(model, {"same": 1.5, "conv*": 0.5})
        assert "fraction of 'same' must be a finite number" in str(caught.value)
        assert "pattern 'conv*' must match a layer; layers are same, up" in str(caught.value)
        with pytest.raises(TraceError, match="must have a convolution or a linear layer"):
            prune(nn.ReLU(), 0.5)


def test_layers_differ_by_their_grids():
    layer = matrix_layer("fc", m=4, n=1, k=2)
    grid = Quantisation(scale=0.5, zero_point=3)
    assert Layer.from_dict(replace(layer, quantisation=grid).to_dict()).quantisation == grid
    with pytest.raises(TraceError, match="quantisation must be a Quantisation or None"):
        replace(layer, quantisation=8)


def test_directions_in_8_bits_are_refused(quantised, trace):
    policy = PerLayer({"grouped": LshReuse(hashes=6, length=9, normalised=True)})
    with pytest.raises(ConfigError, match="layer 'grouped' must not be normalised in 8 bits"):
        decide(trace, policy)
