"""Deep reuse in software: a convolution on a CPU that computes each cluster's result once.

End to end: padding, hashing, clustering, centroid products and reconstruction, under the decisions
that the functional path makes of the same activations. Nothing is unfolded, and sub-vectors that
several kernel rows meet are hashed once for all of them.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from accelerators import ConfigError
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


class ReusedConvolution:
    """One convolution under `LshReuse`, its weights laid out beforehand.

    Decisions are those that the policy makes.

    Args:
        layer: a two-dimensional convolution; its batch is what `run` takes.
        weights: `(out, in / groups, kh, kw)` as PyTorch keeps them.
        policy: the policy; its scope is `image` or `batch`.
        state: what `policy.calibrate` returned for the layer.

    Raises:
        ConfigError: the layer is no two-dimensional convolution, or the policy does not fit it.
    """

    def __init__(
        self, layer: Layer, weights: np.ndarray, policy: LshReuse, state: LayerState
    ) -> None:
        if not is_laid_out(layer):
            raise ConfigError(
                f"ReusedConvolution.layer must be a two-dimensional convolution, got "
                f"{layer.name!r} of kind {layer.kind!r}; use ReusePolicy.decide and its product"
            )
        _check_policy(policy)
        policy.check_layers([layer])
        self.layer, self.policy = layer, policy
        self._length = policy.length_in(layer)
        self._sub_matrices = policy.sub_matrices_in(layer)
        self._projections, self._thresholds = policy.hashing(layer, state)
        self._order = policy.column_order(layer)
        self._weights = [lane_columns(each, self._order) for each in weights_of(layer, weights)]
        self._groups = policy.groups_in(layer)

    def run(self, images: np.ndarray, *, threads: int = 1) -> SoftwareRun:
        """Convolve `(images, channels, height, width)` float32 feature maps of the layer's shape.

        Args:
            images: the feature maps, in any memory order.
            threads: threads that share the work, at least 1. More add up in another order.

        Raises:
            ConfigError: the feature maps have another shape, or are not finite.
        """
        if tuple(images.shape) != self.layer.input_shape:
            raise ConfigError(
                f"ReusedConvolution.run images of layer {self.layer.name!r} must have shape "
                f"{self.layer.input_shape}, got {tuple(images.shape)}; build it for this batch"
            )
        gemm = self.layer.gemm
        outputs = []
        seconds = dict.fromkeys(STEPS, 0.0)
        clusters = 0
        start = time.perf_counter()
        laid = lay_out(self.layer, images)
        seconds["pad"] = time.perf_counter() - start
        with ThreadPoolExecutor(threads) as pool:
            for index in range(gemm.count):
                families = families_of(self.layer, self._length, self._order, index)
                shares = list(shared_out(families, threads))
                done = list(pool.map(partial(self._share, laid, index), shares))
                total = done[0][0]
                for other, _, _ in done[1:]:
                    total += other
                outputs.append(total[:, : gemm.n])
                for _, found, times in done:
                    clusters += found
                    for step, taken in times.items():
                        seconds[step] += taken
        _, made, height, width = self.layer.output_shape
        output = outputs[0] if gemm.count == 1 else np.concatenate(outputs, axis=1)
        shaped = output.reshape(-1, height, width, made).transpose(0, 3, 1, 2)
        sub_vectors = gemm.count * gemm.m * self._sub_matrices
        return SoftwareRun(output=shaped, remaining_ratio=clusters / sub_vectors, seconds=seconds)

    def _share(
        self, laid: FeatureMap, index: int, families: Families
    ) -> tuple[np.ndarray, int, dict[str, float]]:
        """The `(m, n padded)` part of the output that some families add."""
        seconds = np.zeros(3)
        output = new_output(self.layer, self._weights[index])
        found = sum(
            int(some.clusters.sum(dtype=np.int64))
            for some in reused(
                self.layer,
                laid,
                families,
                self._groups,
                (self._projections, self._thresholds[index]),
                columns=self._weights[index],
                output=output,
                seconds=seconds,
            )
        )
        return output, found, dict(zip(STEPS[1:], seconds.tolist(), strict=True))


def _check_policy(policy: LshReuse) -> None:
    """Only signatures, within an image or a batch, and means are in the kernels."""
    wanted = {
        "scope": ("image", "batch"),
        "metric": ("angular",),
        "representative": ("centroid",),
        "normalised": (False,),
    }
    broken = [
        f"ReusedConvolution.policy must have {name}={' or '.join(map(repr, allowed))}, got "
        f"{getattr(policy, name)!r}; use decide() for what this convolution cannot run"
        for name, allowed in wanted.items()
        if getattr(policy, name) not in allowed
    ]
    if broken:
        raise ConfigError(broken)
