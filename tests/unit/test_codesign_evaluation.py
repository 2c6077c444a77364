"""What an evaluation costs: decisions made once, and accuracy on few images first."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import codesign.evaluation.evaluator
import codesign.study.staged
from accelerators import ConfigError
from codesign import Constraints, load_study, search
from codesign.evaluation.evaluator import Evaluator
from codesign.study.staged import StagedEvaluator, may_join, upper_accuracy
from simulator import DecisionCache, LshReuse, NoReuse, PerLayer, calibrate, decide
from simulator.testing.policies import same_decisions
from tests.small_search import IMAGES, small_search, small_space, small_workload, table

BYTES = 2**26


@pytest.fixture(scope="module")
def workload():
    return small_workload()


def policy(first, second):
    hashes = {"first": first, "second": second}
    return PerLayer({k: LshReuse(hashes=h, length=9) for k, h in hashes.items() if h})


def assert_same(run, other):
    """Bit for bit, decisions included."""
    np.testing.assert_array_equal(run.answers, other.answers, strict=True)
    plain = [f.name for f in fields(run) if f.name not in ("decisions", "answers")]
    assert {name: getattr(run, name) for name in plain} == {
        name: getattr(other, name) for name in plain
    }
    assert run.decisions.keys() == other.decisions.keys()
    for made, expected in zip(run.decisions.values(), other.decisions.values(), strict=True):
        same_decisions(made, expected)


SEQUENCE = [(6, 8), (6, 8), (6, 5), (4, 5), (None, 5), (6, None), (None, None), (6, 5), (4, 8)]


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("max_bytes", [0, 200_000, BYTES])
def test_cached_decisions_are_those_without_a_cache(workload, with_model, max_bytes):
    cache = DecisionCache(max_bytes)
    model = workload.model if with_model else None
    states = calibrate(workload.calibration, policy(1, 1))
    for setting in SEQUENCE:
        settings = {"model": model, "calibration": states}
        made = decide(workload.trace, policy(*setting), cache=cache, workload="a", **settings)
        assert_same(made, decide(workload.trace, policy(*setting), **settings))
        assert cache.held_bytes <= max_bytes
    assert cache.hits > 0 if max_bytes == BYTES else cache.misses > 0
    assert max_bytes or not cache.hits


def test_a_layer_is_decided_again_only_if_it_or_one_before_it_changed(workload, decided):
    cache = DecisionCache(BYTES)
    expected = {
        (6, 8): ["first", "second"],
        (6, 5): ["second"],  # `first` is as it was
        (4, 5): ["first", "second"],  # `second` sees what another `first` makes
        (None, 5): ["second"],
        (6, None): [],
    }
    for setting, layers in expected.items():
        for again in ([], layers)[::-1]:
            decided.clear()
            decide(
                workload.trace, policy(*setting), model=workload.model,
                calibration=workload.calibration, cache=cache, workload="a",
            )  # fmt: skip
            assert decided == again


def test_recorded_activations_do_not_depend_on_the_layers_before(workload, decided):
    cache = DecisionCache(BYTES)
    for setting in ((6, 8), (4, 8), (6, 5), (4, 5)):
        decide(workload.trace, policy(*setting), cache=cache, workload="a")
    assert decided == ["first", "second", "first", "second"]


def test_another_workload_or_question_has_answers_of_its_own(workload, decided):
    cache = DecisionCache(BYTES)
    ask = {"model": workload.model, "calibration": workload.calibration, "cache": cache}
    decide(workload.trace, policy(6, 8), workload="a", **ask)
    decide(workload.trace, policy(6, 8), workload="b", **ask)
    without = decide(workload.trace, policy(6, 8), workload="a", layer_errors=False, **ask)
    assert len(decided) == 6 and not without.relative_mse


def test_the_least_recently_used_goes_first():
    cache = DecisionCache(3 * 5000)
    for key in "abc":
        cache.put(key, key, 5000 - 4096)
    assert cache.get("a") == "a"
    cache.put("d", "d", 5000 - 4096)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]
    cache.put("large", "large", 3 * 5000)
    assert cache.get("large") is None and cache.held_bytes == 3 * 5000


def test_a_cache_asks_for_a_workload_and_no_stream(workload):
    with pytest.raises(ConfigError, match="cache must be given with workload"):
        decide(workload.trace, NoReuse(), cache=DecisionCache(0))
    with pytest.raises(ConfigError, match="max_bytes must be an integer of at least 0, got -1"):
        DecisionCache(-1)


def test_other_hardware_decides_nothing_again(workload, decided, monkeypatch):
    monkeypatch.setattr(codesign.evaluation.evaluator, "_DECISIONS", DecisionCache(BYTES))
    evaluator = Evaluator.of(workload, small_space(workload))
    start = evaluator.space.start["start"]
    settings = [
        start | {"array.columns": n, "cache.entries": m} for n in (8, 32) for m in (512, 4096)
    ]
    cached = [evaluator(each) for each in settings]
    assert decided == ["first", "second"]
    assert len({outcome.values["speedup"] for outcome in cached}) > 1
    for setting, outcome in zip(settings, cached, strict=True):
        monkeypatch.setattr(codesign.evaluation.evaluator, "_DECISIONS", DecisionCache(0))
        alone = evaluator(setting)
        assert (alone.values, alone.summary) == (outcome.values, outcome.summary)
    # Another kind of hyperplane, which the front-end sets, is another decision.
    decided.clear()
    evaluator(start | {"front_end.projection": "int8"})
    assert decided == ["first", "second"]


@given(right=st.integers(0, 25), others=st.integers(1, 100))
def test_upper_accuracy_bounds_and_falls_with_what_is_seen(right, others):
    found = right / 25
    upper = upper_accuracy(found, 25, 25 + others)
    assert found <= upper <= (right + others) / (25 + others) + 1e-12
    assert upper >= upper_accuracy(found, 25, 25) == found


def test_upper_accuracy_is_wilsons_bound():
    # z = 2, 20 of 25: (0.8 + 4/50 + sqrt(4 (0.16/25 + 4/2500))) / (1 + 4/25) = 1.0589/1.16
    wilson = (0.88 + np.sqrt(4 * (0.0064 + 0.0016))) / 1.16
    assert upper_accuracy(0.8, 25, 100) == pytest.approx(0.25 * 0.8 + 0.75 * wilson)


def test_a_point_may_join_unless_its_best_is_dominated():
    front = [{"speedup": 2.0, "energy_uj_per_image": 10.0, "accuracy": 0.9}]
    beaten = {"speedup": 1.5, "energy_uj_per_image": 12.0, "accuracy": 0.2}
    assert not may_join(beaten, front, 25, 100)
    assert may_join(beaten, [], 25, 100)
    for better in ({"speedup": 1.85}, {"energy_uj_per_image": 11.0}, {"accuracy": 0.84}):
        assert may_join(beaten | better, front, 25, 100)


def test_first_images_are_judged_as_a_workload_of_these_alone(workload):
    full = Evaluator.of(workload, small_space(workload))
    staged = StagedEvaluator.of(workload, full, 3)
    start = full.space.start["start"]
    everything = staged(staged.job(start, front=[]))
    assert everything.images == IMAGES
    assert everything.values == full(start).values
    unbeatable = {"speedup": 1e3, "energy_uj_per_image": 1e-9, "accuracy": 1.0}
    early = staged(staged.job(start, front=[unbeatable]))
    assert early.images == 3
    beatable = {"speedup": 1e-3, "energy_uj_per_image": 1e9, "accuracy": 0.0}
    late = staged(staged.job(start, front=[beatable]))
    assert (late.images, late.values) == (IMAGES, everything.values)
    assert early.values["accuracy"] == staged.first(start).summary["accuracy"]


@pytest.mark.parametrize("images", [0, True, IMAGES, 2.0])
def test_first_images_must_be_fewer(workload, tmp_path, images):
    with pytest.raises(ConfigError, match="first_images must be"):
        small_search(tmp_path, first_images=images)


def test_first_images_need_a_model(workload, tmp_path):
    plain = replace(workload, model=None)
    with pytest.raises(ConfigError, match="of a workload with a model"):
        search(plain, small_space(plain), storage=tmp_path, first_images=2, executor="inline")


def images_of(result):
    return [trial.images for trial in result.trials]


def test_a_search_on_first_images_confirms_its_front(tmp_path, monkeypatch):
    monkeypatch.setattr(
        codesign.study.staged, "CONFIDENCE_QUANTILE", 0.1
    )  # three images tell little
    asked = {"first_images": 3, "optimiser": "random"}  # which also asks for what is clearly beaten
    result = small_search(tmp_path / "once", **asked)
    assert set(images_of(result)) == {3, IMAGES}
    assert result.front and all(trial.images == IMAGES for trial in result.front)
    assert load_study(tmp_path / "once") == result
    # What every design is on all images: none that was given up early is better than the front.
    whole = Evaluator.of(small_workload(), result.space)
    for trial in result.front:
        assert trial.values == whole(trial.parameters).values
    # Extended, it asks and judges as if it had been longer at once.
    small_search(tmp_path / "twice", **asked, trials=9)
    extended = small_search(tmp_path / "twice", **asked, resume=True)
    assert table(extended) == table(result) and images_of(extended) == images_of(result)
    with pytest.raises(ConfigError, match="number of images that every trial is judged on first"):
        small_search(tmp_path / "twice", resume=True)


@pytest.fixture
def optimist(monkeypatch):
    """Staged evaluations find too much accuracy on the first images."""
    judged = StagedEvaluator.__call__

    def judge(self, job):
        """Gives all but the first batch up early, and finds too much then."""
        if not job["front"]:
            return judged(self, job)
        early = self.first(job["parameters"])
        too_much = {"accuracy": 1.0}
        return replace(early, values=early.values | too_much, summary=early.summary | too_much)

    monkeypatch.setattr(StagedEvaluator, "__call__", judge)


def test_a_limit_holds_for_what_is_confirmed(optimist, tmp_path):
    limits = Constraints(accuracy_loss=0.1)
    result = small_search(tmp_path, first_images=3, constraints=limits)
    least = result.baseline["accuracy"] - 0.1  # of all images
    assert result.front and all(t.values["accuracy"] >= least for t in result.front)
    told = [t for t in load_study(tmp_path).trials if t.number >= 4 and t.state == "infeasible"]
    assert told and all(t.images == IMAGES and t.values is None for t in told)
    assert all("Constraints.accuracy_loss must be at most 0.1, got" in t.reason for t in told)


def test_a_front_is_confirmed_until_all_of_it_is(optimist, tmp_path):
    result = small_search(tmp_path, first_images=3)
    assert all(t.values["accuracy"] <= 1 for t in result.front)
    complete = result.of_state("complete")
    early = [t for t in complete if t.images == 3]
    # Whatever stays early is dominated by a trial judged on all images.
    for trial in early:
        assert any(
            t.values["speedup"] >= trial.values["speedup"]
            and t.values["energy_uj_per_image"] <= trial.values["energy_uj_per_image"]
            and t.values["accuracy"] >= trial.values["accuracy"]
            for t in complete
            if t.images == IMAGES
        )
    assert len(early) < len(complete) - 4
