"""A folder of pictures, or a single one, as inputs of a model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from workloads.errors import plain, show
from workloads.streams.image_set import (
    ImageSet,
    Normalise,
    StreamError,
    TooFewError,
    normalisation,
    taken_from,
)
from workloads.streams.picture_files import PICTURE_SUFFIXES, picture
from workloads.streams.video import check_request, resized


def pictures(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    count: int,
    every: int = 1,
    start: int = 0,
    normalise: str | Normalise = "imagenet",
) -> ImageSet:
    """Return `count` pictures of a folder in order of name: start, start + every, ...

    Numbers in names count as numbers: 9.png comes before 10.png. Pictures are those files of the
    folder itself, not of folders inside, that end as one of `PICTURE_SUFFIXES`. They are turned as
    their camera noted and read as RGB.

    Args:
        path: the folder, or one picture.
        size: (height, width) in pixels; pictures are cut centrally to its proportions and resized
            as frames of a video are. None keeps theirs, which must not differ.
        count: number of pictures, >= 1.
        every: distance between two taken, >= 1.
        start: index of the first one taken, >= 0.
        normalise: a key of `NORMALISATIONS` or a function on pixels 0..255.

    Returns:
        `(count, 3, height, width)` images without labels.

    Raises:
        StreamError: for no or too few pictures, what can't be decoded or has more than 8 bits, and
            differing sizes; names the file.
    """
    to_input = normalisation(normalise)
    check_request("pictures", size=size, count=count, every=every, start=start)
    path = Path(path).expanduser()
    files = _files(path)
    last = start + (count - 1) * every
    if last >= len(files):
        raise TooFewError(
            f"{path} holds {len(files)} pictures: too few for {show(count)}"
            f"{taken_from(start, every)}; take fewer, or add pictures"
        )
    decoded: list[torch.Tensor] = []
    for file in files[start : last + 1 : every]:
        pixels = resized(_pixels(file), size, crop=True)
        if decoded and pixels.shape != decoded[0].shape:
            (_, height, width), first = pixels.shape, decoded[0].shape
            raise StreamError(
                f"{file} must have the size of the pictures before, {first[1]}x{first[2]}, got "
                f"{height}x{width}; make them equal, or give the model an attribute input_shape = "
                "(3, height, width) to which they are resized"
            )
        decoded.append(pixels)
    return ImageSet(
        images=to_input(torch.stack(decoded)).contiguous(),
        source=f"{path.name} (pictures from {start}, every {every})",
    )


def _pixels(file: Path) -> np.ndarray:
    return picture(file, str(file), mode="RGB", upright=True)


def _files(path: Path) -> list[Path]:
    """The pictures in their order."""
    if path.is_file():
        return [path]
    try:
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise StreamError(f"{path} must be a readable folder, got {error.strerror}") from error
    found = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    if not found:
        inside = ", ".join(plain(name, 40) for name in sorted(names)[:5]) or "nothing"
        raise StreamError(
            f"{path} must hold pictures ({', '.join(PICTURE_SUFFIXES)}), got {inside}; pictures of "
            "CIFAR-10 in folders of its classes are read as cifar10:FOLDER, CamVid's as "
            "camvid:FOLDER; of other folders give one"
        )
    return [path / name for name in sorted(found, key=_in_order)]


def _in_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts numbers in names by their value."""
    parts = re.split(r"([0-9]{1,18})", name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], name
