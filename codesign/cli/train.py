"""The command `codesign train`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelerators import ConfigError
from codesign.cli.options import (
    DEFAULT_DESIGN,
    Design,
    Model,
    Policy,
    PolicySet,
    Seed,
    Weights,
    is_given,
    with_options,
)
from codesign.cli.outputs import check_directory
from codesign.cli.replay import policy_by_name
from codesign.cli.terminal import guarded, note, resumable, resume_command, say, working
from codesign.space.lookup import find_accelerator, policy_from_options, refuse_idle

if TYPE_CHECKING:
    from torch import nn

    from simulator import ReusedForward
    from workloads.streams.clips import ClipSet
    from workloads.training import SimilarityEpoch
    from workloads.training.tasks import Task

EPILOG = (
    "Example: codesign train --model resnet18_scenes --data camvid:CamVid/train "
    "--validation camvid:CamVid/test --hashes 8 --length 8 --layer conv1=dense --out out/trained"
    "\n\nLanes: codesign train --model resnet18_lanes --data camvid:CamVid/train "
    "--teacher twinlitenet.pth --validation tvtlane:TvtLane --size 128x256 --out out/lanes"
)
_DATA_HELP = (
    "KIND:FOLDER with KIND camvid, apolloscape_scenes, apolloscape_lanes or tvtlane, in the layout "
    "that each is published in."
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options; those of a `TrainingPlan` are called as there."""

    data: Annotated[str, typer.Option(help=f"Clips to learn from: {_DATA_HELP}")]
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, curves and weights.")]
    model: Model = "resnet18_scenes"
    weights: Weights = None
    validation: Annotated[
        str | None, typer.Option(help="Clips to score after each epoch, likewise.")
    ] = None
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="TwinLiteNet's weights: where clips have scenes for labels, learn its lanes "
            "instead; an F1 is then one against the teacher."
        ),
    ] = None
    size: Annotated[
        str, typer.Option(metavar="HEIGHTxWIDTH", help="Size that frames are brought to.")
    ] = "120x160"
    frames: Annotated[int, typer.Option(min=2, help="Consecutive frames of a clip.")] = 2
    limit: Annotated[
        int | None, typer.Option(min=2, help="Read only so many frames to learn from.")
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(
            help="Classes the network answers, if more than the clips have: 12 for ESPNet's "
            "published weights."
        ),
    ] = None
    epochs: Annotated[int, typer.Option(help="Passes over the clips.")] = 50
    optimizer: Annotated[str, typer.Option(help="sgd, with momentum 0.9, or adamw.")] = "sgd"
    learning_rate: Annotated[float, typer.Option(help="Of the optimizer.")] = 0.01
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 0.0
    schedule: Annotated[str, typer.Option(help="Learning rate: constant or cosine.")] = "constant"
    batch: Annotated[int, typer.Option(help="Clips a step.")] = 8
    flips: Annotated[bool, typer.Option("--flips", help="Mirror clips at random.")] = False
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weight rare classes more in the task's loss.")
    ] = False
    intra_weight: Annotated[
        float, typer.Option(help="Of similarity within frames; 0 leaves it out.")
    ] = 0.001
    inter_weight: Annotated[
        float, typer.Option(help="Of similarity between frames; 0 leaves it out.")
    ] = 0.001
    cluster_average_weight: Annotated[
        float, typer.Option(help="Of weights being like their cluster's average; 0 leaves it out.")
    ] = 0.0
    precision: Annotated[
        str,
        typer.Option(
            help="float32; bfloat16 or float16: mixed precision; or int8: learn on 8-bit grids."
        ),
    ] = "float32"
    accelerator: Design = DEFAULT_DESIGN
    hashes: Annotated[
        int | None, typer.Option(help="Train under reuse, with hashes H in every layer.")
    ] = None
    length: Annotated[int | None, typer.Option(help="Sub-vector length L, likewise.")] = None
    layer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=H,L or NAME=dense, for layers of their own; may be repeated."),
    ] = None
    learning: Annotated[
        str, typer.Option(help="Hyperplanes: none (random) or task (learned anew every epoch).")
    ] = "none"
    policy: Policy = None
    policy_set: PolicySet = None
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto"
    seed: Seed = 0
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")
    ] = False

    @property
    def reuses(self) -> bool:
        """Whether to train under reuse."""
        by_lsh = not (self.hashes is None and self.length is None and not self.layer)
        return by_lsh or self.policy is not None


@guarded
@with_options(TrainOptions)
def command(options: TrainOptions, context: typer.Context) -> None:
    """Train a network on video so that its products can be reused (similarity-aware)."""
    from workloads import models
    from workloads.training import TrainingPlan, similarity_aware_training
    from workloads.training.classifier import device_named
    from workloads.training.similarity import CHECKPOINT

    out = options.out
    check_directory(out)
    if not options.reuses:
        refuse_idle(
            {name: is_given(context, name[2:]) for name in ("--learning", "--accelerator")},
            "with reuse, as --hashes and --length, --layer or --policy ask for it",
        )
    device_named(options.device)  # no GPU is told before clips are read
    shared = {each.name for each in fields(TrainingPlan)} & {each.name for each in fields(options)}
    plan = TrainingPlan(**{name: getattr(options, name) for name in sorted(shared)})
    reuse = _reuse(options)
    read = _reader(options.frames, options.size, options.teacher)
    with working("reading clips"):
        clips = read("--data", options.data, options.limit)
        scored = (
            None if options.validation is None else read("--validation", options.validation, None)
        )
    if scored is not None and scored.classes != clips.classes:
        raise ConfigError(
            f"--validation must have the classes of --data, {', '.join(clips.classes)}, got "
            f"{', '.join(scored.classes)}; give clips of the same kind"
        )
    task = _task(clips, options.classes, options.balanced)
    network = models.load(
        options.model, options.weights, seed=options.seed, num_classes=task.outputs
    )
    kept = f"the last whole epoch is kept. Go on with: {resume_command()}"
    with resumable(kept, (out / CHECKPOINT).is_file):
        result = similarity_aware_training(
            network,
            _normalised(clips, network),
            task,
            plan=plan,
            validation=None if scored is None else _normalised(scored, network),
            reuse=reuse,
            out=out,
            resume=options.resume,
            device=options.device,
            progress=True if sys.stderr.isatty() else lambda report: note(_told(report)),
        )
    say(f"{type(network).__name__} on {len(clips)} clips, {result.duration_s:.0f} s of training")
    say(_told(result.epochs[-1]))
    note(f"wrote weights.safetensors, curves.csv and curves.html to {out}")
    if reuse is not None:
        shown = _simulate_options(options, learns=options.policy is None or bool(reuse.states))
        note(f"Capture a TRACE with these weights, then: codesign simulate TRACE {shown}")


def _told(report: SimilarityEpoch) -> str:
    """An epoch in a line."""
    scores = report.validation or report.score
    parts = [
        f"epoch {report.epoch}/{report.epochs}: loss {report.loss:.4f}",
        f"task {report.task:.4f}",
        *(
            f"{name} {value:.4f}"
            for name, value in (
                ("intra-frame", report.intra),
                ("inter-frame", report.inter),
                ("cluster average", report.cluster_average),
                ("removed fraction", report.removed_fraction),
            )
            if value is not None
        ),
        "validation" if report.validation else "training",
    ]
    return f"{', '.join(parts)} " + ", ".join(f"{name} {x:.4f}" for name, x in scores.items())


def _reader(frames: int, size: str, teacher: Path | None) -> Callable[..., ClipSet]:
    """A function that reads the clips that an option names, as other options want them.

    Clips that have lanes keep them; a teacher labels the others, at the size that it learned at.
    """
    from workloads.models import load
    from workloads.models.twinlitenet import TwinLiteNet
    from workloads.streams.apolloscape import apolloscape_lanes, apolloscape_scenes
    from workloads.streams.camvid import camvid
    from workloads.streams.lanes import tvtlane
    from workloads.training.teacher import lane_labels_by

    sides = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if sides is None:
        raise ConfigError(f"--size must be HEIGHTxWIDTH, got {size!r}; write for example 120x160")
    wanted = int(sides[1]), int(sides[2])
    scenes, lanes = (camvid, apolloscape_scenes), (apolloscape_lanes, tvtlane)
    readers: dict[str, Callable[..., ClipSet]] = {each.__name__: each for each in scenes + lanes}
    network = None if teacher is None else load("twinlitenet", teacher)

    def read(option: str, text: str, limit: int | None) -> ClipSet:
        kind, separator, folder = text.partition(":")
        if kind not in readers or not separator or not folder:
            raise ConfigError(
                f"{option} must be KIND:FOLDER with KIND {', '.join(readers)}, got {text!r}; "
                f"write for example {option} camvid:CamVid/train"
            )
        reader = readers[kind]
        if network is None or reader in lanes:
            if network is not None and option == "--data":
                raise ConfigError(
                    f"--teacher must come with clips that lack lanes, got --data {kind}, which has "
                    "them; leave it out"
                )
            return reader(folder, length=frames, size=wanted, limit=limit)
        seen = reader(folder, length=frames, size=TwinLiteNet.input_shape[1:], limit=limit)
        return lane_labels_by(network, seen, size=wanted)

    return read


def _task(clips: ClipSet, count: int | None, balanced: bool) -> Task:
    """What clips with these classes are for, with a network that answers `count` classes."""
    from workloads.training.tasks import LaneDetection, SceneParsing, balanced_weights

    more = 0 if count is None else count - len(clips.classes)
    if more < 0:
        raise ConfigError(
            f"--classes must be at least the {len(clips.classes)} of the clips, got {count}; "
            "leave it out"
        )
    weights = (*balanced_weights(clips, clips.classes), *(1.0,) * more) if balanced else None
    if clips.classes == LaneDetection().classes and not more:
        return LaneDetection(class_weights=weights)
    names = (*clips.classes, *(f"unlabelled {i + 1}" for i in range(more)))
    return SceneParsing(classes=names, class_weights=weights)


def _normalised(clips: ClipSet, network: nn.Module) -> ClipSet:
    """The clips as the network wants them."""
    return replace(clips, normalise=getattr(network, "normalise", clips.normalise))


def _reuse(options: TrainOptions) -> ReusedForward | None:
    """The forward pass under the reuse that options describe; None without them."""
    from simulator import ReusedForward

    given = {
        "hashes": options.hashes is not None,
        "length": options.length is not None,
        "layer": bool(options.layer),
        "learning": options.learning != "none",
    }
    lsh = [name for name, is_set in given.items() if is_set]
    policy = policy_by_name(options.policy, options.policy_set, options.layer or [], lsh)
    if policy is None and not options.reuses:
        return None
    if policy is None:
        policy = policy_from_options(
            hashes=options.hashes,
            length=options.length,
            layers=options.layer or [],
            scope="image",
            thresholds="spread",
            learning=options.learning,
            order="channels_first",
            representative="centroid",
            accelerator=find_accelerator(options.accelerator),
        )
    return ReusedForward(policy)


def _simulate_options(options: TrainOptions, *, learns: bool) -> str:
    """Options of `codesign simulate` that run the trained network under the reuse of training.

    Args:
        options: of the training.
        learns: whether reuse learned anything of the activations; else it has nothing to calibrate.
    """
    accelerator, learning = options.accelerator, options.learning
    given = {
        "--model": options.model,
        "--weights": options.out / "weights.safetensors",
        "--accelerator": None if accelerator == DEFAULT_DESIGN else accelerator,
        "--hashes": options.hashes,
        "--length": options.length,
        "--learning": None if learning == "none" else learning,
        "--policy": options.policy,
    }
    words = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    words += [word for each in options.policy_set or [] for word in ("--policy-set", each)]
    words += [word for layer in options.layer or [] for word in ("--layer", layer)]
    return shlex.join([*words, *(["--calibrate-under-reuse"] if learns else [])])
