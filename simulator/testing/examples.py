"""A layer with activations of a few kinds, small enough for plain loops."""

import math
from dataclasses import replace

import numpy as np

from simulator.decisions.box import Decisions
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.after import After, Step
from workloads.traces.layer import Convolution, Gemm, Layer


def conv_layer(
    images: int = 2,
    channels: int = 4,
    size: tuple[int, int] = (4, 5),
    n: int = 3,
    groups: int = 1,
    name: str = "conv",
) -> Layer:
    """A 3x3 convolution that keeps its size."""
    in_group = channels // groups
    return Layer(
        name=name,
        kind="conv",
        gemm=Gemm(m=images * math.prod(size), n=n, k=9 * in_group, count=groups),
        images=images,
        row_images=images,
        convolution=Convolution(
            kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=groups
        ),
        input_shape=(images, channels, *size),
        output_shape=(images, n * groups, *size),
        weights_are_parameters=True,
    )


def before_a_relu(layer: Layer) -> Layer:
    """The layer, with inputs that are never below 0 and a ReLU after it."""
    relu = Step(number=1, kind="relu", inputs=(0,), shape=layer.output_shape)
    then = Step(number=2, kind="output", inputs=(1,), shape=layer.output_shape)
    after = After(number=0, steps=(relu, then), folded=0)
    return replace(layer, after=after, input_is_nonnegative=True)


def example_rows(layer: Layer, seed: int, kinds: int = 6) -> np.ndarray:
    """`(count, m, k)` float32 rows of a few kinds with noise; no two are equal."""
    rng = np.random.default_rng(seed)
    gemm = layer.gemm
    centres = rng.standard_normal((gemm.count, kinds, gemm.k))
    rows = centres[:, rng.integers(0, kinds, gemm.m)]
    rows += 0.3 * rng.standard_normal(rows.shape)
    return rows.astype(np.float32)


def example_weights(layer: Layer, seed: int = 0) -> np.ndarray:
    """`(count, k, n)` float32."""
    gemm = layer.gemm
    return (
        np.random.default_rng(seed).standard_normal((gemm.count, gemm.k, gemm.n)).astype(np.float32)
    )


def example_state(
    policy: ReusePolicy, layer: Layer, calibration: np.ndarray | None = None
) -> LayerState:
    """What a policy learns of other rows of the same kinds, unless some are given."""
    if not policy.needs_calibration(layer):
        return {}
    rows = example_rows(layer, 99) if calibration is None else calibration
    return policy.calibrate(layer, rows, lambda: example_weights(layer))


def decide_on(
    policy: ReusePolicy, layer: Layer, rows: np.ndarray, calibration: np.ndarray | None = None
) -> Decisions | None:
    """A policy's decisions on rows that stand alone."""
    return policy.decide(layer, rows, example_state(policy, layer, calibration))
