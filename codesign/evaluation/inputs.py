"""The inputs of a workload: those judged on, those calibrated on, and those held out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from workloads import cifar10, digits, video_frames
from workloads.reading import regular_file
from workloads.streams.arrays import ARRAY_SUFFIXES, array_inputs
from workloads.streams.camvid import CAMVID_SHAPE, camvid
from workloads.streams.cifar_archive import holds_both_splits
from workloads.streams.image_set import StreamError, TooFewError
from workloads.streams.picture_files import PICTURE_SUFFIXES
from workloads.streams.pictures import pictures
from workloads.streams.video import SAMPLE_VIDEOS

if TYPE_CHECKING:
    import torch

    from workloads.streams import Arrays, ImageSet

CIFAR10 = "cifar10:"
CAMVID = "camvid:"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Inputs to judge on, others to calibrate on, and what they are called.

    Attributes:
        judged: inputs judged on.
        calibration: inputs calibrated on, if any.
        name: of the inputs, in words.
        score: how labels judge answers, as a rule.
        held_out: inputs that no search sees, if any.
    """

    judged: ImageSet | Arrays
    calibration: ImageSet | Arrays | None
    name: str
    score: str = "accuracy"
    held_out: ImageSet | Arrays | None = None


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Which frames, pictures or arrays: the first, and how far one is from the next."""

    first: int
    every: int


def stream_of(
    model: str,
    network: torch.nn.Module,
    inputs: str,
    counts: Mapping[str, int],
    held_out_inputs: str | None,
) -> Stream:
    """Read the inputs.

    Args:
        model: its name.
        network: the model.
        inputs: where they come from, as for `load_workload`.
        counts: `images`, `calibration_images`, `held_out`, `first_frame` and `every` of
            `load_workload`.
        held_out_inputs: where those held out come from; `None`: they follow the judged ones.

    Raises:
        StreamError: there are no such inputs, or too few.
    """
    frames = Frames(first=counts["first_frame"], every=counts["every"])
    images, held_out = counts["images"], counts["held_out"]
    following = 0 if held_out_inputs else held_out
    calibration_images = counts["calibration_images"]
    stream = _stream(model, network, inputs, images + following, calibration_images, frames)
    if following:
        judged = stream.judged
        first, rest = _part(judged, 0, images), _part(judged, images, following)
        return replace(stream, judged=first, held_out=rest)
    if held_out and held_out_inputs:
        others = _stream(model, network, held_out_inputs, held_out, 0, frames)
        return replace(stream, held_out=others.judged)
    return stream


def _part(chosen: ImageSet | Arrays, start: int, count: int) -> ImageSet | Arrays:
    """Some in a row."""
    labels = None if chosen.labels is None else chosen.labels[start : start + count]
    return replace(chosen, images=chosen.images[start : start + count], labels=labels)


def _stream(
    model: str,
    network: torch.nn.Module,
    inputs: str,
    images: int,
    calibration_images: int,
    frames: Frames,
) -> Stream:
    """Read the inputs; the judged and the calibration images are different ones."""
    if inputs == "digits":
        return _split(lambda split, count: digits(split).take(count), images, calibration_images)
    if inputs.startswith(CIFAR10):
        path = Path(inputs.removeprefix(CIFAR10))
        return _cifar10(network, path, images, calibration_images)
    if inputs.startswith(CAMVID):
        path = Path(inputs.removeprefix(CAMVID))
        return _camvid(network, path, images, calibration_images, frames)
    return _in_order(_reader(model, network, inputs), inputs, images, calibration_images, frames)


def _normalise(network: torch.nn.Module, default: str) -> str:
    """The normalisation that a model asks for by an attribute, as those of `MODELS` do."""
    asked = getattr(network, "normalise", None)
    return asked if isinstance(asked, str) else default


def _split(
    read: Callable[[str, int], ImageSet],
    images: int,
    calibration_images: int,
    name: str = "scanned digits",
) -> Stream:
    """Judged images from the test split, calibration images from the training split."""
    return Stream(
        judged=read("test", images),
        calibration=read("train", calibration_images) if calibration_images else None,
        name=name,
    )


def _cifar10(network: torch.nn.Module, path: Path, images: int, calibration_images: int) -> Stream:
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
    return Stream(judged=everything.take(images), calibration=rest, name=name)


def _camvid(
    network: torch.nn.Module, path: Path, images: int, calibration_images: int, frames: Frames
) -> Stream:
    """Frames in order; those before the judged ones calibrate."""
    shape = getattr(network, "input_shape", (3, *CAMVID_SHAPE))
    count = images + calibration_images
    drive = camvid(
        path,
        step=1,
        size=(int(shape[-2]), int(shape[-1])),
        limit=max(2, frames.first + (count - 1) * frames.every + 1),
        normalise=_normalise(network, "imagenet"),
    )
    chosen = drive.images(count, start=frames.first, every=frames.every)
    return Stream(
        judged=_part(chosen, calibration_images, images),
        calibration=_part(chosen, 0, calibration_images) if calibration_images else None,
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
    reader: tuple[_Read, str], inputs: str, images: int, calibration_images: int, frames: Frames
) -> Stream:
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
    return Stream(
        judged=judged,
        calibration=(
            read(count=calibration_images, start=frames.first, every=frames.every)
            if calibration_images
            else None
        ),
        name=f"{name} of {Path(inputs).name}",
    )
