"""The leader algorithm on any device: a tile's vectors one after the other, all tiles at once."""

import numpy as np
import torch
from torch import Tensor

from simulator.policies.leaders import LeaderClustering
from simulator.running.on_device.roots import Roots
from simulator.running.on_device.vectors import Grouped, Vectors


class LeaderGrouping:
    """Lets each sub-vector join the nearest of a few leaders, or become one.

    The decisions are those of `simulator.kernels.leaders`, but that float32 sums the squares of a
    distance in another order: a vector may choose otherwise between leaders as far as each other,
    or join at a distance of the tolerance, to the last bits.

    Args:
        vectors: what may share a cluster.
        clustering: by leaders.
        device: where sub-vectors are.
    """

    def __init__(
        self, vectors: Vectors, clustering: LeaderClustering, device: torch.device
    ) -> None:
        sizes = np.bincount(vectors.groups, minlength=vectors.group_count)
        # The largest tiles first, so that those that go on at a place are the first ones.
        by_size = np.argsort(-sizes, kind="stable")
        sizes = sizes[by_size]
        lane_of = np.argsort(by_size)[vectors.groups]
        order = np.argsort(lane_of, kind="stable")
        firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        place_of = np.empty(order.size, np.int64)
        place_of[order] = np.arange(order.size) - firsts[lane_of[order]]
        longest = int(sizes[0])
        vector_at = np.zeros((longest, sizes.size), np.int64)
        vector_at[place_of, lane_of] = np.arange(order.size)
        self._going_on = [int(np.count_nonzero(sizes > place)) for place in range(longest)]
        self._vector_at = torch.from_numpy(vector_at).to(device)
        self._slot_of = torch.from_numpy(place_of * sizes.size + lane_of).to(device)
        floors = clustering.floors.reshape(vectors.looks.gemm.count, -1, vectors.looks.segments)
        of_kinds = floors.swapaxes(0, 1).reshape(floors.shape[1], -1)
        self._floors = torch.from_numpy(of_kinds[by_size // vectors.looks.tiles]).to(device)
        self._tolerance = clustering.tolerance
        self._entries = min(clustering.entries, longest)
        self._roots = Roots(vectors, device)

    def grouped(self, cut: Tensor) -> Grouped:
        """Those that join the same leader."""
        at = cut[self._vector_at]  # (places, tiles, sub-matrices, L)
        leader_at = self._leaders_of(at)
        lanes = torch.arange(at.shape[1], device=at.device)[:, None]
        # From places in a tile to vectors.
        leaders = self._vector_at[leader_at, lanes].flatten(0, 1)[self._slot_of]
        return self._roots.grouped(leaders)

    def _leaders_of(self, at: Tensor) -> Tensor:
        """`(places, tiles, sub-matrices)` int64, the place of the leader that each one joins."""
        longest, tiles, sub_matrices, length = at.shape
        reach = torch.maximum(at.square().sum(-1) * self._tolerance, self._floors)
        # What is infinitely far away is out of reach, and so is an empty entry.
        reach.clamp_(max=torch.finfo(at.dtype).max)
        # The last entry takes what joins, and is never compared.
        table = at.new_full((tiles, sub_matrices, self._entries + 1, length), torch.inf)
        shape = tiles, sub_matrices, self._entries + 1
        place_of_entry = torch.full(shape, longest, dtype=torch.int64, device=at.device)
        made = torch.zeros(shape[:2], dtype=torch.int64, device=at.device)
        found = torch.zeros(at.shape[:3], dtype=torch.int64, device=at.device)
        table[:, :, 0], place_of_entry[:, :, 0] = at[0], 0
        made += 1
        for place in range(1, longest):
            going_on, held = self._going_on[place], min(place, self._entries)
            own, entries = at[place, :going_on], table[:going_on]
            apart = (entries[:, :, :held] - own[:, :, None]).square_().sum(-1)
            least = apart.amin(-1, keepdim=True)
            # Of several that are nearest, the earliest leader; the table is a ring.
            numbers = place_of_entry[:going_on]
            nearest = torch.where(apart == least, numbers[:, :, :held], longest).amin(-1)
            joins = least.squeeze(-1) <= reach[place, :going_on]
            found[place, :going_on] = torch.where(joins, nearest, place)
            entry = torch.where(joins, self._entries, made[:going_on] % self._entries)[..., None]
            entries.scatter_(2, entry[..., None].expand(*entry.shape, length), own[:, :, None])
            numbers.scatter_(2, entry, place)
            made[:going_on] += ~joins
        return found
