"""The two engines that find a layer's cycles."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from accelerators import CentroidCache
from simulator.decisions.box import Decisions
from simulator.timing.engines import compiled, compiled_cache, event, event_cache
from simulator.timing.engines.compiled_cache import CacheReplay
from simulator.timing.schedule import Makespan, Schedule


class Replay(Protocol):
    """Sends a layer's signatures through a cache; see `compiled_cache.replay`."""

    def __call__(
        self,
        decisions: Decisions,
        cache: CentroidCache,
        *,
        vectors_per_group: np.ndarray,
        cycles_per_group: np.ndarray,
    ) -> CacheReplay:
        """What the cache did."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Finds out when everything happens; both engines find the same.

    Attributes:
        name: of the engine.
        run: cycles of a schedule.
        replay: cycles of a cache.
    """

    name: str
    run: Callable[[Schedule], Makespan] = field(repr=False)
    replay: Replay = field(repr=False)


COMPILED = Engine(name="compiled", run=compiled.run, replay=compiled_cache.replay)
EVENT = Engine(name="event", run=event.run, replay=event_cache.replay)
ENGINES = {engine.name: engine for engine in (COMPILED, EVENT)}
