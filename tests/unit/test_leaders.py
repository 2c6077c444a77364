"""Leaders: who follows whom, and what a leader table takes for it, by hand."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from accelerators import ConfigError, LeaderTable, preset
from simulator import Evidence, LeaderReuse, NeighbourReuse, fitted_design
from simulator.timing.pipeline import layer_timing
from tests.builders import convolution_layer, matrix_layer, roomy_design
from tests.comparing import IN_BLOCKS, LAYER, done_by, run_and_told

NEAR = LeaderReuse(tolerance=0.04)


def followed(*vectors, state=None, **changes):
    """Decisions on the vectors, one after the other."""
    rows = np.array(vectors, np.float32)[None]
    layer = matrix_layer("fc", m=len(vectors), n=2, k=rows.shape[2])
    return replace(NEAR, **changes).decide(layer, rows, state or {})


def ids(*vectors, **changes):
    """The clusters' numbers."""
    return followed(*vectors, **changes).rows.ids[0, 0].tolist()


def test_a_vector_joins_the_nearest_leader_within_reach():
    # 5 is 1 from 4, as far as a fifth of its length; 7 is nearer to 8; 6 is 2 from either.
    made = followed([4], [8], [5], [7], [6])
    assert made.rows.ids.tolist() == [[[0, 1, 0, 1, 2]]]
    np.testing.assert_array_equal(made.rows.centroids, [[4.5], [7.5], [6]])
    assert made.evidence.entries == 16
    first = followed([4], [8], [5], [7], [6], representative="first")
    np.testing.assert_array_equal(first.rows.centroids, [[4], [8], [6]])


def test_members_are_near_their_leader_not_its_mean():
    # 5.2 reaches 1.04 far: not to 4, though to 4.4, the mean of 4 and 4.8.
    assert ids([4], [4.8], [5.2]) == [0, 0, 1]
    # A vector's own length counts, not its leader's.
    assert ids([5], [4], tolerance=0.0625) == [0, 0]
    assert ids([4], [5], tolerance=0.04) == [0, 0]
    assert ids([5], [4], tolerance=0.04) == [0, 1]


def test_the_oldest_leader_makes_room_and_the_earliest_of_equals_is_followed():
    a, b, c = np.eye(3)
    assert ids(a, b, c, a, c, entries=2) == [0, 1, 2, 3, 2]
    assert ids(a, b, c, a, c, entries=3) == [0, 1, 2, 0, 2]
    # c and the second a are held, of which c is earlier; then b takes c's place in the table.
    both = {"entries": 2, "tolerance": 0.5}
    assert ids(a, b, c, a, a + c, **both) == [0, 1, 2, 3, 2]
    assert ids(a, b, c, a, b, a + b, **both) == [0, 1, 2, 3, 4, 3]


def test_zeros_follow_zeros():
    assert ids([0], [0], [1e-3], [0], tolerance=0.9) == [0, 0, 1, 0]
    assert ids([0], [1], tolerance=1) == [0, 0]
    assert ids([1], [0], tolerance=100) == [0, 1]


def test_without_tolerance_equal_vectors_alone_share():
    # A long vector, whose squared length rounds, among ones that differ in their last bit.
    vector = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    other = vector.copy()
    other[-1] = np.nextafter(other[-1], np.float32(np.inf))
    assert ids(vector, other, vector, other, tolerance=0) == [0, 1, 0, 1]


def test_an_absolute_distance_is_of_the_mean_length():
    layer = matrix_layer("fc", m=2, n=2, k=1)
    policy = LeaderReuse(tolerance=0.08, distance="absolute")
    state = policy.calibrate(layer, np.array([[[3], [4]]], np.float32))
    assert state["squares"].tolist() == [[12.5]]
    # 0.08 x 12.5 is 1, whatever the vector.
    found = ids([0], [1], [2], [1], [10], [11], tolerance=0.08, distance="absolute", state=state)
    assert found == [0, 0, 1, 0, 2, 2]


def test_a_short_last_segment_follows_on_its_own():
    made = followed([1, 0, 5], [1, 0, 7], [0, 1, 5], length=2)
    assert made.rows.ids.tolist() == [[[0, 0, 1], [0, 1, 0]]]
    np.testing.assert_array_equal(made.rows.centroids, [[1, 0], [0, 1], [5, 0], [7, 0]])


def test_tiles_start_without_leaders():
    made = followed([1], [1], [1], [2], scope="tile", tile_rows=2)
    assert made.rows.ids.tolist() == [[[0, 0, 0, 1]]]
    assert made.rows.clusters.tolist() == [[[1, 2]]]


DECISIONS = NEAR.decide(LAYER, IN_BLOCKS, {})
FOLLOWING = roomy_design(
    front_end=None,
    cache=None,
    leader_table=LeaderTable(max_length=16, width=16, latency_cycles=4),
)


def following(decisions=DECISIONS, **changes):
    """Timing under another table."""
    unit = replace(FOLLOWING.leader_table, **changes)
    return layer_timing(LAYER, decisions, replace(FOLLOWING, leader_table=unit))


def test_a_tile_by_hand():
    assert DECISIONS.rows.clusters.tolist() == [[[16]]]
    timing = following()
    # Each second line finds four leaders, at every second vector, which is known two later; the one
    # before is compared with in any case. A line's comparisons:
    lines = [
        0 + 1 + 2 + 2 + 3 + 3 + 4 + 4, 8 * 5, 5 + 5 + 6 + 6 + 7 + 7 + 8 + 8, 8 * 9,
        9 + 9 + 10 + 10 + 11 + 11 + 12 + 12, 8 * 13, 13 + 13 + 14 + 14 + 15 + 15 + 16 + 16, 8 * 17,
    ]  # fmt: skip
    assert sum(lines) == 623
    # Four at once, but no less than half of the latency, 2 cycles: lines of 8 x 2, 2, 2, 3, 3, 4, 4
    # and 5 cycles. Then the 16 sums of 16 elements, eight a cycle, are divided; 4 cycles later the
    # array may start. It takes 2 x 16 + 16 + 16 - 2 = 62 for 16 centroids; then 64 rows are handed
    # out. A cycle each to load and store.
    assert timing.cycles == 1 + 200 + 16 * 2 + 4 + 62 + 64 + 1
    assert timing.busy_cycles["leader_table"] == 200
    assert timing.bound_by == "leader_table"
    assert timing.schedule.stages == ("following", "array", "reconstructor")
    assert done_by(timing, "leader_table") == {
        "correlate": (623 + 64) * 16, "compare": 623, "judge": 64, "keep": (64 + 16) * 16,
        "read_sums": 64, "write_sums": 64, "accumulate": 48 * 16, "divide": 16 * 16,
    }  # fmt: skip


def test_other_tables_by_hand():
    # Vectors of two steps: but for the first line, whose turns take 2 cycles either way.
    assert following(width=8).busy_cycles["leader_table"] == 16 + 8 * (4 + 4 + 6 + 6 + 8 + 8 + 10)
    # Each waits for the one before it: all 4 cycles, in which 16 leaders take their turns.
    waiting = following(undecided=0)
    assert waiting.busy_cycles["leader_table"] == 64 * 4
    # 16 comparisons less than for lines of 4, 8, 12 and 16 leaders, twice.
    compared = 2 * 8 * (4 + 8 + 12 + 16) - 4 * 16
    assert waiting.actions["leader_table", "compare"] == compared
    # One lane: a cycle a comparison, but 2 for the first two vectors, of 0 and 1.
    assert following(lanes=1).busy_cycles["leader_table"] == 623 + 2 + 1
    # A sum takes 16 cycles, longer than comparing 64 vectors; the last 16 come after these.
    slow = following(divided_elements=1)
    assert slow.busy_cycles["leader_table"] == 16 * 16
    assert slow.cycles == 1 + 200 + 16 * 16 + 4 + 62 + 64 + 1


def test_leaders_alone_need_no_sums():
    decisions = replace(DECISIONS, rows=replace(DECISIONS.rows, representative="first"))
    timing = following(decisions, means=False)
    assert timing.cycles == 1 + 200 + 4 + 62 + 64 + 1
    assert ("leader_table", "divide") not in timing.actions


def test_a_table_must_fit_what_was_decided():
    with pytest.raises(ConfigError) as caught:
        following(entries=15, max_length=8, means=False)
    entries, length, means = caught.value.violations
    assert "entries must hold the 16 leaders that layer 'conv' was decided with, got 15" in entries
    assert "max_length must hold the 16 elements of the vectors of layer 'conv', got 8" in length
    assert "means must be True for clusters that take their mean" in means
    with pytest.raises(ConfigError, match="'dense_32x32' must have leader_table"):
        layer_timing(LAYER, DECISIONS, preset("dense_32x32"))


def test_a_table_works_on_leaders_alone():
    @dataclass(frozen=True, kw_only=True)
    class Guesses(Evidence):
        units: ClassVar[tuple[str, ...]] = ("leader_table",)
        words: ClassVar[str] = "guesses"

    with pytest.raises(ConfigError, match=r"must follow leaders .* got guesses; decide with"):
        following(replace(DECISIONS, evidence=Guesses()))
    with pytest.raises(ConfigError, match="'conv' entries must be an integer from 1"):
        replace(DECISIONS, evidence=replace(DECISIONS.evidence, entries=0)).check_claims()


WIDE = convolution_layer(size=(16, 16), kernel=(3, 3), padding=(1, 1), channels=64, n=64)


def test_a_fitted_table_keeps_up_with_the_array():
    policy = LeaderReuse(
        tolerance=0.2, length=64, scope="tile", tile_rows=64, tile_shape="block", look_once=True
    )
    base = preset("every_64x64")
    # Of three quarters of the vectors nine taps' columns are multiplied: 6.75 cycles a vector. In
    # six of them 16 leaders and one that waits, as a latency of 9 lets a vector come in 5, take
    # three lanes; 0.75 x 64 elements are divided, 7.1 a cycle.
    found = fitted_design(base, [WIDE], policy).leader_table
    assert found == LeaderTable(
        entries=16, max_length=64, width=64, lanes=3, undecided=1, divided_elements=8,
        latency_cycles=9,
    )  # fmt: skip
    # Two steps of 64 elements: 13.5 cycles.
    longer = replace(WIDE, gemm=replace(WIDE.gemm, k=9 * 128), input_shape=(1, 128, 16, 16))
    found = fitted_design(base, [longer], replace(policy, length=128, entries=8)).leader_table
    assert (found.max_length, found.width, found.lanes, found.undecided) == (128, 64, 2, 0)
    alone = fitted_design(base, [WIDE], replace(policy, representative="first"))
    assert not alone.leader_table.means
    # What nothing follows stays as it is.
    assert alone.neighbour_matcher == base.neighbour_matcher


def test_a_fitted_matcher_reaches_its_neighbours():
    policy = NeighbourReuse(
        threshold=0.9, length=64, scope="tile", tile_rows=64, tile_shape="block", look_once=True
    )
    base = preset("every_64x64")
    # Blocks of 2x2 have 1.5 comparisons a vector, of two entries each, back to a line and one.
    found = fitted_design(base, [WIDE], policy).neighbour_matcher
    assert found == replace(base.neighbour_matcher, lanes=1, line_entries=2 * 9)
    # In windows of 3x3, up to eight: 14.2 cycles a vector near the middle, less at the borders.
    many = replace(policy, block_rows=3, block_columns=3, neighbourhood="window")
    found = fitted_design(base, [WIDE], many).neighbour_matcher
    pairs = many.pairs(WIDE)
    compared = 2 * pairs.comparisons.sum() / 256
    assert (found.lanes, found.line_entries) == (-(-compared // 6.75), 2 * pairs.reach)
    # Frames of a block share a tile, so images are not looked at one by one.
    both = convolution_layer(
        size=(16, 16), kernel=(3, 3), padding=(1, 1), channels=64, n=64, images=2
    )
    framed = replace(policy, block_frames=2)
    found = fitted_design(base, [both], framed).neighbour_matcher
    assert found.line_entries == 2 * framed.pairs(both).reach > 2 * 64


def test_a_model_is_simulated_and_told_about():
    policy = LeaderReuse(tolerance=0.01, look_once=True, scope="tile", tile_rows=64)
    slow = LeaderTable(max_length=8, width=1, lanes=1)
    # Strips of 4 x 16 pixels hold four kinds each.
    assert run_and_told(policy, "leader_32x32", slow).rows.clusters.tolist() == [[[4, 4, 4, 4]]]
