"""CIFAR-10 (A. Krizhevsky, 2009) from the archives people have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from workloads.errors import show
from workloads.streams.archive import Archive, open_archive
from workloads.streams.image_set import (
    ImageSet,
    Normalise,
    StreamError,
    check_split,
    normalisation,
)
from workloads.streams.picture_files import picture
from workloads.streams.plain_pickle import load_plain

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FOLDER_ORDER_SEED = 0

_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_PIXELS = 3 * 32 * 32
_Data = tuple[np.ndarray, np.ndarray, tuple[str, ...]]  # pixels, labels, classes
_Version = tuple[str, Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]]  # suffix, decoder


def cifar10(
    path: str | Path,
    split: str = "train",
    limit: int | None = None,
    *,
    normalise: str | Normalise = "standardised",
) -> ImageSet:
    """Return CIFAR-10 images from an archive or folder; nothing is downloaded or extracted.

    Understood, as `.tar.gz`, `.tar`, `.zip` or an extracted folder:

    - the binary version (`data_batch_1.bin` ... `test_batch.bin`);
    - the Python version (`data_batch_1` ... `test_batch`), read by an unpickler that admits only
      plain containers and numeric arrays;
    - image folders `CLASS/NAME.jpg|png`, or `train/CLASS/...` and `test/CLASS/...`. Without
      `train` and `test` folders the archive itself is the split, whatever `split` says. Images
      are put in a fixed random order, since an archive sorted by class is no stream to cluster.

    JPEG copies of CIFAR-10 are not the original pixels: networks lose accuracy on them.

    Args:
        path: archive file or folder.
        split: 'train' or 'test'.
        limit: read only this many images (the first ones of the order above); None reads all.
        normalise: a key of `NORMALISATIONS` or a function on pixels 0..255. The default,
            zero mean and unit deviation for every image, is TF-slim's for CifarNet.

    Returns:
        `(n, 3, 32, 32)` images with labels 0 to 9 in the order of `CIFAR10_CLASSES`
        (for image folders: of the sorted folder names).

    Raises:
        StreamError: for missing, damaged, incomplete or foreign archives.
    """
    check_split(split)
    to_input = normalisation(normalise)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise StreamError(f"cifar10 limit must be at least 1 or None, got {show(limit)}")
    with open_archive(path) as archive:
        pixels, labels, classes = _read_split(archive, split, limit)
    if limit is not None and len(labels) < limit:
        raise StreamError(
            f"cifar10 limit must be at most the {len(labels)} {split} images of {path}, got {limit}"
        )
    return ImageSet(
        images=to_input(torch.from_numpy(pixels).float()),
        labels=torch.from_numpy(labels),
        classes=classes,
        source=f"cifar10/{split} ({Path(path).name})",
    )


def holds_both_splits(path: str | Path) -> bool:
    """Return whether the archive tells training from test images; StreamError if unreadable."""
    with open_archive(path) as archive:
        return _folder_images(archive, "train") != _folder_images(archive, "test") or (
            not _folder_images(archive, "train")
        )


def _read_split(archive: Archive, split: str, limit: int | None) -> _Data:
    by_name = {PurePosixPath(name).name: name for name in archive.names}
    versions: tuple[_Version, ...] = ((".bin", _decode_binary), ("", _decode_python))
    for version in versions:
        if any(f"{batch}{version[0]}" in by_name for batch in (*_BATCHES["train"], "test_batch")):
            return _read_batches(archive, by_name, split, version, limit)
    return _read_folder(archive, split, limit)


def _read_batches(
    archive: Archive, by_name: dict[str, str], split: str, version: _Version, limit: int | None
) -> _Data:
    suffix, decode = version
    pixels: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for batch in _BATCHES[split]:
        if limit is not None and sum(len(part) for part in labels) >= limit:
            break
        if f"{batch}{suffix}" not in by_name:
            raise StreamError(
                f"{archive.path} must hold {batch}{suffix} for the {split} split, but does not; "
                "fetch the archive again"
            )
        name = by_name[f"{batch}{suffix}"]
        batch_pixels, batch_labels = decode(archive.read(name), f"{archive.path}: {name}")
        if len(batch_labels) and not 0 <= batch_labels.min() <= batch_labels.max() <= 9:
            raise StreamError(
                f"{archive.path}: {name} must have labels 0 to 9, got "
                f"{batch_labels.min()} to {batch_labels.max()}; is this CIFAR-100?"
            )
        pixels.append(batch_pixels)
        labels.append(batch_labels)
    stop = limit if limit is not None else sum(len(part) for part in labels)
    return np.concatenate(pixels)[:stop], np.concatenate(labels)[:stop], CIFAR10_CLASSES


def _decode_binary(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Decode records of one label byte and 3,072 bytes of red, green and blue planes."""
    if not data or len(data) % (_PIXELS + 1):
        raise StreamError(
            f"{where} must be records of {_PIXELS + 1} bytes, got {len(data)} bytes; "
            "the file is cut off or not CIFAR-10"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _PIXELS + 1)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _decode_python(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = load_plain(data, where)
    if not isinstance(batch, dict):
        raise StreamError(f"{where} must hold a dict as CIFAR-10 has, got {type(batch).__name__}")
    pixels = batch.get(b"data", batch.get("data"))
    labels = batch.get(b"labels", batch.get("labels"))
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise StreamError(f"{where}: labels must be a list of integers; is this CIFAR-10?")
    if wrong := [label for label in labels if not 0 <= label <= 9]:
        raise StreamError(
            f"{where} must have labels 0 to 9, got {show(wrong[0])}; is this CIFAR-100?"
        )
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise StreamError(f"{where}: data must be a uint8 array")
    if pixels.shape != (len(labels), _PIXELS) or not len(labels):
        raise StreamError(
            f"{where}: data must have shape (labels, {_PIXELS}), got {pixels.shape} "
            f"for {len(labels)} labels"
        )
    return pixels.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _folder_images(archive: Archive, split: str) -> list[str]:
    """Return the image files of a split; those in plain CLASS folders belong to any split."""
    images = [
        name
        for name in archive.names
        if name.lower().endswith(IMAGE_SUFFIXES)
        and len(parts := PurePosixPath(name).parts) >= 2
        and not any(part.startswith((".", "__MACOSX")) for part in parts)
    ]
    splits = {_split_of(name) for name in images}
    if splits <= {None}:
        return images
    return [name for name in images if _split_of(name) == split]


def _split_of(name: str) -> str | None:
    above_class = PurePosixPath(name).parts[:-2]
    return next((part for part in above_class if part in ("train", "test")), None)


def _read_folder(archive: Archive, split: str, limit: int | None) -> _Data:
    names = sorted(_folder_images(archive, split))
    if not names:
        raise StreamError(
            f"{archive.path} must hold CIFAR-10 batches (data_batch_1[.bin], ...) or images "
            f"CLASS/NAME{'|'.join(IMAGE_SUFFIXES)} for split={split!r}, but holds neither"
        )
    classes = tuple(sorted({PurePosixPath(name).parts[-2] for name in names}))
    label_of = {name: label for label, name in enumerate(classes)}
    order = np.random.RandomState(FOLDER_ORDER_SEED).permutation(len(names))[:limit]
    chosen = [names[index] for index in order]
    pixels = np.stack([_decode_image(archive, name) for name in chosen])
    labels = np.array([label_of[PurePosixPath(name).parts[-2]] for name in chosen], np.int64)
    return pixels, labels, classes


def _decode_image(archive: Archive, name: str) -> np.ndarray:
    """Decode one image file to `(3, 32, 32)` uint8."""
    where = f"{archive.path}: {name}"

    def check_size(height: int, width: int) -> None:
        if (height, width) != (32, 32):
            raise StreamError(
                f"{where} must be 32x32 pixels, got {width}x{height}; is this CIFAR-10?"
            )

    pixels = picture(archive.read(name), where, check_size=check_size, mode="RGB")
    return pixels.transpose(2, 0, 1)
