"""What a weights file holds: tensors by their names, in one entry or several.

A `.safetensors` file may be compressed (`.safetensors.gz`), and its weights of few bits, see
`workloads.models.packed_weights`. Of a
pickle only tensors and plain values are read, and no code that it names is run: PyTorch's reader of
tensors does it, to which NumPy's numbers, arguments of a command line and paths are given as values
too, since training scripts keep them beside the weights.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workloads.errors import show, told
from workloads.models.errors import ModelError
from workloads.models.packed_weights import unpacked
from workloads.plain_numpy import STAND_INS, PlainArray
from workloads.reading import regular_file

LISTED = 5  # how many differences a message names
PICKLED = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
COMPRESSED = ".gz"  # of safetensors
_MOST_TIMES_UNPACKED = 100  # its own size; weights gain little, a file made to fill memory more
_DEEPEST_ENTRY = 3
_SAVE_AGAIN = "save them again as torch.save(model.state_dict(), ...) or as .safetensors"


class _Aside:
    """Stands for a path, which may lie beside weights and is not read."""

    def __init__(self, *_: object) -> None: ...


_ASIDE: list[Any] = [
    argparse.Namespace,
    PlainArray,
    *((what, f"{module}.{name}") for (module, name), what in STAND_INS.items()),
    *((_Aside, f"pathlib.{system}Path") for system in ("Posix", "Windows", "PurePosix")),
    # Where Python 3.13 defines it.
    *((_Aside, f"pathlib._local.{system}Path") for system in ("Posix", "Windows", "PurePosix")),
]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One place of a weights file that holds tensors by name.

    Attributes:
        key: the place, such as "state_dict" or "checkpoint.model"; empty for the file itself.
        tensors: by text names, of any kind, device and layout.
        others: by name, in words, what is no tensor.
        unnamed: tensors whose names are no texts, as a message shows them.
    """

    key: str
    tensors: Mapping[str, torch.Tensor]
    others: Mapping[str, str]
    unnamed: tuple[str, ...] = ()


def read_entries(path: Path) -> list[Entry]:
    """Every place of a file of `weights_path` that holds tensors by name; at least one.

    Raises:
        ModelError: for a damaged or foreign file, and one without tensors.
    """
    if path.suffix.lower() not in PICKLED:
        return [Entry(key="", tensors=_safetensors(path), others={})]
    found = _unpickled(path)
    entries = list(_entries(found, (), set())) if isinstance(found, Mapping) else []
    if not entries:
        raise ModelError(
            f"weights {path} must hold tensors by name, alone or as one of its entries such as "
            f"'state_dict', 'model' or 'model_state_dict', got {_in_words(found)}; "
            "save them again as torch.save(model.state_dict(), ...)"
        )
    return entries


def weights_path(path: str | Path, suffixes: tuple[str, ...] | None = None) -> Path:
    """The path of an existing weights file; ModelError if it is none that can be read."""
    path = checked_suffix(path, suffixes or (".safetensors", *PICKLED, COMPRESSED))
    return regular_file(path, "weights", ModelError)


def checked_suffix(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    """The path with its user's home; ModelError for another suffix or a package that is missing."""
    try:
        path = Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"weights must be the path of a file, got {show(path)}") from error
    if path.suffix.lower() not in suffixes:
        raise ModelError(
            f"weights must be a {' or '.join(suffixes)} file, got {str(path)!r}; convert them with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        )
    needs_package = path.suffix.lower() in (".safetensors", COMPRESSED)
    if needs_package and importlib.util.find_spec("safetensors") is None:
        raise ModelError(
            f"weights {path} need the package safetensors, which is not installed; run: pip "
            "install safetensors, or save them as torch.save(model.state_dict(), 'weights.pth')"
        )
    return path


def damaged_safetensors(path: Path, error: Exception) -> ModelError:
    """The error for a `.safetensors` file that its library can't read."""
    return ModelError(
        f"weights {path} are not readable as safetensors ({told(error)}); save them again"
    )


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load, load_file

    try:
        is_compressed = path.suffix.lower() == COMPRESSED
        return unpacked(load(_decompressed(path)) if is_compressed else load_file(path))
    except ModelError:
        raise
    except Exception as error:  # types that PyTorch lacks are KeyErrors, and more
        raise damaged_safetensors(path, error) from error


def _decompressed(path: Path) -> bytes:
    most_bytes = _MOST_TIMES_UNPACKED * path.stat().st_size
    with gzip.open(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ModelError(
            f"weights {path} must unpack to at most {_MOST_TIMES_UNPACKED} times their size, "
            f"{most_bytes} bytes, but hold more; unpack them and give the .safetensors file"
        )
    return content


def _unpickled(path: Path) -> Any:
    def unreadable(why: str, fix: str = _SAVE_AGAIN) -> ModelError:
        return ModelError(f"weights {path} are not readable as PyTorch's tensors ({why}); {fix}")

    if problem := _container_problem(path):
        raise unreadable(*problem)
    with torch.serialization.safe_globals(_ASIDE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layouts in beta, and old protocols
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise unreadable(_foreign_types(path, str(error))) from error
        except Exception as error:  # what is no pickle of tensors may raise anything
            raise unreadable(told(error)) from error


def _container_problem(path: Path) -> tuple[str, ...] | None:
    """What is wrong with a file before its tensors are read, and perhaps the fix."""
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        return ("the file is empty",)
    with path.open("rb") as file:
        start = file.read(512)
    if start[257:262] == b"ustar":
        return ("it is a tar archive, of PyTorch before 0.1.10 or another program",)
    return _zip_problem(path, size_bytes) if start.startswith(b"PK") else None


def _zip_problem(path: Path, size_bytes: int) -> tuple[str, ...] | None:
    """What is wrong with a zip file, and perhaps the fix."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # damage raises many kinds of errors
        return (f"a damaged zip file: {told(error)}",)
    names = [entry.filename for entry in entries]
    claimed = sum(entry.file_size for entry in entries)
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "it is a TorchScript archive of torch.jit.save, whose code is not read",
            "save its tensors: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')",
        )
    if not any(name.endswith("/data.pkl") for name in names):
        return ("it is a zip file, but none that torch.save wrote",)
    if claimed > size_bytes:
        return (
            f"its parts claim {claimed} bytes, more than the file's {size_bytes}; torch.save "
            "writes them without compression",
        )
    return None


def _foreign_types(path: Path, text: str) -> str:
    """What a pickle holds besides tensors, in words of our own.

    PyTorch's own text is advice to run the file's code.
    """
    try:
        types = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # damage, or the format before zip files; the first is in the text
        types = []
    types = types or re.findall(r"GLOBAL ([\w.]+)", text)[:1]
    if told_by_stand_in := re.search(r"array type '.*' is not a plain number", text):
        return f"beside the tensors, NumPy's {told_by_stand_in[0]}"
    if not types:
        return "its pickle is damaged, or holds more than tensors and plain values"
    listed = ", ".join(types[:LISTED]) + (" and more" if len(types) > LISTED else "")
    if any(name.startswith("torch.nn.modules.") for name in types):
        return (
            f"it holds a whole pickled model, of types {listed}: code, which is not run; tensors "
            "alone are read"
        )
    return f"it holds objects of type {listed}, which are no tensors and whose code is not run"


def _entries(found: Mapping[Any, Any], key: tuple[str, ...], seen: set[int]) -> Iterator[Entry]:
    """The entries in a mapping and in those inside it, outermost first."""
    seen.add(id(found))
    tensors = {name: x for name, x in found.items() if _is_tensor(x)}
    others = {name: x for name, x in found.items() if name not in tensors}
    unnamed = tuple(show(name) for name in tensors if not isinstance(name, str))
    if tensors and len(unnamed) < len(tensors):
        yield Entry(
            key=".".join(key),
            tensors={name: x for name, x in tensors.items() if isinstance(name, str)},
            others={name: _kind(x) for name, x in others.items() if isinstance(name, str)},
            unnamed=unnamed,
        )
    if len(key) < _DEEPEST_ENTRY:
        for name, inner in others.items():
            if isinstance(name, str) and isinstance(inner, Mapping) and id(inner) not in seen:
                yield from _entries(inner, (*key, name), seen)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _kind(value: object) -> str:
    """The type of a value beside tensors, as who wrote it calls it."""
    return "numpy.ndarray" if isinstance(value, PlainArray) else type(value).__name__


def _in_words(found: object) -> str:
    """What was read instead of tensors by name."""
    if isinstance(found, torch.Tensor):
        return "a single tensor"
    if not isinstance(found, Mapping):
        return type(found).__name__
    if not found:
        return "an empty dict"
    if any(isinstance(value, torch.Tensor) for value in found.values()):
        names = ", ".join(show(name) for name, _ in zip(found, range(LISTED), strict=False))
        return f"tensors named {names}, which are no texts"
    names = ", ".join(
        f"{show(name).strip(chr(39))} ({_kind(value)})"
        for name, value in list(found.items())[:LISTED]
    )
    return f"other things named {names}"
