"""Outputs that nobody computes: a mask over channels and positions, given beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from accelerators.rules import refuse, true_of, violations
from simulator.decisions.box import Decisions
from simulator.decisions.depth import DepthDecisions
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReusePolicy
from workloads.traces.layer import Layer


def _are_masks(value: object) -> bool:
    """Whether this is a matrix of truth values for each layer."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _is_mask(mask) for name, mask in value.items()
    )


def _is_mask(mask: object) -> bool:
    """Rows of as many truth values, at least one."""
    array = np.asarray(mask)
    return array.ndim == 2 and array.dtype == bool and array.size > 0


@dataclass(frozen=True, kw_only=True)
class SkippedOutputs(ReusePolicy):
    """Some outputs of a layer are 0 and not computed: the sums of none of their products are begun.

    The plainest of depth decisions, to study what outputs are worth; predictors of negative sums
    decide the same anew for every input. Every image has the same mask.

    Attributes:
        masks: layer name -> `(positions, n)` truth values, which outputs of an image (of a product,
            where rows belong to no image) are skipped; a single row serves all positions. Other
            layers run dense.

    Raises:
        ConfigError: at construction, where it is no such mapping; at `decide`, where a mask is of
            another shape or activations are not finite, naming the layer.
    """

    masks: Mapping[str, Sequence[Sequence[bool]]] = field(
        metadata=true_of(
            _are_masks,
            "map layers to (positions, columns) truth values",
            "try {'fc': ((True, False),)}",
        ),
        repr=False,
    )

    def __post_init__(self) -> None:
        """Check the masks."""
        refuse(violations(self, "SkippedOutputs"))
        masks = {
            name: tuple(map(tuple, np.asarray(mask).tolist())) for name, mask in self.masks.items()
        }
        object.__setattr__(self, "masks", masks)

    def applies_to(self, layer: Layer) -> bool:
        """To layers with a mask."""
        return layer.name in self.masks

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """A mask must be of its layer's outputs."""
        broken = []
        for layer in layers:
            shape = np.shape(self.masks.get(layer.name, ((False,) * layer.gemm.n,)))
            positions = layer.gemm.m // layer.row_images
            if shape not in ((positions, layer.gemm.n), (1, layer.gemm.n)):
                broken.append(
                    f"SkippedOutputs.masks of layer {layer.name!r} must be ({positions} or 1, "
                    f"{layer.gemm.n}), got {shape}; mark its outputs"
                )
        refuse(broken)

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """The same outputs of every image; `None` where none is skipped."""
        self.check_layers([layer])
        check_activations(layer, rows)
        mask = np.asarray(self.masks.get(layer.name, False))
        if not mask.any():
            return None
        gemm = layer.gemm
        if len(mask) > 1:
            mask = np.tile(mask, (layer.row_images, 1))
        terms = np.where(mask, 0, gemm.k).astype(np.int32)
        depth = DepthDecisions(gemm=gemm, terms=terms)
        return Decisions(layer=layer.name, gemm=gemm, depth=depth)

    def describe(self) -> dict:
        """The policy as plain values."""
        masks = {name: np.asarray(mask).tolist() for name, mask in self.masks.items()}
        return {"policy": "skipped_outputs", "masks": masks}
