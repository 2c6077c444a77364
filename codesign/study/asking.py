"""Asks an optimiser for the trials of a study, and looks beside what was tried before."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from accelerators import ConfigError
from codesign.evaluation.objective import Objective, directions_of
from codesign.optimisers.optimiser import Answer, Problem
from codesign.optimisers.registry import Chosen, ask
from codesign.space.design_space import POLICY, DesignSpace
from codesign.space.parameters import ParameterSpace

# Settings near a repeated one that are looked at, those with one parameter changed first.
_NEIGHBOURS = 200


class Asks(ABC):
    """What a search asks.

    Attributes:
        space: what to choose from.
    """

    space: ParameterSpace

    def trial(self, study: optuna.Study, number: int, *, known: int) -> FrozenTrial:
        """A trial of the study, asked for and stored in one step if it is the next.

        Args:
            study: what is searched.
            number: of the trial.
            known: how many trials may be seen with their values.
        """
        stored = study.get_trials(deepcopy=False)
        if number < len(stored):
            return stored[number]
        origin, values, notes = self.next(stored, known)
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=self.space.encode(values),
                distributions=self.space.distributions,
                user_attrs={"origin": origin},
                system_attrs=dict(notes),
            )
        )
        return study.get_trials(deepcopy=False)[number]

    @abstractmethod
    def next(
        self, stored: list[FrozenTrial], known: int
    ) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
        """Origin, values and an optimiser's notes of the trial after those stored."""

    def job(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the evaluator takes for these values: the values themselves."""
        return dict(parameters)

    @abstractmethod
    def key(self, parameters: Mapping[str, Any]) -> str:
        """Equal for values that are answered alike."""


@dataclass(frozen=True, kw_only=True)
class Asker(Asks):
    """Asks for the trials of a study.

    Attributes:
        optimiser: which, see `find_optimiser`.
        space: what to choose from.
        seed: of the search.
        objectives: what is searched for.
        baseline: objective -> value of the dense baseline.
        tried: keys of all designs asked for; grows.
    """

    optimiser: Chosen
    space: DesignSpace
    seed: int
    objectives: tuple[Objective, ...]
    baseline: Mapping[str, float]
    tried: set[str]

    @classmethod
    def of(cls, study: optuna.Study, *, space: DesignSpace, **settings: Any) -> Asker:
        """Goes on with a study; see the attributes."""
        stored = study.get_trials(deepcopy=False)
        tried = {design_key(space, space.decode(trial.params)) for trial in stored}
        return cls(space=space, tried=tried, **settings)

    def next(
        self, stored: list[FrozenTrial], known: int
    ) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
        """A start of the space, or what the optimiser says, or something untried near it."""
        number, start = len(stored), list(self.space.start.items())
        notes: Mapping[str, Any] = {}
        if number < len(start):
            origin, values = start[number]
        else:
            answer = self._answer(stored, known)
            notes = answer.notes
            origin, values = self._untried(self.space.decode(answer.parameters), number)
        self.tried.add(design_key(self.space, values))
        return origin, values, notes

    def key(self, parameters: Mapping[str, Any]) -> str:
        """See `design_key`."""
        return design_key(self.space, parameters)

    def _answer(self, stored: list[FrozenTrial], known: int) -> Answer:
        """What the optimiser says, knowing so many trials with their values."""
        goals = [(objective, self.baseline[objective.name]) for objective in self.objectives]
        problem = Problem(
            distributions=self.space.distributions,
            maximise=tuple(directions_of(self.objectives)),
            reference_point=tuple(each.interesting(baseline) for each, baseline in goals),
            hypervolume_point=tuple(each.reference(baseline) for each, baseline in goals),
            conditions=self.space.conditions,
            depends=tuple(
                self.space.of_decisions if objective.of_decisions else None
                for objective in self.objectives
            ),
        )
        return ask(self.optimiser, problem, stored, seed=self.seed, known=known)

    def _untried(self, asked: Mapping[str, Any], number: int) -> tuple[str, dict[str, Any]]:
        """Origin and values of what was asked for, or of an untried setting near it.

        Small changes come first; in the end all parameters are drawn anew. Where every setting
        looked at was tried, what was asked for is, and is answered by the earlier trial.
        """
        space = self.space
        asked = space.settled(asked)
        if design_key(space, asked) not in self.tried:
            return "sampler", asked
        rng = np.random.default_rng([self.seed, number])
        free = [parameter for parameter in space.parameters if len(parameter.choices) > 1]
        for attempt in range(_NEIGHBOURS if free else 0):
            changes = 1 + attempt * len(free) // _NEIGHBOURS
            values = dict(asked)
            for index in rng.choice(len(free), size=changes, replace=False):
                chosen = free[index]
                values[chosen.name] = chosen.beside(values[chosen.name], changes == 1, rng)
            values = space.settled(values)
            if design_key(space, values) not in self.tried:
                return "neighbour", values
        return "sampler", asked


def design_key(space: DesignSpace, parameters: Mapping[str, Any]) -> str:
    """Equal for parameters that build the same design and policy, as unused ones do."""
    try:
        accelerator, policy = space.build(parameters)
    except ConfigError:
        return json.dumps(dict(parameters), sort_keys=True)
    own = {name: parameters[name] for name in space.own_fields if name.startswith(POLICY)}
    return json.dumps([accelerator.to_dict(), policy.describe(), own], sort_keys=True)
