"""The command that shows where similarity lives: `codesign similarity`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelerators import ConfigError
from codesign.cli.options import (
    Images,
    Inputs,
    Policy,
    PolicySet,
    Precision,
    Seed,
    Weights,
    is_given,
    with_options,
)
from codesign.cli.outputs import check_files
from codesign.cli.replay import check_policy, tell_random
from codesign.cli.terminal import command_line, guarded, note, say, table, working
from codesign.space.lookup import find_policy, refuse_idle
from simulator import LshReuse, NoReuse, PerLayer, ReusePolicy, decide
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    from codesign.evaluation.workload import Workload

EPILOG = (
    "Example: codesign similarity --model efficientnet_lite0 --inputs bikes --images 8 "
    "--out similarity.html\n\n"
    "Of a trace: codesign similarity trace --hashes 8 --length 10 --out similarity.html"
)


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions:
    """The options."""

    trace: Annotated[
        Path | None,
        typer.Argument(help="Directory that `codesign capture` wrote; or give --model."),
    ] = None
    out: Annotated[Path, typer.Option(help="The page.")] = Path("similarity.html")
    model: Annotated[
        str | None, typer.Option(help="Model to capture, as for `codesign capture`.")
    ] = None
    inputs: Inputs = "digits"
    images: Images = 20
    weights: Weights = None
    precision: Precision = "float32"
    seed: Seed = 0
    hashes: Annotated[int, typer.Option(min=1, help="Hashes H of every layer.")] = 10
    length: Annotated[
        int | None,
        typer.Option(min=1, help="Sub-vector length L; whole rows by default, and where shorter."),
    ] = None
    scope: Annotated[str, typer.Option(help="Cluster within an `image` or within a `batch`.")] = (
        "image"
    )
    thresholds: Annotated[
        str, typer.Option(help="Of the hashes: `zero`, at the `mean`, or `spread` about it.")
    ] = "spread"
    image: Annotated[int, typer.Option(min=0, help="Image to paint, counted from 0.")] = 0
    sub_vector: Annotated[
        int | None, typer.Option(min=0, help="Paint this sub-vector alone, counted from 0.")
    ] = None
    centred: Annotated[
        bool,
        typer.Option(
            "--centred", help="Take each image's and row's own mean away first (correlation)."
        ),
    ] = False
    policy: Policy = None
    policy_set: PolicySet = None


@guarded
@with_options(SimilarityOptions)
def command(options: SimilarityOptions, context: typer.Context) -> None:
    """Show how alike inputs and layers are, and paint each layer's clusters on an image."""
    from codesign.report.similarity_page import (
        Measured,
        inputs_text,
        layer_columns,
        layer_rows,
        layers_text,
        write_similarity_html,
    )
    from simulator.analysis.frames import frame_picture

    out = options.out
    check_files(inputs=[options.weights], out=out)
    _check(options, context)
    with working("measuring similarity"):
        workload = _workload(options)
        frame_picture(workload.trace, options.image)  # known before the decisions are made
        run = decide(
            workload.trace,
            _policy(options, workload.trace),
            calibration=workload.calibration,
            layer_errors=False,
        )
        measured = Measured.of(workload.trace, centred=options.centred)
        out.parent.mkdir(parents=True, exist_ok=True)
        path = write_similarity_html(
            workload.trace,
            run,
            measured,
            out,
            name=workload.name,
            image=options.image,
            sub_vector=options.sub_vector,
            command=command_line(),
        )
    table(layer_columns(measured), layer_rows(measured, run))
    tell_random(workload.trace)
    say(f"\n{inputs_text(measured)}\n{layers_text(measured)}")
    note(f"wrote {path}")


def _check(options: SimilarityOptions, context: typer.Context) -> None:
    """Options must go together.

    Raises:
        ConfigError: some do not.
    """
    trace = options.trace
    if (trace is None) == (options.model is None):
        raise ConfigError(
            "one of TRACE and --model must be given, got "
            f"{'neither' if trace is None else 'both'}; name a directory that `codesign capture` "
            "wrote, or a model such as --model cifarnet"
        )
    if trace is not None:
        captures = ("inputs", "images", "weights", "precision", "seed")
        refuse_idle({f"--{name}": is_given(context, name) for name in captures}, "with --model")
    if options.out.suffix != ".html":
        raise ConfigError(f"--out must end in .html, got {str(options.out)!r}; name a page")
    lsh = ("hashes", "length", "scope", "thresholds")
    check_policy(
        options.policy, options.policy_set, [name for name in lsh if is_given(context, name)]
    )


def _workload(options: SimilarityOptions) -> Workload:
    """The trace that is named, or one of the model that is."""
    from codesign.evaluation.workload import Workload, load_workload
    from simulator.results.weights import headline_name

    if options.trace is not None:
        captured = WorkloadTrace.load(options.trace)
        return Workload(trace=captured, name=headline_name(captured.provenance))
    return load_workload(
        model=str(options.model),
        inputs=options.inputs,
        images=options.images,
        weights=options.weights,
        precision=options.precision,
        seed=options.seed,
    )


def _policy(options: SimilarityOptions, trace: WorkloadTrace) -> ReusePolicy:
    """What clusters each layer with weights.

    Products of activations run dense: as many as there are images, they cannot be calibrated on
    another number of images, and have no picture.
    """
    own: dict[str, ReusePolicy] = {
        layer.name: NoReuse() for layer in trace.layers if not layer.weights_are_parameters
    }
    if options.policy is not None:
        return PerLayer(own, find_policy(options.policy, options.policy_set or ()))
    length = options.length
    whole = LshReuse(
        hashes=options.hashes, length=None, scope=options.scope, thresholds=options.thresholds
    )
    for layer in trace.layers:  # rows shorter than `length` are not cut
        if layer.name not in own and (length is None or layer.gemm.k < length):
            own[layer.name] = whole
    return PerLayer(own, replace(whole, length=length))
