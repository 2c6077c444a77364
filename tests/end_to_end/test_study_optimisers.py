"""Study 009 on inputs so small that the answer is known another way."""

import csv
from dataclasses import replace
from importlib import import_module

import moocore
import numpy as np
import pytest

TRIALS = 5


@pytest.fixture(scope="module")
def study():
    return import_module("009_which_optimiser")


@pytest.fixture(scope="module")
def found(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("009")
    few = study.Run(optimiser="random", seed=0, trials=TRIALS, images=2, out=out)
    runs = [few, replace(few, seed=1), replace(few, optimiser="gp")]
    return [study.make(run) for run in runs]


def test_the_best_front_is_that_of_all_runs_together(study, found):
    points, singles = [], []
    for each in found:
        singles.append(each.result.hypervolume[-1])
        energy = each.result.baseline["energy_uj_per_image"]
        for trial in each.result.trials:
            if (values := trial.values) is None:  # no design can have these
                continue
            points.append([-values["speedup"], values["energy_uj_per_image"] / energy,
                           -values["accuracy"]])  # fmt: skip
    best = study.best_hypervolume(found)
    assert best == pytest.approx(moocore.hypervolume(np.array(points), ref=[0.0, 2.0, 0.0]))
    assert best >= max(singles)


def test_a_run_goes_on_where_it_was_cut_off(study, found):
    first = found[0]
    again = study.make(first.run)  # only read
    assert again.result.trials == first.result.trials
    longer = study.make(replace(first.run, trials=TRIALS + 1))
    assert longer.result.trials[:TRIALS] == first.result.trials
    with first.run.clock.open(newline="") as file:
        rows = list(csv.reader(file))
    assert [int(row[0]) for row in rows] == list(range(TRIALS + 1))
    seconds = [trial.seconds for trial in longer.result.trials]
    assert [float(row[1]) for row in rows] == pytest.approx(seconds, abs=1e-4)
    # Neither where it was begun nor where it goes on, as it calibrates there.
    assert list(longer.own_seconds) == list(range(1, TRIALS))
    assert all(own >= 0 for own in longer.own_seconds.values())


def test_targets_and_pictures_tell_what_was_found(study, found):
    best = study.best_hypervolume(found)
    at_end = {(each.run.optimiser, each.run.seed): each.result.hypervolume[-1] for each in found}
    assert study.at(found, "random", TRIALS) == {seed: at_end["random", seed] for seed in (0, 1)}
    lines = study.targets(found, TRIALS, best)
    middle = (at_end["random", 0] + at_end["random", 1]) / 2
    won = int(at_end["gp", 0] > at_end["random", 0])
    assert lines == [
        f"gp over random at {TRIALS}: median {at_end['gp', 0] / middle:.3f}x, better in {won} of "
        "1 seeds",
        f"gp at {TRIALS}: {at_end['gp', 0] / best:.3f} of the best front known",
    ]
    assert study.table_of(found, TRIALS, best).row_count == 2
    figure = study.draw(found, best)
    line = next(trace for trace in figure.data if trace.name == "random")
    curves = [each.result.hypervolume for each in found[:2]]
    np.testing.assert_allclose(line.y, np.mean(curves, axis=0)[:TRIALS] / best)
