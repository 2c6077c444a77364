"""Hashing that learns each layer from what reuse in the layers before it leaves of its inputs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import codesign.evaluation.evaluator
from accelerators import ConfigError, preset
from codesign import compare, search
from codesign.cli import app as cli
from codesign.evaluation.evaluator import Evaluator
from codesign.report.pictures import trial_pixels
from simulator import (
    DecisionCache,
    LshReuse,
    NoReuse,
    PerLayer,
    ReusedForward,
    calibrate,
    decide,
    pixel_answers,
    simulate,
)
from tests.small_search import SmallSegmenter, small_search, small_space, small_workload
from workloads import TraceError, capture, quantise
from workloads.capturing.replaying import recorded_inputs

BOTH = PerLayer({name: LshReuse(hashes=3, length=9) for name in ("first", "second")})


@pytest.fixture(scope="module")
def workload():
    return small_workload()


def assert_same(states, expected):
    assert states.keys() == expected.keys()
    for name, state in expected.items():
        assert states[name].keys() == state.keys()
        for key, array in state.items():
            np.testing.assert_array_equal(states[name][key], array, strict=True)


@pytest.mark.parametrize("learning", ["none", "task"])
@pytest.mark.parametrize("integers", [False, True])
def test_states_are_those_of_a_forward_pass_in_training(workload, integers, learning):
    model, trace = workload.model, workload.calibration
    if integers:
        model = quantise(model, recorded_inputs(trace))
        trace = capture(model, recorded_inputs(trace))
    hashing = LshReuse(hashes=3, length=9, learning=learning)
    policy = PerLayer({"first": hashing, "second": hashing})
    reuse = ReusedForward(policy)
    with torch.no_grad():
        reuse(model, *recorded_inputs(trace))
    states = calibrate(trace, policy, model=model)
    assert_same(states, reuse.states)
    dense = calibrate(trace, policy)
    # Nothing is reused before the first layer; after it, the second gets other rows.
    assert_same({"first": states["first"]}, {"first": dense["first"]})
    assert not np.allclose(states["second"]["mean"], dense["second"]["mean"], rtol=1e-3)


def test_a_mean_is_that_of_the_rows_under_reuse(workload):
    seen = []
    with workload.model.second.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        states = calibrate(workload.calibration, BOTH, model=workload.model)
    rows = nn.functional.unfold(seen[-1], 3, padding=1)  # of the last run, that under reuse
    np.testing.assert_allclose(
        states["second"]["mean"][0], rows.mean(dim=(0, 2)).numpy(), rtol=1e-4, atol=1e-6
    )


def test_without_reuse_before_a_layer_both_learn_the_same(workload):
    policy = PerLayer({"second": LshReuse(hashes=3, length=9)})
    trace, model = workload.calibration, workload.model
    dense = calibrate(trace, policy)
    states = calibrate(trace, policy, model=model)
    assert states.keys() == dense.keys() == {"second"}
    for key, array in dense["second"].items():
        np.testing.assert_allclose(states["second"][key], array, rtol=1e-5, atol=1e-6)


def test_a_run_tells_what_it_learned_from(workload):
    ask = {"model": workload.model, "calibrate_under_reuse": True}
    run = decide(workload.trace, BOTH, calibration=workload.calibration, **ask)
    assert run.calibrated_on == "inputs given for it, under reuse"
    states = calibrate(workload.calibration, BOTH, model=workload.model)
    same = decide(workload.trace, BOTH, model=workload.model, calibration=states)
    assert replace(run, calibrated_on=same.calibrated_on).output_mse == same.output_mse
    dense = decide(workload.trace, BOTH, model=workload.model, calibration=workload.calibration)
    assert run.output_mse != dense.output_mse
    report = simulate(workload.trace, preset("reuse_16x16"), BOTH, **ask)
    assert report.workload["reuse_calibrated_on"] == "the judged inputs, under reuse"
    assert decide(workload.trace, NoReuse(), **ask).calibrated_on is None


def test_integers_are_learned_under_reuse_on_the_grids_that_are_judged(workload):
    judged, others = (recorded_inputs(each) for each in (workload.trace, workload.calibration))
    model = quantise(workload.model, others)
    trace, calibration = capture(model, judged), capture(model, others)
    ask = {"model": model, "calibrate_under_reuse": True}
    run = decide(trace, BOTH, calibration=calibration, **ask)
    states = calibrate(calibration, BOTH, model=model)
    assert run.output_mse == decide(trace, BOTH, model=model, calibration=states).output_mse
    with pytest.raises(ConfigError, match="calibration must be quantised as the trace is"):
        decide(trace, BOTH, calibration=workload.calibration, **ask)
    with pytest.raises(ConfigError, match="model must "):
        calibrate(workload.calibration, BOTH, model=model)


def test_what_cannot_learn_under_reuse_is_refused(workload):
    trace, model = workload.calibration, workload.model
    stream = PerLayer({"first": LshReuse(hashes=3, length=9, scope="stream")})
    with pytest.raises(ConfigError, match="'first' must keep nothing over a stream"):
        calibrate(trace, stream, model=model)
    with pytest.raises(ConfigError, match="pattern 'third' must match a layer"):
        calibrate(trace, PerLayer({"third": LshReuse(hashes=3, length=9)}), model=model)
    with pytest.raises(TraceError, match="must hold the model's inputs to run it again"):
        calibrate(replace(trace, inputs=None), BOTH, model=model)
    with pytest.raises(ConfigError, match="model must answer as it did"):
        other = small_workload(type(model)().eval()).model
        calibrate(trace, BOTH, model=other)
    ask = {"calibrate_under_reuse": True}
    with pytest.raises(ConfigError, match="calibrate_under_reuse must be given with a model"):
        decide(trace, BOTH, **ask)
    with pytest.raises(ConfigError, match="got what was learned already"):
        decide(trace, BOTH, model=model, calibration=calibrate(trace, BOTH), **ask)
    kept = decide(trace, stream, model=model).memory
    with pytest.raises(ConfigError, match="got a memory, which brings its calibration"):
        decide(trace, stream, model=model, memory=kept, **ask)
    run = decide(trace, BOTH, model=model)
    for replay in (simulate, compare):
        with pytest.raises(ConfigError, match=r"simulate\.calibrate_under_reuse must not be given"):
            replay(trace, preset("reuse_16x16"), run, **ask)
    with pytest.raises(ConfigError, match=r"Workload\.model must be given with calibrate_under"):
        replace(workload, model=None, calibrate_under_reuse=True)


def policy(first, second):
    hashes = {"first": first, "second": second}
    return PerLayer({k: LshReuse(hashes=h, length=9) for k, h in hashes.items() if h})


def test_cached_runs_are_those_without_a_cache(workload, decided):
    cache = DecisionCache(2**26)
    ask = {"model": workload.model, "calibration": workload.calibration}
    for first, second in [(6, 8), (6, 8), (6, 5), (4, 5), (None, 5), (6, None), (6, 5), (4, 8)]:
        for learn in (True, False):  # of one workload's name, kept apart
            given = {**ask, "calibrate_under_reuse": learn}
            setting = policy(first, second)
            run = decide(workload.trace, setting, cache=cache, workload="a", **given)
            alone = decide(workload.trace, setting, **given)
            assert run.calibrated_on == alone.calibrated_on
            assert (run.output_mse, run.relative_mse) == (alone.output_mse, alone.relative_mse)
            for name, made in alone.decisions.items():
                if made is not None:
                    np.testing.assert_array_equal(run.decisions[name].rows.ids, made.rows.ids)
            decided.clear()
            decide(workload.trace, setting, cache=cache, workload="a", **given)
            assert not decided  # nor learned again


def test_a_search_learns_for_each_policy_and_not_again_for_other_hardware(
    workload, decided, monkeypatch
):
    monkeypatch.setattr(codesign.evaluation.evaluator, "_DECISIONS", DecisionCache(2**26))
    workload = replace(workload, calibrate_under_reuse=True)
    evaluator = Evaluator.of(workload, small_space(workload))
    start = evaluator.space.start["start"]
    outcomes = [evaluator(start | {"array.columns": n}) for n in (8, 32)]
    assert decided == ["first", "second"] * 2  # of the calibration, then of the judged inputs
    _, reuse = evaluator.space.build(start)
    states = calibrate(workload.calibration, reuse, model=workload.model)
    run = decide(workload.trace, reuse, model=workload.model, calibration=states)
    for outcome in outcomes:
        assert outcome.values["accuracy"] == run.accuracy
        assert outcome.summary["output_mse"] == pytest.approx(run.output_mse, rel=1e-9)


def test_a_search_goes_on_only_with_the_same_choice(workload, tmp_path):
    under_reuse = replace(workload, calibrate_under_reuse=True)
    result = small_search(tmp_path / "yes", under_reuse, trials=3)
    assert result.specification["calibrate_under_reuse"] is True
    dense = small_search(tmp_path / "no", workload, trials=3)
    assert [t.summary["output_mse"] for t in result.trials] != [
        t.summary["output_mse"] for t in dense.trials
    ]
    for place, other in (("yes", workload), ("no", under_reuse)):
        with pytest.raises(ConfigError, match="the choice of calibrating under reuse must be what"):
            small_search(tmp_path / place, other, trials=4, resume=True)


def test_pictures_show_what_the_search_judged(tmp_path):
    workload = replace(small_workload(SmallSegmenter().eval(), labels=False), calibration=None)
    workload = replace(workload, calibrate_under_reuse=True)
    space = small_space(workload)
    result = search(workload, space, trials=1, storage=tmp_path, executor="inline")
    (pixels,) = trial_pixels(workload, result).values()
    _, reuse = result.design_of(result.trials[0])
    shown = [
        pixel_answers(
            workload.trace,
            decide(workload.trace, reuse, model=workload.model, calibrate_under_reuse=learn),
        ).reuse
        for learn in (True, False)
    ]
    assert np.array_equal(pixels.reuse, shown[0])
    assert not np.array_equal(pixels.reuse, shown[1])


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def test_the_command_line_learns_under_reuse(workload, tmp_path, monkeypatch):
    monkeypatch.setattr("workloads.models.load", lambda *_, **__: workload.model)
    trace = workload.trace.save(tmp_path / "trace")
    others = workload.calibration.save(tmp_path / "others")
    reuse = ("--layer", "first=3,9", "--layer", "second=3,9")
    chosen = ("--model", "any", "--calibrate-under-reuse", "--calibration", others)
    _, told = run("simulate", trace, *reuse, *chosen, "--json", tmp_path / "a.json")
    assert "learned from the judged inputs" not in told
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["workload"]["reuse_calibrated_on"] == "inputs given for it, under reuse"
    expected = decide(
        workload.trace, BOTH, model=workload.model, calibration=workload.calibration,
        calibrate_under_reuse=True,
    )  # fmt: skip
    assert report["output_mse"] == pytest.approx(expected.output_mse, rel=1e-6)
    shown, _ = run("compare", trace, *reuse, *chosen)
    assert "accuracy" in shown
    _, told = run("simulate", trace, *reuse, *chosen[:3])
    assert "hashing learned from the judged inputs" in told
    for command in ("simulate", "compare"):
        _, told = run(command, trace, *reuse, "--calibrate-under-reuse", code=2)
        assert "--calibrate-under-reuse must come with --model, got none" in told


def test_a_search_on_the_command_line_learns_under_reuse(workload, tmp_path, monkeypatch):
    def load(*, calibrate_under_reuse, **_):
        return replace(workload, calibrate_under_reuse=calibrate_under_reuse)

    def inline(workload, space, **settings):
        settings.pop("ray_address", None)
        return search(workload, small_space(workload), executor="inline", **settings)

    monkeypatch.setattr("codesign.evaluation.workload.load_workload", load)
    monkeypatch.setattr("codesign.study.search.search", inline)
    run("search", "--out", tmp_path, "--trials", 2, "--calibrate-under-reuse")
    assert "calibrate_under_reuse = true" in (tmp_path / "study.toml").read_text()
    run("search", "--out", tmp_path, "--trials", 3, "--resume")  # as study.toml says
