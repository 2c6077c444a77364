"""Where the sub-vectors of a convolution's rows lie in its feature map: nothing is unfolded."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from simulator.reuse.kernels import (
    Families,
    Places,
    cluster_maps,
    lane_thresholds,
    lane_weights,
    map_scratch,
    new_tables,
)
from simulator.reuse.lanes import LANES, aligned_empty, padded
from workloads.gemm import Layer

# Sub-matrices taken together: their tables and centroids share the second-level cache.
_TOGETHER = 24


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """Padded feature maps, laid out for the compiled loops.

    With a stride of s across, every s-th value of a row lies together, so that the values that one
    tap meets at neighbouring places are contiguous.

    Attributes:
        values: flat float32 with a vector to spare, which kernels may read beyond the end.
        places: the output's.
    """

    values: np.ndarray
    places: Places


def is_laid_out(layer: Layer) -> bool:
    """Whether a layer's sub-vectors can be read from its feature map: two-dimensional ones."""
    geometry = layer.convolution
    return layer.kind == "conv" and geometry is not None and len(geometry.kernel) == 2


def lay_out(layer: Layer, images: np.ndarray) -> FeatureMap:
    """Pad feature maps of any memory order.

    Args:
        layer: a two-dimensional convolution.
        images: `(images, channels, height, width)` of its input.
    """
    geometry = layer.convolution
    assert geometry is not None
    (top, left), (down, across) = geometry.padding, geometry.stride
    _, _, rows, columns = _steps(layer)
    count, channels, height, width = images.shape
    size = count * channels * rows * across * columns
    flat = aligned_empty((size + LANES,))
    flat[size:] = 0
    laid = flat[:size].reshape(count, channels, rows, across, columns)
    for phase in range(across):
        # Places of this phase hold the columns first, first + across ... of the images.
        begin = -(-max(0, left - phase) // across)
        first = begin * across + phase - left
        held = max(0, -(-(width - first) // across))
        part = laid[:, :, :, phase]
        part[:, :, :top], part[:, :, top + height :] = 0, 0
        inside = part[:, :, top : top + height]
        inside[..., :begin], inside[..., begin + held :] = 0, 0
        inside[..., begin : begin + held] = images[..., first::across]
    _, _, out_height, out_width = layer.output_shape
    places = Places(
        count, out_height, out_width, channels * rows * across * columns, down * across * columns
    )
    return FeatureMap(values=flat, places=places)


def _steps(layer: Layer) -> tuple[int, int, int, int]:
    """Floats from a channel to the next and from a row; rows, and columns of one phase."""
    geometry = layer.convolution
    assert geometry is not None
    (top, left), across = geometry.padding, geometry.stride[1]
    rows = layer.input_shape[2] + 2 * top
    columns = -(-(layer.input_shape[3] + 2 * left) // across)
    return rows * across * columns, across * columns, rows, columns


@lru_cache(maxsize=256)
def families_of(layer: Layer, length: int, channels_last: bool, index: int) -> Families:
    """The families of all sub-matrices of one of a layer's GEMMs.

    Args:
        layer: a two-dimensional convolution.
        length: L.
        channels_last: the order of a row's elements, see `SubVectorPolicy.order`.
        index: of the GEMM, a group of channels.
    """
    geometry = layer.convolution
    assert geometry is not None
    channel_step, row_step, _, columns = _steps(layer)
    channels = layer.input_shape[1] // geometry.groups
    (high, wide), (down, across), (apart, beside) = (
        geometry.kernel, geometry.stride, geometry.dilation
    )  # fmt: skip
    axes = np.arange(channels), np.arange(high) * apart, np.arange(wide) * beside
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    elements = (grid.transpose(1, 2, 0, 3) if channels_last else grid).reshape(-1, 3)
    channel, row, column = elements.T
    within = column % across * columns + column // across
    offsets = (channel + index * channels) * channel_step + row * row_step + within
    kin: dict[tuple, list[tuple[int, int]]] = {}
    for number, start in enumerate(range(0, len(offsets), length)):
        own = offsets[start : start + length]
        shift, rest = divmod(int(row[start]), down)
        key = channel[start], column[start], rest, (own - own[0]).tobytes()
        kin.setdefault(key, []).append((shift, number))
    return _arranged([sorted(each) for each in kin.values()], offsets, length)


def _arranged(kin: list[list[tuple[int, int]]], offsets: np.ndarray, length: int) -> Families:
    """Families of (shift, sub-matrix) pairs, the highest first."""
    found = np.zeros((len(kin), padded(length)), np.int64)
    lengths = np.empty(len(kin), np.int64)
    for place, members in enumerate(kin):
        start = members[0][1] * length
        own = offsets[start : start + length]
        found[place], found[place, : len(own)] = own[0], own
        lengths[place] = len(own)
    sizes = [len(members) for members in kin]
    return Families(
        offsets=found,
        lengths=lengths,
        members=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        shifts=np.array([shift - each[0][0] for each in kin for shift, _ in each], np.int64),
        numbers=np.array([number for each in kin for _, number in each], np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class ClusteredTables:
    """Some sub-matrices' clusters; overwritten by the next ones'.

    Attributes:
        numbers: `(t,)` int64, the sub-matrices.
        lengths: `(t,)` int64, elements of their sub-vectors.
        clusters: `(t, groups)` int32.
        sums: `(t, capacity, L padded)` float32, means of the clusters, groups one behind the other;
            beyond a sub-vector's length they hold no numbers of use.
        signatures: `(t, capacity)` uint64.
        ids: `(t, m)` int32; `None` where they went elsewhere.
    """

    numbers: np.ndarray
    lengths: np.ndarray
    clusters: np.ndarray
    sums: np.ndarray
    signatures: np.ndarray
    ids: np.ndarray | None


def clustered(
    laid: FeatureMap,
    families: Families,
    groups: int,
    projections: np.ndarray,
    thresholds: np.ndarray,
    ids: np.ndarray | None = None,
) -> Iterator[ClusteredTables]:
    """Cluster the sub-matrices of some families, a few at a time.

    Args:
        laid: the feature maps.
        families: where the sub-vectors lie.
        groups: runs of rows that are clustered apart.
        projections: `(H, L)` float32 hyperplanes.
        thresholds: `(s, H)` float32.
        ids: `(s, m)` int32 to write to.
    """
    parts = list(_chunks(families))
    most = max(len(part.numbers) for part in parts)
    hashes, length = projections.shape
    m = laid.places.images * laid.places.height * laid.places.width
    tables = new_tables(most, m // groups, hashes)
    capacity = groups * tables.signatures.shape[1]
    sums = aligned_empty((most, capacity, padded(length)))
    names = np.empty((most, capacity), np.uint64)
    clusters = np.empty((most, groups), np.int32)
    scratch = map_scratch(length, hashes)
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    own = np.empty((most, m), np.int32) if ids is None else ids
    generation = 0
    for part in parts:
        count = len(part.numbers)
        generation = cluster_maps(
            laid.values, laid.places, part, groups, weights, limits[part.numbers], tables,
            generation, scratch, sums, names, own,
            np.arange(count) if ids is None else part.numbers, clusters,
        )  # fmt: skip
        yield ClusteredTables(
            numbers=part.numbers,
            lengths=np.repeat(part.lengths, np.diff(part.members)),
            clusters=clusters[:count],
            sums=sums,
            signatures=names,
            ids=own[:count] if ids is None else None,
        )


def shared_out(families: Families, parts: int) -> Iterator[Families]:
    """The families in up to `parts` parts of about as many sub-matrices."""
    ends = np.linspace(0, len(families.numbers), parts + 1)
    cuts = np.searchsorted(families.members, ends)
    for first, last in pairwise(cuts):
        if first < last:
            yield _some(families, first, last)


def _chunks(families: Families) -> Iterator[Families]:
    """Some families after the other, of about `_TOGETHER` sub-matrices."""
    first = 0
    while first < len(families.lengths):
        room = families.members[first] + _TOGETHER
        last = max(first + 1, int(np.searchsorted(families.members, room, "right")) - 1)
        yield _some(families, first, last)
        first = last


def _some(families: Families, first: int, last: int) -> Families:
    """Families `first` to `last`, with the tables from 0 on."""
    begin = families.members[first]
    tables = slice(begin, families.members[last])
    return Families(
        offsets=families.offsets[first:last],
        lengths=families.lengths[first:last],
        members=families.members[first : last + 1] - begin,
        shifts=families.shifts[tables],
        numbers=families.numbers[tables],
    )
