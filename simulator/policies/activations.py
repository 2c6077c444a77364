"""The activations that a policy is given, and checks of them and of the calibration."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from accelerators import ConfigError
from accelerators.rules import show
from simulator.decisions.left import layer_of_images
from workloads.traces.layer import Layer
from workloads.traces.unfold import rows_of


class Activations:
    """A layer's activations as the array sees them, unfolded only if someone asks for rows.

    Args:
        layer: the layer.
        stored: float32 `(images, channels, *size)` of a convolution, `(count, m, k)` else.

    Attributes:
        stored: the same; of a quantised layer, whole steps from its zero point.
    """

    def __init__(self, layer: Layer, stored: np.ndarray) -> None:
        self._layer = layer
        self.stored = stored if layer.quantisation is None else layer.quantisation.steps(stored)

    def of_images(self, layer: Layer, images: np.ndarray) -> "Activations":
        """Those of some images of the batch.

        Args:
            layer: the same layer, of all images.
            images: `(i,)` int64, their numbers; each has an equal share of the rows or products.
        """
        stored, batch = self.stored, layer.images
        if layer.convolution is None and layer.row_images == batch:
            count, m, k = stored.shape
            some = stored.reshape(count, batch, m // batch, k)[:, images].reshape(count, -1, k)
        else:
            some = stored.reshape(batch, -1, *stored.shape[1:])[images]
            some = some.reshape(-1, *stored.shape[1:])
        found = object.__new__(Activations)
        found._layer, found.stored = layer_of_images(layer, len(images)), some
        return found

    @cached_property
    def rows(self) -> np.ndarray:
        """`(count, m, k)` float32, the rows of one column contiguous."""
        return rows_of(self._layer, self.stored)

    def rescaled(self, product: np.ndarray) -> np.ndarray:
        """A product of `rows` in the layer's own units: of a quantised one, no more in steps."""
        grid = self._layer.quantisation
        return product if grid is None else product * np.float32(grid.scale)


def check_rows(layer: Layer, rows: np.ndarray) -> None:
    """Activations must be rows of the layer; calibration may have another number of them.

    Raises:
        ConfigError: naming the layer.
    """
    gemm = layer.gemm
    if rows.ndim != 3 or rows.shape[::2] != (gemm.count, gemm.k) or not rows.shape[1]:
        raise ConfigError(
            f"activations of layer {layer.name!r} must be ({gemm.count}, rows, {gemm.k}) with at "
            f"least one row, got shape {rows.shape}; give the layer's own rows"
        )


def check_activations(layer: Layer, rows: np.ndarray) -> None:
    """Both: rows of the layer, and finite ones.

    Raises:
        ConfigError: naming the layer.
    """
    check_rows(layer, rows)
    check_finite(layer, rows)


def check_finite(layer: Layer, values: np.ndarray) -> None:
    """No value may be NaN or infinite; either, anywhere, shows in the sum.

    Raises:
        ConfigError: naming the layer.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    # A sum of 32 bits may overflow, but takes a tenth of the time.
    if not np.isfinite(total) and not np.isfinite(values.sum(dtype=np.float64)):
        raise non_finite(layer)


def non_finite(layer: Layer) -> ConfigError:
    """The error for values that are none."""
    return ConfigError(
        f"activations of layer {layer.name!r} must be finite, got NaN or infinity; "
        "check the model's weights and inputs"
    )


def check_state(
    layer: Layer, state: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """A calibration must hold finite arrays of these shapes; it may hold more.

    Raises:
        ConfigError: naming the layer.
    """
    held = {name: state[name] for name in wanted if name in state}
    floats = all(isinstance(each, np.ndarray) and each.dtype.kind == "f" for each in held.values())
    found = {name: array.shape for name, array in held.items()} if floats else held
    if found != wanted:
        raise ConfigError(
            f"calibration of layer {layer.name!r} must hold arrays {dict(wanted)} of floats for "
            f"its policy, got {show(found)}; calibrate with the same policy"
        )
    for array in held.values():
        check_finite(layer, array)
