"""Deep reuse in software: a convolution on a CPU that computes each cluster's result once.

End to end: padding, hashing, clustering, centroid products and reconstruction, under the decisions
that the functional path makes of the same activations. Nothing is unfolded, and sub-vectors that
several kernel rows meet are hashed once for all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse
from simulator.kernels.feature_maps import (
    FeatureMap,
    families_of,
    is_laid_out,
    lane_columns,
    lay_out,
    new_output,
    reused,
    shared_out,
)
from simulator.kernels.fused import Families
from simulator.policies.lsh import LshReuse
from simulator.policies.policy import LayerState
from workloads.traces.layer import Layer
from workloads.traces.unfold import weights_of

STEPS = ("pad", "cluster", "multiply", "rebuild")


@dataclass(frozen=True, kw_only=True)
class SoftwareRun:
    """What a reused convolution computed, and how long it took.

    Attributes:
        output: `(images, n, height, width)` float32, channels last in memory, without bias.
        remaining_ratio: r_c, clusters over sub-vectors.
        seconds: step of `STEPS` -> time of it, summed over threads. `pad` lays the feature maps
            out, `cluster` is hashing, looking up and averaging, `multiply` centroids times
            weights, `rebuild` gathering and adding.
    """

    output: np.ndarray
    remaining_ratio: float
    seconds: Mapping[str, float]


Run = Callable[..., SoftwareRun]
"""From `(images, channels, height, width)` float32 feature maps of the layer's shape, in any memory
order, and `threads=`, 1 or more, which share the work and add up in another order. Feature maps of
another shape, or that are not finite, are a `ConfigError`."""


def reused_convolution(
    layer: Layer, weights: np.ndarray, policy: LshReuse, state: LayerState
) -> Run:
    """Prepare a convolution whose product is reused as the policy decides.

    Args:
        layer: a two-dimensional convolution; its batch is what a run takes.
        weights: `(out, in / groups, kh, kw)` as PyTorch keeps them; they are laid out again.
        policy: the policy; its scope is `image` or `batch`.
        state: what `policy.calibrate` returned for the layer.

    Raises:
        ConfigError: the layer is no two-dimensional convolution, or the policy does not fit it.
    """
    if not is_laid_out(layer):
        raise ConfigError(
            f"reused_convolution layer must be a two-dimensional convolution, got {layer.name!r} "
            f"of kind {layer.kind!r}; use ReusePolicy.decide and its product"
        )
    _check_policy(policy)
    policy.check_layers([layer])
    order = policy.column_order(layer)
    columns = [lane_columns(each, order) for each in weights_of(layer, weights)]
    return partial(_run, layer, policy, policy.hashing(layer, state), columns)


def _run(
    layer: Layer,
    policy: LshReuse,
    hashing: tuple[np.ndarray, np.ndarray],
    columns: Sequence[np.ndarray],
    images: np.ndarray,
    *,
    threads: int = 1,
) -> SoftwareRun:
    """One run, see `Run`."""
    if tuple(images.shape) != layer.input_shape:
        raise ConfigError(
            f"reused_convolution images of layer {layer.name!r} must have shape "
            f"{layer.input_shape}, got {tuple(images.shape)}; build it for this batch"
        )
    gemm, (projections, thresholds) = layer.gemm, hashing
    outputs = []
    seconds = dict.fromkeys(STEPS, 0.0)
    clusters = 0
    start = time.perf_counter()
    laid = lay_out(layer, images)
    seconds["pad"] = time.perf_counter() - start
    with ThreadPoolExecutor(threads) as pool:
        for index, limits in enumerate(thresholds):
            share = partial(
                _share, layer, policy.groups_in(layer), laid, (projections, limits), columns[index]
            )
            done = list(
                pool.map(
                    share,
                    shared_out(
                        families_of(
                            layer, policy.length_in(layer), policy.column_order(layer), index
                        ),
                        threads,
                    ),
                )
            )
            total = done[0][0]
            for other, _, _ in done[1:]:
                total += other
            outputs.append(total[:, : gemm.n])
            for _, found, times in done:
                clusters += found
                for step, taken in times.items():
                    seconds[step] += taken
    _, made, height, width = layer.output_shape
    output = outputs[0] if gemm.count == 1 else np.concatenate(outputs, axis=1)
    shaped = output.reshape(-1, height, width, made).transpose(0, 3, 1, 2)
    sub_vectors = gemm.count * gemm.m * policy.sub_matrices_in(layer)
    return SoftwareRun(output=shaped, remaining_ratio=clusters / sub_vectors, seconds=seconds)


def _share(
    layer: Layer,
    groups: int,
    laid: FeatureMap,
    hashing: tuple[np.ndarray, np.ndarray],
    columns: np.ndarray,
    families: Families,
) -> tuple[np.ndarray, int, dict[str, float]]:
    """The `(m, n padded)` part of the output that some families add, their clusters, and laps."""
    seconds = np.zeros(3)
    output = new_output(layer, columns)
    made = reused(
        layer, laid, families, groups, hashing, columns=columns, output=output, seconds=seconds
    )
    found = sum(int(some.clusters.sum(dtype=np.int64)) for some in made)
    return output, found, dict(zip(STEPS[1:], seconds.tolist(), strict=True))


def _check_policy(policy: LshReuse) -> None:
    """Only signatures, within an image or a batch, and means are in the kernels."""
    wanted = {
        "scope": ("image", "batch"),
        "metric": ("angular",),
        "representative": ("centroid",),
        "normalised": (False,),
        "look_once": (False,),
    }
    broken = [
        f"reused_convolution policy must have {name}={' or '.join(map(repr, allowed))}, got "
        f"{getattr(policy, name)!r}; use decide() for what this convolution cannot run"
        for name, allowed in wanted.items()
        if getattr(policy, name) not in allowed
    ]
    refuse(broken)
