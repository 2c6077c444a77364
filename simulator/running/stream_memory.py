"""What a policy keeps of a stream, in memory and on disk.

On disk it is one safetensors file: the tables' arrays, and in the header a readable JSON
description with a format version, the policy and a checksum. No pickle is written or read.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from accelerators import ConfigError
from accelerators.rules import refuse, show, true_of, violations
from simulator.policies.policy import LayerMemory, LayerState
from workloads.errors import plain, told
from workloads.writing import replacing

FORMAT = "similarity-codesign stream memory"
FORMAT_VERSION = 2
_OF_ANSWERS = "answers"
_FIX = "use the memory of a ReuseRun"


def _are_arrays(layers: object) -> bool:
    """Whether this holds named arrays for each of several named layers."""
    return isinstance(layers, Mapping) and all(
        isinstance(layer, str)
        and isinstance(arrays, Mapping)
        and all(isinstance(name, str) for name in arrays)
        and all(isinstance(array, np.ndarray) for array in arrays.values())
        for layer, arrays in layers.items()
    )


_ARRAYS = true_of(_are_arrays, "hold named arrays for each layer", _FIX)
_ANSWERS = true_of(
    lambda given: given is None or isinstance(given, np.ndarray), "be an array of classes", _FIX
)
_POLICY = true_of(lambda given: isinstance(given, dict), "be a dict", _FIX)


@dataclass(frozen=True, kw_only=True)
class StreamMemory:
    """Where a stream stands after a batch; the next batch goes on from here.

    Attributes:
        policy: that made it, as `ReusePolicy.describe` gives it; no other may go on from it.
        states: layer -> what the policy learned before the stream. It holds for the whole stream:
            under another mean, the signatures that are kept would mean something else.
        tables: layer -> what is kept of it: clusters, see `simulator.policies.stream_tables`, or
            the `results` of rows that keep theirs, beside whatever a policy of one's own keeps.
        answers: classes that the last frame was answered with, for policies that look at them;
            `None` where none does.
    """

    policy: dict = field(metadata=_POLICY)
    states: Mapping[str, LayerState] = field(metadata=_ARRAYS)
    tables: Mapping[str, LayerMemory] = field(metadata=_ARRAYS)
    answers: np.ndarray | None = field(default=None, metadata=_ANSWERS)

    def __post_init__(self) -> None:
        refuse(violations(self, "StreamMemory"))

    def check_policy(self, described: dict) -> None:
        """Raise a `ConfigError` for any policy but the one that made the memory."""
        made, asked = _plain(self.policy), _plain(described)
        if made != asked:
            differing = [name for name in {**made, **asked} if made.get(name) != asked.get(name)]
            listed = ", ".join(
                f"{name}={made.get(name)!r} where the policy has {asked.get(name)!r}"
                for name in differing
            )
            raise ConfigError(
                f"memory must come from the same policy, got one with {plain(listed, 1000)}; go on "
                "with the policy that made it, or start without memory"
            )


def _plain(description: dict) -> dict:
    """As JSON gives it back.

    Raises:
        ConfigError: it holds what JSON can't.
    """
    try:
        return json.loads(json.dumps(description))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"memory must come from a policy of plain values, got {show(description)} "
            f"({told(error)}); use the memory of a ReuseRun"
        ) from error


def save_memory(memory: StreamMemory, path: str | Path) -> None:
    """Write a memory to a file, replacing it in one step.

    Args:
        memory: of a `ReuseRun`.
        path: of the file.

    Raises:
        ConfigError: there is no memory, or no folder for it.
    """
    path = _path(path)
    if not isinstance(memory, StreamMemory):
        raise ConfigError(
            f"memory must be a StreamMemory, got {show(memory)}; a ReuseRun has one where its "
            "policy has scope='stream'"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path} must lie in a folder that exists; make {path.parent}")
    tensors: dict[str, np.ndarray] = {}
    for kind, layers in (("states", memory.states), ("tables", memory.tables)):
        for index, arrays in enumerate(layers.values()):
            for name, array in arrays.items():
                tensors[f"{kind}.{index}.{name}"] = np.ascontiguousarray(array)
    if memory.answers is not None:
        tensors[_OF_ANSWERS] = np.ascontiguousarray(memory.answers)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "policy": memory.policy,
        "states": list(memory.states),
        "tables": list(memory.tables),
        "crc32": _checksum(tensors),
    }
    metadata = {"description": json.dumps(header, allow_nan=False)}
    with replacing(path) as new:
        # Not save_file, which puts a file of its own into the place of what it is given.
        new.write_bytes(safetensors.numpy.save(tensors, metadata))


def load_memory(path: str | Path) -> StreamMemory:
    """Read the memory that `save_memory` wrote; `decide` checks that policy and layers fit it.

    Raises:
        ConfigError: the file is missing, damaged, or not a memory of this format.
    """
    path = _path(path)
    try:
        if not path.is_file():  # a pipe or a device may never end
            raise OSError("no file")
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("description", "null")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(text)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} must be a file that save_memory wrote, got {told(error)}; start without memory"
        ) from error
    given = header.get("format") if isinstance(header, dict) else None
    if given != FORMAT:
        raise ConfigError(f"{path} must be a {FORMAT}, got {show(given, str)}; give a saved memory")
    version = header.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ConfigError(
            f"{path} must have format_version {FORMAT_VERSION}, got {show(version, int)}; "
            "read it with the release that wrote it, or start without memory"
        )
    if _checksum(tensors) != header.get("crc32"):
        raise ConfigError(
            f"{path} must have the CRC-32 {show(header.get('crc32'), int)}, got "
            f"{_checksum(tensors)}; it is corrupted: restore it, or start without memory"
        )
    listed = {kind: header.get(kind) for kind in ("states", "tables")}
    if not isinstance(header.get("policy"), dict) or not all(map(_are_names, listed.values())):
        raise ConfigError(
            f"{path} must tell its policy and the layers of its states and tables, got "
            f"{show(header)}; start without memory"
        )
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {
        kind: {layer: {} for layer in layers} for kind, layers in listed.items()
    }
    answers = tensors.pop(_OF_ANSWERS, None)
    for key, array in tensors.items():
        kind, index, name = (*key.split(".", 2), "", "")[:3]
        if kind not in listed or not index.isdecimal() or int(index) >= len(listed[kind]):
            raise ConfigError(
                f"{path} must hold arrays of its layers, got one called {show(key, str)}; start "
                "without memory"
            )
        array.flags.writeable = False
        found[kind][listed[kind][int(index)]][name] = array
    return StreamMemory(policy=header["policy"], answers=answers, **found)


def _path(path: object) -> Path:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise ConfigError(f"memory must be kept in a file, got {show(path)}; give its path as a text")


def _are_names(layers: object) -> bool:
    """Whether these are different names of layers."""
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        return False
    return len(set(layers)) == len(layers)


def _checksum(tensors: dict[str, np.ndarray]) -> int:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensors[name].tobytes(), checksum)
    return checksum
