"""Weights that come with this project, each file with a model card beside it."""

from __future__ import annotations

from importlib import resources

from torch import nn

from workloads.models.weights import load_weights, note_weights


def load_shipped(model: nn.Module, file_name: str, source: str) -> None:
    """Load a file of `workloads/models/data` into a model.

    Args:
        model: of the architecture that the file's card tells.
        file_name: such as "resnet18_camvid.safetensors".
        source: what `weights_source` then says.

    Raises:
        ModelError: as `workloads.models.load_weights`.
    """
    file = resources.files("workloads.models") / "data" / file_name
    with resources.as_file(file) as path:
        load_weights(model, path)
    note_weights(model, source)
