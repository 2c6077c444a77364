"""The command that shows where similarity lives: `codesign similarity`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from accelerators import ConfigError
from codesign.cli.options import Images, Inputs, Precision, Seed, Weights, is_given
from codesign.cli.outputs import check_files
from codesign.cli.simulate import tell_random
from codesign.cli.terminal import command_line, guarded, note, say, table, working
from codesign.space.lookup import refuse_idle
from simulator import LshReuse, NoReuse, PerLayer, ReusePolicy, decide
from workloads.traces.trace import WorkloadTrace

EPILOG = (
    "Example: codesign similarity --model efficientnet_lite0 --inputs bikes --images 8 "
    "--out similarity.html\n\n"
    "Of a trace: codesign similarity trace --hashes 8 --length 10 --out similarity.html"
)


@guarded
def similarity_command(
    context: typer.Context,
    trace: Annotated[
        Path | None,
        typer.Argument(help="Directory that `codesign capture` wrote; or give --model."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("similarity.html"),
    model: Annotated[
        str | None, typer.Option(help="Model to capture, as for `codesign capture`.")
    ] = None,
    inputs: Inputs = "digits",
    images: Images = 20,
    weights: Weights = None,
    precision: Precision = "float32",
    seed: Seed = 0,
    hashes: Annotated[int, typer.Option(min=1, help="Hashes H of every layer.")] = 10,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="Sub-vector length L; whole rows by default, and where shorter."),
    ] = None,
    scope: Annotated[
        str, typer.Option(help="Cluster within an `image` or within a `batch`.")
    ] = "image",
    thresholds: Annotated[
        str, typer.Option(help="Of the hashes: `zero`, at the `mean`, or `spread` about it.")
    ] = "spread",
    image: Annotated[int, typer.Option(min=0, help="Image to paint, counted from 0.")] = 0,
    sub_vector: Annotated[
        int | None, typer.Option(min=0, help="Paint this sub-vector alone, counted from 0.")
    ] = None,
    centred: Annotated[
        bool,
        typer.Option(
            "--centred", help="Take each image's and row's own mean away first (correlation)."
        ),
    ] = False,
) -> None:
    """Show how alike inputs and layers are, and paint each layer's clusters on an image."""
    from codesign.evaluation.workload import Workload, load_workload
    from codesign.report.similarity_page import (
        Measured,
        inputs_text,
        layer_columns,
        layer_rows,
        layers_text,
        write_similarity_html,
    )
    from simulator.analysis.frames import frame_picture
    from simulator.results.weights import headline_name

    check_files(inputs=[weights], out=out)
    if (trace is None) == (model is None):
        raise ConfigError(
            "one of TRACE and --model must be given, got "
            f"{'neither' if trace is None else 'both'}; name a directory that `codesign capture` "
            "wrote, or a model such as --model cifarnet"
        )
    if trace is not None:
        refuse_idle(
            {
                f"--{name}": is_given(context, name)
                for name in ("inputs", "images", "weights", "precision", "seed")
            },
            "with --model",
        )
    if out.suffix != ".html":
        raise ConfigError(f"--out must end in .html, got {str(out)!r}; name a page")
    with working("measuring similarity"):
        if trace is not None:
            captured = WorkloadTrace.load(trace)
            workload = Workload(trace=captured, name=headline_name(captured.provenance))
        else:
            workload = load_workload(
                model=str(model),
                inputs=inputs,
                images=images,
                weights=weights,
                precision=precision,
                seed=seed,
            )
        frame_picture(workload.trace, image)  # known before the decisions are made
        policy = lsh_on_all(workload.trace, hashes, length, scope=scope, thresholds=thresholds)
        run = decide(workload.trace, policy, calibration=workload.calibration, layer_errors=False)
        measured = Measured.of(workload.trace, centred=centred)
        out.parent.mkdir(parents=True, exist_ok=True)
        path = write_similarity_html(
            workload.trace,
            run,
            measured,
            out,
            name=workload.name,
            image=image,
            sub_vector=sub_vector,
            command=command_line(),
        )
    table(layer_columns(measured), layer_rows(measured, run))
    tell_random(workload.trace)
    say(f"\n{inputs_text(measured)}\n{layers_text(measured)}")
    note(f"wrote {path}")


def lsh_on_all(
    trace: WorkloadTrace, hashes: int, length: int | None, *, scope: str, thresholds: str
) -> ReusePolicy:
    """LSH on every layer with weights; rows shorter than `length` are not cut.

    Products of activations run dense: as many as there are images, they cannot be calibrated on
    another number of images, and have no picture.
    """
    whole = LshReuse(hashes=hashes, length=None, scope=scope, thresholds=thresholds)
    own: dict[str, ReusePolicy] = {}
    for layer in trace.layers:
        if not layer.weights_are_parameters:
            own[layer.name] = NoReuse()
        elif length is None or layer.gemm.k < length:
            own[layer.name] = whole
    return PerLayer(own, replace(whole, length=length))
