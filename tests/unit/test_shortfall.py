"""A search that finds nothing says why, how far it is off, and does not go on for nothing."""

from dataclasses import replace

import pytest

from accelerators import ConfigError, area_by_part, preset
from codesign import Constraints, DesignSpace, load_study
from codesign.evaluation.evaluator import Evaluator
from codesign.report.nested_page import verdict as nested_verdict
from codesign.report.verdict import verdict
from codesign.study.nested import LayerFront, NestedResult
from codesign.study.shortfall import are_alike, failures, least_area_mm2
from codesign.study.trial import Trial
from tests.small_search import small_search, small_space, small_workload


def failing(message, after=0):
    """An evaluation that raises after some that do not."""
    evaluated, calls = Evaluator._measure, []

    def measure(self, parameters):
        calls.append(parameters)
        if len(calls) > after:
            raise RuntimeError(message.format(len(calls)))
        return evaluated(self, parameters)

    return measure


def test_a_search_stops_when_all_trials_fail_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "_measure", failing("tensor {} is of no use"))
    result = small_search(tmp_path, trials=14)
    assert len(result.trials) == 4
    told = "4 of 4 trials failed: RuntimeError: tensor 1 is of no use"
    assert result.unanswered == result.failures == told
    assert verdict(result)[0] == f"No answer yet for {result.name}: {told}."
    assert load_study(tmp_path).unanswered == told
    # Not mended, a resume stops after as many more; mended, it goes to the end.
    assert len(small_search(tmp_path, trials=14, resume=True).trials) == 8
    monkeypatch.undo()
    mended = small_search(tmp_path, trials=14, resume=True)
    assert len(mended.trials) == 14 and mended.unanswered is None
    assert mended.failures == "8 of 14 trials failed: RuntimeError: tensor 1 is of no use"


def test_one_that_does_not_fail_keeps_a_search_going(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "_measure", failing("no", after=1))
    result = small_search(tmp_path, trials=10)
    assert len(result.trials) == 10 and result.unanswered is None
    assert result.failures == "9 of 10 trials failed: RuntimeError: no"


def test_failures_for_other_reasons_are_not_alike():
    assert are_alike(
        ["E: got 1 at 0x7f", "E: got 22 at 0x8a", "E: got 3 at 0x1", "E: got 4 at 0x2"]
    )
    assert not are_alike(["E: a", "E: a", "E: a", "E: b"])
    assert not are_alike(["E: a"] * 3)
    assert failures(["x\nE: a", "E: b", "E: a"], 7) == (
        "3 of 7 trials failed (2 of them for this reason): E: a"
    )
    assert failures([], 7) is None


def test_limits_that_no_design_keeps_tell_the_nearest(tmp_path):
    space = small_space(small_workload())
    areas = []
    for limit in (1.75, 1.8):
        limits = Constraints(area_mm2=limit, latency_ms_per_image=1e-6)
        result = small_search(tmp_path / str(limit), trials=4, constraints=limits)
        areas = [sum(area_by_part(space.build(t.parameters)[0]).values()) for t in result.trials]
        times = [t.summary["designs"]["reuse"]["latency_ms_per_image"] for t in result.trials]
        told = (
            f"4 of 4 designs tried are beyond 1e-06 ms per image; the fastest takes "
            f"{min(times):.6g} ms per image"
        )
        if min(areas) > limit:
            told = (
                f"4 of 4 designs tried are beyond {limit:g} mm2; the smallest has "
                f"{min(areas):.6g} mm2; {told}"
            )
        assert result.unanswered == told
        assert result.failures is None
    assert 1.75 < min(areas) <= 1.8


def test_a_loss_is_told_in_points(tmp_path):
    limits = Constraints(accuracy_loss=0.0, power_mw=1e-3)
    result = small_search(tmp_path, trials=4, constraints=limits)
    drops = [t.excess["accuracy_loss"] for t in result.trials]
    assert all(t.state == "infeasible" for t in result.trials)
    assert "4 of 4 designs tried are beyond 0.001 mW; the most frugal takes" in result.unanswered
    assert ("points of accuracy; the most accurate loses" in result.unanswered) == (min(drops) > 0)


def test_a_limit_below_the_smallest_design_is_refused_before_the_first_trial(tmp_path):
    with pytest.raises(ConfigError, match="all designs of the space are beyond"):
        small_search(tmp_path / "out", constraints=Constraints(area_mm2=0.001))
    assert not (tmp_path / "out").exists()


def test_no_design_is_smaller_than_the_least_area():
    space = DesignSpace.for_workload(small_workload().trace, preset("reuse_16x16"))
    least = least_area_mm2(space)
    smallest = {p.name: p.choices[0] for p in space.parameters}
    for values in (smallest, {**smallest, "first.reuse": True}, next(iter(space.start.values()))):
        design, _ = space.build(values)
        assert 0 < least <= sum(area_by_part(design).values())


def test_a_layer_without_a_setting_is_told():
    values = {"relative_mse": 0.01, "compression": 3.0}
    works = Trial(
        number=0, state="complete", origin="start", parameters={"hashes": 4}, values=values,
        summary={},
    )  # fmt: skip
    reason = "Traceback\nRuntimeError: no"
    broken = replace(works, state="failed", values=None, reason=reason)
    result = NestedResult(
        layers=(
            LayerFront(layer="first", trials=(works, broken)),
            LayerFront(layer="second", trials=(broken, broken)),
        ),
        specification={},
    )
    assert result.unanswered == "second: 2 of 2 settings failed: RuntimeError: no"
    assert nested_verdict(result) == (
        "With a squared error of at most 10 %, layers compress: first 3.0×. "  # noqa: RUF001
        "No answer yet for second: 2 of 2 settings failed: RuntimeError: no."
    )
