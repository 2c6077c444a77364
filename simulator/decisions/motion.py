"""Motion of frames against their key frames, as block matching finds it on the pixels."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import integer, refuse
from simulator.decisions.frame_evidence import FrameEvidence


@dataclass(frozen=True, kw_only=True)
class Motion(FrameEvidence):
    """Where the blocks of each frame lay in its key frame.

    A pixel at p of a frame lay at p + v in the key frame, v the vector of its tile.

    Attributes:
        size: height and width of a frame in pixels.
        tile: side of a tile in pixels, which has one vector; the last ones may be cut off.
        reach: tiles on each side of a tile whose differences are summed up to find its vector.
        radius: pixels that a vector reaches at most, along each axis.
        candidates: vectors that are compared.
        vectors: `(frames, rows, columns, 2)` int16 pixels, down and right; 0 in key frames.
        keys: `(frames,)` int64, the key frame of each frame; of a key frame, itself.
        searched: `(frames,)` bool, frames in which motion was looked for, also in vain: those that
            then became key frames.
        errors: `(frames,)` float64, mean absolute difference of a searched frame's pixels and those
            that its vectors point to, in grey levels; 0 of others.
    """

    units: ClassVar[tuple[str, ...]] = ("motion_estimator",)
    words: ClassVar[str] = "blocks of pixels, matched with those of the key frame"

    size: tuple[int, int]
    tile: int
    reach: int
    radius: int
    candidates: int
    vectors: np.ndarray = field(repr=False)
    keys: np.ndarray = field(repr=False)
    searched: np.ndarray = field(repr=False)
    errors: np.ndarray = field(repr=False)

    def kept_bytes(self, operand_bits: int) -> int:
        """Of the key frame's pixels, a byte each."""
        return self.size[0] * self.size[1]

    def check_frames(self, frames: int) -> None:
        """A vector for each tile, and a key frame for each frame."""
        refuse(integer(1, 2**20)["rule"](self.tile, "Motion.tile"))
        shapes: dict[str, tuple[int, ...]]
        shapes = {name: (frames,) for name in ("keys", "searched", "errors")}
        shapes["vectors"] = (frames, *self.tiles, 2)
        broken = [
            f"Motion.{name} must be of shape {shape} for {frames} frames and tiles of {self.tile} "
            f"pixels, got {getattr(self, name).shape}; give one for each"
            for name, shape in shapes.items()
            if getattr(self, name).shape != shape
        ]
        refuse(broken)
        keys, numbers = self.keys, np.arange(frames)
        if not ((keys >= 0) & (keys <= numbers)).all() or not (keys[keys] == keys).all():
            broken.append(
                f"Motion.keys must name for each frame itself or an earlier key frame, got "
                f"{keys.tolist()}; name the frame that was computed"
            )
        refuse(broken)

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.size[0] // self.tile), -(-self.size[1] // self.tile)

    @property
    def is_key(self) -> np.ndarray:
        """`(frames,)` bool."""
        return self.keys == np.arange(len(self.keys))

    @property
    def differences(self) -> int:
        """Absolute differences of pixels that a search takes: H x W x candidates."""
        return self.size[0] * self.size[1] * self.candidates

    def taps(
        self, frame: int, size: tuple[int, int], strides: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of a moved map come from in that of the key frame.

        Each position takes the vector of the tile in which the middle of its stride lies, over the
        stride; beyond the border lies the border.

        Args:
            frame: whose map it is.
            size: of the map, height and width.
            strides: pixels from one of its positions to the next, down and right.

        Returns:
            `(positions, 4)` int32 positions, and `(positions, 4)` float32 weights that add up to 1
            (bilinear). A position that comes from one alone has it first, with weight 1.
        """
        axes = []
        for length, stride, tiles in zip(size, strides, self.tiles, strict=True):
            middle = (np.arange(length) + 0.5) * stride
            axes.append(np.minimum((middle / self.tile).astype(np.int64), tiles - 1))
        own = self.vectors[frame][np.ix_(*axes)]
        pairs = []
        for axis, (length, stride) in enumerate(zip(size, strides, strict=True)):
            places = np.arange(length).reshape((-1, 1) if axis == 0 else (1, -1))
            found = np.clip(places + own[..., axis] / stride, 0, length - 1).ravel()
            before = np.floor(found).astype(np.int64)
            pairs.append((before, np.minimum(before + 1, length - 1), found - before))
        (top, bottom, down), (left, right, across) = pairs
        width = size[1]
        taps = [top * width + left, top * width + right, bottom * width + left]
        taps.append(bottom * width + right)
        weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across)]
        weights.append(down * across)
        return np.stack(taps, axis=1).astype(np.int32), np.stack(weights, axis=1).astype(np.float32)
