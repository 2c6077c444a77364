"""Which places of a feature map a layer's rows read: patches of a convolution, or rows alone."""

import math
from functools import lru_cache
from itertools import product

import numpy as np

from simulator.decisions.rows import KeptRows
from simulator.kernels.changes import gather_patches
from workloads.traces.layer import Convolution, Layer

# Of one tap: its number; the outputs that read a place of the map by it; these places.
_Tap = tuple[int, tuple[slice, ...], tuple[slice, ...]]


def has_positions(layer: Layer) -> bool:
    """Whether a layer's rows are positions of images, and its weights stay."""
    return layer.weights_are_parameters and layer.row_images == layer.images


def input_size(layer: Layer) -> tuple[int, ...]:
    """Positions of an image of the input, by dimension; of what is no convolution, its rows."""
    if layer.kind == "conv":
        return layer.input_shape[2:]
    return (layer.gemm.m // layer.row_images,)


def output_size(layer: Layer) -> tuple[int, ...]:
    """Positions of an image of the product's rows, likewise."""
    return layer.output_shape[2:] if layer.kind == "conv" else input_size(layer)


def kept_since(
    layer: Layer,
    computed: np.ndarray,
    operands: np.ndarray | None = None,
    *,
    zero: bool = False,
) -> KeptRows:
    """Rows of frames in a row, each of which keeps what the last frame computed that did.

    Args:
        layer: with positions.
        computed: `(images, positions)` bool.
        operands: see `KeptRows`.
        zero: whether what is not computed is 0 instead.
    """
    gemm, (images, positions) = layer.gemm, computed.shape
    if zero:
        return KeptRows(
            gemm=gemm,
            kept=np.broadcast_to(~computed.ravel(), (gemm.count, gemm.m)),
            results=np.broadcast_to(np.float32(0), (gemm.count, gemm.m, gemm.n)),
            operands=operands,
        )
    numbers = np.arange(gemm.m).reshape(images, positions)
    # A position that no frame has computed yet keeps that of the last frame of the batch before.
    last = np.maximum.accumulate(np.where(computed, numbers, -1))
    sources = np.where(last < 0, np.arange(-positions, 0), last)
    shape = gemm.count, gemm.m
    return KeptRows(
        gemm=gemm,
        kept=np.broadcast_to(~computed.ravel(), shape),
        sources=np.broadcast_to(sources.ravel(), shape),
        operands=operands,
    )


def map_of(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """The feature map that rows are patches of; places that no row reads are 0.

    Args:
        layer: with positions.
        rows: `(count, m, k)` float32.

    Returns:
        `(channels, images, *size)` float32, where it lies if a tap reads all of it.
    """
    images, size = layer.row_images, input_size(layer)
    channels_last = rows.transpose(0, 2, 1)
    if layer.kind != "conv":
        return channels_last.reshape(-1, images, *size)
    assert layer.convolution is not None
    taps = math.prod(layer.convolution.kernel)
    patches = channels_last.reshape(-1, taps, images, *output_size(layer))
    read = _covering(layer.convolution, size)
    if len(read) == 1 and read[0][2] == tuple(slice(0, length, 1) for length in size):
        tap, outputs, _ = read[0]
        return patches[:, tap][:, :, *outputs]
    found = np.zeros((len(patches), images, *size), np.float32)
    for tap, outputs, places in read:
        found[:, :, *places] = patches[:, tap][:, :, *outputs]
    return found


def map_of_stored(layer: Layer, stored: np.ndarray) -> np.ndarray:
    """The same of a layer's activations as they are stored, which nobody unfolds for it.

    Args:
        layer: with positions.
        stored: float32 `(images, channels, *size)` of a convolution, `(count, m, k)` else.
    """
    if layer.kind != "conv":
        return map_of(layer, stored)
    assert layer.convolution is not None
    found, read = stored.swapaxes(0, 1), _is_read(layer.convolution, stored.shape[2:])
    return found if read.all() else np.where(read, found, np.float32(0))


def touched(layer: Layer, changed: np.ndarray) -> np.ndarray:
    """The rows that read one of some places: these, dilated by the kernel.

    Args:
        layer: with positions.
        changed: `(images, *size)` bool, places of the input.

    Returns:
        `(images, positions)` bool.
    """
    if layer.kind != "conv":
        return changed.reshape(len(changed), -1)
    assert layer.convolution is not None
    found = np.zeros((len(changed), *output_size(layer)), bool)
    for _, outputs, places in _taps(layer.convolution, changed.shape[1:]):
        found[:, *outputs] |= changed[:, *places]
    return found.reshape(len(changed), -1)


def read_by(layer: Layer, wanted: np.ndarray) -> np.ndarray:
    """The places that some rows read: the way back.

    Args:
        layer: with positions.
        wanted: `(images, *size of the output)` bool, rows.

    Returns:
        `(images, *size of the input)` bool.
    """
    if layer.kind != "conv":
        return wanted.copy()
    assert layer.convolution is not None
    return read_through(layer.convolution, input_size(layer), wanted)


def read_through(windows: Convolution, size: tuple[int, ...], wanted: np.ndarray) -> np.ndarray:
    """The places of a map that some windows read.

    Args:
        windows: of a kernel, or of pooling.
        size: of the map.
        wanted: `(images, *size of the output)` bool.

    Returns:
        `(images, *size)` bool.
    """
    found = np.zeros((len(wanted), *size), bool)
    for _, outputs, places in _taps(windows, size):
        found[:, *places] |= wanted[:, *outputs]
    return found


def patches_at(layer: Layer, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Some rows of a feature map.

    Args:
        layer: with positions.
        values: `(channels, *size)` float32 of one image.
        chosen: `(c,)` int64, positions of its output.

    Returns:
        `(count, k, c)` float32.
    """
    gemm = layer.gemm
    if layer.kind != "conv":
        return values.reshape(len(values), -1)[:, chosen].reshape(gemm.count, gemm.k, len(chosen))
    geometry = layer.convolution
    assert geometry is not None
    size = input_size(layer)
    whole = tuple(length + 2 * pad for length, pad in zip(size, geometry.padding, strict=True))
    padded = np.zeros((len(values), *whole), np.float32)
    inside = (slice(pad, pad + n) for pad, n in zip(geometry.padding, size, strict=True))
    padded[:, *inside] = values
    taps = np.indices(geometry.kernel).reshape(len(size), -1) * np.array(geometry.dilation)[:, None]
    outputs = np.array(np.unravel_index(chosen, output_size(layer)))
    firsts = outputs * np.array(geometry.stride)[:, None]
    # A run ends where an output is left out, and with a line of the map.
    begins = np.flatnonzero((np.diff(chosen, prepend=-2) != 1) | (outputs[-1] == 0))
    found = np.empty((len(values) * taps.shape[1], len(chosen)), np.float32)
    gather_patches(
        padded.reshape(len(values), -1),
        np.ravel_multi_index(tuple(taps), whole),
        np.ravel_multi_index(tuple(firsts[:, begins]), whole),
        np.diff(begins, append=len(chosen)),
        geometry.stride[-1],
        found,
    )
    return found.reshape(gemm.count, gemm.k, len(chosen))


@lru_cache(maxsize=256)
def _taps(convolution: Convolution, size: tuple[int, ...]) -> tuple[_Tap, ...]:
    """Every tap that reads any place of a map."""
    outputs = convolution.output_size(size)
    by_dimension = []
    for length, made, kernel, stride, padding, dilation in zip(
        size,
        outputs,
        convolution.kernel,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        strict=True,
    ):
        of_taps: list[tuple[slice, slice] | None] = []
        for tap in range(kernel):
            # Output o reads place o x stride + first, which must lie in the map.
            first = tap * dilation - padding
            low, high = max(0, -(first // stride)), min(made - 1, (length - 1 - first) // stride)
            last = high * stride + first
            of_taps.append(
                (slice(low, high + 1), slice(low * stride + first, last + 1, stride))
                if low <= high
                else None
            )
        by_dimension.append(of_taps)
    found = []
    for number, slices in enumerate(product(*by_dimension)):
        if all(each is not None for each in slices):
            read = [each for each in slices if each is not None]
            found.append((number, tuple(o for o, _ in read), tuple(p for _, p in read)))
    return tuple(found)


@lru_cache(maxsize=256)
def _is_read(convolution: Convolution, size: tuple[int, ...]) -> np.ndarray:
    """`(*size)` bool, places of a map that any tap reads."""
    found = np.zeros(size, bool)
    for _, _, places in _taps(convolution, size):
        found[places] = True
    return found


@lru_cache(maxsize=256)
def _covering(convolution: Convolution, size: tuple[int, ...]) -> tuple[_Tap, ...]:
    """Taps that read, together, all places that any does: few, those that read most first."""
    numbers = np.zeros(size, bool)
    left = sorted(_taps(convolution, size), key=lambda tap: -numbers[tap[2]].size)
    chosen = []
    for tap in left:
        if not numbers[tap[2]].all():
            numbers[tap[2]] = True
            chosen.append(tap)
    return tuple(chosen)
