"""Whether a model is still the one that gave a trace its outputs, told without running it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from workloads.trace import WorkloadTrace

# Values looked at in each tensor, for writes that PyTorch does not count: those through `.data`.
_SAMPLE = 16

_known: weakref.WeakKeyDictionary[WorkloadTrace, tuple[weakref.ref[nn.Module], list]] = (
    weakref.WeakKeyDictionary()
)


def remember(trace: WorkloadTrace, model: Any) -> None:
    """Note that a model, as it is now, answers as a trace holds; only of modules."""
    if isinstance(model, nn.Module):
        _known[trace] = weakref.ref(model), list(_state(model))


def is_remembered(trace: WorkloadTrace, model: Any) -> bool:
    """Whether a model was noted, and none of its modules, attributes and tensors changed since.

    A write through a tensor's `.data`, or an array that shares its memory, is seen only where it
    meets one of a few values that are compared.
    """
    found = _known.get(trace)
    if found is None or not isinstance(model, nn.Module) or found[0]() is not model:
        return False
    return found[1] == list(_state(model))


def _state(model: nn.Module) -> Iterator[object]:
    """What is compared; evaluation mode is left out, in which every model runs."""
    for module in model.modules():
        yield id(module), type(module)
        for name, value in vars(module).items():
            if name != "training":
                yield name, _mark(value)
    for tensor in (*model.parameters(), *model.buffers()):
        yield id(tensor), None if tensor.is_inference() else tensor._version
        if type(tensor) in (Tensor, nn.Parameter) and tensor.is_contiguous():
            values = tensor.detach().view(-1)
            yield values.data_ptr(), values[:: max(1, len(values) // _SAMPLE)].tolist()


def _mark(value: object) -> object:
    """A plain value, or which object it is."""
    if value is None or isinstance(value, bool | int | float | str | tuple):
        return value
    return id(value), len(value) if isinstance(value, dict | list | set) else None
