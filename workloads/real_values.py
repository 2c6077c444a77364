"""Tensors that stand for values which don't exist: on the meta device, or fake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from workloads.errors import TraceError

_FIX = (
    "reuse depends on values: build the model and its inputs on the CPU (for shapes alone, read a "
    "topology file)"
)


def check_real(tensors: Iterable[Tensor], place: str = "run_with.inputs") -> None:
    """Refuse tensors without values, and modes that make all tensors so.

    Raises:
        TraceError: names `place` and what was found.
    """
    for tensor in tensors:
        kind = _missing(tensor)
        if kind is not None:
            raise TraceError(
                f"{place} must have real values, got {kind} of shape {tuple(tensor.shape)}; {_FIX}"
            )


def check_no_fake_mode() -> None:
    """Refuse to run where every tensor becomes a fake one."""
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        raise TraceError(f"run_with must run outside FakeTensorMode, got it active; {_FIX}")


def without_values(model: Any) -> str | None:
    """A parameter or buffer of a model that holds no values, in words."""
    if not isinstance(model, nn.Module):
        return None
    for values in (model.named_parameters(), model.named_buffers()):
        for name, value in values:
            kind = None if nn.parameter.is_lazy(value) else _missing(value)
            if kind is not None:
                return f"{name!r}, {kind}"
    return None


def _missing(tensor: Tensor) -> str | None:
    if tensor.is_meta:
        return "a tensor on the 'meta' device"
    if isinstance(tensor, torch._subclasses.FakeTensor):
        return "a fake tensor"
    return None
