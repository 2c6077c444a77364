import re
from dataclasses import replace

import pytest

import codesign.evaluation.workload
from accelerators import ConfigError
from codesign import Constraints, DesignSpace, StudyPlan, load_study
from codesign.report.study_report import StudyReport
from tests.small_search import small_workload, table

PLAN = StudyPlan(
    model="file.py:Net",
    inputs='a "quoted" video.mp4',
    images=6,
    weights="weights\\of.pth",
    parameters={"array.columns": (8, 16), "array.fold_timing": ("overlapped",)},
    constraints=Constraints(area_mm2=4.5, accuracy_loss=0.0),
    optimiser="tpe",
    trials=5,
    seed=3,
    first_images=2,
)


def test_a_plan_survives_its_file(tmp_path):
    for plan in (PLAN, StudyPlan(), replace(PLAN, fronts="out/nested", calibrate_under_reuse=True)):
        assert StudyPlan.load(plan.write(tmp_path / "study.toml")) == plan


def test_all_violations_are_told_together_with_their_place(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        "format_version = 1\n"
        '[workload]\nimages = 0\nprecision = "int4"\nmodle = "cifarnet"\n'
        "calibrate_under_reuse = 1\n"
        '[space]\naccelerator = "reuse_17"\nlayers = true\n'
        '[search]\noptimiser = "gpp"\nobjectives = ["speedup"]\nseed = -1\n'
        '[constraints]\narea_mm2 = 0\naccuracy_loss = "low"\n'
        "[serach]\n"
    )
    with pytest.raises(ConfigError) as caught:
        StudyPlan.load(path)
    text = str(caught.value)
    for told in (
        "workload.images must be an integer of at least 1, got 0; leave it out for 100",
        "workload.precision must be one of float32, int8, got 'int4'",
        "workload.calibrate_under_reuse must be true or false, got 1; leave it out",
        "workload.modle must be one of model, inputs, images, every, weights, calibration_images, "
        "calibrate_under_reuse, precision, output, classes_dimension, score, held_out, "
        "held_out_inputs, got 'modle'; did you mean workload.model?",
        "space.accelerator must be a preset, file.py:NAME or package.module:NAME, got 'reuse_17'",
        "space.layers must be an integer of at least 1, got True",
        "search.optimiser must be one of gp, gpsampler, botorch, tpe, nsga2, sobol, random, "
        "file.py:NAME or package.module:NAME, got 'gpp'",
        "search.objectives must be accuracy, which reuse pays with, and at least one other of "
        "speedup, energy_uj_per_image, accuracy and file.py:NAME, each once, got ['speedup']",
        "search.seed must be an integer of at least 0, got -1",
        "constraints.area_mm2 must be a number above 0, got 0",
        "constraints.accuracy_loss must be a number at least 0, got 'low'",
        "did you mean search?",
    ):
        assert f"{path}: {told}" in text or (told in text and "serach" in text)


def test_techniques_make_another_space(tmp_path):
    plan = replace(PLAN, techniques=("dense", "lsh"), grouping="all", parameters={})
    assert StudyPlan.load(plan.write(tmp_path / "study.toml")) == plan
    space = plan.space_for(small_workload())
    assert list(space.groups) == ["all"] and space.techniques == ("lsh",)
    with pytest.raises(ConfigError, match=r"space.techniques must be of dense, .*lsh.*got 'lhs'"):
        replace(PLAN, techniques=("dense", "lhs"))
    both = replace(plan, fronts="out/nested")
    with pytest.raises(ConfigError, match=r"techniques must be given without space.fronts"):
        both.space_for(small_workload())


def test_tiles_and_looks_are_parameters_of_a_policy():
    tiles = {"policy.scope": ("tile",), "policy.tile_rows": (16, 32)}
    looks = {"policy.tile_shape": ("strip", "block"), "policy.look_once": (False, True)}
    plan = replace(PLAN, parameters={**tiles, **looks})
    with pytest.warns(
        UserWarning, match=r"policy.scope image -> tile, policy.tile_rows None -> 16"
    ):
        space = plan.space_for(small_workload())
    values = next(iter(space.start.values())) | {"policy.look_once": True}
    _, policy = space.build(values)
    reuse = policy.policies["second"]
    assert (reuse.scope, reuse.tile_rows, reuse.look_once) == ("tile", 16, True)
    assert {*tiles, *looks} <= space.of_decisions


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("model = ", "must be TOML, got TOMLDecodeError: Invalid value"),
        ("", "format_version must be 1, got None; begin the file with format_version = 1"),
        ("format_version = 2", "format_version must be 1, got 2"),
        ("format_version = 1\nworkload = 3", r"workload must be a table, got 3; write \[workload"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, told):
    path = tmp_path / "study.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}:? {told}"):
        StudyPlan.load(path)


def test_the_same_rules_hold_for_the_object():
    with pytest.raises(ConfigError, match=r"workload\.images must be"):
        replace(PLAN, images=0)
    with pytest.raises(ConfigError, match=r"Constraints\.power_mw must be a number above 0"):
        Constraints(power_mw=float("nan"))


def test_choices_of_a_plan_narrow_the_space():
    space = replace(PLAN, layers=1).space_for(small_workload())
    choices = {p.name: p.choices for p in space.parameters}
    assert choices["array.columns"] == (8, 16) and {8, 16, 32} < {*choices["array.rows"]}
    assert choices["array.fold_timing"] == ("overlapped",)
    assert space.start["start"]["array.columns"] == 16
    assert DesignSpace.from_dict(space.to_dict()) == space
    assert space.narrowed({"array.columns": (2, 24)}).start["start"]["array.columns"] == 24


def test_choices_that_cannot_be_are_told_together():
    wrong = {
        "array.colums": (8,),
        "array.rows": (16, 8),
        "cache.ways": (),
        "array.fold_timing": ("slow",),
    }
    with pytest.raises(ConfigError) as caught:
        replace(PLAN, parameters=wrong).space_for(small_workload())
    text = str(caught.value)
    assert "got 'array.colums'; did you mean 'array.columns'?" in text
    assert "'array.rows' must be integers of at least 1 from small to large, got [16, 8]" in text
    assert "'cache.ways' must be a list of its choices, got ()" in text
    assert "'array.fold_timing' must be some of" in text and "got ['slow']" in text


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(codesign.evaluation.workload, "load_workload", lambda **_: small_workload())
    return replace(PLAN, constraints=Constraints(area_mm2=2.3), trials=6)


def test_a_study_directory_holds_what_runs_it_again(small, tmp_path):
    result = small.run(storage=tmp_path / "first", executor="inline")
    assert result.specification["constraints"] == {"area_mm2": 2.3}
    again = StudyPlan.load(tmp_path / "first" / "study.toml")
    assert again == small
    assert table(again.run(storage=tmp_path / "second", executor="inline")) == table(result)
    # The page tells it too.
    page = StudyReport(result=result).write_html(tmp_path / "page.html").read_text()
    assert 'id="study-file"' in page and "area_mm2 = 2.3" in page
    assert StudyReport(result=result).to_dict()["specification"]["plan"] == small.to_dict()


def test_a_database_holds_the_same_study_as_a_journal(small, tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"

    def interrupt(trial, finished, trials):
        if finished == 3:
            raise KeyboardInterrupt

    def second_search(trial, finished, trials):
        with pytest.raises(ConfigError, match="must not be in use, got a search that is running"):
            small.run(storage=url, resume=True)

    with pytest.raises(ConfigError, match=r"study\.db must hold a study, got none"):
        load_study(url)
    with pytest.raises(ConfigError, match="must be a study to go on with, got none"):
        small.run(storage=url, resume=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        small.run(storage=url, executor="inline", on_progress=interrupt)
    with pytest.raises(ConfigError, match="must not exist, got a study"):
        small.run(storage=url)
    result = small.run(storage=url, executor="inline", resume=True, on_progress=second_search)
    assert table(load_study(url)) == table(result)
    assert table(small.run(storage=tmp_path, executor="inline")) == table(result)


def test_a_foreign_database_is_refused(small, tmp_path):
    (tmp_path / "study.db").write_text("no database, and long enough to be read as a header " * 9)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(ConfigError, match="got a damaged or foreign database"):
        load_study(url)
    for url, told in (
        ("nosuch://me:secret@host/x", "nosuch"),
        ("postgresql://me:secret@127.0.0.1:1/x", "driver installed|foreign database"),
    ):
        with pytest.raises(ConfigError, match=told) as caught:
            small.run(storage=url)
        assert "secret" not in str(caught.value)


def test_grouping_without_effect_is_refused():
    techniques = ("dense", "lsh")
    for idle in ({"groups": 3}, {"grouping": "layer"}):
        with pytest.raises(ConfigError, match=r"must be given with space\.techniques, got none"):
            StudyPlan(**idle)
    for grouping in ("all", "layer1.*,layer2.*"):
        with pytest.raises(ConfigError, match=r"space\.groups must be given with .* leave it out"):
            StudyPlan(techniques=techniques, grouping=grouping, groups=3)
    for grouping in (None, "stage", "layer"):
        assert StudyPlan(techniques=techniques, grouping=grouping, groups=3).groups == 3
