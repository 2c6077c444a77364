"""Deep reuse in software: a convolution on a CPU that computes each cluster's result once.

End to end: padding, hashing, clustering, centroid products and reconstruction, under the decisions
that the functional path makes of the same activations. Nothing is unfolded where sub-vectors lie
together in memory: with rows in the order (kh, kw, c) a kernel row's `kw * c` values are contiguous
in a channels-last feature map, and so is every sub-vector whose length divides that. A sub-vector
of the feature map is then hashed once for all kernel rows that meet it.
"""

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from accelerators import ConfigError
from simulator.reuse.kernels import (
    PATCH_BLOCK,
    Patches,
    cluster_patches,
    gather_add,
    lane_thresholds,
    lane_weights,
    new_tables,
)
from simulator.reuse.lanes import LANES, aligned_empty, padded
from simulator.reuse.lsh import LshReuse
from simulator.reuse.policy import LayerState
from workloads.gemm import Layer
from workloads.unfold import unfold, weights_of

# Sub-matrices taken together: their tables and centroid results share the second-level cache.
_TOGETHER = 24
STEPS = ("unfold", "cluster", "multiply", "rebuild")


@dataclass(frozen=True, kw_only=True)
class SoftwareRun:
    """What a reused convolution computed, and how long it took.

    Attributes:
        output: `(images, n, height, width)` float32, channels last in memory, without bias.
        remaining_ratio: r_c, clusters over sub-vectors.
        seconds: step of `STEPS` -> time of it, summed over threads. `unfold` is padding and the
            change to channels last (real unfolding where sub-vectors are not contiguous),
            `cluster` is hashing, looking up and averaging, `multiply` centroids times weights,
            `rebuild` gathering and adding.
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
        policy: the policy, in the order `channels_last`; its scope is `image` or `batch`.
        state: what `policy.calibrate` returned for the layer.

    Raises:
        ConfigError: the layer is no two-dimensional convolution, or the policy does not fit it.
    """

    def __init__(
        self, layer: Layer, weights: np.ndarray, policy: LshReuse, state: LayerState
    ) -> None:
        geometry = layer.convolution
        if layer.kind != "conv" or geometry is None or len(geometry.kernel) != 2:
            raise ConfigError(
                f"ReusedConvolution.layer must be a two-dimensional convolution, got "
                f"{layer.name!r} of kind {layer.kind!r}; use ReusePolicy.decide and its product"
            )
        _check_policy(policy)
        policy.check_layers([layer])
        self.layer, self.policy = layer, policy
        self._geometry = geometry
        gemm, length = layer.gemm, policy.length_in(layer)
        self._length, self._sub_matrices = length, policy.sub_matrices_in(layer)
        projections, thresholds = policy.hashing(layer, state)
        self._projections, self._thresholds = lane_weights(projections), lane_thresholds(thresholds)
        # Zero rows fill up a short last sub-vector, zero columns a vector of results.
        wide = aligned_empty((gemm.count, self._sub_matrices * length, padded(gemm.n)))
        wide[:] = 0
        wide[:, : gemm.k, : gemm.n] = weights_of(layer, weights, order="channels_last")
        self._weights = wide.reshape(gemm.count, self._sub_matrices, length, -1)
        channels = layer.input_shape[1] // geometry.groups
        row = geometry.kernel[1] * channels
        self._in_place = row % length == 0 and geometry.dilation[1] == 1
        self._groups = layer.row_images if policy.scope == "image" else 1

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
        with _one_blas_thread(), ThreadPoolExecutor(threads) as pool:
            for index in range(gemm.count):
                start = time.perf_counter()
                values, patches, starts = self._lay_out(images, index)
                seconds["unfold"] += time.perf_counter() - start
                parts = np.array_split(np.arange(len(starts)), min(threads, len(starts)))
                work = [(index, values, patches, starts, part) for part in parts]
                if len(work) == 1:
                    done = [self._share(*work[0])]
                else:
                    done = list(pool.map(lambda arguments: self._share(*arguments), work))
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

    def _lay_out(self, images: np.ndarray, index: int) -> tuple[np.ndarray, Patches, np.ndarray]:
        """Flat values of one group of channels, and where its sub-vectors lie in them."""
        geometry, length = self._geometry, self._length
        (kernel_rows, _), (down, across) = geometry.kernel, geometry.stride
        _, _, height, width = self.layer.output_shape
        channels = self.layer.input_shape[1] // geometry.groups
        chosen = images[:, index * channels : (index + 1) * channels]
        if self._in_place:
            count, _, rows, columns = chosen.shape
            top, left = geometry.padding
            grown = (count, rows + 2 * top, columns + 2 * left, channels)
            values, laid = _with_room(grown)
            laid[:, :top], laid[:, top + rows :] = 0, 0
            laid[:, :, :left], laid[:, :, left + columns :] = 0, 0
            laid[:, top : top + rows, left : left + columns] = chosen.transpose(0, 2, 3, 1)
            patches = Patches(
                count, grown[1], grown[2] * channels, across * channels, kernel_rows, down,
                geometry.dilation[0], height, width,
            )  # fmt: skip
        else:  # each group of rows is an image of one line
            unfolded = unfold(chosen, replace(geometry, groups=1), order="channels_last")[0]
            step = self._sub_matrices * length
            values, laid = _with_room((len(unfolded), step))
            laid[:, : unfolded.shape[1]], laid[:, unfolded.shape[1] :] = unfolded, 0
            line = len(unfolded) // self._groups
            patches = Patches(self._groups, 1, line * step, step, 1, 1, 1, 1, line)
        starts = np.arange(self._sub_matrices // patches.kernel_rows, dtype=np.int64) * length
        return values, patches, starts

    def _share(
        self, index: int, values: np.ndarray, patches: Patches, starts: np.ndarray, part: np.ndarray
    ) -> tuple[np.ndarray, int, dict[str, float]]:
        """The `(m, n padded)` part of the output that some of the sub-vectors `starts` add."""
        gemm, length, taps = self.layer.gemm, self._length, patches.kernel_rows
        rows, hashes = gemm.m // self._groups, self.policy.hashes
        at_once = min(len(part), max(1, _TOGETHER // taps))
        tables = new_tables(taps * at_once, rows, hashes)
        capacity = self._groups * tables.signatures.shape[1]
        sums = aligned_empty((taps * at_once, capacity, padded(length)))
        ids = np.empty((taps * at_once, gemm.m), np.int32)
        clusters = np.empty((taps * at_once, self._groups), np.int32)
        scratch = aligned_empty((PATCH_BLOCK, self._projections.shape[1] + padded(length))).ravel()
        wide = self._weights.shape[-1]
        results = aligned_empty((0, wide))
        times = dict.fromkeys(STEPS, 0.0)
        start = time.perf_counter()
        output = aligned_empty((gemm.m, wide))
        output[:] = 0
        times["rebuild"] += time.perf_counter() - start
        generation, found = 0, 0
        for first in range(0, len(part), at_once):
            chosen = part[first : first + at_once]
            count = taps * len(chosen)
            # Sub-matrices in the order (kernel row, start), as the kernel numbers its tables.
            numbers = (np.arange(taps)[:, None] * len(starts) + chosen).ravel()
            clock = [time.perf_counter()]
            generation = cluster_patches(
                values, patches, starts[chosen], length, self._groups, self._projections,
                self._thresholds[index, numbers], tables, generation, scratch, sums[:count],
                ids[:count], clusters[:count],
            )  # fmt: skip
            clock.append(time.perf_counter())
            sizes = clusters[:count].sum(axis=1, dtype=np.int64)
            bounds = np.concatenate([[0], np.cumsum(sizes)])
            if len(results) < bounds[-1]:
                results = aligned_empty((int(bounds[-1]), wide))
            for table, number in enumerate(numbers):
                np.matmul(
                    sums[table, : sizes[table], :length],
                    self._weights[index, number],
                    out=results[bounds[table] : bounds[table + 1]],
                )
            self._check_finite(results[: bounds[-1], 0])
            clock.append(time.perf_counter())
            begins = bounds[:-1, None] + np.cumsum(clusters[:count], axis=1) - clusters[:count]
            gather_add(results, begins, ids[:count], output)
            clock.append(time.perf_counter())
            for step, taken in zip(STEPS[1:], np.diff(clock), strict=True):
                times[step] += float(taken)
            found += int(bounds[-1])
        return output, found, times

    def _check_finite(self, results: np.ndarray) -> None:
        """A NaN or infinite element spoils every result of its cluster."""
        if not np.isfinite(results).all():
            raise ConfigError(
                f"activations and weights of layer {self.layer.name!r} must be finite, got NaN or "
                "infinity; check the model's weights and inputs"
            )


def _with_room(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A flat array with a vector to spare, which kernels may read beyond the end, and its view."""
    size = math.prod(shape)
    flat = aligned_empty((size + LANES,))
    flat[size:] = 0
    return flat, flat[:size].reshape(shape)


def _check_policy(policy: LshReuse) -> None:
    """Only signatures, within an image or a batch, and means are in the kernels."""
    wanted = {
        "order": ("channels_last",),
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


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Products are small, and threads share them out themselves."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield
