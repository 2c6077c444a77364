"""The way of every layer through a design: what is left of it, cut into tiles, through stages.

A dense layer is one of which nothing is taken off.
"""

from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np

from accelerators import Accelerator, ConfigError, SramBuffer
from simulator.decisions.box import Decisions
from simulator.decisions.rows import SharedRows
from simulator.timing.dataflows.dataflow import check_feeds
from simulator.timing.engines.engine import COMPILED, Engine
from simulator.timing.layer import TRAFFIC, ActionCounts, LayerTiming
from simulator.timing.passes import best_passes
from simulator.timing.remaining import Remaining
from simulator.timing.remembering import kept_bytes
from simulator.timing.schedule import BLOCKS, LIMITS, Makespan, Schedule, slowest, with_own
from simulator.timing.stages import STAGES, Independent, Multiplying, Stage, Work
from simulator.timing.stages.around import Around, Completing
from simulator.timing.stages.stage import beside, work_of
from simulator.timing.stages.updating import Updating, is_updated
from simulator.timing.tiles import Tiles
from simulator.timing.tiling import best_tilings
from simulator.timing.transfers import burst_bytes, transfer_cycles
from workloads.traces.layer import Layer

# Parts in the order in which data meets them.
_ARRAY = ("array", "activation_buffer", "weight_buffer")
_OUT = ("output_buffer", "dram")


def layer_timing(
    layer: Layer,
    decisions: Decisions | None,
    accelerator: Accelerator,
    engine: Engine = COMPILED,
) -> LayerTiming:
    """Time a layer as its decisions leave it.

    What is left is cut into tiles (`best_tilings`, or `best_passes` where rows are shared); tiles
    pass the stages of the units that the decisions ask for and overlap, one stage apart, through
    double buffers. Of the cuts, that with the least traffic within 1 % of the fastest is taken;
    where rows are shared, that with the least product of cycles and traffic within a quarter. Of
    the ways to work on runs of rows with columns of their own (`Remaining.ways`) the faster is
    taken.

    Args:
        layer: as it was captured.
        decisions: what is taken off it; `None` where nothing is.
        accelerator: the design. Units that the decisions do not ask for take no part.
        engine: that finds the cycles.

    Raises:
        ConfigError: the design lacks a unit that the decisions ask for, or has one that can't do
            what was decided; a buffer does not hold one tile; the layer needs too many tiles.
    """
    check_feeds(accelerator)
    runs = [_best_run(left, accelerator, engine) for left in Remaining.ways(layer, decisions)]
    return min(runs, key=lambda run: run.cycles).timing()


def _best_run(left: Remaining, accelerator: Accelerator, engine: Engine) -> "Run":
    """What is left of a layer under the best of its cuts."""
    stages = stages_of(left, accelerator, engine)
    if left.decisions is not None and isinstance(left.decisions.rows, SharedRows):
        cuts = best_passes(left, accelerator)
    else:
        cuts = best_tilings(left, accelerator)
    runs = [Run(left, accelerator, engine, stages, tiles) for tiles in cuts]
    return cuts[0].cut.best(runs)


def check_units(decisions: Decisions, accelerator: Accelerator) -> None:
    """A design must have every unit that the decisions ask for, and a stage for each to work in.

    Raises:
        ConfigError: naming the units that it lacks, those that no accelerator has, and those that
            tiles do not know how to pass.
    """
    units = {name: getattr(accelerator, name, None) for name in decisions.units}
    missing = [name for name, unit in units.items() if unit is None]
    unknown = [name for name in missing if not hasattr(accelerator, name)]
    what = f"decisions of layer {decisions.layer!r}, which look at {decisions.evidence.words}"
    if unknown:
        raise ConfigError(
            f"simulate.policy must be one that accelerators have units for, got {what}: none here "
            f"has a {', '.join(unknown)}; only decide() can apply them; use another policy"
        )
    if missing and decisions.weights is not None:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have {', '.join(missing)} for the plan by "
            f"weights of layer {decisions.layer!r}, got none: its units multiply before they add; "
            "use preset('merging_16x16'), or give an array whose sums stay WeightTables(...)"
        )
    if missing:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have {', '.join(missing)} to run {what}, got "
            "none; add what is missing, or use another policy"
        )
    idle = [
        name
        for name, unit in units.items()
        if name not in STAGES and not isinstance(unit, SramBuffer)
    ]
    if idle:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have a stage for {', '.join(idle)} to run "
            f"{what}, got none; put @simulator.timing.stages.register over a Stage with these units"
        )


class Stages(NamedTuple):
    """What a layer's tiles pass: stages before the array, it and those beside it, those after."""

    before: list[Stage]
    beside: list[Stage]
    after: list[Stage]


def stages_of(left: Remaining, accelerator: Accelerator, engine: Engine) -> Stages:
    """The stages that the layer's tiles pass, in their order."""
    made: list[Stage] = []
    for level in left.around:
        first = partial(Around, left=level, accelerator=accelerator, engine=engine)
        made += [first(stage=stage) for stage in _asked_for(level, accelerator, engine)]
        made.append(Completing(left=level, accelerator=accelerator, engine=engine))
        if is_updated(level):
            made.append(Updating(left=level, accelerator=accelerator, engine=engine, around=True))
    asked = _asked_for(left, accelerator, engine)
    made += [stage for stage in asked if not isinstance(stage, Multiplying)]
    if is_updated(left):
        made.append(Updating(left=left, accelerator=accelerator, engine=engine))
    # What makes more of the array's units than an array multiplies in its place.
    array = Multiplying if accelerator.lanes is None else Independent
    arrays = [stage for stage in asked if isinstance(stage, Multiplying)]
    made += arrays or [array(left=left, accelerator=accelerator, engine=engine)]
    for stage in made:
        stage.check()
    multiplying = made.pop()
    return Stages(
        before=[stage for stage in made if stage.place == "before"],
        beside=[multiplying, *(stage for stage in made if stage.place == "beside")],
        after=[stage for stage in made if stage.place == "after"],
    )


def _asked_for(left: Remaining, accelerator: Accelerator, engine: Engine) -> list[Stage]:
    """The stages of the units that one technique's decisions ask for, in their order."""
    if left.decisions is None:
        return []
    check_units(left.decisions, accelerator)
    kinds = dict.fromkeys(STAGES[name] for name in left.decisions.units if name in STAGES)
    return [kind(left=left, accelerator=accelerator, engine=engine) for kind in kinds]


class Run:
    """A layer under one cut, in the time that an engine found."""

    def __init__(
        self,
        left: Remaining,
        accelerator: Accelerator,
        engine: Engine,
        stages: Stages,
        tiles: Tiles,
    ) -> None:
        self.left, self.accelerator, self.tiles = left, accelerator, tiles
        before, array, after = ([work_of(stage, tiles) for stage in each] for each in stages)
        self.works = [*before, *array, *after]
        self.transfers = [*tiles.transfers, *(t for work in self.works for t in work.transfers)]
        self.loads, self.stores = self._moved(stored=False), self._moved(stored=True)
        self.looking = {unit for stage in stages.before for unit in stage.units}
        tracks = (*(s.track for s in stages.before), "array", *(s.track for s in stages.after))
        self.schedule = self._schedule(tracks, [*before, beside(array), *after])
        self.makespan: Makespan = engine.run(self.schedule)

    @property
    def cycles(self) -> int:
        """From the first load to the last store."""
        return self.makespan.cycles

    @property
    def dram_bytes(self) -> int:
        """Bytes that travel to and from the DRAM."""
        return int(self.loads.sum() + self.stores.sum())

    def _moved(self, *, stored: bool) -> np.ndarray:
        """Bytes that each tile loads, or stores."""
        moved = [each.moved_bytes for each in self.transfers if each.stored == stored]
        return sum(moved[1:], start=moved[0])

    def _schedule(self, tracks: tuple[str, ...], works: list[Work]) -> Schedule:
        accelerator, shape = self.accelerator, (len(tracks), *self.tiles.shape)
        names = with_own(LIMITS, (name for work in works for name in work.limits))
        occupancy, latency = np.empty(shape, np.int64), np.empty(shape, np.int64)
        limits = np.empty(shape, np.int8)
        for place, work in enumerate(works):
            slowest(work.limits, names, occupancy[place], limits[place])
            if work.occupancy_cycles is not None:
                np.maximum(occupancy[place], work.occupancy_cycles, out=occupancy[place])
            latency[place] = work.latency_cycles
        return Schedule(
            stages=tracks,
            load_cycles=transfer_cycles(self.loads, accelerator).ravel(),
            load_latency_cycles=accelerator.dram.latency_cycles,
            store_cycles=transfer_cycles(self.stores, accelerator).ravel(),
            occupancy_cycles=occupancy.reshape(len(tracks), -1),
            latency_cycles=latency.reshape(len(tracks), -1),
            limits=limits.reshape(len(tracks), -1),
            names=names,
        )

    def timing(self) -> LayerTiming:
        """The layer, with everything that is done for it."""
        busy: Counter[str] = Counter()
        for work in self.works:
            busy.update({name: self.tiles.total(each) for name, each in work.busy_cycles.items()})
        moving = int(self.schedule.load_cycles.sum() + self.schedule.store_cycles.sum())
        moved, counts = Counter(dict.fromkeys(TRAFFIC, 0)), ActionCounts()
        for each in self.transfers:
            total = int(each.moved_bytes.sum())
            moved[each.kind] += total
            if each.buffer is not None:
                counts[each.buffer, "read_byte" if each.stored else "write_byte"] += total
        return LayerTiming(
            cycles=self.makespan.cycles,
            critical_cycles=self.tiles.cut.blame(
                self.tiles, self.makespan.critical_cycles, busy["array"]
            ),
            busy_cycles=dict.fromkeys(BLOCKS, 0) | {"dram": moving} | busy,
            dram_bytes=dict(moved),
            actions=self._actions(counts),
            macs=self.left.macs,
            kept_bytes=self._kept_bytes,
            schedule=self.schedule,
        )

    @property
    def _kept_bytes(self) -> int:
        """Of all techniques on the layer."""
        levels = (*self.left.around, self.left)
        return sum(
            kept_bytes(each.layer, each.decisions, self.accelerator)
            for each in levels
            if each.decisions is not None
        )

    def _actions(self, counts: ActionCounts) -> ActionCounts:
        """What is done beside transfers, added; part by part, as data meets them."""
        for done in (self.tiles.actions, *(work.actions() for work in self.works)):
            counts.update(done)
        counts["dram", "read_byte"] = int(burst_bytes(self.loads, self.accelerator).sum())
        counts["dram", "write_byte"] = int(burst_bytes(self.stores, self.accelerator).sum())
        units = self.left.units
        looking = [name for name in units if name in self.looking]
        parts = with_own((*looking, *_ARRAY), (*units, *_OUT, *(part for part, _ in counts)))
        place = {part: number for number, part in enumerate(parts)}
        return ActionCounts(dict(sorted(counts.items(), key=lambda count: place[count[0][0]])))
