"""The event engine: the reference, in which every block is a process that waits for its neighbours.

It says the same as `simulator.timing.engines.compiled`, in other words: there a formula over all
tiles, here blocks that take, work on and hand on one tile at a time. It is slower by far, and it
tells what every block did and waited for.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import simpy

from simulator.timing.schedule import Makespan, Schedule

DMA = "dma"

# What a process of the simulation hands to the simulator: events that it waits for.
_Process = Generator[simpy.Event, object, None]


@dataclass(frozen=True, kw_only=True)
class TimelineSlice:
    """Something that a track did from `start` to `end`, in cycles since the layer's first load.

    Attributes:
        track: `dma`, or a stage of the schedule.
        tile: the tile that it worked on, or waited to work on.
        step: `load`, `store` or the stage.
        start: first cycle.
        end: first cycle after it.
        kind: `work` or `stall`.
        limit: what sets the pace of the work, or of the work that a stall waited for.
    """

    track: str
    tile: int
    step: str
    start: int
    end: int
    kind: str
    limit: str


@dataclass(slots=True, eq=False)
class _Step:
    """One tile's work on one track; `cause` is the step that it waited for last."""

    tile: int
    depth: int  # place in the pipeline of blocks, a store behind the last; -1 for a load
    limit: str
    start: int
    cause: "_Step | None"
    done: int = 0  # when its results are there


class _DoubleBuffer:
    """Two halves between two neighbours: one is filled while the other is worked on.

    `room` holds a ticket for each empty half: the step that emptied it, `None` for the first two.
    `results` holds, in order, the arrivals of what was written: events that bring their step.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.room = simpy.Store(env)
        self.room.items = [None, None]
        self.results = simpy.Store(env)


class _Track:
    """One block, or the DMA engine: does one step after the other and notes what it waited for."""

    def __init__(self, env: simpy.Environment, name: str, slices: list[TimelineSlice]) -> None:
        self.env, self.name, self.slices = env, name, slices
        self.last: _Step | None = None
        self.cause: _Step | None = None

    def _note(self, tile: int, step: str, start: int, kind: str, limit: str) -> None:
        if self.env.now > start:
            self.slices.append(
                TimelineSlice(
                    track=self.name, tile=tile, step=step, start=start, end=int(self.env.now),
                    kind=kind, limit=limit,
                )
            )  # fmt: skip

    def wait_for(self, store: simpy.Store, tile: int, step: str) -> _Process:
        """Take what a store holds next; to blame for the wait, if there was one, is its step."""
        since = int(self.env.now)
        taken = yield store.get()
        # Results on their way arrive later than they were written.
        blamed = (yield taken) if isinstance(taken, simpy.Event) else taken
        if self.env.now > since:
            assert isinstance(blamed, _Step)
            self.cause = blamed
            self._note(tile, step, since, "stall", blamed.limit)

    def work(
        self, tile: int, depth: int, step: str, cycles: int, latency: int, limit: str
    ) -> Generator[simpy.Event, object, _Step]:
        """Be occupied by a tile. Without a wait, the step before is what this one waited for."""
        start = int(self.env.now)
        done = _Step(tile=tile, depth=depth, limit=limit, start=start, cause=self.cause)
        yield self.env.timeout(cycles)
        done.done = int(self.env.now) + latency
        self._note(tile, step, start, "work", limit)
        self.last = self.cause = done
        return done


class _Machine:
    """All tracks of one schedule and the buffers between them."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.env = simpy.Environment()
        self.slices: list[TimelineSlice] = []
        self.steps: list[_Step] = []
        self.stages, self.tiles = schedule.occupancy_cycles.shape
        # Before block s lies buffer s; the last one lies behind the last block.
        self.buffers = [_DoubleBuffer(self.env) for _ in range(self.stages + 1)]
        self.loads = [int(cycles) for cycles in schedule.load_cycles]
        self.stores = [int(cycles) for cycles in schedule.store_cycles]
        processes = [self.env.process(self._transfer())]
        processes += [self.env.process(self._pass(depth)) for depth in range(self.stages)]
        self.env.run()
        if any(process.is_alive for process in processes):
            raise RuntimeError("the blocks of a schedule wait for each other forever")

    def _transfer(self) -> _Process:
        """The DMA engine: its programme is load 0, load 1, ..., each followed by an older store."""
        track = _Track(self.env, DMA, self.slices)
        inputs, outputs = self.buffers[0], self.buffers[-1]
        latency, dram = self.schedule.load_latency_cycles, self.schedule.names[0]
        halves = 0
        for tile in range(self.tiles + self.stages):
            if tile < self.tiles and self.loads[tile]:
                # A tile that loads nothing passes its half on as it is.
                while halves <= tile:
                    yield from track.wait_for(inputs.room, tile, "load")
                    halves += 1
                load = yield from track.work(tile, -1, "load", self.loads[tile], latency, dram)
                inputs.results.put(self.env.timeout(latency, load))
            old = tile - self.stages
            if old >= 0 and self.stores[old]:
                yield from track.wait_for(outputs.results, old, "store")
                store = yield from track.work(old, self.stages, "store", self.stores[old], 0, dram)
                self.steps.append(store)
                outputs.room.put(store)

    def _pass(self, depth: int) -> _Process:
        """A block: takes a tile's data, needs room for its results, works, and hands both on."""
        schedule, is_first, is_last = self.schedule, depth == 0, depth == self.stages - 1
        name = schedule.stages[depth]
        track = _Track(self.env, name, self.slices)
        inputs, outputs = self.buffers[depth], self.buffers[depth + 1]
        occupancy = schedule.occupancy_cycles[depth].tolist()
        latency = schedule.latency_cycles[depth].tolist()
        limits = [schedule.names[limit] for limit in schedule.limits[depth]]
        for tile in range(self.tiles):
            if not is_first or self.loads[tile]:
                yield from track.wait_for(inputs.results, tile, name)
            # Tiles add to one half of the output buffer until one of them is stored.
            if not is_last or tile == 0 or self.stores[tile - 1]:
                yield from track.wait_for(outputs.room, tile, name)
            step = yield from track.work(
                tile, depth, name, occupancy[tile], latency[tile], limits[tile]
            )
            self.steps.append(step)
            if not is_last or self.stores[tile]:
                outputs.results.put(self.env.timeout(latency[tile], step))
            inputs.room.put(step)


def run(schedule: Schedule) -> Makespan:
    """Cycles of a schedule; the same as `simulator.timing.engines.compiled.run` finds.

    Raises:
        RuntimeError: the schedule can't be worked on; never for a layer's.
    """
    steps = _Machine(schedule).steps
    if not steps:
        return Makespan(cycles=0, critical_cycles={})
    # Of steps that end together, the one that is worked on first in the order of the programme.
    step: _Step | None = min(steps, key=lambda s: (-s.done, s.tile + s.depth, s.depth))
    assert step is not None
    cycles = later = step.done
    critical = dict.fromkeys(schedule.names, 0)
    while step is not None:
        critical[step.limit] += later - step.start
        later, step = step.start, step.cause
    return Makespan(cycles=cycles, critical_cycles={k: v for k, v in critical.items() if v})


def timeline(schedule: Schedule, max_tiles: int | None = None) -> list[TimelineSlice]:
    """What every track did and waited for, by time.

    On one track, slices neither overlap nor leave gaps, from 0 until its last tile's end; work that
    takes no time has no slice.

    Args:
        schedule: of a layer.
        max_tiles: only the first so many tiles; their slices are those of the whole schedule.
    """
    _, tiles = schedule.occupancy_cycles.shape
    if max_tiles is not None and max_tiles < tiles:
        # The last tile kept is stored after this many were loaded; later ones do not matter to it.
        schedule = _first_tiles(schedule, min(tiles, max_tiles + len(schedule.stages)))
    slices = _Machine(schedule).slices
    kept = [s for s in slices if max_tiles is None or s.tile < max_tiles]
    return sorted(kept, key=lambda s: (s.start, s.end))


def _first_tiles(schedule: Schedule, tiles: int) -> Schedule:
    """The schedule of the first tiles."""

    def cut(values: np.ndarray) -> np.ndarray:
        return values[..., :tiles]

    return Schedule(
        stages=schedule.stages,
        load_cycles=cut(schedule.load_cycles),
        load_latency_cycles=schedule.load_latency_cycles,
        store_cycles=cut(schedule.store_cycles),
        occupancy_cycles=cut(schedule.occupancy_cycles),
        latency_cycles=cut(schedule.latency_cycles),
        limits=cut(schedule.limits),
        names=schedule.names,
    )
