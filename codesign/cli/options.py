"""Options that several commands share, and what those of a replay ask for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from accelerators import BUILT_IN_TABLES, Accelerator, ConfigError, read_scale_sim_config
from codesign.space.checks import LARGEST_SEED
from codesign.space.lookup import find_accelerator, find_score, policy_from_options, refuse_idle
from codesign.space.parameters import read_choices
from simulator import NoReuse, ReusePolicy
from workloads.traces.files import DESCRIPTION
from workloads.traces.scale_sim import read_topology
from workloads.traces.scores import SCORES
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    from codesign.study.plan import StudyPlan

DEFAULT_DESIGN = "reuse_16x16"

Model = Annotated[
    str,
    typer.Option(
        help="cifarnet (trained on the digits at first use), efficientnet_lite0 (with its ImageNet "
        "weights), resnet18_camvid (street scenes, with this project's weights), alexnet, vgg19, "
        "resnet18, resnet50, resnet20, resnet56, squeezenet1_0, squeezenet1_1, mobilenet_v2, "
        "resnest50, psanet50, vit_b_16, vit_s_16, swin_t, espnet, twinlitenet, resnet18_scenes, "
        "resnet18_lanes, swin_scenes, swin_lanes, "
        "package.module:Class or file.py:Class (executed)."
    ),
]
Inputs = Annotated[
    str,
    typer.Option(
        help="digits, cifar10:ARCHIVE, camvid:FOLDER, a sample video (bikes, bigbuckbunny, "
        "carphone), or the path of a video, of a folder of pictures (in order of name, resized to "
        "the model's input_shape) or of a .npy, .npz or .safetensors file: float32 (images, "
        "channels, height, width) as the model expects them, or whole token ids (texts, length)."
    ),
]
Images = Annotated[int, typer.Option(min=1, help="Images or frames to judge on.")]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, or int8: quantised after training, with ranges from images that are not "
        "judged on."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights of the model, .safetensors or PyTorch's .pth, .pt, .th, .bin, .ckpt, named "
        "as by torchvision or timm, alone or as an entry of a checkpoint; without them most "
        "models have random ones."
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        help="Which of the model's outputs is judged, where it gives several: its path, such as "
        "logits or 0.boxes, or its position; by default logits, or the first."
    ),
]
ClassesDimension = Annotated[
    str | None,
    typer.Option(
        metavar="N|none",
        help="Dimension of the judged output along which its classes lie, -1 for the last, or "
        "none; by default 1 of (images, classes) and (images, classes, height, width).",
    ),
]
Score = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.py:FUNCTION",
        help=f"How answers are judged by the labels: {', '.join(SCORES)}, or your own function of "
        "the judged output and the labels to a number of 0 to 1 (executed).",
    ),
]
ReplayScore = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="The function that the trace was captured with as --score, which a saved trace does "
        "not hold, or another (executed); needs --model.",
    ),
]
CalibrateUnderReuse = Annotated[
    bool,
    typer.Option(
        "--calibrate-under-reuse",
        help="Learn thresholds and hyperplanes of each layer under reuse in the layers before it, "
        "as a network trained under reuse (`codesign train --hashes`) needs it.",
    ),
]
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


MaxArea = Annotated[
    float | None,
    typer.Option(metavar="MM2", help=f"Largest area of the chip, in mm2. {_AT_MOST}"),
]
MaxPower = Annotated[
    float | None,
    typer.Option(metavar="MW", help=f"Most power, DRAM included, in mW. {_AT_MOST}"),
]
MaxLatency = Annotated[
    float | None, typer.Option(metavar="MS", help=f"Longest time of an image, in ms. {_AT_MOST}")
]
MaxAccuracyLoss = Annotated[
    float | None,
    typer.Option(
        parser=_share,
        metavar="FRACTION|PERCENT%",
        help="Most accuracy lost against the dense model: 0.02 or 2% are two percentage points. "
        f"{_AT_MOST}",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Same seed, same numbers.")]
RayAddress = Annotated[str | None, typer.Option(help="A Ray cluster to run on, HOST:PORT.")]
# Of hashing: what it is to learn from is of no use without.
LEARNS = (
    "with thresholds or hyperplanes that are learned, --thresholds spread or mean or --learning"
)
_DESIGN_HELP = "A preset, or file.py:NAME or package.module:NAME (executed)."
Design = Annotated[str, typer.Option(help=_DESIGN_HELP)]


class TellingCommand(TyperCommand):
    """A command that tells of an option given twice, of which the last counts, as elsewhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        from codesign.cli.terminal import note

        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        twice = {each for each in order if order.count(each) > 1 and not each.multiple}
        for option in sorted(twice, key=lambda each: each.opts[0]):
            if option.param_type_name == "option":
                note(f"{option.opts[0]} is given several times; the last counts.")
        return super().parse_args(ctx, args)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, also with its default."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def study_plan(context: typer.Context, study: Path | None) -> StudyPlan:
    """The plan that a search's options and its study file describe; options given win.

    Raises:
        ConfigError: what they say together breaks rules.
    """
    from codesign.space.constraints import CONSTRAINT_NAMES
    from codesign.study.plan import StudyPlan

    plan = StudyPlan() if study is None else StudyPlan.load(study)
    given = {name: value for name, value in context.params.items() if is_given(context, name)}
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
    changes |= {name: str(changes[name]) for name in ("weights", "fronts") if name in changes}
    if "objective" in given:
        changes["objectives"] = tuple(given["objective"])
    if "parameter" in given:
        changes["parameters"] = {**plan.parameters, **read_choices(given["parameter"])}
    limits = {n: given[f"max_{n}"] for n in CONSTRAINT_NAMES if f"max_{n}" in given}
    return replace(plan, **changes, constraints=replace(plan.constraints, **limits))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What the options of a replay ask for.

    Attributes:
        trace: the workload.
        design: the accelerator.
        policy: the reuse.
        calibration: another trace of the model, if any.
    """

    trace: WorkloadTrace
    design: Accelerator
    policy: ReusePolicy
    calibration: WorkloadTrace | None = None

    @property
    def learns(self) -> bool:
        """Whether some layer's hashing has anything to learn."""
        layers = [layer for layer in self.trace.layers if self.policy.applies_to(layer)]
        return any(self.policy.needs_calibration(layer) for layer in layers)


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """The options that all replays share; each field is one, see `with_replay_options`."""

    trace: Annotated[
        Path | None, typer.Argument(help="Directory that `codesign capture` wrote.")
    ] = None
    accelerator: Annotated[
        str | None, typer.Option(help=f"{_DESIGN_HELP} By default {DEFAULT_DESIGN}.")
    ] = None
    technology: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.csv",
            help=f"Cost table to use in place of the design's own: {', '.join(BUILT_IN_TABLES)}, "
            "or your own file.",
        ),
    ] = None
    scale_sim: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="CFG TOPOLOGY",
            help="SCALE-Sim's files, the .cfg and the topology .csv, instead of TRACE and "
            "--accelerator; runs dense.",
        ),
    ] = None
    hashes: Annotated[int | None, typer.Option(help="Hashes H of every layer.")] = None
    length: Annotated[int | None, typer.Option(help="Sub-vector length L of every layer.")] = None
    layer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=H,L or NAME=dense, for layers of their own; may be repeated."),
    ] = None
    scope: Annotated[
        str,
        typer.Option(
            help="Share results within an `image` or a `batch`, or keep them over a `stream`."
        ),
    ] = "image"
    thresholds: Annotated[
        str,
        typer.Option(
            help="Of the hashes: `zero` (the paper's), at the `mean`, or `spread` about it."
        ),
    ] = "spread"
    learning: Annotated[
        str,
        typer.Option(
            help="Hyperplanes drawn at random (`none`), or learned from the calibration: `pca`, "
            "`itq` or `task`. On a front-end of signs, `task` alone."
        ),
    ] = "none"
    order: Annotated[
        str,
        typer.Option(
            help="Cut a convolution's rows `channels_first` (c, kh, kw) or `channels_last`."
        ),
    ] = "channels_first"
    representative: Annotated[
        str, typer.Option(help="Of a cluster: the `centroid`, or the `first` row seen.")
    ] = "centroid"
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Another trace of the model, to learn thresholds and hyperplanes from; without "
            "it they are learned from TRACE itself."
        ),
    ] = None
    engine: Annotated[
        str,
        typer.Option(help="`compiled`, or `event`, the slow reference; both find the same cycles."),
    ] = "compiled"

    def files(self) -> list[Path | None]:
        """Files that are read, which no output may take the place of."""
        design = (self.accelerator or "").rpartition(":")[0] or self.accelerator or ""
        traces = [each / DESCRIPTION for each in (self.trace, self.calibration) if each is not None]
        return [*traces, *(self.scale_sim or ()), Path(self.technology or ""), Path(design)]

    def read(self, *, model: str | None = None, score: str | None = None) -> Replay:
        """Read the trace and the design, or SCALE-Sim's files of both.

        Args:
            model: the captured model, if its name was given.
            score: the function that judges its outputs, if one was named.

        Raises:
            ConfigError: options that do not go together, or name no design or no cost table.
            TraceError: a workload that cannot be read.
        """
        if score is not None and model is None:
            raise ConfigError(
                f"--score must come with --model, got {score!r} alone; name the captured model: "
                "without it there are no answers to judge"
            )
        if self.scale_sim is not None:
            return self._read_scale_sim(self.scale_sim, model)
        if self.trace is None:
            raise ConfigError(
                "TRACE must be given, got nothing; name a directory that `codesign capture` wrote, "
                "or give SCALE-Sim's files by --scale-sim CFG TOPOLOGY"
            )
        design = self._priced(find_accelerator(self.accelerator or DEFAULT_DESIGN))
        policy = policy_from_options(
            hashes=self.hashes,
            length=self.length,
            layers=self.layer or [],
            scope=self.scope,
            thresholds=self.thresholds,
            learning=self.learning,
            order=self.order,
            representative=self.representative,
            accelerator=design,
        )
        asked = Replay(
            trace=_judged(WorkloadTrace.load(self.trace), score),
            design=design,
            policy=policy,
            calibration=None if self.calibration is None else WorkloadTrace.load(self.calibration),
        )
        refuse_idle({"--calibration": self.calibration is not None and not asked.learns}, LEARNS)
        return asked

    def _read_scale_sim(self, files: tuple[Path, Path], model: str | None) -> Replay:
        """Shapes alone, on the design of the .cfg file."""
        given = [
            "TRACE" if option.name == "trace" else f"--{option.name}"
            for option in fields(self)
            if option.name not in ("scale_sim", "technology", "engine")
            and getattr(self, option.name) not in (option.default, [])
        ] + (["--model"] if model is not None else [])
        if given:
            raise ConfigError(
                f"--scale-sim must stand without {', '.join(given)}: its files are the design and "
                "the workload, shapes alone, and nothing tells which rows are alike; leave out "
                f"{', '.join(given)}, or capture the model and give TRACE instead of --scale-sim"
            )
        config, topology = files
        return Replay(
            trace=read_topology(topology),
            design=self._priced(read_scale_sim_config(config)),
            policy=NoReuse(),
        )

    def _priced(self, design: Accelerator) -> Accelerator:
        """The design with the cost table that was asked for."""
        return design if self.technology is None else replace(design, technology=self.technology)


def _judged(trace: WorkloadTrace, score: str | None) -> WorkloadTrace:
    """The trace with the score function that was named."""
    if score is None:
        return trace
    found = find_score(score)
    if isinstance(found, str):
        raise ConfigError(
            f"--score must be file.py:FUNCTION or package.module:FUNCTION, got {found!r}; capture "
            "the trace with that score"
        )
    return trace.with_score(found.function, found.name)


def with_replay_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, which takes `ReplayOptions` first, an option for each of their fields."""
    hints = get_type_hints(ReplayOptions, include_extras=True)
    shared = [
        Parameter(
            option.name,
            Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=hints[option.name],
        )
        for option in fields(ReplayOptions)
    ]
    _, *own = signature(command, eval_str=True).parameters.values()
    offered = [*shared, *(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own)]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = ReplayOptions(**{option.name: given.pop(option.name) for option in shared})
        command(options, **given)

    # Typer reads both
    run.__signature__ = Signature(offered)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in offered}
    return run
