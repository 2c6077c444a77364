"""The command `codesign search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelerators import ConfigError
from codesign.cli.options import (
    CalibrateUnderReuse,
    ClassesDimension,
    Design,
    Images,
    Inputs,
    Model,
    Output,
    Precision,
    RayAddress,
    Score,
    Seed,
    Weights,
    is_given,
    with_options,
)
from codesign.cli.outputs import check_directory
from codesign.cli.report import tell
from codesign.cli.terminal import (
    NOTHING_FOUND,
    command_line,
    guarded,
    note,
    resumable,
    resume_command,
    trial_progress,
    working,
)

if TYPE_CHECKING:
    from codesign.study.plan import StudyPlan

EPILOG = (
    "Example: codesign search --model cifarnet --inputs digits --trials 40 --workers 2 "
    "--out out/study\n\n"
    "Once more: codesign search --study out/study/study.toml --out out/again\n\n"
    "With each layer's own front: codesign search --fronts out/nested --out out/joint\n\n"
    "A technique for each stage: codesign search --model resnet18_camvid --inputs camvid:FOLDER "
    "--images 20 --techniques dense,lsh --trials 100 --out out/wide"
)
_AT_MOST = "Designs beyond it are infeasible."


def _share(text: str) -> float:
    """A fraction, or a percentage with its sign, as a fraction."""
    number = text.strip().removesuffix("%")
    try:
        return float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a fraction, such as 0.02, nor a percentage, such as 2%."
        ) from None


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options; those that a study file has too are called as there."""

    out: Annotated[Path, typer.Option(help="Directory for the study and its report.")]
    study: Annotated[
        Path | None,
        typer.Option(
            help="A study file, such as the study.toml of an earlier search; options given beside "
            "it take the place of what it says."
        ),
    ] = None
    model: Model = "cifarnet"
    inputs: Inputs = "digits"
    images: Images = 100
    every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Distance from one frame or picture to the next, of all that are taken: near ones "
            "of a video are much alike, and judge a design little better than one.",
        ),
    ] = 1
    weights: Weights = None
    precision: Precision = "float32"
    output: Output = None
    classes_dimension: ClassesDimension = None
    score: Score = None
    calibration_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Inputs before those judged on, from which hashing takes its thresholds; with "
            "--techniques, what groups bear is measured on them, a run for each setting.",
        ),
    ] = 50
    held_out: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Inputs that the search does not see, those that follow the judged ones: the "
            "designs on its front are judged on them too, at its end.",
        ),
    ] = None
    held_out_inputs: Annotated[
        str | None,
        typer.Option(help="Where to take these from instead, as --inputs; with --held-out."),
    ] = None
    calibrate_under_reuse: CalibrateUnderReuse = False
    accelerator: Design = "reuse_16x16"
    techniques: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Techniques among which each group of layers chooses, such as dense,lsh, on "
            "memories and units that fit what is chosen; dense designs are tried first.",
        ),
    ] = None
    technique: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[+NAME]",
            help="One technique, or several of which each decides on what those before it leave: "
            "short for --techniques dense,NAME.",
        ),
    ] = None
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE,VALUE|LOW..HIGH",
            help="With --technique, choices of a field of it, NAME.FIELD of one of several; may be "
            "repeated.",
        ),
    ] = None
    grouping: Annotated[
        str,
        typer.Option(
            metavar="stage|layer|all|PATTERN,PATTERN",
            help="With --techniques, how layers are grouped: those of a kernel and a stage, each "
            "alone, all, or by patterns of their names.",
        ),
    ] = "stage"
    groups: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --techniques, most groups of stages or layers that choose; others run "
            "dense.",
        ),
    ] = 8
    layers: Annotated[int, typer.Option(min=1, help="Most layers whose reuse is searched.")] = 4
    fronts: Annotated[
        Path | None,
        typer.Option(
            help="Directory of `codesign nested` on the same workload: search hardware together "
            "with a position on the front of each of its layers, in place of hashes and lengths."
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.py:NAME",
            help="A policy that decides in every layer (a user's file is executed), in place of "
            "hashes and lengths; its fields are searched by --parameter policy.FIELD=....",
        ),
    ] = None
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,VALUE|LOW..HIGH",
            help="Choices of a parameter of the search, of any field of the design, such as "
            "dram.bandwidth_bytes_per_cycle=8,16, or of the policy, such as "
            "policy.thresholds=mean,spread; may be repeated.",
        ),
    ] = None
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.py:NAME",
            help="What to make large or small: speedup, energy_uj_per_image, accuracy (always), "
            "or an objective of your own (executed); may be repeated. By default these three.",
        ),
    ] = None
    optimiser: Annotated[
        str,
        typer.Option(
            help="gp, botorch (an extra of its own), tpe, nsga2, sobol, random, or file.py:NAME or "
            "package.module:NAME (executed)."
        ),
    ] = "gp"
    max_area_mm2: Annotated[
        float | None,
        typer.Option(metavar="MM2", help=f"Largest area of the chip, in mm2. {_AT_MOST}"),
    ] = None
    max_power_mw: Annotated[
        float | None,
        typer.Option(metavar="MW", help=f"Most power, DRAM included, in mW. {_AT_MOST}"),
    ] = None
    max_latency_ms_per_image: Annotated[
        float | None,
        typer.Option(metavar="MS", help=f"Longest time of an image, in ms. {_AT_MOST}"),
    ] = None
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(
            parser=_share,
            metavar="FRACTION|PERCENT%",
            help="Most accuracy lost against the dense model: 0.02 or 2% are two percentage "
            f"points. {_AT_MOST}",
        ),
    ] = None
    trials: Annotated[int, typer.Option(min=1, help="Designs to try, in all.")] = 40
    workers: Annotated[int, typer.Option(min=1, help="Evaluations at a time.")] = 2
    batch: Annotated[int, typer.Option(min=1, help="Trials asked for together.")] = 4
    seed: Seed = 0
    first_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Judge a design on so many images first, and on all only if it may join the "
            "front; the front is judged on all at the end. Worth it from about a thousand on.",
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(help="Database to keep the study in, sqlite:///FILE.db, instead of --out."),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the study in --out, as its study.toml says."),
    ] = False
    ray_address: RayAddress = None


@guarded
@with_options(SearchOptions)
def command(options: SearchOptions, context: typer.Context) -> None:
    """Search hardware and reuse parameters together for the Pareto front."""
    from codesign.cli.supervision import on_ray
    from codesign.report.pictures import trial_pixels
    from codesign.report.study_report import StudyReport
    from codesign.study.store import PLAN_NAME, check_resume, holds_study, study_place

    out, storage = options.out, options.storage
    check_directory(out)
    plan = _plan(context, options)
    place = study_place(storage or out)
    check_resume(place, resume=options.resume)  # before the model is trained and run
    if storage is not None:
        out.mkdir(parents=True, exist_ok=True)
        plan.write(out / PLAN_NAME)
    with working(f"capturing {plan.model} on {plan.inputs}"):
        workload = plan.load_workload()
    if is_given(context, "layers"):
        searched = len(plan.space_for(workload).layers)
        if searched < plan.layers:
            note(f"Layers searched: {searched}, as no more of them have rows to share.")
    kept = f"finished trials are kept. Go on with: {resume_command()}"
    with resumable(kept, lambda: holds_study(place)):
        with trial_progress(plan.trials) as (on_progress, on_measured), on_ray(kept):
            result = plan.search(
                workload,
                storage=storage or out,
                resume=options.resume,
                ray_address=options.ray_address,
                on_measured=on_measured,
                on_progress=on_progress,
            )
        pixels = trial_pixels(workload, result)
        report = StudyReport(result=result, command=command_line(), pixels=pixels)
        tell(report, out / "report.html")
        if len(result.trials) < plan.trials:
            note(
                f"Stopped after {len(result.trials)} of {plan.trials} trials, as they all failed "
                f"alike. Mend the cause; go on with: {resume_command()}"
            )
        if result.unanswered is not None:
            raise typer.Exit(NOTHING_FOUND)


def _check_techniques(changes: Mapping[str, Any], plan: StudyPlan) -> None:
    """What goes with techniques only, and what does not.

    Raises:
        ConfigError: options that would have no effect.
    """
    if changes.get("techniques", plan.techniques) is None:
        idle = [f"--{name}" for name in ("grouping", "groups") if name in changes]
        rule, fix = "with --techniques", "such as --techniques dense,lsh"
    else:
        idle = [f"--{name}" for name in ("layers", "fronts", "policy") if name in changes]
        rule, fix = "without --techniques", "or leave --techniques out"
    if idle:
        raise ConfigError(
            f"{', '.join(idle)} must be given {rule}, got {'it' if len(idle) == 1 else 'them'} "
            f"otherwise; leave {', '.join(idle)} out, {fix}"
        )


def _settings(technique: str, settings: Sequence[str]) -> dict[str, Any]:
    """Parameter of the search -> choices, of what `--set` says of a technique.

    Raises:
        ConfigError: a setting is malformed, or names no field of one technique.
    """
    from codesign.space.parameters import read_choices
    from codesign.space.technique_lookup import owner_of
    from codesign.space.techniques import found_techniques

    found = found_techniques((technique,))
    return {
        f"{owner_of(found, path).name}.{path.rpartition('.')[2]}": values
        for path, values in read_choices(settings).items()
    }


def _plan(context: typer.Context, options: SearchOptions) -> StudyPlan:
    """The plan that the options and the study file describe; options given win.

    Raises:
        ConfigError: what they say together breaks rules.
    """
    from codesign.space.constraints import CONSTRAINT_NAMES
    from codesign.space.lookup import refuse_idle
    from codesign.space.parameters import read_choices
    from codesign.space.techniques import DENSE
    from codesign.study.plan import StudyPlan
    from codesign.study.store import PLAN_NAME

    study = options.study
    if study is None and options.resume and (options.out / PLAN_NAME).is_file():
        study = options.out / PLAN_NAME
    plan = StudyPlan() if study is None else StudyPlan.load(study)
    given = {name: value for name, value in vars(options).items() if is_given(context, name)}
    changes = {each.name: given[each.name] for each in fields(plan) if each.name in given}
    if "fronts" in changes and "layers" in changes:
        raise ConfigError(
            f"--layers must be given without --fronts, got {changes['layers']}; leave it out: the "
            "layers are those of the fronts"
        )
    idle = [f"--{name}" for name in ("layers", "fronts") if name in changes]
    if idle and changes.get("policy", plan.policy) is not None:
        raise ConfigError(
            f"{', '.join(idle)} must be given without --policy, got both; leave one out: a policy "
            "of your own decides in every layer"
        )
    own: dict[str, Any] = {}
    if options.technique is not None:
        if "techniques" in changes:
            raise ConfigError(
                "--technique must be given without --techniques, got both; add it to --techniques"
            )
        changes["techniques"] = f"{DENSE},{options.technique}"
        own = _settings(options.technique, options.setting or [])
    refuse_idle({"--set": bool(options.setting) and not own}, "with --technique")
    _check_techniques(changes, plan)
    if "techniques" in changes:
        changes["techniques"] = tuple(each.strip() for each in changes["techniques"].split(","))
    changes |= {name: str(changes[name]) for name in ("weights", "fronts") if name in changes}
    if "objective" in given:
        changes["objectives"] = tuple(given["objective"])
    if "parameter" in given or own:
        chosen = read_choices(given.get("parameter", []))
        changes["parameters"] = {**plan.parameters, **own, **chosen}
    limits = {n: given[f"max_{n}"] for n in CONSTRAINT_NAMES if f"max_{n}" in given}
    is_held_out = changes.get("held_out", plan.held_out) is not None
    if "held_out_inputs" in changes and not is_held_out:
        raise ConfigError(
            "--held-out-inputs must be given with --held-out, got it alone; add --held-out N, how "
            "many of them"
        )
    plan = replace(plan, **changes, constraints=replace(plan.constraints, **limits))
    if plan.first_images is not None and plan.first_images >= plan.images:
        raise ConfigError(
            f"--first-images must be fewer than the {plan.images} of --images, got "
            f"{plan.first_images}; leave it out to judge every trial on all"
        )
    return plan
