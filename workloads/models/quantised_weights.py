"""Weights on 8-bit grids: files of a quantised model, as `save_weights` writes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from workloads.errors import TraceError
from workloads.models.errors import ModelError
from workloads.models.integer_grid import (
    INPUT_GRID,
    InputGrid,
    copied,
    quantisation_of,
    read_through,
)
from workloads.models.naming import unwrapped
from workloads.models.weights import load_weights
from workloads.models.weights_file import read_entries, weights_path


def holds_grids(path: str | Path) -> bool:
    """Whether a weights file is of a quantised model; ModelError if it is unreadable."""
    entries = read_entries(weights_path(path))
    return any(name.endswith(f"{INPUT_GRID}.scale") for each in entries for name in each.tensors)


def load_quantised(model: nn.Module, path: str | Path) -> nn.Module:
    """Load the weights and grids of a quantised model, as `save_weights` wrote them.

    Args:
        model: the same network in floating point, with any weights; left as it was.
        path: the file.

    Returns:
        A quantised copy in evaluation mode.

    Raises:
        ModelError: as `workloads.models.load_weights`.
        TraceError: if the file is of a model in floating point.
    """
    network, layers = copied(model)
    entries = read_entries(weights_path(path))
    given = {"." + short for each in entries for short in unwrapped(each.tensors).values()}
    for name, layer in layers.items():
        scale = f".{name}.{INPUT_GRID}.scale" if name else f".{INPUT_GRID}.scale"
        if any(each.endswith(scale) for each in given):
            read_through(layer, InputGrid(torch.ones(1), torch.zeros(1)))  # the file's is loaded
    if not any(hasattr(layer, INPUT_GRID) for layer in layers.values()):
        raise TraceError(
            f"weights {path} must be of a quantised model, got no grid in them; load them with "
            "load_weights"
        )
    load_weights(network, path)
    for name, layer in layers.items():
        try:
            quantisation_of(layer)
        except TraceError as error:
            raise ModelError(f"weights {path}, the grid of {name}: {error}") from error
    return network.eval()
