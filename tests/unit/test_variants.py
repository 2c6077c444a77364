"""Frames of several sizes: work by the square of the size, answers, choices, their cost."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ConfigError, preset
from simulator import (
    ScaleRegressor,
    least_loss,
    looks_at_maps,
    map_means,
    simulate,
    simulate_variants,
    sizes_by_texture,
)
from workloads import capture

SIZES = (60, 48, 24)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
    ).eval()


@pytest.fixture(scope="module")
def traces(model):
    """Five frames, and the same ones smaller."""
    frames = torch.randn(5, 3, 60, 60, generator=torch.Generator().manual_seed(1))
    return {
        str(size): capture(model, nn.functional.interpolate(frames, (size, size), mode="bilinear"))
        for size in SIZES
    }


def test_work_is_the_square_of_the_size(traces):
    design = preset("dense_16x16")
    for place, share in enumerate((1, 0.64, 0.16)):
        report = simulate_variants(traces, np.full(5, place), design)
        assert report.macs / report.dense_macs == pytest.approx(share)
        assert report.to_dict()["frames"] == {
            name: 5 * (at == place) for at, name in enumerate(traces)
        }
    mixed = simulate_variants(traces, [0, 1, 1, 2, 2], design)
    assert mixed.macs / mixed.dense_macs == pytest.approx((1 + 2 * 0.64 + 2 * 0.16) / 5)
    assert mixed.ratios["speedup_equal_array"] > 1 > mixed.ratios["energy_ratio_equal_array"]
    assert json.loads(json.dumps(mixed.to_dict()))["chosen"] == ["60", "48", "48", "24", "24"]


def test_one_size_alone_is_dense(traces, model):
    design = preset("dense_16x16")
    report = simulate_variants(traces, [0] * 5, design)
    plain = simulate(traces["60"], design)
    assert report.cycles == plain.dense.cycles == report.dense.cycles
    assert report.total_energy_pj == plain.dense.total_energy_pj
    assert report.quality["output_mse"] == 0 and report.runs["24"] is None


def test_answers_are_enlarged(traces):
    report = simulate_variants(traces, [0, 2, 0, 2, 0], preset("dense_16x16"))
    small = torch.from_numpy(traces["24"].outputs[[1, 3]])
    large = nn.functional.interpolate(small, (60, 60), mode="bilinear").numpy()
    expected = traces["60"].outputs.copy()
    expected[[1, 3]] = large
    error = np.square(expected - traces["60"].outputs, dtype=np.float64).mean()
    assert report.quality["output_mse"] == pytest.approx(error)


def test_choosing_is_not_free(traces):
    design, chosen = preset("gated_16x16"), [0, 1, 1, 2, 2]
    looks = {
        name: [looks_at_maps(trace, "2", chosen.count(at))]
        for at, (name, trace) in enumerate(traces.items())
    }
    report = simulate_variants(traces, chosen, design, evidence=looks)
    free = simulate_variants(traces, chosen, design)
    # Eight maps of 3600, 2304 and 576 values, 16 a cycle; two products of 8 elements, 4 a cycle;
    # 8 cycles of latency. Reading 28,800 bytes takes 1,125 cycles of 25.6 bytes.
    summing = {"60": 8 * 225, "48": 8 * 144, "24": 8 * 36}
    frames = {"60": 1, "48": 2, "24": 2}
    extra = {name: frames[name] * (summing[name] + 4 + 8) for name in frames}
    assert report.cycles - free.cycles == sum(extra.values())
    assert report.total_energy_pj > free.total_energy_pj
    with pytest.raises(ConfigError, match="must have feature_cache to run"):
        simulate_variants(traces, chosen, preset("dense_16x16"), evidence=looks)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [([0, 1], "chosen must be a place from 0 to 2"), ([0, 1, 2, 3, 0], "chosen must be a place")],
)
def test_choices_of_no_variant_are_refused(traces, chosen, message):
    with pytest.raises(ConfigError, match=message):
        simulate_variants(traces, chosen, preset("dense_16x16"))


def test_the_least_loss_wins_and_the_smaller_of_equals():
    losses = np.array([[0.2, 0.1, 0.3], [0.1, 0.1, 0.1], [0.1, 0.12, 0.5]])
    assert least_loss(losses, SIZES).tolist() == [1, 2, 0]
    assert least_loss(losses, SIZES, tolerance=0.05).tolist() == [1, 2, 1]


def test_flat_frames_are_followed_by_small_ones():
    noise = np.random.default_rng(0).standard_normal((3, 60, 60)).astype(np.float32)
    frames = np.stack([noise, np.zeros_like(noise), np.zeros_like(noise), noise, noise])
    assert sizes_by_texture(frames, SIZES, 0.01).tolist() == [0, 0, 2, 2, 0]
    assert sizes_by_texture(frames, SIZES, 1e9).tolist() == [0, 2, 2, 2, 2]
    with pytest.raises(ConfigError, match="sizes must be different numbers of pixels"):
        sizes_by_texture(frames, (60, 60), 0.01)


def test_the_regressor_finds_a_rule_on_other_frames():
    # What is to be told: a feature above 0 asks for the large size, below for the small one.
    rng = np.random.default_rng(0)

    def frames(count):
        seen = rng.choice([-1.0, 1.0], (count, 1))
        sizes = {
            size: np.hstack(
                [seen + 0.1 * rng.standard_normal((count, 1)), np.full((count, 1), np.log(size))]
            )
            for size in (60, 24)
        }
        return sizes, np.where(seen[:, 0] > 0, 0, 1)

    regressor = ScaleRegressor.fit(*frames(200))
    unseen, best = frames(50)
    chosen = regressor.choose(unseen)
    assert chosen[0] == 0
    assert (chosen[1:] == best[:-1]).all()
    # Only features of the size that a frame had are read.
    for at, size in enumerate((60, 24)):
        unseen[size][chosen != at] = np.nan
    assert (regressor.choose(unseen) == chosen).all()
    with pytest.raises(ConfigError, match="must have features of 3 frames at every size"):
        ScaleRegressor.fit({60: np.zeros((3, 1)), 24: np.zeros((2, 1))}, np.zeros(3, int))


def test_means_of_maps_are_the_features(traces):
    expected = traces["24"].given("2").mean(axis=(2, 3))
    np.testing.assert_allclose(map_means(traces["24"], "2"), expected, rtol=1e-5)
