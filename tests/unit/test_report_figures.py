"""Timeline and roofline say what the report says."""

import json

import pytest

from accelerators import ConfigError, preset
from simulator import LIMITS
from simulator.pages.roofline import roofline
from simulator.pages.timeline import STALL_COLOURS, TRACK_NAMES, write_timeline
from simulator.results.design import DesignReport
from simulator.timing.pipeline import layer_timing
from tests.builders import even_decisions, matrix_layer


@pytest.fixture(scope="module")
def report():
    """A layer under reuse (three groups of four sub-matrices), and a dense one."""
    design = preset("reuse_16x16")
    first, second = matrix_layer("first", 300, 16, 40, 3), matrix_layer("second", 3, 10, 64, 3)
    decisions = even_decisions(first, length=10, clusters=20, groups=3)
    timings = [
        (first, layer_timing(first, decisions, design)),
        (second, layer_timing(second, None, design)),
    ]
    quality = {"first": {"remaining_ratio": decisions.remaining_ratio, "relative_mse": 0.0}}
    return DesignReport.of(design, timings, 3, quality)


def slices_by_track(trace):
    names = {
        event["tid"]: event["args"]["name"]
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    }
    tracks = {name: [] for name in names.values()}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            tracks[names[event["tid"]]].append(event)
    return tracks


def check(trace, cycles):
    """No track does two things at once; every layer ends at its cycles."""
    tracks = slices_by_track(trace)
    for slices in tracks.values():
        slices.sort(key=lambda each: each["ts"])
        assert all(each["dur"] > 0 for each in slices)
        ends = [each["ts"] + each["dur"] for each in slices]
        assert all(end <= each["ts"] for end, each in zip(ends[:-1], slices[1:], strict=True))
    begin = 0
    for layer, taken in cycles.items():
        ends = [
            each["ts"] + each["dur"]
            for track, slices in tracks.items()
            for each in slices
            if track != "layers" and each["args"]["layer"] == layer
        ]
        begin += taken
        assert max(ends) == begin
    assert [each["ts"] + each["dur"] for each in tracks["layers"]][-1] == begin
    return tracks


def test_timeline_is_a_trace_of_all_layers(report, tmp_path):
    trace = json.loads(write_timeline(report, tmp_path / "all.json").read_text())
    cycles = {layer.layer.name: layer.timing.cycles for layer in report.layers}
    tracks = check(trace, cycles)
    # No tile passes the other ways of looking.
    others = {TRACK_NAMES[name] for name in ("matching", "following")}
    assert list(tracks) == [name for name in TRACK_NAMES.values() if name not in others]
    assert trace["otherData"]["cycles"] == report.cycles
    assert trace["otherData"]["unit"] == "1 cycle is shown as 1 us"
    assert trace["otherData"]["truncated"] == []
    # Three groups of four tiles, each hashed once.
    hashing = [each for each in tracks[TRACK_NAMES["hashing"]] if each["name"] == "hashing"]
    assert len(hashing) == 12
    stalls = [each for slices in tracks.values() for each in slices if "stall" in each["name"]]
    assert stalls
    for stall in stalls:
        assert stall["cname"] == STALL_COLOURS[stall["args"]["blamed"]]


def test_every_limit_has_a_colour():
    assert tuple(STALL_COLOURS) == LIMITS
    assert len(set(STALL_COLOURS.values())) == len(LIMITS)


def test_timeline_of_one_layer_starts_at_zero(report, tmp_path):
    trace = json.loads(write_timeline(report, tmp_path / "one.json", ["second"]).read_text())
    tracks = check(trace, {"second": report.layers[1].timing.cycles})
    assert list(tracks) == ["layers", "DMA", "systolic array"]


def test_timeline_says_what_it_leaves_out(report, tmp_path):
    whole = json.loads(write_timeline(report, tmp_path / "all.json").read_text())
    short = json.loads(write_timeline(report, tmp_path / "short.json", max_tiles=5).read_text())
    assert short["otherData"]["truncated"] == [{"layer": "first", "tiles": 12, "drawn": 5}]
    assert "only the first 5 tiles" in short["otherData"]["note"]
    tracks = check(short, {layer.layer.name: layer.timing.cycles for layer in report.layers})
    left_out = [
        each for slices in tracks.values() for each in slices if "not drawn" in each["name"]
    ]
    assert {each["name"] for each in left_out} == {"not drawn: tiles 5 to 11"}
    # What is drawn lies where it lies in the whole timeline.
    drawn = [each for each in short["traceEvents"] if each not in left_out]
    assert all(each in whole["traceEvents"] for each in drawn)


def test_timeline_names_unknown_layers(report, tmp_path):
    message = r"layers must list names of one of 'first', 'second', got 'secnd'; use 'second'"
    with pytest.raises(ConfigError, match=message):
        write_timeline(report, tmp_path / "x.json", ["secnd"])
    with pytest.raises(ConfigError, match="must list names"):
        write_timeline(report, tmp_path / "x.json", "first")
    with pytest.raises(ConfigError, match=r"max_tiles must be .* got 0; use 1 or more"):
        write_timeline(report, tmp_path / "x.json", max_tiles=0)


def test_roofline_points_lie_below_their_roofs(report):
    described = report.to_dict()
    plain = preset("reuse_16x16").without_reuse()
    layer = report.layers[0].layer
    dense = DesignReport.of(plain, [(layer, layer_timing(layer, None, plain))], 3).to_dict()
    figure = roofline({"dense": dense, "reuse": described})
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    peak, bandwidth = 256, plain.dram.bandwidth_bytes_per_cycle
    assert max(by_name["reuse: roofs"].y) == peak
    for trace in by_name.values():
        if trace.mode != "markers":
            continue
        assert all(y <= bandwidth * x * (1 + 1e-9) for x, y in zip(trace.x, trace.y, strict=True))
        if trace.name != "reuse: dense-equivalent MACs":
            assert max(trace.y) <= peak
    # The layer under reuse has both points; the dense ones have one.
    done, instead = by_name["reuse: MACs done"], by_name["reuse: dense-equivalent MACs"]
    assert (len(done.x), len(instead.x)) == (1, 2)
    first = described["layers"][0]
    assert instead.y[0] == 300 * 16 * 40 / first["cycles"]
    assert done.y[0] == first["macs"] / first["cycles"] == instead.y[0] * 20 / 100
    assert "dense: MACs done" not in by_name
    assert tuple(instead.marker.symbol) == ("diamond", "circle")
    assert done.marker.symbol == ("diamond-open",)
    assert "dense" in figure.layout.yaxis.title.text
