"""What a study keeps of each trial: told as it finishes, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from codesign.evaluation.evaluator import Evaluation
from codesign.evaluation.held_out import HeldOut
from codesign.evaluation.objective import Objective, values_of
from codesign.evaluation.objectives import stored_objectives
from codesign.space.constraints import Constraints
from codesign.space.described import described_space
from codesign.space.parameters import ParameterSpace
from codesign.study.result import StudyResult
from codesign.study.store import Place, storing
from codesign.study.stored import ASKED, CONFIRMED, EXCESS, HELD_OUT, SPECIFICATION
from codesign.study.trial import Trial
from simulator.results.lookup import in_present_names


@dataclass(frozen=True, kw_only=True)
class Records:
    """Writes what became of the trials of an open study, and reads it back.

    Attributes:
        study: where they are kept.
        place: what errors of the disk name.
        space: what the trials choose from.
        objectives: in the order in which their values are kept.
        limits: that designs must keep; to read, none are needed.
        baseline: objective -> value of the dense baseline; as `limits`.
    """

    study: optuna.Study
    place: Place
    space: ParameterSpace
    objectives: tuple[Objective, ...]
    limits: Constraints = field(default_factory=Constraints)
    baseline: Mapping[str, float] = field(default_factory=dict)

    def ask_for(self, trials: int) -> None:
        """Store how many trials there are to be in all, for who looks on."""
        if self.study.user_attrs.get(ASKED) != trials:
            with storing(self.place):
                self.study.set_user_attr(ASKED, trials)

    def tell(self, number: int, outcome: Evaluation, repeat_of: int | None) -> None:
        """Store an outcome: what was measured, then the values, which make it finished.

        A trial beyond a limit keeps its values in the store, as the optimiser learns from them.
        """
        kept, excess = self._limited(outcome)
        record = {key: value for key, value in asdict(kept).items() if key != "values"}
        record["repeat_of"] = repeat_of
        # Optuna offers attributes only while it asks; its storage takes them at any time.
        trial_id = self.frozen()[number]._trial_id
        storage = self.study._storage
        with storing(self.place):
            for name, over in excess.items():
                storage.set_trial_system_attr(trial_id, f"{EXCESS}{name}", over)
            storage.set_trial_user_attr(trial_id, "evaluation", record)
            if outcome.values is None:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, values_of(outcome.values, self.objectives))

    def confirm(self, number: int, outcome: Evaluation) -> None:
        """Store what a trial is on all images, beside what was told before."""
        confirmed, excess = self._limited(outcome)
        record = asdict(confirmed) | {"excess": excess}
        with storing(self.place):
            self.study.set_user_attr(f"{CONFIRMED}{number}", record)

    def frozen(self) -> list[FrozenTrial]:
        """All trials as Optuna keeps them."""
        return self.study.get_trials(deepcopy=False)

    def trials(self) -> list[Trial]:
        """All trials as they were told."""
        return [self.trial(frozen) for frozen in self.frozen()]

    def confirmed(self) -> list[Trial]:
        """The same; those judged on all images at the end have what was found then."""
        trials = self.trials()
        for key, record in self.study.user_attrs.items():
            if key.startswith(CONFIRMED):
                number = int(key.removeprefix(CONFIRMED))
                seconds = trials[number].seconds + record["seconds"]
                told = {"seconds": seconds, "summary": in_present_names(record["summary"])}
                trials[number] = replace(trials[number], **(record | told))
        return trials

    def trial(self, frozen: FrozenTrial) -> Trial:
        """A trial as it was told."""
        record = record_of(frozen) if frozen.state.is_finished() else {}
        return Trial(
            number=frozen.number,
            state=record.get("state", "failed") if frozen.state.is_finished() else "running",
            origin=frozen.user_attrs.get("origin", "sampler"),
            parameters=self.space.decode(frozen.params),
            values=self._values(frozen) if record.get("state") == "complete" else None,
            summary=in_present_names(record.get("summary", {})),
            reason=record.get("reason"),
            repeat_of=record.get("repeat_of"),
            seconds=record.get("seconds", 0.0),
            images=record.get("images"),
            excess={
                key.removeprefix(EXCESS): over
                for key, over in frozen.system_attrs.items()
                if key.startswith(EXCESS) and frozen.state.is_finished()
            },
        )

    def measured(self, frozen: FrozenTrial) -> Evaluation:
        """What a finished trial's evaluation had found, before constraints were looked at."""
        record = frozen.user_attrs["evaluation"]
        told = {"reason": record["reason"]}
        if frozen.state == TrialState.COMPLETE:
            values, summary = self._values(frozen), in_present_names(record["summary"])
            told = {"state": "complete", "values": values, "summary": summary}
        return Evaluation(**{"state": record["state"], **told}, images=record["images"])

    def _values(self, frozen: FrozenTrial) -> dict[str, float]:
        """Objective -> value of a trial that has them."""
        return dict(zip((o.name for o in self.objectives), frozen.values, strict=True))

    def _limited(self, outcome: Evaluation) -> tuple[Evaluation, dict[str, float]]:
        """The outcome, infeasible without values where beyond a limit, and its excess over each."""
        if outcome.values is None or not self.limits.to_dict():
            return outcome, {}
        excess = self.limits.excess(outcome.values, outcome.summary, self.baseline)
        reason = self.limits.reason(excess)
        if reason is not None:
            outcome = replace(outcome, state="infeasible", values=None, reason=reason)
        return outcome, excess


def record_of(frozen: FrozenTrial) -> Mapping[str, Any]:
    """What is stored of a finished trial's evaluation.

    Nested searches of before stored reason and seconds alone, beside the state.
    """
    is_complete = frozen.state == TrialState.COMPLETE
    plain = {"state": "complete" if is_complete else "failed", **frozen.user_attrs}
    return frozen.user_attrs.get("evaluation", plain)


def is_failed(frozen: FrozenTrial) -> bool:
    """Whether a finished trial's evaluation crashed."""
    return record_of(frozen)["state"] == "failed"


def read_result(study: optuna.Study, place: Place, *, in_use: bool | None = False) -> StudyResult:
    """All of a study, finished or not; `in_use` is `StudyResult`'s."""
    specification = study.user_attrs[SPECIFICATION]
    space = described_space(specification["space"])
    objectives = stored_objectives(specification["objectives"], specification["quality"])
    records = Records(study=study, place=place, space=space, objectives=objectives)
    held_out = study.user_attrs.get(HELD_OUT)
    return StudyResult(
        name=specification["name"],
        seed=specification["seed"],
        trials=tuple(records.confirmed()),
        specification=specification,
        # Studies of before have it in their plan, if they were begun with one.
        asked=study.user_attrs.get(ASKED) or (specification.get("plan") or {}).get("trials"),
        in_use=in_use,
        held_out=None if held_out is None else HeldOut.from_dict(held_out),
    )
