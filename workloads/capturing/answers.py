"""A model's result taken apart: every output by its path, and the one that is judged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from workloads.capturing.calls import Array, array_of
from workloads.errors import TraceError, show
from workloads.traces.judged import Judged, holds_other, usual_output
from workloads.traces.scores import is_counted


def named_outputs(result: Any) -> dict[str, Tensor]:
    """Every tensor of a result by its path.

    A list of mappings with the same keys, one for each image, as detectors give it, counts as one
    mapping whose entries are joined along their first dimension.
    """
    found = dict(_walk(result, ""))
    joined = _joined(result)
    return joined or found


def find_output(
    result: Any, output: str | int | None, labels: Array | None = None
) -> tuple[Judged, Tensor | None]:
    """The output that is judged, and its path.

    Args:
        result: what the model returned.
        output: as the user names it: a path, or a position; None takes the usual one.
        labels: expected classes, which tell outputs apart that could hold them.

    Raises:
        TraceError: there is no such output, or none with which labels go.
    """
    outputs = named_outputs(result)
    names = tuple(outputs)
    if output is not None:
        name = _path_of(output, names)
        every = outputs | dict(_walk(result, ""))
        if name not in every:
            known = ", ".join(map(repr, names))
            several = bool(names) and names != ("",)
            raise TraceError(
                f"output must be one of {known}, got {show(output)}; name one of them"
                if several
                else f"output must be left out where the model returns "
                f"{'one tensor' if names else 'no tensor'} alone, got {show(output)}"
            )
        return Judged(output=name, names=names, chosen=True), every[name]
    if not names:
        return Judged(names=()), None
    usual = usual_output(names)
    fitting = _fitting(outputs, labels) if usual is None and labels is not None else None
    name = next(each for each in (usual, fitting, names[0]) if each is not None)
    return Judged(output=name, names=names, chosen=fitting is not None), outputs[name]


def _fitting(outputs: Mapping[str, Tensor], labels: Array) -> str:
    """Of several outputs the only one that labels may be of.

    Raises:
        TraceError: it is none, or not the only one.
    """
    fitting = [
        name
        for name, tensor in outputs.items()
        if not holds_other(name)
        and tensor.ndim > 1
        and tensor.is_floating_point()
        and (tensor.shape[0], *tensor.shape[2:]) == labels.shape
        and tensor.shape[1] > max(1, int(labels[is_counted(labels)].max(initial=0)))
    ]
    if len(fitting) != 1:
        every = ", ".join(f"{name!r} of shape {tuple(x.shape)}" for name, x in outputs.items())
        raise TraceError(
            f"output must say which of {len(outputs)} outputs the labels are of, got {every}; "
            "name one, as in capture(..., output='logits') or --output logits"
        )
    return fitting[0]


def _path_of(output: str | int, names: Sequence[str]) -> str:
    """A path as it is written, or the name of the output at a position."""
    text = str(output)
    if text in names or not re.fullmatch(r"-?\d{1,6}", text):
        return text
    return names[int(text)] if -len(names) <= int(text) < len(names) else text


def _walk(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors with their paths, in order."""
    if isinstance(value, Tensor):
        yield path, value
        return
    entries: Any = ()
    if isinstance(value, Mapping):
        entries = value.items()
    elif is_dataclass(value) and not isinstance(value, type):
        entries = [(each.name, getattr(value, each.name, None)) for each in fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        entries = zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        entries = enumerate(value)
    for name, entry in entries:
        yield from _walk(entry, f"{path}.{name}" if path else str(name))


def _joined(result: Any) -> dict[str, Tensor]:
    """One mapping of the mappings in a list; nothing of anything else."""
    if not isinstance(result, list | tuple) or not result:
        return {}
    if not all(isinstance(entry, Mapping) for entry in result):
        return {}
    parts = [dict(_walk(entry, "")) for entry in result]
    if any(list(part) != list(parts[0]) for part in parts):
        return {}
    try:
        return {
            name: torch.cat([torch.atleast_1d(part[name]) for part in parts]) for name in parts[0]
        }
    except RuntimeError:  # of other sizes, such as masks of pictures of other sizes
        return {}


def judged_array(result: Any, provenance: Mapping[str, Any]) -> Array | None:
    """What of a result a trace judges, as an array.

    Raises:
        TraceError: the result lacks it.
    """
    judged = Judged.of(provenance)
    if judged is not None and judged.output:
        _, tensor = find_output(result, judged.output)
    elif judged is not None:
        tensor = next((x for _, x in _walk(result, "")), None)
    else:
        tensor = _first(result)
    return None if tensor is None else array_of(tensor)


def _first(result: Any) -> Tensor | None:
    """`logits`, or the first tensor: what traces hold that name none."""
    outputs = dict(_walk(result, ""))
    return outputs.get("logits", next(iter(outputs.values()), None))
