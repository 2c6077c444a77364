"""Saving and loading weights; of a pickle, nothing but tensors is read."""

from __future__ import annotations

import difflib
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from workloads.errors import plain, show, told
from workloads.models.errors import ModelError
from workloads.models.naming import (
    COUNTER,
    WHOLE_FILE,
    WRAPPERS,
    Match,
    Named,
    is_average,
    matches,
)
from workloads.models.packed_weights import packed
from workloads.models.weights_file import (
    COMPRESSED,
    LISTED,
    Entry,
    checked_suffix,
    damaged_safetensors,
    read_entries,
    weights_path,
)
from workloads.writing import replacing

__all__ = [
    "Named",
    "load_weights",
    "note_weights",
    "read_metadata",
    "read_tensors",
    "save_tensors",
    "save_weights",
    "weights_source",
]

_LONGEST_NAME = 100  # of a tensor, in a message
_SOURCE = "weights_source"


def note_weights(model: nn.Module, source: str) -> None:
    """Note on a model where its weights come from, such as "random weights, seed 0"."""
    setattr(model, _SOURCE, source)


def dtype_of(model: nn.Module) -> torch.dtype:
    """What a model's images are given in: the type of its first floating-point parameter."""
    types = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
    return next(types, torch.float32)


def weights_source(model: object) -> str | None:
    """Where a model's weights come from, as `note_weights` noted; None is unknown."""
    return getattr(model, _SOURCE, None)


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    weight_bits: int | None = None,
) -> Path:
    """Write a model's parameters and buffers to a `.safetensors` file, whole or not at all.

    Args:
        model: any module; tensors shared between layers are written once per name.
        path: where to; missing folders are made, an existing file is replaced. A name that ends
            with `.safetensors.gz` compresses the file, which pays where weights have few bits.
        metadata: text kept in the file's header, such as dataset, seed and accuracy.
        weight_bits: 2 to 8 rounds weights, on disk alone, to so many bits with a scale for each
            output channel (`workloads.models.packed_weights.packed`); None writes all as they are.

    Returns:
        The path written.

    Raises:
        ModelError: if the name doesn't end so, weights can't be rounded or the file can't be
            written.
    """
    tensors = model.state_dict()
    if weight_bits is not None:
        tensors = packed(tensors, bits=weight_bits)
    return save_tensors(tensors, path, metadata=metadata)


def save_tensors(
    tensors: Mapping[str, torch.Tensor],
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors by their names, as `save_weights` does."""
    path = checked_suffix(path, (".safetensors", COMPRESSED))
    from safetensors.torch import save

    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            # Not save_file, which puts a file of its own into the place of what it is given.
            content = save(plain, metadata=dict(metadata or {}))
            if path.suffix.lower() == COMPRESSED:
                content = gzip.compress(content, mtime=0)
            new.write_bytes(content)
    except OSError as error:
        raise ModelError(f"weights can't be written to {path} ({error.strerror})") from error
    return path


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file into a model; names and shapes must match exactly.

    A `.safetensors` file, compressed (`.safetensors.gz`) or not, or a `.pth`, `.pt`, `.th`, `.bin`,
    `.ckpt` or `.pth.tar` file of PyTorch, of which tensors and plain values alone are read and no
    code is run. Weights that `save_weights` wrote with few bits are read in floating point.

    The tensors may be the whole file or one of its entries, such as 'state_dict', 'model' or
    'model_state_dict'. Of several entries that fit, the one that is not called an average ('ema',
    'swa') is taken; more than one such is an error. Names are the model's own, or those with a
    wrapper of PyTorch ('_orig_mod.', 'module.') anywhere, or all after or without one prefix, as
    Lightning's 'model.'; a model that takes other layouts says so (`ViTB16`, `ViTS16`, `SwinT`).
    What was taken is in `weights_source`.

    Tensors must be dense and of the kind that the model has, floating-point ones of any width,
    which are rounded to the model's; whole numbers (counters, indices) must keep their values.
    Parameters must be finite; buffers may hold infinities, as masks do. Subnormal numbers become 0.

    Raises:
        ModelError: for a missing, damaged or foreign file, or one for another model; then the
            model is unchanged.
    """
    path = weights_path(path)
    expected = _tensors_of(model)
    match = _chosen(path, model, expected)
    values = _values(path, model, expected, match)
    own = model.state_dict()
    kept = {name: value for name, value in own.items() if name not in expected}
    counters = {name: value for name, value in expected.items() if name.endswith(COUNTER)}
    try:
        model.load_state_dict({**kept, **counters, **values})
    except Exception as error:  # a module may load its own tensors in its own way
        raise ModelError(
            f"weights {path} can't be loaded into {type(model).__name__} ({told(error)}); check "
            "how its modules load their state"
        ) from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note_weights(model, f"{path.name}, SHA-256 {digest[:12]}{_taken(match, expected)}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the text kept in the header of a `.safetensors` file; ModelError if unreadable."""
    path = weights_path(path, (".safetensors",))
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except Exception as error:  # its library raises its own, OSError and more
        raise damaged_safetensors(path, error) from error


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by their names in it; ModelError if unreadable.

    Of several entries that hold tensors, that with the most.
    """
    entries = read_entries(weights_path(path))
    return dict(max(entries, key=lambda entry: len(entry.tensors)).tensors)


def _tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's tensors by name; other state that its modules keep is not among them."""
    found = {
        name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }
    for name, value in found.items():
        is_lazy = nn.parameter.is_lazy(value)
        if is_lazy or value.is_meta:
            why = "lazy, without a shape yet" if is_lazy else "on the device meta"
            raise ModelError(
                f"{type(model).__name__} must have tensors to load weights into, but {name} is "
                f"{why}; build the model on the CPU, and run a lazy one once"
            )
    return found


def _chosen(path: Path, model: nn.Module, expected: Mapping[str, torch.Tensor]) -> Match:
    """The one way in which the file's names are the model's."""
    entries = read_entries(path)
    found = matches(model, expected, entries)
    if len(found) > 1:
        found = [match for match in found if not _shapes(expected, match)] or found
    main = [match for match in found if not is_average(match.place)]
    if len(found) > 1 and len(main) != 1:
        places = "; ".join(match.place for match in found[:LISTED])
        raise ModelError(
            f"weights {path} must fit {type(model).__name__} in one way, but {len(found)} sets of "
            f"tensors do: {places}; save the one you mean alone"
        )
    match = main[0] if main else found[0]
    if not match.fits or _shapes(expected, match):
        raise _misfit(path, model, _shapes(expected, match), match, entries)
    left = [each.place for each in found if each is not match]
    return replace(match, left=tuple(left))


def _misfit(
    path: Path, model: nn.Module, shapes: list[str], match: Match, entries: Sequence[Entry]
) -> ModelError:
    """The error that shows how the closest tensors of the file differ from the model's."""
    others = match.entry.others
    differences = [
        *shapes,
        *(
            f"{name} is of type {others[name]}, not a tensor"
            if name in others
            else f"{name} is missing"
            for name in match.missing
        ),
        *(f"{_called(name)} is not in the model" for name in match.unknown),
    ]
    listed = "; ".join(differences[:LISTED])
    more = f"; and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
    pair = ""
    if match.missing and match.unknown:
        wanted = match.missing[0]
        near = difflib.get_close_matches(wanted, match.unknown[:200], n=1, cutoff=0)
        pair = f"; where the model has {wanted!r} the file has {show(near[0])}"
    tried = ""
    if not match.fits:
        keys = [show(entry.key) for entry in entries if entry.key]
        of = f" in {match.place}" if match.place != WHOLE_FILE else ""
        among = f" (tensors are in {', '.join(keys[:LISTED])})" if len(keys) > 1 else ""
        wrappers = " and ".join(f"{each!r}" for each in WRAPPERS[:2])
        tried = (
            f" (tried{of}{among}: the names as they are, without {wrappers}, and without or after "
            "one prefix)"
        )
    name = type(model).__name__
    fix = f"use weights of a {name} built with the same arguments"
    if match.prefix and not (shapes or match.missing) and match.unknown == match.outside:
        fix = f"save the tensors after {show(match.prefix)} alone, without the others, or {fix}"
    return ModelError(f"weights {path} must fit {name}, but: {listed}{more}{pair}{tried}; {fix}")


def _values(
    path: Path, model: nn.Module, expected: Mapping[str, torch.Tensor], match: Match
) -> dict[str, torch.Tensor]:
    """The tensors as numbers of the model's kinds, by its names."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    problems, values = list(match.odd), {}
    for name, each in match.named.items():
        try:
            values[name] = _converted(each.tensor, expected[name], finite=name in parameters)
        except _Unfit as problem:
            problems.append(f"{_called(each.given)} {problem}")
    if problems:
        listed = "; ".join(problems[:LISTED])
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise ModelError(
            f"weights {path} must hold dense tensors of the model's kinds of numbers by text "
            f"names, but: {listed}{more}; save them again as torch.save(model.state_dict(), ...) "
            "of a model that works"
        )
    return values


class _Unfit(Exception):
    """What is wrong with a tensor, in words that follow its name."""


def _converted(tensor: torch.Tensor, own: torch.Tensor, *, finite: bool) -> torch.Tensor:
    """A dense tensor in the type of the model's.

    Args:
        tensor: of the file.
        own: of the model, of the same shape.
        finite: whether infinities are refused too, not NaN alone.
    """
    if own.dtype != tensor.dtype and (
        own.is_floating_point() != tensor.is_floating_point() or own.is_complex()
        if own.is_floating_point() or own.is_complex()
        else tensor.is_complex()
    ):
        raise _Unfit(f"is {_type(tensor)}, the model's {_type(own)}")
    try:
        value = tensor.detach().to(own.dtype)
        kept = own.is_floating_point() or own.is_complex() or bool((value == tensor).all())
        numbers = value if value.is_complex() else value.double()
        is_nan, is_finite = bool(numbers.isnan().any()), bool(numbers.isfinite().all())
        was_finite = is_finite or bool(tensor.double().isfinite().all())
    except Exception as error:  # types of few bits lack most operations
        raise _Unfit(f"is {_type(tensor)}, which can't be read as {_type(own)}") from error
    if not kept:
        raise _Unfit(f"is {_type(tensor)} of values that the model's {_type(own)} can't hold")
    if is_nan:
        raise _Unfit("holds NaN")
    if was_finite and not is_finite:
        raise _Unfit(f"is {_type(tensor)} of values beyond the model's {_type(own)}")
    if finite and not is_finite:
        raise _Unfit("holds infinite values")
    return _without_subnormals(value)


def _called(name: str) -> str:
    """A tensor's name in a file, in one line."""
    return plain(name, _LONGEST_NAME).replace("\n", "\\n")


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _taken(match: Match, expected: Mapping[str, torch.Tensor]) -> str:
    """What was chosen of a file and changed of its numbers, in words; mostly nothing."""
    rounded = sorted(
        {
            _type(each.tensor)
            for name, each in match.named.items()
            if expected[name].is_floating_point()
            and torch.finfo(each.tensor.dtype).bits > torch.finfo(expected[name].dtype).bits
        }
    )
    parts = (
        match.place if match.place != WHOLE_FILE else "",
        f"rounded from {' and '.join(rounded)}" if rounded else "",
        f"without the averages in {' and '.join(match.left)}" if match.left else "",
    )
    return "".join(f", {part}" for part in parts if part)


def _without_subnormals(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with 0 for what is too small for a normal number, below 1.2e-38 in float32.

    Weight decay leaves such weights, and a CPU is some 30 times slower on them.
    """
    if not tensor.is_floating_point():
        return tensor
    return torch.where(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0, tensor)


def _shapes(expected: Mapping[str, torch.Tensor], match: Match) -> list[str]:
    """What differs in shape, in words."""
    found = []
    for name, each in match.named.items():
        if name in expected and each.tensor.shape != expected[name].shape:
            of = "" if each.given == name else f" (of {_called(each.given)})"
            given, own = tuple(each.tensor.shape), tuple(expected[name].shape)
            found.append(f"{name}{of} has shape {given}, the model {own}")
    return found
