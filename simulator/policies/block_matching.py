"""Motion estimation by block matching: tiles of a frame, found again in its key frame."""

from dataclasses import dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, refuse, violations
from simulator.kernels.motion import least_differences, tile_differences
from workloads.traces.trace import WorkloadTrace

# ITU-R BT.601.
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


def luma(pictures: np.ndarray) -> np.ndarray:
    """Pictures in grey levels of 8 bits, as block matching sees them.

    Colours are weighed as in ITU-R BT.601; other channels than three count the same. The darkest
    pixel of the first picture is 0 and its brightest is 255, for pictures are normalised in ways
    that nobody can tell: a grey level is that of a camera where the scene holds both black and
    white. What is darker or brighter in later pictures is cut off. A camera's own luma, as video is
    coded in, saves hardware this step, which is not priced.

    Args:
        pictures: `(frames, channels, height, width)` numbers.

    Returns:
        `(frames, height, width)` uint8.
    """
    channels = pictures.shape[1]
    weights = _LUMA_WEIGHTS if channels == 3 else np.full(channels, 1 / channels, np.float32)
    grey = np.einsum("fchw,c->fhw", pictures.astype(np.float32, copy=False), weights)
    least, most = float(grey[0].min()), float(grey[0].max())
    scale = 255 / (most - least) if most > least else 1.0
    return np.clip(np.rint((grey - least) * scale), 0, 255).astype(np.uint8)


def pictures_of(trace: WorkloadTrace) -> np.ndarray:
    """`(frames, channels, height, width)`, the pictures that a model was called with.

    Raises:
        ConfigError: it was called with none.
    """
    for given in trace.inputs or ():
        if given.ndim == 4 and len(given) == trace.images and given.dtype.kind in "fiu":
            return given
    raise ConfigError(
        f"trace.inputs must hold {trace.images} frames of shape (frames, channels, height, width) "
        "for motion to be found on them, got none; capture the model on pictures"
    )


def broken_radius(owner: str, radius: int, step: int) -> list[str]:
    """Standing still must be a candidate; `owner` is whose fields these are."""
    if radius % step == 0:
        return []
    return [
        f"{owner}.radius must be a multiple of step={step}, so that standing still is a candidate, "
        f"got {radius}; use {radius - radius % step}"
    ]


@dataclass(frozen=True, kw_only=True)
class BlockMatching:
    """Exhaustive search for the vectors with the least sums of absolute differences.

    Of vectors with equal sums the shortest wins, so that what stands still has vectors of 0. Beyond
    the key frame's border lies its border. EVA2 (Buckler et al., ISCA 2018) looks for the vector of
    each receptive field, the differences of whose tiles neighbours share: a tile and `reach` more
    on each side stand for that field here.

    Attributes:
        tile: side of a tile in pixels, 1 to 1024.
        reach: tiles on each side that are summed up with a tile, 0 to 64.
        radius: pixels that a vector reaches at most along each axis, 0 to 128.
        step: pixels from one candidate to the next along each axis, 1 to 128; divides `radius`.

    Raises:
        ConfigError: at construction, where these are no such numbers.
    """

    tile: int = field(default=8, metadata=integer(1, 1024))
    reach: int = field(default=1, metadata=integer(0, 64))
    radius: int = field(default=8, metadata=integer(0, 128))
    step: int = field(default=2, metadata=integer(1, 128))

    def __post_init__(self) -> None:
        """Check the numbers."""
        name = "BlockMatching"
        refuse(violations(self, name) or broken_radius(name, self.radius, self.step))

    @property
    def candidates(self) -> np.ndarray:
        """`((2 radius / step + 1)^2, 2)` int64 vectors, the shortest first."""
        along = np.arange(-self.radius, self.radius + 1, self.step)
        pairs = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)
        return pairs[np.argsort(np.square(pairs).sum(axis=1), kind="stable")]

    def match(self, frame: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, float]:
        """Where each tile of a frame was in the key frame.

        Args:
            frame: `(height, width)` uint8.
            key: likewise.

        Returns:
            `(rows, columns, 2)` int16 vectors, down and right, and the mean absolute difference of
            the frame's pixels and those that the vectors point to.
        """
        height, width = frame.shape
        vectors = self.candidates
        shape = -(-height // self.tile), -(-width // self.tile)
        sums = np.empty((len(vectors), *shape), np.int32)
        padded = np.pad(key, self.radius, mode="edge")
        tile_differences(frame, padded, vectors + self.radius, self.tile, sums)
        chosen = np.empty(shape, np.int64)
        total = least_differences(sums, self.reach, chosen)
        return vectors[chosen].astype(np.int16), total / (height * width)
