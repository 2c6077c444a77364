"""What had to be looked at to decide on frames, and how often in each of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from accelerators.rules import integer, refuse
from simulator.decisions.evidence import Evidence

# Of a sum of a map that is kept, whatever an operand has.
FEATURE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class FrameEvidence(Evidence):
    """What was looked at above the layers; a kind of it is a subclass.

    Each of its units works in a stage above the layers
    (`simulator.timing.stages.above.AboveStage`), which has a row of its own in reports.
    """

    def kept_bytes(self, operand_bits: int) -> int:
        """Memory for what is kept of earlier frames to look at, or to move.

        Args:
            operand_bits: of an activation.
        """
        return 0

    def check_frames(self, frames: int) -> None:
        """Counts must be of these frames; those of a subclass' own that are arrays are.

        Args:
            frames: in the batch.

        Raises:
            ConfigError: they are of others.
        """
        counts: Mapping[str, object] = vars(self)
        refuse(
            [
                f"{type(self).__name__}.{name} must be counted for each of {frames} frames, got "
                f"shape {array.shape}; give an array of shape ({frames},)"
                for name, array in counts.items()
                if isinstance(array, np.ndarray) and array.shape != (frames,)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class FrameDifferences(FrameEvidence):
    """Squared differences of frames' elements to those of frames that were held.

    Attributes:
        elements: of a frame that are compared: its pixels times their channels, or a layer's map.
        blocks: of a frame that are summed up apart, and then weighted.
        comparisons: `(frames,)` int64, held frames that each frame is compared with.
        held: `(frames,)` bool, whether a frame is held, so that later ones are compared with it.
        places: frames that are held at a time, at most.
    """

    units: ClassVar[tuple[str, ...]] = ("frame_differencer",)
    words: ClassVar[str] = "differences of frames"

    elements: int
    blocks: int = 1
    comparisons: np.ndarray = field(repr=False)
    held: np.ndarray = field(repr=False)
    places: int = 1

    def kept_bytes(self, operand_bits: int) -> int:
        """Of the frames that are held."""
        return -(-self.places * self.elements * operand_bits // 8)

    def check_frames(self, frames: int) -> None:
        """Also, the sizes must be some."""
        broken = integer(1, 2**40)["rule"](self.elements, "FrameDifferences.elements")
        broken += integer(1, 2**20)["rule"](self.blocks, "FrameDifferences.blocks")
        broken += integer(1, 2**20)["rule"](self.places, "FrameDifferences.places")
        refuse(broken)
        super().check_frames(frames)


@dataclass(frozen=True, kw_only=True)
class Features(FrameEvidence):
    """Sums of a layer's input maps, and products of these with vectors that were kept.

    Attributes:
        layer: before which a frame was looked at.
        channels: maps, and the length of a feature.
        positions: of a map.
        sums: `(frames,)` int64, times that a frame's maps were summed up.
        products: `(frames,)` int64, vectors that the feature was multiplied by; itself counts too.
        kept: `(frames,)` bool, whether a frame's feature is kept.
        places: vectors that are kept at a time, at most.
    """

    units: ClassVar[tuple[str, ...]] = ("feature_cache",)
    words: ClassVar[str] = "sums of maps"

    layer: str
    channels: int
    positions: int
    sums: np.ndarray = field(repr=False)
    products: np.ndarray = field(repr=False)
    kept: np.ndarray = field(repr=False)
    places: int

    def kept_bytes(self, operand_bits: int) -> int:
        """Of the features, as the feature cache has them."""
        return self.places * self.channels * FEATURE_BYTES

    def check_frames(self, frames: int) -> None:
        """Also, the sizes must be some."""
        broken = integer(1, 2**40)["rule"](self.channels, "Features.channels")
        broken += integer(1, 2**40)["rule"](self.positions, "Features.positions")
        broken += integer(1, 2**20)["rule"](self.places, "Features.places")
        refuse(broken)
        super().check_frames(frames)
