"""What a search finds: its trials, and the front of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from accelerators import Accelerator
from codesign.evaluation.front import hypervolumes, knee, non_dominated
from codesign.evaluation.held_out import HeldOut
from codesign.evaluation.objective import Objective, directions_of, points_of
from codesign.evaluation.objectives import ACCURACY, QUALITIES, Accuracy, stored_objectives
from codesign.space.described import described_space
from codesign.space.design_space import DesignSpace
from codesign.study import shortfall
from codesign.study.trial import Trial
from simulator import ReusePolicy

# Of a search: the last where nobody can tell whether it runs, as on a database of another machine.
FINISHED, RUNNING, STOPPED, UNFINISHED = "finished", "running", "stopped", "unfinished"


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A search, finished or not, as its study file has it.

    Attributes:
        name: of the workload, in words.
        seed: of the search.
        trials: in the order of asking.
        specification: what was searched and how: space, objectives, constraints, workload,
            optimiser, seed, batch, baseline, versions.
        asked: how many trials there are to be in all; `None` where the study does not tell.
        in_use: whether a search is running on the study; `None` where nobody can tell.
        held_out: what became of the front on inputs that the search did not see, if there were any.
    """

    name: str
    seed: int
    trials: tuple[Trial, ...]
    specification: Mapping[str, Any]
    asked: int | None = None
    in_use: bool | None = False
    held_out: HeldOut | None = None

    @property
    def progress(self) -> str:
        """`FINISHED`, `RUNNING`, `STOPPED` or `UNFINISHED`: whether more trials are to come."""
        if self.in_use:
            return RUNNING
        waiting = len(self.of_state("running"))
        if not waiting and (self.asked is None or len(self.trials) >= self.asked):
            return FINISHED
        return UNFINISHED if self.in_use is None else STOPPED

    @cached_property
    def space(self) -> DesignSpace:
        """The design space."""
        return described_space(self.specification["space"])

    @property
    def quality(self) -> str:
        """What the objective `accuracy` measures, a key of `QUALITIES`."""
        return self.specification["quality"]

    @property
    def accuracy(self) -> Accuracy:
        """The objective of that name."""
        return QUALITIES[self.quality]

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What was searched for; those of a user's tell and do not read."""
        return stored_objectives(self.specification["objectives"], self.quality)

    @property
    def baseline(self) -> Mapping[str, float]:
        """Objective -> value of the dense design that has the base design's area."""
        return self.specification["baseline"]

    @property
    def reference_point(self) -> Mapping[str, float]:
        """Objective -> value beyond which a trial adds nothing to the hypervolume.

        No speed at all, twice the energy of the baseline, no image right: a design worse than that
        is of no interest, see `Objective.reference`. Reuse that pays and reuse that does not both
        count, so that the curve shows the search and not only the verdict.
        """
        return {o.name: o.reference(self.baseline[o.name]) for o in self.objectives}

    @property
    def paying_point(self) -> Mapping[str, float]:
        """The reference point beyond which reuse pays: the dense baseline itself.

        Its accuracy is less by what a design may lose and still be said to pay: no design has more
        accuracy than the dense model but by chance, and the volume would be nothing.
        """
        return {o.name: o.paying(self.baseline[o.name]) for o in self.objectives}

    @property
    def start(self) -> Trial:
        """The first trial: the base design with the paper's, or the usual, setting."""
        return self.trials[0]

    def of_state(self, state: str) -> tuple[Trial, ...]:
        """The trials in one of `STATES`."""
        return tuple(trial for trial in self.trials if trial.state == state)

    @property
    def judged(self) -> tuple[Trial, ...]:
        """Complete trials that were judged on all images."""
        everything = self.specification["workload"]["images"]
        return tuple(t for t in self.of_state("complete") if t.images in (None, everything))

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """Those of `judged` that no other beats in every objective; of equals, the first."""
        return front_of(self.judged, self.objectives)

    @cached_property
    def knee(self) -> Trial | None:
        """Where the front bends most, see `codesign.evaluation.front.knee`."""
        return knee_of(self.front, self.objectives)

    @cached_property
    def failures(self) -> str | None:
        """How many trials failed while they were evaluated, and of what; `None` if none did."""
        reasons = [trial.reason for trial in self.of_state("failed")]
        return shortfall.failures(reasons, len(self.trials))

    @cached_property
    def unanswered(self) -> str | None:
        """Why the front is empty: trials failed, or are beyond limits, by how much at the least.

        `None` where it is not empty.
        """
        if self.front:
            return None
        return shortfall.unanswered(self.trials, self.specification["constraints"], self.failures)

    @cached_property
    def hypervolume(self) -> tuple[float, ...]:
        """Volume between `reference_point` and the front after each trial.

        In units of the baseline, see `Objective.scale`: speedup x accuracy x (energy below twice
        the baseline's, over the baseline's). It never shrinks; one value for each trial, those
        without values included. Only trials of `judged` add to it.
        """
        return self._hypervolume_from(self.reference_point)

    @cached_property
    def paying_hypervolume(self) -> tuple[float, ...]:
        """The same from `paying_point`: how far reuse is better than dense in all objectives."""
        return self._hypervolume_from(self.paying_point)

    def _hypervolume_from(self, point: Mapping[str, float]) -> tuple[float, ...]:
        objectives, complete = self.objectives, self.judged
        reference = points_of([point], objectives)[0]
        scale = np.array([o.scale(self.baseline[o.name]) for o in objectives])
        points = _points(complete, objectives) / scale
        volumes = hypervolumes(points, reference / scale, directions_of(objectives))
        after = dict(zip((trial.number for trial in complete), volumes, strict=True))
        current, curve = 0.0, []
        for trial in self.trials:
            current = after.get(trial.number, current)
            curve.append(current)
        return tuple(curve)

    def best(self, *, accuracy_drop: float | None = 0.02) -> Trial | None:
        """The trial of the front with the least energy-delay product.

        Energy and time are each taken over those of the dense design of equal area, so that large
        and small designs compare.

        Args:
            accuracy_drop: look only at trials that lose no more accuracy than this against the
                baseline; `None` looks at the whole front.

        Returns:
            The trial, or `None` where none qualifies.
        """
        chosen = self.front
        if accuracy_drop is not None:
            least = self.baseline[ACCURACY] - accuracy_drop
            chosen = tuple(t for t in chosen if t.values and t.values[ACCURACY] >= least)
        return min(chosen, key=energy_delay_ratio, default=None)

    def design_of(self, trial: Trial) -> tuple[Accelerator, ReusePolicy]:
        """The accelerator and the policy of a trial.

        Raises:
            ConfigError: the trial is infeasible.
        """
        return self.space.build(trial.parameters)


def front_of(trials: Sequence[Trial], objectives: Sequence[Objective]) -> tuple[Trial, ...]:
    """Of complete trials, those that no other beats in every objective; of equals, the first."""
    keep = non_dominated(_points(trials, objectives), directions_of(objectives))
    return tuple(trial for trial, kept in zip(trials, keep, strict=True) if kept)


def knee_of(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """Where the front of complete trials bends most, see `codesign.evaluation.front.knee`."""
    front = front_of(trials, objectives)
    index = knee(_points(front, objectives), directions_of(objectives))
    return None if index is None else front[index]


def energy_delay_ratio(trial: Trial) -> float:
    """Energy times time over those of the dense design of equal area; below 1 is better."""
    return trial.summary["energy_ratio_equal_area"] / trial.summary["speedup_equal_area"]


def _points(trials: Sequence[Trial], objectives: Sequence[Objective]) -> np.ndarray:
    """`(trials, objectives)` float64 values of complete trials."""
    return points_of([trial.values for trial in trials if trial.values], objectives)
