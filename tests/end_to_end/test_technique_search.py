"""A search over techniques never ends worse than dense."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelerators import ConfigError, preset
from codesign import load_study, load_workload, search
from codesign.evaluation.evaluator import Evaluator
from codesign.report.study_report import StudyReport
from codesign.space.technique_space import TechniqueSpace
from codesign.study.result import energy_delay_ratio
from tests.small_search import small_workload
from workloads import capture


@pytest.fixture(scope="module")
def workload():
    return small_workload()


@pytest.fixture(scope="module")
def space(workload):
    return TechniqueSpace.for_techniques(
        workload.trace, preset("reuse_16x16"), ("dense", "lsh"), grouping="layer"
    )


def test_the_best_is_never_worse_than_dense(workload, space, tmp_path):
    found = search(workload, space, storage=tmp_path, trials=6, executor="inline")
    origins = [trial.origin for trial in found.trials]
    assert origins[:3] == ["start", "dense", "dense_equal_area"]
    equal = found.trials[2]
    # Within 1 % of the fastest, with the least traffic: what `best_dense` finds of its own area.
    assert equal.summary["speedup_equal_area"] == pytest.approx(1, abs=0.011)
    assert equal.values["accuracy"] == found.baseline["accuracy"]
    assert energy_delay_ratio(found.best()) <= energy_delay_ratio(equal) + 1e-12
    # A dense design is compared with the best one of its area, not with itself.
    assert found.trials[1].summary["speedup_equal_area"] < 1
    again = load_study(tmp_path)
    assert [trial.values for trial in again.trials] == [trial.values for trial in found.trials]
    report = StudyReport(result=again)
    page, _, _ = report.write(tmp_path / "report.html")
    assert "second: technique" in page.read_text(encoding="utf-8")
    if again.best().number in (1, 2):
        assert "reuses nothing" in report.verdict


def test_other_hardware_decides_nothing_anew(workload, space, monkeypatch):
    """Decisions are kept by the policies of the layers so far."""
    from codesign.evaluation import evaluator
    from simulator import DecisionCache

    cache = DecisionCache(2**28)
    monkeypatch.setattr(evaluator, "_DECISIONS", cache)
    evaluate = Evaluator.of(workload, space)
    start = space.start["start"] | {"first.technique": "lsh"}
    assert evaluate(start).state == "complete"
    misses = cache.misses
    other = start | {"array.columns": 32, "output_buffer.times": 2, "pass_columns": 32}
    assert evaluate(other).state == "complete"
    assert cache.misses == misses
    # The first layer is as before: only the second is decided anew, and the run's quality.
    assert evaluate(start | {"second.technique": "dense"}).state == "complete"
    assert cache.misses > misses
    known = cache.hits
    assert evaluate(start | {"second.technique": "dense", "array.rows": 8}).state == "complete"
    assert cache.hits > known


def test_sums_that_overflow_make_an_infeasible_trial(workload, space):
    evaluate = Evaluator.of(workload, space.narrowed({"accumulator_bits": (16, 32)}))
    outcome = evaluate(space.start["dense"] | {"accumulator_bits": 16})
    assert outcome.state == "infeasible"
    assert "accumulator_bits must hold the sums of layer" in outcome.reason


def test_the_front_is_judged_on_inputs_held_out(workload, space, tmp_path):
    """What the search says of the inputs it saw stays; those held out stand beside it."""
    inputs = torch.tensor(workload.calibration.inputs[0])
    labels = torch.from_numpy(workload.calibration.outputs).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 5
    others = capture(workload.model, inputs, labels=labels, source="other noise")
    held = replace(workload, held_out=others)
    found = search(held, space, storage=tmp_path, trials=4, executor="inline")
    before = search(workload, space, storage=tmp_path / "plain", trials=4, executor="inline")
    assert [trial.values for trial in found.trials] == [trial.values for trial in before.trials]
    assert before.held_out is None
    judged = load_study(tmp_path).held_out
    assert judged == found.held_out
    assert set(judged.trials) == {trial.number for trial in found.front}
    assert (judged.images, judged.source) == (6, "other noise")
    assert judged.baseline["accuracy"] == pytest.approx(5 / 6)
    evaluate = Evaluator.of(replace(workload, trace=others), space)
    for number, values in judged.trials.items():
        outcome = evaluate(found.trials[number].parameters)
        assert {name: values[name] for name in outcome.values} == outcome.values
    report = StudyReport(result=load_study(tmp_path))
    page, _, _ = report.write(tmp_path / "report.html")
    assert "On 6 inputs that the search did not see" in page.read_text(encoding="utf-8")
    assert report.to_dict()["held_out"]["images"] == 6

    unlabelled = replace(workload, held_out=workload.calibration)
    with pytest.raises(ConfigError, match=r"as the trace is, by accuracy, got agreement"):
        search(unlabelled, space, storage=tmp_path / "other", trials=4, executor="inline")


def test_inputs_held_out_follow_those_judged_on():
    both = load_workload(model="cifarnet", inputs="digits", images=3, held_out=2)
    five = load_workload(model="cifarnet", inputs="digits", images=5)
    assert both.trace.images == 3 and both.held_out.images == 2
    np.testing.assert_array_equal(both.held_out.inputs[0], five.trace.inputs[0][3:])
    other = load_workload(
        model="cifarnet", inputs="digits", images=3, held_out=2, held_out_inputs="digits"
    )
    np.testing.assert_array_equal(other.held_out.inputs[0], five.trace.inputs[0][:2])
