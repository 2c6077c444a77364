"""How much each group shares at the start of a search."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from accelerators import ConfigError, preset
from codesign import StudyPlan, Workload, load_study, search
from codesign.evaluation.allotting import (
    Borne,
    allotted,
    further_starts,
    with_further_starts,
)
from codesign.space.technique_space import TechniqueSpace
from simulator import decide
from tests.small_search import small_workload, table
from workloads import capture


def borne(parameter, work, errors):
    return Borne(
        parameter=parameter, choices=(1, 2, 3), work=np.array(work), errors=np.array(errors)
    )


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
    return with_further_starts(space, workload)


def found_by(workload, space, storage, **settings):
    return search(workload, space, storage=storage, executor="inline", **settings)


def origins(result):
    return [trial.origin for trial in result.trials]


def must_not_measure(*_, **__):
    raise AssertionError("it was measured")


def test_starts_are_those_of_the_space_and_what_groups_bear(workload, space):
    told = []
    wider = with_further_starts(space, workload, lambda done, runs: told.append((done, runs)))
    assert list(wider.start) == [*space.start, *further_starts(wider)]
    assert told == [(done, 9) for done in range(1, 10)]  # the choices of a tolerance
    assert further_starts(space) == {}
    bold = [start["all.leaders.tolerance"] for start in further_starts(wider).values()]
    assert bold == sorted({*bold})  # of two alike the first
    design, policy = wider.build(next(iter(further_starts(wider).values())))
    assert design.leader_table is not None and policy.policies


def test_a_start_keeps_to_its_bound(workload, wider):
    for name, start in further_starts(wider).items():
        _, policy = wider.build(start)
        run = decide(workload.calibration, policy, model=workload.model)
        assert run.output_error <= float(name.removeprefix("error_"))


def test_what_no_policy_takes_is_not_chosen(workload, space):
    """LeaderReuse refuses a tolerance of 200, as a trial would tell."""
    bold = space.narrowed({"all.leaders.tolerance": (0.05, 0.1, 0.2, 200.0)})
    with pytest.raises(ConfigError, match="tolerance"):
        bold.build({**bold.start["start"], "all.leaders.tolerance": 200.0})
    starts = further_starts(with_further_starts(bold, workload))
    assert starts and all(start["all.leaders.tolerance"] < 200 for start in starts.values())


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
    starts = with_further_starts(space, blind).start
    assert [*starts] == [*space.start, "start_low", "start_high"]
    for group in space.groups:  # of nine choices from 0.05 to 0.6
        assert starts["start_low"][f"{group}.leaders.tolerance"] == 0.15
        assert starts["start_high"][f"{group}.leaders.tolerance"] == 0.3
    found = found_by(blind, space, tmp_path, trials=len(starts) + 1)
    assert origins(found) == [*starts, "sampler"]
