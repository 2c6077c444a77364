"""Passes: how a layer is cut where its rows are shared."""

from collections.abc import Sequence

import numpy as np

from accelerators import Accelerator, ConfigError
from simulator.timing.choosing import Way, least_traffic_times_cycles
from simulator.timing.pass_grid import PassGrid
from simulator.timing.pass_transfers import id_bits, pass_transfers, shared_rows
from simulator.timing.remaining import Remaining
from simulator.timing.tiles import MOST_TILES, Tiles, check_tiles, cut
from simulator.timing.transfers import access_bytes, byte_count

# Columns of the narrowest pass where several taps multiply by each.
_NARROWEST = 8


class Passes(PassGrid):
    """Passes as a cut of a layer whose rows are shared."""

    def best(self, runs: Sequence[Way]) -> Way:
        """The one with the least product of cycles and traffic, of those worth waiting for."""
        return least_traffic_times_cycles(runs)

    def blame(
        self, tiles: Tiles, critical_cycles: dict[str, int], busy_cycles: int
    ) -> dict[str, int]:
        """As it is: the decisions, not the buffers, say how large tiles are."""
        return critical_cycles

    def tiles(self, left: Remaining, accelerator: Accelerator) -> Tiles:
        """The layer's tiles; the innermost are the views of a tile of vectors."""
        shared, looks = shared_rows(left), shared_rows(left).looks
        clusters = self.of_tile(shared.new_clusters).astype(np.int64)
        columns = self.of_pass(self.multiplied_columns) * looks.taps_of_view * (clusters > 0)
        times = self.times_looked  # every such pass looks, and hands on, anew
        buffer, length = accelerator.centroid_buffer, shared.sub_vector_length
        assert buffer is not None  # the decisions ask for it
        centroid_bytes = access_bytes(length, length, accelerator.operand_bits, buffer)
        bits, results = id_bits(left), shared.gemm.count * int(looks.handed.sum())
        multiplying = int(np.count_nonzero(self.multiplied_columns))
        if self.gathered_rows is None:
            handed_rows, taken = (self.of_tile(each[None]) for each in (looks.summed, looks.handed))
        else:
            handed_rows = taken = self.of_pass(self.gathered_rows)
        return Tiles(
            shape=self.shape(shared),
            rows=self.of_tile(looks.vectors[None]),
            looked=self.of_pass(self.looked),
            m=clusters,
            n=columns,
            k=shared.widths,
            inputs="centroid_buffer",
            sums="centroid_buffer",
            handed_rows=handed_rows,
            handed_columns=self.of_pass(self.gathered_columns),
            results=taken,
            copied_rows=self.finished_rows(looks) * (np.arange(looks.views) == looks.views - 1),
            copied_columns=self.of_pass(self.copied_columns),
            transfers=pass_transfers(left, accelerator, self),
            actions={
                ("centroid_buffer", "write_byte"): times
                * (shared.total_clusters * centroid_bytes + byte_count(shared.sub_vectors, bits)),
                ("centroid_buffer", "read_byte"): multiplying * byte_count(results, bits),
            },
            cut=self,
        )


def passes_of(tiles: Tiles) -> Passes:
    """The passes that tiles of shared rows were cut by.

    Raises:
        ConfigError: their rows are not shared.
    """
    if isinstance(tiles.cut, Passes):
        return tiles.cut
    raise ConfigError(
        f"tiles must be of shared rows to be looked at vector by vector, got "
        f"{type(tiles.cut).__name__}; do not ask for the unit"
    )


def best_passes(left: Remaining, accelerator: Accelerator) -> list[Tiles]:
    """The layer under all passes worth trying.

    Loops, outermost first: GEMMs, tiles of vectors, passes, views; or GEMMs, passes, tiles of
    vectors, views. The innermost is a tile of work. A tile's vectors are looked at; then its
    centroids are multiplied by the array, with the weights of all taps that meet them; then their
    results are gathered for the rows that take them and added to these rows' partial sums, once
    for all taps.

    Partial sums beyond half of the output buffer travel out and back for every tile, and so do a
    tile's centroids, results and ids beyond half of the centroid buffer; where results come first,
    all of a group's results and ids travel unless they fit. Sums of rows that meet pixels of
    several tiles stay begun from the first to the last of them. Activations of a tile are loaded
    once where they fit half of the activation buffer, and only what is new where those that the
    next tiles read as well do; else each tile of work loads the channels it touches. All weights
    are loaded once where they fit the weight buffer, or, with the passes outside, where those of a
    pass fit half of it; else once per tile of vectors.

    In a stream (`Signatures.cache`), only new clusters are multiplied; a tile loads its table, and
    the old results that its rows use. Each pass that looks loads a tile's table as it was before
    the batch; the last stores it. All new results are stored, also those forgotten within the
    batch. Weights are loaded where a tile has new clusters.

    Not modelled: the wait of a spilled byte's return for its own way out; that old results and
    weights are asked for only when a tile is looked at.

    Raises:
        ConfigError: the layer needs too many tiles.
    """
    shared = shared_rows(left)
    check_tiles(left.layer.gemm, shared.clusters.size)
    return [each.tiles(left, accelerator) for each in passes(left, accelerator)]


def passes(left: Remaining, accelerator: Accelerator) -> list[Passes]:
    """Passes worth trying.

    By columns: all of n at once; and once, twice, four times ... the array's columns, or 8 where a
    pixel is looked at once, as long as the partial sums of a tile fit half of the output buffer:
    each pass looks again or, in tiles, the first one looks for all. Where there are several tiles
    that need several passes, also with the passes outside, which look again. Results first, only
    where a group's sums do not fit: then as many rows at once as do, in powers of two. Those of
    more tiles than can be scheduled are left out; all of n at once is always there.
    """
    shared, n = shared_rows(left), left.n
    looks = shared.looks
    rows = int(looks.open_rows.max())
    half_bits = accelerator.output_buffer.capacity_bytes * 8 // 2
    columns_fitting = half_bits // (rows * accelerator.accumulator_bits)
    found = [_by_columns(left, n, outside=False)]
    width = accelerator.array.columns if looks.taps == 1 else _NARROWEST
    while width < n and width <= columns_fitting:
        found.append(_by_columns(left, width, outside=False))
        if looks.tile_of is not None:
            found.append(_by_columns(left, width, outside=False, looks_again=False))
        if looks.tile_of is not None and looks.tiles > 1:
            found.append(_by_columns(left, width, outside=True))
        width *= 2
    rows_fitting = half_bits // (n * accelerator.accumulator_bits)
    height = 1 << (min(rows, rows_fitting).bit_length() - 1) if rows_fitting else 0
    if columns_fitting < n and height and looks.tile_of is None:
        gathered = cut(rows, height)
        nothing = np.zeros(1, np.int64)
        found.append(
            Passes(
                outside=False,
                looks_again=True,
                results_first=True,
                multiplied_columns=np.concatenate([[n], np.zeros_like(gathered)]),
                gathered_rows=np.concatenate([nothing, gathered]),
                gathered_columns=np.concatenate([nothing, np.full_like(gathered, n)]),
                copied_columns=np.concatenate(
                    [nothing, np.full_like(gathered, left.copied_columns(np.array([n]))[0, 0])]
                ),
            )
        )
    most = MOST_TILES // shared.clusters.size
    return found[:1] + [each for each in found[1:] if len(each.multiplied_columns) <= most]


def _by_columns(left: Remaining, width: int, *, outside: bool, looks_again: bool = True) -> Passes:
    columns = cut(left.n, width)
    return Passes(
        outside=outside,
        looks_again=looks_again,
        results_first=False,
        multiplied_columns=columns,
        gathered_rows=None,
        gathered_columns=columns,
        copied_columns=left.copied_columns(columns)[0],
    )
