"""How a trace lies on disk: one readable JSON description and tensors in safetensors.

```
trace/
  trace.json                 format version, provenance, layers, edges, size and CRC-32 of each file
  inputs.safetensors         inputs.0, inputs.1, ... and, where known, outputs and labels
  layers/0000.safetensors    input and weight of the first layer, float32, and so on
```

No pickle is written or read. A file is read whole, when asked for, and checked against its size and
checksum, so that a damaged trace is an error and never a wrong number.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from workloads.errors import TraceError
from workloads.gemm import Layer
from workloads.scratch import REPLACED, restore

FORMAT = "similarity-codesign workload trace"
FORMAT_VERSION = 1
DESCRIPTION = "trace.json"
INPUTS = "inputs.safetensors"

Array = np.ndarray[Any, np.dtype[Any]]


def layer_file(index: int) -> str:
    """Name of the file with the tensors of the layer that was called as number `index`."""
    return f"layers/{index:04d}.safetensors"


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Refuse to write a trace over anything but nothing, an empty directory or a trace.

    Raises:
        TraceError: with the path, the rule and the fix.
    """
    restore(path)
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise TraceError(
            f"{path} must be a directory or not exist, got a file; give another path for the trace"
        )
    if not any(path.iterdir()):
        return
    if not (path / DESCRIPTION).is_file():
        raise TraceError(
            f"{path} must be a trace to be replaced, got a directory without {DESCRIPTION}; "
            "give another path for the trace"
        )
    if not overwrite:
        raise TraceError(f"{path} must not exist, got a trace; pass overwrite=True to replace it")


def publish(directory: Path, path: Path) -> None:
    """Move a finished `directory` to `path` in one step, replacing the trace that is there.

    Args:
        directory: in a `Scratch` beside `path`, which keeps the trace that was there until it goes:
            where the process is killed halfway, `restore` puts that back.
        path: of the trace.
    """
    if not path.exists() or not any(path.iterdir()):
        os.replace(directory, path)
        return
    old = directory.with_name(REPLACED)
    try:
        os.replace(path, old)
        os.replace(directory, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise


def _digest(path: Path) -> dict[str, int]:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 17):
            checksum = zlib.crc32(chunk, checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}


class TraceWriter:
    """Writes a trace layer by layer into a directory of its own.

    Args:
        directory: an existing, empty directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, dict[str, int]] = {}
        self._layers: list[Layer] = []

    def __len__(self) -> int:
        """Layers written so far."""
        return len(self._layers)

    def add(self, layer: Layer, *, stored_input: Array, stored_weight: Array) -> None:
        """Write the tensors of the next layer; see `workloads.unfold` for their shapes."""
        name = layer_file(len(self._layers))
        self._write(name, {"input": stored_input, "weight": stored_weight}, np.float32)
        self._layers.append(layer)

    def add_inputs(
        self, inputs: Sequence[Array] | None, outputs: Array | None, labels: Array | None
    ) -> None:
        """Write what the model was called with, what it answered and what it should have."""
        tensors = {f"inputs.{i}": value for i, value in enumerate(inputs or ())}
        if outputs is not None:
            tensors["outputs"] = outputs
        if labels is not None:
            tensors["labels"] = labels
        if tensors:
            self._write(INPUTS, tensors)

    def finish(
        self,
        edges: Iterable[tuple[str, str]],
        *,
        images: int,
        provenance: Mapping[str, Any],
        layers: Sequence[Layer] | None = None,
    ) -> None:
        """Write the description; without it a directory is not a trace.

        Args:
            edges: pairs of layer names.
            images: inputs in the batch.
            provenance: JSON values.
            layers: the layers, where none was added with tensors.
        """
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "provenance": dict(provenance),
            "images": images,
            "layers": [layer.to_dict() for layer in (layers or self._layers)],
            "edges": [list(edge) for edge in edges],
            "files": self._files,
        }
        try:
            text = json.dumps(description, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TraceError(
                f"WorkloadTrace.provenance must hold JSON values, got {provenance!r} ({error}); "
                "use texts, finite numbers, lists and dicts"
            ) from error
        (self.directory / DESCRIPTION).write_text(text + "\n", encoding="utf-8")

    def _write(self, name: str, tensors: Mapping[str, Array], dtype: Any = None) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        contiguous = {key: np.ascontiguousarray(value, dtype) for key, value in tensors.items()}
        # ascontiguousarray makes one dimension of none; safetensors keeps none.
        shaped = {key: value.reshape(tensors[key].shape) for key, value in contiguous.items()}
        safetensors.numpy.save_file(shaped, path)
        self._files[name] = _digest(path)


class TraceFiles:
    """Reads a trace's files, one at a time, checking each.

    Args:
        directory: where the trace lies.
        owner: kept alive as long as this object, e.g. a `Scratch`; a pickled
            copy doesn't own the directory.
    """

    def __init__(self, directory: Path, *, owner: object = None) -> None:
        self.directory = directory
        self._owner = owner
        self._last: tuple[str, dict[str, Array]] | None = None
        self.description = self._read_description()
        self._digests: dict[str, dict[str, int]] = self.description["files"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": None, "_last": None}

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def read(self, name: str, *, keep: bool = False) -> dict[str, Array]:
        """Tensors of one file, read-only.

        Args:
            name: a file of the description.
            keep: remember it (and nothing else) for the next call.

        Raises:
            TraceError: if the file is missing, truncated or altered.
        """
        last = self._last
        if last is not None and last[0] == name:
            return last[1]
        path, digest = self.directory / name, self._digests[name]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TraceError(
                f"{path} must exist, as {DESCRIPTION} lists it, got {error.strerror}; "
                "restore the file or capture the trace again"
            ) from error
        if len(data) != digest["bytes"]:
            raise TraceError(
                f"{path} must have {digest['bytes']} bytes, got {len(data)}; it is truncated or "
                "replaced: restore the file or capture the trace again"
            )
        if zlib.crc32(data) != digest["crc32"]:
            raise TraceError(
                f"{path} must have the CRC-32 {digest['crc32']:08x}, got {zlib.crc32(data):08x}; "
                "it is corrupted: restore the file or capture the trace again"
            )
        try:
            tensors = safetensors.numpy.load(data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise TraceError(
                f"{path} must be a safetensors file of numpy types, got {error}; "
                "capture the trace again"
            ) from error
        for tensor in tensors.values():
            tensor.flags.writeable = False
        if keep:
            self._last = (name, tensors)
        return tensors

    def copy_to(self, directory: Path) -> None:
        """Copy every checked file, description included, into an existing directory."""
        for name in self._digests:
            self.read(name)
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(self.directory / name, directory / name)
        shutil.copyfile(self.directory / DESCRIPTION, directory / DESCRIPTION)

    def _read_description(self) -> dict[str, Any]:
        path = self.directory / DESCRIPTION
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TraceError(
                f"{path} must exist and be readable, got {error.strerror}; give the directory of a "
                "saved trace"
            ) from error
        except ValueError as error:
            raise TraceError(
                f"{path} must be JSON, got a damaged or truncated file ({error}); restore it or "
                "capture the trace again"
            ) from error
        given = description.get("format") if isinstance(description, dict) else None
        if given != FORMAT:
            raise TraceError(f"{path}.format must be {FORMAT!r}, got {given!r}; give a saved trace")
        version = description.get("format_version")
        if version != FORMAT_VERSION:
            raise TraceError(
                f"{path}.format_version must be {FORMAT_VERSION}, got {version!r}; capture the "
                "trace again or read it with the release that wrote it"
            )
        wanted = {"provenance": dict, "images": int, "layers": list, "edges": list, "files": dict}
        for key, kind in wanted.items():
            if not isinstance(description.get(key), kind):
                raise TraceError(
                    f"{path}.{key} must be of type {kind.__name__}, got {description.get(key)!r}; "
                    "restore the file or capture the trace again"
                )
        for name, digest in description["files"].items():
            known = name == INPUTS or name.startswith("layers/")
            numbers = isinstance(digest, dict) and all(
                isinstance(digest.get(key), int) for key in ("bytes", "crc32")
            )
            if not known or ".." in name or not numbers:
                raise TraceError(
                    f"{path}.files must hold bytes and crc32 of the trace's own files, got "
                    f"{name!r}: {digest!r}; restore the file or capture the trace again"
                )
        return description
