"""Change-based inference: a position whose patch is as it was keeps the result that it had."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import flag, one_of, real, refuse, true_of, violations
from simulator.decisions.box import Decisions
from simulator.decisions.evidence import Changes
from simulator.kernels.changes import changed_places, take_changed
from simulator.policies.activations import Activations, check_activations, check_finite
from simulator.policies.passing_on import passed_on, takes_lists
from simulator.policies.patches import (
    has_positions,
    input_size,
    kept_since,
    map_of,
    map_of_stored,
    patches_at,
    touched,
)
from simulator.policies.policy import LayerMemory, LayerState, ReusePolicy
from simulator.policies.surroundings import Surroundings
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

FORMS = ("feedback", "copy")
_REFERENCE = "reference"
_LARGEST = 1e30


def _are_thresholds(value: object) -> bool:
    """Whether these are numbers of at least 0 by names of layers."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and type(each) in (int, float) and 0 <= each <= _LARGEST
        for name, each in value.items()
    )


_THRESHOLDS = true_of(
    _are_thresholds,
    "be a mapping of layer names to numbers of at least 0",
    "use {'conv1': 0.1}, or {} for the same in all layers",
)


@dataclass(frozen=True, kw_only=True)
class ChangedPositions(ReusePolicy):
    """A layer computes the positions whose input changed since the frame before.

    CBinfer (Cavigelli and Benini, ICDSC 2017 and TCSVT 2019). A place of the input has changed if
    any channel differs from a reference by more than the threshold; every position whose patch has
    such a place is computed, the others keep their result. The reference is that of the frame
    before (`copy`), or what a place was when it last changed (`feedback`); then it is also what is
    multiplied, as in the authors' code, so that a product is never farther from dense than the
    threshold times the sum of its weights' magnitudes. With `copy`, changes that are small from
    frame to frame add up unseen. The first frame of a stream is computed.

    The images of a batch are frames in a row, each compared with the one before it; the first one
    with the last of the batch before. Decided are layers with weights whose rows are positions of
    images; of a layer with a single row an image, all of it or nothing. Others run dense.

    A 1x1 convolution looks for no changes where the list of those before it can be passed on: its
    input is the same, in every bit, where the products that it is made of kept their results, and
    between them and it positions do not mix. Pooling in windows that do not overlap is passed too.

    Attributes:
        threshold: tau of every layer, at least 0, in the units of its activations; 0 keeps what is
            the same in every bit.
        form: what is compared with, `feedback` or `copy`.
        thresholds: name of a layer -> its own tau.
        passes_lists: whether lists are passed on; else every layer looks for changes.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where activations are
            not finite, or the memory is of another layer, naming the layer.
    """

    threshold: float = field(metadata=real(0.0, _LARGEST))
    form: str = field(default="feedback", metadata=one_of(lambda: FORMS))
    thresholds: Mapping[str, float] = field(default_factory=dict, metadata=_THRESHOLDS)
    passes_lists: bool = field(default=True, metadata=flag())

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "ChangedPositions"))
        own = {name: float(each) for name, each in self.thresholds.items()}
        object.__setattr__(self, "thresholds", own)

    def applies_to(self, layer: Layer) -> bool:
        """To layers whose rows are positions of images."""
        return has_positions(layer)

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Thresholds of their own must be of layers."""
        names = [layer.name for layer in layers]
        unknown = [name for name in self.thresholds if name not in names]
        if unknown:
            raise ConfigError(
                f"ChangedPositions.thresholds must name layers, got {', '.join(unknown)}; layers "
                f"are {', '.join(names)}"
            )

    def threshold_of(self, layer: Layer) -> np.float32:
        """Of a layer, in steps of its integers where it is quantised."""
        own = self.thresholds.get(layer.name, self.threshold)
        return np.float32(own if layer.quantisation is None else own / layer.quantisation.scale)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """As for the first batch of a stream."""
        return self.decide_next(layer, rows, state, None)[0]

    def decide_next(
        self, layer: Layer, rows: np.ndarray, state: LayerState, memory: LayerMemory | None
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """As where nothing is known of the layers before: it looks for changes itself."""
        check_activations(layer, rows)
        return self._decided(layer, map_of(layer, rows), memory, None, rows)

    def decide_in(
        self,
        layer: Layer,
        given: Activations,
        state: LayerState,
        memory: LayerMemory | None,
        around: Surroundings | None,
    ) -> tuple[Decisions | None, LayerMemory | None]:
        """Frame after frame; the reference after the last one is kept."""
        if layer.kind != "conv":
            check_activations(layer, given.rows)
        values = map_of_stored(layer, given.stored)
        check_finite(layer, values)
        return self._decided(layer, values, memory, around)

    def _decided(
        self,
        layer: Layer,
        values: np.ndarray,
        memory: LayerMemory | None,
        around: Surroundings | None,
        rows: np.ndarray | None = None,
    ) -> tuple[Decisions, LayerMemory]:
        """What is decided on a map of `(channels, images, *size)`, and kept for the next batch;
        `rows` are the layer's, where they were given instead."""
        listed = None
        if self.passes_lists and around is not None and takes_lists(layer):
            listed = passed_on(layer, around)
        if listed is not None:
            return _listed(layer, listed, memory), {}
        seen = _Comparison(layer, self.threshold_of(layer), self.form, _reference(layer, memory))
        for frame in range(layer.row_images):
            seen.add(np.ascontiguousarray(values[:, frame]), rows)
        made = seen.decisions()
        reference = seen.reference
        assert reference is not None  # of the last frame
        if np.may_share_memory(reference, values):  # whose owner may write the next frame there
            reference = reference.copy()
        return made, {_REFERENCE: reference}

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "changed_positions", **asdict(self)}


def _listed(layer: Layer, changed: np.ndarray, memory: LayerMemory | None) -> Decisions:
    """Decisions by the places that earlier layers computed anew.

    Args:
        layer: it.
        changed: `(images, *size)` bool.
        memory: `None` before the first batch.
    """
    computed = touched(layer, changed)
    if memory is None:
        computed[0] = True
    compared = Changes(
        compared=0,
        updated=0,
        line_bits=0,
        kept_elements=layer.gemm.count * layer.gemm.n * computed.shape[1],
    )
    return Decisions(
        layer=layer.name,
        gemm=layer.gemm,
        rows=kept_since(layer, computed),
        evidence=compared,
    )


class _Comparison:
    """Frames of a batch, compared with the reference one after the other.

    Attributes:
        reference: `(channels, *size)` float32, as the last frame left it; `None` before the first
            frame of a stream.
    """

    def __init__(
        self, layer: Layer, threshold: np.float32, form: str, reference: np.ndarray | None
    ) -> None:
        self.reference = reference
        self._layer, self._threshold, self._form = layer, threshold, form
        self._multiplies_reference = form == "feedback" and threshold > 0
        self._positions = layer.gemm.m // layer.row_images
        self._computed: list[np.ndarray] = []
        self._operands: list[np.ndarray] = []
        self._compared = self._updated = 0

    def add(self, values: np.ndarray, rows: np.ndarray | None) -> None:
        """The next frame.

        Args:
            values: `(channels, *size)` float32.
            rows: `(count, m, k)` float32, those of all frames; `None` where the map tells.
        """
        layer, computed = self._layer, np.ones(self._positions, bool)
        patches = np.empty((layer.gemm.count, layer.gemm.k, 0), np.float32)
        if self.reference is None:
            self.reference = values.copy() if self._form == "feedback" else values
            self._updated += values.size
            if self._multiplies_reference and rows is None:
                patches = patches_at(layer, values, np.arange(self._positions))
            elif self._multiplies_reference and rows is not None:
                patches = rows.transpose(0, 2, 1)[:, :, : self._positions]
        else:
            changed = self._compare(values, self.reference)
            computed = touched(layer, changed[None])[0]
            if self._form == "copy":
                self.reference = values
            elif self._multiplies_reference:
                patches = patches_at(layer, self.reference, np.flatnonzero(computed))
        self._computed.append(computed)
        self._operands.append(patches)

    def _compare(self, values: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """`(*size)` bool, places that changed; in the feedback form the reference takes them."""
        flat, before = values.reshape(len(values), -1), reference.reshape(len(values), -1)
        changed = np.empty(flat.shape[1], bool)
        changed_places(flat, before, self._threshold, changed)
        self._compared += values.size
        if self._form == "feedback":
            take_changed(flat, changed, before)
            self._updated += len(flat) * int(np.count_nonzero(changed))
        return changed.reshape(values.shape[1:])

    def decisions(self) -> Decisions:
        """On all frames that were added."""
        layer, gemm = self._layer, self._layer.gemm
        operands = None
        if self._multiplies_reference and self._compared:
            operands = np.concatenate(self._operands, axis=2).transpose(0, 2, 1)
        assert self.reference is not None
        return Decisions(
            layer=layer.name,
            gemm=gemm,
            rows=kept_since(layer, np.stack(self._computed), operands),
            evidence=Changes(
                compared=self._compared,
                updated=self._updated if self._form == "feedback" else 0,
                line_bits=line_bits(layer),
                kept_elements=self.reference.size + gemm.count * gemm.n * self._positions,
                copies=self._form == "copy",
            ),
        )


def line_bits(layer: Layer) -> int:
    """Marks of a map's lines that a kernel reaches over, beside the one that comes."""
    if layer.kind != "conv":
        return 0
    assert layer.convolution is not None
    size, convolution = input_size(layer), layer.convolution
    return convolution.dilation[0] * (convolution.kernel[0] - 1) * math.prod(size[1:])


def _reference(layer: Layer, memory: LayerMemory | None) -> np.ndarray | None:
    """What the batch before left, to be written on.

    Raises:
        ConfigError: it is of another layer.
    """
    if memory is None:
        return None
    size, channels = input_size(layer), layer.gemm.count * layer.gemm.k
    if layer.kind == "conv":
        channels = layer.input_elements // (layer.images * math.prod(size))
    shape = channels, *size
    held = memory.get(_REFERENCE)
    if held is None:  # a list was passed on to it so far
        return None
    if held.shape != shape or held.dtype != np.float32:
        raise ConfigError(
            f"memory of layer {layer.name!r} must hold a float32 reference of shape (channels, "
            f"*size) = {shape}, got {held.dtype} of shape {held.shape}; start without memory"
        )
    return np.array(held)


register(
    Technique(
        name="changes",
        title="CBinfer: change-based inference",
        axis="rows",
        word="keep",
        grain="position",
        rule="A position is computed if a place of its patch differs from the reference by more "
        "than tau in any channel; the others keep their result.",
        evidence="differences of every layer's input to that of an earlier frame",
        source="Cavigelli and Benini, CBinfer, ICDSC 2017 and TCSVT 2019",
        policy=ChangedPositions,
        units=("change_detector",),
        options=("state_buffer",),
        published=("CBInfer",),
        choices={"threshold": (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)},
        start={"threshold": 0.1, "form": "feedback"},
        own=("threshold",),
    )
)
