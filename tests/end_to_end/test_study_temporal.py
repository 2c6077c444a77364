"""The study of reuse over frames, on frames that stand still and then change."""

from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from workloads import ImageSet


@pytest.fixture(scope="module")
def study():
    return import_module("015_reuse_over_frames")


@pytest.fixture(scope="module")
def shown(study):
    """One convolution that answers each pixel, on two images that share no patch."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 10, 10)
    stills = ImageSet(images=images, source="two stills")
    return study.Film(
        name="one convolution",
        model=torch.nn.Conv2d(3, 4, 3).eval(),
        layers={"conv": 9},
        calibration=stills,
        frames=stills.take(1),
        other=stills.batch(1, 1),
        rate_hz=10,
    )


@pytest.fixture(scope="module")
def followed(study, shown):
    here, there = shown.frames, shown.other
    return study.follow_all(shown, [here, here, here, there, there, here], study.SETTINGS, 16)


def test_a_frame_that_stands_still_is_all_reused_and_ages(study, followed):
    alone, kept = followed[study.ALONE], followed["no end"]
    assert [each.reuse_rate for each in alone.frames] == [0] * 6
    assert [each.mean_age for each in alone.frames] == [0] * 6
    rates = [each.reuse_rate for each in kept.frames]
    assert [rates[at] for at in (0, 1, 2, 4, 5)] == [0, 1, 1, 1, 1]
    assert 0 < rates[3] < 1
    assert [each.mean_age for each in kept.frames[:3]] == [0, 1, 2]
    # Back again: clusters of the first frame, but none that the cut brought.
    assert kept.frames[5].mean_age == kept.frames[5].oldest == 5
    assert [each.remaining_ratio for each in kept.frames[1:3]] == [0, 0]
    # Nothing was lost by waiting: each frame is answered as it was when its clusters were made.
    assert len({each.agreement for each in (*kept.frames[:3], *alone.frames[:3])}) == 1
    assert kept.mean("accuracy") is None


def test_a_cache_as_large_as_the_table_is_the_table(study, followed):
    # At most 128 signatures a sub-matrix, spread over 128 sets of 8.
    assert followed["1024 x 8"].frames == followed["no end"].frames
    worn = followed["1024 x 8, 32 uses"].frames
    assert all(a.oldest <= b.oldest for a, b in zip(worn, followed["no end"].frames, strict=True))


def test_only_what_can_be_built_is_timed(study, followed):
    assert [name for name, made in followed.items() if made.report is None] == ["no end"]
    rows = study.hardware_rows(followed)
    assert [row[0] for row in rows] == [name for name in study.SETTINGS if name != "no end"]
    report = followed["1024 x 8"].report
    assert report.reuse.accelerator.cache == study.CACHE
    assert followed["128 x 8"].report.reuse.accelerator.cache.entries == 128
    assert rows[1][1].split(", ")[0] == f"{report.reuse.cycles / 1e6:.2f}"


@pytest.mark.parametrize(
    ("rates", "frames"),
    [
        ([0, 0.9, 0.9, 0.9, 0.5, 0.7, 0.895, 0.9], 2),
        ([0, 0.9, 0.9, 0.9, 0.9], 0),
        ([0, 0.9, 0.9, 0.9, 0.5, 0.6], None),
    ],
)
def test_recovery_counts_frames_behind_the_cut(study, rates, frames):
    assert study.recovery(rates, 4) == frames


def test_rows_and_figure_show_the_cut(study, shown, followed):
    cold = study.follow_all(shown, [shown.other] * 2, study.SETTINGS, 16)
    row = next(row for row in study.cut_rows(followed, cold, 3, 5) if row[0] == "no end")
    first = followed["no end"].frames[3].reuse_rate
    assert row[1:4] == ["1.000", f"{first:.3f}, 1", "1.000, 0"]
    # Kept clusters of the other place serve as if made there; from empty all are made there.
    fresh = cold["no end"].mean("remaining_ratio")
    assert float(row[4].split(", ")[1]) == pytest.approx(fresh, abs=5e-5)
    assert followed["no end"].frames[3].remaining_ratio < cold["no end"].frames[0].remaining_ratio
    rates = study.rate_rows(followed, 10)
    assert [each[1] for each in rates] == [*study.SETTINGS, "dense"]
    # Ages 1, 2, about 0, 1 and 5, at 100 ms a frame.
    assert float(rates[1][5]) == pytest.approx(
        1000 * followed["no end"].mean("mean_age", 1) / 10, 1
    )
    figure = study.draw({"10 Hz": (10, followed), "short": (5, cold)}, "tiny")
    assert len(figure.data) == 2 * 3 * len(study.SETTINGS)
    assert figure.data[0].y == tuple(each.reuse_rate for each in followed[study.ALONE].frames)
    assert list(figure.data[-1].x) == [0, 0.2]


def test_paths_are_given_together(study):
    given = Namespace(camvid=Path("frames"), other=None, weights=None)
    with pytest.raises(SystemExit, match="must be given together"):
        study.film(given, 4, 2)
