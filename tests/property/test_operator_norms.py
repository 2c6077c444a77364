"""Lipschitz constants against brute force on small sizes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from simulator.analysis.operator_norms import (
    LIPSCHITZ,
    adaptive_average_norm,
    average_norm,
    convolution_norm,
    layer_norm_of,
    matrix_norm,
    max_pool_norm,
    multiplicity,
    response_norm,
)
from workloads import run_with
from workloads.models.cifarnet import LocalResponseNorm


def operator_norm(operation, shape) -> float:
    """Largest singular value of a linear operation on inputs of `shape`, column by column."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return float(np.linalg.norm(operation(basis).flatten(1).detach().numpy(), 2))


def captured(module, shape):
    """The layer that a module is, and its weights."""
    calls = []
    run_with(module, torch.ones(1, *shape), lambda call: calls.append((call.layer, call.weights())))
    return calls[0]


GEOMETRY = {
    "size": st.tuples(st.integers(4, 9), st.integers(4, 9)),
    "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "stride": st.integers(1, 3),
    "padding": st.integers(0, 2),
    "dilation": st.integers(1, 2),
    "groups": st.sampled_from((1, 2)),
    "seed": st.integers(0, 99),
}


@settings(max_examples=40, deadline=None)
@given(**GEOMETRY)
def test_a_convolution_stretches_no_more_than_its_norm(
    size, kernel, stride, padding, dilation, groups, seed
):
    assume(all(s + 2 * padding > dilation * (k - 1) for s, k in zip(size, kernel, strict=True)))
    torch.manual_seed(seed)
    conv = nn.Conv2d(
        2, 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    layer, weights = captured(conv, (2, *size))
    true = operator_norm(conv.double(), (2, *size))
    unfolded = matrix_norm(weights) * math.sqrt(multiplicity(layer))
    bound = layer_norm_of(layer, weights)
    assert true <= bound * (1 + 1e-9)
    assert bound <= unfolded
    # Each element's repeats, counted by folding a map of ones back.
    ones = torch.ones(1, 1, *size)
    options = {"dilation": dilation, "padding": padding, "stride": stride}
    repeats = F.fold(F.unfold(ones, kernel, **options), size, kernel, **options)
    assert multiplicity(layer) == int(repeats.max())


@settings(max_examples=40, deadline=None)
@given(**GEOMETRY)
def test_a_transposed_convolution_stretches_no_more_than_its_norm(
    size, kernel, stride, padding, dilation, groups, seed
):
    torch.manual_seed(seed)
    conv = nn.ConvTranspose2d(
        2, 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    spread = [(s - 1) * stride + dilation * (k - 1) for s, k in zip(size, kernel, strict=True)]
    assume(all(s + 1 > 2 * padding for s in spread))
    layer, weights = captured(conv, (2, *size))
    true = operator_norm(conv.double(), (2, *size))
    assert true <= layer_norm_of(layer, weights) * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(taps=st.integers(1, 5), stride=st.integers(1, 3), seed=st.integers(0, 99))
def test_frequencies_of_a_large_map_lose_little(taps, stride, seed):
    # On a torus of 96 positions all frequencies are looked at: the norm there is exact.
    kernel = np.random.default_rng(seed).standard_normal((1, 3, 2, taps))
    weights = torch.from_numpy(kernel[0])
    exact = operator_norm(
        lambda x: F.conv1d(F.pad(x, (0, taps - 1), mode="circular"), weights, stride=stride),
        (2, 96),
    )
    bound = convolution_norm(kernel, (96,), (stride,), (1,))
    assert exact * (1 - 1e-9) <= bound <= 1.09 * exact


def test_a_pointwise_convolution_has_the_norm_of_its_matrix():
    torch.manual_seed(0)
    layer, weights = captured(nn.Conv2d(5, 3, 1), (5, 6, 6))
    expected = float(np.linalg.norm(weights[0], 2))
    assert layer_norm_of(layer, weights) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(3, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
)
def test_max_pooling_can_repeat_a_spike_as_often_as_its_norm_says(
    size, kernel, stride, padding, dilation
):
    assume(padding <= kernel // 2 and size + 2 * padding > dilation * (kernel - 1))
    pool = nn.MaxPool2d(kernel, stride, padding, dilation)
    spikes = torch.eye(size * size).reshape(-1, 1, size, size)
    found = pool(spikes)
    largest = float(found.flatten(1).norm(dim=1).max())
    constant = max_pool_norm(
        (size,) * 2, (kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2, found.shape[2:]
    )
    assert constant == pytest.approx(largest)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(3, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    ceil=st.booleans(),
    count_padding=st.booleans(),
)
def test_average_pooling_is_exact(size, kernel, stride, padding, ceil, count_padding):
    assume(padding <= kernel // 2 and size + 2 * padding >= kernel)
    pool = nn.AvgPool2d(kernel, stride, padding, ceil, count_padding)
    outputs = pool(torch.ones(1, 1, size, size)).shape[-1]
    norm = average_norm(size, kernel, stride, padding, outputs, count_padding=count_padding)
    assert norm**2 == pytest.approx(operator_norm(pool, (1, size, size)))


@pytest.mark.parametrize(("size", "outputs"), [(7, 1), (7, 3), (8, 2), (5, 8)])
def test_adaptive_average_pooling_is_exact(size, outputs):
    pool = nn.AdaptiveAvgPool2d(outputs)
    norm = adaptive_average_norm(size, outputs)
    assert norm**2 == pytest.approx(operator_norm(pool, (1, size, size)))


SLOPES = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "selu": F.selu,
    "celu": F.celu,
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_bounded_and_reached(name):
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    values = SLOPES[name](x)
    steepest = float((values[1:] - values[:-1]).abs().max() / (x[1] - x[0]))
    assert 0.985 * LIPSCHITZ[name] <= steepest <= LIPSCHITZ[name] * (1 + 1e-9)


def jacobian_norm(function, x) -> float:
    return float(torch.linalg.matrix_norm(torch.func.jacrev(function)(x), 2))


def test_softmax_halves_at_least():
    rng = torch.Generator().manual_seed(0)
    norms = [
        jacobian_norm(lambda x: x.softmax(0), scale * torch.randn(5, generator=rng))
        for scale in (0.1, 1, 5, 20)
        for _ in range(20)
    ]
    assert max(norms) <= 1 / 2
    # Two classes at odds of one to one reach it.
    assert jacobian_norm(lambda x: x.softmax(0), torch.zeros(2)) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("module", "constant"),
    [
        (LocalResponseNorm(), response_norm(9, 1.0, 0.75)),
        (nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0), response_norm(5, 2.0, 0.75)),
        (nn.LocalResponseNorm(3, 1.0, 2.0, 0.5), response_norm(3, 0.5, 2.0)),
    ],
)
def test_response_normalisation_stretches_no_more_than_its_constant(module, constant):
    rng = torch.Generator().manual_seed(0)

    def channels(x):
        return module(x.reshape(1, -1, 1, 1)).flatten()

    norms = [
        jacobian_norm(channels, scale * kind)
        for scale in 10.0 ** np.arange(-2, 4, 0.25)
        for kind in (torch.randn(16, generator=rng), torch.ones(16), torch.eye(16)[7])
    ]
    assert max(norms) <= constant
