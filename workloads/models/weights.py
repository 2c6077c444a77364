"""Saving and loading weights as safetensors; nothing here unpickles."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from workloads.models.errors import ModelError

LISTED = 5  # how many differences a message names


def save_weights(
    model: nn.Module, path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a model's parameters and buffers to a `.safetensors` file, whole or not at all.

    Args:
        model: any module; tensors shared between layers are written once per name.
        path: where to; missing folders are made, an existing file is replaced.
        metadata: text kept in the file's header, such as dataset, seed and accuracy.

    Returns:
        The path written.

    Raises:
        ModelError: if the name doesn't end with .safetensors or the file can't be written.
    """
    path = _checked_suffix(path)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        )
        os.close(handle)
        save_file(tensors, temporary, metadata=dict(metadata or {}))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"weights can't be written to {path} ({error})") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    return path


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a `.safetensors` file into a model; names and shapes must match exactly.

    Raises:
        ModelError: for a missing, damaged or foreign file, or one for another model; then the
            model is unchanged.
    """
    path = _existing(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    differences = _differences(model.state_dict(), tensors)
    if differences:
        listed = "; ".join(differences[:LISTED])
        more = f"; and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
        raise ModelError(
            f"weights {path} must fit {type(model).__name__}, but: {listed}{more}; "
            "use weights saved from this model, built with the same arguments"
        )
    model.load_state_dict(tensors, strict=True)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the text kept in the header of a `.safetensors` file; ModelError if unreadable."""
    path = _existing(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _checked_suffix(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ModelError(
            f"weights must be a .safetensors file, got {str(path)!r}; pickled weights are not "
            "read: convert them with safetensors.torch.save_file(model.state_dict(), ...)"
        )
    return path


def _existing(path: str | Path) -> Path:
    path = _checked_suffix(path)
    if not path.is_file():
        raise ModelError(f"weights must be an existing file, got {str(path)!r}")
    return path


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"weights {path} are not readable as safetensors ({error}); save them again")


def _differences(
    expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in given]
    unknown = [f"{name} is not in the model" for name in given if name not in expected]
    shapes = [
        f"{name} has shape {tuple(given[name].shape)}, the model {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    return [*shapes, *missing, *unknown]
