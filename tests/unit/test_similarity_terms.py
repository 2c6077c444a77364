"""The terms of similarity-aware training against sums done by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workloads.training import TrainingError
from workloads.training.similarity_terms import LayerOutputs, cluster_average_loss


def identity(size: int = 2) -> nn.Linear:
    """A layer whose output is its input."""
    layer = nn.Linear(size, size, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def terms_of(network: nn.Module, frames: Tensor, *, frames_per_clip: int = 2, **settings):
    """Both terms of one pass, and what watched it."""
    chosen = {"temperature": 1.0, "direction": "from_output", "window": 1000} | settings
    outputs = LayerOutputs(network, **chosen)
    clips = len(frames) // frames_per_clip
    with outputs.watch(clips=clips, frames=frames_per_clip, intra=True, inter=True) as terms:
        network(frames)
    assert terms.intra is not None
    assert terms.inter is not None
    return terms, outputs


# Distributions (1/4, 3/4) and (1/2, 1/2).
PAIR = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        # Of the later frame to the earlier: 1/2 ln((1/2) / (1/4)) + 1/2 ln((1/2) / (3/4)).
        ("from_output", 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        # Of the earlier to the later: 1/4 ln((1/4) / (1/2)) + 3/4 ln((3/4) / (1/2)).
        ("from_reference", 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)),
    ],
)
def test_inter_term_by_hand(direction, expected):
    terms, _ = terms_of(identity(), PAIR, direction=direction)
    assert terms.inter.item() == pytest.approx(expected, rel=1e-5)
    twice, _ = terms_of(identity(), 2 * PAIR, direction=direction, temperature=2.0)
    assert twice.inter.item() == pytest.approx(expected, rel=1e-5)


def test_intra_term_by_hand():
    # The mean output is (0, ln(3) / 2), as a distribution (1, sqrt 3) / (1 + sqrt 3).
    root = math.sqrt(3)
    mean = (1 / (1 + root), root / (1 + root))
    divergences = [
        sum(p * math.log(p / q) for p, q in zip(frame, mean, strict=True))
        for frame in ((1 / 4, 3 / 4), (1 / 2, 1 / 2))
    ]
    terms, _ = terms_of(identity(), PAIR)
    assert terms.intra.item() == pytest.approx(sum(divergences) / 2, rel=1e-5)


def test_terms_sum_over_layers_and_calls():
    one, _ = terms_of(identity(), PAIR)
    layer = identity()
    for network in (nn.Sequential(identity(), identity()), nn.Sequential(layer, layer)):
        two, outputs = terms_of(network, PAIR)
        assert two.inter.item() == pytest.approx(2 * one.inter.item(), rel=1e-5)
        assert two.intra.item() == pytest.approx(2 * one.intra.item(), rel=1e-5)
        assert len(outputs.means) == 2
    assert set(outputs.means) == {"0", "0#2"}


def test_pairs_stay_within_clips():
    # Two clips that stand still, of different frames: no pair differs, yet frames do.
    terms, _ = terms_of(identity(), PAIR.repeat_interleave(2, dim=0))
    assert terms.inter.item() == 0
    assert terms.intra.item() > 0


@given(seed=st.integers(0, 2**16), size=st.integers(1, 20), temperature=st.floats(0.5, 10))
@settings(max_examples=30, deadline=None)
def test_terms_are_never_negative_and_zero_for_a_still_picture(seed, size, temperature):
    torch.manual_seed(seed)
    network = nn.Linear(size, 3)
    moving, _ = terms_of(network, torch.randn(4, size), temperature=temperature)
    assert moving.inter.item() >= -1e-6
    assert moving.intra.item() >= -1e-6
    still, _ = terms_of(network, torch.randn(1, size).repeat(4, 1), temperature=temperature)
    # Equal rows of one product may differ in the last bit: a kernel sums the last rows otherwise.
    assert still.inter.item() == pytest.approx(0, abs=1e-6)
    assert still.intra.item() == pytest.approx(0, abs=1e-6)


def test_gradient_takes_the_mean_as_a_constant():
    # For p = softmax(F) and a constant q, d KL(p || q) / dF = p (ln(p / q) - KL).
    frames = torch.tensor([[0.3, -1.0, 0.5], [1.0, 0.2, -0.4]], requires_grad=True)
    terms, outputs = terms_of(identity(3), frames)
    terms.intra.backward()
    p = torch.softmax(frames.detach(), dim=1)
    ratio = (p / torch.softmax(outputs.means[""], dim=0)).log()
    expected = p * (ratio - (p * ratio).sum(dim=1, keepdim=True)) / 2  # the mean over 2 frames
    torch.testing.assert_close(frames.grad, expected)


def test_gradient_flows_into_both_frames():
    frames = PAIR.clone().requires_grad_()
    terms, _ = terms_of(identity(), frames)
    terms.inter.backward()
    p, q = torch.softmax(PAIR, dim=1).flip(0)
    ratio = (p / q).log()
    expected = torch.stack([q - p, p * (ratio - (p * ratio).sum())])
    torch.testing.assert_close(frames.grad, expected)


def test_running_mean_is_the_mean_until_the_window_is_full_then_forgets():
    network, batches = identity(), torch.randn(3, 2, 2)
    outputs = LayerOutputs(network, temperature=1.0, direction="from_output", window=4)

    def show(frames: Tensor) -> Tensor:
        with outputs.watch(clips=1, frames=2, intra=True, inter=False):
            network(frames)
        return outputs.means[""].clone()

    torch.testing.assert_close(show(batches[0]), batches[0].mean(dim=0))
    full = show(batches[1])
    torch.testing.assert_close(full, batches[:2].flatten(0, 1).mean(dim=0))
    # Two of the window's four frames are new: they count for a half.
    torch.testing.assert_close(show(batches[2]), full / 2 + batches[2].mean(dim=0) / 2)
    assert outputs.seen == {"": 6}


def test_what_writes_to_an_output_later_changes_nothing():
    torch.manual_seed(0)
    layer, frames = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    plain, _ = terms_of(layer, frames)
    written, _ = terms_of(nn.Sequential(layer, nn.ReLU(inplace=True)), frames)
    assert written.inter.item() == plain.inter.item()
    written.inter.backward()


def test_windows_of_a_frame_are_one_output():
    # (frames * windows, tokens, 2), each frame's windows together.
    frames = torch.randn(2, 6, 2)
    whole, _ = terms_of(identity(), frames)
    cut, _ = terms_of(nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Flatten(0, 1), identity()), frames)
    assert cut.inter.item() == pytest.approx(whole.inter.item(), rel=1e-5)


def test_output_that_lost_the_frames_is_refused():
    network = nn.Sequential(nn.Flatten(0, 1), nn.Unflatten(0, (3, 4)), identity())
    with pytest.raises(
        TrainingError, match=r"layer '2' must give its output for 4 frames .*\(3, 4"
    ):
        terms_of(network, torch.randn(4, 3, 2))


def test_layers_of_changing_size_are_refused():
    network = nn.Conv2d(3, 1, 1)
    outputs = LayerOutputs(network, temperature=1.0, direction="from_output", window=4)
    with pytest.raises(TrainingError, match=r"got 16 values after 9; use frames of one size"):
        for size in (3, 4):
            with outputs.watch(clips=1, frames=2, intra=True, inter=False):
                network(torch.randn(2, 3, size, size))


def test_terms_left_out_cost_nothing():
    network = identity()
    outputs = LayerOutputs(network, temperature=1.0, direction="from_output", window=4)
    with outputs.watch(clips=1, frames=2, intra=False, inter=False) as terms:
        network(PAIR)
        assert not network._forward_hooks
    assert terms.intra is terms.inter is None
    assert outputs.means == {}


class TestClusterAverage:
    def test_by_hand(self):
        # x and 3x always lie on the same side of a hyperplane through 0; -x on the other. Averages
        # are 2x, 2x and -x: differences x, x and 0; squares 1, 4, 1, 4, 0, 0.
        layer = nn.Linear(2, 3)
        layer.weight.data = torch.tensor([[1.0, 2.0], [3.0, 6.0], [-1.0, -2.0]])
        loss = cluster_average_loss({"fc": layer}, hashes=4, seed=0)
        assert loss.item() == pytest.approx(10 / 6)
        loss.backward()
        # Of (w - average)^2, averages move with their members and cancel: 2 (w - average) / 6.
        expected = torch.tensor([[-1.0, -2.0], [1.0, 2.0], [0.0, 0.0]]) / 3
        torch.testing.assert_close(layer.weight.grad, expected)

    def test_output_channels_of_a_transposed_convolution(self):
        layer = nn.ConvTranspose2d(2, 3, 2)
        layer.weight.data = torch.ones(2, 1, 2, 2) * torch.tensor([1.0, 3.0, -1.0])[:, None, None]
        # Three channels of 8 equal weights: 1 and 3 have the average 2, so two thirds differ by 1.
        loss = cluster_average_loss({"up": layer}, hashes=4, seed=0)
        assert loss.item() == pytest.approx(2 / 3)

    def test_more_hyperplanes_make_no_larger_loss(self):
        torch.manual_seed(0)
        layers = {"a": nn.Linear(8, 32), "b": nn.Conv2d(4, 16, 3)}
        losses = [
            float(cluster_average_loss(layers, hashes=h, seed=1).detach()) for h in (1, 4, 60)
        ]
        assert losses[0] > losses[1] > losses[2]
        assert np.isfinite(losses).all()
