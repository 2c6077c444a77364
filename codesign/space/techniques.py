"""Techniques that a search may choose for a group of layers, of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerators import ConfigError
from accelerators.rules import choose, show
from simulator import ReusePolicy, Technique, techniques
from workloads.traces.layer import Layer

# Of a layer without a technique.
DENSE = "dense"


# Which of the catalogue a group of layers may choose.
_OF_GROUPS = ("lsh", "leaders", "neighbours")

TECHNIQUES: Mapping[str, Technique] = {name: techniques()[name] for name in _OF_GROUPS}
"""Name -> entry, of those that a group of layers may choose."""


def made(technique: Technique, layer: Layer, settings: Mapping[str, Any]) -> ReusePolicy:
    """The policy of one layer, with settings of a technique for all layers.

    A length beyond the layer's rows is cut to them, and only tiles have a height.

    Raises:
        ConfigError: the policy refuses the settings.
    """
    assert technique.policy is not None
    given = {name: value for name, value in settings.items() if name in technique.fields}
    if given.get("length") is not None:
        given["length"] = min(given["length"], layer.gemm.k)
    if given.get("scope", "tile") != "tile":
        given.pop("tile_rows", None)
    return technique.policy(**given)


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
