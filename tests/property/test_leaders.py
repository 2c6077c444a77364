"""Leaders are those of a slow, plain rule; the table's pace is that of plain loops."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accelerators import LeaderTable
from simulator import LeaderReuse
from simulator.policies.activations import Activations
from simulator.policies.looking import pixel_vectors
from simulator.running.executor import execute
from simulator.testing.policies import same_decisions
from simulator.timing.pipeline import layer_timing
from simulator.timing.stages.following import followed
from tests.builders import convolution_layer
from tests.property.test_engines import designs, same_layers
from tests.property.test_looks import (
    check_results,
    convolutions,
    few_images,
    linears,
    relaxed,
    shape_given,
)
from workloads.traces.unfold import rows_of


@st.composite
def policies(draw):
    """Policies of every setting; tolerances are fractions of two, so that no product rounds."""
    tile_rows = draw(st.none() | st.integers(1, 20))
    scope = draw(st.sampled_from(["image", "batch"])) if tile_rows is None else "tile"
    return LeaderReuse(
        tolerance=draw(st.sampled_from([0.0, 0.125, 0.5, 1.0, 2.0])),
        distance=draw(st.sampled_from(["relative", "absolute"])),
        entries=draw(st.integers(1, 5)),
        length=draw(st.none() | st.integers(1, 5)),
        scope=scope,
        tile_rows=tile_rows,
        tile_shape=draw(st.sampled_from(["strip", "block"])),
        look_once=draw(st.booleans()),
        order=draw(st.sampled_from(["channels_first", "channels_last"])),
        representative=draw(st.sampled_from(["centroid", "first"])),
    )


def fitting(policy, layer):
    """The policy with an L that the layer's rows have."""
    if policy.length is None or policy.looks_once_at(layer):
        return policy
    return LeaderReuse(**{**vars(policy), "length": min(policy.length, layer.gemm.k)})


def whole_images(layer, seed):
    """Small whole numbers, whose squares are exact."""
    drawn = np.random.default_rng(seed).integers(-2, 3, shape_given(layer))
    return drawn.astype(np.float32)


def vectors_of(policy, layer, images, index, view):
    """Vector number -> its elements, of one view."""
    looks = policy.looks(layer)
    kind, segment = divmod(view, looks.segments)
    within = slice(segment * looks.sub_vector_length, (segment + 1) * looks.sub_vector_length)
    if looks.taps > 1:
        return pixel_vectors(layer, images, index)[kind][within].T.astype(float)
    rows = rows_of(layer, images)[index].astype(float)
    order = policy.column_order(layer)
    return (rows if order is None else rows[:, order])[:, within]


def plainly_followed(vectors, numbers, tolerance, floor, entries):
    """Vector -> cluster of one tile, and the members of each cluster."""
    leaders, clusters, members = [], {}, []
    for number in numbers:
        vector = vectors[number]
        held = list(enumerate(leaders))[-entries:]
        distances = [(np.square(vector - vectors[leader]).sum(), c) for c, leader in held]
        distance, cluster = min(distances, default=(np.inf, 0))
        if distance > max(tolerance * np.square(vector).sum(), floor):
            cluster = len(leaders)
            leaders.append(number)
            members.append([])
        clusters[number] = cluster
        members[cluster].append(number)
    return clusters, members


@given(convolutions() | linears, policies(), st.integers(0, 2**16))
@settings(relaxed, max_examples=100)
def test_leaders_are_those_of_the_plain_rule(layer, policy, seed):
    policy, images = fitting(policy, layer), whole_images(layer, seed)
    rows = rows_of(layer, images)
    # Of whole numbers, so that a floor is one too.
    squares = np.random.default_rng(seed).integers(0, 4, (layer.gemm.count, layer.gemm.k))
    state = {"squares": squares.astype(np.float32)} if policy.distance == "absolute" else {}
    made = policy.decide(layer, rows, state)
    looks = policy.looks(layer)
    if made is None:
        assert looks.are_alone
        return
    columns = policy.columns_of_views(layer)
    stood_for = iter(made.rows.centroids)
    for index, view in np.ndindex(looks.gemm.count, looks.views):
        vectors = vectors_of(policy, layer, images, index, view)
        padded = np.append(squares[index], 0)
        absolute = policy.distance == "absolute"
        floor = policy.tolerance * padded[columns[view]].sum() if absolute else 0
        for tile in range(looks.tiles):
            own = np.flatnonzero(looks.tile_numbers[view // looks.segments] == tile)
            clusters, members = plainly_followed(
                vectors, own, 0 if absolute else policy.tolerance, floor, policy.entries
            )
            assert made.rows.clusters[index, view, tile] == len(members)
            for number, cluster in clusters.items():
                assert made.rows.ids[index, view, number] == cluster
            for each in members:
                expected = vectors[each[: 1 if policy.representative == "first" else None]].mean(0)
                found = next(stood_for)
                np.testing.assert_allclose(found[: expected.size], expected, 1e-5, 1e-5)
                assert not found[expected.size :].any()
    assert next(stood_for, None) is None


def test_vectors_beyond_one_block_follow_the_same_leaders():
    layer = convolution_layer(size=(25, 32), kernel=(1, 1), channels=20)  # 800 pixels, one tile
    policy = LeaderReuse(tolerance=1.25, entries=7)
    images = whole_images(layer, 5)
    # Of the feature map, where it lies; of unfolded rows the clusters are the same.
    found = execute(
        policy, layer, Activations(layer, images), {}, None, lambda: np.empty(0),
        wants_result=False, centroids=True,
    )  # fmt: skip
    same_decisions(policy.decide(layer, rows_of(layer, images), {}), found.decisions)
    vectors = vectors_of(policy, layer, images, 0, 0)
    clusters, members = plainly_followed(vectors, range(800), policy.tolerance, 0, policy.entries)
    assert 7 < len(members) < 800
    assert found.decisions.rows.ids[0, 0].tolist() == [clusters[n] for n in range(800)]


@given(convolutions() | linears, policies(), st.integers(0, 2**16))
@settings(relaxed, max_examples=60)
def test_results_are_a_convolution_of_what_stands_for_vectors(layer, policy, seed):
    check_results(fitting(policy, layer), layer, seed)


tables = st.builds(
    lambda entries, undecided, lanes, **others: LeaderTable(
        entries=entries,
        undecided=undecided,
        lanes=min(lanes, entries + undecided),
        max_length=4096,
        **others,
    ),
    entries=st.integers(5, 9),
    undecided=st.integers(0, 4),
    lanes=st.integers(1, 14),
    width=st.integers(1, 40),
    divided_elements=st.integers(1, 20),
    latency_cycles=st.sampled_from([0, 3, 8, 100]),
)


@given(convolutions() | linears, policies(), tables, designs(), st.integers(0, 2**16))
@settings(relaxed, max_examples=80)
def test_engines_agree_and_comparisons_are_those_of_plain_loops(layer, policy, table, design, seed):
    policy = fitting(policy, layer)
    rows = rows_of(layer, few_images(layer, seed))
    decisions = policy.decide(layer, rows, policy.calibrate(layer, rows))
    assume(decisions is not None)
    parts = vars(design) | {"front_end": None, "cache": None, "leader_table": table}
    design = type(design)(**parts)
    same_layers(layer, decisions, design)
    timing = layer_timing(layer, decisions, design)
    assert timing.macs == timing.actions["array", "mac"] == decisions.macs <= layer.gemm.macs
    shared = decisions.rows
    cycles, comparisons = followed(shared, policy.entries, table)
    for index, view, tile in np.ndindex(shared.clusters.shape):
        kinds = shared.looks.tile_numbers[view // shared.looks.segments]
        own = shared.ids[index, view, kinds == tile].tolist()
        steps = -(-int(shared.widths[view]) // table.width)
        least = -(-table.latency_cycles // (table.undecided + 1))
        spent = compared = 0
        for place in range(len(own)):
            waiting = min(place, table.undecided)
            leaders = len(set(own[: place - waiting]))
            each = min(leaders, policy.entries) + waiting
            compared += each
            spent += max(least, steps * max(1, -(-each // table.lanes)))
        assert (cycles[index, view, tile], comparisons[index, view, tile]) == (spent, compared)
    passes, left = divmod(timing.actions["leader_table", "compare"], max(1, int(comparisons.sum())))
    assert passes >= (comparisons.sum() > 0) and left == 0
    assert timing.busy_cycles["leader_table"] >= cycles.sum()
