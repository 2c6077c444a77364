"""Pointers to the most similar of earlier neighbours, on any device, all vectors at once."""

import numpy as np
import torch
from torch import Tensor

from simulator.policies.neighbours import NeighbourClustering
from simulator.running.on_device.roots import Roots
from simulator.running.on_device.vectors import Grouped, Vectors


class NeighbourGrouping:
    """Points each sub-vector to a neighbour that it is like, and follows the pointers.

    The decisions are those of `simulator.kernels.neighbours`, but that float32 sums a product in
    another order: to the last bits of a cosine.

    Args:
        vectors: what may share a cluster.
        clustering: by neighbours.
        device: where sub-vectors are.
    """

    def __init__(
        self, vectors: Vectors, clustering: NeighbourClustering, device: torch.device
    ) -> None:
        pairs, (kinds, places) = clustering.pairs, (vectors.kinds, vectors.places)
        vector_at = np.zeros(pairs.are_compared[:, 0].shape, np.int64)
        vector_at[kinds, places] = np.arange(places.size)
        self._compared = []
        for shift, own in zip(pairs.shifts, pairs.are_compared.swapaxes(0, 1), strict=True):
            later = np.flatnonzero(own[kinds, places])
            earlier = vector_at[kinds[later], places[later] - shift]
            self._compared.append(
                (torch.from_numpy(later).to(device), torch.from_numpy(earlier).to(device))
            )
        self._least = clustering.threshold**2
        self._shortest = clustering.length_ratio**2
        longest = np.bincount(vectors.groups).max()
        # Each step doubles how far a pointer reaches.
        self._steps = int(longest - 1).bit_length()
        self._roots = Roots(vectors, device)

    def grouped(self, cut: Tensor) -> Grouped:
        """Those whose pointers end at the same one."""
        numbers = torch.arange(len(cut), device=cut.device)[:, None]
        pointers = numbers.expand(cut.shape[:2]).contiguous()
        squares = cut.square().sum(-1).double()
        highest = torch.full_like(squares, -1.0)
        for later, earlier in self._compared:
            dots = (cut[later] * cut[earlier]).sum(-1).double()
            length, other = squares[later], squares[earlier]
            product, best = dots.square(), highest[later]
            alike = (dots >= 0) & (product >= self._least * length * other)
            alike &= torch.minimum(length, other) >= self._shortest * torch.maximum(length, other)
            likeness = product / other
            alike &= likeness > best
            # Two of zeros are equal; one of zeros is like no other.
            is_zero, other_is_zero = length == 0, other == 0
            both = is_zero & other_is_zero
            points = torch.where(is_zero | other_is_zero, both & (best < 0), alike)
            likeness = torch.where(both, 1.0, likeness)
            highest[later] = torch.where(points, likeness, best)
            pointers[later] = torch.where(points, earlier[:, None], pointers[later])
        for _ in range(self._steps):
            pointers = pointers.gather(0, pointers)
        return self._roots.grouped(pointers)
