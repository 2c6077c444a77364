"""Clips: consecutive frames of a drive with a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from workloads.streams.image_set import ImageSet, Normalise, StreamError, normalisation
from workloads.traces.scores import IGNORED

__all__ = ["IGNORED", "Clip", "ClipSet", "Clips"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Consecutive frames in their order.

    Attributes:
        frames: `(frames, 3, height, width)` float32 tensor, normalised for the model, frames >= 2.
        labels: `(frames, height, width)` int64 tensor of classes, `IGNORED` where there is none, or
            None without labels.

    Raises:
        StreamError: for one frame, for another shape or kind of number, and for frames and labels
            that do not go together.
    """

    frames: torch.Tensor
    labels: torch.Tensor | None = None

    def __post_init__(self) -> None:
        frames, labels = self.frames, self.labels
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.float32:
            raise StreamError(
                "Clip.frames must be a float32 tensor of shape (frames, 3, height, width), got "
                f"{frames.dtype} of shape {tuple(frames.shape)}"
            )
        if len(frames) < 2:
            raise StreamError(
                f"Clip.frames must hold at least 2 frames, got {len(frames)}: similarity between "
                "frames needs a pair; use an ImageSet for single images"
            )
        expected = (frames.shape[0], *frames.shape[2:])
        if labels is not None and (labels.shape != expected or labels.dtype != torch.int64):
            raise StreamError(
                f"Clip.labels must be an int64 tensor of shape {tuple(expected)}, got "
                f"{labels.dtype} of shape {tuple(labels.shape)}"
            )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)


class Clips(Protocol):
    """A data set of clips: anything with a length and clips by their index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipSet:
    """Clips cut from drives that are held in memory, as pixels of 8 bits.

    Attributes:
        pixels: `(n, 3, height, width)` uint8 tensor, RGB, the frames of all drives.
        labels: `(n, height, width)` uint8 tensor of indices into `classes` or `IGNORED`, or None.
        starts: index of each clip's first frame.
        length: frames in a clip, >= 2.
        classes: class names in label order; empty without labels.
        normalise: see `workloads.streams.NORMALISATIONS`.
        source: where the frames came from, in words fit for a provenance record.
    """

    pixels: torch.Tensor
    labels: torch.Tensor | None = None
    starts: Sequence[int]
    length: int
    classes: tuple[str, ...] = ()
    normalise: str | Normalise = "imagenet"
    source: str
    _to_input: Normalise = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_to_input", normalisation(self.normalise))
        if self.length < 2:
            raise StreamError(
                f"{self.source}: a clip must have at least 2 frames, got length={self.length}; "
                "use length >= 2"
            )
        if not self.starts or max(self.starts) + self.length > len(self.pixels):
            raise StreamError(
                f"{self.source}: clips of {self.length} frames must lie within its "
                f"{len(self.pixels)} frames, got starts {list(self.starts)[-3:]}"
            )

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.starts)

    def __getitem__(self, index: int) -> Clip:
        """The clip of that index."""
        start = self.starts[index]
        stop = start + self.length
        labels = None if self.labels is None else self.labels[start:stop].long()
        return Clip(frames=self._to_input(self.pixels[start:stop].float()), labels=labels)

    def images(self, count: int, start: int = 0, every: int = 1) -> ImageSet:
        """Frames of all drives in order as images with a class per pixel.

        Args:
            count: how many.
            start: the first.
            every: the distance from one to the next.

        Raises:
            StreamError: if there are not so many.
        """
        last = start + (count - 1) * every
        if count < 1 or start < 0 or every < 1 or last >= len(self.pixels):
            apart = "" if every == 1 else f", every {every}"
            raise StreamError(
                f"{self.source} has {len(self.pixels)} frames, got count={count} from "
                f"start={start}{apart}; ask for fewer"
            )
        chosen = slice(start, last + 1, every)
        return ImageSet(
            images=self._to_input(self.pixels[chosen].float()).contiguous(),
            labels=None if self.labels is None else self.labels[chosen].long(),
            classes=self.classes,
            source=self.source if every == 1 else f"{self.source}, every {every} frames",
        )

    def every(self, step: int) -> ClipSet:
        """Every `step`-th frame of each clip: a lower frame rate, as 5 Hz from 15 Hz by step=3.

        Raises:
            StreamError: if fewer than 2 frames of a clip would be left, or `step` is below 1.
        """
        if step < 1:
            raise StreamError(f"{self.source}: step must be at least 1, got {step}; 1 keeps all")
        kept = -(-self.length // step)
        chosen = [s + i * step for s in self.starts for i in range(kept)]
        return replace(
            self,
            pixels=self.pixels[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            starts=range(0, len(chosen), kept),
            length=kept,
            source=f"{self.source}, every {step} frames",
        )
