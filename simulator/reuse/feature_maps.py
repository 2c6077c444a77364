"""Where the sub-vectors of a convolution's rows lie in its feature map: nothing is unfolded."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from accelerators import ConfigError
from simulator.reuse.kernels import (
    Families,
    Places,
    cluster_maps,
    gather_add,
    lane_thresholds,
    lane_weights,
    map_scratch,
    multiply,
    new_tables,
)
from simulator.reuse.lanes import LANES, aligned_empty, padded
from workloads.gemm import Layer

# Sub-matrices taken together: their tables and centroids share the second-level cache.
_TOGETHER = 24
# Rows of groups that are taken together, likewise.
_ROWS_TOGETHER = 1024
# Longer sub-vectors are left to BLAS.
_SHORT = 64


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
    """Clusters of some sub-matrices in some groups; overwritten by the next ones'.

    Attributes:
        numbers: `(t,)` int64, the sub-matrices.
        lengths: `(t,)` int64, elements of their sub-vectors.
        groups: the groups.
        clusters: `(t, groups here)` int32.
        totals: `(t,)` int64, clusters in all groups.
        sums: `(t or more, capacity, L padded)` float32, means of the clusters, groups one behind
            the other; beyond a sub-vector's length they hold no numbers of use.
        ids: `(any, m)` int32.
        rows: `(t,)` int64, the sub-matrices' rows in `ids`.
    """

    numbers: np.ndarray
    lengths: np.ndarray
    groups: range
    clusters: np.ndarray
    totals: np.ndarray
    sums: np.ndarray
    ids: np.ndarray
    rows: np.ndarray

    def representatives(self, length: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each sub-matrix and its `(clusters, L)` means, zero beyond a short sub-vector."""
        for table, (number, own) in enumerate(zip(self.numbers, self.lengths, strict=True)):
            means = self.sums[table, : self.totals[table], :length].copy()
            means[:, own:] = 0
            yield int(number), means

    def round(self) -> None:
        """Make the means whole numbers."""
        for means, total in zip(self.sums, self.totals, strict=False):
            np.rint(means[:total], out=means[:total])


def clustered(
    laid: FeatureMap,
    families: Families,
    groups: int,
    projections: np.ndarray,
    thresholds: np.ndarray,
    ids: np.ndarray | None = None,
    names: np.ndarray | None = None,
) -> Iterator[ClusteredTables]:
    """Cluster the sub-matrices of some families, a few of them and a few groups at a time.

    Args:
        laid: the feature maps.
        families: where the sub-vectors lie.
        groups: runs of rows that are clustered apart.
        projections: `(H, L)` float32 hyperplanes.
        thresholds: `(s, H)` float32.
        ids: `(s, m)` int32 to write to, where all are wanted.
        names: `(s, m or as many as there can be)` uint64 to write signatures to, likewise.
    """
    parts = list(_chunks(families))
    most = max(len(part.numbers) for part in parts)
    hashes, length = projections.shape
    m = laid.places.images * laid.places.height * laid.places.width
    rows = m // groups
    at_once = max(1, min(groups, _ROWS_TOGETHER // rows))
    tables = new_tables(most, rows, hashes)
    # Eight are multiplied at a time.
    capacity = padded(at_once * tables.largest)
    sums = aligned_empty((most, capacity, padded(length)))
    clusters = np.empty((most, at_once), np.int32)
    scratch = map_scratch(length, hashes)
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    if ids is None or names is None:
        local, ids = True, np.empty((most, m), np.int32)
        names = np.empty((most, groups * tables.largest), np.uint64)
    else:
        local = False
    generation = 0
    for part in parts:
        count = len(part.numbers)
        places = np.arange(count) if local else part.numbers
        reached = np.zeros(count, np.int64)
        lengths, of_tables = np.repeat(part.lengths, np.diff(part.members)), limits[part.numbers]
        for first in range(0, groups, at_once):
            some = range(first, min(first + at_once, groups))
            generation = cluster_maps(
                laid.values, laid.places, part,
                (some.start, some.stop, laid.places.images // groups), weights, of_tables,
                tables, generation, scratch, sums, ids, names, places, reached, clusters,
            )  # fmt: skip
            found = clusters[:count, : len(some)]
            yield ClusteredTables(
                numbers=part.numbers,
                lengths=lengths,
                groups=some,
                clusters=found,
                totals=found.sum(axis=1, dtype=np.int64),
                sums=sums,
                ids=ids,
                rows=places,
            )


class Rebuilder:
    """Multiplies centroids by weights and hands their results to every row.

    Args:
        weights: `(k, n padded)` float32, see `lane_columns`.
        layer: the layer.
        length: L.
        groups: runs of rows that are clustered apart.

    Attributes:
        output: `(m, n padded)` float32, the sum so far.
    """

    def __init__(self, weights: np.ndarray, layer: Layer, length: int, groups: int) -> None:
        self._weights, self._layer, self._length = weights, layer, length
        self._rows = layer.gemm.m // groups
        self._results = aligned_empty((0, weights.shape[1]))
        self.output = np.zeros((layer.gemm.m, weights.shape[1]), np.float32)

    def multiply(self, some: ClusteredTables) -> np.ndarray:
        """`(clusters, n padded)` results."""
        ends = np.cumsum(some.totals)
        if len(self._results) < ends[-1] + 7:
            self._results = aligned_empty((int(ends[-1]) + 7, self._weights.shape[1]))
        starts = ends - some.totals
        if self._length <= _SHORT:
            multiply(
                some.sums, some.totals, some.lengths, some.numbers * self._length, self._weights,
                self._results, starts,
            )  # fmt: skip
        else:
            for table, (number, own) in enumerate(zip(some.numbers, some.lengths, strict=True)):
                np.matmul(
                    some.sums[table, : some.totals[table], :own],
                    self._weights[number * self._length :][:own],
                    out=self._results[starts[table] : ends[table]],
                )
        results = self._results[: ends[-1]]
        self._check_finite(results[:, 0])
        return results

    def add(self, some: ClusteredTables, results: np.ndarray) -> None:
        """Add to the rows of these groups."""
        sizes = some.clusters.ravel()
        offsets = (np.cumsum(sizes, dtype=np.int64) - sizes).reshape(some.clusters.shape)
        first, end = some.groups.start * self._rows, some.groups.stop * self._rows
        gather_add(results, offsets, some.ids, some.rows, first, self.output[first:end])

    def _check_finite(self, results: np.ndarray) -> None:
        """A NaN or infinite element spoils every result of its cluster."""
        if not np.isfinite(results).all():
            raise ConfigError(
                f"activations and weights of layer {self._layer.name!r} must be finite, got NaN or "
                "infinity; check the model's weights and inputs"
            )


def lane_columns(weights: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """`(k, n)` weights in the order of the rows that are cut: `(k, n padded)` float32, zeros added.

    Args:
        weights: of any memory order.
        order: `(k,)` the column at each place, or `None`.
    """
    k, n = weights.shape
    wide = aligned_empty((k, padded(n)))
    wide[:, n:] = 0
    wide[:, :n] = weights if order is None else weights[order]
    return wide


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
