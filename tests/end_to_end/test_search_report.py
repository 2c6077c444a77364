"""The report of a search: its sections, the designs it picks, and the pages behind them."""

import dataclasses
import html
import json
import re
from urllib.parse import unquote

import pytest

from accelerators import ConfigError
from codesign import load_study
from codesign.report.choices import Constraint, choices, measured, usual_constraints
from codesign.report.importance import LEAST_TRIALS, parameter_importance
from codesign.report.study_report import StudyReport
from codesign.report.tables import front_columns
from tests.small_search import TRIALS, small_search

SECTIONS = (
    "The Pareto front",
    "The front, trial by trial",
    "Which design to take",
    "The best design found",
    "The search",
    "Which parameters matter",
    "How these numbers were made",
)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return small_search(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def report(result):
    return StudyReport(result=result)


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    page, *_ = report.write(tmp_path_factory.mktemp("page") / "my report.html")
    return page


@pytest.mark.parametrize("quality, heading", [("miou", "Mean IoU"), ("accuracy", "Accuracy")])
def test_headings_keep_the_capitals_of_scores(result, quality, heading):
    specification = {**result.specification, "quality": quality}
    columns = front_columns(dataclasses.replace(result, specification=specification))
    assert heading in [each["name"] for each in columns]


def figures(text):
    return re.findall(r'data-figure="([\w-]+)-data"', text)


def links(text):
    # Scripts, which come after, hold some of their own.
    content = text[text.index("<main>") : text.index("</main>")]
    return {html.unescape(link) for link in re.findall(r'href="([^"]+)"', content)}


def with_trials(result, trials):
    return dataclasses.replace(result, trials=tuple(trials), asked=len(trials))


def without_values(trial, state):
    return dataclasses.replace(trial, state=state, values=None, summary={}, reason="why not")


def valued(trial, **values):
    """A trial with other values, and with the ratios that follow from them."""
    summary = trial.summary | {"speedup_equal_area": values["speedup"]}
    summary["energy_ratio_equal_area"] = values["energy_uj_per_image"] / 100
    return dataclasses.replace(trial, values=values, summary=summary)


def test_page_has_every_section_and_states_its_reference_points(page, result):
    text = page.read_text()
    places = [text.index(f">{title}</h") for title in SECTIONS]
    assert len(set(places)) == len(SECTIONS)
    for name in ("pareto", "projections", "space", "parallel", "hypervolume", "importance"):
        assert figures(text).count(name) == 1
    assert "speed 0, energy 2× the dense baseline" in text  # noqa: RUF001
    assert "speed 1, energy 1× the dense baseline" in text  # noqa: RUF001
    assert text.count("plotly.js v") == 1


def test_every_link_leads_to_a_simulation_with_its_design_as_python(page, report, result):
    text = page.read_text()
    numbers = set()
    for link in links(text):
        target = page.parent / unquote(link)
        assert target.is_file(), link
        numbers.add(int(target.stem))
    assert numbers == {trial.number for trial in report.designs}
    assert numbers >= {trial.number for trial in result.front} | {0}
    # Points open the same pages.
    assert set(re.findall(r"my%20report_designs\\u002f(\d+)\.html", text)) == {
        f"{number:03d}" for number in numbers
    }
    for trial in report.designs:
        target = page.parent / "my report_designs" / f"{trial.number:03d}.html"
        behind = target.read_text()
        assert html.escape(trial.summary["verdict"]) in behind
        assert "plotly.js v" not in behind and (target.parent / "plotly.min.js").is_file()
        assert links(behind) == {"../my%20report.html"}
        source = html.unescape(re.search(r'<pre id="design">(.*?)</pre>', behind, re.S).group(1))
        scope = {}
        exec(source, scope)
        accelerator, policy = result.design_of(trial)
        assert scope["accelerator"] == accelerator
        assert scope["policy"].describe() == policy.describe()


def test_pages_that_left_the_front_are_removed_and_other_files_kept(result, tmp_path):
    page = tmp_path / "report.html"
    StudyReport(result=result).write_html(page)
    folder = tmp_path / "report_designs"
    (folder / "999.html").write_text("of an earlier report")
    (folder / "notes.html").write_text("mine")
    StudyReport(result=with_trials(result, result.trials[:1])).write_html(page)
    assert {path.name for path in folder.iterdir()} == {"000.html", "notes.html", "plotly.min.js"}


def test_json_and_csv_hold_the_same(page, report, result):
    stored = json.loads(page.with_suffix(".json").read_text())
    assert stored["knee"] == result.knee.number
    assert stored["paying_point"]["speedup"] == 1.0
    assert stored["paying_hypervolume"] == list(result.paying_hypervolume)
    assert stored["importance"] == parameter_importance(result)
    assert len(stored["choices"]) == len(report.choices) == 6  # none, each of four, all
    for entry, choice in zip(stored["choices"], report.choices, strict=True):
        for sense, trial in choice.best.items():
            assert entry[sense] == (None if trial is None else trial.number)
    header, *rows = page.with_suffix(".csv").read_text().splitlines()
    assert len(rows) == TRIALS
    assert {"power_mw", "is_knee", "hypervolume", "paying_hypervolume"} <= set(header.split(","))


def test_volume_beyond_the_dense_baseline_by_hand(result):
    energy = result.baseline["energy_uj_per_image"]
    accuracy = result.baseline["accuracy"]
    worse = {"speedup": 0.9, "energy_uj_per_image": energy / 2, "accuracy": accuracy}
    better = {"speedup": 1.5, "energy_uj_per_image": energy / 2, "accuracy": accuracy}
    first, second, *_ = result.trials
    both = with_trials(result, [valued(first, **worse), valued(second, **better)])
    # The first is slower than dense; the second is better by 0.5, half the energy and 2 points.
    assert both.paying_hypervolume == pytest.approx((0, 0.5 * 0.5 * 0.02))


def test_best_under_a_constraint_may_lie_off_the_front(result):
    trials = [
        valued(trial, speedup=speed, energy_uj_per_image=energy, accuracy=accuracy)
        for trial, speed, energy, accuracy in zip(
            result.trials, (1.0, 3.0, 2.0, 2.0), (50, 80, 60, 70), (0.9, 0.8, 0.9, 0.85),
            strict=False,
        )
    ]  # fmt: skip
    areas = (2.0, 4.0, 4.0, 1.0)
    for index, area in enumerate(areas):
        summary = json.loads(json.dumps(trials[index].summary))
        summary["designs"]["reuse"]["area_mm2"] = area
        trials[index] = dataclasses.replace(trials[index], summary=summary)
    few = with_trials(result, trials)
    assert [trial.number for trial in few.front] == [0, 1, 2]
    small = Constraint(quantity="area_mm2", bound=1.5)
    accurate = Constraint(quantity="accuracy", bound=0.85)
    free, under, right, both = choices(few, [small, accurate])
    assert (free.best["fastest"].number, free.best["least_energy"].number) == (1, 0)
    # Energy-delay is 0.5 / 1, 0.8 / 3, 0.6 / 2 and 0.7 / 2; it decides between equal accuracies.
    assert (free.best["most_accurate"].number, free.best["least_energy_delay"].number) == (2, 1)
    assert {trial.number for trial in under.best.values()} == {3}
    assert [trial.number for trial in right.trials] == [0, 2, 3]
    assert both.trials == under.trials


def test_constraints_stated_with_a_search_take_the_place_of_the_usual(result):
    stated = {"area_mm2": 1.25, "accuracy_loss": 0.1}
    told = dataclasses.replace(
        result, specification={**result.specification, "constraints": stated}
    )
    bounds = {each.quantity: each.bound for each in usual_constraints(told)}
    usual = {each.quantity: each.bound for each in usual_constraints(result)}
    lost = result.baseline["accuracy"] - 0.1
    assert bounds == usual | {"area_mm2": 1.25, "accuracy": lost}


def test_power_is_energy_over_time(result):
    design = result.start.summary["designs"]["reuse"]
    picojoules = sum(design["energy_pj"].values())
    seconds = design["cycles"] / design["accelerator"]["clock_hz"]
    assert measured(result.start, "power_mw") == pytest.approx(picojoules * 1e-9 / seconds)


def test_an_unknown_quantity_is_refused():
    with pytest.raises(
        ConfigError, match=r"Constraint\.quantity must be one of 'accuracy', 'area_mm2'"
    ):
        Constraint(quantity="weight", bound=1.0)


def test_importance_finds_the_parameter_that_decides(result):
    decided = [
        valued(t, speedup=float(t.parameters["second.hashes"]), energy_uj_per_image=1.0,
               accuracy=float(t.number))
        for t in result.trials
    ]  # fmt: skip
    shares = parameter_importance(with_trials(result, decided))
    assert next(iter(shares["speedup"])) == "second.hashes"
    assert sum(shares["speedup"].values()) == pytest.approx(1)
    assert shares["energy_uj_per_image"] is None  # the same everywhere: undefined, not 0
    few = with_trials(result, decided[: LEAST_TRIALS - 1])
    assert set(parameter_importance(few).values()) == {None}


def test_a_constant_objective_is_said_to_be_undefined(result, tmp_path):
    same = [valued(t, **{**t.values, "accuracy": 1.0}) for t in result.trials]
    text = StudyReport(result=with_trials(result, same)).write_html(tmp_path / "a.html").read_text()
    assert "Undefined for accuracy, the same in every trial" in text
    assert "importance" in figures(text)


def test_one_complete_trial_has_a_report(result, tmp_path):
    rest = [without_values(trial, "infeasible") for trial in result.trials[1:]]
    for trials in (result.trials[:1], [result.trials[0], *rest]):
        page = StudyReport(result=with_trials(result, trials)).write(tmp_path / "one.html")[0]
        text = page.read_text()
        assert {"pareto", "projections", "space", "hypervolume"} <= set(figures(text))
        assert not {"parallel", "importance"} & set(figures(text))
        assert f"1 complete trials are too few, it takes {LEAST_TRIALS}" in text
        assert links(text) == {"one_designs/000.html"}


def test_only_infeasible_trials_have_a_report_without_pages(result, tmp_path):
    refused = with_trials(result, [without_values(t, "infeasible") for t in result.trials])
    report = StudyReport(result=refused)
    page, as_json, _ = report.write(tmp_path / "none.html")
    text = page.read_text()
    assert figures(text) == [] and links(text) == set()
    assert not (tmp_path / "none_designs").exists()
    stored = json.loads(as_json.read_text())
    assert stored["knee"] is None and stored["front"] == []
    assert stored["choices"][0]["fastest"] is None
    assert [c.quantity for c in usual_constraints(refused)] == ["accuracy"]


def test_report_of_a_resumed_study_is_that_of_a_whole_one(result, tmp_path):
    small_search(tmp_path / "study", trials=2)
    small_search(tmp_path / "study", trials=6, resume=True)
    pages = [
        StudyReport(result=each).write(tmp_path / name / "report.html")[0].read_text()
        for name, each in (
            ("whole", with_trials(result, result.trials[:6])),
            ("resumed", load_study(tmp_path / "study")),
        )
    ]
    # How long evaluations took and when inputs were captured is all that may differ.
    told = r"took \d+ seconds|captured at</dt><dd>[^<]+"
    whole, resumed = (re.sub(told, "", page).splitlines() for page in pages)
    assert [pair for pair in zip(whole, resumed, strict=True) if pair[0] != pair[1]] == []
