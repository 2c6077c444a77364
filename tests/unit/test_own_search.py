"""What a user adds to a search: an objective, a parameter, a policy; in Python and from a file."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import codesign.evaluation.workload
from accelerators import ConfigError, preset
from accelerators.units import AddressList
from codesign import OBJECTIVES, DesignSpace, Objective, Parameter, StudyPlan, load_study, search
from codesign.evaluation.objectives import QUALITIES, find_objectives, stored_objectives
from codesign.report.study_report import StudyReport, trial_rows
from codesign.space.parameters import read_choices
from simulator import LshReuse, PerforationReuse, PerLayer, decide, simulate
from simulator.results.lookup import given_design
from tests.small_search import small_search, small_space, small_workload, table

OWN = """
from dataclasses import dataclass
from codesign import Objective
from simulator import LshReuse

def read(report):
    return 1e3 / report.reuse.latency_ms_per_image / report.reuse.area_mm2

Frames = Objective(
    name="frames_per_s_mm2", words="frames", unit="frames per second and mm2", maximise=True,
    read=read,
)

@dataclass(frozen=True, kw_only=True)
class Mine(LshReuse):
    hashes: int = 6
    length: int = 9
"""
NAME = "frames_per_s_mm2"
POLICY = LshReuse(hashes=6, length=9)


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def frames(trial):
    """By hand, of what the trial's simulation says."""
    design = given_design(trial.summary)
    return 1e3 / design["latency_ms_per_image"] / design["area_mm2"]


def beats(one, other, objectives):
    signs = [1 if each.maximise else -1 for each in objectives]
    gains = [
        sign * (one.values[each.name] - other.values[each.name])
        for sign, each in zip(signs, objectives, strict=True)
    ]
    return min(gains) >= 0 and max(gains) > 0


@pytest.mark.parametrize("others", [OBJECTIVES, OBJECTIVES[2:]])
def test_an_own_objective_is_searched_stored_and_plotted(own, tmp_path, others):
    objectives = (*others, *find_objectives([f"{own}:Frames"]))
    settings = {"objectives": objectives, "trials": 7}
    result = small_search(tmp_path / "study", **settings)
    assert [each.name for each in result.objectives] == [each.name for each in objectives]
    for trial in result.trials:
        assert trial.values[NAME] == frames(trial)
    front = [t for t in result.trials if not any(beats(o, t, objectives) for o in result.trials)]
    distinct = {tuple(t.values.values()): t.number for t in reversed(front)}
    assert sorted(distinct.values()) == [trial.number for trial in result.front]
    assert load_study(tmp_path / "study") == result
    page, stored, _ = StudyReport(result=result).write(tmp_path / "page.html")
    text = page.read_text()
    assert "Best frames" in text and "frames, frames per second and mm2" in text
    best = json.loads(stored.read_text())["choices"][0][f"best_{NAME}"]
    assert frames(result.trials[best]) == max(map(frames, result.trials))
    assert [row[NAME] for row in trial_rows(result)] == [frames(each) for each in result.trials]
    # It goes on with the objective, and with no other.
    longer = small_search(tmp_path / "study", **settings | {"trials": 9}, resume=True)
    assert table(longer)[:7] == table(result)
    with pytest.raises(ConfigError, match="the objectives must be what it was"):
        small_search(tmp_path / "study", trials=9, resume=True)


def test_the_baseline_is_what_an_objective_reads_of_the_dense_design(own, tmp_path):
    objectives = (*OBJECTIVES, *find_objectives([f"{own}:Frames"]))
    result = small_search(tmp_path, objectives=objectives, trials=1)
    dense = simulate(small_workload().trace, preset("reuse_16x16")).dense_equal_area
    assert result.baseline[NAME] == 1e3 / dense.latency_ms_per_image / dense.area_mm2
    # A maximised number is of interest from nothing on, and pays from the baseline on.
    assert result.reference_point[NAME] == 0
    assert result.paying_point[NAME] == result.baseline[NAME]


def test_objectives_of_earlier_studies_are_those_of_this_program():
    stored = [
        {"name": "speedup", "unit": "x of a dense design of equal area", "maximise": True},
        {"name": "energy_uj_per_image", "unit": "uJ per image", "maximise": False},
        {"name": "accuracy", "unit": "fraction of images", "maximise": True},
    ]
    assert [each.to_dict() for each in OBJECTIVES] == stored
    for quality, accuracy in QUALITIES.items():
        assert stored_objectives(stored, quality) == (*OBJECTIVES[:2], accuracy)
        assert accuracy.to_dict() == stored[2]


def test_where_an_objective_begins_to_matter():
    for maximise, baseline, reference in ((True, 5.0, 0.0), (False, 5.0, 10.0), (True, -2.0, -4.0)):
        objective = Objective(name="x", words="x", unit="1", maximise=maximise)
        assert objective.reference(baseline) == reference
        assert objective.interesting(baseline) == objective.paying(baseline) == baseline
        hoped = objective.hoped(baseline)
        assert (hoped > baseline) == maximise and hoped != baseline


@pytest.mark.parametrize(
    ("objectives", "told"),
    [
        (OBJECTIVES[:2], "must be accuracy, which reuse pays with, and at least one other"),
        (OBJECTIVES[2:], "at least one other"),
        ((*OBJECTIVES, OBJECTIVES[0]), "each once"),
        (("speedup", "accuracy"), "must be a list of Objective"),
        (
            (*OBJECTIVES[1:], Objective(name="speedup", words="s", unit="1", maximise=True)),
            "got 'speedup' for another",
        ),
    ],
)
def test_objectives_that_cannot_be_searched_are_refused(tmp_path, objectives, told):
    with pytest.raises(ConfigError, match=told):
        small_search(tmp_path, objectives=objectives)


def test_an_objective_is_checked_where_it_is_made():
    with pytest.raises(ConfigError) as caught:
        Objective(name="per mm2", words="", unit="1", maximise="yes", read=3)
    for field in ("name", "words", "maximise", "read"):
        assert f"Objective.{field} must be" in str(caught.value)


def test_an_objective_that_raises_makes_a_failed_trial(tmp_path):
    asked = []

    def read(report):
        asked.append(report)
        return 1.0 if len(asked) == 1 else "fast"

    mine = Objective(name="mine", words="mine", unit="1", maximise=True, read=read)
    result = small_search(tmp_path, objectives=(*OBJECTIVES, mine), trials=1)
    assert result.trials[0].state == "failed"
    assert "objectives must be finite, got {'mine': 'fast'}" in result.trials[0].reason


def test_an_objective_that_is_no_number_of_the_dense_model_is_refused(tmp_path):
    mine = Objective(name="mine", words="mine", unit="1", maximise=True, read=lambda _: math.nan)
    with pytest.raises(ConfigError, match=r"finite, got \{'mine': nan\} of the dense model"):
        small_search(tmp_path, objectives=(*OBJECTIVES, mine), trials=1)


def test_a_search_keeps_units_that_it_does_not_vary():
    listed = AddressList(entries=4096)
    policy = PerforationReuse(computed=0.5)
    for name, searches_cache in (("dense_16x16", False), ("reuse_16x16", True)):
        base = replace(preset(name), address_list=listed)
        space = DesignSpace.for_policy(policy, base)
        assert ("cache.entries" in space.start["start"]) == searches_cache
        design, built = space.build(space.start["start"])
        assert built == policy and {*design.units} == {*base.units}
        assert design.address_list == listed


def test_choices_of_another_kind_are_refused(space):
    for name, choices in (("dram.bandwidth_bytes_per_cycle", (8, "fast")), ("dram.kind", (1,))):
        with pytest.raises(ConfigError, match=f"{name}' must be .* is now, got"):
            space.narrowed({name: choices})


@pytest.fixture(scope="module")
def space():
    return small_space(small_workload())


def test_any_field_of_a_design_is_a_parameter(space):
    wide = space.narrowed({"dram.bandwidth_bytes_per_cycle": (4, 16), "cache.ways": (4, 8)})
    assert [p.name for p in wide.parameters[:-1]] == [p.name for p in space.parameters]
    start = wide.start["start"]
    design, policy = wide.build(start | {"dram.bandwidth_bytes_per_cycle": 4})
    before, same = space.build(space.start["start"])
    assert design.dram.bandwidth_bytes_per_cycle == 4 and policy == same
    assert replace(design, dram=before.dram) == before
    own = Parameter(name="clock_hz", choices=(5e8, 1e9))
    by_hand = replace(
        space,
        parameters=(*space.parameters, own),
        start={name: values | {"clock_hz": 1e9} for name, values in space.start.items()},
    )
    assert by_hand.build(by_hand.start["start"])[0].clock_hz == 1e9
    assert "clock_hz" not in by_hand.of_decisions
    again = DesignSpace.from_dict(json.loads(json.dumps(wide.to_dict())))
    assert again.to_dict() == wide.to_dict() and again == wide


def test_a_field_of_the_policy_is_a_parameter(space):
    wide = space.narrowed({"policy.thresholds": ("zero", "spread")})
    _, policy = wide.build(wide.start["start"] | {"policy.thresholds": "zero"})
    assert {each.thresholds for each in policy.policies.values()} == {"zero"}
    assert wide.of_decisions == space.of_decisions | {"policy.thresholds"}


def test_an_unknown_field_is_told_with_the_nearest(space):
    for wrong, near in (
        ("dram.bandwith_bytes_per_cycle", "dram.bandwidth_bytes_per_cycle"),
        ("policy.treshold", "policy.thresholds"),
    ):
        with pytest.raises(ConfigError, match=rf"got '{wrong}'; did you mean '{near}'\?"):
            space.narrowed({wrong: (1, 2)})
    with pytest.raises(ConfigError, match=r"'clock_hz': Parameter\.choices must be different"):
        space.narrowed({"clock_hz": (1e9, 1e9)})


def test_choices_are_read_from_texts():
    texts = ["front_end.lanes=1..3", "clock_hz=5e8,1e9", "cache.replacement=lru,fifo", "x=true"]
    assert read_choices(texts) == {
        "front_end.lanes": (1, 2, 3),
        "clock_hz": (5e8, 1e9),
        "cache.replacement": ("lru", "fifo"),
        "x": (True,),
    }
    for wrong in ("lanes", "=1", "lanes=", "lanes=1,,2", "lanes=1..99999"):
        with pytest.raises(ConfigError, match="--parameter"):
            read_choices([wrong])


def test_an_own_policy_is_the_template_of_a_search(tmp_path):
    workload, base = small_workload(), preset("reuse_16x16")
    space = DesignSpace.for_policy(POLICY, base).narrowed(
        {"policy.hashes": (4, 6), "policy.length": (9, 27)}
    )
    design, policy = space.build(space.start["start"] | {"policy.length": 27})
    assert policy == replace(POLICY, length=27)
    assert (design.front_end.max_hashes, design.front_end.max_length) == (6, 27)
    result = search(workload, space, trials=5, storage=tmp_path, executor="inline")
    assert {trial.state for trial in result.trials} == {"complete"}
    # The first is as the same policy in every layer by name.
    first = result.trials[0]
    layers = {name: POLICY for name in ("first", "second")}
    alike, _ = space.build(first.parameters)
    run = decide(
        workload.trace, PerLayer(layers, POLICY), model=workload.model,
        calibration=workload.calibration,
    )  # fmt: skip
    assert first.values["accuracy"] == run.accuracy
    assert first.values["speedup"] == simulate(workload.trace, alike, run).speedup_equal_area
    read = load_study(tmp_path)
    assert read.trials == result.trials and read.space.to_dict() == space.to_dict()
    stored = read.design_of(first)[1]
    assert stored.describe()["hashes"] == 6 and "LshReuse(" in repr(stored)
    with pytest.raises(ConfigError, match="give the policy itself"):
        decide(workload.trace, stored)
    StudyReport(result=read).write(tmp_path / "page.html")


def test_a_study_file_names_what_is_the_users_own(own, tmp_path, monkeypatch):
    monkeypatch.setattr(codesign.evaluation.workload, "load_workload", lambda **_: small_workload())
    plan = StudyPlan(
        images=6,
        policy=f"{own}:Mine",
        parameters={"policy.hashes": (4, 6), "dram.bandwidth_bytes_per_cycle": (8, 16)},
        objectives=("speedup", "accuracy", f"{own}:Frames"),
        trials=3,
    )
    assert StudyPlan.load(plan.write(tmp_path / "plan.toml")) == plan
    result = plan.run(storage=tmp_path / "study", executor="inline")
    assert StudyPlan.load(tmp_path / "study" / "study.toml") == plan
    longer = replace(plan, trials=5)
    again = longer.run(storage=tmp_path / "study", executor="inline", resume=True)
    assert table(again)[:3] == table(result)
    assert table(longer.run(storage=tmp_path / "once", executor="inline")) == table(again)
    values = np.array([trial.values[NAME] for trial in again.trials])
    assert (values == [frames(trial) for trial in again.trials]).all()
    for wrong in ("none.py:Frames", f"{own}:Frame", f"{own}:read", "speed"):
        with pytest.raises(ConfigError, match=r"objective|file must exist"):
            replace(plan, objectives=("accuracy", wrong)).run(storage=tmp_path / "no")
