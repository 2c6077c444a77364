"""The search: ask the optimiser, evaluate, tell; every trial on disk before the next is asked for.

The numbers depend on the seed, the batch size and the number of a trial, and on nothing else: not
on how many workers there are, which finishes first, or how often the search was cut off. For that,
trial n is asked of a fresh optimiser, seeded by (seed, n), that sees the trials of earlier batches
with their values and those of its own batch as running, whether they are or not.

Within a batch a trial is asked for while those before it are evaluated: the optimiser's time costs
workers nothing unless it is longer than theirs.

Where the optimiser asks for a design that was tried before, one near it takes its place.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from accelerators import ConfigError
from codesign.evaluation.allotting import (
    OnMeasured,
    allotted_space,
    with_dials_allotted,
    with_thirds,
)
from codesign.evaluation.evaluator import Evaluation, Evaluator
from codesign.evaluation.held_out import HeldOut, held_out_evaluator, ratios_of
from codesign.evaluation.objective import Objective
from codesign.evaluation.objectives import OBJECTIVES, objective_problems
from codesign.evaluation.workload import Workload
from codesign.optimisers.quiet import quiet_optuna
from codesign.optimisers.registry import Chosen, optimiser_name, optimiser_problems
from codesign.space.checks import integer_problems
from codesign.space.constraints import Constraints
from codesign.space.described import described_space
from codesign.space.design_space import DesignSpace
from codesign.space.technique_space import TechniqueSpace
from codesign.study.asking import Asker, Asks
from codesign.study.records import Records, is_failed, read_result
from codesign.study.result import StudyResult, front_of
from codesign.study.runner import EXECUTORS, Run, running
from codesign.study.shortfall import are_alike, limit_problems
from codesign.study.staged import StagedEvaluator
from codesign.study.store import (
    FORMAT_VERSION,
    Place,
    check_resume,
    is_in_use,
    keep_plan,
    open_study,
    read_study,
    stored_specification,
    storing,
    study_place,
)
from codesign.study.stored import HELD_OUT
from codesign.study.trial import Trial

VERSIONS_OF = ("torch", "numpy", "scipy", "numba", "optuna", "ray")

# Called with a trial just told, how many are told, and how many there will be.
OnProgress = Callable[[Trial, int, int], None]


def search(
    workload: Workload,
    space: DesignSpace,
    *,
    trials: int = 40,
    workers: int = 2,
    seed: int = 0,
    storage: str | Path,
    resume: bool = False,
    optimiser: Chosen = "gp",
    objectives: Sequence[Objective] | None = None,
    constraints: Constraints | None = None,
    ray_address: str | None = None,
    batch: int = 4,
    executor: str = "ray",
    first_images: int | None = None,
    plan: Mapping[str, Any] | None = None,
    on_measured: OnMeasured | None = None,
    on_progress: OnProgress | None = None,
) -> StudyResult:
    """Search a design space for the front of speedup, energy and accuracy, or other objectives.

    The first trials are the space's starts; `gp` then begins with Sobol points, `botorch` and `tpe`
    with random ones. Ctrl-C raises KeyboardInterrupt; every finished trial is kept.

    In a `TechniqueSpace` what each group of layers bears is measured before the first trial, and
    one parameter then sets how much each shares, see `codesign.evaluation.allotting`. What was
    measured is kept with the study: one that goes on measures nothing. Where it is cut off as it
    measures, there is no study yet.

    Args:
        workload: what to judge designs on.
        space: what to choose from.
        trials: how many in all, those of a resumed study included; a study can be extended.
        workers: evaluations at a time; does not change the numbers.
        seed: of the search, at least 0.
        storage: the study file, `*.journal`, or a directory for `study.journal`, or the URL of a
            database such as `sqlite:///study.db`, which holds one study.
        resume: go on with the study that is there, as if nothing had happened.
        optimiser: a key of `OPTIMISERS`, `file.py:NAME` or `package.module:NAME` (executed), or an
            `Optimiser` of your own or its class.
        objectives: what to make large or small, `accuracy` among them; `None` for `OBJECTIVES`.
            One of your own is an `Objective`, which must be given again to go on.
        constraints: limits that designs must keep.
        ray_address: a Ray cluster to run on instead of this machine.
        batch: trials asked for together; a larger one keeps more workers busy but learns later.
        executor: `ray`, or `inline` to evaluate in this process.
        first_images: judge a trial on so many images first, and on all only if it may join the
            front, see `codesign.study.staged`; `None` judges every trial on all.
        plan: kept with the study, as what makes it again; see `StudyPlan.run`.
        on_measured: see `codesign.evaluation.allotting.OnMeasured`.
        on_progress: see `OnProgress`.

    Raises:
        ConfigError: an argument breaks a rule, no design can keep a limit, or the study file is not
            fit for this search.
        TraceError: the workload lacks activations.
        OSError, RayDiedError: the study file, which is named, cannot be written, or Ray has ended.
    """
    goals = OBJECTIVES if objectives is None else objectives
    counts = {"trials": trials, "workers": workers, "seed": seed, "batch": batch}
    place, limits = study_place(storage), constraints or Constraints()
    _check(optimiser, goals, executor, counts, limits, space)
    check_resume(place, resume=resume)  # before anything is measured
    full = Evaluator.of(workload, space, goals)
    with quiet_optuna():
        full = replace(full, space=_allotted(workload, space, place, resume, on_measured))
    others = held_out_evaluator(workload, full)
    staged = None if first_images is None else StagedEvaluator.of(workload, full, first_images)
    specification = _specification(workload, full) | {
        "seed": seed,
        "batch": batch,
        "optimiser": optimiser_name(optimiser),
        "constraints": limits.to_dict(),
        "first_images": first_images,
        "plan": plan,
    }
    with (
        quiet_optuna(),
        open_study(place, specification, resume=resume) as study,
        running(executor, staged or full, workers, ray_address) as run,
    ):
        keep_plan(place, plan)
        loop = SearchLoop.of(
            study, place, specification, full, staged, optimiser=optimiser, trials=trials
        )
        loop.records.ask_for(trials)
        for _, trial in rounds([loop], run):
            if on_progress is not None:
                on_progress(trial, loop.finished, trials)
        result = read_result(study, place)
    if others is None:
        return result
    with (
        quiet_optuna(),
        open_study(place, specification, resume=True) as study,
        running(executor, others, workers, ray_address) as run,
    ):
        _judge_held_out(study, place, others, run)
        return read_result(study, place)


def _allotted(
    workload: Workload,
    space: DesignSpace,
    place: Place,
    resume: bool,
    on_measured: OnMeasured | None,
) -> DesignSpace:
    """A space over techniques with what groups bear: measured now, or when its study began."""
    if not isinstance(space, TechniqueSpace) or space.allotment is not None:
        return space
    specification = stored_specification(place) if resume else None
    if specification is None:
        return with_dials_allotted(space, workload, on_measured)
    stored = described_space(specification["space"])
    allotment = stored.allotment if isinstance(stored, TechniqueSpace) else None
    if allotment is None:  # without a model, or of another study, which is told as it is opened
        return with_thirds(space)
    choices = {p.name: p.choices for p in space.parameters if p.name in space.dials}
    return allotted_space(space, allotment) if choices == allotment.choices else space


def _judge_held_out(study: optuna.Study, place: Place, others: Evaluator, run: Run) -> None:
    """Judge the front on inputs that were held out, and keep what was found with the study."""
    front = {trial.number: trial.parameters for trial in read_result(study, place).front}
    found = {
        number: outcome.values | ratios_of(outcome.summary)
        for number, outcome in run(front.items())
        if outcome.values is not None
    }
    judged = HeldOut(
        images=others.trace.images,
        source=str(others.trace.provenance.get("source", "")),
        baseline=others.baseline,
        trials=dict(sorted(found.items())),
    )
    with storing(place):
        study.set_user_attr(HELD_OUT, json.loads(json.dumps(judged.to_dict())))


def load_study(path: str | Path) -> StudyResult:
    """Read a study, finished or not, also while a search is running on it.

    Args:
        path: the study file, its directory, or the URL of its database.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    with quiet_optuna():
        place = study_place(path)
        return read_result(read_study(place), place, in_use=is_in_use(place))


@dataclass(frozen=True, kw_only=True)
class SearchLoop:
    """Asks, evaluates and tells on an open study, a batch at a time; see `rounds`.

    Attributes:
        records: the study.
        asker: asks for the trials.
        trials: how many in all.
        size: of a batch.
        staged: where trials are judged on few images first.
        answers: key of a design -> the trial that tells what became of it, of earlier batches.
        repeats: trials of this batch, each with that which answers it.
        told_now: trials told by this loop, not by one before it.
    """

    records: Records
    asker: Asks
    trials: int
    size: int = 1
    staged: StagedEvaluator | None = None
    answers: dict[str, FrozenTrial] = field(default_factory=dict)
    repeats: dict[int, FrozenTrial] = field(default_factory=dict)
    told_now: list[Trial] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        study: optuna.Study,
        place: Place,
        specification: Mapping[str, Any],
        full: Evaluator,
        staged: StagedEvaluator | None,
        *,
        optimiser: Chosen,
        trials: int,
    ) -> SearchLoop:
        """Goes on with the study of a design space, which is as its specification says.

        The optimiser is given: the specification has the name alone of one of the user's own.
        """
        given: dict[str, Any] = {
            "space": full.space,
            "objectives": full.objectives,
            "baseline": full.baseline,
        }
        limits = Constraints(**specification["constraints"])
        seed = specification["seed"]
        return cls(
            records=Records(study=study, place=place, limits=limits, **given),
            asker=Asker.of(study, optimiser=optimiser, seed=seed, **given),
            trials=trials,
            size=specification["batch"],
            staged=staged,
        )

    def jobs(self, first: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Ask for the trials of a batch, each when it is taken; those answered are put aside."""
        job = self._job(first)
        for number in range(first, min(first + self.size, self.trials)):
            with storing(self.records.place):
                frozen = self.asker.trial(self.records.study, number, known=first)
            if frozen.state.is_finished():
                continue
            earlier = self.answers.get(self._key(frozen))
            if earlier is None:
                yield number, job(self.records.space.decode(frozen.params))
            else:
                self.repeats[number] = earlier

    def tell(self, number: int, outcome: Evaluation, repeat_of: int | None = None) -> Trial:
        """Store what became of a trial."""
        self.records.tell(number, outcome, repeat_of)
        self.told_now.append(self.records.trial(self.records.frozen()[number]))
        return self.told_now[-1]

    def settle(self, first: int) -> Iterator[Trial]:
        """Tell the repeats of a batch, and remember what it answers."""
        for number, earlier in self.repeats.items():
            yield self.tell(number, self.records.measured(earlier), earlier.number)
        self.repeats.clear()
        for frozen in self.records.frozen()[first : min(first + self.size, self.trials)]:
            if not is_failed(frozen):
                self.answers.setdefault(self._key(frozen), frozen)

    @property
    def is_hopeless(self) -> bool:
        """Whether all that was told now failed, and alike."""
        return all(trial.state == "failed" for trial in self.told_now) and are_alike(
            [trial.reason for trial in self.told_now]
        )

    @property
    def finished(self) -> int:
        """How many of the trials are told."""
        return sum(each.state.is_finished() for each in self.records.frozen()[: self.trials])

    def confirm(self, run: Run) -> None:
        """Judge the front on all images, and what comes to it when its accuracy turns out lower.

        What was told stays, so that a study that is extended asks as if it had been longer at once.
        """
        if self.staged is None:
            return
        images = self.staged.full.trace.images
        while True:
            trials = [trial for trial in self.records.confirmed() if trial.values]
            front = self._front(trials)
            jobs = {
                t.number: self.staged.job(t.parameters, front=())
                for t in trials
                if t.images != images and t.values in front
            }
            if not jobs:
                return
            for number, outcome in run(jobs.items()):
                self.records.confirm(number, outcome)

    def _job(self, first: int) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        """Makes of parameters what the evaluator takes, in the batch that begins with `first`."""
        if self.staged is None:
            return self.asker.job
        images = self.staged.full.trace.images
        earlier = self.records.trials()[:first]
        front = self._front([trial for trial in earlier if trial.values and trial.images == images])
        return partial(self.staged.job, front=front)

    def _front(self, trials: Sequence[Trial]) -> list[Mapping[str, float]]:
        """Values of the trials that no other beats."""
        front = front_of(trials, self.records.objectives)
        return [trial.values for trial in front if trial.values]

    def _key(self, frozen: FrozenTrial) -> str:
        return self.asker.key(self.records.space.decode(frozen.params))


def rounds(loops: Sequence[SearchLoop], run: Run) -> Iterator[tuple[SearchLoop, Trial]]:
    """Make the trials of one or more searches, a batch of each at a time, until there is no hope.

    A trial is asked for while those before it are evaluated; each is given as it is told. Where the
    first trials of a call, at least `codesign.study.shortfall.ALIKE_FAILURES` and a batch, all fail
    in the same way, no more are asked for; another call, once that is mended, goes on.

    Args:
        loops: of equal batches.
        run: evaluates.
    """
    size = loops[0].size
    for first in range(0, max(loop.trials for loop in loops), size):
        going = [
            (place, loop)
            for place, loop in enumerate(loops)
            if first < loop.trials and not loop.is_hopeless
        ]
        # A number for each job of all searches: of one search, the trial's.
        jobs = (
            (number * len(loops) + place, job)
            for place, loop in going
            for number, job in loop.jobs(first)
        )
        for number, outcome in run(jobs):
            loop = loops[number % len(loops)]
            yield loop, loop.tell(number // len(loops), outcome)
        for _, loop in going:
            for trial in loop.settle(first):
                yield loop, trial
    for loop in loops:
        loop.confirm(run)


def _specification(workload: Workload, evaluator: Evaluator) -> dict[str, Any]:
    """What is searched, as the JSON that a study file keeps."""
    trace = workload.trace
    specification = {
        "format_version": FORMAT_VERSION,
        "name": workload.name,
        "space": evaluator.space.to_dict(),
        "objectives": [objective.to_dict() for objective in evaluator.objectives],
        "quality": evaluator.quality,
        "baseline": evaluator.baseline,
        "digest": evaluator.digest,
        # Nothing if not, as in studies of before there was a choice.
        "calibrate_under_reuse": workload.calibrate_under_reuse or None,
        "workload": {**trace.provenance, "images": trace.images, "macs": trace.macs},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in VERSIONS_OF},
    }
    return json.loads(json.dumps(specification))


def _check(
    optimiser: Chosen,
    objectives: Sequence[Objective],
    executor: str,
    numbers: Mapping[str, int],
    limits: Constraints,
    space: DesignSpace,
) -> None:
    problems = integer_problems("search ", numbers, {"seed": 0})
    problems += optimiser_problems(optimiser) + objective_problems(objectives)
    if executor not in EXECUTORS:
        problems.append(f"search executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
    if problems := problems or limit_problems(limits, space):
        raise ConfigError(problems)
