"""ApolloScape: street scenes with a class, and with the lane mark, of every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workloads.streams.clips import ClipSet
from workloads.streams.drives import (
    Frame,
    Labelling,
    Size,
    nearest_labels,
    read_drives,
    thick_labels,
)
from workloads.streams.image_set import Normalise, StreamError
from workloads.streams.lanes import LANE_CLASSES
from workloads.traces.scores import IGNORED

_SCENE_IDS = {
    "sky": 17,
    "car": 33,
    "motorcycle": 34,
    "bicycle": 35,
    "person": 36,
    "rider": 37,
    "truck": 38,
    "bus": 39,
    "tricycle": 40,
    "road": 49,
    "sidewalk": 50,
    "traffic cone": 65,
    "road pile": 66,
    "fence": 67,
    "traffic light": 81,
    "pole": 82,
    "traffic sign": 83,
    "wall": 84,
    "dustbin": 85,
    "billboard": 86,
    "building": 97,
    "vegetation": 113,
}
APOLLOSCAPE_CLASSES = tuple(_SCENE_IDS)
"""The 22 classes that ApolloScape's benchmark scores (Huang et al., TPAMI 2019, table 3)."""

# Others, the own car, bridge, tunnel, overpass and unlabelled: left out by the benchmark.
_UNSCORED_IDS = (0, 1, 98, 99, 100, 255)
_GROUP = 128  # added to the number of what moves (33 to 40) where several can't be told apart
_UNKNOWN = 254

# Colours of a lane label that are no mark, and of those that the benchmark leaves out.
_NO_MARK = (0, 0, 0)
_UNSCORED_MARKS = ((0, 153, 153), (255, 255, 255))


def apolloscape_scenes(
    path: str | Path,
    *,
    length: int = 2,
    step: int | None = None,
    size: Size | None = (128, 160),
    limit: int | None = None,
    normalise: str | Normalise = "imagenet",
) -> ClipSet:
    """Read ApolloScape's scene parsing from a folder in its published layout.

    Frames are ROAD/ColorImage/RECORD/CAMERA/TIME_CAMERA.jpg and their labels
    ROAD/Label/RECORD/CAMERA/TIME_CAMERA_bin.png, with the class's number in each pixel. One camera
    of one record is a drive. Groups count as what they are groups of.

    Args:
        path: any folder above ColorImage.
        length, step, size, limit, normalise: as for `camvid`; the published frames have 2710x3384
            pixels.

    Raises:
        StreamError: as `camvid`.
    """
    return _read(
        path,
        Labelling(classes=APOLLOSCAPE_CLASSES, decode=_scene_classes, shrink=nearest_labels),
        length=length,
        step=step,
        size=size,
        limit=limit,
        normalise=normalise,
        task="scenes",
    )


def apolloscape_lanes(
    path: str | Path,
    *,
    length: int = 2,
    step: int | None = None,
    size: Size | None = (128, 160),
    limit: int | None = None,
    normalise: str | Normalise = "imagenet",
) -> ClipSet:
    """Read ApolloScape's lane marks from a folder in its published layout.

    Frames are ColorImage_ROAD/ColorImage/RECORD/CAMERA/TIME_CAMERA.jpg and their labels
    Labels_ROAD/Label/RECORD/CAMERA/TIME_CAMERA_bin.png, with a colour for each of 35 kinds of mark.
    Every kind counts as lane here, which makes it the two-class task that an F1 scores.

    Args:
        path: the folder that holds ColorImage_ROAD and Labels_ROAD, of one road or several.
        length, step, size, limit, normalise: as for `apolloscape_scenes`.

    Raises:
        StreamError: as `camvid`.
    """
    return _read(
        path,
        Labelling(classes=LANE_CLASSES, decode=_lane_classes, shrink=thick_labels),
        length=length,
        step=step,
        size=size,
        limit=limit,
        normalise=normalise,
        task="lanes",
    )


def _read(
    path: str | Path,
    labelling: Labelling,
    *,
    length: int,
    step: int | None,
    size: Size | None,
    limit: int | None,
    normalise: str | Normalise,
    task: str,
) -> ClipSet:
    path = Path(path).expanduser()
    drives: dict[Path, list[Frame]] = {}
    for image in sorted(path.rglob("ColorImage/*/*/*.jpg")):
        drives.setdefault(image.parent, []).append(Frame(image=image, label=_label_of(image, path)))
    if not drives:
        raise StreamError(
            f"{path} must hold ApolloScape's frames as ColorImage/RECORD/CAMERA/*.jpg, found none; "
            "give the folder that its archives were unpacked in"
        )
    return read_drives(
        list(drives.values()),
        labelling,
        length=length,
        step=step,
        size=size,
        limit=limit,
        normalise=normalise,
        source=f"ApolloScape {task} {path.name}",
    )


def _label_of(image: Path, root: Path) -> Path:
    """Where the labels of an image lie: in folders called Label instead of ColorImage."""
    parts = [
        "Label" if part == "ColorImage" else part.replace("ColorImage_", "Labels_")
        for part in image.parent.relative_to(root).parts
    ]
    return root.joinpath(*parts, f"{image.stem}_bin.png")


def _scene_table() -> np.ndarray:
    """`(256,)` uint8: the label of each number that a scene's pixel may hold."""
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[list(_UNSCORED_IDS)] = IGNORED
    for label, number in enumerate(_SCENE_IDS.values()):
        table[number] = label
        if 33 <= number <= 40:
            table[number + _GROUP] = label
    return table


_SCENE_TABLE = _scene_table()


def _scene_classes(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.dtype != np.uint8:
        raise StreamError(
            f"scene labels must be one number of 8 bits per pixel, got {array.dtype} of shape "
            f"{array.shape}; use the files ending in _bin.png"
        )
    labels = _SCENE_TABLE[array]
    unknown = np.unique(array[labels == _UNKNOWN])
    if unknown.size:
        raise StreamError(
            f"scene labels must be numbers of ApolloScape's classes, got {unknown[0]}; it may "
            "belong to another data set"
        )
    return labels


def _lane_classes(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3:
        raise StreamError(
            f"lane labels must be coloured, got an array of shape {array.shape}; use the files of "
            "Labels_ROAD"
        )
    labels = (array != _NO_MARK).any(axis=2).astype(np.uint8)
    for colour in _UNSCORED_MARKS:
        labels[(array == colour).all(axis=2)] = IGNORED
    return labels
