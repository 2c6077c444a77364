"""The search: ask the optimiser, evaluate, tell; every trial on disk before the next is asked for.

The numbers depend on the seed, the batch size and the number of a trial, and on nothing else: not
on how many workers there are, which finishes first, or how often the search was cut off. For that,
trial n is asked of a fresh optimiser, seeded by (seed, n), that sees the trials of earlier batches
with their values and those of its own batch as running, whether they are or not.

Where the optimiser asks for a design that was tried before, one near it takes its place.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from accelerators import ConfigError
from codesign.constraints import Constraints
from codesign.evaluate import Evaluation, Evaluator
from codesign.fidelity import StagedEvaluator
from codesign.front import non_dominated
from codesign.optimisers import Answer, Problem, ask, optimiser_problems
from codesign.quiet import quiet_optuna
from codesign.runner import EXECUTORS, Runner, make_runner
from codesign.space import DesignSpace
from codesign.store import (
    FORMAT_VERSION,
    SPECIFICATION,
    Place,
    keep_plan,
    open_study,
    read_study,
    storing,
    study_place,
)
from codesign.trials import OBJECTIVES, StudyResult, Trial, reference_beyond
from codesign.workload import Workload

# Settings near a repeated one that are looked at, those with one parameter changed first.
_NEIGHBOURS = 200
# An attribute of a study: a trial's number follows; the value is its evaluation on all images.
CONFIRMED = "confirmed "
VERSIONS_OF = ("torch", "numpy", "scipy", "numba", "optuna", "ray")

Job = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # what a runner takes of parameters
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
    optimiser: str = "gp",
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

    Args:
        workload: what to judge designs on.
        space: what to choose from.
        trials: how many in all, those of a resumed study included; a study can be extended.
        workers: evaluations at a time; does not change the numbers.
        seed: of the search, at least 0.
        storage: the study file, `*.journal`, or a directory for `study.journal`, or the URL of a
            database such as `sqlite:///study.db`, which holds one study.
        resume: go on with the study that is there.
        optimiser: a key of `OPTIMISERS`.
        constraints: limits that designs must keep.
        ray_address: a Ray cluster to run on instead of this machine.
        batch: trials asked for together; a larger one keeps more workers busy but learns later.
        executor: `ray`, or `inline` to evaluate in this process.
        first_images: judge a trial on so many images first, and on all of them only if it may
            join the front of earlier batches (`codesign.fidelity.may_join`). When all trials are
            told, those on the front that were not judged on all images are. `None` judges every
            trial on all; fewer than about a thousand images give up little.
        plan: kept with the study, as what makes it again; see `StudyPlan.run`.
        on_progress: see `OnProgress`.

    Returns:
        All trials, the front and its hypervolume.

    Raises:
        ConfigError: an argument breaks a rule, or the study file is not fit for this search.
        TraceError: the workload lacks activations.
        OSError: the study file cannot be written, and is named; every finished trial is kept, and
            `resume` goes on.
    """
    _check(optimiser, trials=trials, workers=workers, seed=seed, batch=batch, executor=executor)
    place = study_place(storage)
    limits = constraints or Constraints()
    evaluator = Evaluator.of(workload, space)
    staged = None
    if first_images is not None:
        staged = StagedEvaluator.of(workload, evaluator, first_images)
    specification = _specification(workload, evaluator, seed=seed, batch=batch) | {
        "optimiser": optimiser,
        "constraints": limits.to_dict(),
        "first_images": first_images,
        "plan": plan,
    }
    with quiet_optuna(), open_study(place, specification, resume=resume) as study:
        keep_plan(place, plan)
        asker = _Asker(
            optimiser=optimiser,
            space=space,
            seed=seed,
            baseline=evaluator.baseline,
            tried={
                _design_key(space, space.decode(trial.params))
                for trial in study.get_trials(deepcopy=False)
            },
        )
        runner: Runner | None = None
        try:
            answers: dict[str, FrozenTrial] = {}
            for first in range(0, trials, batch):
                stop = min(first + batch, trials)
                with storing(place):
                    asker.ask_missing(study, first=first, stop=stop)
                asked = _read_trials(study, space)
                jobs = {t.number: t.parameters for t in asked[first:stop] if t.state == "running"}
                if jobs and runner is None:
                    runner = make_runner(executor, staged or evaluator, workers, ray_address)
                job: Job = dict
                if staged is not None:
                    whole = [t for t in asked[:first] if t.images == workload.trace.images]
                    job = partial(staged.job, front=_front(whole))
                for number, outcome, repeat_of in _evaluate(runner, space, jobs, answers, job):
                    with storing(place):
                        _tell(study, number, outcome, repeat_of, limits, evaluator.baseline)
                    if on_progress is not None:
                        told = _read_trials(study, space)
                        finished = sum(trial.state != "running" for trial in told[:trials])
                        on_progress(told[number], finished, trials)
                for frozen in study.get_trials(deepcopy=False)[first:stop]:
                    if frozen.user_attrs["evaluation"]["state"] != "failed":
                        key = _design_key(space, space.decode(frozen.params))
                        answers.setdefault(key, frozen)
            if staged is not None:
                runner = runner or make_runner(executor, staged, workers, ray_address)
                _confirm(study, space, runner, staged, limits, place)
        finally:
            if runner is not None:
                runner.close()
        return _result(study)


def load_study(path: str | Path) -> StudyResult:
    """Read a study, finished or not, also while a search is running on it.

    Args:
        path: the study file, its directory, or the URL of its database.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    with quiet_optuna():
        return _result(read_study(study_place(path)))


@dataclass(frozen=True, kw_only=True)
class _Asker:
    """Asks for the trials of a study.

    Attributes:
        optimiser: a key of `OPTIMISERS`.
        space: what to choose from.
        seed: of the search.
        baseline: objective -> value of the dense baseline.
        tried: keys of all designs asked for; grows.
    """

    optimiser: str
    space: DesignSpace
    seed: int
    baseline: Mapping[str, float]
    tried: set[str]

    def ask_missing(self, study: optuna.Study, *, first: int, stop: int) -> None:
        """Store the trials of a batch that were not asked for yet, in one step each."""
        stored = study.get_trials(deepcopy=False)
        start = list(self.space.start.items())
        for number in range(len(stored), stop):
            notes: dict[str, Any] = {}
            if number < len(start):
                origin, values = start[number]
            else:
                answer = self._answer(stored, first)
                notes = answer.notes
                origin, values = self._untried(self.space.decode(answer.parameters), number)
            self.tried.add(_design_key(self.space, values))
            trial = create_trial(
                state=TrialState.RUNNING,
                params=self.space.encode(values),
                distributions=self.space.distributions,
                user_attrs={"origin": origin},
                system_attrs=notes,
            )
            study.add_trial(trial)
            stored = [*stored, trial]

    def _answer(self, stored: list[FrozenTrial], first: int) -> Answer:
        """What the optimiser says, whose batch begins with trial `first`."""
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
        return ask(self.optimiser, problem, stored, seed=self.seed, known=first)

    def _untried(self, asked: Mapping[str, Any], number: int) -> tuple[str, dict[str, Any]]:
        """Origin and values of what was asked for, or of an untried setting near it.

        Small changes come first; in the end all parameters are drawn anew. Where every setting
        looked at was tried, what was asked for is, and is answered by the earlier trial.
        """
        space = self.space
        asked = space.settled(asked)
        if _design_key(space, asked) not in self.tried:
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
            if _design_key(space, values) not in self.tried:
                return "neighbour", values
        return "sampler", asked


def _evaluate(
    runner: Runner | None,
    space: DesignSpace,
    jobs: Mapping[int, Mapping[str, Any]],
    answers: Mapping[str, FrozenTrial],
    job: Job,
) -> Iterator[tuple[int, Evaluation, int | None]]:
    """Outcome of each job, and the earlier trial that answered it, if one did."""
    fresh = {}
    for number, parameters in jobs.items():
        earlier = answers.get(_design_key(space, parameters))
        if earlier is None:
            fresh[number] = job(parameters)
            continue
        yield number, _measured(earlier), earlier.number
    if fresh:
        assert runner is not None
        for number, outcome in runner.run(fresh):
            yield number, outcome, None


def _measured(frozen: FrozenTrial) -> Evaluation:
    """What the evaluation of a finished trial had found, before constraints were looked at."""
    record = frozen.user_attrs["evaluation"]
    if frozen.state != TrialState.COMPLETE:
        return Evaluation(state=record["state"], reason=record["reason"], images=record["images"])
    return Evaluation(
        state="complete",
        values=_values(frozen),
        summary=record["summary"],
        images=record["images"],
    )


def _values(frozen: FrozenTrial) -> dict[str, float]:
    """Objective -> value of a trial that has them."""
    return dict(zip((o.name for o in OBJECTIVES), frozen.values, strict=True))


def _front(trials: Iterable[Trial]) -> list[Mapping[str, float]]:
    """Values of the trials that no other beats."""
    values = [trial.values for trial in trials if trial.values]
    points = np.array([[each[o.name] for o in OBJECTIVES] for each in values])
    kept = non_dominated(points, [objective.maximise for objective in OBJECTIVES])
    return [each for each, keep in zip(values, kept, strict=True) if keep]


def _confirm(
    study: optuna.Study,
    space: DesignSpace,
    runner: Runner,
    staged: StagedEvaluator,
    limits: Constraints,
    place: Place,
) -> None:
    """Judge the front on all images, and what comes to it when its accuracy turns out lower.

    What was told stays, so that a study that is extended asks as if it had been longer at once.
    """
    images = staged.full.trace.images
    while True:
        trials = [t for t in _read_confirmed(study, space) if t.values]
        front = _front(trials)
        jobs = {
            t.number: staged.job(t.parameters, front=())
            for t in trials
            if t.images != images and t.values in front
        }
        if not jobs:
            return
        for number, outcome in runner.run(jobs):
            confirmed, _ = _limited(outcome, limits, staged.full.baseline)
            with storing(place):
                study.set_user_attr(f"{CONFIRMED}{number}", asdict(confirmed))


def _design_key(space: DesignSpace, parameters: Mapping[str, Any]) -> str:
    """Equal for parameters that build the same design and policy, as unused ones do."""
    try:
        accelerator, policy = space.build(parameters)
    except ConfigError:
        return json.dumps(dict(parameters), sort_keys=True)
    return json.dumps([accelerator.to_dict(), policy.describe()], sort_keys=True)


def _tell(
    study: optuna.Study,
    number: int,
    outcome: Evaluation,
    repeat_of: int | None,
    limits: Constraints,
    baseline: Mapping[str, float],
) -> None:
    """Store an outcome: what was measured, then the values, which make it finished.

    A trial beyond a limit keeps its values in the store, as the optimiser learns from them.
    """
    # Optuna offers attributes only while it asks; its storage takes them at any time.
    trial_id = study.get_trials(deepcopy=False)[number]._trial_id
    kept, excess = _limited(outcome, limits, baseline)
    record = {key: value for key, value in asdict(kept).items() if key != "values"}
    record["repeat_of"] = repeat_of
    for name, over in excess.items():
        study._storage.set_trial_system_attr(trial_id, f"constraints:{name}", over)
    study._storage.set_trial_user_attr(trial_id, "evaluation", record)
    if outcome.values is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, [outcome.values[objective.name] for objective in OBJECTIVES])


def _limited(
    outcome: Evaluation, limits: Constraints, baseline: Mapping[str, float]
) -> tuple[Evaluation, dict[str, float]]:
    """The outcome, infeasible without values where beyond a limit, and its excess over each."""
    if outcome.values is None:
        return outcome, {}
    excess = limits.excess(outcome.values, outcome.summary, baseline)
    reason = limits.reason(excess)
    if reason is not None:
        outcome = replace(outcome, state="infeasible", values=None, reason=reason)
    return outcome, excess


def _read_trials(study: optuna.Study, space: DesignSpace) -> list[Trial]:
    return [_read_trial(frozen, space) for frozen in study.get_trials(deepcopy=False)]


def _read_trial(frozen: FrozenTrial, space: DesignSpace) -> Trial:
    record = frozen.user_attrs.get("evaluation", {}) if frozen.state.is_finished() else {}
    return Trial(
        number=frozen.number,
        state=record.get("state", "failed") if frozen.state.is_finished() else "running",
        origin=frozen.user_attrs["origin"],
        parameters=space.decode(frozen.params),
        values=_values(frozen) if record.get("state") == "complete" else None,
        summary=record.get("summary", {}),
        reason=record.get("reason"),
        repeat_of=record.get("repeat_of"),
        seconds=record.get("seconds", 0.0),
        images=record.get("images"),
    )


def _read_confirmed(study: optuna.Study, space: DesignSpace) -> list[Trial]:
    """The trials; those that were judged on all images at the end have what was found then."""
    found = {
        int(key.removeprefix(CONFIRMED)): record
        for key, record in study.user_attrs.items()
        if key.startswith(CONFIRMED)
    }
    trials = _read_trials(study, space)
    for number, record in found.items():
        seconds = trials[number].seconds + record["seconds"]
        trials[number] = replace(trials[number], **(record | {"seconds": seconds}))
    return trials


def _result(study: optuna.Study) -> StudyResult:
    specification = study.user_attrs[SPECIFICATION]
    return StudyResult(
        name=specification["name"],
        seed=specification["seed"],
        trials=tuple(_read_confirmed(study, DesignSpace.from_dict(specification["space"]))),
        specification=specification,
    )


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
        "workload": {"images": trace.images, "macs": trace.macs, **trace.provenance},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in VERSIONS_OF},
    }
    return json.loads(json.dumps(specification))


def _check(optimiser: str, *, executor: str, **numbers: int) -> None:
    least = {"trials": 1, "workers": 1, "seed": 0, "batch": 1}
    problems = [
        f"search {name} must be an integer of at least {least[name]}, got {value!r}"
        for name, value in numbers.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]
    ]
    problems += optimiser_problems(optimiser)
    if executor not in EXECUTORS:
        problems.append(f"search executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
    if problems:
        raise ConfigError(problems)
