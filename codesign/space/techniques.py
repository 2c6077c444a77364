"""Techniques that a search may choose for a group of layers, of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from accelerators import ConfigError
from accelerators.rules import choose, show
from simulator import ReusePolicy, Technique, Together, techniques
from workloads.traces.layer import Layer

# Of a layer without a technique.
DENSE = "dense"
# Of the parameter that chooses what is decided above the layers: of the whole network.
NETWORK = "network"
# Between names of techniques of which each decides on what those before it leave.
THEN = "+"

SHARING: Mapping[str, Technique] = {
    name: techniques()[name] for name in ("lsh", "leaders", "neighbours")
}
"""Name -> entry, of those that share rows within tiles and look once at a pixel."""


def is_above(technique: Technique) -> bool:
    """Whether it decides on frames or tokens, for the network, and not for a group of layers."""
    return technique.axis in ("frames", "tokens")


def dials(technique: Technique) -> tuple[str, ...]:
    """Fields that each group of layers has its own of."""
    return () if is_above(technique) else technique.own


def made(technique: Technique, layer: Layer, settings: Mapping[str, Any]) -> ReusePolicy:
    """The policy of one layer, with settings of a technique for all layers.

    A length beyond the layer's rows is cut to them, and only tiles have a height.

    Raises:
        ConfigError: the policy refuses the settings.
    """
    given = {name: value for name, value in settings.items() if name in technique.fields}
    if given.get("length") is not None:
        given["length"] = min(given["length"], layer.gemm.k)
    if given.get("scope", "tile") != "tile":
        given.pop("tile_rows", None)
    return of_network(technique, given)


def of_network(technique: Technique, settings: Mapping[str, Any]) -> ReusePolicy:
    """The policy of a technique with these settings.

    Raises:
        ConfigError: the policy refuses them.
    """
    assert technique.policy is not None
    given = {name: value for name, value in settings.items() if name in technique.fields}
    return technique.policy(**given)


def chained(policies: Sequence[ReusePolicy]) -> ReusePolicy:
    """Policies each of which decides on what those before it leave, as one."""
    return reduce(lambda then, first: Together(first, then), reversed(policies))


def members(name: str) -> list[str]:
    """Names of the techniques that a choice stands for, the first that decides first."""
    return [] if name == DENSE else name.split(THEN)


def searched() -> dict[str, Technique]:
    """Name -> entry, of those that a search may choose: with a policy that knows how to start."""
    return {
        name: each
        for name, each in techniques().items()
        if each.policy is not None and (each.choices or each.start) and not each.needs
    }


def _unsearched(name: str, known: Sequence[str]) -> str:
    """Why a name is none that a search may choose, and what to do."""
    technique = techniques().get(name)
    if technique is None:
        return f"techniques must be of {', '.join(known)}, got {show(name)}; {choose(name, known)}"
    told = f"techniques must be such as a search can set, got {show(name)}"
    if technique.policy is None:
        return f"{told}, which is not decided on a trace: {technique.how}"
    given = " or ".join(technique.needs or technique.fields)
    if not given:
        return f"{told}, of which there is nothing to choose; simulate --technique {name} runs it"
    return (
        f"{told}, whose {given} only you can know; simulate --technique {name} runs it, with --set "
        f"{(technique.needs or technique.fields)[0]}=VALUE"
    )


def found_techniques(names: Any) -> tuple[Technique, ...]:
    """The techniques of these choices, each once, without `DENSE`, which every space has.

    Args:
        names: of techniques, or of several with `THEN` between them.

    Raises:
        ConfigError: a name is unknown or given twice, several can't follow each other, or there is
            none but `DENSE`.
    """
    entries = searched()
    known = (DENSE, *entries)
    strings = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not strings or not {*names} - {DENSE}:
        raise ConfigError(
            f"techniques must be a list of {', '.join(known)} with one beside {DENSE}, got "
            f"{show(names)}; try ('{DENSE}', 'lsh')"
        )
    each_once = dict.fromkeys(each for name in names for each in members(name))
    problems = [_unsearched(name, known) for name in each_once if name not in known]
    problems += [
        f"techniques must name each once, got {show(name)} again; leave one out"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems += [
        f"techniques must have those of frames and tokens alone, got {show(name)}: they are chosen "
        "for the network beside what groups of layers choose; name them apart"
        for name in names
        if THEN in name
        and any(each in entries and is_above(entries[each]) for each in members(name))
    ]
    if problems:
        raise ConfigError(problems)
    return tuple(entries[name] for name in each_once)
