"""Which positions of every layer a region of the model's answer is made of: its halo."""

from collections.abc import Mapping

import numpy as np

from simulator.policies.passing_on import POINTWISE
from simulator.policies.patches import read_by, read_through
from simulator.policies.surroundings import Surroundings
from workloads.traces.after import Step
from workloads.traces.layer import Convolution, Layer

_POOLS = ("max_pool", "avg_pool")


def positions_for(region: np.ndarray, around: Surroundings) -> Mapping[str, np.ndarray]:
    """The positions that must be computed of each layer, from the answer back to the first layer.

    A convolution reads, for the positions that are wanted of it, their patches; between layers,
    what mixes positions in a way that is not known here wants all of them. Interpolation takes a
    position more on each side than it lies between.

    Args:
        region: `(height, width)` bool, wanted of the answers.
        around: the network.

    Returns:
        Layer name -> `(height, width)` bool, of layers that work on pictures; of the others, and of
        layers that nobody knows the way from, all positions are wanted.
    """
    wanted: dict[int, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    for number, step in reversed(tuple(around.steps.items())):
        if step.kind == "output":
            own = _scaled(region, step.shape[2:]) if len(step.shape) == 4 else None
        else:
            own = wanted.get(number)
        layer = around.products.get(number)
        if layer is not None and own is not None and is_picture(layer):
            found[layer.name] = own
        for given in dict.fromkeys(step.inputs):
            size = _shape(given, around)
            if size is not None:
                wanted[given] = wanted.get(given, False) | _before(step, layer, own, size)
    for number, layer in around.products.items():  # a first layer's is no other layer's step
        if number in wanted and is_picture(layer):
            found[layer.name] = wanted[number]
    return found


def is_picture(layer: Layer) -> bool:
    """Whether a layer's rows are the positions of a picture."""
    return layer.kind == "conv" and len(layer.output_shape) == 4


def _shape(number: int, around: Surroundings) -> tuple[int, ...] | None:
    """Height and width of a value; `None` where it is no picture."""
    product, step = around.products.get(number), around.steps.get(number)
    shape = product.output_shape if product is not None else () if step is None else step.shape
    return shape[2:] if len(shape) == 4 else None


def _whole(size: tuple[int, ...]) -> np.ndarray:
    return np.ones(size, bool)


def _before(
    step: Step, layer: Layer | None, own: np.ndarray | None, size: tuple[int, ...]
) -> np.ndarray:
    """What a step reads of one of its inputs, for what is wanted of it."""
    if own is None:
        return _whole(size)
    if layer is not None:
        read = read_by(layer, own[None])[0] if layer.kind == "conv" else _whole(size)
        return read if read.shape == size else _whole(size)
    if step.kind in ("output", *POINTWISE) and own.shape == size:
        return own
    if step.kind == "interpolation":
        return _scaled(own, size, more=1)
    if step.kind in _POOLS and len(step.kernel) == 2:
        windows = Convolution(
            kernel=step.kernel,
            stride=step.stride or step.kernel,
            padding=step.padding or (0, 0),
            dilation=(1, 1),
        )
        if windows.output_size(size) == own.shape:
            return read_through(windows, size, own[None])[0]
    return _whole(size)


def _scaled(region: np.ndarray, size: tuple[int, ...], more: int = 0) -> np.ndarray:
    """A region at another size: every position that overlaps it, and `more` on each side."""
    if region.shape == size:
        return region
    found = region
    for axis, length in enumerate(size):
        given = found.shape[axis]
        made = np.zeros((*found.shape[:axis], length, *found.shape[axis + 1 :]), bool)
        for place in np.flatnonzero(found.any(axis=1 - axis)):
            first = max(0, int(place) * length // given - more)
            last = min(length, -(-(int(place) + 1) * length // given) + more)
            cut = [slice(None), slice(None)]
            cut[axis] = slice(first, last)
            made[tuple(cut)] |= np.expand_dims(found.take(place, axis=axis), axis)
        found = made
    return found


def dilated(region: np.ndarray, by: int) -> np.ndarray:
    """A region grown by so many positions on every side, `(height, width)` bool."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(region, size=2 * by + 1, mode="constant", cval=0)
