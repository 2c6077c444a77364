"""Techniques that a search may choose for a layer: each an entry with its policy and its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from accelerators import PROJECTIONS, ConfigError
from accelerators.rules import choose, show
from simulator import LeaderReuse, LshReuse, NeighbourReuse, ReusePolicy
from workloads.traces.layer import Layer

# Of a layer without a technique.
DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One way to reuse.

    Attributes:
        name: begins its parameters: `lsh.hashes`.
        policy: the class that decides. Every field of it may be searched.
        units: fields of the design that it runs on; those that no layer's technique asks for are
            left out of a design.
        parameters: field of the policy -> what a search chooses from unless it is told otherwise;
            numbers are from small to large.
        start: field -> value tried first, of each parameter, and of further fields that are set but
            not searched.
        own: parameters that each group has its own of: how much its layers bear differs.
        hardware: path of a field of its units -> choices, likewise.
    """

    name: str
    policy: type[ReusePolicy]
    units: tuple[str, ...]
    parameters: Mapping[str, tuple[Any, ...]]
    start: Mapping[str, Any]
    own: tuple[str, ...] = ()
    hardware: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the policy."""
        return tuple(each.name for each in fields(self.policy) if each.init)  # type: ignore[arg-type]

    def made(self, layer: Layer, settings: Mapping[str, Any]) -> ReusePolicy:
        """The policy of one layer, with settings of this technique for all layers.

        A length beyond the layer's rows is cut to them, and only tiles have a height.

        Raises:
            ConfigError: the policy refuses the settings.
        """
        known = self.fields
        given = {name: value for name, value in settings.items() if name in known}
        if given.get("length") is not None:
            given["length"] = min(given["length"], layer.gemm.k)
        if given.get("scope", "tile") != "tile":
            given.pop("tile_rows", None)
        return self.policy(**given)


TECHNIQUES: Mapping[str, Technique] = {
    each.name: each
    for each in (
        Technique(
            name="lsh",
            policy=LshReuse,
            units=("front_end", "cache", "centroid_buffer", "reconstructor"),
            parameters={
                "hashes": (8, 12, 16, 20, 24, 32, 40),
                "length": (8, 16, 32, 64, 128),
                "tile_rows": (64, 128, 256, 512, 1024),
                "tile_shape": ("strip", "block"),
                "look_once": (True, False),
            },
            start={
                "hashes": 24,
                "length": 64,
                "tile_rows": 128,
                "tile_shape": "strip",
                "look_once": True,
                "scope": "tile",
                "order": "channels_last",
            },
            own=("hashes",),
            hardware={"front_end.projection": PROJECTIONS},
        ),
        Technique(
            name="leaders",
            policy=LeaderReuse,
            units=("leader_table", "centroid_buffer", "reconstructor"),
            parameters={
                "tolerance": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
                "length": (32, 64, 128),
                "tile_rows": (64, 144, 256, 576, 1024),
                "tile_shape": ("strip", "block"),
                "entries": (8, 16),
            },
            start={
                "tolerance": 0.2,
                "length": 64,
                "tile_rows": 256,
                "tile_shape": "block",
                "entries": 16,
                "look_once": True,
                "scope": "tile",
                "order": "channels_last",
            },
            own=("tolerance",),
        ),
        Technique(
            name="neighbours",
            policy=NeighbourReuse,
            units=("neighbour_matcher", "centroid_buffer", "reconstructor"),
            parameters={
                "threshold": (0.9, 0.92, 0.94, 0.96, 0.98, 0.99),
                "length": (32, 64, 128),
                "tile_rows": (64, 144, 256, 576, 1024),
                "tile_shape": ("strip", "block"),
            },
            start={
                "threshold": 0.96,
                "length": 64,
                "tile_rows": 256,
                "tile_shape": "block",
                "look_once": True,
                "scope": "tile",
                "order": "channels_last",
            },
            own=("threshold",),
        ),
    )
}
"""Name -> entry; a technique is added here."""


def found_techniques(names: Any) -> tuple[Technique, ...]:
    """The techniques of these names, without `DENSE`, which every space has.

    Raises:
        ConfigError: a name is unknown or given twice, or there is none but `DENSE`.
    """
    known = (DENSE, *TECHNIQUES)
    strings = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not strings or not {*names} - {DENSE}:
        raise ConfigError(
            f"techniques must be a list of {', '.join(known)} with one beside {DENSE}, got "
            f"{show(names)}; try ('{DENSE}', 'lsh')"
        )
    problems = [
        f"techniques must be of {', '.join(known)}, got {show(name)}; {choose(name, known)}"
        for name in names
        if name not in known
    ]
    problems += [
        f"techniques must name each once, got {show(name)} again; leave one out"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if problems:
        raise ConfigError(problems)
    return tuple(TECHNIQUES[name] for name in names if name != DENSE)
