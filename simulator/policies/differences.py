"""What policies share that multiply differences to the frame before: frames, memory, decisions."""

from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, one_of, optional, refuse, violations
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Differences
from simulator.decisions.incremental import incremental
from simulator.policies.activations import Activations, check_activations, check_finite
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from workloads.traces.layer import Layer
from workloads.traces.unfold import rows_of

# What the images of a batch are to each other.
IMAGES = ("frames", "streams")
# What a layer's memory calls the inputs that its results stand for, and the frames since they were
# computed from nothing.
_INPUTS, _AGE = "inputs", "age"
# Axis of a frame's values along which the channels of a pixel lie.
CHANNELS = 1


@dataclass(frozen=True, kw_only=True)
class DifferencePolicy(ReusePolicy):
    """Results of the frame before stay, and only what changed is multiplied and added to them.

    With x the inputs that a result y stands for, and x' those that it shall stand for,
    y' = y + (x' - x) W: exact where sums are (a quantised layer's integers); in floating point
    each frame's rounding stays in the sum until the next refresh. A subclass says which inputs
    those are (`standing`), from the new ones and the ones before. Activation functions, additions
    and pooling between products are computed whole. Layers whose weights are activations too
    (attention) run dense: the results would stand for other weights.

    Inputs are compared as they are stored: once a pixel, not once a tap. Where rows of images
    can't be told apart, a batch stands for the batch before.

    Attributes:
        images: what the images of a batch are: `frames` in a row, each compared with the one before
            and the first with the last of the batch before; or `streams`, each compared with its
            own of the batch before. The same for batches of one.
        refresh: frames after which all is computed from nothing, the first included, 1 (always) to
            2^40; `None`: never.
        name: in descriptions.
        quantises: whether inputs are brought to levels.
    """

    images: str = field(default="frames", metadata=one_of(lambda: IMAGES))
    refresh: int | None = field(default=None, metadata=optional(integer(1, 2**40)))

    name: ClassVar[str]
    quantises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, type(self).__name__))

    @property
    def remembered_bits(self) -> int | None:
        """Bits of an input that are kept for the frame after; `None`: as many as an operand has."""
        return None

    @abstractmethod
    def standing(
        self, layer: Layer, values: np.ndarray, before: np.ndarray | None, state: LayerState
    ) -> np.ndarray:
        """The inputs that a frame's result stands for.

        Args:
            layer: the layer.
            values: float32 inputs, the channels of a pixel (the elements of a row) along axis 1.
            before: of the same shape, what the result of the frame before stands for; `None` where
                all is computed from nothing.
            state: as for `decide`.

        Returns:
            Of the same shape; where it equals `before`, nothing is multiplied.
        """

    def applies_to(self, layer: Layer) -> bool:
        """Whether the weights are the same in the next frame."""
        return layer.weights_are_parameters

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """As for the first batch of a stream."""
        return self.decide_next(layer, rows, state, None)[0]

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """Differences of rows, each of which may be of its own."""
        check_activations(layer, rows)
        found = np.empty_like(rows)  # also as it lies in memory: sums keep their order
        frames, changed = (self._frames_of_rows(layer, each) for each in (rows, found))
        anew, kept = self._compared(layer, frames, changed, state, memory)
        return self._decisions(layer, found, anew), kept

    def decide_given(
        self, layer: Layer, given: Activations, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """Differences of a convolution's pixels, unfolded."""
        if layer.convolution is None:
            return self.decide_next(layer, given.rows, state, memory)
        check_finite(layer, given.stored)
        stored = np.ascontiguousarray(given.stored, np.float32)
        found = np.empty_like(stored)
        frames, changed = (self._frames_of_pixels(layer, each) for each in (stored, found))
        anew, kept = self._compared(layer, frames, changed, state, memory)
        return self._decisions(layer, rows_of(layer, found), anew), kept

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": self.name, **asdict(self)}

    def _told_apart(self, layer: Layer) -> int:
        """Frames that a batch of a layer holds one after the other."""
        told = self.images == "frames" and layer.row_images == layer.images
        return layer.images if told else 1

    def _frames_of_rows(self, layer: Layer, rows: np.ndarray) -> np.ndarray:
        """`(frames, count, channels, taps, positions)` view of `(count, m, k)`."""
        count, m, k = rows.shape
        geometry = layer.convolution if layer.kind == "conv" else None
        taps = 1 if geometry is None else int(np.prod(geometry.kernel))
        frames = self._told_apart(layer)
        columns = rows.transpose(0, 2, 1)
        shaped = columns.reshape(count, k // taps, taps, frames, m // frames)
        return np.moveaxis(shaped, 3, 0)

    def _frames_of_pixels(self, layer: Layer, stored: np.ndarray) -> np.ndarray:
        """`(frames, groups, channels, images of each, ...)` view of `(images, channels, ...)`."""
        images, channels, *size = stored.shape
        count, frames = layer.gemm.count, self._told_apart(layer)
        shaped = stored.reshape(frames, images // frames, count, channels // count, *size)
        return np.moveaxis(shaped, 1, 3)

    def _compared(
        self,
        layer: Layer,
        frames: np.ndarray,
        changed: np.ndarray,
        state: LayerState,
        memory: LayerMemory | None,
    ) -> tuple[np.ndarray, LayerMemory]:
        """Fill in the differences of frames in a row.

        Args:
            layer: the layer.
            frames: `(frames, ...)`.
            changed: of the same shape; written.
            state: as for `decide`.
            memory: as for `decide_next`.

        Returns:
            `(frames,)` bool, those that are computed from nothing; and what is kept.
        """
        before, age = None, 0
        if memory is not None:
            before, age = _remembered(layer, memory, frames.shape[1:])
        anew = np.zeros(len(frames), bool)
        for number, (values, found) in enumerate(zip(frames, changed, strict=True)):
            due = self.refresh is not None and age + 1 >= self.refresh
            anew[number] = before is None or due
            given = None if anew[number] else before
            stands = self.standing(layer, values, given, state)
            if given is None:
                found[...], age = stands, 0
            else:
                np.subtract(stands, given, out=found)
                age += 1
            before = stands
        return anew, {_INPUTS: np.array(before, np.float32), _AGE: np.array([age], np.int64)}

    def _decisions(self, layer: Layer, differences: np.ndarray, anew: np.ndarray) -> Decisions:
        """Those on rows, whose frames are computed from nothing or not."""
        gemm = layer.gemm
        lag = gemm.m // len(anew)
        rows = incremental(
            gemm,
            differences,
            np.tile(np.repeat(anew, lag), (gemm.count, 1)),
            lag=lag,
            exact=layer.quantisation is not None,
        )
        looked = Differences(remembered_bits=self.remembered_bits, quantises=self.quantises)
        return Decisions(layer=layer.name, gemm=gemm, rows=rows, evidence=looked)


def _remembered(
    layer: Layer, memory: LayerMemory, shape: tuple[int, ...]
) -> tuple[np.ndarray, int]:
    """What the result of the last frame stands for, and its age.

    Raises:
        ConfigError: the memory is of another layer or of other frames.
    """
    inputs, age = memory.get(_INPUTS), memory.get(_AGE)
    if inputs is None or inputs.shape != shape or age is None or age.shape != (1,):
        found = None if inputs is None else inputs.shape
        raise ConfigError(
            f"memory of layer {layer.name!r} must hold inputs of shape {shape} and their age, got "
            f"{found}; go on with frames of the same size, or start without memory"
        )
    return inputs, int(age[0])
