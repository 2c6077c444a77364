"""Changed positions from layer to layer: through what stands between two products."""

from collections.abc import Mapping

import numpy as np

from simulator.decisions.evidence import Changes
from simulator.decisions.rows import KeptRows
from simulator.policies.patches import output_size
from simulator.policies.surroundings import Surroundings
from workloads.traces.after import ACTIVATIONS, AFFINE, Step
from workloads.traces.layer import Layer

# A position of what they make depends on the same position of what they read, and on nothing else.
POINTWISE = (
    *AFFINE,
    *(each for each in ACTIVATIONS if each not in ("softmax", "log_softmax")),
    *("add", "subtract", "multiply", "concatenation", "quantisation", "cast"),
)
_POOLS = ("max_pool", "avg_pool")


def takes_lists(layer: Layer) -> bool:
    """Whether a layer's rows are single positions of a picture, so that a list may be passed on."""
    convolution = layer.convolution
    if layer.kind != "conv" or convolution is None or len(layer.input_shape) != 4:
        return False
    return set(convolution.kernel) == {1} and not any(convolution.padding)


def passed_on(layer: Layer, around: Surroundings) -> np.ndarray | None:
    """The places of a layer's input that earlier layers computed anew.

    What they kept is the same as in the frame before, and so is all that follows from it, position
    by position, up to this layer. Pooling whose windows do not overlap is passed too.

    Args:
        layer: that reads the list.
        around: the network, and what was decided on the layers before.

    Returns:
        `(images, height, width)` bool; `None` where the layer must look for itself, as something
        between mixes positions, or a layer before did not look for changes.
    """
    number = around.input_of(layer)
    if number is None:
        return None
    found = _changed(number, around, {})
    return found if found is not None and found.shape[1:] == layer.input_shape[2:] else None


def _changed(
    number: int, around: Surroundings, known: dict[int, np.ndarray | None]
) -> np.ndarray | None:
    """The positions of a value that were computed anew; `None` where nobody can tell."""
    if number not in known:
        known[number] = None
        product, step = around.products.get(number), around.steps.get(number)
        if product is not None:
            known[number] = _computed(product, around.decisions)
        elif step is not None and step.inputs:
            parts = [_changed(each, around, known) for each in step.inputs]
            known[number] = _after(step, parts)
    return known[number]


def _computed(layer: Layer, decisions: Mapping) -> np.ndarray | None:
    """A product's computed positions, if changes decided them."""
    made = decisions.get(layer.name)
    if made is None or layer.kind != "conv" or len(layer.output_shape) != 4:
        return None
    if not isinstance(made.rows, KeptRows) or type(made.evidence) is not Changes:
        return None
    return ~made.rows.kept[0].reshape(layer.row_images, *output_size(layer))


def _after(step: Step, parts: list[np.ndarray | None]) -> np.ndarray | None:
    """What a step makes of changed positions."""
    masks = [part for part in parts if part is not None]
    if len(masks) < len(parts) or len({mask.shape for mask in masks}) != 1:
        return None
    changed = np.asarray(np.stack(masks).any(axis=0))
    if step.kind in _POOLS:
        return _pooled(step, changed)
    whole = len(step.shape) == 4 and step.shape[2:] == changed.shape[1:]
    return changed if step.kind in POINTWISE and whole else None


def _pooled(step: Step, changed: np.ndarray) -> np.ndarray | None:
    """Windows with a changed position, where every position is in one window at most."""
    if len(step.kernel) != 2 or step.kernel != step.stride or any(step.padding):
        return None
    (images, *size), (down, across), made = changed.shape, step.kernel, step.shape[2:]
    if tuple(made) != (size[0] // down, size[1] // across):
        return None
    cut = changed[:, : made[0] * down, : made[1] * across]
    windows = cut.reshape(images, made[0], down, made[1], across)
    return np.asarray(windows.any(axis=(2, 4)))
