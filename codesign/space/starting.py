"""Where a search starts: the usual parameters of a space, and a setting of them to try first."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerators import Accelerator
from codesign.space.parameters import (
    Parameter,
    hardware_parameters,
    hardware_values,
    layer_parameters,
)
from workloads.traces.layer import Layer

# Deep Reuse's settings of CifarNet (Ning, Guan and Shen, ICDE 2019, Table II): layer -> (H, L).
PAPER_CIFARNET = {"conv1": (15, 5), "conv2": (10, 10)}
# Where a layer has no setting from the paper: that of CifarNet's conv2.
PAPER_DEFAULT = (10, 10)

Space = tuple[tuple[Parameter, ...], dict[str, dict[str, Any]]]


def usual_space(layers: Sequence[Layer], base: Accelerator, dense: Accelerator) -> Space:
    """Hardware, hashes and lengths; starts from the base design with the settings of Deep Reuse.

    Args:
        layers: whose reuse is searched.
        base: the design.
        dense: the design without reuse that is tried next.
    """
    parameters, start = hardware_parameters(base), hardware_values(base)
    is_cifarnet = {layer.name: layer.gemm.k for layer in layers} == {"conv1": 75, "conv2": 1600}
    for layer in layers:
        own = layer_parameters(layer, may_run_dense=True)
        parameters += own
        hashes, length = PAPER_CIFARNET[layer.name] if is_cifarnet else PAPER_DEFAULT
        start |= {
            f"{layer.name}.reuse": True,
            f"{layer.name}.hashes": hashes,
            f"{layer.name}.length": own[-1].nearest(length),
        }
    starts = {"paper" if is_cifarnet else "start": start}
    return _with_dense(
        parameters, starts, {f"{layer.name}.reuse": False for layer in layers}, dense
    )


def space_of_positions(sizes: Mapping[str, int], base: Accelerator, dense: Accelerator) -> Space:
    """Hardware and a position on the front of each layer; starts in the middle of every front.

    Args:
        sizes: layer -> how many settings its front has.
        base: the design.
        dense: the design without reuse that is tried next.
    """
    parameters, start = hardware_parameters(base), hardware_values(base)
    for layer, size in sizes.items():
        parameters.append(Parameter(name=f"{layer}.position", choices=tuple(range(size + 1))))
        start[f"{layer}.position"] = (size + 1) // 2
    off = {f"{layer}.position": 0 for layer in sizes}
    return _with_dense(parameters, {"start": start}, off, dense)


def _with_dense(
    parameters: Iterable[Parameter],
    starts: Mapping[str, dict[str, Any]],
    off: Mapping[str, Any],
    dense: Accelerator,
) -> Space:
    """A space in which a dense design is a start too; its values join the choices.

    Args:
        parameters: of the space.
        starts: the first start.
        off: parameters of reuse, as they are without.
        dense: the design.
    """
    (first,) = starts.values()
    values = {**first, **hardware_values(dense), **off}
    wider = tuple(
        replace(p, choices=tuple(sorted({*p.choices, values[p.name]}))) if p.ordered else p
        for p in parameters
    )
    return wider, {**starts, "dense_equal_area": values}


def nearest_start(
    starts: Mapping[str, Mapping[str, Any]], parameters: Sequence[Parameter]
) -> dict[str, dict[str, Any]]:
    """Starts with a choice of each parameter, the nearest to what they had."""
    found = {}
    for origin, given in starts.items():
        nearest = {p.name: p.nearest(given[p.name]) for p in parameters}
        # What is moved is no longer the setting of the paper.
        is_moved = any(nearest[name] != given[name] for name in nearest)
        found["start" if is_moved and origin == "paper" else origin] = nearest
    return found


def tell_moved(
    origin: str, before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Warn where a start is not among the choices.

    Args:
        origin: of the start.
        before: its values.
        now: those that it was moved to.
        names: parameters that have an effect.
    """
    moved = [name for name in names if now[name] != before[name]]
    if not moved:
        return
    what = (
        "starts from another design than the base with its usual setting, which"
        if origin in ("start", "paper")
        else f"tries another design first than the start {origin!r}, which"
    )
    told = ", ".join(f"{name} {before[name]} -> {now[name]}" for name in moved)
    warnings.warn(f"the search {what} is not among the choices: {told}", stacklevel=3)


def meant(name: str, known: Iterable[str]) -> str:
    """The parameter that may be meant, or all that can be searched."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose of {', '.join(known)}"
