"""The command `codesign capture`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codesign.cli.options import (
    ClassesDimension,
    Images,
    Inputs,
    Model,
    Output,
    Precision,
    Score,
    Seed,
    Weights,
)
from codesign.cli.outputs import check_directory
from codesign.cli.terminal import guarded, say, working

EPILOG = "Example: codesign capture --model cifarnet --inputs digits --images 100 --out trace"


@guarded
def command(
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
