"""Running what PyTorch would hide with the hook on: kernels, subclasses, compiled code.

A dispatch mode is left while an operation's own kernel runs, so what the kernel calls is not seen.
Here it runs with the mode on, which sees all that it does by operations of PyTorch.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Results of these hold nothing yet.
_BLANK = ("empty", "new_empty", "zeros", "new_zeros", "ones", "new_ones", "full", "new_full")


def backend_keys(tensors: Iterable[Tensor]) -> torch._C.DispatchKeySet:
    """Dispatch keys of an operation's own kernel: those of its tensors below autograd and modes."""
    keys = functools.reduce(operator.or_, (torch._C._dispatch_keys(each) for each in tensors))
    keys = keys & torch._C._after_ADInplaceOrView_keyset
    return keys.remove(torch._C.DispatchKey.Python)


def is_blank(base: str) -> bool:
    """Whether an operation makes a tensor for others to write to."""
    return base.removesuffix("_like") in _BLANK or base in ("empty_strided", "new_empty_strided")


def inner_tensors(tensor: Tensor) -> list[Tensor]:
    """What a wrapper subclass computes with; the tensor itself where it is none."""
    if type(tensor) in (Tensor, nn.Parameter, nn.Buffer):
        return [tensor]
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        values = [getattr(tensor, name, None) for name in flatten()[0]]
    elif "__torch_dispatch__" in vars(type(tensor)):
        values = list(vars(tensor).values())
    else:
        return [tensor]
    return [each for value in values if isinstance(value, Tensor) for each in inner_tensors(value)]


def kernel_of(func: Any) -> Callable[..., Any] | None:
    """The kernel of a higher-order operator that computes values, if it has one."""
    kernels = getattr(func, "py_kernels", {})
    for key in (torch._C.DispatchKey.CompositeExplicitAutograd, torch._C.DispatchKey.CPU):
        if key in kernels:
            kernel: Callable[..., Any] = kernels[key]
            return kernel
    return None


def is_function(value: Any) -> bool:
    """Whether an argument of a higher-order operator is code to run."""
    return callable(value) and not isinstance(value, Tensor | torch._ops.OpOverload | type)


def under(mode: Any, values: Sequence[Any]) -> list[Any]:
    """The same arguments, functions among them run with `mode` on."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with mode:
                return function(*args, **kwargs)

        return run

    return [wrapped(value) if is_function(value) else value for value in values]


@contextmanager
def as_written() -> Iterator[None]:
    """Run compiled code as it was written: `torch.compile` and TorchScript may fuse products."""
    with ExitStack() as stack:
        stack.enter_context(torch.jit.optimized_execution(False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        else:  # nothing is compiled yet, and loading the compiler takes more than a second
            compiling = torch.compile
            stack.callback(setattr, torch, "compile", compiling)
            torch.compile = _not_compiled
        yield


def _not_compiled(model: Any = None, **_options: Any) -> Any:
    """`torch.compile` for the time of a run."""
    return model if model is not None else lambda function: function
