"""A layer's input under reuse, as operations of PyTorch on the device where its tensors are.

A product under reuse whose vectors are whole pixels (or rows) equals the layer's own operation on
an input in which each sub-vector is replaced by what stands for its cluster. So deciding is all
that is left to do here: group, average, replace. Padding stays zeros. No step waits for the device
or moves a tensor off it, but where PyTorch counts the distinct signatures.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulator.policies.clustering import Clustering, SignatureClustering
from simulator.policies.leaders import LeaderClustering
from simulator.policies.neighbours import NeighbourClustering
from simulator.running.on_device.leaders import LeaderGrouping
from simulator.running.on_device.neighbours import NeighbourGrouping
from simulator.running.on_device.signatures import FollowedThresholds, SignatureGrouping
from simulator.running.on_device.vectors import Grouping, Vectors, vectors_of
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Replaced:
    """A layer's input under reuse.

    Attributes:
        values: of the input's shape, type and device.
        ids: `(vectors, count x segments)` int64, the cluster of each sub-vector, numbered through
            all clusters in no order and with gaps; vectors are those of `DeviceClustering.pixels`.
        kept_elements: int64 scalar on the device, |X_c|, elements of new centroids, each counted
            for all taps that meet it.
        is_finite: bool scalar on the device, whether activations are.
    """

    values: Tensor
    ids: Tensor
    kept_elements: Tensor
    is_finite: Tensor


def is_on_device(clustering: Clustering, layer: Layer, device: torch.device) -> bool:
    """Whether operations of PyTorch on a device cluster a layer, not compiled loops on the CPU.

    What stands for a cluster must stand for pixels of the layer's input, or for its rows. Leaders
    and neighbours of tensors on the CPU are left to the loops, which are faster there.
    """
    match clustering:
        case SignatureClustering():
            fits = clustering.representative == "centroid"
        case LeaderClustering() | NeighbourClustering():
            fits = device.type != "cpu"
        case _:
            fits = False
    return fits and has_vectors_as_input(clustering, layer)


def has_vectors_as_input(clustering: Clustering, layer: Layer) -> bool:
    """Whether a layer's vectors are pixels of its input or its rows, and in floating point."""
    if layer.quantisation is not None:
        return False
    if layer.kind != "conv" or layer.convolution is None or clustering.looks.taps > 1:
        return True
    # Rows of a single tap are pixels, unless some lie in the padding, which is no input.
    return clustering.looks.gemm.k * layer.convolution.groups == layer.input_shape[1] and not any(
        layer.convolution.padding
    )


class DeviceClustering:
    """Replaces a layer's input by what stands for its clusters.

    Args:
        layer: one that `has_vectors_as_input`.
        clustering: how its vectors are clustered: by signatures, leaders or neighbours.
        device: where its tensors are.

    Attributes:
        pixels: `(vectors,)` int64, the pixels (or rows) of the input that are looked at; `None`
            for all of them.
    """

    def __init__(self, layer: Layer, clustering: Clustering, device: torch.device) -> None:
        looks = clustering.looks
        self._layer, self._looks = layer, looks
        self._count, kinds = looks.gemm.count, looks.taps_of_kind.size
        self._first_only = clustering.representative == "first"
        vectors = vectors_of(layer, clustering)
        whole = np.array_equal(vectors.numbers, np.arange(_pixels(layer)))
        self.pixels = None if whole else torch.from_numpy(vectors.numbers).to(device)
        # Of each key, what one cluster of it costs: its elements, for every tap that meets it.
        views = (looks.widths * looks.taps_of_view).reshape(kinds, looks.segments)
        costs = np.repeat(np.tile(views.T, (self._count, 1)), looks.tiles, axis=1)
        self._costs = torch.from_numpy(costs.ravel()).to(device)
        self._grouping = _grouping(vectors, clustering, device)

    @property
    def follows(self) -> bool:
        """Whether its thresholds can follow the activations."""
        return isinstance(self._grouping, SignatureGrouping) and self._grouping.follows

    def take_in(self, given: Tensor, followed: FollowedThresholds | None) -> FollowedThresholds:
        """Running estimates with the layer's input taken in; new ones of `None`.

        Args:
            given: `GemmCall.input` of the layer.
            followed: what earlier inputs left.
        """
        assert isinstance(self._grouping, SignatureGrouping)
        with torch.no_grad(), torch.autocast(given.device.type, enabled=False):
            return self._grouping.take_in(self._vectors(self._vectors_last(given)), followed)

    def follow(self, followed: FollowedThresholds) -> Tensor:
        """Cluster by the thresholds of running estimates from now on.

        Returns:
            These thresholds, `(count, v, H)` float32.
        """
        assert isinstance(self._grouping, SignatureGrouping)
        return self._grouping.follow(followed)

    def replaced(self, given: Tensor) -> Replaced:
        """Cluster the layer's input.

        Decisions and means are in float32, also of halves under `torch.autocast`.

        Args:
            given: `GemmCall.input` of the layer.
        """
        with torch.no_grad(), torch.autocast(given.device.type, enabled=False):
            whole = self._vectors_last(given)
            cut = self._vectors(whole)
            made = self._grouping.grouped(cut)
            flat = cut.flatten(0, 1)
            if self._first_only:
                assert made.has_first_ids
                standing, is_finite = flat, cut.sum().isfinite()
            else:
                standing = flat.new_zeros(len(made.keys), flat.shape[1])
                standing.index_add_(0, made.ids, flat).div_(made.sizes.clamp(min=1)[:, None])
                is_finite = standing.sum().isfinite()
            found = standing.index_select(0, made.ids).view(len(cut), self._count, -1)
            found = found[..., : self._width].flatten(1).to(given.dtype)
            if self.pixels is not None:
                found = whole.to(given.dtype).index_copy(0, self.pixels, found)
            return Replaced(
                values=self._as_given(found, given),
                ids=made.ids.view(len(cut), -1),
                kept_elements=(self._costs[made.keys] * (made.sizes > 0)).sum(),
                is_finite=is_finite,
            )

    @property
    def _width(self) -> int:
        """Elements of a pixel or row in one GEMM."""
        return self._looks.gemm.k // self._looks.taps

    def _vectors(self, whole: Tensor) -> Tensor:
        """`(vectors, count x segments, L)` float32 of all pixels."""
        return self._cut(whole if self.pixels is None else whole[self.pixels])

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


def _grouping(vectors: Vectors, clustering: Clustering, device: torch.device) -> Grouping:
    """What finds the clusters on a device."""
    match clustering:
        case SignatureClustering():
            return SignatureGrouping(vectors, clustering, device)
        case LeaderClustering():
            return LeaderGrouping(vectors, clustering, device)
        case NeighbourClustering():
            return NeighbourGrouping(vectors, clustering, device)
        case _:
            raise TypeError(f"no grouping by {type(clustering).__name__} on a device is known")


def _is_map(layer: Layer) -> bool:
    """Whether the layer's input lies as `(images, channels, *size)`."""
    return layer.convolution is not None


def _pixels(layer: Layer) -> int:
    """Pixels of the layer's input, or its rows."""
    if not _is_map(layer):
        return layer.gemm.m
    return layer.input_shape[0] * int(np.prod(layer.input_shape[2:], dtype=np.int64))


def _memory_format(given: Tensor) -> torch.memory_format:
    """The order in which an operation on such a tensor expects it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = formats.get(given.ndim)
    if last is not None and given.is_contiguous(memory_format=last) and not given.is_contiguous():
        return last
    return torch.contiguous_format
