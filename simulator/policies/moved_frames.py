"""What policies have in common that move maps of key frames by motion on the pixels."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from math import prod

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, optional, refuse, text, violations
from simulator.decisions.frames import KEEP, RUN, WARP, FrameDecisions
from simulator.decisions.motion import Motion
from simulator.decisions.moved_maps import has_positions
from simulator.policies.block_matching import BlockMatching, broken_radius, luma, pictures_of
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import LONGEST_NAME, Layer
from workloads.traces.trace import WorkloadTrace


@dataclass(frozen=True, kw_only=True)
class MovedFrames(ReusePolicy):
    """Key frames run; in the others layers up to a target do not, and what follows gets moved maps.

    The images of a batch are frames in a row; each batch starts with a key frame, and maps are
    moved from the key frame, never from one that was moved. A subclass chooses key frames.

    Layers up to the target, in the order of calls, are those that do not run. Where a network has
    skip connections, several maps cross from them to what runs, at strides of their own: all are
    moved, by the same vectors (`simulator.decisions.moved_maps`). A layer without positions, as of
    squeeze-and-excitation, keeps its result.

    Attributes:
        target: name of a layer, or a shell-style pattern of which the last match counts; `None`
            for the last convolution that is larger than a pixel, as in EVA2. A segmenter's is
            near its end, at the size of its finest features.
        tile: see `BlockMatching`. EVA2's tiles are as large as the target's stride; that of a
            segmenter's end is too small to be matched.
        reach: see `BlockMatching`.
        radius: see `BlockMatching`.
        step: see `BlockMatching`.

    Raises:
        ConfigError: at construction, where these are no such values; at `frames`, where no layer
            is the target, or the model does not see pictures.
    """

    target: str | None = field(default=None, metadata=optional(text(LONGEST_NAME, "layer4.*")))
    tile: int = field(default=8, metadata=integer(1, 1024))
    reach: int = field(default=1, metadata=integer(0, 64))
    radius: int = field(default=8, metadata=integer(0, 128))
    step: int = field(default=2, metadata=integer(1, 128))

    def __post_init__(self) -> None:
        """Check all values."""
        name = type(self).__name__
        refuse(violations(self, name) or broken_radius(name, self.radius, self.step))

    @property
    def matching(self) -> BlockMatching:
        """The search."""
        return BlockMatching(tile=self.tile, reach=self.reach, radius=self.radius, step=self.step)

    @abstractmethod
    def waits_for_key(self, since_key: int) -> bool:
        """Whether a frame becomes a key frame without a search.

        Args:
            since_key: frames since the last key frame, at least 1.
        """

    def is_key(self, error: float, vectors: np.ndarray) -> bool:
        """Whether a frame that was searched becomes a key frame.

        Args:
            error: mean absolute difference of its pixels and those of the key frame, moved.
            vectors: `(rows, columns, 2)` pixels.
        """
        return False

    def applies_to(self, layer: Layer) -> bool:
        """To none: only frames are decided on."""
        return False

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> None:
        """No decisions on the layers that run."""

    def target_of(self, layers: Sequence[Layer]) -> int:
        """The place of the target in the order of calls.

        Raises:
            ConfigError: there is none.
        """
        if self.target is None:
            fits = [has_positions(x) and prod(x.convolution.kernel) > 1 for x in layers]  # type: ignore[union-attr]
        else:
            names = [layer.name for layer in layers]
            fits = [name == self.target or fnmatchcase(name, self.target) for name in names]
        if not any(fits):
            wanted = "a convolution that is larger than a pixel" if self.target is None else "it"
            raise ConfigError(
                f"{type(self).__name__}.target must be a layer of the workload, got "
                f"{self.target!r} and no layer that is {wanted}; layers are "
                f"{', '.join(layer.name for layer in layers)}"
            )
        return max(place for place, is_it in enumerate(fits) if is_it)

    def frames(self, trace: WorkloadTrace) -> FrameDecisions | None:
        """Key frames, and the motion of those between; `None` where all are key frames."""
        skipped = trace.layers[: self.target_of(trace.layers) + 1]
        if trace.images == 1:
            return None
        motion = self.motion(luma(pictures_of(trace)))
        if motion.is_key.all() and not motion.searched.any():
            return None
        moved = np.where(motion.is_key, RUN, WARP).astype(np.int8)
        kept = np.where(motion.is_key, RUN, KEEP).astype(np.int8)
        return FrameDecisions(
            frames=trace.images,
            layers={layer.name: moved if has_positions(layer) else kept for layer in skipped},
            answers=np.arange(trace.images),
            evidence=(motion,),
        )

    def motion(self, grey: np.ndarray) -> Motion:
        """The motion of frames against their key frames, which are chosen on the way.

        Args:
            grey: `(frames, height, width)` uint8.
        """
        matching, count = self.matching, len(grey)
        size = int(grey.shape[1]), int(grey.shape[2])
        tiles = -(-size[0] // self.tile), -(-size[1] // self.tile)
        vectors = np.zeros((count, *tiles, 2), np.int16)
        keys, searched, errors = np.arange(count), np.zeros(count, bool), np.zeros(count)
        key = 0
        for frame in range(1, count):
            if not self.waits_for_key(frame - key):
                searched[frame] = True
                found, errors[frame] = matching.match(grey[frame], grey[key])
                if not self.is_key(float(errors[frame]), found):
                    vectors[frame], keys[frame] = found, key
                    continue
            key = frame
        return Motion(
            size=size,
            tile=self.tile,
            reach=self.reach,
            radius=self.radius,
            candidates=len(matching.candidates),
            vectors=vectors,
            keys=keys,
            searched=searched,
            errors=errors,
        )

    def described(self, name: str) -> dict:
        """The policy of a name as plain values."""
        return {"policy": name, **asdict(self)}
