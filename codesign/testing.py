"""Tests that every optimiser must pass, one's own too.

from codesign.testing import OptimiserSuite
from mine import Mine

class TestMine(OptimiserSuite):
    @pytest.fixture
    def optimiser(self):
        return Mine()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moocore
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from codesign.optimisers.optimiser import Problem
from codesign.optimisers.registry import Chosen, ask
from codesign.space.parameters import Condition

DISTRIBUTIONS = {
    "x": IntDistribution(0, 15),
    "y": IntDistribution(0, 15),
    "kind": CategoricalDistribution(("plain", "twice", "half")),
    "reuse": CategoricalDistribution((False, True)),
    "hashes": IntDistribution(0, 7),
}
# The larger x and the smaller y, the better one and the worse the other.
PROBLEM = Problem(
    distributions=DISTRIBUTIONS,
    maximise=(True, False),
    reference_point=(5.0, 25.0),
    conditions={"hashes": Condition(on=("reuse",), values=(True,), otherwise=3)},
)
# More than the startup of any that is shipped.
TRIALS = 16


def judged(parameters: dict[str, Any]) -> list[float]:
    """The two objectives of `PROBLEM`."""
    x, y = parameters["x"], parameters["y"]
    gain = {"plain": 1.0, "twice": 2.0, "half": 0.5}[parameters["kind"]]
    saved = parameters["hashes"] / 7 if parameters["reuse"] else 0.0
    return [gain * (x + 1) * (1 + saved), x + y + 3 * gain + 4 * saved**2]


def searched(
    optimiser: Chosen, number: int, *, seed: int = 0, known: Sequence[FrozenTrial] = ()
) -> list[FrozenTrial]:
    """Ask for trials and tell what they are, in batches of four, up to a number in all."""
    trials = list(known)
    while len(trials) < number:
        answer = ask(optimiser, PROBLEM, trials, seed=seed, known=len(trials) // 4 * 4)
        parameters = dict(answer.parameters)
        trials.append(_told(parameters, judged(parameters), dict(answer.notes)))
    return trials


def _told(
    parameters: dict[str, Any], values: list[float], notes: dict[str, Any] | None = None
) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        values=values,
        params=parameters,
        distributions=dict(DISTRIBUTIONS),
        system_attrs=notes or {},
    )


class OptimiserSuite:
    """Inherit it and override `optimiser`.

    Attributes:
        learns: whether what it asks for depends on what was found, within the first `TRIALS`.
    """

    learns = True

    @pytest.fixture
    def optimiser(self) -> Chosen:
        """The optimiser, its class, or what `--optimiser` would name."""
        raise NotImplementedError

    def test_it_asks_for_points_of_the_space(self, optimiser: Chosen) -> None:
        """Else `ask` itself raises; and it says more than one thing."""
        asked = [trial.params for trial in searched(optimiser, TRIALS)]
        assert all({*each} == {*DISTRIBUTIONS} for each in asked)
        assert len({str(each) for each in asked}) > 1

    def test_the_same_seed_asks_the_same(self, optimiser: Chosen) -> None:
        """And nothing is left over of an earlier search."""
        first = [trial.params for trial in searched(optimiser, TRIALS)]
        assert [trial.params for trial in searched(optimiser, TRIALS)] == first

    def test_a_search_that_was_cut_off_asks_the_same(self, optimiser: Chosen) -> None:
        """Of trials that were read back it knows as much as of those it asked for itself."""
        whole = searched(optimiser, TRIALS)
        for kept in (1, TRIALS // 2, TRIALS - 1):
            known = [_told(each.params, each.values, each.system_attrs) for each in whole[:kept]]
            again = searched(optimiser, TRIALS, known=known)
            assert [trial.params for trial in again] == [trial.params for trial in whole]

    def test_what_is_under_way_has_no_values(self, optimiser: Chosen) -> None:
        """Trials beyond `known` must not change the answer, whatever they will be found to be."""
        trials = searched(optimiser, TRIALS)

        def answered(values: list[float]) -> dict[str, Any]:
            last = _told(trials[-1].params, values, trials[-1].system_attrs)
            told = [*trials[:-1], last]
            return dict(ask(optimiser, PROBLEM, told, seed=5, known=TRIALS - 1).parameters)

        assert answered([3.0, 3.0]) == answered([40.0, 1.0])

    def test_what_was_found_is_used(self, optimiser: Chosen) -> None:
        """Where all that was good turns bad, it asks for something else at some time."""
        trials = searched(optimiser, TRIALS)
        turned = [
            _told(each.params, [40 - each.values[0], 40 - each.values[1]], each.system_attrs)
            for each in trials
        ]
        answers = [
            [ask(optimiser, PROBLEM, told, seed=seed).parameters for seed in range(3)]
            for told in (trials, turned)
        ]
        assert (answers[0] != answers[1]) == self.learns

    def test_the_front_beats_nothing(self, optimiser: Chosen) -> None:
        """Some point is beyond the reference in both objectives."""
        found = [trial.values for trial in searched(optimiser, TRIALS)]
        reference, maximise = list(PROBLEM.reference_point), list(PROBLEM.maximise)
        assert moocore.hypervolume(found, ref=reference, maximise=maximise) > 0
