"""Similarity of inputs and layers in closed form; clusters painted where they lie."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from accelerators import ConfigError
from codesign.cli import app as cli
from codesign.report.similarity_page import (
    Measured,
    inputs_text,
    layers_text,
    write_similarity_html,
)
from simulator import (
    Decisions,
    Looks,
    LshReuse,
    NoReuse,
    PerLayer,
    ReuseRun,
    SharedRows,
    decide,
    decide_stream,
    input_similarity,
    layer_similarity,
    paint_clusters,
    remaining_work,
    similarity_by_distance,
)
from simulator.analysis.frames import frame_picture
from simulator.analysis.painting import ALONE, Grid, grid_of
from tests.small_search import small_workload
from workloads import Gemm, TraceError, WorkloadTrace, capture


def one_layer(images: torch.Tensor, **geometry) -> WorkloadTrace:
    """A trace of one convolution; a single tap unless told otherwise."""
    torch.manual_seed(0)
    given = {"kernel_size": 1} | geometry
    return capture(nn.Sequential(nn.Conv2d(images.shape[1], 4, **given)).eval(), images)


def grouped(trace: WorkloadTrace, length: int, groups: int) -> ReuseRun:
    """Decisions that put equal sub-vectors of the one layer, and no others, into a cluster."""
    (layer,) = trace.layers
    rows = trace.rows(layer.name)
    count, m, k = rows.shape
    parts = -(-k // length)
    ids = np.empty((count, parts, m), np.int32)
    clusters = np.empty((count, parts, groups), np.int32)
    per_group = m // groups
    for place in np.ndindex(clusters.shape):
        gemm, part, group = place
        chosen = slice(group * per_group, (group + 1) * per_group)
        cut = rows[gemm, chosen, part * length : (part + 1) * length]
        found, numbers = np.unique(cut, axis=0, return_inverse=True)
        ids[gemm, part, chosen], clusters[place] = numbers.ravel(), len(found)
    shared = SharedRows(
        gemm=layer.gemm,
        looks=Looks(gemm=layer.gemm, sub_vector_length=length, tiles=groups),
        ids=ids,
        clusters=clusters,
        centroids=None,
    )
    made = Decisions(layer=layer.name, gemm=layer.gemm, rows=shared)
    return ReuseRun(policy={}, images=trace.images, decisions={layer.name: made}, relative_mse={})


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def test_identical_inputs_are_alike_and_orthogonal_ones_are_not():
    one, other = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    one[0, 0], other[0, 1] = 3, 5
    found = input_similarity(np.stack([one, 2 * one, other, -one]))
    expected = [[1, 1, 0, -1], [1, 1, 0, -1], [0, 0, 1, 0], [-1, -1, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_centred_similarity_is_the_correlation():
    inputs = np.random.default_rng(0).normal(3, 1, (5, 3, 4, 4))
    expected = np.corrcoef(inputs.reshape(5, -1))
    np.testing.assert_allclose(input_similarity(inputs, centred=True), expected, atol=1e-12)
    brighter = 2 * inputs + 7
    np.testing.assert_allclose(input_similarity(brighter, centred=True), expected, atol=1e-12)


def test_inputs_without_a_direction_are_like_nothing():
    black, grey = np.zeros(4), np.full(4, 0.1)
    found = input_similarity(np.stack([black, grey, np.arange(4)]))
    assert np.isnan(found[0]).all() and np.isnan(found[:, 0]).all()
    assert found[1, 2] == pytest.approx(6 / (2 * np.sqrt(14)))
    centred = input_similarity(np.stack([black, grey, np.arange(4)]), centred=True)
    assert np.isfinite(centred).tolist() == [[False] * 3, [False] * 3, [False, False, True]]


def test_similarity_by_distance_averages_diagonals():
    places = np.arange(4)
    similarity = 1 - 0.1 * np.abs(places[:, None] - places)
    np.testing.assert_allclose(similarity_by_distance(similarity), [0.9, 0.8, 0.7])
    similarity[0, 1] = np.nan
    np.testing.assert_allclose(similarity_by_distance(similarity), [0.9, 0.8, 0.7])


@pytest.mark.parametrize("inputs", [np.zeros(3), np.zeros((0, 3)), np.array([[1, np.nan]])])
def test_input_similarity_refuses_what_has_none(inputs):
    with pytest.raises(ConfigError, match=r"input_similarity\.inputs must be"):
        input_similarity(inputs)


def test_rows_of_one_direction_and_repeated_images_are_alike():
    image = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 3)
    (found,) = layer_similarity(one_layer(torch.cat([image, 5 * image])))
    assert (found.layer, found.kind, found.rows_per_image) == ("0", "conv", 9)
    assert (found.within_image, found.next_image) == pytest.approx((1, 1))


def test_rows_of_two_orthogonal_directions():
    """Of n rows, half each way, (n/2 - 1) / (n - 1) of all pairs are alike; then all turn."""
    image = torch.zeros(1, 2, 4, 4)
    image[:, 0, :, :2] = 2
    image[:, 1, :, 2:] = 3
    (found,) = layer_similarity(one_layer(torch.cat([image, image.flip(1)])))
    assert found.within_image == pytest.approx((16 / 2 - 1) / (16 - 1))
    assert found.next_image == pytest.approx(0, abs=1e-12)


def test_layer_similarity_is_the_mean_over_pairs():
    images = torch.rand(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    trace = one_layer(images, kernel_size=3, stride=2, groups=2)
    rows = trace.rows("0").reshape(2, 3, 4, 18)  # groups, images, positions, columns
    apart = ~np.eye(4, dtype=bool)
    within = np.mean([np.corrcoef(part)[apart] for group in rows for part in group])
    following = np.mean(
        [np.corrcoef(group[i, p], group[i + 1, p])[0, 1]
         for group in rows for i in range(2) for p in range(4)]
    )  # fmt: skip
    (found,) = layer_similarity(trace, centred=True)
    assert (found.within_image, found.next_image) == pytest.approx((within, following), abs=1e-6)


def test_black_rows_count_for_nothing():
    image = torch.zeros(1, 2, 2, 2)
    (found,) = layer_similarity(one_layer(image))
    assert found.within_image is None and found.next_image is None
    image[0, :, 0] = 1
    assert layer_similarity(one_layer(image))[0].within_image == pytest.approx(1)


class Attend(nn.Module):
    """Attention of two heads over windows of tokens, `(n, tokens, 8)`."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.given = nn.Linear(8, 8)

    def forward(self, tokens):
        x = self.given(tokens).reshape(-1, self.window, 2, 4).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        return x.transpose(1, 2).reshape(tokens.shape)


class Block(nn.Module):
    """Attention, then a linear layer of each token."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.attend = Attend(window)
        self.mlp = nn.Linear(8, 8)

    def forward(self, tokens):
        return self.mlp(self.attend(tokens))


def test_heads_belong_to_their_image():
    torch.manual_seed(0)
    image = torch.randn(1, 9, 8)
    trace = capture(Block(9).eval(), image.expand(3, 9, 8))
    assert trace.layer("attend.scores").gemm.count == 3 * 2
    found = layer_similarity(trace)
    assert [each.layer for each in found] == [
        "attend.given", "attend.scores", "attend.values", "mlp",
    ]  # fmt: skip
    assert [each.rows_per_image for each in found] == [9] * 4
    assert [each.next_image for each in found] == pytest.approx([1] * 4)


def test_two_clusters_get_two_colours_where_they_lie():
    """One tap, stride 2, padding 1 on 6 x 6: outputs see -1, 1, 3 and 5; the first is padding."""
    image = torch.ones(1, 2, 6, 6)
    image[0, :, 5, 3] = 4  # the output at (3, 2)
    trace = one_layer(torch.cat([torch.ones(1, 2, 6, 6), image]), stride=2, padding=1)
    run = grouped(trace, length=2, groups=2)
    assert grid_of(trace, "0") == Grid(height=4, width=4)
    border = np.zeros((4, 4), bool)
    border[0] = border[:, 0] = True
    first, second = (paint_clusters(trace, run, "0", image=number) for number in (0, 1))
    assert first.dtype == np.uint8 and first.shape == (4, 4, 3)
    assert len(colours(first)) == 2
    assert len(colours(first[border])) == len(colours(first[~border])) == 1
    assert (ALONE,) * 3 not in colours(first)
    lonely = np.zeros((4, 4), bool)
    lonely[3, 2] = True
    assert colours(second[lonely]) == {(ALONE,) * 3}
    assert len(colours(second[~lonely])) == 2
    # 7 padded positions, 9 that see the image.
    expected = np.where(border, 1 / 7, 1 / 9)
    np.testing.assert_allclose(remaining_work(trace, run, "0"), expected)
    expected = np.where(border, 1 / 7, 1 / 8)
    expected[3, 2] = 1
    np.testing.assert_allclose(remaining_work(trace, run, "0", image=1), expected)


def test_what_is_alone_in_an_image_may_share_with_another():
    image = torch.ones(1, 2, 2, 2)
    image[0, :, 0, 1] = 4
    trace = one_layer(torch.cat([image, image]))
    apart, together = (grouped(trace, length=2, groups=groups) for groups in (2, 1))
    assert tuple(paint_clusters(trace, apart, "0")[0, 1]) == (ALONE,) * 3
    assert tuple(paint_clusters(trace, together, "0", image=1)[0, 1]) != (ALONE,) * 3
    assert remaining_work(trace, together, "0", image=1)[0, 1] == 0.5


def test_a_blend_is_one_colour_where_all_sub_vectors_agree():
    """Two sub-vectors of two clusters: left or right, above or below; four quarters."""
    image = torch.ones(1, 2, 4, 4)
    image[0, 0, :, 2:] = 2
    image[0, 1, 2:] = 2
    trace = one_layer(image)
    run = grouped(trace, length=1, groups=1)
    left, above, blend = (paint_clusters(trace, run, "0", sub_vector=j) for j in (0, 1, None))
    assert len(colours(left)) == len(colours(above)) == 2
    assert len(colours(left[:, :2])) == len(colours(above[:2])) == 1
    quarters = [blend[y : y + 2, x : x + 2] for y in (0, 2) for x in (0, 2)]
    assert all(len(colours(quarter)) == 1 for quarter in quarters)
    assert len(colours(blend)) == 4


def test_groups_of_a_convolution_are_sub_vectors():
    image = torch.ones(1, 2, 4, 4)
    image[0, 1, 2:] = 2
    trace = one_layer(image, groups=2)
    run = grouped(trace, length=1, groups=1)
    assert len(colours(paint_clusters(trace, run, "0", sub_vector=0))) == 1
    assert len(colours(paint_clusters(trace, run, "0", sub_vector=1))) == 2


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_remaining_work_averages_to_the_remaining_ratio(scope):
    trace = small_workload().trace
    run = decide(trace, LshReuse(hashes=4, length=5, scope=scope))
    for layer in ("first", "second"):
        work = [remaining_work(trace, run, layer, image=i) for i in range(trace.images)]
        assert np.mean(work) == pytest.approx(run.decisions[layer].remaining_ratio)


def test_clusters_of_earlier_batches_cost_nothing_and_are_not_alone():
    trace = small_workload().trace
    policy = PerLayer({"first": LshReuse(hashes=8, length=27, scope="stream", thresholds="mean")})
    first, again = decide_stream([trace, trace], policy, calibration=trace)
    work = [remaining_work(trace, first, "first", image=i) for i in range(trace.images)]
    assert np.mean(work) == pytest.approx(first.decisions["first"].remaining_ratio)
    alone = sum((each == 1).sum() for each in work)
    greys = [
        (paint_clusters(trace, run, "first", image=i) == ALONE).all(axis=2).sum()
        for run in (first, again)
        for i in range(trace.images)
    ]
    assert alone > 0 and sum(greys[: trace.images]) == alone and not any(greys[trace.images :])
    assert not remaining_work(trace, again, "first").any()


def test_tokens_are_painted_where_they_form_a_grid():
    images = torch.rand(2, 3, 6, 12)
    layers = {  # tokens of an image: what they are
        18: Grid(height=3, width=6),
        19: Grid(height=3, width=6, skipped=1),
        17: "17 tokens, which form no grid",
        1: "one row an image",
    }
    for tokens, expected in layers.items():
        model = nn.Sequential(nn.Linear(8, 4)).eval()
        trace = replace(capture(model, torch.rand(2, tokens, 8)), inputs=(images.numpy(),))
        assert grid_of(trace, "0") == expected


def test_class_token_has_no_position():
    tokens = torch.ones(1, 5, 8)
    tokens[0, 0] = 9  # the class token; then the second position
    tokens[0, 2] = 4
    trace = capture(nn.Sequential(nn.Linear(8, 4)).eval(), tokens)
    picture = paint_clusters(trace, grouped(trace, length=8, groups=1), "0")
    assert picture.shape == (2, 2, 3)
    assert (picture == ALONE).all(axis=2).tolist() == [[False, True], [False, False]]


def test_windows_of_attention_are_not_painted():
    tokens = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    whole, cut = (capture(Block(window).eval(), tokens) for window in (16, 4))
    assert "heads or windows" in grid_of(whole, "attend.values")
    assert grid_of(whole, "attend.given") == Grid(height=4, width=4)
    assert grid_of(cut, "attend.given") == "tokens in the order of attention windows"
    assert grid_of(cut, "mlp") == Grid(height=4, width=4)


def test_painting_refuses_what_does_not_fit():
    workload = small_workload()
    trace = workload.trace
    run = decide(trace, PerLayer({"first": LshReuse(hashes=4, length=9)}))
    with pytest.raises(TraceError, match="has no layer 'third'; use one of first, second"):
        paint_clusters(trace, run, "third")
    for image in (-1, 6):
        with pytest.raises(ConfigError, match=f"image must be 0 to 5 in this trace, got {image}"):
            remaining_work(trace, run, "first", image=image)
    with pytest.raises(ConfigError, match="sub_vector must be 0 to 2 in layer 'first', got 3"):
        paint_clusters(trace, run, "first", sub_vector=3)
    with pytest.raises(ConfigError, match=r"'second' must have decisions .* it runs dense"):
        paint_clusters(trace, run, "second")
    everywhere = decide(trace, LshReuse(hashes=4, length=9, scope="batch"))
    with pytest.raises(ConfigError, match=r"'answers' must have positions .* one row an image"):
        paint_clusters(trace, everywhere, "answers")
    other = one_layer(torch.rand(6, 3, 12, 12))
    for wrong in (decide(other, NoReuse()), replace(run, images=5)):
        with pytest.raises(ConfigError, match="run must be of the trace"):
            paint_clusters(trace, wrong, "first")


def test_frame_needs_images():
    trace = small_workload().trace
    picture = frame_picture(trace, 2)
    assert picture.shape == (12, 12, 3) and (picture.min(), picture.max()) == (0, 255)
    grey = replace(trace, inputs=(trace.inputs[0][:, :1],))
    assert (frame_picture(grey, 0) == frame_picture(grey, 0)[..., :1]).all()
    with pytest.raises(ConfigError, match="image must be 0 to 5 in this trace, got 6"):
        frame_picture(trace, 6)
    shapes = WorkloadTrace.from_gemms([("fc", Gemm(m=4, n=2, k=3))])
    with pytest.raises(ConfigError, match=r"trace must hold the images .* got no inputs"):
        frame_picture(shapes, 0)


@pytest.mark.parametrize("sub_vector", [None, 2])
def test_page_shows_every_layer_or_says_why_not(tmp_path, sub_vector):
    trace = small_workload().trace
    run = decide(trace, LshReuse(hashes=4, length=9))
    path = write_similarity_html(
        trace, run, Measured.of(trace), tmp_path / "page.html", name="Noise", sub_vector=sub_vector
    )
    page = path.read_text()
    assert len(re.findall('<figure class="layer"', page)) == 2
    assert f"Remaining ratio {run.decisions['second'].remaining_ratio:.3f}" in page
    assert "<dt>answers</dt><dd>one row an image</dd>" in page
    assert len(re.findall('<img src="data:image/png;base64,', page)) == 2 * 2
    assert ("sub-vector 2" in page) == (sub_vector == 2)
    assert path.stat().st_size < 10e6


@pytest.mark.filterwarnings("error")
def test_blank_images_are_told_of_without_a_number(tmp_path):
    black, grey = torch.zeros(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    blank = one_layer(torch.cat([black, black]), bias=False)
    measured = Measured.of(blank)
    assert inputs_text(measured) == (
        "No two images have a cosine similarity: all but one, or all, are all 0."
    )
    assert layers_text(measured) == "No image has two rows with a cosine similarity in any layer."
    write_similarity_html(
        blank, decide(blank, LshReuse(hashes=2, length=None, thresholds="zero")), measured,
        tmp_path / "page.html", name="blank",
    )  # fmt: skip
    flickering = Measured.of(one_layer(torch.cat([grey, black, grey])))
    assert inputs_text(flickering) == (
        "Of images that follow each other, one is always blank; mean cosine similarity of any two "
        "images 1.000 (1 is the same, 0 unrelated)."
    )


def test_command_writes_the_page(tmp_path):
    trace = small_workload().trace.save(tmp_path / "trace")
    out = tmp_path / "new" / "page.html"
    given = ["similarity", str(trace), "--hashes", "4", "--length", "30", "--out", str(out)]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 0, result.output
    assert "SmallNetwork" in out.read_text()
    assert "any two images" in result.stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "one of TRACE and --model must be given, got neither"),
        (["TRACE", "--model", "cifarnet"], "one of TRACE and --model must be given, got both"),
        (["TRACE", "--out", "page.png"], "--out must end in .html, got 'page.png'"),
        (["TRACE", "--image", "6"], "image must be 0 to 5 in this trace, got 6"),
        (["nothing"], "nothing"),
    ],
)
def test_command_tells_what_is_wrong(tmp_path, given, told):
    trace = small_workload().trace.save(tmp_path / "trace")
    words = [str(trace) if word == "TRACE" else word for word in given]
    result = CliRunner().invoke(cli.app, ["similarity", *words])
    assert result.exit_code == 2
    assert told in result.stderr and "Traceback" not in result.stderr
