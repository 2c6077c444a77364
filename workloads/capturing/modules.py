"""Which module is running, in which mode, and what a matrix product in it is called.

PyTorch's `ModuleTracker` answers with an unordered set of names; a name needs the innermost one, so
the same global forward hooks keep a stack here. The model itself gets no hook.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from workloads.errors import TraceError


@dataclass(kw_only=True)
class _Frame:
    module: object
    path: str
    attention: bool
    products: int = 0
    leave: Callable[[], None] | None = None


class ModulePaths:
    """Context in which the paths of running modules are known.

    Recurrent layers run without oneDNN in it, whose fused kernel would hide their products.

    Args:
        names: path of each module, by identity.

    Attributes:
        failure: what was raised in another thread.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._frames = [_Frame(module=None, path="", attention=False)]
        self._calls: dict[str, int] = {}
        self._exits = ExitStack()
        self._thread = threading.get_ident()
        self.failure: TraceError | None = None

    @property
    def path(self) -> str:
        """Path of the innermost running module; empty for the model itself."""
        return self._frames[-1].path

    @property
    def module(self) -> object:
        """The innermost running module; `None` for a function."""
        return self._frames[-1].module

    def name(self, base: str) -> str:
        """`base`, or `base#2` and so on for further calls."""
        calls = self._calls[base] = self._calls.get(base, 0) + 1
        return base if calls == 1 else f"{base}#{calls}"

    def product_path(self, owners: tuple[str, ...]) -> str:
        """Path for a product with a parameter of the modules `owners`.

        A module may use a child's parameter without calling the child, as attention does with its
        output projection; the product is then named after the child.
        """
        prefix = f"{self.path}." if self.path else ""
        return next((owner for owner in owners if owner.startswith(prefix)), self.path)

    def attention_role(self) -> str | None:
        """`scores`, then `values`, for the batched products of one attention call."""
        frame = self._frames[-1]
        if not frame.attention or frame.products > 1:
            return None
        frame.products += 1
        return ("scores", "values")[frame.products - 1]

    def enter_attention(self) -> None:
        """Begin a functional attention call."""
        self._frames.append(_Frame(module="attention", path=self.path, attention=True))

    def leave_attention(self) -> None:
        """End it."""
        self._pop("attention")

    def __enter__(self) -> Self:
        before = register_module_forward_pre_hook(self._before)
        self._exits.callback(before.remove)
        after = register_module_forward_hook(self._after, always_call=True)
        self._exits.callback(after.remove)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while len(self._frames) > 1:
            self._pop(self._frames[-1].module)
        self._exits.close()

    def _before(self, module: nn.Module, _inputs: Any) -> None:
        if threading.get_ident() != self._thread:
            self._refuse_thread(module)
            return
        frame = _Frame(
            module=module,
            path=self._names.get(id(module), self.path),
            attention=isinstance(module, nn.MultiheadAttention),
        )
        if isinstance(module, nn.RNNBase):
            frame.leave = _without_onednn()
        self._frames.append(frame)

    def _after(self, module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        if threading.get_ident() == self._thread:
            self._pop(module)

    def _refuse_thread(self, module: nn.Module) -> None:
        """A module in another thread is not seen; one of another model is no concern."""
        if id(module) not in self._names:
            return
        self.failure = TraceError(
            f"layer {self._names[id(module)]!r} must run in the thread that runs the model, got "
            "another one, in which no product is seen; call its modules one after the other"
        )
        raise self.failure

    def _pop(self, module: object) -> None:
        if not any(frame.module is module for frame in self._frames[1:]):
            return
        while True:
            frame = self._frames.pop()
            if frame.leave is not None:
                frame.leave()
            if frame.module is module:
                return


class AttentionCalls(TorchFunctionMode):
    """Tells `paths` when `scaled_dot_product_attention` is called, whatever it falls back to."""

    def __init__(self, paths: ModulePaths) -> None:
        super().__init__()
        self._paths = paths

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self._paths.enter_attention()
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._paths.leave_attention()


@contextmanager
def no_fast_path() -> Iterator[None]:
    """Keep attention modules from their fused kernels, which hide every product."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _without_onednn() -> Callable[[], None]:
    """Switch oneDNN off; the result switches it back."""
    flags = torch.backends.mkldnn.flags(enabled=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it also sets a flag of other devices
        flags.__enter__()

    def leave() -> None:
        flags.__exit__(None, None, None)

    return leave
