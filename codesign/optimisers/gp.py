"""The default optimiser: Gaussian processes, asked at designs one change away from good ones.

Beside Optuna's GPSampler it takes the reference point given instead of the worst trial, models in
logarithms what spans decades, never asks for a point twice, and knows the expected improvement in
closed form, which takes it a twentieth of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from codesign.evaluation.front import non_dominated
from codesign.optimisers.cube import Cube
from codesign.optimisers.gaussian_process import GaussianProcess
from codesign.optimisers.improvement import ExpectedImprovement, ObjectiveModel
from codesign.optimisers.optimiser import Problem, SamplerOptimiser
from codesign.optimisers.sobol import SobolSampler
from codesign.optimisers.whole_space import STARTUP_TRIALS, WholeSpaceSampler

# Points of the whole space, and changed ones of the front, where the improvement is looked at.
_SPREAD, _CHANGED = 1024, 1024
# The best of these are improved by one change after the other, at most so many times.
_CLIMBERS, _CLIMBS = 6, 30


class ImprovementOptimiser(SamplerOptimiser):
    """`gp`."""

    words = (
        "Gaussian processes, in logarithms where values span decades, with expected "
        "hypervolume improvement in closed form"
    )

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> ImprovementSampler:
        """See `SamplerOptimiser`."""
        return ImprovementSampler(problem, seed=own_seed, sobol_seed=seed)


class ImprovementSampler(WholeSpaceSampler):
    """The point that is expected to add most to the hypervolume, of those not tried yet.

    Each objective and constraint has a Gaussian process of its own. The first points are Sobol's.
    Designs under way count as if they had what is expected of them.

    Args:
        problem: what is searched.
        seed: of the points that are looked at.
        sobol_seed: of the first points; the same for all trials of a search.
    """

    def __init__(self, problem: Problem, *, seed: int, sobol_seed: int) -> None:
        super().__init__(problem, seed=seed)
        self._first = SobolSampler(problem, seed=sobol_seed)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point that promises most; Sobol's at first."""
        stored = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        complete = [t for t in stored if t.state == TrialState.COMPLETE]
        if len(complete) < STARTUP_TRIALS or not search_space:
            return self._first.sample_relative(study, trial, search_space)
        problem = self._problem
        cube = Cube(search_space, problem.conditions)
        points, values = cube.encode(complete), np.array([t.values for t in complete])
        limits = np.array([list(t.constraints.values()) for t in complete])
        feasible = (limits <= 0).all(axis=1)
        maximise = [direction == StudyDirection.MAXIMIZE for direction in study.directions]
        objectives = [
            ObjectiveModel.fit(
                points, column, cube.groups, columns=cube.columns_of(names), maximise=more
            )
            for column, more, names in zip(
                values.T, maximise, problem.depends or [None] * len(maximise), strict=True
            )
        ]
        constraints = [GaussianProcess.fit(points, column, cube.groups) for column in limits.T]
        known = values[feasible]
        good = points
        if feasible.any():
            good = points[feasible][non_dominated(known, maximise)]
        running = [t for t in stored if t.state == TrialState.RUNNING]
        if running:
            pending = cube.encode(running)
            objectives = [each.believing(pending) for each in objectives]
            constraints = [each.believing(pending) for each in constraints]
            likely = np.stack([each.likely(pending) for each in objectives], axis=1)
            known = np.concatenate([known, likely])
        reference = np.array(problem.hypervolume_point or problem.reference_point)
        improvement = ExpectedImprovement.beyond(
            known, reference, objectives=objectives, constraints=constraints
        )
        return cube.decode(self._best(improvement, cube, good, cube.encode(stored)))

    def _best(
        self, improvement: ExpectedImprovement, cube: Cube, good: np.ndarray, tried: np.ndarray
    ) -> np.ndarray:
        """`(columns,)` the untried point of those looked at that promises most.

        Args:
            improvement: what a point promises.
            cube: the space.
            good: `(n, columns)` points to look around.
            tried: `(n', columns)` points that are not asked for again.
        """
        rng = np.random.default_rng(self._seed)
        keys = {row.tobytes() for row in tried.round(9)}

        def promise(points: np.ndarray) -> np.ndarray:
            old = np.array([row.tobytes() in keys for row in points.round(9)])
            return np.where(old, -1.0, improvement(points))

        looked = np.concatenate(
            [
                cube.snapped(rng.random((_SPREAD, len(cube)))),
                cube.changed(good[rng.integers(len(good), size=_CHANGED)], rng),
            ]
        )
        looked = np.unique(looked, axis=0)
        found = promise(looked)
        first = np.argsort(-found, kind="stable")[:_CLIMBERS]
        return _climbed(promise, cube, looked[first], found[first])


def _climbed(
    promise: Callable[[np.ndarray], np.ndarray], cube: Cube, points: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """`(columns,)` the best point that single changes of parameters lead to.

    Args:
        promise: `(n,)` what to make large, at `(n, columns)` points.
        cube: the space.
        points: `(climbers, columns)` where to begin.
        found: `(climbers,)` the promise there.
    """
    climbing = np.arange(len(points))
    for _ in range(_CLIMBS):
        around = [cube.neighbours(points[index]) for index in climbing]
        ends = np.cumsum([len(each) for each in around])[:-1]
        values = np.split(promise(np.concatenate(around)), ends)
        risen = []
        for index, near, value in zip(climbing, around, values, strict=True):
            top = value.argmax()
            if value[top] > found[index] * (1 + 1e-9):
                points[index], found[index] = near[top], value[top]
                risen.append(index)
        if not risen:
            break
        climbing = np.array(risen)
    return points[found.argmax()]
