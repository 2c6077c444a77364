"""Weights of few values: those of each layer clustered by k-means."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from workloads.errors import TraceError
from workloads.models.integer_grid import copied
from workloads.rules import integer, problems, refuse

_ITERATIONS = 30


def few_valued(model: nn.Module, values: int = 17) -> nn.Module:
    """Let the weights of each convolution and linear layer have a few values.

    Weight sharing of Deep Compression (Han, Mao and Dally, ICLR 2016), without its retraining:
    k-means over all weights of a layer from evenly spaced centres, which they found best; the
    centre nearest to 0 becomes 0. Plans by weights (`simulator.WeightRepetition`,
    `simulator.SumMerge`) live on such layers. `workloads.quantise` afterwards keeps as many values
    a column. What it costs in accuracy has to be measured: some networks bear 17 values as they
    are, others only after retraining.

    Args:
        model: left as it was.
        values: of each layer, 0 among them, 2 to 256; 17 are those of INQ (Zhou et al., ICLR 2017).

    Returns:
        A copy with such weights; biases stay.

    Raises:
        TraceError: if the model has no such layer, or there are to be too few or many values.
    """
    rule = integer(2, 256, fix="use 17")
    refuse(problems("few_valued.", {"values": values}, {"values": rule}), TraceError)
    network, layers = copied(model)
    for layer in layers.values():
        weight = layer.weight.detach()
        layer.weight = nn.Parameter(_clustered(weight, values))
    return network


def _clustered(weight: torch.Tensor, values: int) -> torch.Tensor:
    """The weights, each the nearest centre."""
    given = weight.cpu().numpy().astype(np.float64).ravel()
    if given.min() == given.max():
        return weight
    centres = np.linspace(given.min(), given.max(), values)
    # Of numbers that are sorted once, clusters are runs: far faster than k-means of vectors.
    ordered = np.sort(given)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    for _ in range(_ITERATIONS):
        inner = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(ordered)]])
        sizes = np.diff(ends)
        means = np.diff(sums[ends]) / np.maximum(sizes, 1)
        centres = np.where(sizes > 0, means, centres)
    centres[np.abs(centres).argmin()] = 0
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, given)
    found = centres[nearest].astype(np.float32).reshape(weight.shape)
    return torch.from_numpy(found).to(weight.device)
