"""The default optimiser: Gaussian processes, asked at designs one change away from good ones.

Beside Optuna's GPSampler it takes the reference point given instead of the worst trial, models in
logarithms what spans decades, never asks for a point twice, and knows the expected improvement in
closed form, which takes it a twentieth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from codesign.evaluation.front import non_dominated
from codesign.optimisers.gaussian_process import GaussianProcess
from codesign.optimisers.improvement import ExpectedImprovement, ObjectiveModel
from codesign.optimisers.optuna_samplers import STARTUP_TRIALS, SobolSampler, WholeSpaceSampler
from codesign.space.parameters import Condition

# Points of the whole space, and changed ones of the front, where the improvement is looked at.
_SPREAD, _CHANGED = 1024, 1024
# The best of these are improved by one change after the other, at most so many times.
_CLIMBERS, _CLIMBS = 6, 30
_CHANGES = 4  # of a point of the front, at most
# How far a float may move, as a part of its range.
_FLOAT_STEPS = tuple(0.5**step for step in range(1, 13))


class Cube:
    """A space as a unit cube: a column for a number, one for each choice of a category.

    Args:
        distributions: of the parameters that have a choice.
        conditions: see `Problem`.

    Attributes:
        groups: `(columns,)` int, the parameter that a column is of.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        conditions: Mapping[str, Condition],
    ) -> None:
        self._names = list(distributions)
        self._transform = _SearchSpaceTransform(dict(distributions), transform_0_1=True)
        self._columns = [
            slice(int(each[0]), int(each[-1]) + 1)
            for each in self._transform.column_to_encoded_columns
        ]
        self.groups = self._transform.encoded_column_to_column
        # Parameter -> choices of a category, values of a number in steps, or none of a float.
        self._choices = [_choices(each) for each in distributions.values()]
        self._is_category = [
            isinstance(each, CategoricalDistribution) for each in distributions.values()
        ]
        self._idle = list(self._when_idle(distributions, conditions))

    def _when_idle(
        self,
        distributions: Mapping[str, BaseDistribution],
        conditions: Mapping[str, Condition],
    ) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Column that is 0 where a parameter is idle, its columns, and what they are then."""
        for name, condition in conditions.items():
            on = distributions.get(condition.on)
            if name not in distributions or not isinstance(on, CategoricalDistribution):
                continue
            columns = self._columns[self._names.index(name)]
            switch = self._columns[self._names.index(condition.on)].start
            own = _SearchSpaceTransform({name: distributions[name]}, transform_0_1=True)
            otherwise = own.transform({name: condition.otherwise})
            yield switch + on.choices.index(condition.value), columns, otherwise

    def __len__(self) -> int:
        return len(self.groups)

    def columns_of(self, names: Collection[str] | None) -> np.ndarray:
        """Those of some parameters, of all where `None` or where none of them has a choice."""
        chosen = [names is None or name in names for name in self._names]
        return np.flatnonzero(np.array(chosen)[self.groups] | (not any(chosen)))

    def encode(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """`(trials, columns)` float64."""
        rows = [
            self._transform.transform({name: trial.params[name] for name in self._names})
            for trial in trials
        ]
        return self._settled(np.array(rows).reshape(len(trials), len(self)))

    def decode(self, point: np.ndarray) -> dict[str, Any]:
        """The parameters at a point."""
        return self._transform.untransform(point)

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """The nearest points that parameters can have."""
        points = points.copy()
        for columns, choices, is_category in zip(
            self._columns, self._choices, self._is_category, strict=True
        ):
            if is_category:
                points[:, columns] = np.eye(choices)[points[:, columns].argmax(axis=1)]
            elif choices:
                level = np.clip(np.floor(points[:, columns] * choices), 0, choices - 1)
                points[:, columns] = (level + 0.5) / choices
        return self._settled(points)

    def _settled(self, points: np.ndarray) -> np.ndarray:
        """The points, changed in place, with idle parameters as they are always told."""
        for switch, columns, otherwise in self._idle:
            rows = np.flatnonzero(points[:, switch] == 0)
            points[rows, columns] = otherwise
        return points

    def neighbours(self, point: np.ndarray) -> np.ndarray:
        """`(n, columns)` points that differ in one parameter: near ones and, fewer, far ones."""
        found = []
        for columns, choices, is_category in zip(
            self._columns, self._choices, self._is_category, strict=True
        ):
            if is_category:
                values = np.eye(choices)
            else:
                steps = (
                    np.array([1 << bit for bit in range((choices - 1).bit_length())]) / choices
                    if choices
                    else np.array(_FLOAT_STEPS)
                )
                values = point[columns] + np.concatenate([-steps, steps])[:, None]
                low = 0.5 / choices if choices else 0.0
                inside = (values > low - 1e-9) & (values < 1 - low + 1e-9)
                values = values[inside[:, 0]]
            changed = np.repeat(point[None], len(values), axis=0)
            changed[:, columns] = values
            found.append(changed)
        return self._settled(np.concatenate(found))

    def changed(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each point with a few of its parameters changed, mostly by little."""
        points = points.copy()
        count = len(self._columns)
        changes = rng.integers(1, min(_CHANGES, count) + 1, size=len(points))
        chosen = rng.random((len(points), count)).argsort(axis=1).argsort(axis=1)
        for parameter, columns in enumerate(self._columns):
            rows = np.flatnonzero(chosen[:, parameter] < changes)
            if self._is_category[parameter]:
                points[rows, columns] = rng.random((len(rows), self._choices[parameter]))
                continue
            choices = self._choices[parameter]
            reach = 0.5 ** rng.uniform(1, 10 if not choices else 4, size=len(rows))
            move = rng.standard_normal(len(rows)) * reach
            if choices:  # at least to the next value
                move = np.sign(move) * np.maximum(np.abs(move), 1.0 / choices)
            points[rows, columns.start] = np.clip(points[rows, columns.start] + move, 0, 1)
        return self.snapped(points)


class ImprovementSampler(WholeSpaceSampler):
    """The point that is expected to add most to the hypervolume, of those not tried yet.

    Each objective and constraint has a Gaussian process of its own. The first points are Sobol's.
    Designs under way count as if they had what is expected of them.

    Args:
        distributions: of all parameters.
        seed: of the points that are looked at.
        sobol_seed: of the first points; the same for all trials of a search.
        reference_point: for each objective, the value from which the hypervolume counts.
        conditions: see `Problem`, as is the next.
        depends: see there.
    """

    def __init__(
        self,
        *,
        distributions: Mapping[str, BaseDistribution],
        seed: int,
        sobol_seed: int,
        reference_point: Sequence[float],
        conditions: Mapping[str, Condition],
        depends: Sequence[Collection[str] | None],
    ) -> None:
        super().__init__(distributions=distributions, seed=seed)
        self._first = SobolSampler(distributions=distributions, seed=sobol_seed)
        self._reference = np.array(reference_point)
        self._conditions = conditions
        self._depends = depends

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point that promises most; Sobol's at first."""
        stored = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        complete = [t for t in stored if t.state == TrialState.COMPLETE]
        if len(complete) < STARTUP_TRIALS or not search_space:
            return self._first.sample_relative(study, trial, search_space)
        cube = Cube(search_space, self._conditions)
        points, values = cube.encode(complete), np.array([t.values for t in complete])
        limits = np.array([list(t.constraints.values()) for t in complete])
        feasible = (limits <= 0).all(axis=1)
        maximise = [direction == StudyDirection.MAXIMIZE for direction in study.directions]
        objectives = [
            ObjectiveModel.fit(
                points, column, cube.groups, columns=cube.columns_of(names), maximise=more
            )
            for column, more, names in zip(
                values.T, maximise, self._depends or [None] * len(maximise), strict=True
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
        improvement = ExpectedImprovement.beyond(
            known, self._reference, objectives=objectives, constraints=constraints
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


def _choices(distribution: BaseDistribution) -> int:
    """How many values it has; 0 for a float."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    return 0
