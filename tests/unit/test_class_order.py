"""Labels that come class after class are told of, those that chance orders so are not."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from workloads import capture
from workloads.capturing.class_order import class_order_line
from workloads.errors import ClassOrderWarning
from workloads.streams import digits


@pytest.mark.parametrize(
    ("labels", "in_order"),
    [
        (np.repeat(np.arange(10), 10), True),
        (np.repeat([3, 1, 2], 6), True),  # as a folder whose classes are in no order of theirs
        (np.repeat([4, 5], [40, 60]), True),  # a piece of a sorted set
        (np.repeat([0, 1], 7), True),  # 2 * 7! 7! / 14! = 0.0006 of all orders
        (np.repeat([0, 1], 6), False),  # 2 * 6! 6! / 12! = 0.002
        (np.repeat([0, 1], [99, 1]), False),  # 2 * 99! / 100! = 0.02
        (np.arange(10), False),  # every order of one image each is such
        (np.zeros(100, dtype=int), False),
        (np.tile(np.arange(10), 10), False),
        (np.repeat([0, 1, 0], 20), False),
        (np.repeat(np.arange(10.0), 10), False),
        (np.repeat(np.arange(4), 16).reshape(4, 4, 4), False),
        (np.zeros(0, dtype=int), False),
        (None, False),
    ],
)
def test_order_of_classes(labels, in_order):
    assert bool(class_order_line(labels)) == in_order


class TestCapture:
    @staticmethod
    def captured(labels, **settings):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 10))
        return capture(model, torch.ones(len(labels), 3), labels=labels, **settings)

    def test_warns_and_keeps_the_labels(self):
        labels = np.repeat(np.arange(10), 2)
        with pytest.warns(ClassOrderWarning, match=r"20 labels.*10 classes.*ImageSet\.shuffled"):
            trace = self.captured(labels)
        assert trace.labels.tolist() == labels.tolist()

    def test_other_orders_and_scores_of_ones_own_are_no_concern(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ClassOrderWarning)
            self.captured(np.random.RandomState(0).permutation(np.repeat(np.arange(10), 2)))
            self.captured(np.repeat(np.arange(10), 2), score=lambda outputs, labels: 0.5)
            test = digits("test")
            self.captured(test.labels)
