"""Deep reuse where numba is not installed: what the compiled kernels decide, by plain operations.

It is slow: what it takes says nothing of reuse in software.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
import torch

from workloads.traces.layer import Layer
from workloads.traces.unfold import rows_of, weights_of

# As LshReuse: rows that tell how widely projections vary, and evenly spread multiples.
_SAMPLE_ROWS = 128
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class PlainConvolution:
    """A convolution reused as `LshReuse(order="channels_last")` decides, bit for bit.

    Args:
        layer: a two-dimensional convolution without groups.
        weights: `(out, in, kh, kw)` as PyTorch keeps them.
        images: `(images, channels, height, width)` float32 that `spread` thresholds are taken from.
        hashes: H, at most 40.
        length: L, at most the layer's k.
        thresholds: `zero` or `spread`.
    """

    def __init__(
        self,
        layer: Layer,
        weights: np.ndarray,
        images: np.ndarray,
        *,
        hashes: int,
        length: int,
        thresholds: str,
    ) -> None:
        self._layer, self._length = layer, length
        self._weights = torch.from_numpy(weights_of(layer, weights, order="channels_last")[0])
        rng = np.random.default_rng([0, zlib.crc32(layer.name.encode())])
        normal = rng.standard_normal((hashes, length), dtype=np.float32)
        self._planes = np.where(normal < 0, np.float32(-1), np.float32(1))
        self._thresholds = np.zeros((math.ceil(layer.gemm.k / length), hashes), np.float32)
        if thresholds == "spread":
            self._thresholds = self._spread(self._rows(images))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """The product of such images, `(images, out, height, width)` without bias, and r_c."""
        rows = self._rows(images)
        found = 0
        output = torch.zeros(rows.shape[0], self._weights.shape[1])
        for first, ids, sizes in self.clusters(rows):
            part = slice(first, first + self._length)
            members, given = torch.from_numpy(ids), torch.from_numpy(rows[:, part])
            sums = torch.zeros(len(sizes), given.shape[1]).index_add_(0, members, given)
            results = (sums / torch.from_numpy(sizes)[:, None]) @ self._weights[part]
            output += results.index_select(0, members)
            found += len(sizes)
        count, made, height, width = self._layer.output_shape
        shaped = output.reshape(count, height, width, made).permute(0, 3, 1, 2)
        return shaped.numpy(), found / (len(rows) * len(self._thresholds))

    def clusters(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each sub-matrix's first column, `(m,)` clusters of its rows, and their sizes."""
        hashes = len(self._planes)
        images = np.repeat(np.arange(self._layer.images), len(rows) // self._layer.images)
        for place, thresholds in enumerate(self._thresholds):
            first = place * self._length
            projected = np.zeros((hashes, len(rows)), np.float32)
            columns = rows.T[first : first + self._length]  # of the last there may be fewer
            # One after the other, as the kernels add: equal to the last bit.
            for column, planes in zip(columns, self._planes.T, strict=False):
                projected += planes[:, None] * column
            bits = projected > thresholds[:, None]
            keys = (images << hashes) + (1 << np.arange(hashes)) @ bits
            _, ids, sizes = np.unique(keys, return_inverse=True, return_counts=True)
            yield first, ids, sizes

    def _rows(self, images: np.ndarray) -> np.ndarray:
        """`(m, k)` with k in the order (kh, kw, channels)."""
        return rows_of(self._layer, images, order="channels_last")[0]

    def _spread(self, rows: np.ndarray) -> np.ndarray:
        """`(s, H)` thresholds about the mean, as `LshReuse` places them."""
        hashes, (sub_matrices, length) = len(self._planes), (len(self._thresholds), self._length)

        def projected(values: np.ndarray) -> np.ndarray:
            padded = np.zeros((*values.shape[:-1], sub_matrices * length), np.float32)
            padded[..., : values.shape[-1]] = values
            return padded.reshape(*values.shape[:-1], sub_matrices, length) @ self._planes.T

        mean = rows.mean(axis=0)
        kept = np.linspace(0, len(rows) - 1, _SAMPLE_ROWS).astype(np.int64)
        distances = projected(rows[kept] - mean)
        deviation = np.sqrt(np.square(distances, dtype=np.float64).mean(axis=0))
        places = 2 * ((np.arange(hashes) + 0.5) * _GOLDEN_RATIO % 1) - 1
        return projected(mean) + (deviation * places).astype(np.float32)
