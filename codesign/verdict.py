"""What a search answers, in words: is reuse worth building here, and what stands in its way."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from codesign.plots import start_name
from codesign.trials import StudyResult, Trial
from simulator.report.sections import BOUND_MEANS
from simulator.report.simulation import ACCURACY_DROP
from workloads.scores import SCORE_NAMES, SCORES
from workloads.trace import not_counted_line

# How the objective `accuracy` is called in a sentence, after "with 97.0 %".
_QUALITY_PHRASES = {
    "accuracy": "of images labelled right",
    "miou": "mean intersection over union",
    "f1": "F1 of lane pixels",
    "agreement": "of images answered as by the dense model",
    "pixel_agreement": "of pixels answered as by the dense model",
    "fidelity": "of layer results kept (1 - relative squared error)",
}
QUALITY_NAMES = {
    **SCORE_NAMES,
    "agreement": "agreement with the dense model",
    "pixel_agreement": "agreement with the dense model",
    "fidelity": "fidelity (1 - relative squared error)",
}


def best_trial(result: StudyResult) -> Trial | None:
    """The best of the trials that keep the accuracy; where none does, the best of all."""
    return result.best(accuracy_drop=ACCURACY_DROP) or result.best(accuracy_drop=None)


def verdict(result: StudyResult) -> tuple[str, str]:
    """The answer in a sentence, and what is behind it in a few more."""
    best = best_trial(result)
    if best is None or best.values is None:
        return (
            f"No answer yet for {result.name}: no design was evaluated to its end.",
            f"{len(result.trials)} trials were asked for; none is complete.",
        )
    summary, values = best.summary, best.values
    faster = summary["speedup_equal_area"] > 1
    saves = summary["energy_ratio_equal_area"] < 1
    keeps = values["accuracy"] >= result.baseline["accuracy"] - ACCURACY_DROP
    opening = {
        (True, True): "Reuse pays",
        (True, False): "Reuse pays in time, but not in energy,",
        (False, True): "Reuse pays in energy, but not in time,",
        (False, False): "Reuse does not pay",
    }[faster, saves]
    if not keeps:
        opening = "Reuse costs too much accuracy"
    quality = _QUALITY_PHRASES[result.quality]
    first = (
        f"{opening} for {result.name}: the best design found runs at "
        f"{summary['speedup_equal_area']:.2f}× the speed and takes "
        f"{summary['energy_ratio_equal_area']:.2f}× the energy of a dense design of equal silicon "
        f"area, with {100 * values['accuracy']:.1f} % {quality}"
        f"{_dense_quality(result)}."
    )
    left_out = not_counted_line(result.specification.get("workload", {}))
    if left_out:
        first = f"{first} {left_out}"
    more = [BOUND_MEANS[summary["designs"]["reuse"]["bound_by"]], _others(result)]
    if result.start.values is not None and best.number != result.start.number:
        start = result.start.summary
        more.append(
            f"The {start_name(result)} on the design that the search started from: "
            f"{start['speedup_equal_area']:.2f}× the speed and "
            f"{start['energy_ratio_equal_area']:.2f}× the energy of dense at equal area, "
            f"{100 * result.start.values['accuracy']:.1f} % {quality}."
        )
    return first, " ".join(more)


def _dense_quality(result: StudyResult) -> str:
    """The dense model's own, where it is not 100 % by definition."""
    if result.quality not in SCORES:
        return ""
    return f" (dense: {100 * result.baseline['accuracy']:.1f} %)"


def _others(result: StudyResult) -> str:
    """How many trials pay, of those that keep the accuracy."""
    least = result.baseline["accuracy"] - ACCURACY_DROP
    kept = [t for t in result.of_state("complete") if t.values and t.values["accuracy"] >= least]
    if not kept:
        return (
            f"No trial stays within {100 * ACCURACY_DROP:g} points of the dense model's accuracy."
        )

    def ratio(trial: Trial, key: str) -> float:
        return trial.summary[key]

    fast = [trial for trial in kept if ratio(trial, "speedup_equal_area") > 1]
    both = [trial for trial in fast if ratio(trial, "energy_ratio_equal_area") < 1]
    fastest = max(kept, key=lambda trial: ratio(trial, "speedup_equal_area"))
    fastest_speedup = ratio(fastest, "speedup_equal_area")
    of_kept = f"Of the {len(kept)} trials that lose at most {100 * ACCURACY_DROP:g} points"
    reached = f"the fastest, trial {fastest.number}, reaches {fastest_speedup:.2f}×"
    if not fast:
        return f"{of_kept}, none is faster than dense at equal area; {reached}."
    less = {0: "none of these takes", 1: "one of these takes"}.get(
        len(both), f"{len(both)} of these take"
    )
    return (
        f"{of_kept}, {len(fast)} {'is' if len(fast) == 1 else 'are'} faster than dense at equal "
        f"area, and {less} less energy too; {reached}."
    )
