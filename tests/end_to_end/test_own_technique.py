"""The policy of `docs/own_technique.md`, in a file of a user, on every way through the house."""

import importlib
import json
import re
import subprocess
import sys
from csv import DictReader
from pathlib import Path

import numpy as np
import pytest

from accelerators import ConfigError, preset
from accelerators.units import AddressList
from codesign.study.sweep import read_settings, sweep
from simulator import (
    Decisions,
    DepthDecisions,
    ReusedForward,
    ReusePolicy,
    calibrate,
    decide,
    decide_stream,
    simulate,
)
from simulator.pages.figures import busy_by_layer, time_by_limit
from simulator.pages.timeline import write_timeline
from simulator.results.design_tables import layer_table
from simulator.results.stored import summary_problems
from workloads import capture, digits, trained_cifarnet

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own_technique.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a user keeps the page's files."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.S)
    assert [name for name, _ in blocks] == ["unchanged.py", "test_unchanged.py", "comparer.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    lines = [line for _, text in blocks for line in text.splitlines() if line.strip()]
    assert len(lines) < 60
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_suite_runs_where_the_user_is(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}", "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_still_frames_cost_nothing(folder):
    policy = importlib.import_module("unchanged").Unchanged(0.0)
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(2).images
    frames = [images[:1], images[:1], images[1:]]
    runs = list(decide_stream([capture(model, x) for x in frames], policy, model=model))
    work = [sum(made.macs for made in run.decisions.values()) for run in runs]
    assert work[1] == 0 and 0 < work[2] < work[0]
    assert [run.output_mse < 1e-9 for run in runs] == [True] * 3
    assert runs[0].decisions["conv1"].units == ("row_comparer", "address_list")
    with pytest.raises(ConfigError, match="must keep nothing over a stream"):
        ReusedForward(policy)(model, frames[0])


def test_a_unit_is_timed_and_priced(folder):
    comparer = importlib.import_module("comparer")
    policy = importlib.import_module("unchanged").Unchanged(0.0)
    images = digits("test").take(1).images
    model, _ = trained_cifarnet("digits")
    traces = [capture(model, images)] * 2
    runs = list(decide_stream(traces, policy, model=model))
    base = preset("dense_16x16")
    unit, listed = comparer.RowComparer(lanes=16), AddressList(entries=4096)
    design = comparer.Watching(**vars(base) | {"row_comparer": unit, "address_list": listed})
    for engine in ("compiled", "event"):
        first, second = (simulate(traces[0], design, run, engine=engine).reuse for run in runs)
        assert second.cycles < first.cycles and second.layers[0].timing.macs == 0
        # Each element of the rows is compared once, 16 a cycle.
        sizes = [layer.gemm.count * layer.gemm.m * layer.gemm.k for layer in traces[0].layers]
        assert [each.timing.actions["row_comparer", "compare"] for each in second.layers] == sizes
        assert second.busy_cycles["row_comparer"] >= sum(sizes) / 16
        assert sum(second.critical_cycles.values()) == second.cycles
        assert second.energy_pj["row_comparer"] > 0 < second.area_by_part_mm2["row_comparer"]
    with pytest.raises(ConfigError, match="none here has a row_comparer"):
        simulate(traces[0], base, runs[0])


def test_a_unit_that_sets_the_pace_is_on_every_page_in_its_words_and_colour(folder):
    comparer = importlib.import_module("comparer")
    policy = importlib.import_module("unchanged").Unchanged(0.0)
    trace = capture(trained_cifarnet("digits")[0], digits("test").take(1).images)
    parts = {
        "row_comparer": comparer.RowComparer(lanes=1),
        "address_list": AddressList(entries=4096),
    }
    design = comparer.Watching(**vars(preset("dense_16x16")) | parts)
    report = simulate(trace, design, policy)
    assert report.reuse.bound_by == "row_comparer"
    stored = json.loads(report.write_json(folder / "report.json").read_text())
    assert summary_problems(stored) == []
    words, colour = "row comparer", "#5f9e6e"
    designs = {"reuse": stored["designs"]["reuse"]}
    for figure in (time_by_limit(designs), busy_by_layer(designs)):
        assert {bar.name: bar.marker.color for bar in figure.data}[words] == colour
    assert words in {row["bound"] for row in layer_table(stored)[1]}
    assert f"The {words} sets the pace" in report.write_html(folder / "page.html").read_text()
    with report.write_csv(folder / "rows.csv").open() as file:
        blamed = [int(row["blamed_row_comparer_cycles_per_batch"]) for row in DictReader(file)]
    assert sum(blamed) == report.reuse.critical_cycles["row_comparer"] > 0
    lanes = read_settings(["row_comparer.lanes=1,4"], design)
    assert sweep(trace, design, policy, lanes).rows[0]["bound"] == words
    drawn = json.loads(write_timeline(report.reuse, folder / "timeline.json").read_text())
    named = [each["args"] for each in drawn["traceEvents"] if each["name"] == "thread_name"]
    assert [each["name"] for each in named] == ["layers", "DMA", "watching", "systolic array"]


class HalfSums(ReusePolicy):
    """Sums end after the half that a calibration found the larger weights in."""

    def needs_calibration(self, layer):
        return True

    def calibrate(self, layer, rows, weights=None):
        return {"size": np.abs(weights()).sum(axis=(0, 2))}

    def decide(self, layer, rows, state):
        gemm = layer.gemm
        depth = DepthDecisions(
            gemm=gemm,
            terms=np.full((1, 1, 1), (gemm.k + 1) // 2, np.int32),
            order=np.argsort(-state["size"]),
            zeroed=False,
        )
        return Decisions(layer=layer.name, gemm=gemm, depth=depth)

    def describe(self):
        return {"policy": "half_sums"}


class Anything(ReusePolicy):
    """Gives what no executor can read."""

    def __init__(self, made):
        self.made = made

    def decide(self, layer, rows, state):
        return self.made

    def describe(self):
        return {"policy": "anything"}


def test_what_is_no_decision_of_the_layer_is_refused():
    trace = capture(trained_cifarnet("digits")[0], digits("test").take(1).images)
    other = Decisions(layer="fc3", gemm=trace.layers[0].gemm)
    for made, told in ((17, "got int"), (other, "got 'fc3' of")):
        with pytest.raises(ConfigError, match=f"Anything.decide must give Decisions .*{told}"):
            decide(trace, Anything(made))


def test_a_policy_of_ones_own_decides_and_trains_as_any_other():
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(4).images
    trace, policy = capture(model, images), HalfSums()
    run = decide(trace, policy, model=model, calibration=calibrate(trace, policy))
    reuse = ReusedForward(policy)
    outputs = reuse(model, images)
    error = np.square(outputs.detach().numpy() - trace.outputs).mean()
    assert run.output_mse == pytest.approx(error, rel=1e-5) and error > 0
    removed = 1 - sum(x.gemm.count * x.gemm.m * ((x.gemm.k + 1) // 2) for x in trace.layers) / sum(
        x.gemm.count * x.gemm.m * x.gemm.k for x in trace.layers
    )
    assert reuse.removed_fraction() == pytest.approx(removed)
