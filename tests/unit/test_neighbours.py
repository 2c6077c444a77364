"""Neighbour matching: who points to whom, and what a matcher takes for it, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from accelerators import ConfigError, NeighbourMatcher, preset
from codesign.space.lookup import find_policy
from simulator import NeighbourReuse
from simulator.policies.activations import Activations
from simulator.timing.pipeline import layer_timing
from tests.builders import convolution_layer, even_decisions, matrix_layer, roomy_design
from tests.comparing import IN_BLOCKS, LAYER, done_by, run_and_told

ALIKE = NeighbourReuse(threshold=0.9)


def on_grid(*frames, **changes):
    """Decisions on vectors that lie in frames of rows of columns, as 1x1 convolutions meet them."""
    given = np.array(frames, np.float32).transpose(0, 3, 1, 2)
    images, channels, *size = given.shape
    layer = convolution_layer(size=tuple(size), kernel=(1, 1), channels=channels, images=images)
    return replace(ALIKE, **changes).decide(layer, Activations(layer, given).rows, {})


def ids(*frames, **changes):
    """The clusters' numbers, frame after frame."""
    return on_grid(*frames, **changes).rows.ids[0, 0].tolist()


def turned(*degrees):
    """Unit vectors at these angles."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_the_example_of_focus():
    # The second points to the first (0.995), the third to none, the fourth to the first (1.0),
    # which is better than the second above it.
    made = on_grid([[(1, 0), (1, 0.1)], [(0, 1), (1, 0)]])
    assert made.rows.ids.tolist() == [[[0, 0, 1, 0]]]
    np.testing.assert_allclose(made.rows.centroids, [[1, 0.1 / 3], [0, 1]], rtol=1e-6)
    assert made.macs == made.gemm.macs // 2
    # The second is compared with one, the third with two, the fourth with all three before it.
    assert made.evidence.comparisons.tolist() == [[[6]]] and made.evidence.reach == 3
    first = on_grid([[(1, 0), (1, 0.1)], [(0, 1), (1, 0)]], representative="first")
    np.testing.assert_array_equal(first.rows.centroids, [[1, 0], [0, 1]])


def test_a_block_of_one_is_dense():
    frame = [[(1, 0), (1, 0)], [(1, 0), (1, 0)]]
    assert on_grid(frame, block_rows=1, block_columns=1, threshold=1.0) is None
    # Equal vectors share at any threshold; those that point the same way, up to rounding.
    assert ids(frame, threshold=1.0) == [0, 0, 0, 0]


def test_pointers_are_followed_to_their_end():
    row = turned(0, 20, 40, 60)  # neighbours are alike at 20 degrees (0.94), not at 40 (0.77)
    assert ids([row], neighbourhood="window") == [0, 0, 0, 0]
    assert ids([row]) == [0, 0, 1, 1]
    assert on_grid([row], neighbourhood="window").evidence.reach == 1


def test_a_window_does_not_reach_around_a_row():
    rows = [turned(0, 45, 90), turned(90, 0, 45)]
    # In raster order the fourth comes after a like one, which lies at the end of the row above.
    beside = {"block_rows": 1, "neighbourhood": "window"}
    assert ids(rows, **beside) == [0, 1, 2, 3, 4, 5]
    assert ids([np.concatenate(rows)], **beside) == [0, 1, 2, 2, 3, 4]


def test_the_earliest_of_equally_similar_ones_is_taken():
    row = turned(25, -25, 0)
    assert ids([row], block_columns=3) == [0, 1, 0]
    assert ids([turned(25, -20, 0)], block_columns=3) == [0, 1, 1]


def test_lengths_may_matter():
    row = [(1, 0), (2, 0)]
    assert ids([row]) == [0, 0]
    assert ids([row], length_ratio=0.5) == [0, 0]
    assert ids([row], length_ratio=0.51) == [0, 1]
    assert ids([row[::-1]], length_ratio=0.51) == [0, 1]


def test_zeros_are_like_zeros_alone():
    row = [(0, 0), (1, 0), (0, 0), (1, 0)]
    for threshold in (0.0, 1.0):
        assert ids([row], block_columns=4, threshold=threshold) == [0, 1, 0, 1]
    # At a threshold of 0, all but opposite directions are alike.
    assert ids([turned(0, 90, 180)], threshold=0.0, block_columns=3)[0] == 0
    assert ids([turned(0, 120)], threshold=0.0) == [0, 1]


def test_frames_are_neighbours_within_a_tile():
    frames = [turned(0, 90)], [turned(0, 90)], [turned(0, 90)]
    still = {"block_frames": 2, "block_rows": 1, "block_columns": 1}
    # Frames 0 and 1 are a block, frame 2 another; a window reaches from each to the one before.
    assert ids(*frames, **still, scope="batch") == [0, 1, 0, 1, 2, 3]
    window = {"scope": "batch", "neighbourhood": "window"}
    assert ids(*frames, **still, **window) == [0, 1, 0, 1, 0, 1]
    # A tile holds one place of two frames; the last one has a frame less.
    made = on_grid(*frames, **still, scope="tile", tile_rows=1)
    assert made.rows.looks.tile_numbers.tolist() == [[0, 1, 0, 1, 2, 3]]
    assert made.rows.ids.ravel().tolist() == [0, 0, 0, 0, 0, 0]
    assert made.evidence.comparisons.tolist() == [[[1, 1, 0, 0]]]
    with pytest.raises(ConfigError, match="block_frames must be 1 with scope='image', got 2; use"):
        replace(ALIKE, **still)


def test_blocks_of_pixels_start_at_the_first_pixel():
    # Of 4x4 pixels, padded by one: pairs within aligned 2x2 blocks, none with the padding.
    layer = convolution_layer(size=(4, 4), kernel=(3, 3), padding=(1, 1), channels=2)
    policy = replace(ALIKE, look_once=True)
    pairs = policy.pairs(layer)
    assert pairs.comparisons.tolist() == [[4 * 6]]
    assert pairs.reach == 5
    # Grid of 6x6; the one at pixel (1, 1) is compared with all of its block.
    compared = pairs.are_compared[0].reshape(-1, 6, 6)
    assert pairs.shifts.tolist() == [7, 6, 5, 1]
    assert compared[:, 2, 2].tolist() == [True, True, False, True]
    assert not compared[:, 0].any() and not compared[:, :, 5].any()


DECISIONS = ALIKE.decide(LAYER, IN_BLOCKS, {})
MATCHING = roomy_design(
    front_end=None,
    cache=None,
    neighbour_matcher=NeighbourMatcher(width=16, line_entries=16, latency_cycles=5),
)


def matching(**changes):
    """Timing under another matcher."""
    unit = replace(MATCHING.neighbour_matcher, **changes)
    return layer_timing(LAYER, DECISIONS, replace(MATCHING, neighbour_matcher=unit))


def test_a_tile_by_hand():
    assert DECISIONS.rows.clusters.tolist() == [[[16]]] and DECISIONS.evidence.reach == 9
    timing = matching()
    # 16 blocks of 6 comparisons, while 64 vectors enter; then the 9 clusters that vectors 9 back
    # may belong to are handed on, and 5 cycles later the array may start. It takes 2 x 16 + 16 + 16
    # - 2 = 62 for 16 centroids; then 64 rows are handed out. A cycle each to load and store.
    assert timing.cycles == 1 + (96 + 9) + 5 + 62 + 64 + 1
    assert timing.busy_cycles["neighbour_matcher"] == 105
    assert timing.bound_by == "neighbour_matcher"
    assert timing.schedule.stages == ("matching", "array", "reconstructor")
    assert done_by(timing, "neighbour_matcher") == {
        "correlate": (96 + 64) * 16, "test": 96, "read_line": 96, "write_line": 64,
        "read_sums": 64, "write_sums": 64, "accumulate": 48 * 16, "divide": 16 * 16,
    }  # fmt: skip
    # Two lanes halve comparisons; then vectors enter no faster. Vectors of two entries take twice
    # as long.
    assert matching(lanes=2).busy_cycles["neighbour_matcher"] == 64 + 9
    assert matching(width=8, line_entries=18).busy_cycles["neighbour_matcher"] == 2 * 105


def test_first_members_need_no_table():
    decisions = replace(DECISIONS, rows=replace(DECISIONS.rows, representative="first"))
    unit = replace(MATCHING.neighbour_matcher, means=False)
    timing = layer_timing(LAYER, decisions, replace(MATCHING, neighbour_matcher=unit))
    assert timing.busy_cycles["neighbour_matcher"] == 96
    assert ("neighbour_matcher", "divide") not in timing.actions


def test_a_matcher_must_fit_what_was_decided():
    with pytest.raises(ConfigError) as caught:
        matching(line_entries=8, means=False)
    reach, means = caught.value.violations
    # A line of eight vectors and one more, to the one above on the left.
    assert "line_entries must hold the vectors back to the farthest neighbour" in reach
    assert "9 of up to 16 elements, 16 an entry, got 8; use 9 or more" in reach
    assert "means must be True for clusters that take their mean" in means
    with pytest.raises(ConfigError, match="'dense_32x32' must have neighbour_matcher"):
        layer_timing(LAYER, DECISIONS, preset("dense_32x32"))
    with pytest.raises(ConfigError, match="must have front_end, cache to run"):
        layer_timing(LAYER, even_decisions(LAYER, length=16, clusters=4), MATCHING)


def test_comparisons_must_be_those_of_the_views():
    evidence = replace(DECISIONS.evidence, comparisons=np.zeros((1, 2, 1), np.int64), reach=0)
    with pytest.raises(ConfigError) as caught:
        replace(DECISIONS, evidence=evidence).check_claims()
    assert ["reach" in each or "(1, 1, 1)" in each for each in caught.value.violations] == [
        True
    ] * 2


def test_rows_of_nothing_but_zeros_are_begun_and_finished():
    # Seven outputs a line, of which the first and the last lie in the padding alone.
    layer = convolution_layer(size=(4, 4), kernel=(1, 2), padding=(0, 2), channels=1)
    looks = replace(ALIKE, look_once=True).looks(layer)
    assert looks.open_rows.tolist() == looks.finished_rows.tolist() == [28]


def test_tokens_lie_in_a_line():
    layer = matrix_layer("mlp", m=8, n=4, k=2, row_images=2)
    policy = replace(ALIKE, block_rows=8, neighbourhood="window")
    # Three tokens of each image have one before them.
    assert policy.pairs(layer).comparisons.tolist() == [[3, 3]]
    rows = turned(0, 0, 90, 90, 90, 90, 0, 0).astype(np.float32)
    made = policy.decide(layer, rows[None], {})
    assert made.rows.ids.tolist() == [[[0, 0, 1, 1, 0, 0, 1, 1]]]


def test_it_is_found_by_name():
    settings = ["threshold=0.98", "look_once=true", "block_frames=2", "scope=batch"]
    expected = NeighbourReuse(threshold=0.98, look_once=True, block_frames=2, scope="batch")
    assert find_policy("NeighbourReuse", settings) == expected


def test_a_model_is_simulated_and_told_about():
    policy = NeighbourReuse(threshold=0.95, look_once=True, scope="tile", tile_rows=64)
    slow = NeighbourMatcher(width=1, line_entries=4096)
    # Of 16 x 16 pixels 4 x 4 differ, and 2x2 blocks lie within them.
    assert run_and_told(policy, "neighbour_32x32", slow).remaining_ratio == 0.25
