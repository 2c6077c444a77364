"""Decisions kept between runs: what other hardware cannot change is not decided again."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np

from accelerators import ConfigError
from accelerators.rules import show
from simulator.decisions.box import Decisions
from simulator.policies.policy import ReusePolicy
from workloads.traces.layer import Layer

# Held for an entry beside its arrays: its key and its Python objects.
_ENTRY_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class DecidedLayer:
    """What became of one layer under reuse.

    Attributes:
        decisions: without centroids; `None` where the policy let the layer run dense.
        result: `(count, m, n)` float32 GEMM result in the model's numbers; `None` likewise, and
            where no model runs on.
        relative_mse: as in `ReuseRun`, `None` where not asked for.
        centroid_error: likewise.
    """

    decisions: Decisions | None
    result: np.ndarray | None = None
    relative_mse: float | None = None
    centroid_error: float | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of all arrays."""
        return _held_bytes(self.result) + _held_bytes(self.decisions)


def _held_bytes(value: object) -> int:
    """Bytes of all arrays of a dataclass and of those inside it, also of what it worked out."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if not is_dataclass(value):
        return 0
    return sum(_held_bytes(each) for each in vars(value).values())


class DecisionCache:
    """Layers' results and runs' quality, the least recently used forgotten first.

    Args:
        max_bytes: bound on what is held, at least 0; an entry larger than that is not kept.

    Attributes:
        held_bytes: what is held.
        hits: entries that were found.
        misses: entries that were not.

    Raises:
        ConfigError: the bound is no such number.
    """

    def __init__(self, max_bytes: int) -> None:
        if type(max_bytes) is not int or max_bytes < 0:
            raise ConfigError(
                f"DecisionCache.max_bytes must be an integer of at least 0, got {show(max_bytes)}; "
                "try 2**29"
            )
        self.max_bytes = max_bytes
        self.held_bytes = self.hits = self.misses = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any | None:
        """What was kept under the key, `None` if nothing is."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Hashable, value: Any, value_bytes: int = 0) -> None:
        """Keep a value under a key that holds none; make room for it."""
        needed = value_bytes + _ENTRY_BYTES
        if key in self._entries or needed > self.max_bytes:
            return
        self._entries[key] = value, needed
        self.held_bytes += needed
        while self.held_bytes > self.max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.held_bytes -= freed


class RunKeys:
    """Keys of one run's layers, to be asked for in the order in which the layers are called.

    What a layer sees depends on the reuse in every layer called before it, so its key covers the
    policies of all of these. Where each layer sees its recorded activations, it covers its own.

    Args:
        workload: names the trace, the model and the calibration.
        policy: the policy; its `describe` must tell all that its decisions depend on.
        sees_reuse: whether a model runs, so that layers see the reuse before them.
        settings: whatever else the results depend on.
    """

    def __init__(
        self, workload: str, policy: ReusePolicy, *, sees_reuse: bool, settings: Mapping[str, Any]
    ) -> None:
        self._policy = policy
        self._sees_reuse = sees_reuse
        self._first = _digest(b"", [workload, sees_reuse, dict(settings)])
        self._so_far = self._first

    def next_layer(self, layer: Layer) -> bytes:
        """The key of the layer called next."""
        policy = self._policy.policy_of(layer.name)
        own = policy.describe() if self._policy.applies_to(layer) else None
        described = [layer.name, own]
        before = self._so_far if self._sees_reuse or policy.looks_around else self._first
        # A later layer that looks around depends on this one, whatever this one depends on.
        self._so_far = _digest(self._so_far, described)
        return _digest(before, described)

    def all_layers(self, layers: tuple[Layer, ...]) -> list[bytes]:
        """The keys of all layers, from the first."""
        self._so_far = self._first
        keys = [self.next_layer(layer) for layer in layers]
        self._so_far = self._first
        return keys


def _digest(before: bytes, description: list[Any]) -> bytes:
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(before + text.encode()).digest()
