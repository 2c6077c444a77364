"""Motion estimation: a frame's blocks are looked for in the key frame."""

from functools import partial

import numpy as np

from accelerators import MotionEstimator
from accelerators.rules import refuse
from simulator.decisions.motion import Motion
from simulator.timing.stages.above import AboveStage, register_above
from simulator.timing.stages.stage import Counts, Work
from simulator.timing.transfers import Transfer, ceil_div


@register_above
class EstimatingMotion(AboveStage):
    """Frames that are searched take H x W x candidates differences, `adders` of them a cycle.

    The consumer takes a sum of a tile and candidate a cycle. A searched frame's luma is loaded, a
    byte a pixel. Where the pixel memory holds two frames, the key frame's stays there: it is loaded
    where it was not searched itself. Where not, it is loaded again for each frame, a band of rows
    after the other.

    Not modelled: making luma of colours; bytes that bands load twice.
    """

    units = ("motion_estimator",)
    evidence: Motion

    @property
    def unit(self) -> MotionEstimator:
        """The unit."""
        unit = self.accelerator.motion_estimator
        assert unit is not None
        return unit

    @property
    def _pixels(self) -> int:
        """Of a frame, a byte each."""
        return self.evidence.size[0] * self.evidence.size[1]

    @property
    def _holds_two(self) -> bool:
        return self.unit.pixel_bytes >= 2 * self._pixels

    def check(self) -> None:
        """A row of tiles and all that it is compared with fit, and so do all tiles."""
        motion, unit = self.evidence, self.unit
        height, width = motion.size
        band = min(height, motion.tile + 2 * motion.radius) + min(height, motion.tile)
        tiles, broken = motion.tiles[0] * motion.tiles[1], []
        if not self._holds_two and unit.pixel_bytes < band * width:
            broken.append(
                "Accelerator.motion_estimator.pixel_bytes must hold a row of tiles and what it is "
                f"compared with, {band} rows of {width} pixels, got {unit.pixel_bytes}; use "
                f"{band * width} or more"
            )
        if unit.tiles < tiles:
            broken.append(
                f"Accelerator.motion_estimator.tiles must be those of a frame, {tiles} of "
                f"{motion.tile} x {motion.tile} pixels, got {unit.tiles}; use {tiles} or more, or "
                "larger tiles"
            )
        refuse(broken)

    def work(self) -> Work:
        """The slower of differences and consumer."""
        motion, unit = self.evidence, self.unit
        searched = motion.searched.astype(np.int64)
        cycles = searched * max(ceil_div(motion.differences, unit.adders), self._sums)
        loaded = self._pixels * (searched + self._key_loads())
        return Work(
            limits={"motion_estimator": cycles},
            latency_cycles=searched * unit.latency_cycles,
            busy_cycles={"motion_estimator": cycles},
            transfers=(Transfer(kind="pixels", moved_bytes=loaded),),
            actions=partial(self._actions, int(searched.sum()), loaded),
        )

    @property
    def _sums(self) -> int:
        """Sums of tiles under candidates, of a frame."""
        rows, columns = self.evidence.tiles
        return rows * columns * self.evidence.candidates

    def _key_loads(self) -> np.ndarray:
        """`(frames,)` int64, times that a key frame is loaded for a frame."""
        motion = self.evidence
        if not self._holds_two:
            return motion.searched.astype(np.int64)
        loads = np.zeros(len(motion.keys), np.int64)
        held = -1  # the key frame in the memory
        for frame in np.flatnonzero(motion.searched):
            key = int(motion.keys[frame - 1])
            loads[frame] = key != held
            held = int(motion.keys[frame])
        return loads

    def _actions(self, searches: int, loaded: np.ndarray) -> Counts:
        motion, adders = self.evidence, self.unit.adders
        words = ceil_div(motion.differences, adders) + ceil_div(self._pixels, adders)
        sums = searches * self._sums
        done = {
            "difference": searches * motion.differences,
            "sum": sums,
            "compare": sums,
            "read_pixels": searches * words,
            "write_pixels": int(ceil_div(loaded, adders).sum()),
            "read_tile": sums,
            "write_tile": sums,
        }
        return {("motion_estimator", action): count for action, count in done.items()}
