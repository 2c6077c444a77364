"""The nested search: a front of error and compression for each layer."""

# ruff: noqa: RUF001  readers see the multiplication sign

import json
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from accelerators import ConfigError, preset
from codesign import DesignSpace, load_nested, load_study, nested_search, search
from codesign.evaluation.evaluator import Evaluator
from codesign.evaluation.layers import LAYER_OBJECTIVES, LayerEvaluator, LayerSpace
from codesign.report.nested_page import front_rows, verdict, write_nested_html
from codesign.space.parameters import Parameter
from codesign.study.layer_asking import LayerAsker, chebyshev
from codesign.study.nested import LayerFront
from codesign.study.nested_store import DIRECTIONS
from codesign.study.store import open_storage
from codesign.study.trial import Trial
from simulator import LshReuse, NoReuse, PerLayer, decide
from simulator.timing.dense_baseline import best_dense
from tests.small_search import small_search, small_workload

TRIALS = 11  # the Gaussian process takes over at the ninth


@pytest.fixture(scope="module")
def workload():
    return small_workload()


def nested(workload, storage, **settings):
    settings = {"trials": TRIALS, "executor": "inline", **settings}
    return nested_search(workload, storage=storage, **settings)


@pytest.fixture(scope="module")
def whole(workload, tmp_path_factory):
    return nested(workload, tmp_path_factory.mktemp("nested"))


def table(result):
    """Everything but how long it took."""
    return [(x.layer, [replace(t, seconds=0.0) for t in x.trials]) for x in result.layers]


def test_every_layer_has_its_trials_and_none_twice(whole):
    assert [each.layer for each in whole.layers] == ["first", "second"]
    for each in whole.layers:
        settings = {json.dumps(dict(t.parameters), sort_keys=True) for t in each.trials}
        assert len(settings) == len(each.trials) == TRIALS
        assert each.trials[0].parameters["hashes"] == 10
        assert each.trials[0].parameters["thresholds"] == "spread"


def test_numbers_are_those_of_the_simulator(whole, workload):
    for each in whole.layers:
        for trial in each.trials[:2] + each.trials[-1:]:
            policy = PerLayer({each.layer: LshReuse(**trial.parameters)})
            run = decide(workload.trace, policy, calibration=workload.calibration)
            decisions = run.decisions[each.layer]
            assert trial.values == {
                "relative_mse": run.relative_mse[each.layer],
                "compression": decisions.rows.sub_vectors / decisions.rows.total_clusters,
            }


def trial(error, compression, **settings):
    values = {"relative_mse": error, "compression": compression}
    return Trial(
        number=0, state="complete", origin="sampler", parameters=settings, values=values, summary={}
    )


def test_front_goes_from_exact_to_compressed():
    trials = (
        trial(0.5, 8.0, hashes=4),
        trial(0.1, 2.0, hashes=9),
        trial(0.5, 7.0, hashes=5),  # beaten by the first
        trial(0.1, 2.0, hashes=10),  # equal to the second
        replace(trial(0, 0, hashes=7), state="failed", values=None, reason="broke"),
        trial(0.0, 1.0, hashes=20),
    )
    front = LayerFront(layer="conv", trials=trials)
    assert [t.parameters["hashes"] for t in front.front] == [20, 9, 4]


def test_a_search_that_is_cut_off_goes_on_with_the_same_numbers(whole, workload, tmp_path):
    def interrupt(done, total):
        assert total == 2 * TRIALS
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nested(workload, tmp_path, on_progress=interrupt)
    assert [len(each.trials) for each in load_nested(tmp_path).layers] == [6, 6]
    with (tmp_path / "nested.journal").open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')  # as a process leaves it that dies
    assert table(nested(workload, tmp_path, resume=True)) == table(whole)


def test_another_search_does_not_go_on(whole, workload, tmp_path):
    nested(workload, tmp_path, trials=1)
    with pytest.raises(ConfigError, match="must not exist, got a study"):
        nested(workload, tmp_path)
    with pytest.raises(ConfigError, match="seed must be what the search of layer 'first' began"):
        nested(workload, tmp_path, resume=True, seed=1)
    with pytest.raises(ConfigError, match="layers must be first, second, got second"):
        nested(workload, tmp_path, resume=True, top=1)
    small_search(tmp_path / "joint", trials=1)
    with pytest.raises(ConfigError, match="must be a nested search, got another study"):
        load_nested(tmp_path / "joint" / "study.journal")


def test_expected_improvement_of_one_objective_is_another_search(whole, workload, tmp_path):
    other = nested(workload, tmp_path, acquisition="ei")
    # Random settings are the same; the Gaussian process of one objective asks for others.
    for mine, theirs in zip(table(other), table(whole), strict=True):
        assert mine[1][:1] == theirs[1][:1] and mine[1][8:] != theirs[1][8:]


def test_chebyshev_keeps_the_order_of_dominated_points():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 2))
    scalar = chebyshev(values, rng)[:, 0]
    for i in range(30):
        worse = (values >= values[i]).all(axis=1) & (values > values[i]).any(axis=1)
        assert (scalar[worse] >= scalar[i]).all()


def test_a_setting_that_breaks_is_kept_with_its_traceback(workload):
    evaluator = LayerEvaluator.of(workload, top=1, projection="sign")
    (space,) = evaluator.spaces
    broken = evaluator({"layer": "second", "settings": {"hashes": 4, "length": 10_000}})
    assert "ConfigError" in broken.reason and (broken.state, broken.values) == ("failed", None)
    # Such a setting is not asked for again, and does not stop the others.
    asker = LayerAsker(space=space, seed=0, acquisition="logehvi")
    settings = asker.ask([])
    told = create_trial(
        state=TrialState.FAIL, params=space.encode(settings), distributions=space.distributions
    )
    assert asker.ask([told]) != settings


def test_a_layer_with_few_settings_is_tried_whole(workload, tmp_path, monkeypatch):
    of = LayerSpace.of

    def few(layer):
        space = of(layer)
        kept = [p.choices[:2] if p.name == "hashes" else p.choices[:1] for p in space.parameters]
        return replace(
            space,
            parameters=tuple(
                replace(p, choices=choices)
                for p, choices in zip(space.parameters, kept, strict=True)
            ),
        )

    monkeypatch.setattr(LayerSpace, "of", few)
    (only,) = nested(workload, tmp_path, trials=9, top=1).layers
    assert sorted(each.parameters["hashes"] for each in only.trials) == [4, 5]


def test_files_of_earlier_versions_go_on_with_the_same_numbers(whole, workload, tmp_path):
    """They hold a trial in a line, told as it was stored, with reason and seconds alone."""
    path = tmp_path / "nested.journal"
    nested(workload, tmp_path, trials=1)
    storage, _ = open_storage(path, only=None)
    (tmp_path / "before.journal").touch()
    before, _ = open_storage(tmp_path / "before.journal", only=None)
    for each in whole.layers:
        study = optuna.load_study(study_name=each.layer, storage=storage)
        old = optuna.create_study(study_name=each.layer, storage=before, directions=DIRECTIONS)
        old.set_user_attr("specification", study.user_attrs["specification"])
        space = LayerSpace(layer=each.layer, parameters=tuple(parameters_of(study)))
        for told in each.trials[:5]:
            old.add_trial(
                create_trial(
                    values=[told.values[objective.name] for objective in LAYER_OBJECTIVES],
                    params=space.encode(told.parameters),
                    distributions=space.distributions,
                    user_attrs={"reason": None, "seconds": 0.5},
                )
            )
    read = load_nested(tmp_path / "before.journal")
    assert [[t.values for t in x.trials] for x in read.layers] == [
        [t.values for t in x.trials[:5]] for x in whole.layers
    ]
    after = nested(workload, tmp_path / "before.journal", resume=True)
    assert after.fronts == whole.fronts
    assert [[t.values for t in x.trials] for x in after.layers] == [
        [t.values for t in x.trials] for x in whole.layers
    ]


def parameters_of(study):
    return map(Parameter.from_dict, study.user_attrs["specification"]["parameters"])


def test_wrong_arguments_are_reported_together(workload, tmp_path):
    with pytest.raises(ConfigError) as caught:
        nested(workload, tmp_path, trials=0, seed=-1, acquisition="ucb", projection="float")
    for name in ("trials", "seed", "acquisition", "projection"):
        assert f"nested_search {name} must be" in str(caught.value)


def test_page_and_verdict_tell_every_front(whole, tmp_path):
    page = write_nested_html(whole, tmp_path / "nested.html", "codesign nested").read_text()
    for number, each in enumerate(whole.layers):
        assert f"<h2>{each.layer}</h2>" in page and f'id="layer-{number}-data"' in page
        rows = front_rows(each)
        assert [row["position"] for row in rows] == list(range(1, len(each.front) + 1))
        assert rows[-1]["compression"] == f"{each.front[-1].values['compression']:.1f}"
    exact = LayerFront(layer="a", trials=(trial(0.05, 3.0), trial(0.5, 9.0)))
    coarse = LayerFront(layer="b", trials=(trial(0.5, 9.0),))
    told = verdict(replace(whole, layers=(exact, coarse)))
    assert "at most 10 %" in told and "a 3.0×, b not at all" in told


@pytest.fixture(scope="module")
def space(whole, workload):
    return DesignSpace.from_fronts(workload.trace, preset("reuse_16x16"), whole.fronts)


def test_positions_on_fronts_build_their_settings(space, whole):
    choices = {p.name: p.choices for p in space.parameters}
    sizes = {each.layer: len(each.front) for each in whole.layers}
    for name, size in sizes.items():
        assert choices[f"{name}.position"] == tuple(range(size + 1))
    start = space.start["start"]
    _, policy = space.build(start | {"first.position": 0, "second.position": 1})
    assert policy == PerLayer({"second": LshReuse(**whole.fronts["second"][0])})
    values = start | {"first.position": sizes["first"], "front_end.projection": "int8"}
    accelerator, policy = space.build(values)
    last = whole.fronts["first"][-1]
    assert policy.policies["first"] == LshReuse(**last, projection="int8")
    assert accelerator.front_end.max_length == max(p.length for p in policy.policies.values())


def test_positions_are_narrowed_to_those_of_the_front(space, whole):
    size = len(whole.fronts["first"])
    narrow = space.narrowed({"first.position": (0, size)})
    assert {p.name: p.choices for p in narrow.parameters}["first.position"] == (0, size)
    for wrong, told in (
        ((0, size + 1), "must be some of"),
        ((size, 0), "must be from small to large"),
        ((1, 1), "must be some of"),
        ((False, 1), "must be some of"),
        (([0], 1), "must be some of"),
    ):
        with pytest.raises(ConfigError, match=rf"'first\.position' {told}"):
            space.narrowed({"first.position": wrong})


def test_a_search_of_positions_tries_the_fastest_dense_design(space, workload):
    assert [*space.start] == ["start", "dense_equal_area"]
    design, policy = space.build(space.start["dense_equal_area"])
    best, _ = best_dense(workload.trace.layers, space.base)
    assert policy == NoReuse() and replace(design, name=best.name) == best


def test_space_of_fronts_survives_json(space):
    again = DesignSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again.to_dict() == space.to_dict() and again.reuse_of(again.start["start"])


def test_fronts_of_other_layers_are_refused(workload):
    for fronts in ({"third": [{"hashes": 4, "length": 4}]}, {"first": []}, {}):
        with pytest.raises(ConfigError, match="fronts must be of layers of the workload"):
            DesignSpace.from_fronts(workload.trace, preset("reuse_16x16"), fronts)


def test_a_joint_search_takes_positions(space, workload, tmp_path):
    from codesign.report.study_report import StudyReport

    result = search(workload, space, trials=5, storage=tmp_path, executor="inline")
    assert load_study(tmp_path) == result
    assert [each.state for each in result.trials] == ["complete"] * 5
    first = result.trials[0]
    assert first.values == Evaluator.of(workload, space)(first.parameters).values
    page = StudyReport(result=result).write(tmp_path / "report.html")[0].read_text()
    assert "first: position on its front" in page
