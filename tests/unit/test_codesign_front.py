import numpy as np
import pytest

from codesign.evaluation.front import hypervolumes, knee, non_dominated

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


def test_hypervolume_of_three_objectives_by_hand():
    # Boxes from (0, 0, 10): 2 x 1 x 5 = 10 and 1 x 2 x 5 = 10, which share 1 x 1 x 5 = 5.
    points = np.array([[2.0, 1.0, 5.0], [1.0, 2.0, 5.0]])
    volumes = hypervolumes(points, np.array([0.0, 0.0, 10.0]), [True, True, False])
    assert volumes == pytest.approx([10, 15])


def distance_to_chord(front):
    """Of points of two objectives, both to be made small, scaled to 0 to 1 over the front."""
    scaled = (front - front.min(axis=0)) / np.ptp(front, axis=0)
    return (1 - scaled.sum(axis=1)) / np.sqrt(2)


def test_knee_of_two_objectives_is_farthest_from_the_chord():
    # y = 1 / x from 1 to 4: its ends are joined by x / 4 + y = 5 / 4, parallel to it at x = 2.
    x = np.array([1.0, 1.4, 2.0, 2.9, 4.0])
    front = np.stack([x, 1 / x], axis=1)
    assert knee(front, [False, False]) == 2 == distance_to_chord(front).argmax()
    # Neither units nor the direction of an objective matter.
    assert knee(front * [1000.0, 0.01] + 5, [False, False]) == 2
    assert knee(front * [-1.0, 1.0], [True, False]) == 2


def test_knee_of_three_objectives():
    # Corners are best in one and worst in two, sum 1; the others reach 0.7 x 3 and 0.9 + 0.6.
    front = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.7, 0.7, 0.7], [0.9, 0.6, 0.0]])
    assert knee(front, [True] * 3) == 3


def test_knee_leaves_out_what_is_the_same_everywhere():
    front = np.array([[1.0, 5.0, 9.0], [2.0, 5.0, 1.0], [1.9, 5.0, 8.5]])
    assert knee(front, [True] * 3) == 2
    assert knee(front[:1], [True] * 3) == 0
    assert knee(front[:0], [True] * 3) is None
