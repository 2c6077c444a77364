"""How a trace lies on disk: one readable JSON description and tensors in safetensors.

```
trace/
  trace.json                 format version, provenance, layers, edges, size and CRC-32 of each file
  inputs.safetensors         inputs.0, inputs.1, ... and, where known, outputs and labels
  affines.safetensors        0000.scale, 0000.shift: bias and batch normalisation by column, float32
  layers/0000.safetensors    input and weight of the first layer, float32, and so on
```

No pickle is written or read. A file is read whole, when asked for, and checked against its size and
checksum, so that a damaged trace is an error and never a wrong number.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from workloads.errors import TraceError, plain, show
from workloads.rules import LARGEST_LAYER, refuse, whole
from workloads.scratch import REPLACED, Scratch, restore
from workloads.traces.after import Affine
from workloads.traces.layer import Layer
from workloads.traces.provenance import provenance_problems
from workloads.writing import naming

FORMAT = "similarity-codesign workload trace"
FORMAT_VERSION = 1
DESCRIPTION = "trace.json"
INPUTS = "inputs.safetensors"
AFFINES = "affines.safetensors"
_LARGEST_DESCRIPTION_BYTES = 2**28
_OWN_FILE = re.compile(
    rf"{re.escape(INPUTS)}|{re.escape(AFFINES)}|layers/[0-9]{{4,9}}\.safetensors"
)
# Of a trace's name in that of what is written beside it: a whole one may be too long.
_SHOWN_NAME = 40

Array = np.ndarray[Any, np.dtype[Any]]


def layer_file(index: int) -> str:
    """Name of the file with the tensors of the layer that was called as number `index`."""
    return f"layers/{index:04d}.safetensors"


def affine_names(index: int) -> tuple[str, str]:
    """Names of scale and shift of the layer that was called as number `index`."""
    return f"{index:04d}.scale", f"{index:04d}.shift"


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
        raise TraceError(f"{path} must not exist, got a trace; pass overwrite=True (--overwrite)")


def scratch_beside(path: Path) -> Scratch:
    """A new directory in the folder of a trace that will be written, for what is not yet whole.

    Raises:
        OSError: with `path` as its filename.
    """
    target = Path(os.path.realpath(path))
    with naming(path, target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        return Scratch.beside(target)


def publish(directory: Path, path: Path) -> None:
    """Move a finished `directory` to `path` in one step, replacing the trace that is there.

    Args:
        directory: in a `Scratch` beside `path`, which keeps the trace that was there until it goes:
            where the process is killed halfway, `restore` puts that back.
        path: of the trace.

    Raises:
        OSError: with `path` as its filename; what was there is there still.
    """
    with naming(path, directory):
        _publish(directory, Path(os.path.realpath(path)))


def _publish(directory: Path, path: Path) -> None:
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


def _content(path: Path, most: int) -> bytes:
    """A file's bytes; of a longer one than `most` those and one more.

    Raises:
        OSError: it can't be read, or is no file: a pipe or a device may never end.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a directory, pipe or device, no regular file", str(path))
    with path.open("rb") as file:
        return file.read(min(found.st_size, most) + 1)


def _check_numbers(path: Path, tensors: Mapping[str, Array]) -> None:
    """A layer's tensors must be float32 and finite, as they were captured."""
    for name, tensor in tensors.items():
        # A sum of float32 in float64 is finite where all of them are.
        if tensor.dtype == np.float32 and np.isfinite(tensor.sum(dtype=np.float64)):
            continue
        found = "NaN or infinity" if tensor.dtype == np.float32 else str(tensor.dtype)
        raise TraceError(
            f"{path} must hold finite float32 tensors, got {found} in {plain(name, 60)!r}; "
            "capture the trace again"
        )


class TraceWriter:
    """Writes a trace layer by layer into a directory of its own.

    Args:
        directory: an existing, empty directory.
        shown: what the user calls it, in a message of what can't be written.
    """

    def __init__(self, directory: Path, shown: Path | None = None) -> None:
        self.directory, self.shown = directory, shown or directory
        self._files: dict[str, dict[str, int]] = {}
        self.layers: list[Layer] = []

    def __len__(self) -> int:
        """Layers written so far."""
        return len(self.layers)

    def add(self, layer: Layer, *, stored_input: Array, stored_weight: Array) -> None:
        """Write the tensors of the next layer; see `workloads.traces.unfold` for their shapes."""
        name = layer_file(len(self.layers))
        self._write(name, {"input": stored_input, "weight": stored_weight}, np.float32)
        self.layers.append(layer)

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

    def add_affines(self, affines: Mapping[int, Affine]) -> None:
        """Write what results are scaled and shifted by.

        Args:
            affines: of the layer that was called as number so and so.
        """
        tensors: dict[str, Array] = {}
        for index, affine in sorted(affines.items()):
            scale, shift = affine_names(index)
            tensors |= {scale: affine.scale, shift: affine.shift}
        if tensors:
            self._write(AFFINES, tensors, np.float32)

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
            layers: the layers, where none was added with tensors, or more is known of them now.
        """
        refuse([f"WorkloadTrace.{each}" for each in provenance_problems(provenance)], TraceError)
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "provenance": dict(provenance),
            "images": images,
            "layers": [layer.to_dict() for layer in (layers or self.layers)],
            "edges": [list(edge) for edge in edges],
            "files": self._files,
        }
        text = json.dumps(description, indent=1, allow_nan=False)
        with naming(self.shown, self.directory):
            (self.directory / DESCRIPTION).write_text(text + "\n", encoding="utf-8")

    def _write(self, name: str, tensors: Mapping[str, Array], dtype: Any = None) -> None:
        path = self.directory / name
        contiguous = {key: np.ascontiguousarray(value, dtype) for key, value in tensors.items()}
        # ascontiguousarray makes one dimension of none; safetensors keeps none.
        shaped = {key: value.reshape(tensors[key].shape) for key, value in contiguous.items()}
        with naming(self.shown, self.directory):
            path.parent.mkdir(exist_ok=True)
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
            data = _content(path, digest["bytes"])
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
                f"{path} must be a safetensors file of numpy types, got {plain(str(error), 300)}; "
                "capture the trace again"
            ) from error
        if name != INPUTS:
            _check_numbers(path, tensors)
        for tensor in tensors.values():
            tensor.flags.writeable = False
        if keep:
            self._last = (name, tensors)
        return tensors

    def _read_description(self) -> dict[str, Any]:
        path = self.directory / DESCRIPTION
        description = _parsed(path)
        given = description.get("format") if isinstance(description, dict) else None
        if given != FORMAT:
            raise TraceError(
                f"{path}.format must be {FORMAT!r}, got {show(given)}; give a saved trace"
            )
        version = description.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise TraceError(
                f"{path}.format_version must be {FORMAT_VERSION}, got {show(version)}; capture the "
                "trace again or read it with the release that wrote it"
            )
        wanted = {"provenance": dict, "images": int, "layers": list, "edges": list, "files": dict}
        for key, kind in wanted.items():
            if not isinstance(description.get(key), kind):
                raise TraceError(
                    f"{path}.{key} must be of type {kind.__name__}, got "
                    f"{show(description.get(key))}; restore the file or capture the trace again"
                )
        _check_digests(path, description["files"])
        return description


def _check_digests(path: Path, listed: Mapping[str, Any]) -> None:
    """Files lie inside the trace, and their sizes and checksums are known."""
    for name, digest in listed.items():
        numbers = isinstance(digest, dict) and all(
            whole(digest.get(key), 0, most) is not None
            for key, most in (("bytes", LARGEST_LAYER), ("crc32", 2**32 - 1))
        )
        if not numbers or not _OWN_FILE.fullmatch(name):
            raise TraceError(
                f"{path}.files must hold bytes and crc32 of the trace's own files, got "
                f"{show(name)}: {show(digest)}; restore the file or capture the trace again"
            )


def _parsed(path: Path) -> Any:
    """What a description holds, as long as it is plain JSON."""
    try:
        data = _content(path, _LARGEST_DESCRIPTION_BYTES)
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else plain(str(error), 300)
        raise TraceError(
            f"{path} must exist and be readable, got {found}; give the directory of a saved trace"
        ) from error
    if len(data) > _LARGEST_DESCRIPTION_BYTES:
        raise TraceError(
            f"{path} must have at most {_LARGEST_DESCRIPTION_BYTES} bytes, got more; restore it "
            "or capture the trace again"
        )
    try:
        return json.loads(
            data.decode("utf-8-sig"),  # an editor may have put a mark at the beginning
            object_pairs_hook=_each_key_once,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        found = "lists or mappings nested too deep" if deep else plain(str(error), 300)
        raise TraceError(
            f"{path} must be JSON, got a damaged or truncated file ({found}); restore it or "
            "capture the trace again"
        ) from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would take the last of several."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {show(twice)} stands twice")
    return made


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def check_listed(listed: Mapping[str, Any], layers: int) -> None:
    """A trace has a file for every layer, or shapes alone."""
    found, of_layers = (
        listed.keys() - {INPUTS, AFFINES},
        {layer_file(index) for index in range(layers)},
    )
    if found and found != of_layers:
        raise TraceError(
            f"files must list the trace's own files, one of each of the {layers} layers or none, "
            f"got {', '.join(sorted(found ^ of_layers))} too many or missing"
        )


def edge_of(edge: object) -> tuple[str, str]:
    """Two names of layers, as a description holds them."""
    if isinstance(edge, list) and len(edge) == 2 and all(isinstance(name, str) for name in edge):
        return edge[0], edge[1]
    raise TraceError(f"edges must describe a trace by pairs of layer names, got {show(edge)}")


def inputs_of(tensors: Mapping[str, Array]) -> tuple[Array, ...] | None:
    """`inputs.0`, `inputs.1`, ... of the file that also holds outputs and labels."""
    names = tensors.keys() - {"outputs", "labels"}
    expected = [f"inputs.{i}" for i in range(len(names))]
    if names != set(expected):
        raise TraceError(
            f"{INPUTS} must hold inputs.0, inputs.1, ..., outputs and labels, got "
            f"{', '.join(sorted(names))}"
        )
    return tuple(tensors[name] for name in expected) or None
