"""The maps of a network that motion moves, and those of them that hardware has to keep and move.

A network is split into the layers that do not run in a frame and those that do. What crosses is
moved: the input of a layer that runs, where all that it is made of does not (EVA2's activation,
behind ReLU and additions). Where a layer that runs gets something else beside it, as in the middle
of a residual block, each product's result that reaches it is moved before what follows it. That is
the same for additions and batch normalisation, for weights add up to 1, and for whole shifts. Where
ReLU follows and a value comes from several, of which some are negative, it is less by the smaller
of their positive and their negative parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log, prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simulator.decisions.frame_evidence import FrameEvidence
from simulator.decisions.frames import WARP, FrameDecisions
from workloads.traces.layer import Layer

if TYPE_CHECKING:
    import networkx as nx

Strides = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MovedMap:
    """A map that is moved in some frames.

    Attributes:
        layer: whose input or result it is.
        channels: of the map.
        size: height and width.
        strides: pixels from one position to the next, down and right.
        frames: `(frames,)` bool, in which it is moved.
    """

    layer: str
    channels: int
    size: tuple[int, int]
    strides: Strides
    frames: np.ndarray = field(repr=False)

    @property
    def elements(self) -> int:
        """Values of the map."""
        return self.channels * prod(self.size)


@dataclass(frozen=True, kw_only=True)
class Warps(FrameEvidence):
    """What hardware moves by motion; who runs the decisions adds it to what they looked at.

    Attributes:
        maps: all that are moved.
        keys: `(frames,)` int64, the key frame of each frame.
        radius: pixels that a vector reaches at most, along each axis.
    """

    units: ClassVar[tuple[str, ...]] = ("warper",)
    words: ClassVar[str] = "maps of key frames, moved"

    maps: tuple[MovedMap, ...]
    keys: np.ndarray = field(repr=False)
    radius: int

    def kept_bytes(self, operand_bits: int) -> int:
        """Of the key frame's maps."""
        return sum(-(-each.elements * operand_bits // 8) for each in self.maps)


@dataclass(frozen=True, kw_only=True)
class MovedMaps:
    """All maps that are moved.

    Attributes:
        results: layer name -> its result, in frames in which it does not run.
        inputs: layer name -> its input, in frames in which it runs and nothing that the input is
            made of does.
        crossing: those of both that layers that run, or the answer, need: what hardware moves. An
            input that several layers share is there once. Where results reach a layer that is no
            convolution they are all there, though it may need no more than their sum.
    """

    results: Mapping[str, MovedMap]
    inputs: Mapping[str, MovedMap]
    crossing: tuple[MovedMap, ...]


def has_positions(layer: Layer) -> bool:
    """Whether a layer's rows are the positions of a picture's map, so that they can be moved."""
    is_picture = layer.convolution is not None and len(layer.output_shape) == 4
    return is_picture and layer.row_images == layer.images == layer.input_shape[0]


def rows_size(layer: Layer) -> tuple[int, int]:
    """Height and width of the map that a layer's rows are."""
    shape = layer.output_shape if layer.kind == "conv" else layer.input_shape
    return shape[2], shape[3]


def moved_maps(
    layers: Sequence[Layer], graph: "nx.DiGraph[str]", frames: FrameDecisions
) -> MovedMaps:
    """The maps that decisions on frames move.

    Args:
        layers: in the order of calls.
        graph: of them, as `WorkloadTrace.graph`.
        frames: the decisions.
    """
    motion = frames.motion
    if motion is None:
        return MovedMaps(results={}, inputs={}, crossing=())
    strides = pixel_strides(layers, graph, motion.size)
    runs = {layer.name: frames.runs(layer.name) for layer in layers}
    none = np.zeros(frames.frames, bool)
    moved = {
        layer.name: np.asarray(frames.layers.get(layer.name, none) == WARP) for layer in layers
    }
    results, inputs = {}, {}
    for layer in layers:
        if layer.name not in strides:
            continue
        given, made = strides[layer.name]
        if moved[layer.name].any():
            results[layer.name] = MovedMap(
                layer=layer.name,
                channels=layer.gemm.n * layer.gemm.count,
                size=rows_size(layer),
                strides=made if layer.kind == "conv" else given,
                frames=moved[layer.name],
            )
        sources = list(graph.predecessors(layer.name))
        waits = np.logical_and.reduce([~runs[each] for each in sources]) if sources else none
        crosses = runs[layer.name] & waits & _any(moved, sources, none)
        if crosses.any():
            inputs[layer.name] = MovedMap(
                layer=layer.name,
                channels=layer.input_shape[1],
                size=(layer.input_shape[2], layer.input_shape[3]),
                strides=given,
                frames=crosses,
            )
    crossing: dict[tuple, MovedMap] = {}
    for name, made_map in inputs.items():
        key = frozenset(graph.predecessors(name)), made_map.channels, made_map.size
        before = crossing.get(key)
        both = made_map.frames if before is None else before.frames | made_map.frames
        crossing[key] = replace(before or made_map, frames=both)
    left = []
    for name, made_map in results.items():
        readers = list(graph.successors(name))
        covered = {each: inputs[each].frames if each in inputs else none for each in readers}
        needed = {each: runs[each] & ~covered[each] for each in readers}
        frames_needed = made_map.frames & _any(needed, readers, none if readers else ~none)
        if frames_needed.any():
            left.append(replace(made_map, frames=frames_needed))
    return MovedMaps(results=results, inputs=inputs, crossing=(*crossing.values(), *left))


def _any(of: Mapping[str, np.ndarray], names: Sequence[str], least: np.ndarray) -> np.ndarray:
    """Frames in which any of some layers is marked."""
    return np.logical_or.reduce([least, *(of[name] for name in names)])


def pixel_strides(
    layers: Sequence[Layer], graph: "nx.DiGraph[str]", size: tuple[int, int]
) -> dict[str, tuple[Strides, Strides]]:
    """Pixels from one position of a layer's input, and of its output, to the next.

    Strides are followed from layer to layer. What pools or enlarges a map between two layers is no
    layer: it is known by the sizes, as a whole factor, for borders may be cut off or padded.

    Args:
        layers: in the order of calls.
        graph: of them.
        size: height and width of a picture.

    Returns:
        Layer name -> strides down and right of its input and its output; only layers whose rows
        are positions.
    """
    known: dict[str, tuple[Strides, Strides]] = {}
    shapes = {layer.name: layer.output_shape[2:] for layer in layers if has_positions(layer)}
    for layer in layers:
        if not has_positions(layer):
            continue
        assert layer.convolution is not None
        own = layer.input_shape[2:]
        sources = [each for each in graph.predecessors(layer.name) if each in known]
        if sources:  # the one whose map is most alike
            source = min(sources, key=lambda name: abs(log(shapes[name][0] / own[0])))
            before, shape = known[source][1], shapes[source]
        else:
            before, shape = (1.0, 1.0), size
        pairs = zip(before, shape, own, strict=True)
        given = tuple(stride * _factor(larger / smaller) for stride, larger, smaller in pairs)
        steps = layer.convolution.stride
        if layer.kind == "conv":
            made = tuple(stride * step for stride, step in zip(given, steps, strict=True))
        else:
            made = tuple(stride / step for stride, step in zip(given, steps, strict=True))
        known[layer.name] = given, made  # type: ignore[assignment]
    return known


def _factor(ratio: float) -> float:
    """The whole factor by which a map is smaller, or one over that by which it is larger."""
    return float(round(ratio)) if ratio >= 1 else 1.0 / round(1 / ratio)
