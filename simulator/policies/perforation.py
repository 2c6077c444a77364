"""Perforated convolutions: a fixed mask of output positions, whatever the input."""

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, one_of, real, true_of
from simulator.decisions.rows import FilledRows
from simulator.policies.positions import FilledPositions
from simulator.policies.technique import Technique, register
from workloads.traces.layer import Layer

MASKS = ("grid", "uniform", "pooling_structure")


class Perforated(FilledPositions):
    """Skipped positions take the result of the nearest computed one.

    Figurnov et al. (NIPS 2016), section 3: one mask for all images and channels; the nearest by
    Euclidean distance, ties to the earlier.
    """

    @abstractmethod
    def computed_positions(self, layer: Layer) -> np.ndarray:
        """Output positions that are computed, as a bool array of the output's spatial shape."""

    def filling(self, layer: Layer) -> FilledRows | None:
        """From the nearest position."""
        nearest = _nearest(self.computed_positions(layer))
        kept, taps = np.unique(nearest, return_inverse=True)
        return FilledRows(
            gemm=layer.gemm,
            images=layer.gemm.m // nearest.size,
            computed=kept,
            taps=taps.astype(np.int32).reshape(-1, 1),
        )


@dataclass(frozen=True, kw_only=True)
class PerforationReuse(Perforated):
    """A convolution computes some output positions; the others take the nearest one's result.

    Figurnov et al. (NIPS 2016), section 3. What Deep Reuse compares with in table IV. Convolutions
    only. Masks that follow from what positions matter are `PerforationMask`.

    Attributes:
        computed: fraction of positions that are computed, above 0 to 1; 1 minus the paper's
            perforation rate.
        mask: `grid`, the product of a choice of rows and one of columns, each ceil(a (i + u)) with
            a = size / number and u drawn from [0, 1) (Graham, "Fractional max-pooling", 2014), or
            `uniform`, drawn at random without replacement; or `pooling_structure`, the positions
            that lie in most windows of the pooling that follows, of equal ones any. A convolution
            that no pooling follows then runs dense; of windows that do not overlap all positions
            are equal.
        seed: of the mask; a layer's own is drawn from it and the layer's name.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where a layer is no
            convolution, activations are not finite or nobody knows what follows the layer where the
        mask asks for it, naming the layer.
    """

    computed: float = field(metadata=real(1e-6, 1.0))
    mask: str = field(default="grid", metadata=one_of(lambda: MASKS))
    seed: int = field(default=0, metadata=integer(0, 2**63 - 1))

    def filling(self, layer: Layer) -> FilledRows | None:
        """From the nearest position; `None` where the mask asks for a pooling and none follows."""
        if self.mask == "pooling_structure" and windows_of_positions(layer) is None:
            return None
        return super().filling(layer)

    def computed_positions(self, layer: Layer) -> np.ndarray:
        """Output positions that are computed, as a bool array of the output's spatial shape."""
        rng = np.random.default_rng([self.seed, zlib.crc32(layer.name.encode())])
        size = layer.output_shape[2:]
        found = np.zeros(size, bool)
        if self.mask == "uniform":
            number = max(1, round(self.computed * found.size))
            found.flat[rng.choice(found.size, number, replace=False)] = True
            return found
        if self.mask == "pooling_structure":
            weights = windows_of_positions(layer)
            number = max(1, round(self.computed * found.size))
            if weights is None:
                return np.ones(size, bool)
            # Any of equal ones, lest they all lie at the top.
            order = np.lexsort((rng.random(found.size), -weights.ravel()))
            found.flat[order[:number]] = True
            return found
        # The same share of each dimension, so that all of them together are `computed`.
        share = self.computed ** (1 / len(size))
        chosen = []
        for length in size:
            number = max(1, round(share * length))
            steps = np.arange(number) + rng.random()
            chosen.append(np.minimum(np.ceil(length / number * steps), length).astype(int) - 1)
        found[np.ix_(*(np.maximum(each, 0) for each in chosen))] = True
        return found

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "perforation", **asdict(self)}


def windows_of_positions(layer: Layer) -> np.ndarray | None:
    """In how many windows of the pooling that follows each output position lies.

    Figurnov et al. (NIPS 2016), section 3: the weights of the mask of the pooling structure.

    Args:
        layer: a convolution.

    Returns:
        int64 of the output's spatial shape; `None` where the result reaches a product, a branch or
        a sum before any pooling.

    Raises:
        ConfigError: nobody knows what follows.
    """
    if layer.after is None:
        raise ConfigError(
            f"layer {layer.name!r} must say what follows it for a mask of the pooling structure, "
            "got nothing; capture the trace again, or use mask='grid'"
        )
    size = layer.output_shape[2:]
    for step in layer.after.head:
        if step.kind in ("max_pool", "avg_pool") and len(step.kernel) == len(size):
            each = [
                _windows(*sizes)
                for sizes in zip(
                    size, step.shape[2:], step.kernel, step.stride, step.padding, strict=True
                )
            ]
            return reduce(np.multiply.outer, each)
    return None


def _windows(length: int, windows: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """`(length,)` int64, windows along one dimension that hold each place."""
    firsts = np.arange(windows) * stride - padding
    places = np.arange(length)[:, None]
    return np.count_nonzero((firsts <= places) & (places < firsts + kernel), axis=1)


_POSITIONS = true_of(
    lambda value: (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
        and all(first < second for first, second in zip((-1, *value), value, strict=False))
    ),
    "be positions in ascending order, the first at least 0",
    "number an image's positions row by row, as (0, 2, 5)",
)


@dataclass(frozen=True, kw_only=True)
class PerforationMask(Perforated):
    """A perforated convolution whose mask is given, position by position.

    For one layer, or for layers of one size. `perforation_impacts` finds what a mask of the
    positions that matter is made of, `greedy_perforation` a mask for each layer.

    Attributes:
        positions: that are computed, ascending, numbered row by row within an image.

    Raises:
        ConfigError: as `PerforationReuse`; at `decide` also where an image has fewer positions.
    """

    positions: Sequence[int] = field(metadata=_POSITIONS)

    def __post_init__(self) -> None:
        """Check every rule."""
        super().__post_init__()
        object.__setattr__(self, "positions", tuple(self.positions))

    @classmethod
    def of_largest(cls, weights: np.ndarray, computed: float) -> "PerforationMask":
        """The mask of the positions with the largest weights, of equal ones the first.

        Args:
            weights: `(*size)` of an image's positions.
            computed: fraction of them, above 0 to 1; at least one position.
        """
        number = max(1, round(computed * weights.size))
        order = np.argsort(-weights.ravel(), kind="stable")
        return cls(positions=tuple(np.sort(order[:number]).tolist()))

    def computed_positions(self, layer: Layer) -> np.ndarray:
        """Output positions that are computed, as a bool array of the output's spatial shape."""
        found = np.zeros(layer.output_shape[2:], bool)
        if self.positions[-1] >= found.size:
            raise ConfigError(
                f"PerforationMask.positions must be less than the {found.size} of layer "
                f"{layer.name!r}, got {self.positions[-1]}; give layers of other sizes masks of "
                "their own by PerLayer"
            )
        found.flat[list(self.positions)] = True
        return found

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "perforation_mask", "positions": list(self.positions)}


def _nearest(computed: np.ndarray) -> np.ndarray:
    """`(positions,)` the computed position, flat, nearest to each; itself where computed."""
    from scipy.ndimage import distance_transform_edt

    places = distance_transform_edt(~computed, return_distances=False, return_indices=True)
    return np.ravel_multi_index(tuple(places), computed.shape).ravel()


register(
    Technique(
        name="perforation",
        title="PerforatedCNN",
        axis="rows",
        word="skip",
        grain="position",
        rule="A convolution computes some output positions, the same of every image; each other "
        "one takes the result of the nearest computed one.",
        evidence="none: the mask is fixed",
        source="Figurnov et al., PerforatedCNNs, NIPS 2016",
        policy=PerforationReuse,
        units=("address_list", "reconstructor"),
        trained="nothing; greedy_perforation chooses rates and masks on calibration inputs, and "
        "the paper's figures are after fine-tuning",
        published=("PerforatedCNN",),
        choices={
            "computed": (0.15, 0.25, 0.35, 0.5, 0.75, 1.0),
            "mask": MASKS,
        },
        start={"computed": 0.5, "mask": "grid"},
        own=("computed",),
    )
)
