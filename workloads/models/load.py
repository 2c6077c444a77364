"""Finding a model by name, module or file."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workloads.models.alexnet import AlexNet
from workloads.models.boosting import boosted_resnet20
from workloads.models.cifarnet import CifarNet
from workloads.models.efficientnet_lite import efficientnet_lite0
from workloads.models.errors import ModelError
from workloads.models.espnet import ESPNet
from workloads.models.mobilenet import MobileNetV2
from workloads.models.modes import switch_mode
from workloads.models.octconv import OctaveResNet20
from workloads.models.psanet import PSANet, PSANet50
from workloads.models.quantised_weights import holds_grids, load_quantised
from workloads.models.resnest import ResNeSt50, ResNeStSegmenter
from workloads.models.resnet import ResNet18, ResNet50
from workloads.models.resnet38 import ResNet38
from workloads.models.resnet_cifar import ResNet20, ResNet56
from workloads.models.resnet_segmenter import (
    ResNet18Segmenter,
    resnet18_camvid,
    resnet18_camvid_reuse,
    resnet18_w64_camvid,
)
from workloads.models.squeezenet import SqueezeNet10, SqueezeNet11
from workloads.models.twinlitenet import TwinLiteNet
from workloads.models.vgg import VGG19, vgg16_cifar10
from workloads.models.weights import load_weights, note_weights, weights_source
from workloads.user_files import UserFileError, is_located, named_in


def _of_transformers(
    name: str, module_name: str = "vision_transformers", **fixed: Any
) -> Callable[..., nn.Module]:
    """A model of a module that imports `transformers`, which takes seconds."""

    def build(**arguments: Any) -> nn.Module:
        try:
            module = importlib.import_module(f"workloads.models.{module_name}")
        except ImportError as error:
            raise ModelError(
                f"{name} needs the optional package transformers, which can't be imported "
                f"({error}); run: pip install 'similarity-codesign[transformers]'"
            ) from error
        model: nn.Module = getattr(module, name)(**fixed | arguments)
        return model

    return build


# For lanes a segmenter tells two classes apart, in frames of TvtLane's size.
_LANES: dict[str, Any] = {"num_classes": 2, "input_size": (128, 256)}

MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "cifarnet": CifarNet,
    "efficientnet_lite0": efficientnet_lite0,
    "espnet": ESPNet,
    "mobilenet_v2": MobileNetV2,
    "octave_resnet20": OctaveResNet20,
    "octave_resnet20_a125": partial(OctaveResNet20, 0.125),
    "octave_resnet20_a25": partial(OctaveResNet20, 0.25),
    "octave_resnet20_a75": partial(OctaveResNet20, 0.75),
    "psanet50": PSANet50,
    "psanet_scenes": PSANet,
    "resnest50": ResNeSt50,
    "resnest_lanes": partial(ResNeStSegmenter, **_LANES),
    "resnet18": ResNet18,
    "resnet18_camvid": resnet18_camvid,
    "resnet18_camvid_reuse": resnet18_camvid_reuse,
    "resnet18_lanes": partial(ResNet18Segmenter, **_LANES),
    "resnet18_scenes": ResNet18Segmenter,
    "resnet18_w64_camvid": resnet18_w64_camvid,
    "resnet20": ResNet20,
    "resnet20_boosted": boosted_resnet20,
    "resnet38": ResNet38,
    "resnet38_scenes": partial(ResNet38, width=4, input_size=(120, 160)),
    "resnet50": ResNet50,
    "resnet56": ResNet56,
    "squeezenet1_0": SqueezeNet10,
    "squeezenet1_1": SqueezeNet11,
    "swin_lanes": _of_transformers("SwinSegmenter", "swin_segmenter", **_LANES),
    "swin_scenes": _of_transformers("SwinSegmenter", "swin_segmenter"),
    "swin_t": _of_transformers("SwinT"),
    "twinlitenet": TwinLiteNet,
    "vgg16_cifar10": vgg16_cifar10,
    "vgg19": VGG19,
    "vit_b_16": _of_transformers("ViTB16"),
    "vit_s_16": _of_transformers("ViTS16"),
}
"""Models known by name."""

# Those whose constructor loads weights unless told `pretrained=False`.
_WITH_WEIGHTS = (
    *("efficientnet_lite0", "vgg16_cifar10"),
    *("resnet18_camvid", "resnet18_camvid_reuse", "resnet18_w64_camvid"),
)


def load(
    name: str, weights: str | Path | None = None, *, seed: int = 0, **arguments: Any
) -> nn.Module:
    """Build a model and load its weights; the model comes in eval mode.

    A module or file given by the user is imported, that is, executed; weights are only read.

    Args:
        name: a key of `MODELS`, 'package.module:Class' or 'path/to/file.py:Class', where Class
            may be any callable that returns a module.
        weights: a file that `load_weights` reads: `.safetensors` or `.safetensors.gz`, or PyTorch's
            `.pth`, `.pt`, `.th`, `.bin` or `.ckpt`, with torchvision's or timm's names (see each
            model), alone or in a checkpoint. None keeps what the constructor sets: ImageNet weights
            for 'efficientnet_lite0', CamVid weights for 'resnet18_camvid', 'resnet18_camvid_reuse'
            and 'resnet18_w64_camvid', CIFAR-10 weights for 'vgg16_cifar10', random ones for the
            other names, which `weights_source` then tells. Weights of a quantised model come with
            its grids: the model is then as `workloads.quantise` makes it.
        seed: of PyTorch's generators while the model is built, so that weights the constructor
            draws are the same each time; the generators are left as they were.
        **arguments: passed to the constructor.

    Raises:
        ModelError: for unknown names, failing imports or constructors, and weights that don't fit.
    """
    if weights is not None and name in _WITH_WEIGHTS:
        arguments.setdefault("pretrained", False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _built(name, arguments)
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r} must build a torch.nn.Module, got {type(model).__name__}")
    if weights is not None:
        model = _with_weights(model, weights)
    elif weights_source(model) is None:
        drawn = "random weights" if name in MODELS else f"as {name} sets them"
        note_weights(model, f"{drawn}, seed {seed}")
    switch_mode(model, training=False)
    return model


def _with_weights(model: nn.Module, weights: str | Path) -> nn.Module:
    """The model with weights in floating point, or a copy with those on grids."""
    if holds_grids(weights):
        return load_quantised(model, weights)
    load_weights(model, weights)
    return model


def _built(name: str, arguments: Mapping[str, Any]) -> Any:
    build = _constructor(name)
    try:
        return build(**arguments)
    except ModelError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"model {name!r} can't be built with arguments {dict(arguments)} "
            f"({type(error).__name__}: {error}); check its constructor and that it takes these "
            "arguments by keyword"
        ) from error


def _constructor(name: str) -> Callable[..., Any]:
    if name in MODELS:
        return MODELS[name]
    if not is_located(name):
        nearest = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ModelError(
            f"model must be one of {', '.join(MODELS)}, 'package.module:Class' or "
            f"'path/to/file.py:Class', got {name!r}{hint}"
        )
    try:
        found = named_in(name, "model")
    except UserFileError as error:
        raise ModelError(str(error)) from error
    if not callable(found):
        raise ModelError(f"{name} must be a class or function, got {type(found).__name__}")
    return found
