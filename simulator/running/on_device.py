"""Clusters and their means as operations of PyTorch, on the device where a layer's tensors are.

A product under reuse whose vectors are whole pixels (or rows) equals the layer's own operation on
an input in which each sub-vector is replaced by the mean of its cluster. So deciding is all that
is left to do here: hash, number, average, replace. Padding stays zeros.
"""

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from simulator.policies.activations import non_finite
from simulator.policies.clustering import Clustering, SignatureClustering
from simulator.policies.looking import pixel_numbers
from workloads.traces.layer import Layer

# Bits that a sum of powers of two holds exactly in float32.
_EXACT_BITS = 24
_KEY_BITS = 63


@dataclass(frozen=True, kw_only=True, eq=False)
class Replaced:
    """A layer's input under reuse.

    Attributes:
        values: of the input's shape, type and device.
        ids: `(vectors, count x segments)` int64, the cluster of each sub-vector, numbered through
            all clusters in no order; vectors are those of `DeviceClustering.pixels`.
        kept_elements: |X_c|, elements of new centroids, each counted for all taps that meet it.
    """

    values: Tensor
    ids: Tensor
    kept_elements: int


def is_on_device(clustering: Clustering, layer: Layer) -> TypeGuard[SignatureClustering]:
    """Whether means of equal signatures stand for pixels of the layer's input, or for its rows."""
    hashed = isinstance(clustering, SignatureClustering)
    if not hashed or clustering.representative != "centroid" or layer.quantisation is not None:
        return False
    if layer.kind != "conv" or layer.convolution is None or clustering.looks.taps > 1:
        return True
    # Rows of a single tap are pixels, unless some lie in the padding, which is no input.
    return clustering.looks.gemm.k * layer.convolution.groups == layer.input_shape[1] and not any(
        layer.convolution.padding
    )


class DeviceClustering:
    """Replaces a layer's input by the means of clusters of equal signatures.

    Args:
        layer: one that `is_on_device`.
        clustering: how its vectors are clustered.
        device: where its tensors are.

    Attributes:
        pixels: `(vectors,)` int64, the pixels (or rows) of the input that are looked at; `None`
            for all of them.
    """

    def __init__(self, layer: Layer, clustering: SignatureClustering, device: torch.device) -> None:
        looks = clustering.looks
        self._layer, self._looks = layer, looks
        self._count, self._kinds = looks.gemm.count, looks.taps_of_kind.size
        numbers, groups = _groups(layer, clustering)
        whole = np.array_equal(numbers, np.arange(_pixels(layer)))
        self.pixels = None if whole else torch.from_numpy(numbers).to(device)
        sub_matrices, own = self._count * looks.segments, looks.tiles * self._kinds
        keys = groups[:, None] + own * np.arange(sub_matrices)
        # Where key and signature fit into one number, they are told apart in one pass.
        key_bits = int(own * sub_matrices - 1).bit_length()
        self._fits = clustering.hashes + key_bits <= _KEY_BITS
        self._keys = torch.from_numpy(keys << clustering.hashes * self._fits).to(device)
        # Of each key, what one cluster of it costs: its elements, for every tap that meets it.
        views = (looks.widths * looks.taps_of_view).reshape(self._kinds, looks.segments)
        costs = np.repeat(np.tile(views.T, (self._count, 1)), looks.tiles, axis=1)
        self._costs = torch.from_numpy(costs.ravel()).to(device)
        self._kind_of: Tensor | None = None
        by_kind = clustering.thresholds.reshape(self._count, self._kinds, looks.segments, -1)
        thresholds = np.moveaxis(by_kind, 1, 0).reshape(self._kinds, sub_matrices, -1)
        if self._kinds > 1:
            self._kind_of = torch.from_numpy(groups // looks.tiles).to(device)
        self._thresholds = torch.from_numpy(np.ascontiguousarray(thresholds)).to(device)
        self._planes = torch.from_numpy(clustering.hyperplanes.T.copy()).to(device)
        self._hashes = clustering.hashes
        places = np.arange(self._hashes)
        powers = np.zeros((self._hashes, -(-self._hashes // _EXACT_BITS)), np.float32)
        powers[places, places // _EXACT_BITS] = 2.0 ** (places % _EXACT_BITS)
        self._powers = torch.from_numpy(powers).to(device)

    def replaced(self, given: Tensor) -> Replaced:
        """Cluster the layer's input.

        Hashing and means are in float32, also of halves under `torch.autocast`.

        Args:
            given: `GemmCall.input` of the layer.

        Raises:
            ConfigError: activations are NaN or infinite.
        """
        with torch.no_grad(), torch.autocast(given.device.type, enabled=False):
            whole = self._vectors_last(given)
            vectors = whole if self.pixels is None else whole[self.pixels]
            cut = self._cut(vectors)
            distinct, ids, sizes = self._grouped(cut)
            means = cut.new_zeros(len(distinct), cut.shape[2])
            means.index_add_(0, ids, cut.flatten(0, 1)).div_(sizes[:, None])
            if not bool(means.sum().isfinite()):
                raise non_finite(self._layer)
            found = means.index_select(0, ids).view(len(cut), self._count, -1)
            found = found[..., : self._width].flatten(1).to(given.dtype)
            if self.pixels is not None:
                found = whole.to(given.dtype).index_copy(0, self.pixels, found)
            return Replaced(
                values=self._as_given(found, given),
                ids=ids.view(len(cut), -1),
                kept_elements=int(self._costs[distinct].sum()),
            )

    @property
    def _width(self) -> int:
        """Elements of a pixel or row in one GEMM."""
        return self._looks.gemm.k // self._looks.taps

    def _vectors_last(self, given: Tensor) -> Tensor:
        """`(pixels, count x width)` float32."""
        last = given.movedim(1, -1) if _is_map(self._layer) else given.movedim(0, -2)
        return last.reshape(-1, self._count * self._width).float()

    def _as_given(self, found: Tensor, given: Tensor) -> Tensor:
        """Undo `_vectors_last`, in the memory order of `given`."""
        if _is_map(self._layer):
            return (
                found.view(len(given), *given.shape[2:], -1)
                .movedim(-1, 1)
                .contiguous(memory_format=_memory_format(given))
            )
        return found.view(-1, self._count, self._width).movedim(1, 0)

    def _cut(self, vectors: Tensor) -> Tensor:
        """`(vectors, count x segments, L)` float32, zeros beyond a short sub-vector."""
        segments, length = self._looks.segments, self._looks.sub_vector_length
        missing = segments * length - self._width
        if missing:
            vectors = vectors.view(len(vectors), self._count, -1)
            vectors = torch.nn.functional.pad(vectors, (0, missing))
        return vectors.reshape(len(vectors), self._count * segments, length)

    def _grouped(self, cut: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each cluster its key, `(vectors x count x segments,)` int64 clusters, and sizes."""
        limits = self._thresholds[0] if self._kind_of is None else self._thresholds[self._kind_of]
        bits = (cut @ self._planes).gt_(limits)  # 0 or 1
        parts = (bits @ self._powers).long().unbind(-1)
        signatures = parts[0]
        for place, part in enumerate(parts[1:], 1):
            signatures = signatures + (part << place * _EXACT_BITS)
        width = self._hashes
        keys = self._keys
        if not self._fits:
            # Numbers of the distinct ones are short.
            distinct, signatures = torch.unique(signatures, return_inverse=True)
            width = len(distinct).bit_length()
            keys = keys << width
        found, ids, sizes = torch.unique(
            (keys + signatures).flatten(), return_inverse=True, return_counts=True
        )
        return found >> width, ids, sizes


def _is_map(layer: Layer) -> bool:
    """Whether the layer's input lies as `(images, channels, *size)`."""
    return layer.convolution is not None


def _pixels(layer: Layer) -> int:
    """Pixels of the layer's input, or its rows."""
    if not _is_map(layer):
        return layer.gemm.m
    return layer.input_shape[0] * int(np.prod(layer.input_shape[2:], dtype=np.int64))


def _groups(layer: Layer, clustering: SignatureClustering) -> tuple[np.ndarray, np.ndarray]:
    """`(vectors,)` int64 pixels that are looked at, ascending, and the kind and tile of each."""
    looks = clustering.looks
    if layer.kind == "conv" and _is_map(layer):
        numbers = pixel_numbers(layer)
    else:
        numbers = [np.arange(looks.gemm.m)]
    tiles = looks.tile_numbers
    group_of = np.full(_pixels(layer), -1, np.int64)
    for kind, (own, of) in enumerate(zip(numbers, tiles, strict=True)):
        met = of >= 0
        group_of[own[met]] = kind * looks.tiles + of[met]
    seen = np.flatnonzero(group_of >= 0)
    return seen, group_of[seen]


def _memory_format(given: Tensor) -> torch.memory_format:
    """The order in which an operation on such a tensor expects it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = formats.get(given.ndim)
    if last is not None and given.is_contiguous(memory_format=last) and not given.is_contiguous():
        return last
    return torch.contiguous_format
