"""Work above the layers: cycles, bytes and actions by hand, and its row in every report."""

import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest

from accelerators import Accelerator, ConfigError, Dram, FrameDifferencer, preset
from accelerators.rules import integer, part
from accelerators.units import Item, Unit
from simulator import EveryNthFrame, FrameDecisions, simulate
from simulator.decisions.frame_evidence import FrameDifferences, FrameEvidence
from simulator.pages.timeline import write_timeline
from simulator.results.stored import summary_problems
from simulator.timing.above import above_timings
from simulator.timing.stages import AboveStage, Work, register_above
from tests.builders import roomy_design
from workloads import capture, digits, trained_cifarnet


def looked_at(**changes):
    """Three frames of 100 elements; the second and third are compared with the first."""
    given = {
        "elements": 100,
        "comparisons": np.array([0, 1, 1]),
        "held": np.array([True, False, False]),
    }
    return FrameDecisions(
        frames=3, answers=np.arange(3), evidence=(FrameDifferences(**(given | changes)),)
    )


def design_with(**unit):
    dram = Dram(bandwidth_bytes_per_cycle=10, latency_cycles=3, burst_bytes=8)
    return roomy_design(dram=dram, frame_differencer=FrameDifferencer(**unit))


def test_differences_by_hand():
    design = design_with(lanes=4, latency_cycles=8)
    ((name, timing),) = above_timings(looked_at(), (), design)
    assert name == "frame_differencer"
    # Two comparisons of 100 elements, 4 a cycle: 25 cycles each. Both frames come from the DRAM:
    # 200 bytes are 25 bursts of 8, at 10 bytes a cycle 20 cycles, hidden behind the 25. Then 8
    # cycles of latency, and 3 of the DRAM's.
    assert timing.cycles == 2 * (25 + 8 + 3) == 72
    assert timing.critical_cycles["frame_differencer"] == 66
    assert timing.critical_cycles["dram"] == 6 and timing.bound_by == "frame_differencer"
    assert timing.busy_cycles["frame_differencer"] == 50 and timing.busy_cycles["dram"] == 40
    assert timing.dram_bytes["compared_frames"] == 400
    assert timing.actions == {
        ("frame_differencer", "square"): 200,
        ("frame_differencer", "compare"): 2,
        ("dram", "read_byte"): 400,
        ("dram", "write_byte"): 0,
    }


def test_a_frame_that_is_held_is_read_once():
    ((_, timing),) = above_timings(looked_at(), (), design_with(lanes=25, held_bytes=100))
    # Each of the three frames is read once: 100 bytes are 13 bursts, 104 bytes, 11 cycles; which
    # are more than the 4 of the lanes.
    assert (
        timing.dram_bytes["compared_frames"] == 300 and timing.actions["dram", "read_byte"] == 312
    )
    assert timing.cycles == (11 + 3) + 2 * (11 + 8 + 3) == 58
    assert timing.bound_by == "dram"
    assert timing.actions["frame_differencer", "write_byte"] == 100
    assert timing.actions["frame_differencer", "read_byte"] == 200
    # Two places of which one fits: all is read from the DRAM again.
    ((_, again),) = above_timings(looked_at(places=2), (), design_with(lanes=25, held_bytes=199))
    assert again.dram_bytes["compared_frames"] == 400
    assert ("frame_differencer", "write_byte") not in again.actions


def test_blocks_are_weighted_one_a_cycle():
    design = design_with(lanes=4, latency_cycles=0)
    ((_, whole),) = above_timings(looked_at(), (), design)
    ((_, blocks),) = above_timings(looked_at(blocks=9), (), design)
    assert blocks.cycles == whole.cycles + 2 * 9
    assert blocks.actions["frame_differencer", "weigh"] == 18


def test_counts_of_other_frames_are_refused():
    with pytest.raises(ConfigError, match=r"comparisons must be counted for each of 3 frames, got"):
        looked_at(comparisons=np.array([0, 1]))
    with pytest.raises(ConfigError, match=r"FrameDifferences\.elements must be an integer"):
        looked_at(elements=0)


class Watched(EveryNthFrame):
    """Every n-th frame, with a look at each pixel."""

    def frames(self, trace):
        made = super().frames(trace)
        places = np.arange(trace.images)
        evidence = FrameDifferences(
            elements=trace.inputs[0][0].size,
            comparisons=(places > 0).astype(np.int64),
            held=places == 0,
        )
        if made is None:
            return FrameDecisions(frames=trace.images, answers=places, evidence=(evidence,))
        return replace(made, evidence=(evidence,))


@pytest.fixture(scope="module")
def frames():
    model = trained_cifarnet("digits")[0]
    return model, capture(model, digits("test").take(4).images)


def test_a_report_has_a_row_for_it(frames, tmp_path):
    model, trace = frames
    design = replace(preset("dense_16x16"), frame_differencer=FrameDifferencer(lanes=4))
    report = simulate(trace, design, Watched(n=2), model=model)
    plain = simulate(trace, design, EveryNthFrame(n=2), model=model)
    (row,) = report.reuse.above
    # 3 x 32 x 32 pixels, 4 a cycle, and 8 cycles of latency, three times.
    assert row.timing.cycles == 3 * (3072 // 4 + 8)
    assert report.reuse.cycles == plain.reuse.cycles + row.timing.cycles
    assert report.reuse.total_energy_pj == pytest.approx(
        plain.reuse.total_energy_pj + sum(row.energy_pj.values())
    )
    assert report.agreement == plain.agreement
    told = report.to_dict()
    assert [each["unit"] for each in told["designs"]["reuse"]["above"]] == ["frame_differencer"]
    assert summary_problems(json.loads(json.dumps(told))) == []
    told["designs"]["reuse"]["above"][0]["cycles"] += 7000
    assert any("designs.reuse.cycles" in each for each in summary_problems(told))
    lines = report.write_csv(tmp_path / "report.csv").read_text().splitlines()
    assert sum(",above_layers,0,0,0," in line for line in lines) == 1
    assert "frame differencer, on frames" in report.write_html(tmp_path / "page.html").read_text()
    drawn = json.loads(write_timeline(report.reuse, tmp_path / "timeline.json").read_text())
    assert drawn["otherData"]["cycles"] == report.reuse.cycles


def test_looking_in_vain_is_not_free(frames):
    model, trace = frames
    design = replace(preset("dense_16x16"), frame_differencer=FrameDifferencer())
    report = simulate(trace, design, Watched(n=1), model=model)
    assert report.design == "reuse" and report.output_mse == 0
    assert report.reuse.cycles > report.dense.cycles
    assert "differencer" not in simulate(trace, design, model=model).to_dict()["verdict"]


def test_a_design_without_the_unit_is_refused(frames):
    _, trace = frames
    message = r"must have frame_differencer to run decisions on frames, which look at differences"
    with pytest.raises(ConfigError, match=message):
        simulate(trace, preset("dense_16x16"), Watched(n=2))


@dataclass(frozen=True, kw_only=True)
class Clock(Unit):
    words, colour, exploits = "clock", "#123456", True
    ticks: int = field(metadata=integer(1, 100))

    def bill(self, design):
        return [Item(1, "comparator", {"bits": 8})]

    def prices(self, design, table):
        return {"tick": 1.0}


@dataclass(frozen=True, kw_only=True)
class Clocked(Accelerator):
    clock: Clock | None = field(default=None, metadata=part(Clock, optional=True))


@dataclass(frozen=True, kw_only=True)
class Ticks(FrameEvidence):
    units: ClassVar[tuple[str, ...]] = ("clock",)
    words: ClassVar[str] = "ticks"


def test_a_unit_of_ones_own_works_above_the_layers():
    decided = FrameDecisions(frames=2, answers=np.arange(2), evidence=(Ticks(),))
    with pytest.raises(ConfigError, match="none here has a clock"):
        above_timings(decided, (), roomy_design())
    design = Clocked(**vars(roomy_design()) | {"clock": Clock(ticks=5)})
    with pytest.raises(ConfigError, match=r"a stage above the layers for clock to"):
        above_timings(decided, (), design)

    @register_above
    class Ticking(AboveStage):
        units = ("clock",)

        def work(self):
            cycles = self.accelerator.clock.ticks
            return Work(
                limits={"clock": cycles},
                busy_cycles={"clock": cycles},
                actions=lambda: {("clock", "tick"): 2 * cycles},
            )

    ((name, timing),) = above_timings(decided, (), design)
    assert (name, timing.cycles, timing.busy_cycles["clock"]) == ("clock", 10, 10)

    class Broken(Ticking):
        def work(self):
            return Work(limits={"clock": 1.5}, busy_cycles={})

    Broken.__qualname__ = Ticking.__qualname__
    register_above(Broken)
    with pytest.raises(ConfigError, match=r"Broken.work: limits\['clock'\] must be whole cycles"):
        above_timings(decided, (), design)
