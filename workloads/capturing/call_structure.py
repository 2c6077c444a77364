"""How a model was called, kept with a trace: which tensor stood where, and the plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from workloads.errors import TraceError, show

CALL = "call"
"""Key of the provenance, where the call was more than tensors by position or by name."""


def call_provenance(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a call beside its tensors; nothing where these are all."""
    if all(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
        return {}
    places = iter(range(1 << 30))
    return {
        CALL: {
            "args": [_described(value, places) for value in args],
            "kwargs": {name: _described(value, places) for name, value in kwargs.items()},
        }
    }


def _described(value: Any, places: Iterator[int]) -> Any:
    """Tensors in the order in which `tensors_in` finds them."""
    described: dict[str, Any] = {"unknown": type(value).__name__}
    if isinstance(value, Tensor):
        described = {"tensor": next(places)}
    elif isinstance(value, list | tuple):
        entries = [_described(entry, places) for entry in value]
        if type(value) in (list, tuple):
            described = {type(value).__name__: entries}
    elif isinstance(value, dict):
        entries = [_described(entry, places) for entry in value.values()]
        if type(value) is dict and all(isinstance(name, str) for name in value):
            described = {"dict": dict(zip(value, entries, strict=True))}
    elif isinstance(value, float) and not math.isfinite(value):  # JSON has none of these
        described = {"float": str(value)}
    elif value is None or type(value) in (bool, int, float, str):
        described = {"value": value}
    return described


def called_as(call: Any, tensors: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments again.

    Args:
        call: what `call_provenance` kept.
        tensors: in their order.

    Raises:
        TraceError: an argument was something that a trace cannot keep, or the call is damaged.
    """
    try:
        args = tuple(_made(each, tensors) for each in call["args"])
        return args, {name: _made(each, tensors) for name, each in call["kwargs"].items()}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TraceError(
            f"provenance.{CALL} must say how the model was called, got {show(call)}; capture the "
            "trace again"
        ) from error


def _made(described: Any, tensors: list[Tensor]) -> Any:
    if "unknown" in described:
        raise TraceError(
            "inputs of the captured model must be tensors and plain values to run it again, got "
            f"{show(described['unknown'])}; capture it with tensors, lists, tuples and "
            "dictionaries of them"
        )
    ((kind, value),) = described.items()
    match kind:
        case "tensor":
            return tensors[value]
        case "list":
            return [_made(entry, tensors) for entry in value]
        case "tuple":
            return tuple(_made(entry, tensors) for entry in value)
        case "dict":
            return {name: _made(entry, tensors) for name, entry in value.items()}
        case "float":
            return float(value)
        case "value":
            return value
    raise KeyError(kind)
