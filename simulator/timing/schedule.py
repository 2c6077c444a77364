"""What an engine runs: the tiles of a layer, with what each takes in each block."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# What may hold up a layer: five blocks, and the ports or sizes of four buffers. These are always
# told; what else holds a layer up, as a unit of a user's own, is told where it is there.
BLOCKS = ("dram", "front_end", "cache", "array", "reconstructor")
LIMITS = (*BLOCKS, "activation_buffer", "weight_buffer", "centroid_buffer", "output_buffer")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The tiles of one layer in the order in which they are worked on.

    A tile is loaded by the DMA engine, passes every block and is stored by the same DMA engine.
    Its occupancy of a block is the time until the block takes the next tile; its latency, the time
    after that until its results are there.

    Attributes:
        stages: names of the blocks a tile passes, S of them.
        load_cycles: `(T,)` int64 that the DMA engine is occupied by the tile's load.
        load_latency_cycles: after which loaded data are there.
        store_cycles: `(T,)` int64, likewise; 0 where nothing is stored.
        occupancy_cycles: `(S, T)` int64.
        latency_cycles: `(S, T)` int64.
        limits: `(S, T)` int8, what sets the occupancy, as an index into `names`.
        names: what may be to blame; the first is the DRAM, for loads and stores.
    """

    stages: tuple[str, ...]
    load_cycles: np.ndarray
    load_latency_cycles: int
    store_cycles: np.ndarray
    occupancy_cycles: np.ndarray
    latency_cycles: np.ndarray
    limits: np.ndarray
    names: tuple[str, ...] = LIMITS


@dataclass(frozen=True, kw_only=True)
class Makespan:
    """What an engine found.

    Attributes:
        cycles: from the first load to the last result or store.
        critical_cycles: limit -> cycles of the critical path that it is to blame for: walking back
            from the end, each step goes to what was waited for. They add up to `cycles`.
    """

    cycles: int
    critical_cycles: dict[str, int]


def slowest(
    cycles_by_limit: Mapping[str, Any],
    names: tuple[str, ...],
    cycles: np.ndarray,
    limits: np.ndarray,
) -> None:
    """Fill in the occupancy that several limits give together, and which of them sets it.

    Args:
        cycles_by_limit: limit -> cycles that it alone would take; the first wins a tie.
        names: what may be to blame.
        cycles: int64, of the tiles' shape.
        limits: int8, likewise.
    """
    for place, (name, alone) in enumerate(cycles_by_limit.items()):
        if place == 0:
            cycles[...] = alone
            limits[...] = names.index(name)
        else:
            np.copyto(limits, names.index(name), where=alone > cycles)
            np.maximum(cycles, alone, out=cycles)


def with_own(names: tuple[str, ...], found: Iterable[str]) -> tuple[str, ...]:
    """Names that are always told, then those found beside them."""
    return (*names, *(name for name in dict.fromkeys(found) if name not in names))


def most_blamed(critical_cycles: Mapping[str, int]) -> str:
    """The limit to blame for most of the cycles, the first in the order of `LIMITS` of several."""
    names = with_own(LIMITS, critical_cycles)
    return max(names, key=lambda limit: critical_cycles.get(limit, 0))
