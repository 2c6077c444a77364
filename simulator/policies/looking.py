"""How a layer's vectors are looked at: in which tiles, and once a tap or once a pixel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from simulator.decisions.looks import Loaded, Looks
from workloads.traces.layer import Layer

TILE_SHAPES = ("strip", "block")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A tile of a layer's rows, whose vectors are clustered apart from those of others.

    Attributes:
        rows: of an image at most so many, 1 or more. Tiles of an image are as equal as they can be.
        shape: `strip`, consecutive rows, or `block`, a square of a convolution's output positions;
            other layers have strips.
        frames: consecutive images whose rows at the same places are in one tile, 1 or more.
    """

    rows: int
    shape: str = "strip"
    frames: int = 1


def looks_of(layer: Layer, length: int, *, images: int, tile: Tile | None, once: bool) -> Looks:
    """How a layer's vectors are looked at.

    Where a pixel is looked at once, a convolution's input pixels are the vectors. Taps of a kernel
    whose distance is a whole number of strides meet the same pixels; those of another *kind* meet
    others: a stride of 2 has up to four kinds. A pixel is in the tile of the output position that
    lies at it, and beyond the borders in that of the nearest one. Pixels of zeros, in the padding,
    are not looked at. A layer of a single tap, or whose unpadded pixels outnumber its rows, which
    would multiply more than its dense product, is looked at row by row as ever.

    Args:
        layer: the layer.
        length: L, at most the channels that a tap meets where a pixel is looked at once.
        images: runs of rows that are clustered apart where there are no tiles.
        tile: within which vectors are clustered; `None` for whole runs.
        once: whether a pixel is looked at once, not once a tap.
    """
    return _looks_of(_of_its_shape(layer), length, images, tile, once)


@lru_cache(maxsize=2048)
def _of_its_shape(layer: Layer) -> Layer:
    """A layer that stands for all of the same shape: what is found of one is kept for all."""
    return replace(layer, name="layer", weights_are_parameters=True, quantisation=None)


@lru_cache(maxsize=64)
def _looks_of(layer: Layer, length: int, images: int, tile: Tile | None, once: bool) -> Looks:
    """As `looks_of`, kept: of a batch of large images each has megabytes."""
    gemm = layer.gemm
    if tile is None:
        tiles, of_row = images, None
    else:
        of_row = _tiles_of_rows(layer, tile)
        tiles = int(of_row[-1]) + 1
    pixels = _pixels(layer) if once or tile is not None else None
    if once and pixels is not None and is_looked_at_once(layer):
        if of_row is None:
            of_row = np.repeat(np.arange(tiles, dtype=np.int32), gemm.m // tiles)
        looks = Looks(
            gemm=gemm,
            sub_vector_length=length,
            tiles=tiles,
            tile_of=np.where(pixels.is_met, of_row[pixels.nearest], np.int32(-1)),
            kinds=pixels.kinds,
            places=pixels.places,
        )
        return _with_loads(looks, looks.vectors_of_kind.sum(axis=0)) if tile else looks
    if tile is None:
        return Looks(gemm=gemm, sub_vector_length=length, tiles=tiles)
    assert of_row is not None
    looks = Looks(gemm=gemm, sub_vector_length=length, tiles=tiles, tile_of=of_row[None])
    if pixels is None:
        return _with_loads(looks, looks.vectors_of_kind[0])
    return _loading(looks, pixels, of_row)


@lru_cache(maxsize=2048)
def is_looked_at_once(layer: Layer) -> bool:
    """Whether pixels, not rows, are what is looked at where the policy looks once."""
    pixels = _pixels(layer)
    if pixels is None:
        return False
    return bool((np.count_nonzero(pixels.is_met, axis=1) <= layer.gemm.m).all())


def _with_loads(looks: Looks, vectors: np.ndarray) -> Looks:
    """Tiles that load what nobody else does."""
    loaded = Loaded(
        positions=int(vectors.sum()), touched=vectors, fresh=vectors, window=int(vectors.max())
    )
    return replace(looks, loaded=loaded)


def _loading(looks: Looks, pixels: "_Pixels", of_row: np.ndarray) -> Looks:
    """Tiles of rows whose patches overlap."""
    tiles = looks.tiles
    touched, fresh = np.zeros(tiles, np.int64), np.zeros(tiles, np.int64)
    ended = np.zeros(tiles, np.int64)
    for kind in range(len(pixels.is_met)):
        taps = np.flatnonzero(pixels.kinds == kind)
        by = np.full((taps.size, pixels.is_met.shape[1]), -1, np.int32)
        for number, tap in enumerate(taps):
            seen = pixels.places[tap] >= 0
            by[number, pixels.places[tap, seen]] = of_row[seen]
        by.sort(axis=0)
        own = by >= 0
        own[1:] &= by[1:] != by[:-1]
        touched += np.bincount(by[own], minlength=tiles)
        last = by[-1]
        met = last >= 0
        first = np.where(by < 0, tiles, by).min(axis=0)
        fresh += np.bincount(first[met], minlength=tiles)
        ended += np.bincount(last[met], minlength=tiles)
    held = np.cumsum(fresh) - np.concatenate([[0], np.cumsum(ended)[:-1]])
    loaded = Loaded(
        positions=int(fresh.sum()), touched=touched, fresh=fresh, window=int(held.max())
    )
    return replace(looks, loaded=loaded)


def _tiles_of_rows(layer: Layer, tile: Tile) -> np.ndarray:
    """`(m,)` int32, the tile of each row."""
    m, size = layer.gemm.m, output_size(layer)
    if tile.shape == "block" and size is not None and len(size) == 2:
        side = max(1, math.isqrt(tile.rows))
        down, across = (-(-each // side) for each in size)
        y = np.arange(size[0]) * down // size[0]
        x = np.arange(size[1]) * across // size[1]
        within = (y[:, None] * across + x).ravel()
        each = down * across
    else:
        rows = math.prod(size) if size is not None else m // layer.row_images
        each = -(-rows // tile.rows)
        within = np.arange(rows) * each // rows
    runs = np.arange(m // within.size) // tile.frames
    return (runs[:, None] * each + within).ravel().astype(np.int32)


def output_size(layer: Layer) -> tuple[int, ...] | None:
    """Output positions of a convolution in each dimension; `None` of other layers."""
    if layer.kind != "conv" or layer.convolution is None:
        return None
    return layer.output_shape[2:]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pixels:
    """A convolution's input pixels, as its taps meet them.

    Attributes:
        kinds: `(t,)` int64, see `Looks`.
        places: `(t, m)` int32, likewise.
        is_met: `(u, p)` bool, whether a place holds a pixel that some row meets.
        nearest: `(p,)` or `(u, p)` int64, the row at or nearest to each.
    """

    kinds: np.ndarray
    places: np.ndarray
    is_met: np.ndarray
    nearest: np.ndarray


@lru_cache(maxsize=64)
def _pixels_of(layer_key: tuple) -> _Pixels:
    """As `_pixels`, of kernel, stride, padding, dilation, input and output size, and images."""
    kernel, stride, padding, dilation, size, output, images = layer_key
    dims = range(len(kernel))
    taps = np.stack(np.meshgrid(*(np.arange(each) for each in kernel), indexing="ij"), axis=-1)
    offsets = taps.reshape(-1, len(kernel)) * dilation
    phases, shifts = offsets % stride, offsets // stride
    distinct, kinds = np.unique(phases, axis=0, return_inverse=True)
    grid = shifts.max(axis=0) + output
    rows = np.stack(np.meshgrid(*(np.arange(each) for each in output), indexing="ij"), axis=-1)
    rows = rows.reshape(-1, len(kernel))
    steps = np.array([math.prod(grid[d + 1 :]) for d in dims], np.int64)
    places = ((rows[None] + shifts[:, None]) @ steps).astype(np.int64)
    outside = np.zeros(places.shape, bool)
    for d in dims:
        at = rows[None, :, d] * stride[d] + offsets[:, None, d] - padding[d]
        outside |= (at < 0) | (at >= size[d])
    nearest = []
    for phase in distinct:
        found = np.zeros(1, np.int64)
        for d in dims:
            centre = (kernel[d] - 1) * dilation[d] // 2
            at = np.arange(grid[d]) * stride[d] + phase[d] - centre + stride[d] // 2
            own = np.clip(at // stride[d], 0, output[d] - 1)
            found = (found[:, None] * output[d] + own).ravel()
        nearest.append(found)
    is_met = np.zeros((len(distinct), math.prod(grid)), bool)
    for kind, met, none in zip(kinds.ravel(), places, outside, strict=True):
        is_met[kind, met[~none]] = True
    each, of_image = is_met.shape[1], len(rows)
    numbers = np.arange(images)
    places = np.where(outside, -1, places)[:, None] + numbers[:, None] * each * ~outside[:, None]
    return _Pixels(
        kinds=kinds.ravel().astype(np.int64),
        places=places.reshape(len(offsets), -1).astype(np.int32),
        is_met=np.tile(is_met, (1, images)),
        nearest=(np.stack(nearest)[:, None] + numbers[:, None] * of_image).reshape(
            len(distinct), -1
        ),
    )


def _pixels(layer: Layer) -> _Pixels | None:
    """A convolution's pixels; `None` of a single tap, where rows meet nothing but padding, or of no
    convolution."""
    geometry, output = layer.convolution, output_size(layer)
    if geometry is None or output is None or math.prod(geometry.kernel) == 1:
        return None
    found = _pixels_of(
        (
            geometry.kernel,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            layer.input_shape[2:],
            output,
            layer.gemm.m // math.prod(output),
        )
    )
    return found if found.is_met.any() else None


def has_pixels_for_rows(layer: Layer) -> bool:
    """Whether each row of a convolution is one pixel of its input: a single tap, no padding."""
    geometry = layer.convolution
    if layer.kind != "conv" or geometry is None:
        return False
    return math.prod(geometry.kernel) == 1 and not any(geometry.padding)


def pixel_grid(layer: Layer) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Places that a kind of pixels has in each dimension of an image, and of each kind of taps the
    first of its pixels, counted from the corner of the padding. The next ones are strides apart.

    Args:
        layer: a convolution that is looked at once a pixel.
    """
    geometry, output = layer.convolution, output_size(layer)
    assert geometry is not None and output is not None
    offsets = [
        np.arange(size) * apart
        for size, apart in zip(geometry.kernel, geometry.dilation, strict=True)
    ]
    each = list(zip(offsets, geometry.stride, strict=True))
    grid = tuple(int((own // step).max()) + n for (own, step), n in zip(each, output, strict=True))
    return grid, list(product(*(np.unique(own % step).tolist() for own, step in each)))


def pixels_met(layer: Layer, looks: Looks) -> tuple[np.ndarray, ...]:
    """Of each kind of taps `(vectors,)` int64, their pixels in the order of `Looks.orders`, by the
    numbers of `pixel_numbers`.

    Args:
        layer: a convolution that is looked at once a pixel.
        looks: how it is looked at.
    """
    return _pixels_met(_of_its_shape(layer), looks)


@lru_cache(maxsize=64)
def _pixels_met(layer: Layer, looks: Looks) -> tuple[np.ndarray, ...]:
    """As `pixels_met`, kept."""
    pairs = zip(pixel_numbers(layer), looks.orders, strict=True)
    return tuple(numbers[order] for numbers, (order, _) in pairs)


def pixel_vectors(layer: Layer, images: np.ndarray, index: int) -> list[np.ndarray]:
    """Of each kind of taps the `(channels, p)` float32 vectors of a convolution's pixels.

    Args:
        layer: a convolution that is looked at once a pixel, or one of a single tap.
        images: `(n, channels, *size)` of its input.
        index: of the GEMM, a group of channels.
    """
    assert layer.convolution is not None
    channels = layer.input_shape[1] // layer.convolution.groups
    own = images[:, index * channels : (index + 1) * channels]
    found = []
    for grid, inside, given in _grids(layer):
        kind = np.zeros((channels, len(images), *grid), np.float32)
        kind[(slice(None), slice(None), *inside)] = own[
            (slice(None), slice(None), *given)
        ].swapaxes(0, 1)
        found.append(kind.reshape(channels, -1))
    return found


def pixel_numbers(layer: Layer) -> list[np.ndarray]:
    """Of each kind of taps the `(p,)` int64 pixel of the input at each place, -1 in the padding.

    Pixels are numbered through the images of a batch, as `images` of `pixel_vectors` hold them.

    Args:
        layer: a convolution that is looked at once a pixel, or one of a single tap.
    """
    count, _, *size = layer.input_shape
    numbers = np.arange(count * math.prod(size)).reshape(count, *size)
    found = []
    for grid, inside, given in _grids(layer):
        kind = np.full((count, *grid), -1, np.int64)
        kind[(slice(None), *inside)] = numbers[(slice(None), *given)]
        found.append(kind.ravel())
    return found


def _grids(layer: Layer) -> Iterator[tuple[tuple[int, ...], list[slice], list[slice]]]:
    """Of each kind of taps its grid of places, the part of it that holds pixels, and which."""
    geometry = layer.convolution
    assert geometry is not None
    grid, kinds = pixel_grid(layer)
    for phase in kinds:
        inside, given = [], []
        for d, begin in enumerate(phase):
            pad, step, size = geometry.padding[d], geometry.stride[d], layer.input_shape[2 + d]
            first = -(-max(0, pad - begin) // step)
            at = first * step + begin - pad
            held = max(0, min(grid[d] - first, -(-(size - at) // step)))
            inside.append(slice(first, first + held))
            given.append(slice(at, at + held * step, step))
        yield grid, inside, given
