"""Saving and loading weights; of a pickle, nothing but tensors is read."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from workloads.models.errors import ModelError
from workloads.writing import replacing

LISTED = 5  # how many differences a message names
PICKLED = (".pth", ".pt", ".th")
# Under which name training scripts keep the parameters among other things.
_NESTED = ("state_dict", "model")
# Counts the batches of a training; older checkpoints lack it, and inference does not read it.
_COUNTER = ".num_batches_tracked"
_SOURCE = "weights_source"


@dataclass(frozen=True, kw_only=True)
class Named:
    """A tensor of a weights file.

    Attributes:
        name: in the model.
        given: in the file.
        tensor: the values.
    """

    name: str
    given: str
    tensor: torch.Tensor


def note_weights(model: nn.Module, source: str) -> None:
    """Note on a model where its weights come from, such as "random weights, seed 0"."""
    setattr(model, _SOURCE, source)


def weights_source(model: object) -> str | None:
    """Where a model's weights come from, as `note_weights` noted; None is unknown."""
    return getattr(model, _SOURCE, None)


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
    return save_tensors(model.state_dict(), path, metadata=metadata)


def save_tensors(
    tensors: Mapping[str, torch.Tensor],
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors by their names, as `save_weights` does."""
    path = _checked_suffix(path, (".safetensors",))
    from safetensors.torch import save

    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            # Not save_file, which puts a file of its own into the place of what it is given.
            new.write_bytes(save(plain, metadata=dict(metadata or {})))
    except OSError as error:
        raise ModelError(f"weights can't be written to {path} ({error.strerror})") from error
    return path


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file into a model; names and shapes must match exactly.

    A `.safetensors` file, or a `.pth`, `.pt` or `.th` file of PyTorch, of which tensors alone are
    read. There the parameters may lie under 'state_dict' or 'model', and their names may begin with
    the 'module.' of data-parallel training. Names are the model's own; a model that takes other
    layouts says so (`ViTB16`, `ViTS16`, `SwinT`). Subnormal numbers become 0.

    Raises:
        ModelError: for a missing, damaged or foreign file, or one for another model; then the
            model is unchanged.
    """
    tensors = read_tensors(path)
    path = Path(path).expanduser()
    named = [Named(name=name, given=name, tensor=value) for name, value in tensors.items()]
    if hasattr(model, "named_as_here"):
        named = list(model.named_as_here(tensors))  # type: ignore[operator]
    expected = model.state_dict()
    given = {each.name: each for each in named}
    differences = _differences(expected, given)
    if differences:
        listed = "; ".join(differences[:LISTED])
        more = f"; and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
        raise ModelError(
            f"weights {path} must fit {type(model).__name__}, but: {listed}{more}; "
            f"use weights of a {type(model).__name__} built with the same arguments"
        )
    counters = {name: value for name, value in expected.items() if name.endswith(_COUNTER)}
    model.load_state_dict(
        counters | {name: _without_subnormals(each.tensor) for name, each in given.items()}
    )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note_weights(model, f"{path.name}, SHA-256 {digest[:12]}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the text kept in the header of a `.safetensors` file; ModelError if unreadable."""
    path = _existing(path, (".safetensors",))
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by their names; ModelError if unreadable."""
    path = _existing(path, (".safetensors", *PICKLED))
    if path.suffix not in PICKLED:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no pickle of tensors may raise anything
        raise ModelError(
            f"weights {path} are not readable as PyTorch's tensors "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more'}); "
            "save them again as torch.save(model.state_dict(), ...) or as .safetensors"
        ) from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(
        isinstance(x, torch.Tensor) for x in found.values()
    ):
        raise ModelError(
            f"weights {path} must hold tensors by name, alone or under "
            f"{' or '.join(map(repr, _NESTED))}, got {_shape_of(found)}; "
            "save them again as torch.save(model.state_dict(), ...)"
        )
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _without_subnormals(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with 0 for what is too small for a normal number, below 1.2e-38 in float32.

    Weight decay leaves such weights, and a CPU is some 30 times slower on them.
    """
    if not tensor.is_floating_point():
        return tensor
    return torch.where(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0, tensor)


def _shape_of(found: object) -> str:
    """What was read instead of tensors, in words."""
    if not isinstance(found, Mapping):
        return type(found).__name__
    others = [str(key) for key, value in found.items() if not isinstance(value, torch.Tensor)]
    return f"other things named {', '.join(others[:LISTED])}"


def _checked_suffix(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    path = Path(path).expanduser()
    if path.suffix not in suffixes:
        raise ModelError(
            f"weights must be a {' or '.join(suffixes)} file, got {str(path)!r}; convert them with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        )
    if path.suffix == ".safetensors" and importlib.util.find_spec("safetensors") is None:
        raise ModelError(
            f"weights {path} need the package safetensors, which is not installed; run: pip "
            "install safetensors, or save them as torch.save(model.state_dict(), 'weights.pth')"
        )
    return path


def _existing(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    path = _checked_suffix(path, suffixes)
    if not path.is_file():
        raise ModelError(f"weights must be an existing file, got {str(path)!r}")
    return path


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"weights {path} are not readable as safetensors ({error}); save them again")


def _differences(expected: Mapping[str, torch.Tensor], given: Mapping[str, Named]) -> list[str]:
    missing = [
        f"{name} is missing"
        for name in expected
        if name not in given and not name.endswith(_COUNTER)
    ]
    unknown = [
        f"{each.given} is not in the model" for each in given.values() if each.name not in expected
    ]
    shapes = [
        f"{name}{'' if each.given == name else f' (of {each.given})'} has shape "
        f"{tuple(each.tensor.shape)}, the model {tuple(expected[name].shape)}"
        for name, each in given.items()
        if name in expected and each.tensor.shape != expected[name].shape
    ]
    return [*shapes, *missing, *unknown]
