"""The software path computes what the functional path decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelerators import ConfigError
from simulator import LshReuse
from simulator.boards.software import STEPS, reused_convolution
from simulator.policies.activations import Activations
from simulator.running import executor
from simulator.running.product import product
from tests.builders import matrix_layer
from workloads.traces.layer import Convolution, Gemm, Layer
from workloads.traces.unfold import rows_of, weights_of


def convolution_layer(shape, out, kernel, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1),
                      groups=1):  # fmt: skip
    geometry = Convolution(
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    images, channels, *size = shape
    height, width = geometry.output_size(tuple(size))
    gemm = Gemm(
        m=images * height * width,
        n=out // groups,
        k=channels // groups * kernel[0] * kernel[1],
        count=groups,
    )
    return Layer(
        name="conv",
        kind="conv",
        gemm=gemm,
        images=images,
        row_images=images,
        convolution=geometry,
        input_shape=shape,
        output_shape=(images, out, height, width),
        weights_are_parameters=True,
    )


def smooth(shape, seed=0):
    """Feature maps with clusters: few levels, each in large patches, and a little noise."""
    rng = np.random.default_rng(seed)
    images, channels, height, width = shape
    coarse = rng.integers(-4, 5, (images, channels, -(-height // 3), -(-width // 3)))
    maps = np.repeat(np.repeat(coarse, 3, axis=2), 3, axis=3)[:, :, :height, :width]
    return (maps + rng.integers(0, 2, shape) / 4).astype(np.float32)


CASES = {
    "whole vectors of results": (((2, 8, 9, 7), 32, (3, 3)), {"padding": (1, 1)}, 8),
    "odd n and L across taps": (((2, 6, 9, 7), 21, (3, 5)), {"padding": (1, 2)}, 10),
    "L over 16": (((2, 8, 6, 5), 16, (3, 3)), {"padding": (1, 1)}, 24),
    "strided": (((2, 3, 23, 19), 16, (5, 5)), {"stride": (4, 3), "padding": (2, 2)}, 5),
    "dilated down": (((2, 4, 9, 8), 16, (3, 3)), {"dilation": (2, 1), "padding": (2, 1)}, 6),
    "dilated across": (((2, 4, 9, 8), 16, (3, 3)), {"dilation": (1, 2), "padding": (1, 2)}, 6),
    "grouped": (((2, 8, 9, 7), 12, (3, 3)), {"groups": 2, "padding": (1, 1)}, 4),
    "L divides no row": (((2, 5, 8, 7), 9, (3, 3)), {"padding": (1, 1)}, 7),
    "wider than a block": (((1, 3, 5, 150), 16, (3, 3)), {"padding": (1, 1)}, 9),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("thresholds", ["zero", "spread"])
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", CASES)
def test_result_is_that_of_the_decisions(case, order, scope, thresholds, threads):
    (shape, out, kernel), geometry, length = CASES[case]
    layer = convolution_layer(shape, out, kernel, **geometry)
    images = smooth(shape)
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((out, shape[1] // layer.gemm.count, *kernel)).astype(np.float32)
    policy = LshReuse(hashes=9, length=length, scope=scope, thresholds=thresholds, order=order)
    rows = rows_of(layer, images)
    state = policy.calibrate(layer, rows)
    decisions = policy.decide(layer, rows, state)
    ours = reused_convolution(layer, weights, policy, state)(images, threads=threads)
    assert ours.remaining_ratio == decisions.remaining_ratio < 1
    assert set(ours.seconds) == set(STEPS)
    expected = product(decisions, rows, weights_of(layer, weights))
    expected = expected.transpose(0, 2, 1).reshape(out, shape[0], *layer.output_shape[2:])
    # k products, and means of at most m sub-vectors, each added in two orders: a rounding each,
    # of sums that stay below the sum of magnitudes.
    magnitude = np.abs(rows).max() * np.abs(weights).sum(axis=(1, 2, 3)).max()
    bound = (layer.gemm.k + layer.gemm.m) * np.finfo(np.float32).eps * magnitude
    np.testing.assert_allclose(ours.output, expected.transpose(1, 0, 2, 3), rtol=0, atol=bound)


@pytest.mark.parametrize("centroids", [False, True])
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("hashes", [9, 20])  # tables that signatures index, and that are probed
@pytest.mark.parametrize("case", CASES)
def test_feature_maps_are_decided_as_their_rows_are(case, hashes, order, scope, centroids):
    (shape, out, kernel), geometry, length = CASES[case]
    layer = convolution_layer(shape, out, kernel, **geometry)
    images = smooth(shape)
    weights = np.random.default_rng(1).standard_normal((layer.gemm.count, layer.gemm.k, out))
    weights = weights[..., : layer.gemm.n].astype(np.float32)
    policy = LshReuse(hashes=hashes, length=length, scope=scope, order=order, projection="int8")
    rows = rows_of(layer, images)
    state = policy.calibrate(layer, rows)
    expected = policy.decide(layer, rows, state)
    made = executor.execute(
        policy,
        layer,
        Activations(layer, images),
        state,
        None,
        lambda: weights,
        wants_result=True,
        centroids=centroids,
    )
    for name in ("ids", "clusters"):
        np.testing.assert_array_equal(
            getattr(made.decisions.rows, name), getattr(expected.rows, name)
        )
    np.testing.assert_array_equal(made.decisions.evidence.values, expected.evidence.values)
    magnitude = np.abs(rows).max()
    eps = layer.gemm.m * np.finfo(np.float32).eps
    if centroids:  # the same sums in another order
        np.testing.assert_allclose(
            made.decisions.rows.centroids, expected.rows.centroids, rtol=0, atol=eps * magnitude
        )
    bound = (layer.gemm.k * np.finfo(np.float32).eps + eps) * magnitude
    np.testing.assert_allclose(
        made.result,
        product(expected, rows, weights),
        rtol=0,
        atol=bound * np.abs(weights).sum(axis=1).max(),
    )


@pytest.mark.parametrize("hashes", [17, 40])  # beyond one vector, and beyond a direct table
def test_clusters_of_equal_patches_cost_no_accuracy(hashes):
    layer = convolution_layer((1, 4, 12, 12), 16, (3, 3), padding=(1, 1))
    pattern = np.random.default_rng(1).standard_normal((1, 4, 3, 3), dtype=np.float32)
    images = np.tile(pattern, (1, 1, 4, 4))
    weights = np.random.default_rng(2).standard_normal((16, 4, 3, 3)).astype(np.float32)
    policy = LshReuse(
        hashes=hashes, length=12, thresholds="zero", order="channels_last", projection="int8"
    )
    run = reused_convolution(layer, weights, policy, {})(images)
    dense = torch.nn.functional.conv2d(torch.tensor(images), torch.tensor(weights), padding=1)
    # Nine places in the pattern, less or more at the border; sums of 36 products of order ten.
    assert run.remaining_ratio < 0.4
    np.testing.assert_allclose(run.output, dense.numpy(), atol=1e-4)


def test_what_it_cannot_run_names_layer_and_fix():
    policy = LshReuse(hashes=4, length=4, thresholds="zero", order="channels_last")
    with pytest.raises(ConfigError, match="must be a two-dimensional convolution, got 'fc'"):
        reused_convolution(matrix_layer("fc", m=8, n=1, k=4), np.ones((4, 1)), policy, {})
    layer = convolution_layer((1, 4, 6, 6), 8, (3, 3))
    weights = np.ones((8, 4, 3, 3), np.float32)
    with pytest.raises(ConfigError, match=r"length=40 must not exceed the row length"):
        reused_convolution(layer, weights, replace(policy, length=40), {})
    for change in (
        {"normalised": True},
        {"representative": "first"},
        {"scope": "stream"},
        {"scope": "tile", "tile_rows": 8},
        {"look_once": True},
    ):
        with pytest.raises(ConfigError, match=f"policy must have {next(iter(change))}="):
            reused_convolution(layer, weights, replace(policy, **change), {})
    ours = reused_convolution(layer, weights, policy, {})
    with pytest.raises(ConfigError, match=r"'conv' must have shape \(1, 4, 6, 6\), got \(2, 4"):
        ours(np.ones((2, 4, 6, 6), np.float32))
    images = np.ones((1, 4, 6, 6), np.float32)
    images[0, 2, 3, 3] = np.nan
    with pytest.raises(ConfigError, match="layer 'conv' must be finite"):
        ours(images)
