"""Where a sum may be 0 before it is known: what follows a layer, and why some must run dense."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from accelerators import ConfigError
from accelerators.rules import refuse, violations
from simulator.decisions.box import Decisions
from simulator.policies.activations import check_activations
from simulator.policies.policy import LayerState, ReadWeights, ReusePolicy, affine_of
from workloads.traces.after import AFFINE, After, Step
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

# Between a sum and its ReLU, what leaves 0 where the sum is 0, and below where it is below.
_SIGN_STAYS = ("reshape", "cast", "max_pool", "part")
_NEVER_ZERO = {
    "prelu": "a PReLU, which keeps what is below 0",
    "leaky_relu": "a leaky ReLU, which keeps what is below 0",
    "silu": "a SiLU, which is not 0 below 0",
    "gelu": "a GELU, which is not 0 below 0",
    "add": "an addition: the sum is only part of what the ReLU sees",
    "subtract": "a subtraction: the sum is only part of what the ReLU sees",
    "multiply": "a multiplication by another value",
    "concatenation": "a concatenation with other maps",
    "product": "the next product",
    "output": "the model's output",
    "other": "an operation that is not understood",
}


def relu_after(layer: Layer) -> Step | None:
    """The ReLU that a layer's whole result goes through, but for scale, shift and moves, alone."""
    return None if _obstacle(layer) else _relu(layer)


def why_dense(layer: Layer, *, needs_nonnegative: bool) -> str:
    """Why a layer's sums must all be computed; empty where they may end before.

    ReLU6 counts as a ReLU: what is above 6 is no sum that may end.

    Args:
        layer: with what follows it, as a trace says.
        needs_nonnegative: whether what is decided holds only for inputs of at least 0.
    """
    found = _obstacle(layer)
    if found:
        return found
    if needs_nonnegative and layer.input_is_nonnegative is not True:
        return (
            "its input may be below 0, so that a sum may still rise"
            if layer.input_is_nonnegative is False
            else "nobody knows whether its input may be below 0; capture the model again"
        )
    return ""


def _relu(layer: Layer) -> Step | None:
    assert layer.after is not None
    return next((step for step in layer.after.head if step.kind == "relu"), None)


def _obstacle(layer: Layer) -> str:
    """What stands between a sum and a ReLU, in words; empty where nothing does."""
    after, found = layer.after, ""
    if after is None:
        found = "nobody knows what follows it; capture the model again"
    elif not layer.weights_are_parameters or layer.kind == "conv_transpose":
        found = "its columns are no filters that are known beforehand"
    elif after.folded is None:
        found = "its result is not one column a filter"
    else:
        found = _way_to_relu(after, after.folded)
    return found


def _way_to_relu(after: After, folded: int) -> str:
    """What a result meets before a ReLU, in words; empty where it goes there by itself."""
    number = after.number
    for step in after.head:
        if step.kind == "relu":
            return ""
        number = step.number
        if number > folded and step.kind not in _SIGN_STAYS:
            return f"after it comes {_words(step)}"
    readers = after.readers(number)
    if len(readers) == 1:
        return f"after it comes {_words(readers[0])}"
    named = ", ".join(dict.fromkeys(each.kind for each in readers)) or "nothing"
    return f"its result is read by {named} before any ReLU, not by one alone"


def _words(step: Step) -> str:
    if step.kind in AFFINE:
        return f"{step.kind}, which is not the same for a whole column"
    return _NEVER_ZERO.get(step.kind, step.kind.replace("_", " ")) + (
        f" ({step.operation})" if step.kind == "other" and step.operation else ""
    )


class EarlyNegatives(ReusePolicy):
    """Sums that will be 0 after a ReLU end early; layers without such a ReLU run dense.

    `reasons` says why. A policy of this kind learns of a layer the weights, scaled as bias and
    batch normalisation scale them, so that a result is `weights . row + shift` as the ReLU sees it.
    """

    needs_nonnegative = False

    def __post_init__(self) -> None:
        """Check every rule."""
        refuse(violations(self, type(self).__name__))

    def why_dense(self, layer: Layer) -> str:
        """Why a layer runs dense; empty where sums may end."""
        return why_dense(layer, needs_nonnegative=self.needs_nonnegative)

    def reasons(self, layers: WorkloadTrace | Sequence[Layer]) -> Mapping[str, str]:
        """Layer name -> why it runs dense, of those that do.

        Args:
            layers: a trace, or layers of one.
        """
        listed = layers.layers if isinstance(layers, WorkloadTrace) else layers
        found = {layer.name: self.why_dense(layer) for layer in listed}
        return {name: reason for name, reason in found.items() if reason}

    def applies_to(self, layer: Layer) -> bool:
        """To layers whose sums may end."""
        return not self.why_dense(layer)

    def needs_calibration(self, layer: Layer) -> bool:
        """The weights must be known."""
        return self.applies_to(layer)

    def check_layers(self, layers: Sequence[Layer]) -> None:
        """At least one layer's sums may end; else all reasons are told."""
        reasons = self.reasons(layers)
        if layers and len(reasons) == len(layers):
            raise ConfigError(
                [
                    f"{type(self).__name__} must have a layer whose sums may end early, got "
                    f"{name!r}, where none may: {reason}; use NoReuse() there"
                    for name, reason in reasons.items()
                ]
            )

    def calibrate(
        self, layer: Layer, rows: np.ndarray, weights: ReadWeights | None = None
    ) -> LayerState:
        """What the layer's ReLU sees of rows, and what the policy learns of it."""
        check_activations(layer, rows)
        if weights is None:
            raise ConfigError(
                f"{type(self).__name__} must read the weights of layer {layer.name!r} to "
                "calibrate, got none; pass them"
            )
        scale, shift = scale_and_shift(layer, weights)
        scaled = (weights() * scale[:, None]).astype(np.float32)
        found = dict(self.learned(layer, rows, scaled, shift))
        zero = np.divide(-shift, scale, out=np.zeros_like(shift), where=scale != 0)
        return {**found, "shift": shift, "ended": zero[:, None]}

    @abstractmethod
    def learned(
        self, layer: Layer, rows: np.ndarray, weights: np.ndarray, shift: np.ndarray
    ) -> LayerState:
        """What is learned of a layer.

        Args:
            layer: the layer.
            rows: as `calibrate` gets them.
            weights: `(count, k, n)` float32, scaled.
            shift: `(count, n)` float32.
        """

    @abstractmethod
    def ending(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions:
        """Where the sums of a layer end."""

    def decide(self, layer: Layer, rows: np.ndarray, state: LayerState) -> Decisions | None:
        """Where the sums end; `None` where the layer's may not."""
        reason = self.why_dense(layer)
        if reason:
            return None
        check_activations(layer, rows)
        if "shift" not in state or state["shift"].shape != (layer.gemm.count, layer.gemm.n):
            raise ConfigError(
                f"calibration of layer {layer.name!r} must hold what {type(self).__name__} learned "
                "of it, got something else; calibrate with the same policy and model"
            )
        return self.ending(layer, rows, state)


def scale_and_shift(layer: Layer, weights: ReadWeights) -> tuple[np.ndarray, np.ndarray]:
    """`(count, n)` float32 each: a row's sum, scaled and shifted, is what the ReLU sees.

    Raises:
        ConfigError: bias or batch normalisation follow, and nobody knows their numbers.
    """
    shape, affine = (layer.gemm.count, layer.gemm.n), affine_of(weights)
    if affine is not None:
        scale, shift = affine.scale, affine.shift
    elif layer.after is not None and layer.after.folded == layer.after.number:
        scale, shift = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    else:
        raise ConfigError(
            f"weights of layer {layer.name!r} must come with the scale and shift of its results, "
            "got weights alone; calibrate on a trace, which has both"
        )
    if layer.quantisation is not None:
        scale = scale * np.float32(layer.quantisation.scale)
    return scale.astype(np.float32), shift.astype(np.float32)
