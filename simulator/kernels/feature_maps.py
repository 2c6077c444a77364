"""Where the sub-vectors of a convolution's rows lie in its feature map: nothing is unfolded."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from accelerators import ConfigError
from simulator.kernels.fused import Families, Places, Product, map_scratch, reuse_maps
from simulator.kernels.hashing import lane_thresholds, lane_weights, new_tables
from simulator.kernels.lanes import LANES, aligned_empty, padded
from workloads.traces.layer import Layer

# Sub-matrices taken together: their tables and centroids share the second-level cache.
_TOGETHER = 24
# Rows of groups that are taken together, likewise.
_ROWS_TOGETHER = 1024


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


def families_of(layer: Layer, length: int, order: np.ndarray | None, index: int) -> Families:
    """The families of all sub-matrices of one of a layer's GEMMs.

    Args:
        layer: a two-dimensional convolution.
        length: L.
        order: `(k,)` int64, the layer's column at each place of a row that is cut, or `None`.
        index: of the GEMM, a group of channels.
    """
    return _families(layer, length, None if order is None else order.tobytes(), index)


@lru_cache(maxsize=256)
def _families(layer: Layer, length: int, order: bytes | None, index: int) -> Families:
    """As `families_of`, the order by its bytes."""
    geometry = layer.convolution
    assert geometry is not None
    channel_step, row_step, _, columns = _steps(layer)
    channels = layer.input_shape[1] // geometry.groups
    (high, wide), (down, across), (apart, beside) = (
        geometry.kernel, geometry.stride, geometry.dilation
    )  # fmt: skip
    axes = np.arange(channels), np.arange(high) * apart, np.arange(wide) * beside
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    elements = grid.reshape(-1, 3)
    if order is not None:
        elements = elements[np.frombuffer(order, np.int64)]
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
class Clustered:
    """Clusters of some sub-matrices; the means are overwritten by the next ones'.

    Attributes:
        numbers: `(t,)` int64, the sub-matrices.
        lengths: `(t,)` int64, elements of their sub-vectors.
        clusters: `(t, groups)` int32.
        sums: `(t or more, capacity, L padded)` float32, means of the clusters, groups one behind
            the other, if they are kept; beyond a sub-vector's length they hold no numbers of use.
    """

    numbers: np.ndarray
    lengths: np.ndarray
    clusters: np.ndarray
    sums: np.ndarray

    def representatives(self, length: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each sub-matrix and its `(clusters, L)` means, zero beyond a short sub-vector."""
        totals = self.clusters.sum(axis=1, dtype=np.int64)
        for table, (number, own) in enumerate(zip(self.numbers, self.lengths, strict=True)):
            means = self.sums[table, : totals[table], :length].copy()
            means[:, own:] = 0
            yield int(number), means


def new_output(layer: Layer, columns: np.ndarray | None) -> np.ndarray:
    """Zeros, `(m, n padded)` float32, to add to; of no columns without `lane_columns`."""
    return np.zeros((layer.gemm.m, 0 if columns is None else columns.shape[1]), np.float32)


def reused(
    layer: Layer,
    laid: FeatureMap,
    families: Families,
    groups: int,
    hashing: tuple[np.ndarray, np.ndarray],
    *,
    columns: np.ndarray | None,
    output: np.ndarray,
    ids: np.ndarray | None = None,
    names: np.ndarray | None = None,
    keeps: bool = False,
    seconds: np.ndarray | None = None,
) -> Iterator[Clustered]:
    """Cluster the sub-matrices of some families, a few at a time, and add up their results.

    Args:
        layer: the layer.
        laid: its feature maps.
        families: where the sub-vectors lie.
        groups: runs of rows that are clustered apart.
        hashing: `(H, L)` float32 hyperplanes and `(s, H)` float32 thresholds.
        columns: `(k, n padded)` weights, see `lane_columns`; `None` to compute no results.
        output: `new_output` of them, to add to.
        ids: `(s, m)` int32 to write to, where all are wanted.
        names: `(s, m or as many as there can be)` uint64 to write signatures to, likewise.
        keeps: whether the means are wanted.
        seconds: `(3,)` float64, to which the time of clustering, products and rebuilding is added.

    Raises:
        ConfigError: activations or weights are NaN or infinite.
    """
    parts = list(_chunks(families))
    most = max(len(part.numbers) for part in parts)
    projections, thresholds = hashing
    hashes, length = projections.shape
    m = layer.gemm.m
    rows = m // groups
    at_once = max(1, min(groups, _ROWS_TOGETHER // rows))
    kin = int(np.diff(families.members).max())
    tables = new_tables(kin, rows, hashes)
    whole = layer.quantisation is not None and columns is not None
    # Eight are multiplied at a time.
    capacity = padded((groups if keeps else at_once) * tables.largest)
    sums = aligned_empty((most, capacity, padded(length)))
    factors = aligned_empty(sums.shape) if whole else sums
    scratch = map_scratch(length, hashes)
    weights, limits = lane_weights(projections), lane_thresholds(thresholds)
    local = ids is None or names is None
    if ids is None or names is None:
        ids = np.empty((most, m), np.int32)
        names = np.empty((most, groups * tables.largest), np.uint64)
    if columns is None:
        columns = np.empty((0, 0), np.float32)
    if seconds is None:
        seconds = np.zeros(3)
    generation = 0
    for part in parts:
        count = len(part.numbers)
        lengths = np.repeat(part.lengths, np.diff(part.members))
        clusters = np.empty((count, groups), np.int32)
        generation, finite = reuse_maps(
            laid.values, laid.places, part, (groups, laid.places.images // groups, at_once),
            weights, limits[part.numbers], tables, generation, scratch, sums, ids, names,
            np.arange(count) if local else part.numbers, clusters, keeps,
            Product(columns, part.numbers * length, lengths, factors, whole, output), seconds,
        )  # fmt: skip
        if not finite:  # which spoils every result of its cluster
            raise ConfigError(
                f"activations and weights of layer {layer.name!r} must be finite, got NaN or "
                "infinity; check the model's weights and inputs"
            )
        yield Clustered(numbers=part.numbers, lengths=lengths, clusters=clusters, sums=sums)


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
