import numpy as np
import pytest

from codesign.front import hypervolumes, non_dominated

UP_DOWN = [True, False]


def test_front_keeps_what_nothing_beats():
    # More of the first and less of the second is better; the last equals the first.
    points = np.array([[2.0, 5.0], [1.0, 5.0], [1.0, 4.0], [3.0, 9.0], [2.0, 5.0]])
    assert non_dominated(points, UP_DOWN).tolist() == [True, False, True, True, False]


def test_front_of_nothing_is_empty():
    assert non_dominated(np.zeros((0, 2)), UP_DOWN).tolist() == []
    assert hypervolumes(np.zeros((0, 2)), np.array([0.0, 1.0]), UP_DOWN) == []


def test_hypervolume_by_hand():
    # Boxes from the reference (0, 10): 2 x 5 = 10; then 1 x (5 - 4) more; then (3 - 2) x (10 - 9).
    points = np.array([[2.0, 5.0], [1.0, 4.0], [3.0, 9.0], [4.0, 11.0]])
    volumes = hypervolumes(points, np.array([0.0, 10.0]), UP_DOWN)
    assert volumes == pytest.approx([10, 11, 12, 12])  # the last is worse than the reference
