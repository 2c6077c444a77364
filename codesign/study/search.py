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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from accelerators import ConfigError
from codesign.evaluation.evaluator import Evaluation, Evaluator
from codesign.evaluation.front import non_dominated
from codesign.evaluation.workload import Workload
from codesign.optimisers.quiet import quiet_optuna
from codesign.optimisers.registry import Chosen, optimiser_name, optimiser_problems
from codesign.space.checks import integer_problems
from codesign.space.constraints import Constraints
from codesign.space.design_space import DesignSpace
from codesign.study.asking import Asker, design_key
from codesign.study.records import Records, is_failed, measured, read_result, read_trial
from codesign.study.runner import EXECUTORS, Run, running
from codesign.study.shortfall import are_alike, limit_problems
from codesign.study.staged import StagedEvaluator
from codesign.study.store import (
    FORMAT_VERSION,
    is_in_use,
    keep_plan,
    open_study,
    read_study,
    storing,
    study_place,
)
from codesign.study.trials import OBJECTIVES, StudyResult, Trial

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
    constraints: Constraints | None = None,
    ray_address: str | None = None,
    batch: int = 4,
    executor: str = "ray",
    first_images: int | None = None,
    plan: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> StudyResult:
    """Search a design space for the front of speedup, energy and accuracy.

    Trials are asked for in batches, evaluated in parallel, and stored as each finishes. The first
    are the space's start settings; `gp` then begins with Sobol points, `botorch` and `tpe` with
    random ones. Ctrl-C raises KeyboardInterrupt; every finished trial is kept, and `resume` goes on
    as if nothing had happened.

    Where the first trials of a call, at least `codesign.study.shortfall.ALIKE_FAILURES` and a
    batch, all fail in the same way, no more are asked for: `StudyResult.unanswered` says why.
    Another call with `resume`, once that is mended, goes on with the next trials.

    Args:
        workload: what to judge designs on.
        space: what to choose from.
        trials: how many in all, those of a resumed study included; a study can be extended.
        workers: evaluations at a time; does not change the numbers.
        seed: of the search, at least 0.
        storage: the study file, `*.journal`, or a directory for `study.journal`, or the URL of a
            database such as `sqlite:///study.db`, which holds one study.
        resume: go on with the study that is there.
        optimiser: a key of `OPTIMISERS`, `file.py:NAME` or `package.module:NAME` (executed), or an
            `Optimiser` of your own or its class.
        constraints: limits that designs must keep.
        ray_address: a Ray cluster to run on instead of this machine.
        batch: trials asked for together; a larger one keeps more workers busy but learns later.
        executor: `ray`, or `inline` to evaluate in this process.
        first_images: judge a trial on so many images first, and on all of them only if it may
            join the front of earlier batches (`codesign.study.staged.may_join`). When all trials
            are told, those on the front that were not judged on all images are. `None` judges every
            trial on all; fewer than about a thousand images give up little.
        plan: kept with the study, as what makes it again; see `StudyPlan.run`.
        on_progress: see `OnProgress`.

    Returns:
        All trials, the front and its hypervolume.

    Raises:
        ConfigError: an argument breaks a rule, no design can keep a limit, or the study file is not
            fit for this search.
        TraceError: the workload lacks activations.
        OSError: the study file cannot be written, and is named; every finished trial is kept, and
            `resume` goes on.
        RayDiedError: Ray itself has ended, and this process has outlived it; likewise.
    """
    _check(optimiser, trials=trials, workers=workers, seed=seed, batch=batch, executor=executor)
    place = study_place(storage)
    limits = constraints or Constraints()
    problems = limit_problems(limits, space)
    if problems:
        raise ConfigError(problems)
    evaluator = Evaluator.of(workload, space)
    staged = None
    if first_images is not None:
        staged = StagedEvaluator.of(workload, evaluator, first_images)
    specification = _specification(workload, evaluator, seed=seed, batch=batch) | {
        "optimiser": optimiser_name(optimiser),
        "constraints": limits.to_dict(),
        "first_images": first_images,
        "plan": plan,
    }
    with (
        quiet_optuna(),
        open_study(place, specification, resume=resume) as study,
        running(executor, staged or evaluator, workers, ray_address) as run,
    ):
        keep_plan(place, plan)
        going = _Search(
            records=Records(
                study=study,
                place=place,
                space=space,
                limits=limits,
                baseline=evaluator.baseline,
            ),
            asker=Asker.of(
                study, optimiser=optimiser, space=space, seed=seed, baseline=evaluator.baseline
            ),
            run=run,
            staged=staged,
        )
        going.records.ask_for(trials)
        told_now: list[Trial] = []
        for first in range(0, trials, batch):
            for trial in going.batch(first, min(first + batch, trials)):
                told_now.append(trial)
                if on_progress is not None:
                    told = going.records.frozen()[:trials]
                    on_progress(trial, sum(each.state.is_finished() for each in told), trials)
            if all(trial.state == "failed" for trial in told_now) and are_alike(
                [trial.reason for trial in told_now]
            ):
                break  # what is wrong with all of them is not their designs
        going.confirm()
        return read_result(study)


def load_study(path: str | Path) -> StudyResult:
    """Read a study, finished or not, also while a search is running on it.

    Args:
        path: the study file, its directory, or the URL of its database.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    with quiet_optuna():
        place = study_place(path)
        return read_result(read_study(place), in_use=is_in_use(place))


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A search on an open study.

    Attributes:
        records: the study.
        asker: asks for the trials.
        run: evaluates jobs.
        staged: where trials are judged on few images first.
        answers: key of a design -> the trial that tells what became of it, of earlier batches.
    """

    records: Records
    asker: Asker
    run: Run
    staged: StagedEvaluator | None
    answers: dict[str, FrozenTrial] = field(default_factory=dict)

    def batch(self, first: int, stop: int) -> Iterator[Trial]:
        """Ask for trials `first` to `stop`, evaluate and store them; gives each as it is told.

        The next is asked for while those before it are evaluated.
        """
        repeats: list[tuple[int, FrozenTrial]] = []
        for number, outcome in self.run(self._jobs(first, stop, repeats)):
            yield self._told(number, outcome, None)
        for number, earlier in repeats:
            yield self._told(number, measured(earlier), earlier.number)
        for frozen in self.records.frozen()[first:stop]:
            if not is_failed(frozen):
                self.answers.setdefault(self._key(frozen), frozen)

    def _jobs(
        self, first: int, stop: int, repeats: list[tuple[int, FrozenTrial]]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Ask for the trials of a batch, each when it is taken; those answered go to `repeats`."""
        job = self._job(first)
        for number in range(first, stop):
            with storing(self.records.place):
                frozen = self.asker.trial(self.records.study, number, known=first)
            earlier = self.answers.get(self._key(frozen))
            if frozen.state.is_finished():
                continue
            if earlier is None:
                yield number, job(self.records.space.decode(frozen.params))
            else:
                repeats.append((number, earlier))

    def confirm(self) -> None:
        """Judge the front on all images, and what comes to it when its accuracy turns out lower.

        What was told stays, so that a study that is extended asks as if it had been longer at once.
        """
        if self.staged is None:
            return
        images = self.staged.full.trace.images
        while True:
            trials = [trial for trial in self.records.confirmed() if trial.values]
            front = _front(trials)
            jobs = {
                t.number: self.staged.job(t.parameters, front=())
                for t in trials
                if t.images != images and t.values in front
            }
            if not jobs:
                return
            for number, outcome in self.run(jobs.items()):
                self.records.confirm(number, outcome)

    def _job(self, first: int) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        """Makes of parameters what the evaluator takes, in the batch that begins with `first`."""
        if self.staged is None:
            return dict
        images = self.staged.full.trace.images
        earlier = self.records.trials()[:first]
        front = _front(trial for trial in earlier if trial.images == images)
        return partial(self.staged.job, front=front)

    def _key(self, frozen: FrozenTrial) -> str:
        return design_key(self.records.space, self.records.space.decode(frozen.params))

    def _told(self, number: int, outcome: Evaluation, repeat_of: int | None) -> Trial:
        self.records.tell(number, outcome, repeat_of)
        return read_trial(self.records.frozen()[number], self.records.space)


def _front(trials: Iterable[Trial]) -> list[Mapping[str, float]]:
    """Values of the trials that no other beats."""
    values = [trial.values for trial in trials if trial.values]
    points = np.array([[each[o.name] for o in OBJECTIVES] for each in values])
    kept = non_dominated(points, [objective.maximise for objective in OBJECTIVES])
    return [each for each, keep in zip(values, kept, strict=True) if keep]


def _specification(
    workload: Workload, evaluator: Evaluator, *, seed: int, batch: int
) -> dict[str, Any]:
    """What is searched and how, as the JSON that a study file keeps."""
    trace = workload.trace
    specification = {
        "format_version": FORMAT_VERSION,
        "name": workload.name,
        "seed": seed,
        "batch": batch,
        "space": evaluator.space.to_dict(),
        "objectives": [asdict(objective) for objective in OBJECTIVES],
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


def _check(optimiser: Chosen, *, executor: str, **numbers: int) -> None:
    problems = integer_problems("search ", numbers, {"seed": 0})
    problems += optimiser_problems(optimiser)
    if executor not in EXECUTORS:
        problems.append(f"search executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
    if problems:
        raise ConfigError(problems)
