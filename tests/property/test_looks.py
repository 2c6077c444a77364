"""Vectors of tiles and of pixels are those that plain loops and PyTorch find."""

import math
from collections import defaultdict
from dataclasses import replace
from itertools import product as every

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelerators import ConfigError
from simulator import LshReuse
from simulator.policies.activations import Activations
from simulator.policies.looking import Tile, is_looked_at_once, looks_of
from simulator.running.convolving import convolved
from simulator.running.executor import execute
from simulator.running.product import product
from simulator.testing import RowSuite
from simulator.testing.examples import decide_on, example_weights
from simulator.testing.policies import same_decisions
from simulator.testing.reference import reference_product
from simulator.timing.passes import best_passes
from simulator.timing.pipeline import layer_timing
from simulator.timing.remaining import Remaining
from tests.builders import convolution_layer, matrix_layer
from tests.property.test_engines import designs, same_layers
from workloads.traces.layer import Quantisation
from workloads.traces.unfold import rows_of

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))
tiles = st.builds(Tile, rows=st.integers(1, 20), shape=st.sampled_from(["strip", "block"]))


@st.composite
def convolutions(draw):
    """Layers of one to three dimensions, of any stride, padding, dilation and groups."""
    dims = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def steps(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * dims))

    kernel = steps(1, {1: 5, 2: 4, 3: 2}[dims])
    stride, dilation = steps(1, 3), steps(1, 2)
    padding = tuple(draw(st.integers(0, each)) for each in kernel)
    spans = zip(kernel, dilation, padding, strict=True)
    least = [max(1, (size - 1) * apart + 1 - 2 * pad) for size, apart, pad in spans]
    grown = steps(0, {1: 40, 2: 5, 3: 2}[dims])
    groups = draw(st.sampled_from([1, 1, 2]))
    return convolution_layer(
        size=tuple(map(sum, zip(least, grown, strict=True))),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels=groups * draw(st.integers(1, 5) | st.sampled_from([16, 37])),
        n=draw(st.integers(1, 3)),
        images=draw(st.integers(1, 2)),
    )


linears = st.builds(
    lambda images, rows, n, k: matrix_layer("fc", images * rows, n, k, images),
    images=st.integers(1, 3),
    rows=st.integers(1, 30),
    n=st.integers(1, 9),
    k=st.integers(1, 20),
)


def shape_given(layer):
    """Of a layer's input as a trace keeps it."""
    gemm = layer.gemm
    return layer.input_shape if layer.kind == "conv" else (gemm.count, gemm.m, gemm.k)


def met_pixels(layer):
    """(tap, row) -> the pixel (image, *place) that the tap meets at the row; `None` for zeros."""
    geometry, size, output = layer.convolution, layer.input_shape[2:], layer.output_shape[2:]
    found = {}
    taps = every(*map(range, geometry.kernel))
    rows = list(every(range(layer.images), *map(range, output)))
    for tap, offsets in enumerate(taps):
        for row, (image, *place) in enumerate(rows):
            at = tuple(
                p * step + o * apart - pad
                for p, step, o, apart, pad in zip(
                    place, geometry.stride, offsets, geometry.dilation, geometry.padding,
                    strict=True,
                )
            )  # fmt: skip
            inside = all(0 <= x < most for x, most in zip(at, size, strict=True))
            found[tap, row] = (image, *at) if inside else None
    return found


def row_beside(layer, pixel):
    """The row at a pixel: in each dimension the output position nearest to it, a later one of two
    as near."""
    geometry, output = layer.convolution, layer.output_shape[2:]
    image, *at = pixel
    row = image
    for d, size in enumerate(output):
        centre = (geometry.kernel[d] - 1) * geometry.dilation[d] // 2 - geometry.padding[d]
        distances = [(abs(y * geometry.stride[d] + centre - at[d]), -y) for y in range(size)]
        row = row * size - min(distances)[1]
    return row


def kind_of(layer, pixel):
    """Pixels of one kind are whole strides apart."""
    geometry = layer.convolution
    return tuple(
        (x + pad) % step
        for x, pad, step in zip(pixel[1:], geometry.padding, geometry.stride, strict=True)
    )


def kinds_of_taps(layer):
    """The kind of the pixels that each tap meets."""
    geometry = layer.convolution
    return [
        tuple(
            o * apart % step
            for o, apart, step in zip(offsets, geometry.dilation, geometry.stride, strict=True)
        )
        for offsets in every(*map(range, geometry.kernel))
    ]


@given(convolutions(), tiles)
@settings(relaxed, max_examples=60)
def test_tiles_of_rows_are_small_equal_and_of_one_image(layer, tile):
    looks = looks_of(layer, 1, images=layer.images, tile=tile, once=False)
    own = looks.tile_numbers[0].reshape(layer.images, *layer.output_shape[2:])
    sizes = looks.vectors[0]
    assert sizes.sum() == layer.gemm.m and 0 < sizes.min() <= sizes.max() <= tile.rows
    assert [np.unique(image).tolist() for image in own] == [
        list(range(first, first + looks.tiles // layer.images))
        for first in range(0, looks.tiles, looks.tiles // layer.images)
    ]
    if tile.shape == "block" and own.ndim == 3:
        side = math.isqrt(tile.rows)
        for number in range(looks.tiles):
            places = np.argwhere(own == number)
            height, width = np.ptp(places, axis=0)[1:] + 1
            assert height * width == len(places) and max(height, width) <= side
    else:
        assert (np.diff(looks.tile_numbers[0]) >= 0).all()
        assert np.ptp(sizes) <= 1


@given(convolutions(), st.none() | tiles, st.integers(1, 5))
@settings(relaxed, max_examples=150)
def test_pixels_in_tiles_are_those_of_plain_loops(layer, tile, length):
    assume(is_looked_at_once(layer))
    channels = layer.gemm.k // math.prod(layer.convolution.kernel)
    length = min(length, channels)
    looks = looks_of(layer, length, images=layer.images, tile=tile, once=True)
    of_rows = looks_of(layer, 1, images=layer.images, tile=tile, once=False).tile_numbers[0]
    met = met_pixels(layer)
    pixels = sorted({pixel for pixel in met.values() if pixel is not None})
    tile_of = {pixel: int(of_rows[row_beside(layer, pixel)]) for pixel in pixels}
    vectors, handed, rows_of_tile = defaultdict(int), defaultdict(int), defaultdict(set)
    for pixel in pixels:
        vectors[kind_of(layer, pixel), tile_of[pixel]] += 1
    tiles_of_row = defaultdict(set)
    for (_, row), pixel in met.items():
        if pixel is not None:
            place = kind_of(layer, pixel), tile_of[pixel]
            handed[place] += 1
            rows_of_tile[place].add(row)
            tiles_of_row[row].add(tile_of[pixel])
    kinds = kinds_of_taps(layer)
    for number, kind in enumerate(sorted(set(kinds))):
        for segment, place in every(range(looks.segments), range(looks.tiles)):
            view = number * looks.segments + segment
            assert looks.vectors[view, place] == vectors[kind, place]
            assert looks.handed[view, place] == handed[kind, place]
            assert looks.summed[view, place] == len(rows_of_tile[kind, place])
        assert looks.taps_of_kind[number] == kinds.count(kind)
    assert looks.segments == math.ceil(channels / length)
    assert looks.looked_at == layer.gemm.count * looks.segments * len(pixels)
    spans = [(min(own), max(own)) for own in map(tiles_of_row.get, range(layer.gemm.m)) if own]
    assert looks.taking_rows == len(spans)
    spans += [(0, 0)] * (layer.gemm.m - len(spans))  # rows that meet zeros only
    for place in range(looks.tiles):
        assert looks.open_rows[place] == sum(a <= place <= b for a, b in spans)
        assert looks.finished_rows[place] == sum(b == place for _, b in spans)
    assert looks.finished_rows.sum() == layer.gemm.m
    if tile is not None:
        each = [sum(tile_of[pixel] == place for pixel in pixels) for place in range(looks.tiles)]
        assert looks.loaded.touched.tolist() == looks.loaded.fresh.tolist() == each
        assert (looks.loaded.positions, looks.loaded.window) == (len(pixels), max(each))


@given(convolutions(), tiles)
@settings(relaxed, max_examples=60)
def test_what_tiles_of_rows_load_is_counted_pixel_by_pixel(layer, tile):
    looks = looks_of(layer, 1, images=layer.images, tile=tile, once=False)
    tiles_of = defaultdict(set)
    for (_, row), pixel in met_pixels(layer).items():
        if pixel is not None:
            tiles_of[pixel].add(int(looks.tile_numbers[0, row]))
    if math.prod(layer.convolution.kernel) == 1 or not tiles_of:
        expected = looks.vectors[0].tolist()
        assert looks.loaded.touched.tolist() == looks.loaded.fresh.tolist() == expected
        return
    held = [sum(min(own) <= t <= max(own) for own in tiles_of.values()) for t in range(looks.tiles)]
    for place in range(looks.tiles):
        own = [each for each in tiles_of.values() if place in each]
        assert looks.loaded.touched[place] == len(own)
        assert looks.loaded.fresh[place] == sum(min(each) == place for each in own)
    assert (looks.loaded.positions, looks.loaded.window) == (len(tiles_of), max(held))


def test_layers_that_have_no_pixel_to_look_at_once_are_looked_at_row_by_row():
    once = LshReuse(hashes=4, length=2, look_once=True)
    plain = replace(once, look_once=False)
    # Without padding, 3x3 rows meet 25 pixels, which may be as many clusters.
    unpadded = convolution_layer(size=(5, 5), kernel=(3, 3))
    pointwise = convolution_layer(size=(5, 5), kernel=(1, 1))
    linear = matrix_layer("fc", m=8, n=3, k=6)
    for layer in (unpadded, pointwise, linear):
        assert not once.looks_once_at(layer)
        assert vars(once.looks(layer)) == vars(plain.looks(layer))
    assert once.looks_once_at(convolution_layer(size=(5, 5), kernel=(3, 3), padding=(1, 1)))


def averaged_convolution(policy, layer, images, weights, decisions):
    """PyTorch's convolution of the feature map in which every pixel's segment is what stands for
    its cluster, in float64."""
    import torch

    looks, shared = policy.looks(layer), decisions.rows
    size, geometry = layer.input_shape[2:], layer.convolution
    channels = layer.input_shape[1] // geometry.groups
    replaced = np.zeros(images.shape)
    met = met_pixels(layer)
    for group in range(geometry.groups):
        members = defaultdict(list)
        for (tap, row), pixel in met.items():
            for segment in range(looks.segments if pixel is not None else 0):
                cluster = shared.clusters_met(group, tap * looks.segments + segment)[row]
                members[int(cluster), segment].append(pixel)
        for (_, segment), pixels in members.items():
            first = group * channels + segment * looks.sub_vector_length
            last = min(first + looks.sub_vector_length, (group + 1) * channels)
            own = [(image, slice(first, last), *at) for image, *at in set(pixels)]
            stands = np.mean([images[place] for place in own], axis=0, dtype=np.float64)
            for place in own:
                replaced[place] = stands
    convolve = getattr(torch.nn.functional, f"conv{len(size)}d")
    kernel = weights.transpose(0, 2, 1).reshape(-1, channels, *geometry.kernel)
    found = convolve(
        torch.from_numpy(replaced),
        torch.from_numpy(kernel.astype(np.float64)),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
    ).numpy()
    made = found.reshape(layer.images, geometry.groups, layer.gemm.n, -1)
    return made.transpose(1, 0, 3, 2).reshape(layer.gemm.count, layer.gemm.m, layer.gemm.n)


def few_images(layer, seed):
    """`(images, channels, *size)`, or rows, of few kinds of vectors, with noise."""
    rng = np.random.default_rng(seed)
    shape, axis = shape_given(layer), 1 if layer.kind == "conv" else 2
    length, places = shape[axis], shape[:axis] + shape[axis + 1 :]
    kinds = rng.standard_normal((4, length))
    found = kinds[rng.integers(0, 4, places)] + 0.1 * rng.standard_normal((*places, length))
    return np.ascontiguousarray(np.moveaxis(found, -1, axis), dtype=np.float32)


@st.composite
def looking_policies(draw):
    """Policies that look at pixels."""
    tile_rows = draw(st.none() | st.integers(1, 20))
    scope = draw(st.sampled_from(["image", "batch"])) if tile_rows is None else "tile"
    return LshReuse(
        hashes=draw(st.integers(1, 6)),
        length=draw(st.none() | st.integers(1, 5) | st.sampled_from([16, 21])),
        scope=scope,
        tile_rows=tile_rows,
        tile_shape=draw(st.sampled_from(["strip", "block"])),
        look_once=True,
        representative=draw(st.sampled_from(["centroid", "first"])),
        thresholds=draw(st.sampled_from(["zero", "mean", "spread"])),
    )


def check_results(policy, layer, seed):
    """What a policy decides on a feature map, as a model's run does, and on unfolded rows is the
    same, and so are the results, up to rounding: a convolution of means, of pixels looked at once.

    Returns:
        The decisions and the layer's weights.
    """
    images, weights = few_images(layer, seed), example_weights(layer, seed)
    rows = rows_of(layer, images)
    state = policy.calibrate(layer, rows_of(layer, few_images(layer, seed + 1)))
    decisions = policy.decide(layer, rows, state)
    executed = execute(
        policy, layer, Activations(layer, images), state, None, lambda: weights,
        wants_result=True, centroids=True,
    )  # fmt: skip
    same_decisions(decisions, executed.decisions)
    if decisions is not None:
        found = product(decisions, rows, weights)
        np.testing.assert_allclose(executed.result, found, **CLOSE)
        np.testing.assert_allclose(found, reference_product(decisions, rows, weights), **CLOSE)
        if policy.representative == "centroid" and policy.looks_once_at(layer):
            expected = averaged_convolution(policy, layer, images, weights, decisions)
            np.testing.assert_allclose(found, expected, **CLOSE)
    return decisions, weights


@given(convolutions(), looking_policies(), st.integers(0, 2**16))
@settings(relaxed, max_examples=150)
def test_looking_once_is_a_convolution_of_averaged_pixels(layer, policy, seed):
    assume(policy.looks_once_at(layer))
    decisions, weights = check_results(policy, layer, seed)
    if decisions is not None:  # results need no rows
        found = product(decisions, None, weights)
        np.testing.assert_allclose(convolved(layer, decisions.rows, weights), found, **CLOSE)


@given(
    convolutions() | linears,
    looking_policies(),
    st.booleans(),
    designs(),
    st.integers(0, 2**16),
)
@settings(relaxed, max_examples=150)
def test_engines_agree_on_tiles_and_pixels(layer, policy, once, design, seed):
    policy = replace(policy, look_once=once, length=min(policy.length or 5, layer.gemm.k))
    rows = rows_of(layer, few_images(layer, seed))
    decisions = policy.decide(layer, rows, policy.calibrate(layer, rows))
    assume(decisions is not None)
    same_layers(layer, decisions, design)
    timing = layer_timing(layer, decisions, design)
    assert timing.macs == timing.actions["array", "mac"] == decisions.macs <= layer.gemm.macs
    assert min(timing.actions.values()) >= 0
    for tiles in best_passes(Remaining.of(layer, decisions), design):
        moved = dict.fromkeys(("inputs", "weights", "outputs"), 0)
        for each in tiles.transfers:
            if each.kind in moved:
                moved[each.kind] += tiles.total(each.moved_bytes)
        elements = layer.gemm.count * layer.gemm.m * layer.gemm.n
        # A tile and pass is rounded up to whole bytes.
        assert moved["outputs"] == elements * design.operand_bits // 8
        assert moved["weights"] >= layer.gemm.count * layer.gemm.k * layer.gemm.n
        assert moved["inputs"] >= layer.input_elements * design.operand_bits // 8 - layer.images


class PixelSuite(RowSuite):
    """The suite of rows where pixels are looked at; its rows need not be those of a feature map, as
    only one of those that meet a pixel is read."""

    policy = LshReuse(hashes=3, length=2, look_once=True)
    bolder = (replace(policy, hashes=2), replace(policy, hashes=1))

    def test_equal_rows_are_exact(self):
        """Padding makes rows at a border others, so it's pixels that are equal."""
        layer, weights = self.layer, example_weights(self.layer)
        pixel = np.random.default_rng(4).standard_normal(layer.input_shape[1])
        images = np.broadcast_to(pixel, (layer.images, *layer.input_shape[2:], pixel.size))
        rows = rows_of(layer, np.moveaxis(images, -1, 1))
        made = self.decisions(self.policy, rows)
        assert (made.rows.clusters <= 1).all()
        np.testing.assert_allclose(product(made, rows, weights), rows @ weights, 1e-4, 1e-4)

    def test_nothing_taken_off_is_dense(self):
        layer, weights = self.layer, example_weights(self.layer)
        rows = rows_of(layer, np.random.default_rng(5).standard_normal(layer.input_shape))
        made = decide_on(replace(self.policy, hashes=62, length=None), layer, rows, rows)
        vectors = (made.rows.clusters == made.rows.looks.vectors).all()
        assert vectors and made.macs <= layer.gemm.macs
        np.testing.assert_allclose(product(made, rows, weights), rows @ weights, 1e-4, 1e-4)

    def test_pixels_are_looked_at(self):
        assert self.policy.looks_once_at(self.layer)


def conv(**changes):
    """A layer for a suite."""
    return convolution_layer(**{"size": (5, 6), "kernel": (3, 3), "padding": (1, 1)} | changes)


ONCE, TILES = PixelSuite.policy, {"scope": "tile", "tile_rows": 7}
for _name, _policy, _layer in (
    ("image", ONCE, conv(images=2)),
    ("batch", replace(ONCE, scope="batch", length=None), conv(images=2)),
    ("strips", replace(ONCE, **TILES), conv()),
    ("blocks", replace(ONCE, **TILES, tile_shape="block"), conv(images=2)),
    ("first", replace(ONCE, **TILES, representative="first"), conv(images=2)),
    ("short", replace(ONCE, length=3), conv(images=2, channels=8)),
    ("stride", replace(ONCE, **TILES), conv(size=(9, 10), stride=(2, 2), images=2)),
    ("dilation", replace(ONCE, **TILES), conv(dilation=(2, 2), padding=(2, 2))),
    ("groups", ONCE, conv(groups=2, channels=6, images=2)),
    ("wide", replace(ONCE, **TILES), conv(kernel=(5, 5), padding=(2, 2))),
    ("even", ONCE, conv(kernel=(2, 4), padding=(1, 2))),
    ("line", replace(ONCE, **TILES), conv(size=(40,), kernel=(3,), padding=(1,))),
    ("volume", ONCE, conv(size=(3, 4, 3), kernel=(3, 3, 3), padding=(1, 1, 1))),
):
    globals()[f"Test_{_name}"] = type(
        f"Test_{_name}",
        (PixelSuite,),
        {
            "policy": _policy,
            "bolder": (replace(_policy, hashes=1),),
            "layer": _layer,
        },
    )


def test_quantised_pixels_have_whole_centroids():
    grid = Quantisation(scale=0.25, zero_point=3)
    layer = replace(conv(), quantisation=grid)
    images = grid.scale * np.random.default_rng(0).integers(-3, 6, layer.input_shape)
    weights = example_weights(layer)
    policy = LshReuse(hashes=3, length=2, look_once=True, thresholds="zero")
    executed = execute(
        policy, layer, Activations(layer, images.astype(np.float32)), {}, None, lambda: weights,
        wants_result=True, centroids=True,
    )  # fmt: skip
    # Decisions are made on whole steps; what stands for a cluster is rounded before it is taken.
    rows = rows_of(layer, images / grid.scale)
    same_decisions(executed.decisions, policy.decide(layer, rows, {}))
    whole = replace(executed.decisions, rows=executed.decisions.rows.with_whole_centroids())
    assert (executed.decisions.rows.centroids % 1).any()
    np.testing.assert_allclose(
        executed.result, reference_product(whole, rows, weights), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("tile", [{}, TILES], ids=["image", "tile"])
@pytest.mark.parametrize("once", [False, True], ids=["rows", "pixels"])
def test_a_number_that_is_not_finite_is_seen_wherever_it_is(tile, once):
    layer = conv()
    policy = LshReuse(
        hashes=2, length=2, thresholds="zero", representative="first", look_once=once, **tile
    )
    images = np.ones(layer.input_shape, np.float32)
    images[0, 0, 2, 3] = np.inf  # a sign as its neighbours', of which another one stands for it
    with pytest.raises(ConfigError, match="layer 'conv' must be finite"):
        policy.decide(layer, rows_of(layer, images), {})
    with pytest.raises(ConfigError, match="layer 'conv' must be finite"):
        execute(
            policy, layer, Activations(layer, images), {}, None, lambda: None,
            wants_result=False, centroids=False,
        )  # fmt: skip
