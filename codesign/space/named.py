"""Whether the parameters of a space are those that a design is built of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from codesign.space.starting import meant
from workloads.errors import show


def name_problems(
    given: Sequence[str], wanted: Sequence[str], possible: Iterable[str]
) -> list[str]:
    """Parameters without effect, named twice, or missing.

    Args:
        given: names of the parameters.
        wanted: without which there is no design.
        possible: those that others may be.
    """
    known = [*wanted, *possible]
    problems = [
        f"DesignSpace.parameters must be what a design is built of, got {show(name)}; "
        f"{meant(name, known)}"
        for name in given
        if name not in known
    ]
    problems += [
        f"DesignSpace.parameters must name a parameter once, got {show(name)} again; leave one out"
        for name in sorted({name for name in given if given.count(name) > 1})
    ]
    problems += [
        f"DesignSpace.parameters must hold {name!r}, got none; add it, of one choice where it is "
        "not searched"
        for name in wanted
        if name not in given
    ]
    return problems


def start_problems(start: Mapping[str, Mapping[str, Any]], given: Sequence[str]) -> list[str]:
    """Starts that are of other parameters.

    Args:
        start: origin -> parameter -> value.
        given: names of the parameters.
    """
    problems = []
    for origin, values in start.items():
        if set(values) != set(given):
            other = ", ".join(sorted(map(str, set(values) ^ set(given))))
            problems.append(
                f"DesignSpace.start[{origin!r}] must have a value for each parameter and no other, "
                f"got a difference in {other}; mend these"
            )
    return problems
