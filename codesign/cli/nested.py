"""The command `codesign nested`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codesign.cli.options import Images, Inputs, Model, Precision, RayAddress, Seed, Weights
from codesign.cli.outputs import check_directory
from codesign.cli.terminal import (
    NOTHING_FOUND,
    command_line,
    guarded,
    note,
    point_progress,
    resumable,
    resume_command,
    say,
    table,
    working,
)

if TYPE_CHECKING:
    from codesign.study.nested import NestedResult

EPILOG = (
    "Example: codesign nested --model cifarnet --inputs digits --trials 40 --workers 2 "
    "--out out/nested"
)


@guarded
def command(
    out: Annotated[Path, typer.Option(help="Directory for the search and its page.")],
    model: Model = "cifarnet",
    inputs: Inputs = "digits",
    images: Images = 100,
    weights: Weights = None,
    precision: Precision = "float32",
    projection: Annotated[
        str, typer.Option(help="Hyperplanes of the front-end: sign, sparse or int8.")
    ] = "sign",
    layers: Annotated[int, typer.Option(min=1, help="Most layers searched, the largest.")] = 4,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try on each layer.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Layers at a time.")] = 2,
    acquisition: Annotated[
        str,
        typer.Option(
            help="`logehvi`: expected hypervolume improvement of both objectives, or `ei`: "
            "expected improvement of a weighted one."
        ),
    ] = "logehvi",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search.")] = False,
    ray_address: RayAddress = None,
) -> None:
    """Search each layer's reuse on its own: error against compression."""
    from codesign.cli.supervision import on_ray
    from codesign.evaluation.workload import load_workload
    from codesign.study.nested import check_settings, nested_file, nested_search
    from codesign.study.store import check_resume, holds_study

    check_directory(out)
    # before the model is trained and run
    check_settings({}, acquisition=acquisition, projection=projection)
    check_resume(nested_file(out), resume=resume)
    with working(f"capturing {model} on {inputs}"):
        workload = load_workload(
            model=model,
            inputs=inputs,
            images=images,
            weights=weights,
            precision=precision,
            seed=seed,
        )
    kept = f"stored settings are kept. Go on with: {resume_command()}"
    with resumable(kept, lambda: holds_study(nested_file(out))):
        with point_progress("searching") as on_progress, on_ray(kept):
            result = nested_search(
                workload,
                projection=projection,
                top=layers,
                trials=trials,
                workers=workers,
                seed=seed,
                storage=out,
                resume=resume,
                ray_address=ray_address,
                acquisition=acquisition,
                on_progress=on_progress,
            )
        _tell(result, out)


def _tell(result: NestedResult, out: Path) -> None:
    """Show each layer's front and write the page."""
    from codesign.report.nested_page import front_columns, front_rows, verdict, write_nested_html

    for each in result.layers:
        say(f"\n{each.layer}")
        table(front_columns(each), front_rows(each))
    for each in result.layers:
        if each.front and each.failures is not None:
            note(f"{each.layer}: {each.failures}")
    say(f"\n{verdict(result)}")
    note(f"wrote {write_nested_html(result, out / 'nested.html', command_line())}")
    if result.unanswered is not None:
        raise typer.Exit(NOTHING_FOUND)
