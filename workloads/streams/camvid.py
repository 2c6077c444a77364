"""CamVid: street scenes with a class for every pixel."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import numpy as np

from workloads.streams.clips import IGNORED, ClipSet
from workloads.streams.drives import Frame, Labelling, nearest_labels, read_drives
from workloads.streams.image_set import Normalise, StreamError

CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""The 11 classes that SegNet (Badrinarayanan et al., 2015) groups CamVid's 32 into."""

CAMVID_SHAPE = (360, 480)
_UNLABELLED = len(CAMVID_CLASSES)
_IMAGES = (".png", ".jpg", ".jpeg")


def camvid(
    path: str | Path,
    *,
    length: int = 2,
    step: int | None = None,
    size: tuple[int, int] | None = (120, 160),
    limit: int | None = None,
    normalise: str | Normalise = "imagenet",
) -> ClipSet:
    """Read a folder of CamVid (Brostow, Fauqueur and Cipolla, 2009) with SegNet's 11 classes.

    It holds `images/` and `labels/`, where each image has a PNG of the same name whose pixels are
    class numbers, 11 for unlabelled. Names are DRIVE_NUMBER, as 0016E5_07959: a clip lies within
    one drive and holds no gap of more than 1.5 times the usual one between its numbers.

    Args:
        path: the folder.
        length: frames in a clip, >= 2.
        step: frames from one clip's start to the next's; `length` by default.
        size: (height, width) that frames (bilinear with antialiasing) and labels (nearest) are
            brought to; None keeps theirs, 360x480.
        limit: read at most so many frames, from the first on.
        normalise: see `workloads.streams.NORMALISATIONS`.

    Raises:
        StreamError: for missing or unreadable files, missing or unknown labels, differing sizes,
            and fewer consecutive frames than a clip has; names the file.
    """
    path = Path(path).expanduser()
    images = [file for file in (path / "images").glob("*") if file.suffix.lower() in _IMAGES]
    if not images:
        raise StreamError(
            f"{path} must hold CamVid's frames in images/ and their classes in labels/, found no "
            "image; give one of its folders, such as the training set's"
        )
    return read_drives(
        _drives(images, path / "labels"),
        Labelling(classes=CAMVID_CLASSES, decode=_classes, shrink=nearest_labels),
        length=length,
        step=step,
        size=size,
        limit=limit,
        normalise=normalise,
        source=f"CamVid {path.name}",
    )


def _drives(images: list[Path], labels: Path) -> list[list[Frame]]:
    """Frames in order, apart by drive and wherever a drive's numbering jumps."""
    drives: list[list[Frame]] = []
    images = sorted(images, key=lambda image: (_drive(image), _number(image)))
    for _, group in groupby(images, key=_drive):
        drive = list(group)
        gaps = np.diff([_number(image) for image in drive])
        drives.append([])
        for index, image in enumerate(drive):
            if index and gaps[index - 1] > 1.5 * np.median(gaps):
                drives.append([])
            drives[-1].append(Frame(image=image, label=labels / f"{image.stem}.png"))
    return drives


def _drive(image: Path) -> str:
    return image.stem.rpartition("_")[0]


def _number(image: Path) -> int:
    found = re.search(r"(\d+)$", image.stem)
    if not found:
        raise StreamError(f"{image} must be called DRIVE_NUMBER, as 0016E5_07959.png")
    return int(found[1])


def _classes(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.dtype != np.uint8:
        raise StreamError(
            f"labels must be one class number of 8 bits per pixel, got {array.dtype} of shape "
            f"{array.shape}; use SegNet's version of CamVid, not the coloured one"
        )
    return np.where(array == _UNLABELLED, IGNORED, array).astype(np.uint8)
