"""Reading the frames and pixel labels of drives from files into a `ClipSet`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import adaptive_max_pool2d, interpolate

from workloads.streams.clips import ClipSet
from workloads.streams.image_set import Normalise, StreamError
from workloads.streams.picture_files import picture
from workloads.traces.scores import IGNORED

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture and the file with its labels; None where no labels were made."""

    image: Path
    label: Path | None


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How a data set's label files are to be read.

    Attributes:
        classes: names in label order.
        decode: makes `(height, width)` uint8 labels of an image file's array, or raises a
            StreamError that gives the rule; the reader adds the path.
        shrink: makes `(n, height, width)` uint8 labels of another size.
    """

    classes: tuple[str, ...]
    decode: Callable[[np.ndarray], np.ndarray]
    shrink: Callable[[torch.Tensor, Size], torch.Tensor]


def read_drives(
    drives: Sequence[Sequence[Frame]],
    labelling: Labelling,
    *,
    length: int,
    step: int | None,
    size: Size | None,
    limit: int | None,
    normalise: str | Normalise,
    source: str,
) -> ClipSet:
    """Read drives, each its frames in order, and cut them into clips of `length` frames.

    Frames at the end of a drive that do not fill a clip are left out.

    Args:
        drives: the files.
        labelling: how labels are read.
        length: frames in a clip, >= 2.
        step: frames from one clip's start to the next's; `length` by default, so that no frame is
            in two clips.
        size: (height, width) that frames and labels are brought to; None keeps theirs.
        limit: read at most so many frames, from the first on; None reads all.
        normalise: see `ClipSet`.
        source: see `ClipSet`.

    Raises:
        StreamError: for an unreadable file, a label of another size than its image, images of
            different sizes, unknown labels, and where no drive is as long as a clip.
    """
    step = length if step is None else step
    if length < 2 or step < 1:
        raise StreamError(
            f"{source}: clips must have length >= 2 and step >= 1, got length={length}, step={step}"
        )
    kept, starts = _cut(drives, length=length, step=step, limit=limit)
    if not starts:
        raise StreamError(
            f"{source} must have {length} consecutive frames for a clip, got drives of "
            f"{', '.join(str(len(drive)) for drive in drives[:5])} frames"
            f"{'' if limit is None else f' with limit={limit}'}; use shorter clips or more frames"
        )
    pixels, labels = read_frames(kept, labelling, size=size)
    return ClipSet(
        pixels=pixels,
        labels=labels,
        starts=starts,
        length=length,
        classes=labelling.classes,
        normalise=normalise,
        source=source,
    )


def read_frames(
    frames: Sequence[Frame], labelling: Labelling, *, size: Size | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(n, 3, height, width)` pixels and `(n, height, width)` labels, uint8; as `read_drives`."""
    pixels, labels = [], []
    full: Size | None = None
    for frame in frames:
        array = _sized(
            frame.image, full, "the frames before", "; frames of a data set must not differ in size"
        )
        if array.ndim != 3 or array.shape[2] != 3:
            raise StreamError(f"{frame.image} must be an RGB image, got shape {array.shape}")
        full = full or (array.shape[0], array.shape[1])
        whole = torch.from_numpy(array).permute(2, 0, 1)[None]
        pixels.append(shrunk_pixels(whole, size or full))
        label = torch.from_numpy(_labels(frame, labelling, full))[None]
        labels.append(labelling.shrink(label, size or full))
    return torch.cat(pixels), torch.cat(labels)


def _cut(
    drives: Sequence[Sequence[Frame]], *, length: int, step: int, limit: int | None
) -> tuple[list[Frame], list[int]]:
    """The frames that are in a clip, and where among them each clip starts."""
    kept: list[Frame] = []
    starts: list[int] = []
    for drive in drives:
        room = len(drive) if limit is None else min(len(drive), limit - len(kept))
        if room < length:
            continue
        clips = (room - length) // step + 1
        starts += [len(kept) + step * i for i in range(clips)]
        kept += drive[: step * (clips - 1) + length]
    return kept, starts


def _labels(frame: Frame, labelling: Labelling, full: Size) -> np.ndarray:
    """The labels of a frame at its own size; nothing but `IGNORED` where none were made."""
    if frame.label is None:
        return np.full(full, IGNORED, dtype=np.uint8)
    if not frame.label.is_file():
        raise StreamError(
            f"{frame.label} must hold the labels of {frame.image.name}, but is missing; add it, or "
            "take the image away"
        )
    array = _sized(frame.label, full, "its image")
    try:
        labels = labelling.decode(array)
    except StreamError as error:
        raise StreamError(f"{frame.label}: {error}") from error
    known = labels[labels != IGNORED]
    if known.size and int(known.max()) >= len(labelling.classes):
        raise StreamError(
            f"{frame.label} must hold classes 0 to {len(labelling.classes) - 1}, got "
            f"{int(known.max())}; it may belong to another data set"
        )
    return labels


def _sized(path: Path, size: Size | None, of: str, why: str = "") -> np.ndarray:
    """An image file's array, of the height and width `size` where there is one."""

    def check_size(height: int, width: int) -> None:
        if size is not None and (height, width) != size:
            raise StreamError(
                f"{path} must have the size of {of}, {size[0]}x{size[1]}, got {height}x{width}{why}"
            )

    return picture(path, str(path), check_size=check_size)


def shrunk_pixels(pixels: torch.Tensor, size: Size) -> torch.Tensor:
    """`(n, 3, h, w)` uint8 pixels to another size, bilinear with antialiasing, rounded."""
    if tuple(pixels.shape[2:]) == tuple(size):
        return pixels
    resized = interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def nearest_labels(labels: torch.Tensor, size: Size) -> torch.Tensor:
    """`(n, h, w)` uint8 labels to another size: of each new pixel's middle."""
    resized = interpolate(labels[:, None].float(), size=size, mode="nearest-exact")
    return resized[:, 0].to(torch.uint8)


def thick_labels(labels: torch.Tensor, size: Size) -> torch.Tensor:
    """`(n, h, w)` uint8 lane labels to another size: lane where any of the old pixels is lane.

    Marks a pixel wide would otherwise break up. Unlabelled only where nothing is labelled.
    """
    ordered = torch.where(labels == IGNORED, 0, labels.int() + 1)  # so that lane wins, then other
    largest = adaptive_max_pool2d(ordered[:, None].float(), size)[:, 0].int()
    return torch.where(largest == 0, IGNORED, largest - 1).to(torch.uint8)
