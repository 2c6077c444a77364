"""Neighbour matching is what plain loops over vectors find, and the same however it is run."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelerators import NeighbourMatcher
from simulator import NeighbourReuse
from simulator.policies.activations import Activations
from simulator.running.executor import execute
from simulator.running.product import product as multiply
from simulator.testing.examples import example_weights
from simulator.testing.policies import same_decisions
from simulator.testing.reference import reference_macs, reference_product
from simulator.timing.pipeline import layer_timing
from tests.builders import convolution_layer, matrix_layer
from tests.property.test_engines import designs, same_layers

relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def layers(draw):
    """Convolutions of one or two dimensions, and rows of tokens."""
    images = draw(st.integers(1, 3))
    if draw(st.integers(0, 3)) == 0:
        m = images * draw(st.integers(1, 9))
        return matrix_layer("fc", m, draw(st.integers(1, 5)), draw(st.integers(1, 7)), images)
    dims = draw(st.sampled_from([1, 2, 2, 2]))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    groups = draw(st.sampled_from([1, 2]))
    return convolution_layer(
        size=each(4, 6),
        kernel=each(1, 3),
        stride=each(1, 2),
        padding=each(0, 2),
        dilation=each(1, 1),
        groups=groups,
        channels=groups * draw(st.integers(1, 4)),
        n=draw(st.integers(1, 3)),
        images=images,
    )


@st.composite
def policies(draw, layer):
    """Any neighbourhood that a layer may have."""
    scope = draw(st.sampled_from(["image", "batch", "tile"]))
    each = {name: draw(st.integers(1, 3)) for name in ("frames", "rows", "columns")}
    if scope == "image":
        each["frames"] = 1
    return NeighbourReuse(
        threshold=draw(st.sampled_from([0.0, 0.6, 0.9, 1.0])),
        length_ratio=draw(st.sampled_from([0.0, 0.5, 1.0])),
        length=draw(st.sampled_from([None, 1, min(2, layer.gemm.k)])),
        neighbourhood=draw(st.sampled_from(["block", "window"])),
        scope=scope,
        tile_rows=draw(st.integers(1, 20)) if scope == "tile" else None,
        tile_shape=draw(st.sampled_from(["strip", "block"])),
        look_once=draw(st.booleans()),
        order=draw(st.sampled_from(["channels_first", "channels_last"])),
        representative=draw(st.sampled_from(["centroid", "first"])),
        **{f"block_{name}": size for name, size in each.items()},
    )


@st.composite
def cases(draw):
    """A layer, a policy, and activations of small whole numbers, many of them 0."""
    layer = draw(layers())
    rng = np.random.default_rng(draw(seeds))
    shape = layer.input_shape if layer.kind == "conv" else (1, layer.gemm.m, layer.gemm.k)
    given_values = rng.integers(-1, 3, shape) * (rng.random(shape) < 0.8)
    return layer, draw(policies(layer)), given_values.astype(np.float32)


def placed(layer, looks, order, given_values):
    """Of each kind, vector's number -> its frame, row and column, and of its elements."""
    rows = Activations(layer, given_values).rows
    rows = rows if order is None else rows[:, :, order]
    each = layer.gemm.k // looks.taps
    if looks.taps == 1:
        size = (1, *layer.output_shape[2:])[-2:] if layer.kind == "conv" else None
        across = layer.gemm.m // layer.row_images if size is None else size[1]
        down = 1 if size is None else size[0]
        places = {
            p: (p // (down * across), p // across % down, p % across) for p in range(layer.gemm.m)
        }
        return [(places, dict(enumerate(rows.transpose(1, 0, 2))))]
    geometry = layer.convolution
    dims = range(len(geometry.kernel))
    taps = list(product(*(range(size) for size in geometry.kernel)))
    apart = [
        [x * d // s for x, d, s in zip(tap, geometry.dilation, geometry.stride, strict=True)]
        for tap in taps
    ]
    outputs = list(product(*(range(size) for size in layer.output_shape[2:])))
    found = [({}, {}) for _ in looks.taps_of_kind]
    for tap, kind in enumerate(looks.kinds):
        for row in range(layer.gemm.m):
            vector = looks.places[tap, row]
            if vector < 0:
                continue
            image, at = divmod(row, len(outputs))
            where = [outputs[at][d] + apart[tap][d] for d in dims]
            found[kind][0][vector] = (image, *([0] * (2 - len(where))), *where)
            found[kind][1][vector] = rows[:, row, tap * each : (tap + 1) * each]
    return found


def pointed(policy, places, tiles, vectors):
    """Vector -> the root of its pointers; and how many were compared in each tile."""
    block = policy.block_frames, policy.block_rows, policy.block_columns
    start = [min(place[d] for place in places.values()) for d in range(3)]
    roots, compared = {}, {}
    for p in sorted(vectors):
        best, roots[p] = None, p
        for q in sorted(vectors):
            apart = [a - b for a, b in zip(places[p], places[q], strict=True)]
            if q >= p or tiles[p] != tiles[q]:
                continue
            if policy.neighbourhood == "window":
                near = all(0 <= x < size for x, size in zip(apart, block, strict=True))
            else:
                cells = [
                    [(x - s) // size for x, s, size in zip(places[v], start, block, strict=True)]
                    for v in (p, q)
                ]
                near = cells[0] == cells[1]
            if not near:
                continue
            compared[tiles[p]] = compared.get(tiles[p], 0) + 1
            a, b = vectors[p].astype(float), vectors[q].astype(float)
            aa, bb, ab = a @ a, b @ b, a @ b
            if aa == 0 or bb == 0:
                alike, cosine = aa == bb, 1.0
            else:
                alike = ab >= 0 and ab * ab >= policy.threshold**2 * aa * bb
                alike &= min(aa, bb) >= policy.length_ratio**2 * max(aa, bb)
                cosine = ab * ab / bb
            if alike and (best is None or cosine > best):
                best, roots[p] = cosine, roots[q]
    return roots, compared


@given(cases())
@settings(relaxed, max_examples=150)
def test_clusters_are_those_of_plain_loops(case):
    layer, policy, given_values = case
    looks = policy.looks(layer)
    made = policy.decide(layer, Activations(layer, given_values).rows, {})
    found = placed(layer, looks, policy.column_order(layer), given_values)
    total = 0
    for kind, (places, vectors) in enumerate(found):
        tiles = looks.tile_numbers[kind]
        for index, segment in product(range(layer.gemm.count), range(looks.segments)):
            part = slice(segment * looks.sub_vector_length, (segment + 1) * looks.sub_vector_length)
            own = {p: elements[index, part] for p, elements in vectors.items()}
            roots, compared = pointed(policy, places, tiles, own)
            total += sum(compared.values())
            if made is None:
                continue
            view = kind * looks.segments + segment
            counted = made.evidence.comparisons[index, view]
            assert counted.tolist() == [compared.get(tile, 0) for tile in range(looks.tiles)]
            ids = made.rows.ids[index, view]
            for tile in range(looks.tiles):
                inside = [p for p in sorted(own) if tiles[p] == tile]
                numbers = {
                    root: i for i, root in enumerate(dict.fromkeys(roots[p] for p in inside))
                }
                assert [ids[p] for p in inside] == [numbers[roots[p]] for p in inside]
                assert made.rows.clusters[index, view, tile] == len(numbers)
    assert (made is None) == (total == 0)


@given(cases())
@settings(relaxed, max_examples=100)
def test_feature_maps_and_rows_give_the_same(case):
    layer, policy, given_values = case
    given_rows, weights = Activations(layer, given_values), example_weights(layer)
    ran = execute(
        policy, layer, given_rows, {}, None, lambda: weights, wants_result=True, centroids=True
    )
    made = policy.decide(layer, given_rows.rows, {})
    same_decisions(made, ran.decisions)
    if made is None:
        return
    made.check_claims()
    assert made.macs == reference_macs(made)
    for result in (ran.result, multiply(made, given_rows.rows, weights)):
        np.testing.assert_allclose(
            result, reference_product(made, given_rows.rows, weights), rtol=1e-4, atol=1e-4
        )


@st.composite
def matchers(draw):
    """Any that means can be taken with."""
    return NeighbourMatcher(
        width=draw(st.integers(1, 9)),
        lanes=draw(st.integers(1, 4)),
        line_entries=4096,
        latency_cycles=draw(st.sampled_from([0, 3, 50])),
    )


@given(cases(), designs(), matchers())
@settings(relaxed, max_examples=150)
def test_engines_agree_on_any_matching(case, design, unit):
    layer, policy, given_values = case
    decisions = policy.decide(layer, Activations(layer, given_values).rows, {})
    if decisions is None:
        return
    design = replace(design, neighbour_matcher=unit)
    same_layers(layer, decisions, design)
    timing = layer_timing(layer, decisions, design)
    assert timing.macs == decisions.macs
    # A lane takes an element of a pair, and every vector enters.
    widths = decisions.rows.widths[:, None]
    elements = int((decisions.evidence.comparisons * widths).sum())
    busy = timing.busy_cycles["neighbour_matcher"]
    assert busy * unit.lanes * unit.width >= elements
    assert timing.actions["neighbour_matcher", "test"] % decisions.evidence.comparisons.sum() == 0
