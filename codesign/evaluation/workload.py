"""What is optimised: a captured workload, and what is needed to know its accuracy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerators import ConfigError
from codesign.evaluation.threads import single_thread
from codesign.space.checks import among, integer_problems
from codesign.space.lookup import find_score, loaded_model
from simulator.results.weights import headline_name
from workloads import (
    TraceError,
    capture,
    cifar10,
    digits,
    models,
    quantise,
    video_frames,
)
from workloads.capturing.capture import LabelsError
from workloads.errors import show
from workloads.models.integer_grid import is_quantised
from workloads.models.weights import dtype_of
from workloads.reading import regular_file
from workloads.streams.arrays import ARRAY_SUFFIXES, array_inputs
from workloads.streams.camvid import CAMVID_SHAPE, camvid
from workloads.streams.cifar_archive import holds_both_splits
from workloads.streams.image_set import StreamError, TooFewError
from workloads.streams.picture_files import PICTURE_SUFFIXES
from workloads.streams.pictures import pictures
from workloads.streams.video import SAMPLE_VIDEOS
from workloads.traces.judged import NO_CLASSES
from workloads.traces.scores import NamedScore
from workloads.traces.trace import WorkloadTrace

if TYPE_CHECKING:
    import numpy as np
    import torch

    from workloads.streams import Arrays, ImageSet

CIFAR10 = "cifar10:"
CAMVID = "camvid:"
PRECISIONS = ("float32", "int8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """A trace to judge designs on.

    Attributes:
        trace: the inputs judged on.
        model: the captured model. `None`: decisions are made on the recorded activations, and the
            accuracy is not known.
        calibration: the same model on other inputs, from which hashing takes its thresholds;
            `None` takes them from the trace itself.
        held_out: the same model on inputs that no search sees, which judge its front at the end.
        calibrate_under_reuse: hashing learns of each layer under the reuse of the layers before it,
            anew for each setting, as a model that was trained under reuse needs it. A nested
            search tries a layer alone, with no reuse before it: there it changes nothing.
        name: in words, such as "CifarNet on 100 scanned digits".
    """

    trace: WorkloadTrace
    model: torch.nn.Module | None = None
    calibration: WorkloadTrace | None = None
    held_out: WorkloadTrace | None = None
    calibrate_under_reuse: bool = False
    name: str

    def __post_init__(self) -> None:
        if self.calibrate_under_reuse and self.model is None:
            raise ConfigError(
                "Workload.model must be given with calibrate_under_reuse, got none; give the "
                "captured model, or calibrate on the recorded activations"
            )


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """Images to judge on, others to calibrate on, and what they are called."""

    judged: ImageSet | Arrays
    calibration: ImageSet | Arrays | None
    name: str
    score: str = "accuracy"


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """Which frames, pictures or arrays: the first, and how far one is from the next."""

    first: int
    every: int


def load_workload(
    *,
    model: str,
    inputs: str,
    images: int,
    weights: str | Path | None = None,
    calibration_images: int = 50,
    calibrate_under_reuse: bool = False,
    precision: str = "float32",
    seed: int = 0,
    first_frame: int = 0,
    every: int = 1,
    output: str | None = None,
    classes_dimension: str | int | None = None,
    score: str | None = None,
    held_out: int = 0,
    held_out_inputs: str | None = None,
) -> Workload:
    """Build a model, read its inputs and capture both.

    Args:
        model: a key of `workloads.models.MODELS`, "package.module:Class" or "file.py:Class".
        inputs: "digits" (labelled), "cifar10:PATH" (labelled), "camvid:FOLDER" (a class per pixel,
            scored by mean IoU), a sample video ("bikes", "bigbuckbunny", "carphone"), or the path
            of a video, of a folder of pictures in order of name, or of a `.npy`, `.npz` or
            `.safetensors` file of what the model takes (see `workloads.streams.array_inputs`).
            Frames and pictures are cut and resized to the model's `input_shape`; without one,
            frames to 224x224, while pictures keep their size.
        images: how many to judge on, at least 1.
        weights: a file that `workloads.models.load` reads. Without it CifarNet is trained on the
            scanned digits (and kept in the user's cache), EfficientNet-Lite0 has its ImageNet
            weights, and other models have what their constructor sets: random weights.
        calibration_images: how many more to calibrate on; 0 calibrates on the judged ones. Digits
            and CIFAR-10 take them from the training split; the others from what comes before.
        calibrate_under_reuse: see `Workload`; for weights that were trained under reuse.
        precision: "float32", the model's own, or "int8": quantised after training, with ranges from
            the calibration images. Weights that were trained on 8-bit grids bring their own.
        seed: of the training of CifarNet, of the weights that other models draw, and of the random
            numbers that a model draws as it runs; kept in the trace's provenance.
        first_frame: of a video, the first frame taken; of a folder or an array, the first picture.
        every: the distance between two frames or pictures taken; 1 takes consecutive ones.
        output: which of several outputs is judged, see `capture`.
        classes_dimension: along which its classes lie, see `capture`; a number may be a text.
        score: how labels judge answers, in place of the usual score of the inputs: a key of
            `workloads.traces.scores.SCORES`, "file.py:FUNCTION" or "package.module:FUNCTION"
            (executed).
        held_out: how many more to judge designs on at the end of a search: those that follow.
        held_out_inputs: where to take these from instead.

    Raises:
        ConfigError: the model and the inputs do not go together.
        StreamError, ModelError, TraceError: what was asked for cannot be read or captured.
    """
    counts = {"images": images, "calibration_images": calibration_images, "seed": seed}
    counts |= {"first_frame": first_frame, "every": every, "held_out": held_out}
    problems = _problems(model, inputs, weights, precision, counts)
    dimension = _dimension(classes_dimension, problems)
    if problems:
        raise ConfigError(problems)
    judged_by = None if score is None else find_score(score)
    network = loaded_model(model, weights, seed=seed)
    frames = _Frames(first=first_frame, every=every)
    following = 0 if held_out_inputs else held_out
    stream = _stream(model, network, inputs, images + following, calibration_images, frames)
    judged, others = stream.judged, None
    if following:
        judged, others = _part(judged, 0, images), _part(judged, images, following)
    elif held_out and held_out_inputs:
        others = _stream(model, network, held_out_inputs, held_out, 0, frames).judged
    if precision == "int8" and not is_quantised(network):
        assert stream.calibration is not None
        with _running(model, inputs, stream.calibration):
            network = quantise(network, stream.calibration.images)

    def captured(chosen: ImageSet | Arrays) -> WorkloadTrace:
        settings = {"output": output, "classes_dimension": dimension, "seed": seed}
        by = judged_by or stream.score
        return _captured(network, chosen, model, inputs, by, settings, usual=score is None)

    return Workload(
        trace=captured(judged),
        model=network,
        calibration=captured(stream.calibration) if stream.calibration else None,
        held_out=captured(others) if others is not None else None,
        calibrate_under_reuse=calibrate_under_reuse,
        name=f"{_called(network)} on {images} {stream.name}",
    )


def _part(chosen: ImageSet | Arrays, start: int, count: int) -> ImageSet | Arrays:
    """Some in a row."""
    labels = None if chosen.labels is None else chosen.labels[start : start + count]
    return replace(chosen, images=chosen.images[start : start + count], labels=labels)


def _captured(
    network: torch.nn.Module,
    chosen: ImageSet | Arrays,
    model: str,
    inputs: str,
    score: str | NamedScore,
    settings: Mapping[str, Any],
    *,
    usual: bool,
) -> WorkloadTrace:
    """The network's trace on some inputs; labels judge it as they usually do unless it is told."""
    usual &= settings["classes_dimension"] is None
    images = chosen.images
    if images.is_floating_point():  # token ids stay whole numbers
        images = images.to(dtype_of(network))
    with _running(model, inputs, chosen), _answering(model, inputs, chosen, usual=usual):
        trace = capture(
            network,
            images,
            labels=chosen.labels,
            score=score,
            source=chosen.source,
            **settings,
        )
    if usual and trace.outputs is not None:
        _check_answers(model, inputs, trace.labels, trace.outputs.shape)
    return trace


def _problems(
    model: str, inputs: str, weights: str | Path | None, precision: str, counts: Mapping[str, int]
) -> list[str]:
    """Rules over what a workload is made of."""
    least = {"calibration_images": 0, "first_frame": 0, "seed": 0, "held_out": 0}
    problems = integer_problems("", counts, least)
    problems += among(PRECISIONS)["rule"](precision, "precision")
    if precision == "int8" and counts["calibration_images"] == 0:
        problems.append(
            "calibration_images must be at least 1 for precision='int8', got 0; use the default"
        )
    problems += _combination_problems(model, inputs, weights)
    first, every = counts["first_frame"], counts["every"]
    if (first, every) != (0, 1) and inputs.startswith(("digits", CIFAR10, CAMVID)):
        problems.append(
            f"first_frame and every must be 0 and 1 for inputs={inputs!r}, got {first!r} and "
            f"{every!r}; they choose frames of a video or pictures"
        )
    return problems


def _dimension(given: str | int | None, problems: list[str]) -> str | int | None:
    """A dimension of classes, also as a command line or a study file writes it."""
    if isinstance(given, str) and re.fullmatch(r"-?\d{1,3}", given):
        return int(given)
    whole = isinstance(given, int) and not isinstance(given, bool)
    if given is not None and given != NO_CLASSES and not whole:
        problems.append(
            f"classes_dimension must be a whole number or {NO_CLASSES!r}, got {show(given)}; use "
            "-1 for the last dimension"
        )
    return given


@contextmanager
def _answering(
    model: str, inputs: str, chosen: ImageSet | Arrays, *, usual: bool
) -> Iterator[None]:
    """Labels that don't fit the answers are told with the inputs that they come with."""
    try:
        yield
    except LabelsError as error:
        if usual:
            _check_answers(model, inputs, chosen.labels, error.outputs)
        raise


def _check_answers(
    model: str, inputs: str, labels: np.ndarray | torch.Tensor | None, outputs: tuple[int, ...]
) -> None:
    """Labels of pixels want an answer for each pixel."""
    if labels is None or labels.ndim == 1:
        return
    if len(outputs) != 4 or (outputs[0], *outputs[2:]) != tuple(labels.shape):
        raise ConfigError(
            f"model {model!r} must answer {inputs!r} with logits of shape (images, classes, "
            f"{labels.shape[1]}, {labels.shape[2]}), got {outputs}; use one that gives every "
            "pixel a class, such as 'resnet18_scenes'"
        )


@contextmanager
def _running(model: str, inputs: str, chosen: ImageSet | Arrays) -> Iterator[None]:
    """Run the network on one thread; what its code raises becomes one error."""
    try:
        with single_thread():
            yield
    except (models.ModelError, TraceError, ConfigError, OSError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise models.ModelError(
            f"model {model!r} must run on inputs {inputs!r} of shape "
            f"{tuple(chosen.images.shape)}, got {type(error).__name__}: {error}; give inputs "
            "of its shape, or check its code"
        ) from error


def _called(network: torch.nn.Module) -> str:
    """A model's name; weights that are or may be random are always told."""
    weights = models.weights_source(network)
    return headline_name({"model": f".{type(network).__name__}", "weights": weights})


def _normalise(network: torch.nn.Module, default: str) -> str:
    """The normalisation that a model asks for by an attribute, as those of `MODELS` do."""
    asked = getattr(network, "normalise", None)
    return asked if isinstance(asked, str) else default


def _combination_problems(model: str, inputs: str, weights: str | Path | None) -> list[str]:
    """Rules over model and inputs together."""
    if model == "cifarnet" and inputs.startswith(CIFAR10) and weights is None:
        return [
            f"weights must be given for model='cifarnet' with inputs={inputs!r}, got none; train "
            f"them: python -m workloads.training --dataset cifar10 "
            f"--archive {inputs.removeprefix(CIFAR10)} --out FILE.safetensors"
        ]
    if model == "efficientnet_lite0" and (inputs == "digits" or inputs.startswith(CIFAR10)):
        return [
            f"inputs must be 224x224 images for model='efficientnet_lite0', got {inputs!r}; use "
            "'bikes' or the path of a video"
        ]
    return []


def _stream(
    model: str,
    network: torch.nn.Module,
    inputs: str,
    images: int,
    calibration_images: int,
    frames: _Frames,
) -> _Stream:
    """Read the inputs; the judged and the calibration images are different ones."""
    if inputs == "digits":
        return _split(lambda split, count: digits(split).take(count), images, calibration_images)
    if inputs.startswith(CIFAR10):
        path = Path(inputs.removeprefix(CIFAR10))
        return _cifar10(network, path, images, calibration_images)
    if inputs.startswith(CAMVID):
        path = Path(inputs.removeprefix(CAMVID))
        return _camvid(network, path, images, calibration_images)
    return _in_order(_reader(model, network, inputs), inputs, images, calibration_images, frames)


def _split(
    read: Callable[[str, int], ImageSet],
    images: int,
    calibration_images: int,
    name: str = "scanned digits",
) -> _Stream:
    """Judged images from the test split, calibration images from the training split."""
    return _Stream(
        judged=read("test", images),
        calibration=read("train", calibration_images) if calibration_images else None,
        name=name,
    )


def _cifar10(network: torch.nn.Module, path: Path, images: int, calibration_images: int) -> _Stream:
    name = "CIFAR-10 images"
    normalise = _normalise(network, "standardised")
    if holds_both_splits(path):
        return _split(
            lambda split, count: cifar10(path, split, limit=count, normalise=normalise),
            images,
            calibration_images,
            name,
        )
    everything = cifar10(path, "test", limit=images + calibration_images, normalise=normalise)
    rest = everything.batch(images, calibration_images) if calibration_images else None
    return _Stream(judged=everything.take(images), calibration=rest, name=name)


def _camvid(network: torch.nn.Module, path: Path, images: int, calibration_images: int) -> _Stream:
    """Consecutive frames; those before the judged ones calibrate."""
    shape = getattr(network, "input_shape", (3, *CAMVID_SHAPE))
    frames = camvid(
        path,
        step=1,
        size=(int(shape[-2]), int(shape[-1])),
        limit=max(2, images + calibration_images),
        normalise=_normalise(network, "imagenet"),
    )
    return _Stream(
        judged=frames.images(images, start=calibration_images),
        calibration=frames.images(calibration_images) if calibration_images else None,
        name="CamVid frames",
        score="miou",
    )


_Read = Callable[..., "ImageSet | Arrays"]  # of count, start and every
_ALSO = (
    " (a video, a picture, .npy, .npz, .safetensors) or folder of pictures, or digits, "
    f"cifar10:ARCHIVE, camvid:FOLDER, {', '.join(SAMPLE_VIDEOS)}"
)
_ANY_TENSOR = "in Python, workloads.capture(model, tensor) takes any tensor"


def _reader(model: str, network: torch.nn.Module, inputs: str) -> tuple[_Read, str]:
    """What reads frames, pictures or arrays, and what they are called."""
    path = Path(inputs)
    shape = getattr(network, "input_shape", None)
    size = None if shape is None else (int(shape[-2]), int(shape[-1]))
    # CifarNet was trained on inputs of -1 to 1, as "signed" makes them.
    normalise = "signed" if model == "cifarnet" else _normalise(network, "efficientnet_lite")
    if inputs not in SAMPLE_VIDEOS:
        if not os.path.isdir(os.path.expanduser(inputs)):
            path = regular_file(inputs, "inputs", StreamError, also=_ALSO, fix=_ANY_TENSOR)
        if path.suffix.lower() in ARRAY_SUFFIXES:
            return partial(array_inputs, path), "arrays"
        if not path.is_file() or path.suffix.lower() in PICTURE_SUFFIXES:
            return partial(pictures, path, size=size, normalise=normalise), "pictures"
    size = size or (224, 224)
    return partial(video_frames, inputs, size=size, normalise=normalise), "frames"


def _in_order(
    reader: tuple[_Read, str], inputs: str, images: int, calibration_images: int, frames: _Frames
) -> _Stream:
    """Inputs in their order; those before the judged ones calibrate."""
    read, name = reader
    first = frames.first + calibration_images * frames.every
    try:
        judged = read(count=images, start=first, every=frames.every)
    except TooFewError as error:
        if not calibration_images:
            raise
        raise StreamError(
            f"{error} (the first {calibration_images} calibrate, so that they are not judged on; "
            "in Python, load_workload takes fewer by calibration_images)"
        ) from error
    return _Stream(
        judged=judged,
        calibration=(
            read(count=calibration_images, start=frames.first, every=frames.every)
            if calibration_images
            else None
        ),
        name=f"{name} of {Path(inputs).name}",
    )
