"""Which of a layer's vectors may share a cluster, and the clusters that were found of them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from simulator.decisions.looks import Looks
from simulator.policies.clustering import Clustering
from simulator.policies.looking import pixel_numbers
from workloads.traces.layer import Layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """A layer's vectors in the order of its pixels (or rows), each in one group.

    Attributes:
        looks: how the layer's vectors are looked at.
        numbers: `(vectors,)` int64, the pixels that are looked at, ascending.
        kinds: `(vectors,)` int64, the kind of taps that meets each.
        places: `(vectors,)` int64, the place of each among those of its kind, see `Looks`.
        tiles: `(vectors,)` int64.
    """

    looks: Looks
    numbers: np.ndarray
    kinds: np.ndarray
    places: np.ndarray
    tiles: np.ndarray

    @property
    def sub_matrices(self) -> int:
        """Segments of all GEMMs, each clustered on its own."""
        return self.looks.gemm.count * self.looks.segments

    @property
    def group_count(self) -> int:
        """Tiles of all kinds."""
        return self.looks.tiles * self.looks.taps_of_kind.size

    @property
    def groups(self) -> np.ndarray:
        """`(vectors,)` int64: vectors of one group may share a cluster."""
        return self.kinds * self.looks.tiles + self.tiles

    @property
    def keys(self) -> np.ndarray:
        """`(vectors, sub-matrices)` int64, the group of each sub-vector through all of them."""
        return self.groups[:, None] + self.group_count * np.arange(self.sub_matrices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouped:
    """Clusters of sub-vectors.

    Attributes:
        ids: `(vectors x sub-matrices,)` int64, the cluster of each sub-vector.
        keys: `(clusters,)` int64, see `Vectors.keys`.
        sizes: `(clusters,)` float32, members; 0 of numbers that no cluster has.
        has_first_ids: whether each id is the number of the cluster's first sub-vector.
    """

    ids: Tensor
    keys: Tensor
    sizes: Tensor
    has_first_ids: bool = False


class Grouping(Protocol):
    """Finds the clusters of a layer's sub-vectors."""

    def grouped(self, cut: Tensor) -> Grouped:
        """Cluster `(vectors, sub-matrices, L)` float32, zeros beyond a short sub-vector."""


def vectors_of(layer: Layer, clustering: Clustering) -> Vectors:
    """The vectors that a clustering looks at, of a layer whose vectors are its pixels or rows."""
    looks = clustering.looks
    if layer.kind == "conv" and layer.convolution is not None:
        numbers = pixel_numbers(layer)
    else:
        numbers = [np.arange(looks.gemm.m)]
    kinds = np.repeat(np.arange(len(numbers)), [each.size for each in numbers])
    places = np.concatenate([np.arange(each.size) for each in numbers])
    tiles = np.concatenate(list(looks.tile_numbers)).astype(np.int64)
    every = np.concatenate(numbers)
    met = np.flatnonzero(tiles >= 0)
    order = met[np.argsort(every[met], kind="stable")]
    return Vectors(
        looks=looks,
        numbers=every[order],
        kinds=kinds[order],
        places=places[order],
        tiles=tiles[order],
    )
