"""What decisions mean, in plain loops: slow, and short enough to be read."""

import numpy as np

from simulator.decisions.box import Decisions
from simulator.decisions.incremental import IncrementalRows
from simulator.decisions.motion import Motion
from simulator.decisions.rows import FilledRows, KeptRows, SharedRows


def reference_product(decisions: Decisions, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A layer's result under decisions, in float64, one output after the other.

    Args:
        decisions: with their operands.
        rows: `(count, m, k)` activations.
        weights: `(count, k, n)`.

    Returns:
        `(count, m, n)` float64.
    """
    gemm, made = decisions.gemm, decisions.rows
    rows, weights = rows.astype(np.float64), weights.astype(np.float64)
    if decisions.then is not None:
        return _nested_product(decisions, decisions.then, rows, weights)
    standing = standing_rows(made) if isinstance(made, SharedRows) else rows
    output = np.zeros((gemm.count, gemm.m, gemm.n))
    for index in range(gemm.count):
        for row in range(gemm.m):
            for column in range(gemm.n):
                place = index, row, column
                match made:
                    case FilledRows():
                        value = _filled_cell(decisions, made, rows, weights, place)
                    case IncrementalRows():
                        value = _added_cell(made, output, weights, place)
                    case KeptRows():
                        value = _kept_cell(decisions, made, rows, weights, place)
                    case SharedRows() | None:
                        value = _cell(decisions, standing[index, row], weights[index], place)
                    case _:
                        raise AssertionError(made)
                output[place] = value
    return output


def reference_macs(decisions: Decisions) -> int:
    """Multiplications left to the array, counted one cell of the box after the other."""
    gemm, made, total = decisions.gemm, decisions.rows, 0
    if decisions.then is not None:
        return reference_macs(decisions.then)
    if isinstance(made, SharedRows):
        return _shared_macs(decisions, made)
    if decisions.weights is not None:
        blocks = decisions.weights.multiplies
        return sum(int(each) for _ in range(gemm.m) for each in blocks.ravel())
    for index in range(gemm.count):
        for row in range(gemm.m):
            match made:
                case FilledRows():
                    computed = row % made.positions in made.computed
                case KeptRows():
                    computed = not made.kept[index, row]
                case IncrementalRows():
                    assert made.differences is not None
                    own = gemm.k
                    if not made.anew[index, row]:
                        own = sum(value != 0 for value in made.differences[index, row])
                    total += own * gemm.n
                    continue
                case None:
                    computed = True
                case _:
                    raise AssertionError(made)
            if computed:
                total += sum(
                    _terms(decisions, (index, row, column))
                    for column in range(gemm.n)
                    if _source(decisions, row, column) == column
                )
    return total


def _nested_product(decisions: Decisions, then: Decisions, rows, weights) -> np.ndarray:
    """Each row's result, from those of the rows that are left."""
    made, gemm = decisions.rows, decisions.gemm
    if isinstance(made, SharedRows):
        assert made.centroids is not None
        found = reference_product(then, made.centroids[None], weights)
        return found[:, [int(made.clusters_of(0, 0)[row]) for row in range(gemm.m)]]
    assert isinstance(made, FilledRows | KeptRows)
    left = [row for row in range(gemm.m) if made.is_computed[0, row]]
    given = rows[:, left]
    if isinstance(made, KeptRows) and made.operands is not None:
        given = made.operands
    found = reference_product(then, given, weights)
    output = np.zeros((gemm.count, gemm.m, gemm.n))
    for row in range(gemm.m):
        if isinstance(made, KeptRows):
            source = row
            if made.kept[0, row]:
                source = row - gemm.m if made.sources is None else int(made.sources[0, row])
            if source >= 0:
                output[:, row] = found[:, left.index(source)]
            else:
                assert made.results is not None
                output[:, row] = made.results[:, source]
            continue
        image, position = divmod(row, made.positions)
        for tap in range(made.taps.shape[1]):
            taken = image * made.positions + int(made.computed[made.taps[position, tap]])
            weight = 1.0 if made.weights is None else made.weights[position, tap]
            output[:, row] += weight * found[:, left.index(taken)]
    return output


def standing_rows(shared: SharedRows) -> np.ndarray:
    """`(count, m, k)` float64, the row that stands for each: of representatives, put together."""
    gemm, looks = shared.gemm, shared.looks
    assert shared.centroids is not None
    standing = np.zeros((gemm.count, gemm.m, gemm.k))
    firsts, first = {}, 0
    for place in np.ndindex(shared.clusters.shape):
        firsts[place] = first
        first += int(shared.clusters[place])
    assert first == len(shared.centroids)
    each = gemm.k // looks.taps
    for index, tap, row in np.ndindex(gemm.count, looks.taps, gemm.m):
        kind = 0 if looks.kinds is None else int(looks.kinds[tap])
        vector = row if looks.places is None else int(looks.places[tap, row])
        if vector < 0:
            continue  # zeros
        tile = int(looks.tile_numbers[kind, vector])
        for element in range(each):
            segment, within = divmod(element, looks.sub_vector_length)
            view = kind * looks.segments + segment
            cluster = firsts[index, view, tile] + shared.ids[index, view, vector]
            scale = 1.0 if shared.scales is None else shared.scales[index, view, vector]
            place = tap * each + element
            column = place if shared.column_order is None else shared.column_order[place]
            standing[index, row, column] = scale * shared.centroids[cluster, within]
    return standing


def reference_moved(
    maps: np.ndarray, motion: Motion, frame: int, strides: tuple[float, float]
) -> np.ndarray:
    """A key frame's map as a later frame gets it, one value after the other.

    Args:
        maps: `(channels, height, width)`.
        motion: of the frames.
        frame: that gets it.
        strides: pixels from one position of the map to the next, down and right.

    Returns:
        `(channels, height, width)` float64.
    """
    _, height, width = maps.shape
    rows, columns = motion.tiles
    moved = np.zeros(maps.shape)
    for y, x in np.ndindex(height, width):
        row = min(int((y + 0.5) * strides[0] // motion.tile), rows - 1)
        column = min(int((x + 0.5) * strides[1] // motion.tile), columns - 1)
        down, across = motion.vectors[frame, row, column]
        top = min(max(y + down / strides[0], 0), height - 1)
        left = min(max(x + across / strides[1], 0), width - 1)
        for row_of in {int(top), min(int(top) + 1, height - 1)}:
            for column_of in {int(left), min(int(left) + 1, width - 1)}:
                share = (1 - abs(top - row_of)) * (1 - abs(left - column_of))
                moved[:, y, x] += share * maps[:, row_of, column_of]
    return moved


def _filled_cell(decisions, made: FilledRows, rows, weights, place: tuple[int, int, int]) -> float:
    """One output of a position, from those that it is filled from."""
    index, row, column = place
    image, position = divmod(row, made.positions)
    value = 0.0
    for tap in range(made.taps.shape[1]):
        taken = image * made.positions + int(made.computed[made.taps[position, tap]])
        weight = 1.0 if made.weights is None else made.weights[position, tap]
        found = _cell(decisions, rows[index, taken], weights[index], (index, taken, column))
        value += weight * found
    return value


def _added_cell(made: IncrementalRows, output, weights, place: tuple[int, int, int]) -> float:
    """One output of a row: a difference's, and the output of an earlier row."""
    index, row, column = place
    assert made.differences is not None
    difference = made.differences[index, row].astype(np.float64)
    value = sum(difference[each] * weights[index, each, column] for each in range(len(difference)))
    if made.anew[index, row]:
        return value
    source = row - made.lag
    if source >= 0:
        return value + output[index, source, column]
    assert made.results is not None
    return value + made.results[index, made.lag + source, column]


def _kept_cell(decisions, made: KeptRows, rows, weights, place: tuple[int, int, int]) -> float:
    """One output of a row, or of the one that computed what it keeps."""
    index, row, column = place
    if made.kept[index, row]:
        source = None if made.sources is None else int(made.sources[index, row])
        if source is None or source < 0:
            assert made.results is not None
            return made.results[index, row if source is None else source, column]
        row = source
        assert not made.kept[index, row]
    given = rows[index, row]
    if made.operands is not None:
        given = made.operands[index, np.count_nonzero(~made.kept[index, :row])].astype(np.float64)
    return _cell(decisions, given, weights[index], (index, row, column))


def _cell(decisions: Decisions, row, weights, place: tuple[int, int, int]) -> float:
    """One output of a computed row."""
    index, number, column = place
    source = _source(decisions, number, column)
    if source < 0:
        return 0.0
    depth = decisions.depth
    if depth is None or _terms(decisions, (index, number, source)) == decisions.gemm.k:
        multiplied = _elements(decisions, number)
        return sum(row[element] * weights[element, source] for element in multiplied)
    terms = _terms(decisions, (index, number, source))
    if depth.zeroed:
        if depth.ended is None:
            return 0.0
        shape = decisions.gemm.count, 1, decisions.gemm.n
        return float(np.broadcast_to(depth.ended, shape)[index, 0, source])
    order = np.arange(len(row)) if depth.order is None else depth.order
    own = order if order.ndim == 1 else order[:, source]
    return sum(row[element] * weights[element, source] for element in own[:terms])


def _source(decisions: Decisions, row: int, column: int) -> int:
    """The column whose result a column of a row takes; negative if it is dropped."""
    columns = decisions.columns
    if columns is None:
        return column
    return int(columns.sources[row // (decisions.gemm.m // len(columns.sources)), column])


def _elements(decisions: Decisions, row: int) -> list[int]:
    """Elements of a row that are multiplied."""
    columns, every = decisions.columns, range(decisions.gemm.k)
    if columns is None or columns.elements is None:
        return list(every)
    run = row // (decisions.gemm.m // len(columns.sources))
    return [element for element in every if columns.elements[run, element]]


def _terms(decisions: Decisions, place: tuple[int, int, int]) -> int:
    """Products that are computed of one output."""
    gemm, depth = decisions.gemm, decisions.depth
    if depth is None:
        return len(_elements(decisions, place[1]))
    return int(np.broadcast_to(depth.terms, (gemm.count, gemm.m, gemm.n))[place])


def _shared_macs(decisions: Decisions, shared: SharedRows) -> int:
    """Of new clusters, the columns that their run of rows computes, for each tap of theirs."""
    gemm, looks, total, first = decisions.gemm, shared.looks, 0, 0
    for index, view, tile in np.ndindex(shared.clusters.shape):
        assert index < gemm.count
        row = 0 if looks.tile_of is not None else tile * (gemm.m // looks.tiles)
        columns = sum(_source(decisions, row, column) == column for column in range(gemm.n))
        kind, segment = divmod(view, looks.segments)
        taps = 1 if looks.kinds is None else sum(each == kind for each in looks.kinds)
        start = segment * looks.sub_vector_length
        width = min(looks.sub_vector_length, gemm.k // looks.taps - start)
        for cluster in range(first, first + shared.clusters[index, view, tile]):
            if shared.ages is None or shared.ages[cluster] == 0:
                total += width * columns * taps
        first += int(shared.clusters[index, view, tile])
    return total
