"""The study of how a search scales, on what is so small that its answer is known."""

from importlib import import_module

import pytest

from tests.small_search import small_search


@pytest.fixture(scope="module")
def study():
    return import_module("010_how_search_scales")


def test_the_model_is_bound_by_the_evaluations_or_by_the_driver(study):
    driver = study.Driver(
        question={}, processor={}, store=0.1875, trip=0.0625, put=0.1, megabytes=1.0
    )
    # Half a second of the driver for a trial: one before, then four evaluations, or two and two.
    assert driver.rate(4, 1, 2.0, 0.25) == 4 / (0.5 + 8.0)
    assert driver.rate(4, 2, 2.0, 0.25) == 4 / (0.5 + 4.0)
    assert driver.rate(4, 3, 2.0, 0.25) == 4 / (0.5 + 4.0)  # the fourth has no second one beside it
    # A driver that takes longer than its workers sets the pace.
    assert driver.rate(64, 64, 2.0, 0.25) == driver.rate(1024, 1024, 2.0, 0.25) == 2.0


def test_store_time_is_that_of_trials_which_are_really_stored(study, tmp_path, monkeypatch):
    import optuna

    from codesign.evaluation.evaluator import Evaluator
    from codesign.study.records import Records
    from codesign.study.store import SPECIFICATION, read_study, study_place
    from tests.small_search import small_space, small_workload

    small_search(tmp_path, trials=3)
    found = read_study(study_place(tmp_path))
    workload = small_workload()
    evaluator = Evaluator.of(workload, small_space(workload))
    told, tell = [], Records.tell

    def remembered(self, number, outcome, repeat_of):
        tell(self, number, outcome, repeat_of)
        told.append(self.frozen()[number])

    monkeypatch.setattr(Records, "tell", remembered)
    trials = found.get_trials()
    assert study.store_seconds(found.user_attrs[SPECIFICATION], evaluator, trials) > 0
    assert [each.state for each in told] == [optuna.trial.TrialState.COMPLETE] * 3
    assert [each.values for each in told] == [each.values for each in trials]


def test_the_waiting_network_waits_in_every_evaluation(study, monkeypatch, tmp_path):
    from codesign import search

    waits = []
    monkeypatch.setattr(study.time, "sleep", waits.append)
    workload = study.waiting_workload()
    assert waits == [study.WAIT_SECONDS]  # its capture
    space = study.space_of(workload)
    result = search(workload, space, trials=4, storage=tmp_path, executor="inline")
    assert [trial.state for trial in result.trials] == ["complete"] * 4
    # Each evaluation asks the model how it answers now; the first also whether as captured.
    # On Ray, where each task has a copy of the model, all of them ask that.
    assert waits == [study.WAIT_SECONDS] * (1 + 1 + 4)
