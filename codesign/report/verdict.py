"""What a search answers, in words: is reuse worth building here, and what stands in its way."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from codesign.evaluation.objectives import ACCURACY
from codesign.report.chosen import chosen_text
from codesign.report.plots import start_name
from codesign.study.result import (
    FINISHED,
    RUNNING,
    STOPPED,
    UNFINISHED,
    StudyResult,
)
from codesign.study.trial import Trial
from simulator.results.differences import (
    ACCURACY_DROP,
    AGREEMENTS,
    UNCLEAR,
    against_one,
    change_text,
    counted,
    kept,
    level_text,
    loss_interval,
    opening,
    ratio_text,
    unclear_text,
)
from simulator.results.lookup import given_design, reuses
from simulator.results.names import bound_means
from workloads.traces.judged import judged_text
from workloads.traces.scores import OWN_SCORE, SCORES
from workloads.traces.trace import not_counted_line


def best_trial(result: StudyResult) -> Trial | None:
    """The best of the trials that keep the accuracy; where none does, the best of all."""
    return result.best(accuracy_drop=ACCURACY_DROP) or result.best(accuracy_drop=None)


def standing(result: StudyResult) -> str | None:
    """How far a search is that is not done, for the start of a sentence; `None` of one that is."""
    if result.progress == FINISHED:
        return None
    told = len(result.trials) - len(result.of_state("running"))
    trials = counted(told, "trial") if result.asked is None else f"{told} of {result.asked} trials"
    return {
        RUNNING: f"So far, after {trials}, while the search is running",
        STOPPED: f"After {trials}, where the search was stopped",
        UNFINISHED: f"After {trials} of a search that is not finished",
    }[result.progress]


def verdict(result: StudyResult) -> tuple[str, str]:
    """The answer in a sentence, and what is behind it in a few more."""
    first, more = _verdict(result)
    so_far = standing(result)
    if so_far is None or best_trial(result) is None:
        return first, more if so_far is None else f"{so_far}: {more}"
    return f"{so_far}: {first}", more


def _verdict(result: StudyResult) -> tuple[str, str]:
    """The same of the trials there are."""
    best = best_trial(result)
    if best is None or best.values is None:
        return (
            f"No answer yet for {result.name}: {result.unanswered}.",
            f"{len(result.trials)} trials were asked for; none is complete.",
        )
    summary, values = best.summary, best.values
    loss = result.baseline[ACCURACY] - values[ACCURACY]
    state = kept(loss, loss_interval(result.quality, summary.get("intervals")))
    pays = opening(
        summary["speedup_equal_area"], summary["energy_ratio_equal_area"], loss, state
    ).replace(" but", ", but")
    comma = "," if ", but" in pays else ""
    design = given_design(summary)
    found = "the best design found"
    if not reuses(summary):
        pays, found = "Reuse does not pay", f"{found} reuses nothing; it"
    unclear = f"; {unclear_text(design['images'])}" if state == UNCLEAR else ""
    first = (
        f"{pays}{comma} for {result.name}: {found} runs at "
        f"{ratio_text(summary['speedup_equal_area'])}× the speed and takes "
        f"{ratio_text(summary['energy_ratio_equal_area'])}× the energy of a dense design of equal "
        f"silicon area, with {_quality_text(result, best)}{_judged(result)}{unclear}."
    )
    left_out = not_counted_line(result.specification.get("workload", {}))
    if left_out:
        first = f"{first} {left_out}"
    more = [*chosen_text(result, best), bound_means(design["bound_by"], design["accelerator"])]
    more.append(_others(result))
    more += _held_out(result, best)
    if result.start.values is not None and best.number != result.start.number:
        start = result.start.summary
        more.append(
            f"The {start_name(result)} on the design that the search started from: "
            f"{ratio_text(start['speedup_equal_area'])}× the speed and "
            f"{ratio_text(start['energy_ratio_equal_area'])}× the energy of dense at equal area, "
            f"{_quality_text(result, result.start)}."
        )
    return first, " ".join(more)


def _held_out(result: StudyResult, trial: Trial) -> list[str]:
    """What the trial is on inputs that the search did not see, where there were any."""
    found = result.held_out
    if found is None or trial.number not in found.trials:
        return []
    values, dense = found.trials[trial.number], found.baseline[ACCURACY]
    return [
        f"On {found.images} inputs that the search did not see: "
        f"{ratio_text(values['speedup_equal_area'])}× the speed, "
        f"{ratio_text(values['energy_ratio_equal_area'])}× the energy and "
        f"{100 * values[ACCURACY]:.1f} % {result.accuracy.phrase} (dense: {100 * dense:.1f} %)."
    ]


def _quality_text(result: StudyResult, trial: Trial) -> str:
    """A complete trial's accuracy; of labels, with the dense model's and the change from it."""
    assert trial.values is not None, "only complete trials have an accuracy"
    found, dense = trial.values[ACCURACY], result.baseline[ACCURACY]
    text = f"{100 * found:.1f} % {result.accuracy.phrase}"
    intervals = trial.summary.get("intervals") or {}
    if result.quality not in (*SCORES, OWN_SCORE):
        known = result.quality in AGREEMENTS
        return text + level_text(intervals.get("agreement") if known else None)
    change = intervals.get("change")
    return f"{text} (dense: {100 * dense:.1f} %; {change_text(found - dense, change)})"


def _judged(result: StudyResult) -> str:
    """Which output it is of, where the model gives several."""
    judged = judged_text(result.specification["workload"])
    return judged and f" (judged: {judged})"


def _others(result: StudyResult) -> str:
    """How many trials pay, of those that keep the accuracy."""
    least = result.baseline[ACCURACY] - ACCURACY_DROP
    within = [t for t in result.of_state("complete") if t.values and t.values[ACCURACY] >= least]
    if not within:
        return (
            f"No trial stays within {100 * ACCURACY_DROP:g} points of the dense model's accuracy."
        )

    def ratio(trial: Trial, key: str) -> float:
        return trial.summary[key]

    fast = [trial for trial in within if against_one(ratio(trial, "speedup_equal_area")) > 0]
    both = [trial for trial in fast if against_one(ratio(trial, "energy_ratio_equal_area")) < 0]
    fastest = max(within, key=lambda trial: ratio(trial, "speedup_equal_area"))
    fastest_speedup = ratio_text(ratio(fastest, "speedup_equal_area"))
    of_kept = (
        f"Of the {counted(len(within), 'trial')} that "
        f"{'loses' if len(within) == 1 else 'lose'} at most {100 * ACCURACY_DROP:g} points"
    )
    reached = f"the fastest, trial {fastest.number}, reaches {fastest_speedup}×"
    if not fast:
        return f"{of_kept}, none is faster than dense at equal area; {reached}."
    less = {0: "none of these takes", 1: "one of these takes"}.get(
        len(both), f"{len(both)} of these take"
    )
    return (
        f"{of_kept}, {len(fast)} {'is' if len(fast) == 1 else 'are'} faster than dense at equal "
        f"area, and {less} less energy too; {reached}."
    )
