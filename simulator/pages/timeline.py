"""What every block does when, as a trace that Perfetto (ui.perfetto.dev) and Chrome show.

The format is the "Trace Event Format" of Chrome's tracing (complete events, `ph` "X").
"""

import json
from collections.abc import Sequence
from pathlib import Path

from accelerators import ConfigError
from accelerators.rules import choose, quoted, show
from simulator.results.costs import cost_sources
from simulator.results.design import AboveReport, DesignReport, LayerReport
from simulator.timing.engines.event import DMA, TimelineSlice, timeline
from workloads.writing import write_atomically

# Tracks from top to bottom, by what the engine calls them; the first has a slice for each layer.
LAYERS = "layers"
TRACK_NAMES = {
    LAYERS: "layers",
    DMA: "DMA",
    "hashing": "hashing (front-end and cache)",
    "matching": "matching (neighbour matcher)",
    "following": "following (leader table)",
    "array": "systolic array",
    "reconstructor": "reconstructor",
}
# Chrome's names of colours; a stall has the colour of what it waits for. Perfetto picks colours by
# the slice's name, which names the limit as well.
STALL_COLOURS = {
    "dram": "terrible",
    "front_end": "bad",
    "cache": "yellow",
    "array": "olive",
    "reconstructor": "rail_response",
    "activation_buffer": "thread_state_iowait",
    "weight_buffer": "thread_state_uninterruptible",
    "centroid_buffer": "rail_animation",
    "output_buffer": "rail_load",
}
OWN_STALL_COLOUR = "generic_work"  # of a unit of a user's own
WORK_COLOUR = "good"
LEFT_OUT_COLOUR = "grey"

_PID = 1


def write_timeline(
    report: DesignReport,
    path: str | Path,
    layers: Sequence[str] | None = None,
    *,
    max_tiles: int = 500,
) -> Path:
    """Write a timeline of a design's layers, one after the other, each from its first load.

    What is done above the layers for all frames of the batch comes first, a slice for each unit.

    A slice is a tile's work in a block, or a stall: the block waits, and `blamed` says for what. A
    block's results are there a latency after its slice. One cycle is shown as one microsecond.

    Args:
        report: the design.
        path: of the `.json` file; open it in ui.perfetto.dev or chrome://tracing.
        layers: names of the layers to show; by default all of them, and what is above them.
        max_tiles: of each layer; the rest of a longer layer is one slice on each track that says
            so, and the file's `otherData` lists these layers. A tile takes about 2 kB.

    Raises:
        ConfigError: a layer is unknown, or `max_tiles` below 1.
    """
    return write_atomically(path, json.dumps(_trace(report, layers, max_tiles)) + "\n")


def _trace(report: DesignReport, layers: Sequence[str] | None, max_tiles: int) -> dict:
    """The file's contents."""
    if type(max_tiles) is not int or max_tiles < 1:
        raise ConfigError(
            f"write_timeline.max_tiles must be an integer of at least 1, got {show(max_tiles, int)}"
            "; use 1 or more"
        )
    shown = _shown(report, layers)
    tracks = _tracks([layer.timing.schedule.stages for layer in shown])
    events = _names(report.accelerator.name, tracks)
    begin, shortened = 0, []
    for unit in report.above if layers is None else ():
        events.append(_above_event(unit, tracks, begin))
        begin += unit.timing.cycles
    for layer in shown:
        events += _layer_events(layer, tracks, begin, max_tiles)
        tiles = _tiles(layer)
        if tiles > max_tiles:
            shortened.append({"layer": layer.layer.name, "tiles": tiles, "drawn": max_tiles})
        begin += layer.timing.cycles
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "unit": "1 cycle is shown as 1 us",
            "clock_hz": report.accelerator.clock_hz,
            "design": report.accelerator.name,
            **cost_sources(report.accelerator),
            "cycles": begin,
            "cycles_of": f"the whole batch, {report.images} images",
            "truncated": shortened,
            "note": (
                f"only the first {max_tiles} tiles of some layers are drawn, see truncated"
                if shortened
                else "every tile is drawn"
            ),
        },
    }


def _shown(report: DesignReport, names: Sequence[str] | None) -> list[LayerReport]:
    """The chosen layers, in the order in which they run."""
    if names is None:
        return list(report.layers)
    known = tuple(layer.layer.name for layer in report.layers)
    for name in [names] if isinstance(names, str) else names:
        if isinstance(names, str) or name not in known:
            raise ConfigError(
                f"write_timeline.layers must list names of {quoted(known)}, "
                f"got {show(name, str)}; {choose(name, known)}"
            )
    return [layer for layer in report.layers if layer.layer.name in names]


def _tracks(stages: Sequence[Sequence[str]]) -> list[str]:
    """The tracks of layers that pass these stages, a user's own stages where tiles pass them."""
    order = list(TRACK_NAMES)
    for passed in stages:
        for place, track in enumerate(passed):
            if track not in order:
                is_after = "array" in passed[:place]
                order.insert(len(order) if is_after else order.index("array"), track)
    used = {LAYERS, DMA}.union(*stages)
    return [track for track in order if track in used]


def _tiles(layer: LayerReport) -> int:
    return len(layer.timing.schedule.load_cycles)


def _names(design: str, tracks: list[str]) -> list[dict]:
    """Name the process and its threads, and put them in order."""
    events = [{"ph": "M", "pid": _PID, "name": "process_name", "args": {"name": design}}]
    for tid, track in enumerate(tracks):
        place = {"ph": "M", "pid": _PID, "tid": tid}
        events.append(
            {**place, "name": "thread_name", "args": {"name": TRACK_NAMES.get(track, track)}}
        )
        events.append({**place, "name": "thread_sort_index", "args": {"sort_index": tid}})
    return events


def _above_event(report: AboveReport, tracks: list[str], begin: int) -> dict:
    """A unit above the layers, from cycle `begin` on."""
    timing = report.timing
    return {
        "ph": "X", "pid": _PID, "tid": tracks.index(LAYERS), "name": f"{report.unit}, on frames",
        "ts": begin, "dur": timing.cycles, "cname": WORK_COLOUR,
        "args": {"cycles": timing.cycles, "bound_by": timing.bound_by},
    }  # fmt: skip


def _layer_events(report: LayerReport, tracks: list[str], begin: int, max_tiles: int) -> list[dict]:
    """One layer, from cycle `begin` on."""
    timing, name, tiles = report.timing, report.layer.name, _tiles(report)

    def slice_of(track: str, label: str, start: int, end: int, colour: str, args: dict) -> dict:
        return {
            "ph": "X", "pid": _PID, "tid": tracks.index(track), "name": label,
            "ts": begin + start, "dur": end - start, "cname": colour, "args": args,
        }  # fmt: skip

    slices = timeline(timing.schedule, max_tiles)
    about = {"cycles": timing.cycles, "bound_by": timing.bound_by, "tiles": tiles}
    events = [slice_of(LAYERS, name, 0, timing.cycles, WORK_COLOUR, about)]
    for each in slices:
        label, colour = _look(each)
        args = {"layer": name, "tile": each.tile, "step": each.step}
        args["blamed" if each.kind == "stall" else "limited_by"] = each.limit
        events.append(slice_of(each.track, label, each.start, each.end, colour, args))
    if tiles > max_tiles:
        for track in (DMA, *timing.schedule.stages):
            drawn = max((each.end for each in slices if each.track == track), default=0)
            if drawn < timing.cycles:
                label = f"not drawn: tiles {max_tiles} to {tiles - 1}"
                left = {"layer": name, "tiles": tiles, "drawn": max_tiles}
                events.append(slice_of(track, label, drawn, timing.cycles, LEFT_OUT_COLOUR, left))
    return events


def _look(each: TimelineSlice) -> tuple[str, str]:
    """Name and colour of a slice."""
    if each.kind == "stall":
        return f"stall: {each.limit.replace('_', ' ')}", STALL_COLOURS.get(
            each.limit, OWN_STALL_COLOUR
        )
    return each.step, WORK_COLOUR
