"""Whether a model is still the one that gave a trace its outputs, told without running it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from workloads.capturing.random_numbers import own_generator
from workloads.traces.trace import WorkloadTrace

# Values looked at in each tensor, for writes that PyTorch does not count: those through `.data`.
_SAMPLE = 16

# Of the attributes of modules, and of the parameters' numbers, those that are quick to compare.
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
_PLAIN = frozenset({type(None), bool, int, float, str})
_OF_NUMPY = frozenset({torch.float32, torch.float64, torch.int64})

_State = list[tuple[str, object]]

_known: weakref.WeakKeyDictionary[WorkloadTrace, tuple[weakref.ref[nn.Module], _State, bool]] = (
    weakref.WeakKeyDictionary()
)
# Models that were seen to answer twice alike, without random numbers, and their state then.
_repeating: weakref.WeakKeyDictionary[nn.Module, _State] = weakref.WeakKeyDictionary()


def remember(
    trace: WorkloadTrace, model: Any, *, verified: bool = False, repeats: bool = False
) -> None:
    """Note that a model, as it is now, answers as a trace holds; only of modules.

    Args:
        trace: the trace.
        model: its model.
        verified: whether it was run a second time, and answered the same.
        repeats: whether it did so without random numbers, as it then will on other inputs too.
    """
    if isinstance(model, nn.Module):
        state = state_of(model)
        _known[trace] = weakref.ref(model), state, verified
        if repeats:
            _repeating[model] = state


def is_remembered(trace: WorkloadTrace, model: Any) -> bool:
    """Whether a model was noted, answers the same each time, and nothing in it changed since.

    What may change are its modules, attributes and tensors. A write through a tensor's `.data`, or
    an array that shares its memory, is seen only where it meets one of a few values that are
    compared.
    """
    found = _known.get(trace)
    if found is None or not isinstance(model, nn.Module) or found[0]() is not model:
        return False
    _, noted, verified = found
    state = state_of(model)
    return noted == state and (verified or _repeating.get(model) == state)


def state_of(model: nn.Module) -> _State:
    """What is compared, with its name; evaluation mode is left out, in which every model runs."""
    return list(_state(model))


def _state(model: nn.Module) -> Iterator[tuple[str, object]]:
    for path, module in model.named_modules():
        place = path or "the model"
        yield f"{place} itself", (id(module), type(module))
        before = f"{path}." if path else ""
        for name, value in vars(module).items():
            kind = type(value)
            if kind in _CONTAINERS:  # what most attributes of a module are
                yield before + name, (id(value), len(value))
            elif kind in _PLAIN:
                if name != "training":
                    yield before + name, value
            else:
                yield before + name, _mark(value)
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            yield path, id(tensor)
            continue
        yield path, (id(tensor), None if tensor.is_inference() else tensor._version)
        if type(tensor) in (Tensor, nn.Parameter) and tensor.is_contiguous():
            yield path, (tensor.data_ptr(), _sampled(tensor.detach()))


def _sampled(tensor: Tensor) -> object:
    """Evenly spaced values of a contiguous tensor, as bytes: as numbers, NaN is not itself."""
    if tensor.device.type != "cpu" or tensor.dtype not in _OF_NUMPY:
        values = tensor.view(-1)
        return str(values[:: max(1, len(values) // _SAMPLE)].tolist())
    array = tensor.numpy().reshape(-1)
    return array[:: max(1, array.size // _SAMPLE)].tobytes()


def _mark(value: object) -> object:
    """A plain value, a generator's state, or which object it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return tuple(_mark(entry) for entry in value)
    drawn = own_generator(value)
    held = len(value) if isinstance(value, dict | list | set) else None
    return id(value), held if drawn is None else drawn
