"""A layer's clusters painted at the positions of an image that its rows come from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.running.reuse_run import ReuseRun
from workloads.traces.layer import Layer
from workloads.traces.trace import WorkloadTrace

ALONE = 128
"""Red, green and blue of what shares its result with nothing."""

# Hues a golden section apart are far apart, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2
_SATURATION = 0.85


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where a layer's rows lie in an image.

    Attributes:
        height, width: positions, in the order of the rows, line by line.
        skipped: rows of an image before the first position (a class token).
    """

    height: int
    width: int
    skipped: int = 0

    @property
    def rows_per_image(self) -> int:
        """Rows of an image, those without a position included."""
        return self.skipped + self.height * self.width


def grid_of(trace: WorkloadTrace, name: str) -> Grid | str:
    """The positions of a layer's rows, or, in words, why they have none.

    A convolution's rows are its output positions, a transposed one's its input positions. The
    tokens of a linear layer are a grid where their number is that of a grid with the image's
    proportions (square without an image), with or without a class token before it, and the
    attention beside them does not cut them into windows.

    Raises:
        TraceError: there is no such layer.
    """
    layer = trace.layer(name)
    if layer.kind.startswith(("attention", "batched")):
        return "product of activations, whose rows belong to heads or windows"
    if layer.row_images != trace.images:
        return "images cannot be told apart in its rows"
    if layer.convolution is not None:
        return _convolution_grid(trace, layer)
    tokens = layer.gemm.m // trace.images
    if _cut_into_windows(trace, layer, tokens):
        return "tokens in the order of attention windows"
    return _token_grid(tokens, _proportions(trace)) or (
        "one row an image" if tokens == 1 else f"{tokens} tokens, which form no grid"
    )


def paint_clusters(
    trace: WorkloadTrace,
    run: ReuseRun,
    layer: str,
    *,
    image: int = 0,
    sub_vector: int | None = None,
) -> np.ndarray:
    """The clusters of a layer as colours at the positions of its rows.

    Rows with the same colour share a result. What is alone in its cluster, and computed for itself
    only, is `ALONE` grey. With several sub-vectors, each moves a row's colour away from grey in the
    direction of its cluster: rows of the same colour share most of their clusters, and colours of
    rows that share some are nearer. Colours mean nothing across layers or sub-vectors.

    Args:
        trace: the workload.
        run: decisions on it.
        layer: its name.
        image: index in the batch.
        sub_vector: index of one sub-vector, counted through sub-matrices and then through GEMMs
            (groups of a convolution); `None` blends all.

    Returns:
        `(height, width, 3)` uint8 RGB, one element a position, see `grid_of`.

    Raises:
        ConfigError: the run is of another trace, the layer runs dense or its rows have no position,
            or `image` or `sub_vector` is out of range.
        TraceError: the trace has no such layer.
    """
    made, grid = _decided(trace, run, layer, image)
    parts = list(_clusters_of(made, grid, image))
    chosen = range(len(parts)) if sub_vector is None else [sub_vector]
    if sub_vector is not None and not 0 <= sub_vector < len(parts):
        raise ConfigError(
            f"sub_vector must be 0 to {len(parts) - 1} in layer {layer!r}, got {sub_vector!r}; "
            "use one of these, or None for all"
        )
    away = np.zeros((grid.height * grid.width, 3))
    for number in chosen:
        part = parts[number]
        away += _colours(part, number, blended=len(chosen) > 1)[part.ids]
    # Sums of independent colours spread as the root of their number.
    colours = np.rint(ALONE + away / math.sqrt(len(chosen)))
    return np.clip(colours, 0, 255).astype(np.uint8).reshape(grid.height, grid.width, 3)


def remaining_work(
    trace: WorkloadTrace, run: ReuseRun, layer: str, *, image: int = 0
) -> np.ndarray:
    """What each position has to pay of its dense work: its share of the clusters it falls into.

    A new cluster of n members costs each of them 1/n, an old one of a stream nothing. The mean over
    all rows of the batch is the layer's `remaining_ratio`, or less where a pixel that is looked at
    once is multiplied for a tap at which no row meets it; hashing and gathering are not counted.

    Args:
        trace, run, layer, image: as for `paint_clusters`.

    Returns:
        `(height, width)` float64, 0 to 1; 1 computes everything for itself.

    Raises:
        ConfigError, TraceError: as `paint_clusters`.
    """
    made, grid = _decided(trace, run, layer, image)
    parts = list(_clusters_of(made, grid, image))
    shares = sum((part.new / part.sizes)[part.ids] for part in parts)
    return np.asarray(shares / len(parts)).reshape(grid.height, grid.width)


@dataclass(frozen=True, kw_only=True)
class _Clusters:
    """One sub-vector of an image's rows: `ids` of the positions; `sizes` and `new` by id."""

    ids: np.ndarray
    sizes: np.ndarray
    new: np.ndarray


def _decided(trace: WorkloadTrace, run: ReuseRun, name: str, image: int) -> tuple[Decisions, Grid]:
    """The decisions on a layer and where its rows lie, after every check."""
    layer = trace.layer(name)
    made = run.decisions.get(name)
    fits = (
        run.images == trace.images
        and list(run.decisions) == [each.name for each in trace.layers]
        and (made is None or made.gemm == layer.gemm)
    )
    if not fits:
        raise ConfigError(
            f"run must be of the trace, got decisions on {run.images} images and layers "
            f"{', '.join(run.decisions)}, for a trace of {trace.images} images; decide on this "
            "trace"
        )
    if not 0 <= image < trace.images:
        raise ConfigError(
            f"image must be 0 to {trace.images - 1} in this trace, got {image!r}; use one of these"
        )
    if made is None:
        raise ConfigError(
            f"layer {name!r} must have decisions to be painted, got none: it runs dense; choose "
            "another layer, or a policy that applies to it"
        )
    grid = grid_of(trace, name)
    if isinstance(grid, str):
        raise ConfigError(
            f"rows of layer {name!r} must have positions to be painted, got {grid}; choose a "
            "convolution, or a layer of tokens on a grid"
        )
    return made, grid


def _clusters_of(made: Decisions, grid: Grid, image: int) -> Iterator[_Clusters]:
    """Every sub-vector of the image's positions, GEMM after GEMM."""
    shared, looks = made.shared, made.shared.looks
    tiles_met = looks.tiles_met
    first = image * grid.rows_per_image
    positions = slice(first + grid.skipped, first + grid.rows_per_image)
    fresh = np.ones(len(shared.members), bool) if shared.fresh is None else shared.fresh
    for gemm, part in np.ndindex(made.gemm.count, looks.sub_matrices):
        met = shared.clusters_met(gemm, part)
        # Those of the tiles that the image's rows meet, whether it uses them or not.
        numbers = met[positions]
        tiles = np.unique(tiles_met[part // looks.segments, positions])
        view, known = int(looks.view_of[part]), tiles[tiles >= 0]
        of_tiles = [
            np.arange(start, start + count)
            for start, count in zip(
                shared.firsts[gemm, view, known], shared.clusters[gemm, view, known], strict=True
            )
        ]
        used = np.concatenate([*of_tiles, np.full(int((numbers < 0).any()), len(fresh))])
        met = np.where(met < 0, len(fresh), met)
        # What is computed once a tap is paid by the rows that meet it; zeros cost nothing.
        sizes = np.bincount(met, minlength=len(fresh) + 1)[used]
        yield _Clusters(
            ids=np.searchsorted(used, met[positions]),
            sizes=np.maximum(sizes, 1),
            new=np.append(fresh, False)[used],
        )


def _colours(part: _Clusters, number: int, *, blended: bool) -> np.ndarray:
    """`(clusters, 3)`, how far each cluster's colour lies from grey; the largest come first.

    Args:
        part: the clusters of a sub-vector.
        number: of the sub-vector; each starts at a hue of its own.
        blended: colours that are grey on average, so that sums of many don't drift from it.
    """
    rank = np.empty(len(part.sizes), np.int64)
    rank[np.argsort(-part.sizes, kind="stable")] = np.arange(len(part.sizes))
    hue = (np.random.default_rng(number).random() + rank * _GOLDEN) % 1
    light = np.ones(len(rank)) if blended else 0.95 - 0.35 * (rank // 2 % 2)
    mean = 255 * (1 - _SATURATION / 2) if blended else ALONE
    away = 255 * _from_hue(hue, saturation=_SATURATION, value=light) - mean
    alone = (part.sizes == 1) & part.new
    return np.where(alone[:, None], 0, away)


def _from_hue(hue: np.ndarray, *, saturation: float, value: np.ndarray) -> np.ndarray:
    """`(n, 3)` red, green and blue, 0 to 1, of hues 0 to 1 (HSV)."""
    place = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation * np.clip(np.minimum(place, 4 - place), 0, 1))


def _convolution_grid(trace: WorkloadTrace, layer: Layer) -> Grid | str:
    """Output positions, or input positions of a transposed convolution."""
    shape = layer.output_shape if layer.kind == "conv" else layer.input_shape
    if len(shape) != 4:
        return f"convolution over {len(shape) - 2} dimensions, not 2"
    if shape[0] != trace.images:
        return "images cut into several inputs of the layer"
    return Grid(height=shape[2], width=shape[3])


def _cut_into_windows(trace: WorkloadTrace, layer: Layer, tokens: int) -> bool:
    """Whether attention in the same module sees fewer tokens at a time than an image has."""
    called = layer.name.partition("#")[0]
    modules = (called, called.rpartition(".")[0])
    return any(
        each.kind.startswith("attention")
        and each.name.partition("#")[0].rpartition(".")[0] in modules
        and each.gemm.m < tokens
        for each in trace.layers
    )


def _proportions(trace: WorkloadTrace) -> float:
    """Height over width of the input images; 1 where there are none."""
    for array in trace.inputs or ():
        if array.ndim == 4:
            return array.shape[2] / array.shape[3]
    return 1.0


def _token_grid(tokens: int, proportions: float) -> Grid | None:
    """The grid of the image's proportions, with or without a class token; `None` if neither."""
    for skipped in (0, 1):
        positions = tokens - skipped
        height = max(1, round(math.sqrt(positions * proportions)))
        width = positions // height
        if height * width == positions and height == round(width * proportions) and positions > 1:
            return Grid(height=height, width=width, skipped=skipped)
    return None
