"""Work on whole frames, which belongs to no product: a line in a report for each unit that does it.

Layers that do not run in a frame are timed as layers of fewer images (`remaining.layers_as_run`).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.decisions.frames import FrameDecisions
from simulator.decisions.moved_maps import moved_maps
from simulator.timing.engines.engine import COMPILED, Engine
from simulator.timing.frame_stages import FRAME_STAGES, FrameStage
from simulator.timing.layer import TRAFFIC, ActionCounts, LayerTiming
from simulator.timing.schedule import BLOCKS, LIMITS, Schedule, slowest, with_own
from simulator.timing.stages.stage import Work
from simulator.timing.transfers import burst_bytes, transfer_cycles
from workloads.traces.trace import WorkloadTrace

FRAME_WORK = "frames"
"""The kind of such a line, where layers have theirs."""


@dataclass(frozen=True)
class FrameWork:
    """What stands in a report in place of a layer.

    Attributes:
        name: of the stage.
        kind: `FRAME_WORK`.
        gemm: nothing is multiplied.
    """

    name: str
    kind: str = FRAME_WORK
    gemm: None = None


def frame_timings(
    trace: WorkloadTrace,
    frames: FrameDecisions | None,
    accelerator: Accelerator,
    engine: Engine = COMPILED,
) -> list[tuple[FrameWork, LayerTiming]]:
    """Time what units do on whole frames, in the order in which they are asked for.

    Args:
        trace: the workload.
        frames: the decisions; `None` where all layers run in all frames.
        accelerator: the design.
        engine: that finds the cycles.

    Raises:
        ConfigError: the design lacks a unit, or has one that can't do what was decided.
    """
    if frames is None or not frames.units:
        return []
    _check_units(frames, accelerator)
    moved = moved_maps(trace.layers, trace.graph, frames).crossing
    kinds = dict.fromkeys(FRAME_STAGES[unit] for unit in frames.units)
    stages = [kind(frames=frames, moved=moved, accelerator=accelerator) for kind in kinds]
    for stage in stages:
        stage.check()
    timed = [(FrameWork(stage.name), _timing(stage, engine)) for stage in stages]
    return [(work, timing) for work, timing in timed if timing.cycles]


def _check_units(frames: FrameDecisions, accelerator: Accelerator) -> None:
    """A design must have every unit that is asked for, and frames a stage to pass in each."""
    looked = "; ".join(each.words for each in frames.evidence) or "nothing"
    what = f"decisions on frames, which look at {looked}"
    unknown = [unit for unit in frames.units if not hasattr(accelerator, unit)]
    if unknown:
        raise ConfigError(
            f"simulate.policy must be one that accelerators have units for, got {what}: none here "
            f"has a {', '.join(unknown)}; only decide() can apply them; use another policy"
        )
    missing = [unit for unit in frames.units if getattr(accelerator, unit) is None]
    if missing:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have {', '.join(missing)} to run {what}, got "
            "none; add what is missing, as motion_32x32 has it, or use another policy"
        )
    idle = [unit for unit in frames.units if unit not in FRAME_STAGES]
    if idle:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have a stage for {', '.join(idle)} to run "
            f"{what}, got none; put @simulator.timing.frame_stages.register over a FrameStage with "
            "these units"
        )


def _timing(stage: FrameStage, engine: Engine) -> LayerTiming:
    """A stage's work on all frames that it works on."""
    work, accelerator, frames = stage.work(), stage.accelerator, stage.frames.frames
    loads, stores = _moved(work, frames, stored=False), _moved(work, frames, stored=True)
    schedule = _schedule(stage, work, loads, stores)
    makespan = engine.run(schedule)
    moved = Counter(dict.fromkeys(TRAFFIC, 0))
    counts = ActionCounts(dict(work.actions()))
    for each in work.transfers:
        moved[each.kind] += int(np.sum(each.moved_bytes))
    counts["dram", "read_byte"] = int(burst_bytes(loads, accelerator).sum())
    counts["dram", "write_byte"] = int(burst_bytes(stores, accelerator).sum())
    moving = int(schedule.load_cycles.sum() + schedule.store_cycles.sum())
    busy = {name: int(_each(cycles, frames).sum()) for name, cycles in work.busy_cycles.items()}
    return LayerTiming(
        cycles=makespan.cycles,
        critical_cycles=makespan.critical_cycles,
        busy_cycles=dict.fromkeys(BLOCKS, 0) | {"dram": moving} | busy,
        dram_bytes=dict(moved),
        actions=counts,
        macs=0,
        schedule=schedule,
    )


def _schedule(stage: FrameStage, work: Work, loads: np.ndarray, stores: np.ndarray) -> Schedule:
    """Frames that the stage works on, as tiles."""
    accelerator, frames = stage.accelerator, stage.frames.frames
    names = with_own(LIMITS, work.limits)
    occupancy, limits = np.zeros((1, frames), np.int64), np.zeros((1, frames), np.int8)
    slowest(work.limits, names, occupancy[0], limits[0])
    if work.occupancy_cycles is not None:
        np.maximum(occupancy[0], work.occupancy_cycles, out=occupancy[0])
    working = (occupancy[0] > 0) | (loads > 0) | (stores > 0)
    return Schedule(
        stages=(stage.track,),
        load_cycles=transfer_cycles(loads, accelerator)[working],
        load_latency_cycles=accelerator.dram.latency_cycles,
        store_cycles=transfer_cycles(stores, accelerator)[working],
        occupancy_cycles=occupancy[:, working],
        latency_cycles=_each(work.latency_cycles, frames)[None, working],
        limits=limits[:, working],
        names=names,
    )


def _moved(work: Work, frames: int, *, stored: bool) -> np.ndarray:
    """`(frames,)` int64 bytes that are loaded, or stored."""
    own = [_each(each.moved_bytes, frames) for each in work.transfers if each.stored == stored]
    return sum(own, start=np.zeros(frames, np.int64))


def _each(numbers: object, frames: int) -> np.ndarray:
    """`(frames,)` int64 of one number for all or one for each."""
    return np.array(np.broadcast_to(np.asarray(numbers, np.int64), (frames,)))
