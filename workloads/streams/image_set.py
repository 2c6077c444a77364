"""A set of images with their labels, and the ways pixels become model inputs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from workloads.errors import InputError, show
from workloads.rules import refuse
from workloads.traces.scores import IGNORED


class StreamError(InputError):
    """An input stream that can't be read or asked for; says what was given and the fix."""


class TooFewError(StreamError):
    """Fewer images or frames than were asked for."""


def taken_from(start: int, every: int) -> str:
    """Which of the inputs are taken, in words after their number; empty if all are."""
    if start == 0 and every == 1:
        return ""
    return f", of which one of every {show(every)} is taken after the first {show(start)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images ready for a model, in the order they arrive.

    Attributes:
        images: `(n, 3, h, w)` float32 tensor, normalised, RGB, n >= 1, finite.
        labels: `(n,)` int64 tensor of indices into `classes`, or `(n, h, w)`, one for each pixel,
            `workloads.traces.scores.IGNORED` where there is none; None without labels.
        classes: class names in label order; empty when there are no labels.
        source: where the images came from, in words fit for a provenance record.

    Raises:
        StreamError: listing every violated rule.
    """

    images: torch.Tensor
    labels: torch.Tensor | None = None
    classes: tuple[str, ...] = ()
    source: str

    def __post_init__(self) -> None:
        refuse([*_image_violations(self.images), *_label_violations(self)], StreamError)

    def __len__(self) -> int:
        """Number of images."""
        return int(self.images.shape[0])

    def take(self, count: int) -> ImageSet:
        """Return the first `count` images, 1 <= count <= n."""
        if not 1 <= count <= len(self):
            raise StreamError(
                f"ImageSet.take count must be between 1 and the {len(self)} images of "
                f"{self.source}, got {count}"
            )
        return self.batch(0, count)

    def batch(self, start: int, size: int) -> ImageSet:
        """Return images `start` to `start + size - 1`; all of them must exist."""
        if size < 1 or start < 0 or start + size > len(self):
            raise StreamError(
                f"ImageSet.batch must lie within the {len(self)} images of {self.source}, got "
                f"start={start}, size={size}; use start >= 0, size >= 1 and "
                f"start + size <= {len(self)}"
            )
        stop = start + size
        labels = None if self.labels is None else self.labels[start:stop]
        return replace(self, images=self.images[start:stop], labels=labels)

    def shuffled(self, seed: int = 0) -> ImageSet:
        """Return all images with their labels in a random order, the same for the same seed.

        Reuse within a batch in class order scores what it does not on others, see
        `workloads.capture`. Frames of a video are best left in their order.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        labels = None if self.labels is None else self.labels[order]
        return replace(self, images=self.images[order], labels=labels)

    def batches(self, size: int) -> Iterator[ImageSet]:
        """Yield consecutive batches of `size` images; the last one holds the remainder."""
        if size < 1:
            raise StreamError(f"ImageSet.batches size must be at least 1, got {size}")
        for start in range(0, len(self), size):
            yield self.batch(start, min(size, len(self) - start))


def _image_violations(images: torch.Tensor) -> list[str]:
    if not isinstance(images, torch.Tensor) or images.dtype != torch.float32:
        given = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        return [f"ImageSet.images must be a float32 tensor, got {given}"]
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        return [
            "ImageSet.images must have shape (n, 3, h, w) with n, h, w >= 1, "
            f"got {tuple(images.shape)}"
        ]
    if not bool(torch.isfinite(images).all()):
        return ["ImageSet.images must be finite, got NaN or infinite pixels"]
    return []


def _label_violations(image_set: ImageSet) -> list[str]:
    labels = image_set.labels
    if labels is None:
        return []
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64:
        return ["ImageSet.labels must be an int64 tensor of shape (n,) or (n, h, w), or None"]
    height_width = image_set.images.shape[2:]
    if labels.ndim != 1 and (labels.ndim != 3 or labels.shape[1:] != height_width):
        return [
            f"ImageSet.labels must have shape (n,) or (n, {height_width[0]}, {height_width[1]}), "
            f"got {tuple(labels.shape)}"
        ]
    violations = []
    if labels.shape[0] != image_set.images.shape[0]:
        violations.append(
            f"ImageSet.labels must hold one label per image: {image_set.images.shape[0]} images, "
            f"got {labels.shape[0]} labels"
        )
    known = labels if labels.ndim == 1 else labels[labels != IGNORED]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < len(image_set.classes):
        violations.append(
            f"ImageSet.labels must index the {len(image_set.classes)} classes, got labels "
            f"{int(known.min())} to {int(known.max())}"
        )
    return violations


def standardise_each_image(pixels: torch.Tensor) -> torch.Tensor:
    """Give every image zero mean and unit deviation, as TensorFlow's `per_image_standardization`.

    The deviation is bounded below by 1 / sqrt(elements), so a uniform image becomes zeros.
    TF-slim's CifarNet preprocessing normalises this way.

    Args:
        pixels: `(n, 3, h, w)` float32 tensor, any range.

    Returns:
        `(n, 3, h, w)` float32 tensor.
    """
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    deviation = pixels.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
    floor = float(pixels[0].numel()) ** -0.5
    return (pixels - mean) / deviation.clamp_min(floor)


# Mean and deviation of ImageNet's pixels, as torchvision's and most of timm's weights take them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def standardise_as_imagenet(pixels: torch.Tensor) -> torch.Tensor:
    """Subtract ImageNet's mean colour and divide by its deviation; same shape."""
    mean, deviation = (
        255 * torch.tensor(values).reshape(3, 1, 1)
        for values in (_IMAGENET_MEAN, _IMAGENET_DEVIATION)
    )
    return (pixels - mean) / deviation


# Mean and deviation, blue first, of CamVid's training images, as ESPNet's authors computed them.
_CAMVID_MEAN = (110.92, 108.82, 105.59)
_CAMVID_DEVIATION = (78.61, 79.82, 78.59)


def standardise_as_espnet_camvid(pixels: torch.Tensor) -> torch.Tensor:
    """Blue first, less CamVid's mean, over its deviation and over 255; same shape."""
    mean, deviation = (
        torch.tensor(values).reshape(3, 1, 1) for values in (_CAMVID_MEAN, _CAMVID_DEVIATION)
    )
    return (pixels.flip(1) - mean) / deviation / 255


Normalise = Callable[[torch.Tensor], torch.Tensor]

NORMALISATIONS: dict[str, Normalise] = {
    "unit": lambda pixels: pixels / 255,
    "signed": lambda pixels: (pixels - 127.5) / 127.5,
    # TensorFlow's EfficientNet-Lite: MEAN_RGB = 127, STDDEV_RGB = 128 (tensorflow/tpu, lite).
    "efficientnet_lite": lambda pixels: (pixels - 127) / 128,
    "standardised": standardise_each_image,
    "imagenet": standardise_as_imagenet,
    "espnet_camvid": standardise_as_espnet_camvid,
}
"""Maps from pixels 0..255, `(n, 3, h, w)` float32, to model inputs of the same shape."""


def normalisation(name_or_function: str | Normalise) -> Normalise:
    """Return the named normalisation, or the given function itself.

    Args:
        name_or_function: a key of `NORMALISATIONS`, or a function from pixels 0..255,
            `(n, 3, h, w)` float32, to model inputs of the same shape.

    Raises:
        StreamError: for an unknown name.
    """
    if callable(name_or_function):
        return name_or_function
    if name_or_function in NORMALISATIONS:
        return NORMALISATIONS[name_or_function]
    nearest = difflib.get_close_matches(str(name_or_function), NORMALISATIONS, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise StreamError(
        f"normalise must be one of {', '.join(NORMALISATIONS)} or a function, "
        f"got {name_or_function!r}{hint}"
    )


def check_split(split: str) -> None:
    """Raise a StreamError unless `split` is 'train' or 'test'."""
    if split not in ("train", "test"):
        raise StreamError(f"split must be 'train' or 'test', got {split!r}")
