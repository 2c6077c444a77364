"""Tensors that are no plain arrays: without values (meta, fake), nested, sparse, quantised."""

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


def check_real(tensors: Iterable[Tensor], place: str) -> None:
    """Refuse tensors without values.

    Raises:
        TraceError: names `place` and what was found.
    """
    for tensor in tensors:
        kind = _missing(tensor)
        if kind is not None:
            raise TraceError(
                f"{place} must have real values, got {kind} of shape {tuple(tensor.shape)}; {_FIX}"
            )


def check_not_fake(value: Tensor, name: str) -> None:
    """Refuse a fake parameter. One on the meta device may get values before it is used."""
    if isinstance(value, torch._subclasses.FakeTensor):
        check_real([value], f"parameter {name!r}")


def check_no_fake_mode() -> None:
    """Refuse to run where every tensor becomes a fake one."""
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        raise TraceError(f"a model must run outside FakeTensorMode, got it active; {_FIX}")


def check_inputs(tensors: Iterable[Tensor], place: str) -> None:
    """Refuse inputs that are no plain arrays; on the meta device a model can run, for its shapes.

    Raises:
        TraceError: names what was found.
    """
    check_no_fake_mode()
    for tensor in tensors:
        if not tensor.is_meta:
            check_real([tensor], place)
        kind = _unlike_an_array(tensor)
        if kind is not None:
            raise TraceError(
                f"{place} must be plain dense tensors, got {kind}; give its values, and "
                "build it inside the model"
            )


def as_plain(tensor: Tensor) -> Tensor:
    """A model's output as a plain dense tensor; of a nested one all its values.

    Raises:
        TraceError: if it can't be one.
    """
    if tensor.is_nested:
        parts = tensor.unbind()
        alike = len({part.shape[1:] for part in parts}) == 1
        return torch.cat([part if alike else part.reshape(-1) for part in parts])
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout != torch.strided:
        return tensor.to_dense()
    kind = _unlike_an_array(tensor)
    if kind is not None or tensor.is_meta:
        raise TraceError(
            f"the model's output must be a plain dense tensor, got {kind or 'one without values'}; "
            "return what it holds"
        )
    return tensor


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


def _unlike_an_array(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a tensor of layout {tensor.layout}"
    if tensor.is_quantized:
        return "a quantised tensor"
    if torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python):
        return f"a {type(tensor).__name__}"
    return None


def _missing(tensor: Tensor) -> str | None:
    if tensor.is_meta:
        return "a tensor on the 'meta' device"
    if isinstance(tensor, torch._subclasses.FakeTensor):
        return "a fake tensor"
    return None
