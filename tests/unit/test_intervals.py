"""Intervals of accuracy: published values, and what must hold of any."""

import numpy as np
import pytest
from scipy.stats import t

from simulator.results.intervals import intervals, paired_change, wilson


def test_wilson_as_published():
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0000, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_paired_change_as_published():
    # Newcombe, Statistics in Medicine 17 (1998) 2635, table III, method 10
    found = paired_change(both=36, only_first=12, only_second=2, neither=0)
    assert found == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_paired_change_without_a_difference_by_hand():
    # All 100 right twice: Wilson's lower end is 1 / (1 + z^2 / 100), z = 1.95996, so 0.963006.
    low, high = paired_change(both=100, only_first=0, only_second=0, neither=0)
    assert (low, high) == pytest.approx((-0.036994, 0.036994), abs=1e-6)


@pytest.mark.parametrize("counts", [(5, 3, 1, 7), (0, 4, 4, 0), (1, 0, 0, 0), (90, 1, 8, 1)])
def test_swapping_the_two_mirrors_the_interval(counts):
    both, first, second, neither = counts
    low, high = paired_change(both=both, only_first=first, only_second=second, neither=neither)
    swapped = paired_change(both=both, only_first=second, only_second=first, neither=neither)
    assert swapped == pytest.approx((-high, -low))
    assert -1 <= low <= (first - second) / sum(counts) <= high <= 1


def test_one_answer_an_image():
    labels = np.arange(8) % 4
    dense, found = labels.copy(), labels.copy()
    dense[0], found[1], found[2] = 9, 9, 9
    told = intervals("accuracy", found, dense, labels)
    assert told["accuracy"] == wilson(6, 8) and told["dense_accuracy"] == wilson(7, 8)
    assert told["agreement"] == wilson(5, 8)
    assert told["change"] == paired_change(both=5, only_first=1, only_second=2, neither=0)
    assert set(intervals("accuracy", found, dense, None)) == {"agreement"}


def test_pixels_count_by_the_image():
    # Of 10 pixels each, 0, 1, 2 and 5 differ: the mean of four shares, by Student's t.
    dense = np.zeros((4, 2, 5), int)
    found = dense.copy()
    for image, changed in enumerate((0, 1, 2, 5)):
        found[image].flat[:changed] = 1
    shares = np.array([1.0, 0.9, 0.8, 0.5])
    reach = t.ppf(0.975, 3) * shares.std(ddof=1) / 2
    told = intervals("accuracy", found, dense, None)["agreement"]
    assert told == pytest.approx((0.8 - reach, 1.0))
    one = intervals("accuracy", found[1:2], dense[1:2], dense[1:2])
    assert one["agreement"] == (0, 1) and one["change"] == (-1, 1)


def test_mean_iou_by_leaving_out_images_by_hand():
    # One class of label; answers of another class miss. IoU: 2 of 4, 3 of 4, 4 of 4 pixels.
    labels = np.zeros((3, 2, 2), int)
    found = labels.copy()
    found[0].flat[:2] = 1
    found[1].flat[:1] = 1
    told = intervals("miou", found, labels, labels)
    without = np.array([7 / 8, 6 / 8, 5 / 8])
    deviation = np.sqrt(2 / 3 * np.square(without - 6 / 8).sum())
    reach = t.ppf(0.975, 2) * deviation
    assert told["change"] == pytest.approx((9 / 12 - 1 - reach, 9 / 12 - 1 + reach))
    assert told["dense_accuracy"] == (1, 1)


def test_pixels_without_a_label_have_no_interval():
    labels = np.full((3, 2, 2), 255)
    answers = np.zeros((3, 2, 2), int)
    assert set(intervals("miou", answers, answers, labels)) == {"agreement"}
