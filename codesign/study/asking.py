"""Asks an optimiser for the trials of a study, and looks beside what was tried before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from accelerators import ConfigError
from codesign.optimisers.optimiser import Answer, Problem
from codesign.optimisers.registry import Chosen, ask
from codesign.space.design_space import DesignSpace
from codesign.study.trials import OBJECTIVES, reference_beyond

# Settings near a repeated one that are looked at, those with one parameter changed first.
_NEIGHBOURS = 200


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Asks for the trials of a study.

    Attributes:
        optimiser: which, see `find_optimiser`.
        space: what to choose from.
        seed: of the search.
        baseline: objective -> value of the dense baseline.
        tried: keys of all designs asked for; grows.
    """

    optimiser: Chosen
    space: DesignSpace
    seed: int
    baseline: Mapping[str, float]
    tried: set[str]

    @classmethod
    def of(cls, study: optuna.Study, *, space: DesignSpace, **settings: Any) -> Asker:
        """Goes on with a study; see the attributes."""
        stored = study.get_trials(deepcopy=False)
        tried = {design_key(space, space.decode(trial.params)) for trial in stored}
        return cls(space=space, tried=tried, **settings)

    def trial(self, study: optuna.Study, number: int, *, known: int) -> FrozenTrial:
        """A trial of the study, asked for and stored in one step if it is the next.

        Args:
            study: what is searched.
            number: of the trial.
            known: how many trials the optimiser may see with their values.
        """
        stored = study.get_trials(deepcopy=False)
        if number < len(stored):
            return stored[number]
        start = list(self.space.start.items())
        notes: Mapping[str, Any] = {}
        if number < len(start):
            origin, values = start[number]
        else:
            answer = self._answer(stored, known)
            notes = answer.notes
            origin, values = self._untried(self.space.decode(answer.parameters), number)
        self.tried.add(design_key(self.space, values))
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

    def _answer(self, stored: list[FrozenTrial], known: int) -> Answer:
        """What the optimiser says, knowing so many trials with their values."""
        counted = reference_beyond(self.baseline)
        problem = Problem(
            distributions=self.space.distributions,
            maximise=tuple(objective.maximise for objective in OBJECTIVES),
            # Better than the dense baseline in speed and energy; accuracy is what reuse pays with.
            reference_point=(1.0, self.baseline["energy_uj_per_image"], 0.0),
            hypervolume_point=tuple(counted[objective.name] for objective in OBJECTIVES),
            conditions=self.space.conditions,
            depends=tuple(
                self.space.of_decisions if objective.name == "accuracy" else None
                for objective in OBJECTIVES
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
    return json.dumps([accelerator.to_dict(), policy.describe()], sort_keys=True)
