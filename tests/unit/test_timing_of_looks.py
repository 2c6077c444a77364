"""Cycles, bytes and actions of tiles of rows and of pixels, derived by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from simulator import Decisions, LshReuse, SharedRows, Signatures
from simulator.decisions.columns import DROPPED, ColumnDecisions
from simulator.policies.looking import Tile, looks_of
from simulator.running.product import product
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.passes import best_passes
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import Remaining
from tests.builders import WIDE, buffer, convolution_layer, matrix_layer, roomy_design

# Two tiles of two lines of pixels each: 4x8 pixels of 16 channels.
LAYER = convolution_layer(size=(4, 8), kernel=(3, 3), padding=(1, 1), channels=16, n=16)
LINES = Tile(rows=16)
# Of the rows of eight pixels in a line, two meet two of them and six three.
ACROSS = 2 * 2 + 6 * 3
# The first line is met by two lines of rows, the second by three; the other tile likewise.
HANDED = 5 * ACROSS


def decided(layer, length, tile, *, once, clusters) -> Decisions:
    """Decisions in which every view and tile has `clusters` clusters, met in turn."""
    looks = looks_of(layer, length, images=1, tile=tile, once=once)
    ids = np.full((1, looks.views, looks.positions), -1, np.int32)
    for kind, (order, bounds) in enumerate(looks.orders):
        own = slice(kind * looks.segments, (kind + 1) * looks.segments)
        for first, last in pairwise(bounds):
            ids[0, own, order[first:last]] = (np.arange(last - first) % clusters)[:, None]
    assert (looks.vectors >= clusters).all()
    total = looks.views * looks.tiles
    return Decisions(
        layer=layer.name,
        gemm=layer.gemm,
        rows=SharedRows(
            gemm=layer.gemm,
            looks=looks,
            ids=ids,
            clusters=np.full((1, looks.views, looks.tiles), clusters, np.int32),
            centroids=None,
        ),
        evidence=Signatures(
            hashes=10,
            projection="sign",
            values=np.tile(np.arange(clusters, dtype=np.uint64), total),
        ),
    )


def cut(layer, decisions, design, columns, *, outside, looks_again=True):
    """The layer's tiles in passes of so many columns."""
    for tiles in best_passes(Remaining.of(layer, decisions), design):
        found = tiles.cut
        asked = found.multiplied_columns[0], found.outside, found.looks_again
        if asked == (columns, outside, looks_again):
            return tiles
    raise AssertionError("no such passes")


def moved(*of_layer, outside, looks_again=True):
    """Kind -> DRAM bytes of the layer in passes of so many columns, and how often they look."""
    tiles = cut(*of_layer, outside=outside, looks_again=looks_again)
    found = dict.fromkeys((each.kind for each in tiles.transfers), 0)
    for each in tiles.transfers:
        found[each.kind] += tiles.total(each.moved_bytes)
    return found, tiles.cut.times_looked


def both_engines(layer, decisions, design):
    found, expected = (layer_timing(layer, decisions, design, each) for each in (COMPILED, EVENT))
    assert (found.cycles, found.actions) == (expected.cycles, expected.actions)
    return found


def test_tiles_of_rows_by_hand():
    layer = matrix_layer("fc", m=128, n=16, k=20)
    decisions = decided(layer, 10, Tile(rows=64), once=False, clusters=16)
    timing = both_engines(layer, decisions, roomy_design())
    # Two tiles of two sub-matrices: each takes 64 signatures, after a cycle to clear the cache and
    # before 16 to hand centroids on. The array is done in 16 + 46, the reconstructor in 64.
    assert timing.busy_cycles["front_end"] == timing.busy_cycles["reconstructor"] == 4 * 64
    assert timing.busy_cycles["cache"] == 4 * (1 + 64 + 16)
    assert timing.busy_cycles["array"] == 4 * (16 + 46)
    # Four at the pace of the cache, then the last one's array and gather; a cycle to load, and one
    # to store.
    assert timing.cycles == 1 + 4 * 81 + 62 + 64 + 1
    assert timing.macs == 2 * 2 * 16 * 10 * 16
    assert timing.dram_bytes == {
        "inputs": 128 * 20,
        "weights": 20 * 16,
        "outputs": 128 * 16,
        "spilled_sums": 0,
        "spilled_results": 0,
    }


def test_a_tile_of_pixels_by_hand():
    decisions = decided(LAYER, 16, LINES, once=True, clusters=4)
    timing = both_engines(LAYER, decisions, roomy_design())
    # 16 pixels are hashed, once for nine taps; four centroids meet 9 x 16 columns of weights, in
    # nine folds of 4 + 46 cycles; a result is handed out to each row and tap.
    assert timing.busy_cycles["front_end"] == 2 * 16
    assert timing.busy_cycles["cache"] == 2 * (1 + 16 + 4)
    assert timing.busy_cycles["array"] == 2 * 9 * (4 + 46)
    assert timing.busy_cycles["reconstructor"] == 2 * HANDED
    # The array sets the pace; before it the first tile is loaded and looked at, after it the last
    # one's results are handed out and stored.
    assert timing.cycles == 1 + 21 + 2 * 450 + HANDED + 1
    assert timing.dram_bytes == {
        "inputs": 32 * 16,
        "weights": 9 * 16 * 16,
        "outputs": 32 * 16,
        "spilled_sums": 0,
        "spilled_results": 0,
    }


def test_what_looking_at_pixels_once_takes_by_hand():
    actions = both_engines(
        LAYER, decided(LAYER, 16, LINES, once=True, clusters=4), roomy_design()
    ).actions
    assert actions["front_end", "project"] == 32 * 16 * 10
    assert actions["front_end", "compare"] == 32 * 10
    assert actions["cache", "lookup"] == 32
    # Four of 16 pixels of a tile are the first of their cluster; the others are added to it.
    assert actions["cache", "accumulate"] == (32 - 8) * 16
    assert actions["cache", "divide"] == 8 * 16
    assert actions["array", "mac"] == 8 * 16 * 9 * 16
    # Each row's first result is taken as it is.
    assert actions["reconstructor", "add"] == (2 * HANDED - 32) * 16
    # Looked at row by row, a tap each, all of it is done nine times, but for the padding.
    by_row = both_engines(
        LAYER, decided(LAYER, 16, LINES, once=False, clusters=4), roomy_design()
    ).actions
    for action in (("front_end", "project"), ("front_end", "compare"), ("cache", "lookup")):
        assert by_row[action] == 9 * actions[action]
    assert by_row["array", "mac"] == actions["array", "mac"]


def test_shares_of_two_segments_and_a_stride_by_hand():
    # 8x8 pixels, every second of them a row's centre: taps at -1 and 1 meet the same lines, which
    # the tap at 0 does not meet. Lines -1, 1, 3, 5, 7 without the padding, 0, 2, 4, 6 else.
    layer = convolution_layer(
        size=(8, 8), kernel=(3, 3), stride=(2, 2), padding=(1, 1), channels=24, n=16
    )
    decisions = decided(layer, 16, None, once=True, clusters=2)
    looks = decisions.rows.looks
    # Kinds in the order of their first tap: lines and columns odd, odd and even, even and odd, even
    # and even: 4 x 4 pixels each. Segments of 16 and of 8 channels.
    assert looks.vectors.ravel().tolist() == 8 * [16]
    assert looks.widths.tolist() == 4 * [16, 8]
    assert looks.taps_of_view.tolist() == [4, 4, 2, 2, 2, 2, 1, 1]
    # In a dimension taps -1 and 1 meet 3 and 4 of the odd lines, tap 0 four even ones.
    assert looks.handed.ravel().tolist() == [49, 49, 28, 28, 28, 28, 16, 16]
    timing = both_engines(layer, decisions, roomy_design())
    assert timing.macs == 2 * (16 + 8) * 9 * 16
    # Columns of 4, 2, 2 and 1 taps of 16 columns, in as many folds of 2 + 46 cycles, twice.
    assert timing.busy_cycles["array"] == 2 * 9 * 48
    assert timing.busy_cycles["reconstructor"] == 2 * (49 + 28 + 28 + 16)
    assert timing.actions["front_end", "project"] == 64 * 24 * 10


@pytest.mark.parametrize("outside", [False, True])
def test_weights_and_inputs_of_passes_by_hand(outside):
    layer = replace(LAYER, gemm=replace(LAYER.gemm, n=64), output_shape=(1, 64, 4, 8))
    decisions = decided(layer, 16, LINES, once=True, clusters=4)
    weights, inputs, outputs = 9 * 16 * 64, 32 * 16, 32 * 64
    # 2,048 bytes of the weight buffer hold a pass of 8 columns, 1,152 bytes, while the last one's
    # are used, and not all of them: inside they are loaded for each of two tiles.
    small = roomy_design(weight_buffer=buffer(4096))
    found, looked = moved(layer, decisions, small, 8, outside=outside)
    assert looked == 8
    assert found["weights"] == (weights if outside else 2 * weights)
    assert (found["inputs"], found["outputs"]) == (inputs, outputs)
    # 512 bytes of activations do not stay for the next pass in 448; a tile's 256 are loaded again
    # for every pass outside, and inside if half of the buffer does not hold them.
    tight = replace(small, activation_buffer=buffer(448))
    found, _ = moved(layer, decisions, tight, 8, outside=outside)
    assert found["inputs"] == 8 * inputs
    # Where weights stay they are loaded once.
    found, _ = moved(layer, decisions, roomy_design(), 8, outside=outside)
    assert found["weights"] == weights
    # No pass of 32 columns fits half of the weight buffer.
    found, _ = moved(layer, decisions, small, 32, outside=outside)
    assert found["weights"] == 2 * weights


def test_passes_that_look_once_a_tile_by_hand():
    layer = replace(LAYER, gemm=replace(LAYER.gemm, n=64), output_shape=(1, 64, 4, 8))
    decisions = decided(layer, 8, LINES, once=True, clusters=4)
    # Neither do activations stay for the next pass, of 8 columns, nor all weights.
    small = roomy_design(weight_buffer=buffer(4096), activation_buffer=buffer(448))
    passes = {"outside": False, "looks_again": False}
    found, looked = moved(layer, decisions, small, 8, **passes)
    assert looked == 1
    assert (found["inputs"], found["weights"]) == (32 * 16, 2 * 9 * 16 * 64)
    # 4 centroids of 8 bytes and 16 ids of 4 bits, 40 bytes, stay of both segments, beside the 4 x
    # 72 results of 4 bytes of one: 1,232 bytes in each of two tiles, segments and eight passes.
    tight = replace(small, centroid_buffer=buffer(2048))
    found, _ = moved(layer, decisions, tight, 8, **passes)
    assert found["spilled_results"] == 2 * 2 * 2 * 8 * (2 * 40 + 1152 - 1024)
    found, _ = moved(layer, decisions, tight, 8, outside=False)
    assert found["spilled_results"] == 2 * 2 * 2 * 8 * (40 + 1152 - 1024)
    # Two segments of 16 pixels are hashed in each of two tiles; a cycle to clear the cache, and 4
    # to hand centroids on. 72 columns take five folds of 4 + 46 cycles.
    timings = {}
    left = Remaining.of(layer, decisions)
    for again in (False, True):
        tiles = cut(layer, decisions, roomy_design(), 8, outside=False, looks_again=again)
        found, expected = (
            Run(left, roomy_design(), each, stages_of(left, roomy_design(), each), tiles)
            for each in (COMPILED, EVENT)
        )
        assert found.cycles == expected.cycles
        timings[again] = found.timing()
    for again, times in ((False, 1), (True, 8)):
        busy, actions = timings[again].busy_cycles, timings[again].actions
        assert busy["front_end"] == times * 2 * 2 * 16
        assert busy["cache"] == times * 2 * 2 * (1 + 16 + 4)
        assert busy["array"] == 8 * 2 * 2 * 5 * 50
        assert busy["reconstructor"] == 8 * 2 * 2 * HANDED
        assert actions["front_end", "project"] == times * 32 * 16 * 10
        assert actions["cache", "divide"] == times * 2 * 4 * 16
        assert actions["array", "mac"] == 8 * 16 * 9 * 64


def test_pixels_that_tiles_of_rows_share_by_hand():
    # Each of two tiles of two lines reads three of the four lines of pixels, 24 pixels of 16 bytes,
    # two of which both read.
    decisions = decided(LAYER, 18, LINES, once=False, clusters=4)
    loaded = decisions.rows.looks.loaded
    assert (loaded.touched.tolist(), loaded.fresh.tolist()) == ([24, 24], [24, 8])
    assert (loaded.positions, loaded.window) == (32, 24)

    def inputs(layer_decisions, half):
        design = roomy_design(activation_buffer=buffer(2 * half))
        return moved(LAYER, layer_decisions, design, 16, outside=False)[0]["inputs"]

    assert inputs(decisions, 384) == 32 * 16
    # Where they do not stay, each of eight sub-matrices loads the two channels that it reads.
    assert inputs(decisions, 320) == 2 * 24 * 16
    # Nine of 16 columns read 24 channels in all: 2, 3, 3, 3, 2, 3, 3, 3 and 2.
    assert inputs(decided(LAYER, 16, LINES, once=False, clusters=4), 320) == 2 * 24 * 24
    # Blocks of 2x2 rows read 3 or 4 pixels in each dimension: 9, 12, 12 and 9 of them, twice. Those
    # that a line of blocks leaves for the next are more than a block's.
    blocks = decided(LAYER, 18, Tile(rows=4, shape="block"), once=False, clusters=2)
    loaded = blocks.rows.looks.loaded
    assert loaded.touched.tolist() == 2 * [9, 12, 12, 9]
    # The last block of the first line finds three lines of pixels but the five that no later block
    # reads: 19 of 24.
    assert loaded.fresh.tolist() == [9, 6, 6, 3, 3, 2, 2, 1] and loaded.window == 19
    assert inputs(blocks, 320) == 32 * 16
    assert inputs(blocks, 256) == 2 * (9 + 12 + 12 + 9) * 16


def test_sums_that_stay_begun_travel_by_hand():
    decisions = decided(LAYER, 16, LINES, once=True, clusters=4)
    looks = decisions.rows.looks
    # Rows of the first line end with the first tile; those of the second and third take from both.
    assert looks.finished_rows.tolist() == [8, 24]
    assert looks.open_rows.tolist() == [24, 24]
    # 24 x 16 sums of 4 bytes are 1,536; half of the buffer holds 1,024. What exceeds it goes out
    # after the first tile and comes back before the second.
    small = roomy_design(output_buffer=buffer(2048))
    found, _ = moved(LAYER, decisions, small, 16, outside=False)
    assert found["spilled_sums"] == 512 + 512
    assert found["outputs"] == 32 * 16
    # In passes of 8 columns inside, the 16 x 8 sums of the other pass that both tiles share stay as
    # well: 24 x 8 + 16 x 8 of them are 1,280 bytes. Outside, only a pass's are there.
    found, _ = moved(LAYER, decisions, small, 8, outside=False)
    assert found["spilled_sums"] == 2 * (256 + 256)
    found, _ = moved(LAYER, decisions, small, 8, outside=True)
    assert found["spilled_sums"] == 0


def test_dropped_columns_of_pixels_are_as_if_they_had_never_been():
    fewer = replace(LAYER, gemm=replace(LAYER.gemm, n=12), output_shape=(1, 12, 4, 8))
    sources = np.arange(16)
    sources[4:8] = DROPPED
    dropped = replace(
        decided(LAYER, 16, LINES, once=True, clusters=4),
        columns=ColumnDecisions(gemm=LAYER.gemm, sources=sources[None]),
    )
    alone = decided(fewer, 16, LINES, once=True, clusters=4)
    for design in (roomy_design(), roomy_design(weight_buffer=buffer(2**10))):
        found, expected = layer_timing(LAYER, dropped, design), layer_timing(fewer, alone, design)
        assert (found.cycles, found.dram_bytes) == (expected.cycles, expected.dram_bytes)
        assert found.actions == expected.actions
        assert found.macs == dropped.macs == 8 * 16 * 9 * 12
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 32, 144)).astype(np.float32)
    weights = rng.standard_normal((1, 144, 16)).astype(np.float32)
    made = LshReuse(hashes=2, length=16, look_once=True, thresholds="zero").decide(LAYER, rows, {})
    expected = product(made, rows, weights)
    expected[:, :, 4:8] = 0
    found = product(replace(made, columns=dropped.columns), rows, weights)
    np.testing.assert_array_equal(found, expected)


def test_results_of_all_taps_lie_in_the_centroid_buffer():
    decisions = decided(LAYER, 16, LINES, once=True, clusters=4)
    # 4 centroids of 16 bytes, 4 x 144 results of 4 bytes and 16 ids of 4 bits: 64 + 2,304 + 8
    # bytes. What exceeds half of the buffer travels out and back, for each of two tiles.
    small = roomy_design(centroid_buffer=buffer(4096))
    found, _ = moved(LAYER, decisions, small, 16, outside=False)
    assert found["spilled_results"] == 2 * 2 * (64 + 2304 + 8 - 2048)
    found, _ = moved(LAYER, decisions, replace(small, centroid_buffer=WIDE), 16, outside=False)
    assert found["spilled_results"] == 0
