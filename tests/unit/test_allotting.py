"""How much each group shares at the start of a search."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from accelerators import ConfigError, preset
from codesign import StudyPlan, Workload, load_study, search
from codesign.evaluation.allotting import Borne, allotted, with_dials_allotted
from codesign.evaluation.evaluator import Evaluator
from codesign.report.chosen import chosen_text
from codesign.report.study_report import StudyReport, trial_rows
from codesign.report.tables import PARAMETER_NAMES, best_section
from codesign.space.described import described_space
from codesign.space.technique_space import TechniqueSpace
from simulator import decide
from tests.small_search import small_workload, table
from workloads import capture


def borne(parameter, work, errors):
    return Borne(dial=parameter, choices=(1, 2, 3), work=np.array(work), errors=np.array(errors))


def test_a_group_that_bears_more_shares_more():
    """Of the pairs that keep to 0.02, one price takes (1, 3): 0.001 + 0.012."""
    first = borne("first", [0.5, 0.4, 0.3], [0.001, 0.03, 0.2])
    later = borne("later", [0.5, 0.3, 0.1], [0.0, 0.004, 0.012])
    assert allotted([first, later], 0.02) == {"first": 1, "later": 3}
    assert allotted([first, later], 0.05) == {"first": 2, "later": 3}
    assert allotted([first, later], 1) == {"first": 3, "later": 3}


def test_no_choice_keeps_to_a_bound_below_all():
    only = borne("only", [0.5, 0.4, 0.3], [0.1, 0.2, math.inf])
    assert allotted([only], 0.01) is None
    assert allotted([only], 0.15) == {"only": 1}


@pytest.fixture(scope="module")
def workload():
    return small_workload()


@pytest.fixture(scope="module")
def space(workload):
    return TechniqueSpace.for_techniques(
        workload.trace, preset("every_64x64"), ("dense", "leaders"), grouping="all"
    )


@pytest.fixture(scope="module")
def wider(workload, space):
    return with_dials_allotted(space, workload)


def found_by(workload, space, storage, **settings):
    return search(workload, space, storage=storage, executor="inline", **settings)


def origins(result):
    return [trial.origin for trial in result.trials]


def must_not_measure(*_, **__):
    raise AssertionError("it was measured")


def test_one_error_takes_the_place_of_the_dials(workload, space):
    told = []
    wider = with_dials_allotted(space, workload, lambda done, runs: told.append((done, runs)))
    assert told == [(done, 9) for done in range(1, 10)]  # the choices of a tolerance
    names = [parameter.name for parameter in wider.parameters]
    given = [parameter.name for parameter in space.parameters]
    assert names == [*(n for n in given if n != "all.leaders.tolerance"), "output_error"]
    assert list(wider.start)[:3] == list(space.start)
    assert {*list(wider.start)[3:]} <= {"error_0.02", "error_0.08", "error_0.16"}
    (tolerances,) = wider.allotment.settings.values()
    assert list(tolerances) == sorted({*tolerances})  # of two alike the first
    for values in wider.start.values():
        design, policy = wider.build(values)
        tolerance = wider.allotment.at(values["output_error"])["all.leaders.tolerance"]
        assert {each.tolerance for each in getattr(policy, "policies", {}).values()} <= {tolerance}
        assert (design.leader_table is None) == (values["all.technique"] == "dense")
        expected = "dense" if values["all.technique"] == "dense" else f"leaders {tolerance:g}"
        assert wider.reuse_texts(values) == {"all": expected}
    assert described_space(wider.to_dict()) == wider


def test_a_dial_that_is_chosen_comes_before_what_is_allotted(wider):
    own = wider.narrowed({"all.leaders.tolerance": (0.1, 0.5)})
    start = own.start["start"] | {"all.leaders.tolerance": 0.5}
    assert {each.tolerance for each in own.build(start)[1].policies.values()} == {0.5}


def test_answers_keep_to_the_error_that_is_borne(workload, wider):
    start = wider.start["start"]
    for error in wider.allotment.errors:
        _, policy = wider.build(start | {"output_error": error})
        run = decide(workload.calibration, policy, model=workload.model)
        assert run.output_error <= error


def test_reports_tell_what_is_allotted(workload, space, tmp_path):
    found = found_by(workload, space, tmp_path, trials=3)
    dial, allotment = "all.leaders.tolerance", found.space.allotment
    told = StudyReport(result=found)
    for trial, row, each in zip(
        found.trials, trial_rows(found), told.to_dict()["trials"], strict=True
    ):
        is_dense = trial.parameters["all.technique"] == "dense"
        expected = None if is_dense else allotment.at(trial.parameters["output_error"])[dial]
        assert row[dial] == each["following"][dial] == expected
    (shown,) = (r for r in best_section(found, found.trials[0])["rows"] if r["name"] == dial)
    assert shown["best"] == shown["start"] == found.space.following(found.start.parameters)[dial]
    groups = {f"{group}.technique" for group in found.space.groups}
    assert {p.name for p in found.space.parameters} - groups <= set(PARAMETER_NAMES)


def test_accuracy_depends_on_the_error(wider):
    assert "output_error" in wider.of_decisions
    dense = wider.start["dense"]
    assert wider.settled(dense | {"output_error": wider.allotment.errors[-1]}) == dense


def test_what_no_policy_takes_is_not_chosen(workload, space):
    """LeaderReuse refuses a tolerance of 200, as a trial would tell."""
    bold = space.narrowed({"all.leaders.tolerance": (0.05, 0.1, 0.2, 200.0)})
    with pytest.raises(ConfigError, match="tolerance"):
        bold.build({**bold.start["start"], "all.leaders.tolerance": 200.0})
    (tolerances,) = with_dials_allotted(bold, workload).allotment.settings.values()
    assert {*tolerances} <= {0.05, 0.1, 0.2}


def test_where_no_choice_keeps_to_an_error_dials_are_chosen(workload, space):
    wild = space.narrowed({"all.leaders.tolerance": (150.0, 200.0)})
    found = with_dials_allotted(wild, workload)
    assert found.allotment is None
    assert [*found.start] == [*wild.start, "start_low", "start_high"]


def test_a_search_from_python_tries_them(workload, space, wider, tmp_path):
    found = found_by(workload, space, tmp_path, trials=len(wider.start) + 1)
    assert origins(found) == [*wider.start, "sampler"]
    for trial, start in zip(found.trials, wider.start.values(), strict=False):
        assert trial.parameters == start


def test_a_plan_tries_them(workload, wider, tmp_path):
    plan = StudyPlan(
        accelerator="every_64x64",
        techniques=("dense", "leaders"),
        grouping="all",
        trials=len(wider.start),
    )
    found = plan.search(workload, storage=tmp_path, executor="inline")
    assert origins(found) == list(wider.start)
    assert load_study(tmp_path).space.start == found.space.start


def test_a_study_that_goes_on_measures_nothing(workload, space, tmp_path, monkeypatch):
    whole = found_by(workload, space, tmp_path / "whole", trials=10)
    found_by(workload, space, tmp_path / "cut", trials=3)
    monkeypatch.setattr("codesign.evaluation.allotting.decide", must_not_measure)
    cut = found_by(workload, space, tmp_path / "cut", trials=10, resume=True)
    assert table(cut) == table(whole)
    # Nor does a space that was measured before, such as that of a study.
    again = found_by(workload, cut.space, tmp_path / "again", trials=10)
    assert table(again) == table(whole)


def test_a_study_goes_on_in_its_own_space_alone(workload, space, tmp_path):
    found_by(workload, space, tmp_path, trials=2)
    other = space.narrowed({"remaining": (0.35, 0.5)})
    fewer = replace(space, start={"start": space.start["start"]})
    less = TechniqueSpace.for_techniques(workload.trace, preset("leader_32x32"), ("leaders",))
    for another in (other, fewer, less):
        with pytest.raises(ConfigError, match="the design space must be what it was"):
            found_by(workload, another, tmp_path, trials=3, resume=True)


def test_nothing_is_kept_of_a_search_that_is_cut_off_as_it_measures(
    workload, space, tmp_path, monkeypatch
):
    def cut_off(done, _runs):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found_by(workload, space, tmp_path, trials=2, on_measured=cut_off)
    with pytest.raises(ConfigError, match=r"got none; start it without --resume"):
        found_by(workload, space, tmp_path, trials=2, resume=True)
    found = found_by(workload, space, tmp_path, trials=2)
    assert len(found.trials) == 2
    # What is there is found before anything is measured.
    monkeypatch.setattr("codesign.evaluation.allotting.decide", must_not_measure)
    with pytest.raises(ConfigError, match="must not exist, got a study"):
        found_by(workload, space, tmp_path, trials=2)


def test_a_study_that_was_cut_off_at_its_beginning_is_measured(
    workload, space, wider, tmp_path, monkeypatch
):
    """A process may die between the first line of the journal and what is searched."""
    monkeypatch.setattr("optuna.Study.set_user_attr", must_not_measure)
    with pytest.raises(AssertionError):
        found_by(workload, space, tmp_path, trials=2)
    monkeypatch.undo()
    found = found_by(workload, space, tmp_path, trials=2, resume=True)
    assert list(found.space.start) == list(wider.start)


def test_without_a_model_there_is_nothing_to_measure_with(workload, tmp_path):
    images = torch.tensor(workload.trace.inputs[0])
    blind = Workload(
        trace=capture(workload.model, images, path=tmp_path / "trace"), name="recorded alone"
    )
    space = TechniqueSpace.for_techniques(blind.trace, preset("leader_32x32"), ("leaders",))
    starts = with_dials_allotted(space, blind).start
    assert [*starts] == [*space.start, "start_low", "start_high"]
    for group in space.groups:  # of nine choices from 0.05 to 0.6
        assert starts["start_low"][f"{group}.leaders.tolerance"] == 0.15
        assert starts["start_high"][f"{group}.leaders.tolerance"] == 0.3
    found = found_by(blind, space, tmp_path, trials=len(starts) + 1)
    assert origins(found) == [*starts, "sampler"]
    with pytest.raises(ConfigError, match=r"'output_error' must be searched with a model"):
        with_dials_allotted(space.narrowed({"output_error": (0.1,)}), blind)


def test_errors_may_be_chosen(workload, space, wider, tmp_path, monkeypatch):
    some = wider.allotment.errors[2], wider.allotment.errors[4]
    asked = space.narrowed({"output_error": some})
    found = with_dials_allotted(asked, workload)
    for error in some:
        assert found.allotment.at(error) == wider.allotment.at(error)
    (parameter,) = (p for p in found.parameters if p.name == "output_error")
    assert parameter.choices == some
    found_by(workload, asked, tmp_path, trials=2)
    monkeypatch.setattr("codesign.evaluation.allotting.decide", must_not_measure)
    assert found_by(workload, asked, tmp_path, trials=3, resume=True).space == found
    for other in (space, space.narrowed({"output_error": some[:1]})):
        with pytest.raises(ConfigError, match="the design space must be what it was"):
            found_by(workload, other, tmp_path, trials=4, resume=True)


def test_errors_that_nothing_keeps_to_are_told(workload, space, wider):
    with pytest.warns(UserWarning, match="output_error 1e-09 is left out"):
        some = with_dials_allotted(space.narrowed({"output_error": (1e-9, 0.3)}), workload)
    assert some.allotment.errors == (0.3,)
    with pytest.raises(ConfigError, match=r"'output_error' must reach \S+, which .* add larger"):
        with_dials_allotted(space.narrowed({"output_error": (1e-9, 1e-8)}), workload)
    for wrong in ((0.04, 0.01), (-0.1, 0.1), ("a",)):
        with pytest.raises(ConfigError, match=r"'output_error' must be numbers"):
            space.narrowed({"output_error": wrong})
    with pytest.raises(ConfigError, match=r"'output_error' must be some of .* narrow the space"):
        wider.narrowed({"output_error": (0.0123,)})


def test_a_technique_that_a_group_may_not_choose_is_not_measured(workload):
    trace, told = workload.trace, []
    both = TechniqueSpace.for_techniques(trace, preset("every_64x64"), ("leaders",))
    first, second = both.groups
    some = both.narrowed({f"{first}.technique": ("dense",)})
    found = with_dials_allotted(some, workload, lambda *counts: told.append(counts))
    assert told[-1] == (9, 9)
    start = found.start["start"]
    assert found.reuse_texts(start)[first] == "dense"
    assert found.reuse_texts(start)[second].startswith("leaders ")


def test_an_allotment_is_of_the_dials_of_its_space(workload, wider):
    with pytest.raises(ConfigError, match="allotment must be an Allotment or None, got 5"):
        replace(wider, allotment=5)
    other = replace(wider.allotment, choices={"a": (1,)}, settings={"a": (1,)}, errors=(0.1,))
    with pytest.raises(ConfigError, match="allotment must be of the dials of its groups"):
        replace(wider, allotment=other)


def test_what_is_wrong_is_told_before_anything_is_measured(workload, space, tmp_path, monkeypatch):
    monkeypatch.setattr("codesign.evaluation.allotting.decide", must_not_measure)
    with pytest.raises(ConfigError, match="first_images must be fewer"):
        found_by(workload, space, tmp_path, trials=2, first_images=100)
    unlabelled = small_workload(labels=False).trace
    with pytest.raises(ConfigError, match=r"Workload\.held_out must be judged as the trace is"):
        found_by(replace(workload, held_out=unlabelled), space, tmp_path, trials=2)


def test_trials_are_judged_in_the_space_that_was_measured(workload, space, wider, tmp_path):
    others = replace(workload, held_out=replace(workload.trace))
    found = found_by(others, space, tmp_path, trials=5, first_images=3)
    assert found.space == wider
    assert {trial.state for trial in found.trials} == {"complete"}
    assert {*found.held_out.trials} == {trial.number for trial in found.front}


def test_each_technique_learns_what_it_needs(workload, space):
    """Filters are ranked by their weights, not by what hashing learns of activations."""
    assert not space.searches_policy
    both = TechniqueSpace.for_techniques(
        workload.trace, preset("every_64x64"), ("leaders", "dropped_columns"), grouping="all"
    )
    assert both.searches_policy
    values = both.start["dense"] | {"all.technique": "dropped_columns"}
    found = Evaluator.of(workload, both)(values)
    assert found.state == "complete", found.reason


def test_the_words_say_what_was_chosen_and_what_was_second(workload, space, tmp_path):
    found = found_by(workload, space, tmp_path / "study", trials=4, workers=1)
    best = found.best(accuracy_drop=None)
    told = " ".join(chosen_text(found, best))
    chose = best.parameters["all.technique"]
    words = "no technique in any group" if chose == "dense" else f"{chose} in all"
    assert told.startswith(f"It chose {words}.")
    others = {trial.parameters["all.technique"] for trial in found.judged} - {chose}
    assert others and ("Second, of other techniques" in told or "No trial with other" in told)
