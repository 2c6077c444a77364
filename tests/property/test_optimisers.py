"""What every optimiser of a search must do, whichever it is."""

import importlib.util
import json

import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from accelerators import ConfigError
from codesign import OPTIMISERS, Constraints, load_study
from codesign.optimisers.optimiser import Problem
from codesign.optimisers.registry import ask
from codesign.study.search import search
from codesign.testing import OptimiserSuite
from tests.small_search import TRIALS, small_search, small_space, small_workload, table

AREA_MM2 = 2.3  # some designs of the small space are larger, the first one is not


def has_packages(name):
    package = OPTIMISERS[name].package
    return package is None or importlib.util.find_spec(package) is not None


SLOW = ("botorch", "gpsampler")


def parameters(*names):
    return [
        pytest.param(
            name,
            marks=[
                *([pytest.mark.slow] if name in SLOW else []),
                pytest.mark.skipif(not has_packages(name), reason="not installed"),
            ],
        )
        for name in names
    ]


class TestThoseThatLearn(OptimiserSuite):
    """What a user's own optimiser inherits too."""

    @pytest.fixture(params=parameters("gp", "gpsampler", "botorch", "tpe"))
    def optimiser(self, request):
        return request.param


class TestThoseThatDoNotLearn(OptimiserSuite):
    """The genetic algorithm has not learned before its first generation, 50 trials, is told."""

    learns = False

    @pytest.fixture(params=parameters("nsga2", "sobol", "random"))
    def optimiser(self, request):
        return request.param


@pytest.fixture(scope="module", params=parameters(*OPTIMISERS))
def optimiser(request):
    return request.param


def searched(storage, optimiser, **settings):
    constraints = Constraints(area_mm2=AREA_MM2)
    return small_search(storage, optimiser=optimiser, constraints=constraints, **settings)


@pytest.fixture(scope="module")
def whole(optimiser, tmp_path_factory):
    """An uninterrupted search."""
    return searched(tmp_path_factory.mktemp(optimiser), optimiser)


def designs_of(result):
    built = [result.design_of(trial) for trial in result.trials]
    return [json.dumps([design.to_dict(), policy.describe()]) for design, policy in built]


def test_a_search_that_is_cut_off_goes_on_as_the_same(whole, optimiser, tmp_path):
    def interrupt(trial, finished, trials):
        if finished == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, optimiser, on_progress=interrupt)
    assert len(load_study(tmp_path).trials) == 6  # in the middle of a batch
    assert table(searched(tmp_path, optimiser, resume=True)) == table(whole)


def test_another_seed_asks_for_other_designs(whole, optimiser, tmp_path):
    other = searched(tmp_path, optimiser, seed=1, trials=4)
    assert other.trials[0].parameters == whole.trials[0].parameters  # the start setting
    assert other.trials[1].parameters != whole.trials[1].parameters


def test_every_value_is_one_of_the_choices(whole):
    start = whole.space.start["start"]
    for trial in whole.trials:
        assert list(trial.parameters) == [p.name for p in whole.space.parameters]
        assert all(trial.parameters[p.name] in p.choices for p in whole.space.parameters)
        if not trial.parameters["first.reuse"]:
            assert trial.parameters["first.hashes"] == start["first.hashes"]


def test_no_design_is_tried_twice(whole):
    assert len(set(designs_of(whole))) == TRIALS
    assert all(trial.repeat_of is None for trial in whole.trials)


def test_infeasible_trials_name_the_constraint(whole):
    for trial in whole.trials:
        area = trial.summary["designs"]["reuse"]["area_mm2"]
        assert trial.state == ("complete" if area <= AREA_MM2 else "infeasible")
        assert (trial.values is None) == (area > AREA_MM2)
        if area > AREA_MM2:
            assert trial.reason == (
                f"Constraints.area_mm2 must be at most {AREA_MM2:g}, got {area:.6g}"
            )
    assert len(whole.of_state("complete")) >= 1
    assert all(trial.state == "complete" for trial in whole.front)


def test_a_space_is_exhausted_before_anything_repeats(optimiser, tmp_path):
    workload = small_workload()
    space = small_space(workload)
    choices = {p.name: p.choices[-1:] for p in space.parameters if len(p.choices) > 1}
    space = space.narrowed(choices | {"array.columns": (8, 16), "second.hashes": (8, 9, 10)})
    result = search(
        workload, space, trials=8, batch=2, storage=tmp_path, executor="inline", optimiser=optimiser
    )
    assert len(set(designs_of(result)[:6])) == 6
    repeats = result.trials[6:]
    assert all(trial.repeat_of in range(6) for trial in repeats)
    for trial in repeats:  # answered, not evaluated
        assert trial.seconds == 0
        assert trial.values == result.trials[trial.repeat_of].values


def asked_of(name, limit, number=24):
    """Where an optimiser goes after 0, 1, ... that rise in value, met up to a limit."""
    distributions = {"x": IntDistribution(0, 63)}
    problem = Problem(
        distributions=distributions, maximise=(True, True), reference_point=(-1.0, -1.0)
    )
    seen = [
        create_trial(
            state=TrialState.COMPLETE,
            values=[float(x), float(x)],
            params={"x": x},
            distributions=distributions,
            constraints=None if limit is None else {"x": float(x - limit)},
        )
        for x in range(0, 2 * number, 2)
    ]
    return ask(name, problem, seen, seed=0).parameters["x"]


@pytest.mark.parametrize("name", ["gp", "botorch"])
def test_constraints_are_given_to_the_optimiser(name):
    if not has_packages(name):
        pytest.skip("not installed")
    assert asked_of(name, None) > 46  # on, beyond the best seen
    assert asked_of(name, 21) <= 24


def test_what_a_trial_is_told_of_its_own_batch_is_no_value(optimiser):
    """Values beyond `known` must not change the answer, finished or not."""
    distributions = {"x": IntDistribution(0, 63), "y": IntDistribution(0, 63)}
    problem = Problem(
        distributions=distributions, maximise=(True, False), reference_point=(0.0, 99.0)
    )

    def answer(last):
        trials = [
            create_trial(
                state=TrialState.COMPLETE,
                values=[float(n % 7), float(n % 5)] if n < 11 else [last, last],
                params={"x": n, "y": 5 * n % 64},
                distributions=distributions,
            )
            for n in range(12)
        ]
        return ask(optimiser, problem, trials, seed=5, known=11)

    assert answer(3.0) == answer(40.0)


def test_unknown_and_missing_optimisers_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"one of gp, gpsampler, botorch, tpe, .*, got 'gpp'"):
        small_search(tmp_path, optimiser="gpp")
    monkeypatch.setattr(type(OPTIMISERS["botorch"]), "package", "no_botorch")
    with pytest.raises(ConfigError, match=r"package no_botorch.*pip install"):
        small_search(tmp_path, optimiser="botorch")
    assert not list(tmp_path.iterdir())
