"""Pictures of what trials of a search do to a network's answers."""

from __future__ import annotations

from codesign.evaluation.threads import single_thread
from codesign.evaluation.workload import Workload
from codesign.report.verdict import best_trial
from codesign.study.result import StudyResult
from simulator import PixelAnswers, decide, pixel_answers


def trial_pixels(workload: Workload, result: StudyResult) -> dict[int, PixelAnswers]:
    """What the best and the first trial answer for pixels, for `StudyReport`.

    Args:
        workload: that the search was on.
        result: the search.

    Returns:
        Number of a trial -> its pictures; nothing unless the model gives every pixel a class.
    """
    outputs = workload.trace.outputs
    if workload.model is None or outputs is None or outputs.ndim != 4:
        return {}
    found: dict[int, PixelAnswers] = {}
    for trial in (best_trial(result), result.start):
        if trial is None or trial.values is None or trial.number in found:
            continue
        _, policy = result.design_of(trial)
        with single_thread():
            run = decide(
                workload.trace,
                policy,
                model=workload.model,
                calibration=workload.calibration,
                calibrate_under_reuse=workload.calibrate_under_reuse,
                layer_errors=False,
            )
        pixels = pixel_answers(workload.trace, run)
        if pixels is not None:
            found[trial.number] = pixels
    return found
