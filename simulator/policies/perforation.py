"""Perforated convolutions: a fixed mask of output positions, whatever the input."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from accelerators import ConfigError
from accelerators.rules import integer, one_of, real, refuse, violations
from simulator.decisions.box import Decisions
from simulator.decisions.rows import FilledRows
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import Layer

MASKS = ("grid", "uniform")


@dataclass(frozen=True, kw_only=True)
class PerforationReuse(ReusePolicy):
    """A convolution computes some output positions; the others take the nearest one's result.

    Figurnov et al. (NIPS 2016), section 3: one mask for all images and channels, and each skipped
    position takes the value of the nearest computed one (Euclidean distance, ties to the earlier).
    What Deep Reuse compares with in table IV. Convolutions only.

    Attributes:
        computed: fraction of positions that are computed, above 0 to 1; 1 minus the paper's
            perforation rate.
        mask: `grid`, the product of a choice of rows and one of columns, each ceil(a (i + u)) with
            a = size / number and u drawn from [0, 1) (Graham, "Fractional max-pooling", 2014), or
            `uniform`, drawn at random without replacement.
        seed: of the mask; a layer's own is drawn from it and the layer's name.

    Raises:
        ConfigError: at construction, with every violated rule; at `decide`, where a layer is no
            convolution or activations are not finite, naming the layer.
    """

    computed: float = field(metadata=real(1e-6, 1.0))
    mask: str = field(default="grid", metadata=one_of(lambda: MASKS))
    seed: int = field(default=0, metadata=integer(0, 2**63 - 1))

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, "PerforationReuse"))

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """Only a convolution has positions."""
        others = [layer.name for layer in layers if layer.kind != "conv"]
        if others:
            raise ConfigError(
                f"PerforationReuse.mask must be laid over convolutions, got {', '.join(others)}; "
                "give these layers a policy of their own or NoReuse()"
            )

    def computed_positions(self, layer: Layer) -> np.ndarray:
        """Output positions that are computed, as a bool array of the output's spatial shape."""
        rng = np.random.default_rng([self.seed, zlib.crc32(layer.name.encode())])
        size = layer.output_shape[2:]
        found = np.zeros(size, bool)
        if self.mask == "uniform":
            number = max(1, round(self.computed * found.size))
            found.flat[rng.choice(found.size, number, replace=False)] = True
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

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same positions for every image; `None` where an image has a single position."""
        self.check_layers([layer])
        check_activations(layer, rows)
        gemm, positions = layer.gemm, math.prod(layer.output_shape[2:])
        images = gemm.m // positions
        if positions == 1:
            return None
        computed = self.computed_positions(layer)
        nearest = _nearest(computed)
        kept, taps = np.unique(nearest, return_inverse=True)
        return Decisions(
            layer=layer.name,
            gemm=gemm,
            rows=FilledRows(
                gemm=gemm,
                images=images,
                computed=kept,
                taps=taps.astype(np.int32).reshape(-1, 1),
            ),
        )

    def describe(self) -> dict:
        """The policy as plain values."""
        return {"policy": "perforation", **asdict(self)}


def _nearest(computed: np.ndarray) -> np.ndarray:
    """`(positions,)` the computed position, flat, nearest to each; itself where computed."""
    from scipy.ndimage import distance_transform_edt

    places = distance_transform_edt(~computed, return_distances=False, return_indices=True)
    return np.ravel_multi_index(tuple(places), computed.shape).ravel()
