"""Lane marks: labelled sequences and frames, and driving video without labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from workloads.streams.clips import ClipSet
from workloads.streams.drives import Frame, Labelling, Size, read_drives, read_frames, thick_labels
from workloads.streams.image_set import ImageSet, Normalise, StreamError, normalisation
from workloads.streams.video import video_frames

LANE_CLASSES = ("other", "lane")


def tvtlane(
    path: str | Path,
    *,
    length: int = 5,
    size: Size | None = (128, 256),
    limit: int | None = None,
    normalise: str | Normalise = "imagenet",
) -> ClipSet:
    """Read the example sequences of TvtLane (Zou et al., IEEE TVT 2020).

    A sequence is 5 frames of which the last is labelled. They lie as in the authors' repository:
    image/SEQUENCE_FRAME.jpg, and truth/SEQUENCE_FRAME.jpg
    for each sequence's last frame, brighter than 127 where a lane is. Every other frame's labels
    are `IGNORED`.

    Args:
        path: the folder.
        length: frames in a clip, the last of each sequence, so that each clip ends with labels.
        size: (height, width); frames bilinear with antialiasing, lanes as wide as any pixel of
            theirs; None keeps theirs, 128x256.
        limit: read at most so many frames.
        normalise: see `workloads.streams.NORMALISATIONS`.

    Raises:
        StreamError: for missing or unreadable files, a sequence whose last frame has no label,
            sequences shorter than a clip, and differing sizes; names the file.
    """
    path = Path(path).expanduser()
    sequences: dict[int, dict[int, Path]] = {}
    for image in (path / "image").glob("*.jpg"):
        if not (found := re.fullmatch(r"(\d+)_(\d+)", image.stem)):
            raise StreamError(f"{image} must be called SEQUENCE_FRAME.jpg, as 1_13.jpg")
        sequences.setdefault(int(found[1]), {})[int(found[2])] = image
    if not sequences:
        raise StreamError(
            f"{path} must hold TvtLane's frames in image/ and their lanes in truth/, found no image"
        )
    drives = []
    for _, numbered in sorted(sequences.items()):
        frames = [numbered[number] for number in sorted(numbered)][-max(length, 1) :]
        truth = path / "truth" / frames[-1].name
        drives.append(
            [
                *(Frame(image=image, label=None) for image in frames[:-1]),
                Frame(image=frames[-1], label=truth),
            ]
        )
    return read_drives(
        drives,
        _MASKS,
        length=length,
        step=None,
        size=size,
        limit=limit,
        normalise=normalise,
        source=f"TvtLane {path.name}",
    )


def lane_frames(
    path: str | Path,
    *,
    size: Size = (128, 256),
    normalise: str | Normalise = "imagenet",
) -> ImageSet:
    """Read single frames with lane masks, in the layout of LaneNet's TuSimple examples.

    image/NAME.jpg and gt_binary_image/NAME.png, brighter than 127 where a lane is.

    Args:
        path: the folder.
        size: as for `tvtlane`.
        normalise: see `workloads.streams.NORMALISATIONS`.

    Raises:
        StreamError: for missing or unreadable files and differing sizes; names the file.
    """
    path = Path(path).expanduser()
    images = sorted((path / "image").glob("*.jpg"))
    if not images:
        raise StreamError(
            f"{path} must hold frames in image/ and their lanes in gt_binary_image/, found no image"
        )
    frames = [
        Frame(image=image, label=path / "gt_binary_image" / f"{image.stem}.png") for image in images
    ]
    pixels, labels = read_frames(frames, _MASKS, size=size)
    return ImageSet(
        images=normalisation(normalise)(pixels.float()).contiguous(),
        labels=labels.long(),
        classes=LANE_CLASSES,
        source=f"lane frames {path.name}",
    )


def video_clips(
    source: str | Path,
    *,
    length: int,
    count: int,
    size: Size,
    start: int = 0,
    every: int = 1,
    crop: bool = True,
    normalise: str | Normalise = "imagenet",
) -> ClipSet:
    """Cut a video into clips without labels.

    Args:
        source, size, start, every, crop: see `video_frames`.
        length: frames in a clip, >= 2.
        count: frames to read; what does not fill a clip is left out.
        normalise: see `workloads.streams.NORMALISATIONS`.

    Raises:
        StreamError: as `video_frames`, and for fewer frames than a clip has.
    """
    frames = video_frames(
        source,
        size=size,
        count=count,
        start=start,
        every=every,
        crop=crop,
        normalise=lambda pixels: pixels,
    )
    return ClipSet(
        pixels=frames.images.round().to(torch.uint8),
        starts=range(0, count - length + 1, max(length, 1)),
        length=length,
        normalise=normalise,
        source=frames.source,
    )


def _lanes(array: np.ndarray) -> np.ndarray:
    """1 where a mask is bright; masks kept as JPEG are not exactly 0 and 255."""
    if array.ndim != 2:
        raise StreamError(f"lane masks must be grey, got an array of shape {array.shape}")
    return (array > 127).astype(np.uint8)


_MASKS = Labelling(classes=LANE_CLASSES, decode=_lanes, shrink=thick_labels)
