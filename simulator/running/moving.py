"""Maps of key frames, moved to where their contents are in later frames."""

from collections.abc import Callable

import numpy as np

from simulator.decisions.frames import FrameDecisions
from simulator.decisions.moved_maps import MovedMap, Warps, moved_maps
from simulator.kernels.motion import move
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace


class Moving:
    """What motion does to layers' results and inputs.

    Args:
        trace: the workload.
        frames: the decisions on its frames.
    """

    def __init__(self, trace: WorkloadTrace, frames: FrameDecisions) -> None:
        self._motion = frames.motion
        self._maps = moved_maps(trace.layers, trace.graph, frames)
        self._taps: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def warps(self) -> Warps:
        """What hardware moves."""
        motion = self._motion
        assert motion is not None
        return Warps(maps=self._maps.crossing, keys=motion.keys, radius=motion.radius)

    def moves_input(self, layer: Layer) -> bool:
        """Whether a layer that runs gets moved maps of key frames."""
        return layer.name in self._maps.inputs

    def move_results(self, layer: Layer, by_frame: np.ndarray) -> None:
        """Fill in the rows of frames in which a layer's result is moved.

        Args:
            layer: the layer.
            by_frame: `(frames, count, positions, n)` float32, its results; changed.
        """
        made = self._maps.results.get(layer.name)
        if made is None:
            return

        def source(key: int) -> np.ndarray:
            return np.ascontiguousarray(by_frame[key].transpose(1, 0, 2)).reshape(
                by_frame.shape[2], -1
            )

        for frame, moved in self._moved(made, source):
            if layer.quantisation is not None:
                np.rint(moved, out=moved)
            by_frame[frame] = moved.reshape(by_frame.shape[2], -1, by_frame.shape[3]).swapaxes(0, 1)

    def moved_input(self, layer: Layer, given: np.ndarray) -> np.ndarray:
        """A layer's input with the maps that it gets moved.

        Args:
            layer: the layer.
            given: `(frames, channels, height, width)` float32; not changed.
        """
        made = self._maps.inputs.get(layer.name)
        if made is None:
            return given
        result = np.array(given, np.float32, order="C")

        def source(key: int) -> np.ndarray:
            return np.ascontiguousarray(given[key].reshape(len(given[key]), -1).T)

        for frame, moved in self._moved(made, source):
            if layer.quantisation is not None:
                scale = np.float32(layer.quantisation.scale)
                np.multiply(np.rint(moved / scale), scale, out=moved)
            result[frame] = moved.T.reshape(given.shape[1:])
        return result

    def _moved(self, made: MovedMap, source: Callable[[int], np.ndarray]):
        """Each frame in which a map is moved, with it as `(positions, channels)`."""
        motion, known = self._motion, (-1, np.empty(0, np.float32))
        assert motion is not None
        for frame in np.flatnonzero(made.frames):
            key = int(motion.keys[frame])
            if known[0] != key:
                known = key, source(key)
            place = int(frame), made.size, made.strides
            if place not in self._taps:
                self._taps[place] = motion.taps(*place)
            moved = np.empty_like(known[1])
            move(known[1], *self._taps[place], moved)
            yield frame, moved
