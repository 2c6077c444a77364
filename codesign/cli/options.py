"""Options that several commands share, and taking many of them as one object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import MISSING, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from codesign.space.checks import LARGEST_SEED
from workloads.traces.scores import SCORES

DEFAULT_DESIGN = "reuse_16x16"

Model = Annotated[
    str,
    typer.Option(
        help="cifarnet (trained on the digits at first use), efficientnet_lite0 (with its ImageNet "
        "weights), resnet18_camvid and resnet18_w64_camvid (street scenes, at a quarter of the "
        "width and at all of it) and vgg16_cifar10 (with this project's weights), alexnet, vgg19, "
        "resnet18, resnet50, resnet20, resnet56, squeezenet1_0, squeezenet1_1, mobilenet_v2, "
        "resnest50, psanet50, vit_b_16, vit_s_16, swin_t, espnet, twinlitenet, resnet38, "
        "resnet18_scenes, resnet38_scenes, psanet_scenes, swin_scenes, resnet18_lanes, "
        "resnest_lanes, swin_lanes, "
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
        help="Weights of the model, .safetensors[.gz] or PyTorch's .pth, .pt, .th, .bin, .ckpt, "
        "named as by torchvision or timm, alone or as an entry of a checkpoint; without them most "
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
CalibrateUnderReuse = Annotated[
    bool,
    typer.Option(
        "--calibrate-under-reuse",
        help="Learn thresholds and hyperplanes of each layer under reuse in the layers before it, "
        "as a network trained under reuse (`codesign train --hashes`) needs it.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Same seed, same numbers.")]
RayAddress = Annotated[str | None, typer.Option(help="A Ray cluster to run on, HOST:PORT.")]
DESIGN_HELP = "A preset, or file.py:NAME or package.module:NAME (executed)."
Design = Annotated[str, typer.Option(help=DESIGN_HELP)]


Policy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.py:NAME",
        help="Reuse by a policy in place of --hashes and --length: a class of `simulator`, such as "
        "PerforationReuse or KMeansReuse, or your own instance or class (executed).",
    ),
]
PolicySet = Annotated[
    list[str] | None,
    typer.Option(help="FIELD=VALUE, of the policy's fields; may be repeated."),
]
TechniqueNames = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[+NAME]|FILE.py:NAME",
        help="A technique in place of --hashes and --length, as `codesign techniques` lists them; "
        "several, each on what those before it leave.",
    ),
]
TechniqueSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="FIELD=VALUE of the technique, NAME.FIELD=VALUE of one of several; may be repeated.",
    ),
]


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, also with its default."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def with_options(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, which takes a dataclass first, an option for each of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    shared = [
        Parameter(
            option.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if option.default is MISSING else option.default,
            annotation=hints[option.name],
        )
        for option in fields(kind)
    ]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = signature(command, eval_str=True).parameters.values()
        offered = [*shared, *(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own)]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            options = kind(**{option.name: given.pop(option.name) for option in shared})
            command(options, **given)

        # Typer reads both
        run.__signature__ = Signature(offered)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in offered}
        return run

    return wrap
