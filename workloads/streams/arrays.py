"""Inputs that lie ready for a model in a file: `.npy`, `.npz` or `.safetensors`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workloads.errors import show, told
from workloads.reading import regular_file
from workloads.streams.image_set import StreamError, TooFewError, taken_from
from workloads.traces.scores import IGNORED

ARRAY_SUFFIXES = (".npy", ".npz", ".safetensors")
_MAGIC = b"\x93NUMPY"
IMAGES, LABELS = "images", "labels"
# Of a compressed archive, which is unpacked in memory.
LARGEST_UNPACKED_BYTES = 4 * 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """Inputs of any shape that a model takes, in the order they arrive.

    Attributes:
        images: `(n, ...)` float32 tensor, finite, or `(n, length)` int64 of token ids, n >= 1.
        labels: `(n,)` int64, or `(n, h, w)`, one for each pixel, `workloads.traces.scores.IGNORED`
            where there is none; None without labels.
        source: where they came from, in words fit for a provenance record.
    """

    images: torch.Tensor
    labels: torch.Tensor | None = None
    source: str

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.images)


def array_inputs(
    path: str | Path, *, count: int, start: int = 0, every: int = 1, name: str = "inputs"
) -> Arrays:
    """Read `count` inputs of a file: start, start + every, ...

    A `.npy` holds one array. A `.npz` or `.safetensors` holds one array, or one called 'images';
    beside it one called 'labels' may give the classes. Pixels must be normalised as the model
    expects them. No pickle is read.

    Args:
        path: the file.
        count: inputs, >= 1.
        start: index of the first one taken, >= 0.
        every: distance between two taken, >= 1.
        name: how messages call the path.

    Raises:
        StreamError: for a missing, damaged or foreign file, another kind of numbers, NaN, infinity,
            and too few inputs.
    """
    path = regular_file(path, name, StreamError)
    found = _arrays(path, name)
    labels = found.pop(LABELS, None) if len(found) > 1 else None
    if IMAGES not in found and len(found) != 1:
        raise StreamError(
            f"{name} must be a file of one array, or of one called {IMAGES!r}, got "
            f"{', '.join(map(show, list(found)[:5])) or 'none'} in {path}; call it {IMAGES!r}"
        )
    images = found[IMAGES] if IMAGES in found else next(iter(found.values()))
    about = f"{images.dtype} {images.shape} in {path}"
    is_tokens = images.dtype.kind in "iu" and images.ndim == 2
    if images.ndim < 2 or 0 in images.shape or not (_is_float32(images) or is_tokens):
        fix = "convert them by .astype('float32')" if images.dtype.kind == "f" else "save them"
        raise StreamError(
            f"{name} must be {show(count)} or more images of finite float32 numbers, got {about}; "
            f"{fix} as (images, channels, height, width), normalised as the model expects them, or "
            "token ids as whole numbers (texts, length)"
        )
    last = start + (count - 1) * every
    if last >= len(images):
        raise TooFewError(
            f"{name} must be {show(count)} or more images of finite float32 numbers, got {about}"
            f"{taken_from(start, every)}; take fewer"
        )
    taken = slice(start, last + 1, every)
    dtype = np.int64 if is_tokens else np.float32
    chosen = np.array(images[taken], dtype)
    if is_tokens and not (chosen == images[taken]).all():
        raise StreamError(f"{name} must be token ids below 2**63, got {about}; save them as int64")
    if not np.isfinite(chosen).all():
        raise StreamError(
            f"{name} must be {count} or more images of finite float32 numbers, got NaN or infinity "
            f"in {path}; save them normalised as the model expects them"
        )
    return Arrays(
        images=torch.from_numpy(chosen),
        labels=None if labels is None else _labels(labels, images, taken, path, name),
        source=f"{path.name} ({'inputs' if every == 1 else f'every {every}'} from {start})",
    )


def _is_float32(images: np.ndarray) -> bool:
    return images.dtype.kind == "f" and images.dtype.itemsize == 4


def _labels(
    labels: np.ndarray, images: np.ndarray, taken: slice, path: Path, name: str
) -> torch.Tensor:
    """Classes of the inputs taken."""
    of_pixels = images.ndim == 4 and labels.shape == (len(images), *images.shape[2:])
    if labels.dtype.kind not in "iu" or not (labels.shape == (len(images),) or of_pixels):
        raise StreamError(
            f"{name}: {LABELS!r} of {path} must be whole numbers of shape ({len(images)},), or one "
            f"for each pixel, got {labels.dtype} {labels.shape}; save a class for each image"
        )
    chosen = labels[taken]
    known = chosen[chosen != IGNORED] if of_pixels else chosen
    if known.size and not 0 <= int(known.min()) <= int(known.max()) < 2**31:
        raise StreamError(
            f"{name}: {LABELS!r} of {path} must be classes from 0 to 2147483647, got "
            f"{int(known.min())} to {int(known.max())}; number the classes as the model does"
        )
    return torch.from_numpy(np.array(chosen, np.int64))


def _arrays(path: Path, name: str) -> dict[str, Any]:
    """Every array of a file by its name; those of a `.npy` are mapped, not read."""
    kind = path.suffix.lower()
    try:
        if kind == ".safetensors":
            return _safetensors(path)
        if kind == ".npz":
            return _unzipped(path, name)
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it does not begin as such a file")
        return {IMAGES: np.lib.format.open_memmap(path, mode="r")}
    except StreamError:
        raise
    except Exception as error:  # damage raises many kinds of errors
        raise StreamError(
            f"{name} must be a {kind or '.npy'} file of numbers, got {path} ({told(error)}); write "
            f"it by {'safetensors.numpy.save_file' if kind == '.safetensors' else 'numpy.save'}"
        ) from error


def _unzipped(path: Path, name: str) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > LARGEST_UNPACKED_BYTES:
        raise StreamError(
            f"{name} must be a .npz file of at most {LARGEST_UNPACKED_BYTES} bytes unpacked, got "
            f"{claimed} in {path}; save a .npy file, which need not be unpacked"
        )
    with np.load(path, allow_pickle=False) as opened:
        wanted = [IMAGES] if IMAGES in opened.files else opened.files[:2]
        names = [*wanted, *(each for each in (LABELS,) if each in opened.files)]
        if len(opened.files) > 2 and wanted != [IMAGES]:
            return dict.fromkeys(opened.files)
        return {each: opened[each] for each in names}


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        names = list(opened.keys())
        if IMAGES not in names and len(names) > 2:
            return dict.fromkeys(names)
        wanted = [each for each in names if IMAGES not in names or each in (IMAGES, LABELS)]
        # Types that NumPy lacks, such as bfloat16, are no float32 either, but have a name.
        return {each: _as_array(opened.get_tensor(each)) for each in wanted}


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    try:
        return tensor.numpy()
    except TypeError as error:
        raise ValueError(f"its numbers are {tensor.dtype}, not float32") from error
