"""A space as a unit cube, in which optimisers look for points."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from codesign.space.parameters import Condition

# Parameters of a point that change at once, at most.
_CHANGES = 4
# How far a float may move, as a part of its range.
_FLOAT_STEPS = tuple(0.5**step for step in range(1, 13))


class UnitCube:
    """A column for a number, one for each choice of a category, as Optuna's samplers have it.

    A number in steps has the middle of one of equal parts; a logarithmic one is so here too.

    Args:
        distributions: of parameters that have a choice.

    Attributes:
        columns: the columns of each parameter.
        groups: `(columns,)` int64, the parameter that a column is of.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)
        bounds = [_bounds(each) for each in distributions.values()]
        ends = np.cumsum([0, *map(len, bounds)])
        self.columns = [slice(int(first), int(last)) for first, last in pairwise(ends)]
        self.groups = np.repeat(np.arange(len(bounds)), [len(each) for each in bounds])
        low, high = np.concatenate(bounds).T
        self._low, self._width = low, high - low

    def __len__(self) -> int:
        return len(self.groups)

    def point(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """`(columns,)` float64 where parameters are; others than the space's are left out."""
        found = np.zeros(len(self))
        for (name, each), columns in zip(self._distributions.items(), self.columns, strict=True):
            if isinstance(each, CategoricalDistribution):
                found[columns.start + int(each.to_internal_repr(parameters[name]))] = 1.0
            else:
                found[columns] = _scaled(each, parameters[name])
        return (found - self._low) / self._width

    def decode(self, point: np.ndarray) -> dict[str, Any]:
        """The parameters nearest to a `(columns,)` point."""
        place = self._low + point * self._width
        return {
            name: _value(each, place[columns])
            for (name, each), columns in zip(self._distributions.items(), self.columns, strict=True)
        }


def _scaled(distribution: Any, value: float) -> float:
    return math.log(value) if distribution.log else float(value)


def _bounds(distribution: BaseDistribution) -> list[tuple[float, float]]:
    """Where each column begins and ends, half a step beyond the values themselves."""
    match distribution:
        case CategoricalDistribution():
            return [(0.0, 1.0)] * len(distribution.choices)
        case IntDistribution():
            half = 0.5 * distribution.step
            ends = distribution.low - half, distribution.high + half
            return [(_scaled(distribution, ends[0]), _scaled(distribution, ends[1]))]
        case FloatDistribution():
            half = 0.5 * (distribution.step or 0.0)
            low, high = (_scaled(distribution, x) for x in (distribution.low, distribution.high))
            return [(low - half, high + half)]
        case _:
            raise TypeError(f"a distribution must be Optuna's, got {distribution!r}")


def _value(distribution: BaseDistribution, place: np.ndarray) -> Any:
    """The value at `(its columns,)` places between the bounds."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.to_external_repr(int(place.argmax()))
    assert isinstance(distribution, IntDistribution | FloatDistribution), "as `_bounds` has it"
    found, low, high = float(place[0]), distribution.low, distribution.high
    if distribution.log:
        found = math.exp(found)
    if isinstance(distribution, IntDistribution):
        steps = math.floor((found - low) / distribution.step + 0.5)
        whole = round(found) if distribution.log else int(steps * distribution.step + low)
        return min(max(whole, distribution.low), distribution.high)
    if distribution.step is not None:
        steps = np.round((found - low) / distribution.step)
        return float(np.clip(steps * distribution.step + low, low, high))
    most = float(np.nextafter(high, high - 1))
    return min(max(found, low), most) if distribution.log else min(found, most)


class Cube(UnitCube):
    """A unit cube with moves from one setting to others.

    Args:
        distributions: of the parameters that have a choice.
        conditions: see `Problem`.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        conditions: Mapping[str, Condition],
    ) -> None:
        super().__init__(distributions)
        self._names = list(distributions)
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
    ) -> Iterator[tuple[list[int], slice, np.ndarray]]:
        """Columns that all are 0 where a parameter is idle, its own, and what they are then."""
        for name, condition in conditions.items():
            if name not in distributions:
                continue
            switches = []
            for other in condition.on:
                on = distributions.get(other)
                if isinstance(on, CategoricalDistribution):
                    first = self.columns[self._names.index(other)].start
                    wanted = [value for value in condition.values if value in on.choices]
                    switches += [first + on.choices.index(value) for value in wanted]
            if not switches:
                continue
            own = UnitCube({name: distributions[name]})
            otherwise = own.point({name: condition.otherwise})
            yield switches, self.columns[self._names.index(name)], otherwise

    def columns_of(self, names: Collection[str] | None) -> np.ndarray:
        """Those of some parameters, of all where `None` or where none of them has a choice."""
        chosen = [names is None or name in names for name in self._names]
        return np.flatnonzero(np.array(chosen)[self.groups] | (not any(chosen)))

    def encode(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """`(trials, columns)` float64."""
        rows = [self.point(trial.params) for trial in trials]
        return self._settled(np.array(rows).reshape(len(trials), len(self)))

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """The nearest points that parameters can have."""
        points = points.copy()
        for columns, choices, is_category in zip(
            self.columns, self._choices, self._is_category, strict=True
        ):
            if is_category:
                points[:, columns] = np.eye(choices)[points[:, columns].argmax(axis=1)]
            elif choices:
                level = np.clip(np.floor(points[:, columns] * choices), 0, choices - 1)
                points[:, columns] = (level + 0.5) / choices
        return self._settled(points)

    def _settled(self, points: np.ndarray) -> np.ndarray:
        """The points, changed in place, with idle parameters as they are always told."""
        for switches, columns, otherwise in self._idle:
            rows = np.flatnonzero((points[:, switches] == 0).all(axis=1))
            points[rows, columns] = otherwise
        return points

    def neighbours(self, point: np.ndarray) -> np.ndarray:
        """`(n, columns)` points that differ in one parameter: near ones and, fewer, far ones."""
        found = []
        for columns, choices, is_category in zip(
            self.columns, self._choices, self._is_category, strict=True
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
        count = len(self.columns)
        changes = rng.integers(1, min(_CHANGES, count) + 1, size=len(points))
        chosen = rng.random((len(points), count)).argsort(axis=1).argsort(axis=1)
        for parameter, columns in enumerate(self.columns):
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


def _choices(distribution: BaseDistribution) -> int:
    """How many values it has; 0 for a float."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    return 0
