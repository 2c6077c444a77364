"""What is done above the layers, in time: each stage is a row beside those of the layers."""

from collections.abc import Sequence

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.frames import FrameDecisions
from simulator.timing.layer import TRAFFIC, ActionCounts, Timing
from simulator.timing.schedule import BLOCKS, LIMITS, slowest, with_own
from simulator.timing.stages.above import ABOVE, AboveStage
from simulator.timing.stages.stage import Work, sound
from simulator.timing.transfers import burst_bytes, transfer_cycles
from workloads.traces.layer import Layer

Above = list[tuple[str, Timing]]


def above_timings(
    frames: FrameDecisions | None, layers: Sequence[Layer], accelerator: Accelerator
) -> Above:
    """Time what decisions on frames ask for above the layers.

    A frame takes its slowest unit, or its transfers where these take longer, and the latencies of
    both. Frames follow each other, and the layers follow them: nothing overlaps.

    Args:
        frames: the decisions; `None` where there are none.
        layers: of the model, as they were captured.
        accelerator: the design.

    Returns:
        The name of each stage's first unit, with its timing; none where nothing was looked at.

    Raises:
        ConfigError: the design lacks a unit, or it is too small; or no stage knows the unit.
    """
    if frames is None:
        return []
    found: Above = []
    for evidence in frames.evidence:
        _check_units(evidence, accelerator)
        for kind in dict.fromkeys(ABOVE[name] for name in evidence.units):
            stage = kind(evidence=evidence, frames=frames, layers=layers, accelerator=accelerator)
            stage.check()
            found.append((kind.units[0], _timing(stage)))
    return found


def _check_units(evidence: FrameEvidence, accelerator: Accelerator) -> None:
    """A design must have every unit that looked, and each a stage to work in."""
    what = f"decisions on frames, which look at {evidence.words}"
    missing = [name for name in evidence.units if getattr(accelerator, name, None) is None]
    unknown = [name for name in missing if not hasattr(accelerator, name)]
    if unknown:
        raise ConfigError(
            f"simulate.policy must be one that accelerators have units for, got {what}: none here "
            f"has a {', '.join(unknown)}; only decide() can apply them; use another policy"
        )
    if missing:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have {', '.join(missing)} to run {what}, got "
            "none; add what is missing, or use another policy"
        )
    idle = [name for name in evidence.units if name not in ABOVE]
    if idle:
        raise ConfigError(
            f"Accelerator {accelerator.name!r} must have a stage above the layers for "
            f"{', '.join(idle)} to run {what}, got none; put "
            "@simulator.timing.stages.register_above over an AboveStage with these units"
        )


def _timing(stage: AboveStage) -> Timing:
    """A stage in time."""
    accelerator, shape = stage.accelerator, (stage.frames.frames,)
    work = sound(stage.work(), type(stage), accelerator, shape, "the frames'")
    names = with_own(LIMITS, work.limits)
    cycles, limits = np.zeros(shape, np.int64), np.zeros(shape, np.int8)
    slowest(work.limits, names, cycles, limits)
    if work.occupancy_cycles is not None:
        np.maximum(cycles, work.occupancy_cycles, out=cycles)
    loads, stores = (_moved(work, shape, stored=stored) for stored in (False, True))
    moving = transfer_cycles(loads, accelerator) + transfer_cycles(stores, accelerator)
    dram = names.index("dram")
    waits = moving > cycles
    limits[waits] = dram
    blamed = dict.fromkeys(names, 0)
    taken = np.maximum(cycles, moving) + work.latency_cycles
    for place, name in enumerate(names):
        blamed[name] = int(taken[limits == place].sum())
    blamed["dram"] += accelerator.dram.latency_cycles * int(np.count_nonzero(loads))
    busy = {name: _total(each, shape) for name, each in work.busy_cycles.items()}
    return Timing(
        cycles=sum(blamed.values()),
        critical_cycles=blamed,
        busy_cycles=dict.fromkeys(BLOCKS, 0) | {"dram": int(moving.sum())} | busy,
        dram_bytes=_traffic(work),
        actions=_actions(work, accelerator, loads, stores),
        kept_bytes=stage.evidence.kept_bytes(accelerator.operand_bits),
    )


def _total(values: object, shape: tuple[int, ...]) -> int:
    """Sum over frames, of values that may stand for all."""
    return int(np.broadcast_to(np.asarray(values), shape).sum())


def _moved(work: Work, shape: tuple[int, ...], *, stored: bool) -> np.ndarray:
    """Bytes that each frame loads, or stores."""
    moved = np.zeros(shape, np.int64)
    for each in work.transfers:
        if each.stored == stored:
            moved += each.moved_bytes
    return moved


def _traffic(work: Work) -> dict[str, int]:
    """Kind -> bytes to and from the DRAM."""
    moved = dict.fromkeys(TRAFFIC, 0)
    for each in work.transfers:
        moved[each.kind] = moved.get(each.kind, 0) + int(each.moved_bytes.sum())
    return moved


def _actions(
    work: Work, accelerator: Accelerator, loads: np.ndarray, stores: np.ndarray
) -> ActionCounts:
    """What is done beside and for transfers."""
    counts = ActionCounts(dict(work.actions()))
    for each in work.transfers:
        if each.buffer is not None:
            action = "read_byte" if each.stored else "write_byte"
            counts[each.buffer, action] += int(each.moved_bytes.sum())
    counts["dram", "read_byte"] = int(burst_bytes(loads, accelerator).sum())
    counts["dram", "write_byte"] = int(burst_bytes(stores, accelerator).sum())
    return counts
