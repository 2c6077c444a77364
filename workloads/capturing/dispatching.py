"""The one hook: what becomes of each operation of a running model.

Products are asked about, all other operations run as they are and their results are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from workloads.capturing.asking import Asking
from workloads.capturing.flow import Flow, tensors_in
from workloads.capturing.following import Following
from workloads.capturing.handling import Handling, handling_of
from workloads.capturing.modules import ModulePaths
from workloads.capturing.opening import (
    backend_keys,
    inner_tensors,
    is_blank,
    is_function,
    kernel_of,
    under,
)
from workloads.capturing.operation_table import (
    ATTENTION,
    COMPILED_OPERATORS,
    COMPOSITE,
    CONVOLUTION,
    DISTANCE,
    NOT_COUNTED,
    OPENED,
    OUTSIDE,
    PRODUCT,
    REFUSED,
    UNSEEN_OPERATORS,
)
from workloads.capturing.operations import arguments_of
from workloads.capturing.real_values import check_real, without_values
from workloads.errors import InputError, TraceError, told


class Hook(TorchDispatchMode):
    """Sees every operation, asks about products, follows all the others.

    Attributes:
        failure: the first error of this project's, or of `on_gemm`, while the model ran.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        asking: Asking,
        flow: Flow,
        paths: ModulePaths,
        following: Following | None = None,
    ) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._asking = asking
        self._flow = flow
        self._paths = paths
        self._following = following
        self._unusual: dict[str, None] = {}  # kinds of tensors and operators that may break
        self._blank: Any = None  # storages that nobody wrote to, in a kernel from outside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._dispatch(func, types, args, kwargs or {})
        except BaseException as error:
            if self.failure is None and (
                isinstance(error, InputError) or error is self._asking.failure
            ):
                self.failure = error
            raise

    def _dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self._higher_order(func, args, kwargs)
        handling = handling_of(func)
        if torch._C._current_graph_task_id() != -1:  # the backward pass is the dense one
            if handling.multiplies:
                self._asking.leave_out(f"{handling.name} of a backward pass")
            return func(*args, **kwargs)
        if types:
            return self._of_subclass(handling, func, types, args, kwargs)
        way = _WAYS.get(handling.way)
        if way is None:
            return self._pass(handling, func, args, kwargs)
        return way(self, handling, func, args, kwargs)

    def explained(self, error: Exception, model: Any, args: Any, kwargs: Any) -> TraceError | None:
        """What an error of PyTorch's means; `None` if it is the model's own: it runs once more."""
        bare = without_values(model)
        if bare is not None:
            return TraceError(
                f"model must hold real values, got {bare}, and then {told(error)}; build the "
                "model on the CPU, with its weights"
            )
        try:
            model(*args, **kwargs)
        except Exception:  # it does so without the hook too: its own traceback tells the most
            return None
        unusual = " and ".join(self._unusual)
        return TraceError(
            f"model must run with every product seen, got {told(error)}"
            f"{f', with {unusual}' if unusual else ''}, but not when it runs alone; use plain "
            "operations on dense tensors there"
        )

    def _pass(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation as it is, and follow what it makes and writes to."""
        result = func(*args, **kwargs)
        given = list(tensors_in([args, kwargs]))
        written = _written(handling, func, args, kwargs)
        self._flow.follow(func, given, [result, written] if written else result)
        if self._following is not None:
            self._following.operation(handling, func, args, kwargs, result)
        if self._blank is not None:
            if is_blank(handling.base):
                self._blank[result.untyped_storage()] = True
            for tensor in written:
                self._blank.pop(tensor.untyped_storage(), None)
        return result

    def _product(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        if any(tensor.is_nested for tensor in tensors_in([args, kwargs])):
            return self._open(handling, func, args, kwargs)
        result = self._asking.product(handling.base, func, args, kwargs)
        if self._blank is not None and result is not NotImplemented:
            self._blank.pop(result.untyped_storage(), None)
        return self._or_pass(result, handling, func, args, kwargs)

    def _convolution(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        result = self._asking.convolution(func, args, kwargs)
        return self._or_pass(result, handling, func, args, kwargs)

    def _attention(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        if any(tensor.is_nested for tensor in tensors_in([args, kwargs])):
            self._asking.refuse(func, "call it on dense tensors, or on the CPU")
        result = self._asking.attention(func, args, kwargs)
        return self._or_pass(result, handling, func, args, kwargs)

    def _distance(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        result = self._asking.distance(func, args, kwargs)
        return self._or_pass(result, handling, func, args, kwargs)

    def _or_pass(self, result: Any, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """A product's result, or where nobody was asked, the operation's own."""
        if result is NotImplemented:
            return self._pass(handling, func, args, kwargs)
        return result

    def _refused(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        if handling.base == "to_mkldnn" and not self._depends(tensors_in([args, kwargs])):
            return self._pass(handling, func, args, kwargs)  # a parameter may be stored so
        self._asking.refuse(func, handling.text)

    def _uncounted(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that is work like a product's, and none to replace."""
        named = arguments_of(func, args, kwargs)
        multiplies = named.get("per_sample_weights", True) is not None  # of embedding bags
        if multiplies and self._depends(tensors_in([args, kwargs])):
            self._asking.leave_out(handling.name)
        return self._pass(handling, func, args, kwargs)

    def _composite(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """A compound operation: below autograd, and in inference mode, they arrive whole."""
        if any(tensor.is_nested for tensor in tensors_in([args, kwargs])):
            return self._open(handling, func, args, kwargs)
        with self:
            return func.decompose(*args, **kwargs)

    def _open(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation's own kernel under this hook, which sees what it is made of."""
        given = list(tensors_in([args, kwargs]))
        if not given:
            return self._pass(handling, func, args, kwargs)
        result = self._run_kernel(func, given, args, kwargs)
        made = [result, _written(handling, func, args, kwargs)]
        self._follow_unknown(given, made, self._sources(given))
        return result

    def _run_kernel(self, func: Any, given: list[Tensor], args: Any, kwargs: Any) -> Any:
        if any(tensor.is_nested for tensor in given):
            self._unusual["nested tensors"] = None
        with self:
            return func.redispatch(backend_keys(given), *args, **kwargs)

    def _opened(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation made of products; named if its kernel shows none, as on other devices."""
        seen, given = self._asking.seen, list(tensors_in([args, kwargs]))
        check_real(given, self._asking.place)
        result = self._open(handling, func, args, kwargs)
        shown = self._asking.seen > seen or any(tensor.numel() == 0 for tensor in given)
        if not shown and self._depends(given):
            self._asking.leave_out(handling.name)
        return result

    def _outside(self, handling: Handling, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation from outside PyTorch; named if it may hide a product."""
        given = list(tensors_in([args, kwargs]))
        if not self._depends(given):
            return self._pass(handling, func, args, kwargs)
        check_real(given, self._asking.place)
        written = _written(handling, func, args, kwargs)
        seen, before = self._asking.seen, self._blank
        self._blank = blank = WeakIdKeyDictionary()
        for tensor in written:
            blank[tensor.untyped_storage()] = True
        try:
            result = self._run_kernel(func, given, args, kwargs)
        finally:
            self._blank = before
        # Truth values and indices are choices, no sums of products.
        sums = [
            each
            for each in tensors_in([result, written])
            if each.dtype not in (torch.bool, torch.int64)
        ]
        whole = self._asking.seen > seen and all(
            self._flow.origin(each).active and each.untyped_storage() not in blank for each in sums
        )
        if whole:
            self._asking.took_apart(handling.name)
        elif sums:
            self._asking.leave_out(handling.name)
        self._follow_unknown(given, [result, written], self._sources(given))
        return result

    def _of_subclass(
        self, handling: Handling, func: Any, types: Any, args: Any, kwargs: Any
    ) -> Any:
        """Let a subclass of tensors take its operation apart under this hook."""
        given = list(tensors_in([args, kwargs]))
        if handling.multiplies and FakeTensor in types:
            check_real(given, self._asking.place)
        self._unusual[f"tensors of {types[0].__name__}"] = None
        seen, result = self._asking.seen, NotImplemented
        with self:
            for kind in types:
                result = kind.__torch_dispatch__(func, types, args, kwargs)
                if result is not NotImplemented:
                    break
        hidden = handling.multiplies and self._asking.seen == seen and result is not NotImplemented
        if hidden and any(self._depends(inner_tensors(each)) for each in given):
            self._asking.leave_out(f"{handling.name} of {types[0].__name__}")
        return result

    def _higher_order(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operator that calls code: the code runs under this hook."""
        name, kernel = func.name(), kernel_of(func)
        if kernel is None or name in COMPILED_OPERATORS:
            raise TraceError(
                f"{self._asking.place} must run code that can be taken apart, got the higher-order "
                f"operator {name}; capture the model before it is compiled, or write it without"
            )
        self._unusual[f"torch.ops.higher_order.{name}"] = None
        given, before = list(tensors_in([args, kwargs])), len(self._asking.names)
        if name in UNSEEN_OPERATORS and self._depends(given):
            self._asking.leave_out(f"torch.ops.higher_order.{name}")
        if name == "flex_attention":
            self._paths.enter_attention()
            try:
                with self:
                    result = kernel(*args, **kwargs)
            finally:
                self._paths.leave_attention()
        elif any(is_function(each) for each in args):
            result = kernel(*under(self, args), **kwargs)
        else:
            with self:
                result = kernel(*args, **kwargs)
        inside = set(self._asking.names[before:])
        used = {first for first, last in self._asking.edges if first in inside and last in inside}
        self._follow_unknown(given, result, frozenset(inside - used) or self._sources(given))
        return result

    def _sources(self, given: list[Tensor]) -> frozenset[str]:
        return frozenset().union(*(self._flow.origin(each).sources for each in given))

    def _follow_unknown(self, given: list[Tensor], made: Any, sources: frozenset[str]) -> None:
        """Mark what was made in a way that showed nothing of where it comes from."""
        unknown = [each for each in tensors_in(made) if not self._flow.origin(each).active]
        if unknown and any(self._flow.origin(each).active for each in given):
            self._flow.mark(unknown, given, sources=sources, active=True)
            if self._following is not None:
                self._following.unknown(given, unknown, "unseen")

    def _depends(self, tensors: Iterable[Tensor]) -> bool:
        """Whether a result may depend on the model's inputs: it isn't of parameters alone."""
        return any(not self._flow.origin(tensor).resident for tensor in tensors)


_Way = Callable[[Hook, Handling, Any, Any, Any], Any]
_WAYS: dict[str, _Way] = {
    PRODUCT: Hook._product,
    CONVOLUTION: Hook._convolution,
    ATTENTION: Hook._attention,
    DISTANCE: Hook._distance,
    OPENED: Hook._opened,
    COMPOSITE: Hook._composite,
    OUTSIDE: Hook._outside,
    REFUSED: Hook._refused,
    NOT_COUNTED: Hook._uncounted,
}


def _written(handling: Handling, func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation writes to."""
    if not handling.writes:
        return []
    named = arguments_of(func, args, kwargs)
    return list(tensors_in([named.get(name) for name in handling.writes]))
