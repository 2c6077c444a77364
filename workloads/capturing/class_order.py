"""Batches that come class after class, as a folder sorted by class gives them."""

from __future__ import annotations

from math import exp, lgamma
from typing import Any

import numpy as np

# How likely a random order of the same labels may come class after class, at most, for the order to
# be told of: two classes of seven images, or ten of two.
_CHANCE = 1e-3


def class_order_line(labels: np.ndarray[Any, np.dtype[Any]] | None) -> str:
    """What is wrong with labels in class order, why, and the fix; empty for any other order.

    Labels come in class order if the images of each class stand together, in any order of the
    classes, and chance would hardly have it so: of k classes with n_1 to n_k images, k! n_1! ...
    n_k! of the n! orders do.

    Args:
        labels: `(images,)` classes; any others, and None, have no such order.
    """
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        return ""
    counts = np.unique(labels, return_counts=True)[1]
    runs = 1 + int(np.count_nonzero(labels[1:] != labels[:-1]))
    log_orders = lgamma(len(counts) + 1) + sum(lgamma(count + 1) for count in counts)
    if runs != len(counts) or exp(log_orders - lgamma(labels.size + 1)) > _CHANCE:
        return ""
    return (
        f"The {labels.size} labels come in class order, {len(counts)} classes one after the other. "
        "Clusters that span images average within one class then, and reuse scores what it does "
        "not on others: VGG-16 on CIFAR-10 98.7 % so, 50.7 % shuffled, 83.8 % dense. Shuffle the "
        "images with their labels (ImageSet.shuffled), unless they are a video in its order."
    )
