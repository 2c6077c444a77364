"""What is left of a product, computed, and handed to all that take it."""

import numpy as np

from accelerators import ConfigError
from simulator.decisions.box import Decisions
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.decisions.depth import DepthDecisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.left import left_of
from simulator.decisions.rows import FilledRows, KeptRows, SharedRows
from simulator.kernels.gathering import gather_add
from simulator.kernels.lanes import aligned_empty
from simulator.kernels.vectors import gather_taps, results_of
from simulator.running.adding import added

# Centroid results held while an output is rebuilt: of one group, about what a second-level cache
# holds; of all of them, a bound on memory.
_GROUP_RESULT_BYTES = 4 * 2**20
_RESULT_BYTES = 64 * 2**20
# Up to so many multiplications OpenBLAS adds up in another order (its kernels for small matrices).
_SMALL_MACS = 100**3


def product(decisions: Decisions, rows: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    """A layer's result under decisions.

    Args:
        decisions: with their operands.
        rows: `(count, m, k)` float32 activations; not read where rows are shared, differences are
            added, or the rows' operands are others.
        weights: `(count, k, n)` float32.

    Returns:
        `(count, m, n)` float32; float64 where sums of integers are exact.

    Raises:
        ConfigError: the decisions' operands were dropped.
    """
    if decisions.then is not None:
        return _nested(decisions, decisions.then, rows, weights)
    if isinstance(decisions.rows, SharedRows):
        return with_columns(decisions, _shared(decisions, decisions.rows, weights))
    if isinstance(decisions.rows, IncrementalRows):
        return added(decisions, decisions.rows, weights)
    if isinstance(decisions.rows, KeptRows):
        return _kept(decisions, decisions.rows, rows, weights)
    assert rows is not None
    match decisions.rows:
        case FilledRows():
            return _filled(decisions, decisions.rows, rows, weights)
        case None:
            return _multiplied(decisions, rows, weights, slice(None), slice(None))
    raise ValueError(f"unknown decisions on rows {decisions.rows!r}")


def _nested(
    decisions: Decisions, then: Decisions, rows: np.ndarray | None, weights: np.ndarray
) -> np.ndarray:
    """What is decided on the rows that are left, computed; then handed to all rows."""
    made = decisions.rows
    if isinstance(made, SharedRows):
        if made.centroids is None:
            raise _without_centroids(decisions)
        found = product(then, made.centroids[None], weights)
        return found[:, made.clusters_met(0, 0)]
    assert rows is not None and isinstance(made, FilledRows | KeptRows)
    found = product(then, left_of(decisions.layer, made, rows), weights)
    match made:
        case FilledRows():
            return _filled_in(made, found)
        case KeptRows():
            output = _kept_results(decisions, made)
            output[:, ~made.kept[0]] = found
            _hand_on(made, output)
            return output
    raise ValueError(f"unknown decisions on rows {made!r}")


def _multiplied(
    decisions: Decisions,
    rows: np.ndarray | None,
    weights: np.ndarray,
    gemms: slice,
    chosen: slice | np.ndarray,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """Results of the chosen rows of some GEMMs, under what is decided on columns and depth.

    Args:
        decisions: of the layer.
        rows: `(count, m, k)`, all of its rows.
        weights: `(count, k, n)`.
        gemms: which of `count`.
        chosen: which of `m`.
        given: `(gemms, chosen, k)`, what is multiplied for them where it is not they.
    """
    gemm, depth = decisions.gemm, decisions.depth
    if given is None:
        assert rows is not None
        given = rows[gemms]
        if not isinstance(chosen, slice):
            # As `rows` lie: one column after the other.
            given = given.transpose(0, 2, 1).take(chosen, axis=2).transpose(0, 2, 1)
    if decisions.columns is not None and decisions.columns.elements is not None:
        runs = _runs(decisions.columns, np.arange(gemm.m)[chosen])
        given = given * decisions.columns.elements[runs]
    found = _as_of_all(given, weights[gemms], gemm.m)
    if depth is not None:
        terms = np.broadcast_to(depth.terms, (gemm.count, gemm.m, gemm.n))[gemms][:, chosen]
        found = _ended(depth, terms, given, weights[gemms], found, gemms)
    return with_columns(decisions, found, np.arange(gemm.m)[chosen])


def _as_of_all(rows: np.ndarray, weights: np.ndarray, m: int) -> np.ndarray:
    """The product of some of a layer's m rows, with each one's sums in the order that they have
    among all: a library that adds small products up otherwise is given more."""
    _, c, k = rows.shape
    each = k * weights.shape[2]
    if c == m or m * each <= _SMALL_MACS:
        return np.matmul(rows, weights)
    needed = max(2, _SMALL_MACS // each + 1)
    if c >= needed:
        return np.matmul(rows, weights)
    more = rows.transpose(0, 2, 1).take(np.arange(needed), axis=2, mode="wrap").transpose(0, 2, 1)
    return np.matmul(more, weights)[:, :c]


def _ended(
    depth: DepthDecisions,
    terms: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    found: np.ndarray,
    gemms: slice,
) -> np.ndarray:
    """Whole sums where all terms are computed; else 0 or what stands for it, or the sums so far."""
    k = depth.gemm.k
    ended: np.ndarray | np.float32 = np.float32(0)
    if depth.ended is not None:
        ended = depth.ended if len(depth.ended) == 1 else depth.ended[gemms]
    result = np.where(terms == k, found, ended)
    if depth.zeroed:
        return result
    order = np.arange(k) if depth.order is None else depth.order
    places = np.argsort(order, axis=0)
    if places.ndim == 1:
        places = places[:, None]
    for number in np.unique(terms):
        if 0 < number < k:
            partial = np.matmul(rows, np.where(places < number, weights, np.float32(0)))
            np.copyto(result, partial, where=terms == number)
    return result


def with_columns(
    decisions: Decisions, found: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray:
    """Every column's result from its source, written into what was found where that is the same
    for all rows; `rows` are the numbers of the results' rows, if not all are there."""
    columns = decisions.columns
    if columns is None or columns.is_computed.all():
        return found
    if columns.groups == 1 and found.flags.writeable:  # most columns stay as they are
        sources = columns.sources[0]
        moved = np.flatnonzero(~columns.is_computed[0] & (sources != DROPPED))
        found[:, :, moved] = found[:, :, sources[moved]]
        found[:, :, sources == DROPPED] = 0
        return found
    rows = np.arange(decisions.gemm.m) if rows is None else rows
    sources = columns.sources[_runs(columns, rows)]
    found = np.take_along_axis(found, np.maximum(sources, 0)[None], axis=2)
    found[:, sources == DROPPED] = 0
    return found


def _runs(columns: ColumnDecisions, rows: np.ndarray) -> np.ndarray:
    """The run of rows that each of these rows is in."""
    return rows * columns.groups // columns.gemm.m


def _shared(decisions: Decisions, shared: SharedRows, weights: np.ndarray) -> np.ndarray:
    """Multiply the centroids and hand their results to every row."""
    gemm = shared.gemm
    if shared.centroids is None:
        raise _without_centroids(decisions)
    output = np.zeros((gemm.count, gemm.m, gemm.n), np.float32)
    ends = np.cumsum(shared.clusters.sum(axis=2, dtype=np.int64)).reshape(shared.ids.shape[:2])
    bounds = np.concatenate([[0], ends.ravel()])
    views = shared.ids.shape[1]
    for i in range(gemm.count):
        of_gemm = bounds[i * views : (i + 1) * views + 1]
        matrix = weights[i] if shared.column_order is None else weights[i][shared.column_order]
        if shared.looks.tile_of is None:
            _rebuild(shared, i, of_gemm, matrix, output[i])
        else:
            _hand_out(shared, i, matrix, output[i])
    return output


def _without_centroids(decisions: Decisions) -> ConfigError:
    """The error for operands that were dropped."""
    return ConfigError(
        f"decisions of layer {decisions.layer!r} must hold their centroids to be multiplied, "
        "got them without; decide again"
    )


def _hand_out(shared: SharedRows, index: int, weights: np.ndarray, output: np.ndarray) -> None:
    """Fill the `(m, n)` output of one GEMM view by view: its centroids times the weights of all
    taps that meet them, as many columns at a time as the bound allows, 64 or more."""
    looks, centroids, n = shared.looks, shared.centroids, shared.gemm.n
    assert centroids is not None
    by_tap = looks.firsts.reshape(looks.taps, looks.segments)
    for view in range(looks.views):
        kind, segment = divmod(view, looks.segments)
        taps = np.flatnonzero(looks.kinds_of_taps == kind)
        first, width = int(shared.firsts[index, view, 0]), int(looks.widths[view])
        own = centroids[first : first + int(shared.clusters[index, view].sum(dtype=np.int64))]
        numbers = shared.clusters_of(index, view) - first
        rows = by_tap[taps, segment][:, None] + np.arange(width)
        most = max(64, _RESULT_BYTES // (4 * taps.size * max(1, len(own))) // 64 * 64)
        for column in range(0, n, most):
            part = weights[rows, column : column + most]  # (taps, L, columns)
            columns = part.shape[2]
            wide = np.ascontiguousarray(part.transpose(1, 0, 2)).reshape(width, -1)
            results = results_of(np.ascontiguousarray(own[:, :width]), wide)
            gather_taps(results, columns, numbers, taps, looks.met, output, column)


def _rebuild(
    shared: SharedRows, index: int, bounds: np.ndarray, weights: np.ndarray, output: np.ndarray
) -> None:
    """Fill the `(m, n)` output of one GEMM, as many sub-matrices at a time as the bound allows.

    A sub-matrix's centroids are the rows `bounds[j]:bounds[j + 1]`, group after group.
    """
    clusters, ids, centroids = shared.clusters[index], shared.ids[index], shared.centroids
    scales = None if shared.scales is None else shared.scales[index]
    assert centroids is not None
    firsts = bounds[:-1, None] + np.cumsum(clusters, axis=1) - clusters
    length, n = shared.sub_vector_length, shared.gemm.n
    rows_held = min(_RESULT_BYTES, _GROUP_RESULT_BYTES * shared.groups) // (4 * n)
    j = 0
    while j < len(ids):
        end = max(j + 1, int(np.searchsorted(bounds, bounds[j] + rows_held, "right")) - 1)
        results = aligned_empty((int(bounds[end] - bounds[j]), n))
        for place in range(j, end):
            np.matmul(
                centroids[bounds[place] : bounds[place + 1], : shared.widths[place]],
                weights[place * length : place * length + shared.widths[place]],
                out=results[bounds[place] - bounds[j] : bounds[place + 1] - bounds[j]],
            )
        local = firsts[j:end] - bounds[j]
        if scales is None:
            gather_add(results, local, ids, np.arange(j, end), 0, output, 0)
        else:
            _gather_scaled(results, local, ids[j:end], scales[j:end], output)
        j = end


def _gather_scaled(results, offsets, ids, scales, output) -> None:
    """As `gather_add`, each sub-vector's result times its own number."""
    rows = ids.shape[1] // offsets.shape[1]
    for of_groups, numbers, own in zip(offsets, ids, scales, strict=True):
        output += own[:, None] * results[np.repeat(of_groups, rows) + numbers]


def _filled(
    decisions: Decisions, filled: FilledRows, rows: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Multiply the computed positions and fill the others in from their results."""
    images, positions = filled.images, filled.positions
    chosen: slice | np.ndarray = slice(None)
    if len(filled.computed) < positions:
        chosen = (np.arange(images)[:, None] * positions + filled.computed).ravel()
    return _filled_in(filled, _multiplied(decisions, rows, weights, slice(None), chosen))


def _filled_in(filled: FilledRows, found: np.ndarray) -> np.ndarray:
    """`(count, m, n)` of the `(count, computed, n)` results of the computed positions."""
    gemm, images, positions = filled.gemm, filled.images, filled.positions
    found = found.reshape(gemm.count, images, -1, gemm.n)
    if filled.weights is None:
        output = found[:, :, filled.taps[:, 0]]
    else:
        output = np.zeros((gemm.count, images, positions, gemm.n), np.float32)
        for tap, weight in zip(filled.taps.T, filled.weights.T, strict=True):
            output += weight[:, None] * found[:, :, tap]
    return output.reshape(gemm.count, gemm.m, gemm.n)


def _kept(
    decisions: Decisions, kept: KeptRows, rows: np.ndarray | None, weights: np.ndarray
) -> np.ndarray:
    """Multiply the rows that are not kept, and hand their results to those that keep them."""
    if not kept.kept.any() and kept.operands is None:
        return _multiplied(decisions, rows, weights, slice(None), slice(None))
    output = _kept_results(decisions, kept)
    for index, of_gemm in enumerate(kept.kept):
        gemms, chosen = slice(index, index + 1), np.flatnonzero(~of_gemm)
        if chosen.size:
            own = None if kept.operands is None else kept.operands[gemms]
            output[gemms, chosen] = _multiplied(decisions, rows, weights, gemms, chosen, own)
    _hand_on(kept, output)
    return output


def _kept_results(decisions: Decisions, kept: KeptRows) -> np.ndarray:
    """`(count, m, n)` to write computed rows into: what is kept of the batch before."""
    gemm, sources = kept.gemm, kept.sources
    shape = gemm.count, gemm.m, gemm.n
    if not (kept.kept if sources is None else kept.kept & (sources < 0)).any():
        return np.empty(shape, np.float32)
    if kept.results is None:
        raise ConfigError(
            f"decisions of layer {decisions.layer!r} that keep rows must hold the results of the "
            "batch before, got none; decide again"
        )
    if sources is None:
        return np.array(kept.results, np.float32, order="C")
    output = np.empty(shape, np.float32)
    for index, of_gemm in enumerate(kept.kept):
        chosen = np.flatnonzero(of_gemm & (sources[index] < 0))
        output[index, chosen] = kept.results[index, sources[index, chosen]]
    return output


def _hand_on(kept: KeptRows, output: np.ndarray) -> None:
    """Write the results of computed rows into those that keep them in the same batch."""
    if kept.sources is None:
        return
    for index, of_gemm in enumerate(kept.kept):
        chosen = np.flatnonzero(of_gemm & (kept.sources[index] >= 0))
        output[index, chosen] = output[index, kept.sources[index, chosen]]
