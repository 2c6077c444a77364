"""What a trace says of the steps after each product."""

import json
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from simulator.policies.policy import Operands, affine_of
from workloads import capture, quantise
from workloads.errors import TraceError
from workloads.traces.after import After, Step
from workloads.traces.trace import WorkloadTrace


def seeded(module):
    """The module with weights and statistics that are no identity."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator)
            tensor.data.copy_(values + 0.5 if "running_var" in name else values - 0.5)
    return module.eval()


class Of(nn.Module):
    """A function of the result of one 3x3 convolution."""

    def __init__(self, function, *, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=bias, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.next = nn.Conv2d(4, 5, 1)
        self.function = function

    def forward(self, x):
        return self.function(self, self.conv(x), x)


def of(function, *, bias=True, shape=(2, 3, 6, 6)):
    return capture(seeded(Of(function, bias=bias)), torch.randn(shape))


def kinds(trace, name="conv"):
    return [step.kind for step in trace.layer(name).after.steps]


@pytest.mark.parametrize(
    ("relu", "upper"),
    [
        (F.relu, None),
        (torch.relu, None),
        (lambda x: F.relu(x, inplace=True), None),
        (lambda x: x.clamp(min=0), None),
        (lambda x: x.clamp_(min=0.0), None),
        (lambda x: torch.clamp_min(x, 0), None),
        (lambda x: F.threshold(x, 0, 0), None),
        (lambda x: torch.maximum(x, torch.zeros(())), None),
        (lambda x: F.leaky_relu(x, 0.0), None),
        (F.relu6, 6),
        (lambda x: F.hardtanh(x, 0, 6), 6),
        (lambda x: x.clamp(0, 1), 1),
    ],
)
def test_a_relu_is_one_however_it_is_written(relu, upper):
    trace = of(lambda m, x, _: m.next(relu(m.norm(x))))
    head = trace.layer("conv").after.head
    assert [step.kind for step in head] == ["bias", "batch_norm", "relu"]
    assert head[-1].upper == upper
    assert trace.layer("next").input_is_nonnegative
    assert trace.layer("conv").input_is_nonnegative is False  # pixels
    assert trace.layer("conv").after.layers == ("next",)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: F.prelu(x, torch.full((4,), 0.25)), "prelu"),
        (lambda x: F.leaky_relu(x, 0.1), "leaky_relu"),
        (F.silu, "silu"),
        (F.gelu, "gelu"),
        (F.hardswish, "hardswish"),
        (F.elu, "elu"),
        (torch.tanh, "tanh"),
        (lambda x: x.clamp(min=0.5), "other"),
        (lambda x: x.clamp(min=-1), "other"),
        (lambda x: F.threshold(x, 0.1, 0), "other"),
        (torch.sin, "other"),
        (lambda x: torch.maximum(x, torch.ones(())), "other"),
    ],
)
def test_what_is_no_relu_is_none(function, kind):
    trace = of(lambda m, x, _: m.next(function(x)))
    assert kinds(trace) == ["bias", kind, "product"]
    known = kind == "other" and trace.layer("next").input_is_nonnegative
    assert trace.layer("next").input_is_nonnegative is known


@pytest.mark.parametrize(
    ("function", "is_nonnegative"),
    [
        (torch.sigmoid, True),
        (lambda x: x.softmax(1), True),
        (torch.abs, True),
        (lambda x: F.max_pool2d(x, 2), False),
        (lambda x: F.max_pool2d(x.relu(), 2), True),
        (lambda x: F.avg_pool2d(x.relu(), 2), True),
        (lambda x: F.adaptive_avg_pool2d(x.relu(), 2), True),
        (lambda x: F.interpolate(x.relu(), scale_factor=2.0, mode="bilinear"), True),
        (lambda x: F.interpolate(x.relu(), scale_factor=2.0, mode="bicubic"), False),
        (lambda x: F.pad(x.relu(), (1, 1)), True),
        (lambda x: F.pad(x.relu(), (1, 1), value=-1.0), False),
        (lambda x: x.relu() + 0.5, True),
        (lambda x: x.relu() - 0.5, False),
        (lambda x: x.relu() * -1, False),
        (lambda x: x.relu() * torch.arange(4.0).view(4, 1, 1), True),
        (lambda x: x.relu() + x.sigmoid(), True),
        (lambda x: x.relu() + x, False),
        (lambda x: torch.cat([x.relu()[:, :2], x.sigmoid()[:, 2:]], 1), True),
        (lambda x: torch.cat([x.relu()[:, :2], x[:, 2:]], 1), False),
        (lambda x: x.clamp(min=0.5), True),
        (lambda x: x.relu().clamp(max=2), True),
        (lambda x: x.relu().clone(), True),
        (lambda x: x.relu().flatten(2).view(x.shape), True),
    ],
)
def test_inputs_that_are_never_negative(function, is_nonnegative):
    trace = of(lambda m, x, _: m.next(function(x)))
    assert trace.layer("next").input_is_nonnegative is is_nonnegative
    if is_nonnegative:
        assert trace.given("next").min() >= 0


def _beside(first, rest):
    """Two parts of one memory, each written by itself; the rest are constants of -1."""

    def filled(x):
        made = torch.full((*x.shape[:1], 4, *x.shape[2:]), -1.0)
        first(made[:, :1], x[:, :1])
        if rest is not None:
            made[:, 1:] = rest(x[:, 1:])
        return made

    return filled


@pytest.mark.parametrize(
    "function",
    [
        _beside(lambda part, x: part.copy_(x), torch.relu),
        _beside(lambda part, x: torch.abs(x, out=part), None),
        _beside(lambda part, x: part.copy_(x).relu_(), None),
        _beside(lambda part, x: part.abs_().sub_(x).relu_(), None),
    ],
)
def test_what_lies_beside_a_written_part_is_not_as_it(function):
    trace = of(lambda m, x, _: m.next(function(x)))
    assert trace.given("next").min() < 0
    assert not trace.layer("next").input_is_nonnegative
    assert trace.layer("conv").after.layers == ("next",)


def test_pixels_of_bytes_are_never_negative():
    class Scaled(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.conv, self.shift = nn.Conv2d(3, 4, 3), shift

        def forward(self, x):
            return self.conv(x.float() / 255 + self.shift)

    pixels = torch.randint(0, 256, (1, 3, 6, 6), dtype=torch.uint8)
    assert capture(Scaled(0), pixels).layer("conv").input_is_nonnegative
    assert not capture(Scaled(-0.5), pixels).layer("conv").input_is_nonnegative


class Block(nn.Module):
    """A residual block as torchvision writes it, between two convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.relu(self.stem(x))
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.down(x)
        return self.last(self.relu(out))


def test_a_residual_sum_stands_before_its_relu():
    trace = capture(seeded(Block()), torch.randn(2, 3, 8, 8))
    assert kinds(trace, "conv1") == ["batch_norm", "relu", "product"]
    second = trace.layer("conv2").after
    assert [step.kind for step in second.head] == ["batch_norm"]
    norm, add, relu, product = second.steps
    assert (add.kind, add.others, add.inputs[0]) == ("add", ("down",), norm.number)
    assert (relu.kind, product.layer) == ("relu", "last")
    shortcut = trace.layer("down").after
    assert shortcut.steps[1].others == ("conv2",)
    assert shortcut.steps[1].number == add.number  # the same step, told of both
    assert trace.layer("stem").after.layers == ("conv1", "down")
    assert all(trace.layer(name).input_is_nonnegative for name in ("conv1", "conv2", "last"))


def test_an_identity_shortcut_is_a_second_reader():
    trace = of(lambda m, x, _: m.norm(m.next(x.relu())[:, :4]) + x.relu())
    after = trace.layer("conv").after
    bias = after.steps[0]
    assert [step.kind for step in after.readers(bias.number)] == ["relu", "relu"]
    assert [step.kind for step in after.head] == ["bias"]
    assert next(after.of_kind("add")).others == ("next",)
    branches = of(lambda m, x, _: m.next(x.relu() + x))
    assert [step.kind for step in branches.layer("conv").after.head] == ["bias"]
    assert kinds(branches) == ["bias", "relu", "add", "product"]
    own = next(branches.layer("conv").after.of_kind("add"))
    assert not own.joins
    assert len(own.inputs) == 2
    with_input = of(lambda m, x, given: x + given[:, :1])
    assert next(with_input.layer("conv").after.of_kind("add")).others == ("",)


def test_a_product_that_is_added_as_it_is_joins():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1, bias=False)
            self.second = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x):
            x = self.first(x)
            return x + self.second(x)

    trace = capture(Plain(), torch.randn(1, 3, 4, 4))
    assert next(trace.layer("first").after.of_kind("add")).others == ("second",)
    assert next(trace.layer("second").after.of_kind("add")).others == ("first",)


def test_the_second_join_is_the_last_that_is_told():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(5))

        def forward(self, x):
            first, *others = self.layers
            x = first(x)
            for layer in others:
                x = x + layer(x)
            return x.relu()

    trace = capture(Chain(), torch.randn(1, 3, 4, 4))
    steps = [step.kind for step in trace.layer("layers.0").after.steps]
    assert steps == ["bias", "product", "add", "product", "add"]
    assert kinds(trace, "layers.4") == ["bias", "add", "relu", "output"]


def test_pooling_has_its_windows():
    trace = of(lambda m, x, _: m.next(F.max_pool2d(x.relu(), 3, 2, 1)))
    pool = trace.layer("conv").after.steps[-2]
    assert (pool.kind, pool.kernel, pool.stride, pool.padding, pool.shape) == (
        "max_pool", (3, 3), (2, 2), (1, 1), (2, 4, 3, 3),
    )  # fmt: skip
    trace = of(lambda m, x, _: m.next(F.avg_pool2d(x, (2, 3))))
    pool = trace.layer("conv").after.steps[-2]
    assert (pool.kind, pool.kernel, pool.stride) == ("avg_pool", (2, 3), (2, 3))
    for whole in (lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: x.mean((2, 3), keepdim=True)):
        trace = of(lambda m, x, _, whole=whole: m.next(whole(x)))
        pool = trace.layer("conv").after.steps[-2]
        assert (pool.kind, pool.kernel, pool.stride) == ("avg_pool", (6, 6), (6, 6))
    trace = of(lambda m, x, _: m.next(F.adaptive_avg_pool2d(x, 4)))  # windows of several sizes
    assert trace.layer("conv").after.steps[-2].kernel == ()
    trace = of(lambda m, x, _: m.next(F.max_pool2d(x, 2, dilation=2)))
    assert trace.layer("conv").after.steps[-2].kernel == ()


def test_what_is_not_understood_is_told_as_other():
    def written_to_a_part(m, x, _):
        made = torch.empty(2, 6, 6, 6)
        made[:, :4] = x.relu()
        made[:, 4:] = 0
        return m.next(made[:, :4])

    assert "other" in kinds(of(written_to_a_part))
    assert of(written_to_a_part).layer("next").input_is_nonnegative is False

    def a_part_in_place(m, x, _):
        x[:, :2].relu_()
        return m.next(x)

    assert kinds(of(a_part_in_place))[1:3] == ["part", "other"]

    def read_by_python(m, x, _):
        return m.next(x.relu()) * (1 if float(x.sum()) > 0 else 2)

    after = of(read_by_python).layer("conv").after
    assert {step.kind for step in after.readers(after.steps[0].number)} == {"relu", "other"}
    assert [step.kind for step in after.head] == ["bias"]


def test_parts_and_joined_maps_are_told():
    trace = of(lambda m, x, _: m.next(torch.cat([x[:, :1].relu(), x[:, 1:].relu()], 1)))
    assert kinds(trace) == ["bias", "part", "relu", "part", "relu", "concatenation", "product"]
    trace = of(lambda m, x, given: m.norm(torch.cat([x, given], 1)[:, 3:]))
    joined = next(trace.layer("conv").after.of_kind("concatenation"))
    assert joined.others == ("",)


def test_bias_and_batch_norm_are_folded_by_column():
    model = seeded(Of(lambda m, x, _: m.next(m.norm(x).relu())))
    x = torch.randn(2, 3, 6, 6)
    trace = capture(model, x)
    layer, affine = trace.layer("conv"), trace.affine("conv")
    assert affine.scale.shape == affine.shift.shape == (1, 4)
    assert affine.scale.dtype == np.float32
    assert layer.after.folded == layer.after.steps[1].number
    product = trace.rows("conv") @ trace.weights("conv")
    told = (affine.scale[:, None] * product + affine.shift[:, None])[0]
    wanted = model.norm(model.conv(x)).detach().permute(0, 2, 3, 1).reshape(-1, 4)
    np.testing.assert_allclose(told, wanted, rtol=1e-4, atol=1e-5)
    assert trace.affine("next").scale.tolist() == [[1] * 5]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x, _: x * torch.arange(1.0, 5).view(4, 1, 1) - 2,
        lambda m, x, _: (3 - m.norm(x) / 2).relu(),
        lambda m, x, _: m.norm(x.clone().mul_(2)).add_(torch.ones(1, 4, 1, 1)).relu_(),
        lambda m, x, _: m.norm(m.norm(x)).relu(),
    ],
)
def test_constants_are_folded_too(function):
    model = seeded(Of(function))
    x = torch.randn(2, 3, 6, 6)
    trace = capture(model, x)
    affine = trace.affine("conv")
    told = affine.scale[0] * (trace.rows("conv") @ trace.weights("conv"))[0] + affine.shift[0]
    answer = model(x).detach().permute(0, 2, 3, 1).reshape(-1, 4)
    relu = kinds(trace)[-2] == "relu"
    np.testing.assert_allclose(np.maximum(told, 0) if relu else told, answer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("function", "folded"),
    [
        (lambda m, x, _: x * torch.arange(36.0).view(6, 6), "bias"),  # differs by position
        (lambda m, x, _: F.batch_norm(x, None, None, training=True), "bias"),
        (lambda m, x, _: m.norm(x.relu()), "bias"),
        (lambda m, x, _: m.norm(x) + x, "bias"),  # two readers
        (lambda m, x, _: F.layer_norm(x, (6,)), "bias"),
    ],
)
def test_what_is_no_affine_by_column_is_not_folded(function, folded):
    after = of(function).layer("conv").after
    numbers = {step.number: step.kind for step in after.steps}
    assert numbers[after.folded] == folded


def test_groups_and_linear_layers_have_their_columns():
    model = seeded(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU()))
    x = torch.randn(1, 4, 5, 5)
    trace = capture(model, x)
    affine = trace.affine("0")
    assert affine.scale.shape == (2, 3)
    told = affine.scale[:, None] * (trace.rows("0") @ trace.weights("0")) + affine.shift[:, None]
    wanted = model(x).detach().reshape(2, 3, 9).transpose(1, 2)
    np.testing.assert_allclose(np.maximum(told, 0), wanted, rtol=1e-4, atol=1e-5)

    model = seeded(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))
    x = torch.randn(3, 5)
    trace = capture(model, x)
    affine = trace.affine("0")
    told = affine.scale * (trace.rows("0") @ trace.weights("0"))[0] + affine.shift
    np.testing.assert_allclose(np.maximum(told, 0), model[:3](x).detach(), rtol=1e-4, atol=1e-5)
    assert [step.kind for step in trace.layer("0").after.head] == ["bias", "batch_norm", "relu"]


def test_products_with_factors_and_turned_over():
    weight, added = torch.rand(5, 4), torch.rand(3, 4)

    class Plain(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.weight = nn.Parameter(weight)
            self.function = function

        def forward(self, x):
            return self.function(x, self.weight)

    def one(function, x):
        trace = capture(Plain(function), x)
        return trace.layers[0].after, trace.affine(trace.layers[0].name)

    after, affine = one(
        lambda x, w: torch.addmm(added[:1], x, w, alpha=2, beta=3), torch.rand(3, 5)
    )
    assert [step.kind for step in after.steps] == ["scale", "bias", "output"]
    np.testing.assert_allclose(affine.scale, 2)
    np.testing.assert_allclose(affine.shift, 3 * added[:1], rtol=1e-6)
    after, affine = one(lambda x, w: torch.addmm(x @ w, x, w), torch.rand(3, 5))
    assert next((step.kind, step.others) for step in after.steps) == ("add", ("linear#2",))
    after, affine = one(lambda x, w: w.T @ x, torch.rand(5, 4))  # columns of the result are rows
    assert affine is None


def test_attention_goes_through_its_softmax():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            return F.scaled_dot_product_attention(
                *(f(x)[:, None] for f in (self.q, self.k, self.v))
            )

    trace = capture(Attends(), torch.randn(2, 5, 8))
    names = [layer.name for layer in trace.layers]
    scores, values = names[3:]
    assert kinds(trace, scores) == ["softmax", "product"]
    assert trace.layer(scores).after.layers == (values,)
    assert trace.layer(values).input_is_nonnegative
    assert kinds(trace, values)[-1] == "output"
    assert trace.layer("v").after.layers == (values,)


def test_a_quantised_layer_reads_through_its_grid():
    x = torch.randn(4, 3, 8, 8)
    model = quantise(seeded(Block()), x)
    trace = capture(model, x)
    assert kinds(trace, "conv1") == ["batch_norm", "relu", "quantisation", "product"]
    assert trace.layer("conv2").input_is_nonnegative  # the grid's zero point is 0 there
    assert trace.layer("stem").input_is_nonnegative is False
    layer, affine = trace.layer("conv1"), trace.affine("conv1")
    grid = layer.quantisation
    integers = grid.steps(trace.rows("conv1")) @ trace.weights("conv1")
    told = affine.scale * grid.scale * integers[0] + affine.shift
    plain = affine.scale * (trace.rows("conv1") @ trace.weights("conv1"))[0] + affine.shift
    np.testing.assert_allclose(told, plain, rtol=1e-3, atol=1e-4)


def test_it_is_saved_with_the_trace(tmp_path):
    trace = capture(seeded(Block()), torch.randn(2, 3, 8, 8))
    trace.save(tmp_path / "trace")
    loaded = WorkloadTrace.load(tmp_path / "trace")
    assert loaded.layers == trace.layers
    for layer in trace.layers:
        ours, theirs = trace.affine(layer.name), loaded.affine(layer.name)
        np.testing.assert_array_equal(ours.scale, theirs.scale)
        np.testing.assert_array_equal(ours.shift, theirs.shift)
    straight = capture(seeded(Block()), torch.randn(2, 3, 8, 8), path=tmp_path / "straight")
    assert straight.layer("conv2").after == trace.layer("conv2").after


def test_traces_of_earlier_releases_know_nothing_of_it(tmp_path):
    path = capture(seeded(Block()), torch.randn(2, 3, 8, 8)).save(tmp_path / "trace")
    description = json.loads((path / "trace.json").read_text())
    for layer in description["layers"]:
        del layer["after"], layer["input_is_nonnegative"]
    del description["files"]["affines.safetensors"]
    (path / "affines.safetensors").unlink()
    (path / "trace.json").write_text(json.dumps(description))
    old = WorkloadTrace.load(path)
    assert {layer.after for layer in old.layers} == {None}
    assert {layer.input_is_nonnegative for layer in old.layers} == {None}
    assert old.affine("conv1") is None
    assert old.save(tmp_path / "again").exists()


def test_damage_is_told(tmp_path):
    path = capture(seeded(Block()), torch.randn(2, 3, 8, 8)).save(tmp_path / "trace")
    text = (path / "trace.json").read_text()
    (path / "trace.json").write_text(text.replace('"batch_norm"', '"bath_norm"'))
    with pytest.raises(TraceError, match=r"Step\.kind must be one of"):
        WorkloadTrace.load(path)
    (path / "trace.json").write_text(text.replace('"steps"', '"strides"'))
    with pytest.raises(TraceError, match=r"Layer\.after must describe number, folded and steps"):
        WorkloadTrace.load(path)
    (path / "trace.json").write_text(text)
    data = bytearray((path / "affines.safetensors").read_bytes())
    data[-1] ^= 1
    assert zlib.crc32(data)
    (path / "affines.safetensors").write_bytes(data)
    with pytest.raises(TraceError, match="CRC-32"):
        WorkloadTrace.load(path).affine("conv1")


def test_shapes_alone_are_unknown():
    from workloads import Gemm

    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=4, n=3, k=2))])
    assert trace.layer("fc").after is None
    assert trace.affine("fc") is None


def test_policies_get_it_beside_the_weights():
    from simulator import calibrate
    from simulator.policies.policy import ReusePolicy

    seen = {}

    class Looks(ReusePolicy):
        def needs_calibration(self, layer):
            return layer.after is not None

        def calibrate(self, layer, rows, weights=None):
            seen[layer.name] = weights(), affine_of(weights)
            return {"nothing": np.zeros(1)}

        def decide(self, layer, rows, state):
            assert layer.after is not None

        def describe(self):
            return {"policy": "looks"}

    model = seeded(Block())
    trace = capture(model, torch.randn(2, 3, 8, 8))
    for learned_from in (None, model):
        seen.clear()
        calibrate(trace, Looks(), model=learned_from)
        assert set(seen) == {layer.name for layer in trace.layers}
        weights, affine = seen["conv1"]
        np.testing.assert_array_equal(weights, trace.weights("conv1"))
        np.testing.assert_array_equal(affine.scale, trace.affine("conv1").scale)
    from simulator import decide

    decide(trace, Looks(), model=model)
    assert affine_of(None) is None
    assert affine_of(lambda: np.zeros(1)) is None
    assert affine_of(Operands(read=lambda: np.zeros(1))) is None


def test_a_step_has_a_known_kind():
    with pytest.raises(TraceError, match="use 'other'"):
        Step(number=1, kind="swish")
    assert After(number=0).head == ()
