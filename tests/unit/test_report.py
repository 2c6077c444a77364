"""The pages and tables say what the results hold, and survive what is missing or hostile."""

import csv
import dataclasses
import json
import re

import pytest
import torch

from accelerators import PARTS, cost_table, preset
from codesign import load_study
from codesign.report.plots import hypervolume_figure, pareto_figure
from codesign.report.study_report import StudyReport, designs_compared
from codesign.report.tables import PARAMETER_NAMES, design_python, study_cards
from codesign.report.verdict import best_trial, verdict
from simulator import BLOCKS, LIMITS, DroppedColumns, NoReuse, simulate
from simulator.pages.figures import (
    LIMIT_COLOURS,
    PART_COLOURS,
    TRAFFIC_COLOURS,
    area_by_part,
    busy_by_layer,
    energy_by_part,
    time_by_limit,
    traffic_by_kind,
)
from simulator.pages.page import render
from simulator.pages.simulation_page import simulation_html
from simulator.results.differences import against_one, tone
from simulator.results.names import BOUND_MEANS, LIMIT_NAMES, PART_NAMES, TRAFFIC_NAMES
from simulator.results.stored import summary_problems
from simulator.results.tables import column, number, percent, shown
from tests.small_search import small_search, small_workload
from workloads import Gemm, WorkloadTrace, capture


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return small_search(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def report(result):
    return StudyReport(result=result, command="codesign search --out here")


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return report.write_html(tmp_path_factory.mktemp("page") / "report.html").read_text()


def dense_report():
    trace = WorkloadTrace.from_gemms([("fc", Gemm(m=64, n=32, k=48)), ("out", Gemm(m=9, n=8, k=7))])
    return simulate(trace, preset("dense_16x16"))


def embedded_figures(page: str) -> dict[str, dict]:
    found = re.findall(r'<script type="application/json" id="(.+?)-data">(.+?)</script>', page)
    return {name: json.loads(text) for name, text in found}


def test_every_block_and_part_has_a_name_a_colour_and_a_meaning():
    accelerator = preset("reuse_16x16")
    parts = set(dense_report().reuse.energy_pj) | set(
        simulate(
            WorkloadTrace.from_gemms([("fc", Gemm(m=4, n=4, k=4))]), accelerator
        ).reuse.area_by_part_mm2
    )
    assert set(LIMITS) == set(LIMIT_NAMES) == set(LIMIT_COLOURS) < set(BOUND_MEANS)
    assert set(BOUND_MEANS) <= {*PARTS, "dram"}
    assert set(BLOCKS) < set(LIMITS)
    assert len(set(LIMIT_COLOURS.values())) == len(LIMITS)
    for names, colours in ((LIMIT_NAMES, LIMIT_COLOURS), (TRAFFIC_NAMES, TRAFFIC_COLOURS)):
        assert set(names) == set(colours)
        assert len(set(names.values())) == len(names)
    assert set(dense_report().reuse.dram_bytes) < set(TRAFFIC_NAMES)
    assert parts <= set(PART_NAMES)
    assert set(PART_NAMES) == set(PART_COLOURS)
    assert len(set(PART_COLOURS.values())) == len(PART_COLOURS)


def test_what_needs_no_unit_is_compared_with_dense_on_a_dense_design(tmp_path):
    trace = capture(torch.nn.Linear(48, 64), torch.ones(64, 48))
    design = preset("dense_16x16")
    less = simulate(trace, design, DroppedColumns(columns={trace.layers[0].name: tuple(range(32))}))
    assert less.design == "reuse" and less.reuse.cycles < less.dense.cycles
    assert not summary_problems(json.loads(json.dumps(less.to_dict())))
    assert "Speed against dense" in simulation_html(less.to_dict())
    assert "of a dense design of equal area" in less.verdict
    assert simulate(trace, design, NoReuse()).design == "dense"


def test_a_stored_report_may_lack_a_part_that_its_design_lacks():
    summary = json.loads(json.dumps(dense_report().to_dict()))
    design = summary["designs"]["dense"]
    del design["area_by_part_mm2"]["address_list"], design["accelerator"]["address_list"]
    assert summary_problems(summary) == []  # as it was written before there was such a unit
    del design["area_by_part_mm2"]["array"]
    assert "area_by_part_mm2 must be a table of array, " in summary_problems(summary)[0]


def test_pieces_of_every_bar_add_up(result):
    designs = designs_compared(result, best_trial(result))
    each = list(designs.values())
    for figure, totals in (
        (time_by_limit(designs), [d["cycles"] / d["images"] for d in each]),
        (energy_by_part(designs), [d["energy_uj_per_image"] for d in each]),
        (area_by_part(designs), [d["area_mm2"] for d in each]),
        (
            traffic_by_kind(designs),
            [sum(d["dram_bytes"].values()) / 1024 / d["images"] for d in each],
        ),
    ):
        bars = [trace for trace in figure.data if trace.type == "bar"]
        for index, total in enumerate(totals):
            assert sum(bar.x[index] for bar in bars) == pytest.approx(total)


def test_dram_bytes_by_kind_are_the_bytes_that_are_priced():
    for layer in dense_report().reuse.layers:
        actions = layer.timing.actions
        moved = actions["dram", "read_byte"] + actions["dram", "write_byte"]
        assert sum(layer.timing.dram_bytes.values()) == moved > 0


def test_busy_panels_keep_every_cycle_where_small_layers_are_joined():
    layers = [("large", Gemm(m=4096, n=64, k=64))]
    layers += [(f"small{i}", Gemm(m=4, n=4, k=4)) for i in range(30)]
    design = simulate(WorkloadTrace.from_gemms(layers), preset("dense_16x16")).dense.to_dict()
    figure = busy_by_layer({"dense": design})
    (times,) = [trace for trace in figure.data if trace.type == "scatter"]
    assert list(times.x) == ["large", "30 small"]
    assert sum(times.y) == pytest.approx(design["cycles"])


def test_pareto_marks_the_front_the_start_and_the_best(result):
    figure = pareto_figure(result, best_trial(result))
    by_name = {trace.name: trace for trace in figure.data}
    complete = result.of_state("complete")
    front = by_name["on the Pareto front"]
    assert list(front.x) == [trial.values["speedup"] for trial in result.front]
    assert len(front.x) + len(by_name["beaten by another trial"].x) == len(complete)
    assert by_name["best found"].x == (best_trial(result).values["speedup"],)
    assert by_name["usual setting"].y == (result.start.values["energy_uj_per_image"],)
    assert by_name["dense, equal area of the start"].x == (1.0,)


def test_hypervolume_never_shrinks(result):
    curves = hypervolume_figure(result).data
    assert [list(curve.y) for curve in curves] == [
        list(result.hypervolume),
        list(result.paying_hypervolume),
    ]
    for curve in curves:
        assert len(curve.y) == len(result.trials)
        assert list(curve.y) == sorted(curve.y)


def test_page_is_one_file_with_its_plots_and_the_verdict_first(page, report):
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="', page)
    figures = embedded_figures(page)
    compared = {"time", "busy", "roofline", "traffic", "energy", "area"}
    found = {"pareto", "projections", "space", "parallel", "hypervolume", "importance"}
    assert set(figures) == found | compared
    assert page.count('<div class="plot"') == len(figures)
    body = page[page.index("<main>") :]
    assert body.index(report.verdict[:40]) < body.index('class="card"') < body.index("<figure")
    assert "codesign search --out here" in page
    assert "hwcomponents_45nm, 45 nm: " in page
    assert cost_table("hwcomponents_45nm").source in page.replace("&amp;", "&")


def test_names_from_users_cannot_break_out_of_the_page():
    hostile = "</script><script>alert(1)</script>"
    trace = WorkloadTrace.from_gemms([(hostile, Gemm(m=8, n=8, k=8))])
    html = simulation_html(simulate(trace, preset("dense_16x16")).to_dict())
    assert hostile not in html
    figures = embedded_figures(html)
    assert figures["busy"]["data"][0]["x"] == [hostile]


def test_simulation_page_of_a_dense_design_compares_nothing(tmp_path):
    report = dense_report()
    html = report.write_html(tmp_path / "dense.html").read_text()
    assert "runs dense" in report.verdict
    assert "Speed against dense" not in html
    assert "ms per image" in html


def test_simulation_page_gives_each_number_its_unit_and_baseline(result):
    summary = best_trial(result).summary | {"workload": result.specification["workload"]}
    html = simulation_html(summary)
    for text in (
        f"{summary['speedup_equal_area']:.2f}×",  # noqa: RUF001
        "dense design of equal area = 1",
        "Above 1 is faster",
        "Below 1 is less",
        "the dense model:",
        summary["verdict"].split(":")[0],
    ):
        assert text in html, text


def test_best_design_as_python_builds_the_same_design(result):
    accelerator, policy = result.design_of(best_trial(result))
    scope = {}
    exec(design_python(accelerator, policy), scope)
    assert scope["accelerator"] == accelerator
    assert scope["policy"].describe() == policy.describe()


def test_csv_has_a_row_for_each_trial_and_json_the_same_values(report, result, tmp_path):
    page, as_json, as_csv = report.write(tmp_path / "deep" / "report.html")
    assert page.is_file()
    with as_csv.open() as file:
        rows = list(csv.DictReader(file))
    stored = json.loads(as_json.read_text())
    assert len(rows) == len(stored["trials"]) == len(result.trials)
    for row, entry, trial in zip(rows, stored["trials"], result.trials, strict=True):
        assert int(row["trial"]) == entry["number"] == trial.number
        assert float(row["speedup_equal_area"]) == entry["values"]["speedup"]
        assert row["second.hashes"] == str(trial.parameters["second.hashes"])
    assert sum(row["on_front"] == "True" for row in rows) == len(result.front)
    assert stored["best"] == best_trial(result).number


def test_report_tells_of_trials_without_values(result, tmp_path):
    start, second, third, *rest = result.trials
    broken = dataclasses.replace(
        second, state="failed", values=None, summary={}, reason="Traceback: <boom>"
    )
    refused = dataclasses.replace(
        third, state="infeasible", values=None, summary={}, reason="Accelerator.cache.ways must"
    )
    mixed = dataclasses.replace(result, trials=(start, broken, refused, *rest))
    html = StudyReport(result=mixed).write_html(tmp_path / "mixed.html").read_text()
    assert "1 infeasible, 1 failed" in html
    assert "Traceback: &lt;boom&gt;" in html
    assert "Accelerator.cache.ways must" in html


def test_report_of_a_start_that_failed_still_shows_the_best(result, tmp_path):
    start, *rest = result.trials
    failed = dataclasses.replace(start, state="failed", values=None, summary={}, reason="boom")
    mixed = dataclasses.replace(result, trials=(failed, *rest))
    html = StudyReport(result=mixed).write_html(tmp_path / "mixed.html").read_text()
    assert "best found" in html


def test_report_of_nothing_complete_says_so(result, tmp_path):
    waiting = tuple(
        dataclasses.replace(trial, state="running", values=None, summary={})
        for trial in result.trials
    )
    report = StudyReport(result=dataclasses.replace(result, trials=waiting))
    assert report.verdict.startswith("No answer yet")
    html = report.write_html(tmp_path / "waiting.html").read_text()
    assert embedded_figures(html) == {}


def test_report_of_a_stored_study_is_the_same(tmp_path):
    fresh = small_search(tmp_path, trials=3)
    pages = [
        StudyReport(result=each).write(tmp_path / name / "report.html")[0].read_text()
        for each, name in ((fresh, "fresh"), (load_study(tmp_path), "stored"))
    ]
    assert pages[0] == pages[1]


def test_report_of_a_search_that_runs_or_was_stopped_says_so(tmp_path):
    seen = []

    def look(trial, done, trials):
        if done == 5:
            live = StudyReport(result=load_study(tmp_path))
            seen.append((live.verdict, live.to_dict()["progress"], live.write(tmp_path / "a.html")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_search(tmp_path, on_progress=look)
    ((told, progress, paths),) = seen
    assert told.startswith("So far, after 5 of 14 trials, while the search is running: Reuse ")
    assert progress == {"state": "running", "trials_asked_for": 14, "trials_told": 5}
    assert "5 of 14 trials so far, the search is running;" in paths[0].read_text()
    stopped = load_study(tmp_path)
    assert stopped.progress == "stopped"
    told, _ = verdict(stopped)
    assert told.startswith("After 5 of 14 trials, where the search was stopped: Reuse ")
    done = small_search(tmp_path, resume=True, trials=6)
    assert done.asked == 6 and done.progress == load_study(tmp_path).progress == "finished"
    assert verdict(done)[0].startswith("Reuse ")


def test_a_study_of_before_is_finished_where_nothing_waits(result):
    old = dataclasses.replace(result, asked=None)
    assert old.progress == "finished"
    start, *rest = result.trials
    waiting = dataclasses.replace(start, state="running", values=None, summary={})
    assert dataclasses.replace(old, trials=(*rest, waiting)).progress == "stopped"
    elsewhere = dataclasses.replace(old, trials=(*rest, waiting), in_use=None)
    assert elsewhere.progress == "unfinished"


def test_a_search_whose_best_design_is_dense_does_not_call_it_reuse(result):
    start = result.start
    dense = simulate(small_workload().trace, preset("dense_16x16")).to_dict()
    values = start.values | {"speedup": 1.0}
    only = dataclasses.replace(start, summary=dense, values=values)
    found = dataclasses.replace(result, trials=(only,), asked=1)
    told, _ = verdict(found)
    assert told.startswith(f"Reuse does not pay for {result.name}: the best design found reuses ")
    assert list(designs_compared(found, only)) == ["best found"]


@pytest.mark.parametrize(
    ("speedup", "energy", "accuracy", "opening"),
    [
        (1.5, 0.5, 1.0, "Reuse pays for"),
        (1.5, 1.5, 1.0, "Reuse pays in time, but not in energy, for"),
        (0.5, 0.5, 1.0, "Reuse pays in energy, but not in time, for"),
        (0.5, 1.5, 1.0, "Reuse does not pay for"),
        (1.5, 0.5, 0.1, "Reuse costs too much accuracy for"),
        (1.5, 0.999, 1.0, "Reuse pays in time and breaks even in energy for"),
        (1.001, 0.999, 1.0, "Reuse breaks even for"),
    ],
)
def test_verdict_follows_from_the_best_trial(result, speedup, energy, accuracy, opening):
    trial = result.start
    summary = trial.summary | {
        "speedup_equal_area": speedup,
        "energy_ratio_equal_area": energy,
        "intervals": {},
    }
    values = trial.values | {"speedup": speedup, "accuracy": accuracy}
    only = dataclasses.replace(trial, summary=summary, values=values)
    first, _ = verdict(dataclasses.replace(result, trials=(only,), asked=None))
    assert first.startswith(opening)
    assert f"{speedup:.2f}" in first
    tones = [card["tone"] for card in study_cards(result, only)[:2]]
    assert tones == [tone(against_one(speedup)), tone(-against_one(energy))]


def test_every_parameter_of_the_space_has_words(result):
    own = {p.name for p in result.space.parameters}
    layers = {
        f"{layer}.{x}" for layer in result.space.layers for x in ("reuse", "hashes", "length")
    }
    assert own - layers <= set(PARAMETER_NAMES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1234, "0.123"),
        (1.0, "1.00"),
        (118.4, "118"),
        (152660.4, "152,660"),
        (2.5e-7, "2.5e-07"),
        (3.2e12, "3.2e+12"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_unknown_is_a_dash_and_never_zero():
    assert shown(None) == percent(None) == "\N{EN DASH}"
    assert shown(0) == "0"
    assert shown(True) == "yes"


def test_cells_are_escaped():
    from jinja2 import DictLoader

    template = (
        '{% extends "page.html" %}{% import "macros.html" as parts %}'
        "{% block content %}{{ parts.table(columns, rows) }}{% endblock %}"
    )
    html = render(
        "t.html",
        DictLoader({"t.html": template}),
        {
            "kind": "k",
            "title": "<b>t</b>",
            "subtitle": "s",
            "columns": [column("a", "A", "unit", text=True)],
            "rows": [{"a": "<i>x</i>"}],
        },
    )
    assert "&lt;i&gt;x&lt;/i&gt;" in html
    assert "<b>t</b>" not in html
