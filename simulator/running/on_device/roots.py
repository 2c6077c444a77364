"""Clusters of sub-vectors that name the same one."""

import torch
from torch import Tensor

from simulator.running.on_device.vectors import Grouped, Vectors


class Roots:
    """Makes clusters of the first vectors that others name.

    Args:
        vectors: what may share a cluster.
        device: where they are.
    """

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        self._keys = torch.from_numpy(vectors.keys.ravel()).to(device)
        self._columns = torch.arange(vectors.sub_matrices, device=device)

    def grouped(self, roots: Tensor) -> Grouped:
        """The clusters, numbered by their first sub-vectors.

        Args:
            roots: `(vectors, sub-matrices)` int64, of each sub-vector the first vector of its
                cluster.
        """
        ids = (roots * self._columns.numel() + self._columns).flatten()
        # As many numbers as sub-vectors: how many clusters there are, only the device knows.
        sizes = torch.zeros(ids.numel(), device=ids.device)
        sizes.index_add_(0, ids, torch.ones_like(sizes))
        return Grouped(ids=ids, keys=self._keys, sizes=sizes, has_first_ids=True)
