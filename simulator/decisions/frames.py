"""Above the layers: what runs in which frame, and whose answer a frame gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

# What a layer does in a frame.
RUN, KEEP, WARP = range(3)


@dataclass(frozen=True, kw_only=True)
class FrameDecisions:
    """A schedule of layers over the frames of a batch, which follow each other in time.

    Attributes:
        frames: in the batch.
        layers: layer name -> `(frames,)` int8: `RUN`; `KEEP`, its result is that of the frame
            before; or `WARP`, that result moved by motion. A layer that is not named runs in all.
        answers: `(frames,)` int64, the frame whose answer each one gives: itself, or an earlier
            one where the answer is remembered.
    """

    frames: int
    layers: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    answers: np.ndarray = field(repr=False)

    def runs(self, layer: str) -> np.ndarray:
        """`(frames,)` bool, the frames in which a layer is computed."""
        made = self.layers.get(layer)
        return np.ones(self.frames, bool) if made is None else made == RUN
