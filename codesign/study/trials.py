"""What a search finds: objectives, trials, and the front of the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from accelerators import Accelerator
from codesign.evaluation.front import hypervolumes, knee, non_dominated
from codesign.space.design_space import DesignSpace
from codesign.study import shortfall
from simulator import ReusePolicy
from simulator.results.differences import ACCURACY_DROP

STATES = ("complete", "infeasible", "failed", "running")
# Of a search: the last where nobody can tell whether it runs, as on a database of another machine.
FINISHED, RUNNING, STOPPED, UNFINISHED = "finished", "running", "stopped", "unfinished"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One number to make large or small.

    Attributes:
        name: key in `Trial.values`.
        unit: unit and baseline, for axes and tables.
        maximise: whether more is better.
    """

    name: str
    unit: str
    maximise: bool


OBJECTIVES = (
    Objective(name="speedup", unit="x of a dense design of equal area", maximise=True),
    Objective(name="energy_uj_per_image", unit="uJ per image", maximise=False),
    Objective(name="accuracy", unit="fraction of images", maximise=True),
)

# What the objective `accuracy` is made of -> how to call it.
QUALITIES = {
    "accuracy": "fraction of images classified as labelled",
    "miou": "mean intersection over union with the labels",
    "f1": "F1 of the labelled lane pixels",
    "agreement": "fraction of images classified as the dense model does",
    "pixel_agreement": "fraction of pixels classified as the dense model does",
    "position_agreement": "fraction of positions classified as the dense model does",
    "score": "score by the function that the workload names",
    "output_fidelity": "1 - relative squared error of the judged output, at least 0",
    "fidelity": "1 - mean over layers of the relative squared error",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: from 0, in the order of asking.
        state: `complete`; `infeasible`, breaks a rule of the hardware or a stated constraint;
            `failed`, an error while it was evaluated; or `running`, asked for but not evaluated
            yet.
        origin: `paper`, the setting of Deep Reuse for CifarNet; `start`, that of another network;
            `sampler`; or `neighbour`, a setting near the one that the sampler asked for, which had
            been tried before.
        parameters: name -> value.
        values: objective -> value; `None` unless complete.
        summary: `SimulationReport.to_dict()` without action counts and provenance; empty where
            nothing could be simulated.
        reason: why it is infeasible (the violated rules or constraints) or failed (the traceback);
            else `None`.
        repeat_of: number of the earlier trial with the same design that answered it, or `None`.
        seconds: time of the evaluation, 0 for a repeat.
        images: how many it was judged on; `None` where it was not judged.
        excess: stated limit -> by how much it is exceeded, in its unit; at most 0 where it is kept.
    """

    number: int
    state: str
    origin: str
    parameters: Mapping[str, Any]
    values: Mapping[str, float] | None = None
    summary: Mapping[str, Any]
    reason: str | None = None
    repeat_of: int | None = None
    seconds: float = 0.0
    images: int | None = None
    excess: Mapping[str, float] = field(default_factory=dict)


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
    """

    name: str
    seed: int
    trials: tuple[Trial, ...]
    specification: Mapping[str, Any]
    asked: int | None = None
    in_use: bool | None = False

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
        return DesignSpace.from_dict(self.specification["space"])

    @property
    def quality(self) -> str:
        """What the objective `accuracy` measures, a key of `QUALITIES`."""
        return self.specification["quality"]

    @property
    def baseline(self) -> Mapping[str, float]:
        """Objective -> value of the dense design that has the base design's area."""
        return self.specification["baseline"]

    @property
    def reference_point(self) -> Mapping[str, float]:
        """Objective -> value beyond which a trial adds nothing to the hypervolume.

        No speed at all, twice the energy of the baseline, no image right: a design worse than that
        is of no interest. Reuse that pays and reuse that does not both count, so that the curve
        shows the search and not only the verdict.
        """
        return reference_beyond(self.baseline)

    @property
    def paying_point(self) -> Mapping[str, float]:
        """The reference point beyond which reuse pays: the dense baseline itself.

        Its accuracy is less by what a design may lose and still be said to pay: no design has more
        accuracy than the dense model but by chance, and the volume would be nothing.
        """
        return {**self.baseline, "accuracy": self.baseline["accuracy"] - ACCURACY_DROP}

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
        return front_of(self.judged)

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
        return shortfall.unanswered(self)

    @cached_property
    def hypervolume(self) -> tuple[float, ...]:
        """Volume between `reference_point` and the front after each trial.

        In units of the baseline: speedup x accuracy x (energy below twice the baseline's, over the
        baseline's). It never shrinks; one value for each trial, those without values included.
        Only trials of `judged` add to it.
        """
        return self._hypervolume_from(self.reference_point)

    @cached_property
    def paying_hypervolume(self) -> tuple[float, ...]:
        """The same from `paying_point`: how far reuse is better than dense in all objectives."""
        return self._hypervolume_from(self.paying_point)

    def _hypervolume_from(self, point: Mapping[str, float]) -> tuple[float, ...]:
        reference = np.array([point[objective.name] for objective in OBJECTIVES])
        scale = np.array([1.0, self.baseline["energy_uj_per_image"], 1.0])
        complete = self.judged
        volumes = hypervolumes(_points(complete) / scale, reference / scale, _maximise())
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
            least = self.baseline["accuracy"] - accuracy_drop
            chosen = tuple(t for t in chosen if t.values and t.values["accuracy"] >= least)
        return min(chosen, key=energy_delay_ratio, default=None)

    def design_of(self, trial: Trial) -> tuple[Accelerator, ReusePolicy]:
        """The accelerator and the policy of a trial.

        Raises:
            ConfigError: the trial is infeasible.
        """
        return self.space.build(trial.parameters)


def reference_beyond(baseline: Mapping[str, float]) -> dict[str, float]:
    """What `StudyResult.reference_point` says, of a baseline."""
    return {
        "speedup": 0.0,
        "energy_uj_per_image": 2 * baseline["energy_uj_per_image"],
        "accuracy": 0.0,
    }


def front_of(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Of complete trials, those that no other beats in every objective; of equals, the first."""
    keep = non_dominated(_points(trials), _maximise())
    return tuple(trial for trial, kept in zip(trials, keep, strict=True) if kept)


def knee_of(trials: tuple[Trial, ...]) -> Trial | None:
    """Where the front of complete trials bends most, see `codesign.evaluation.front.knee`."""
    front = front_of(trials)
    index = knee(_points(front), _maximise())
    return None if index is None else front[index]


def energy_delay_ratio(trial: Trial) -> float:
    """Energy times time over those of the dense design of equal area; below 1 is better."""
    return trial.summary["energy_ratio_equal_area"] / trial.summary["speedup_equal_area"]


def _points(trials: tuple[Trial, ...]) -> np.ndarray:
    """`(trials, objectives)` float64 values of complete trials."""
    rows = [[trial.values[o.name] for o in OBJECTIVES] for trial in trials if trial.values]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(OBJECTIVES))


def _maximise() -> list[bool]:
    return [objective.maximise for objective in OBJECTIVES]
