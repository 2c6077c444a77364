"""Which way an operation of PyTorch goes in the hook, by `workloads.capturing.operation_table`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from workloads.capturing.operation_table import (
    COMPOSITE,
    ENTRIES,
    FAMILIES_WITHOUT,
    NO_PRODUCT,
    NO_PRODUCT_NAMES,
    NO_PRODUCT_NAMESPACES,
    NOT_COUNTED,
    OPENED,
    OUTSIDE,
    Entry,
)

# What a name of a product or of a layer made of products contains.
_LIKE_A_PRODUCT = re.compile(
    r"mm|matmul|conv\d|conv_|_conv|convolution|attention|linear|mv$|dot|gemm|rnn|lstm|gru|linalg"
    r"|bilinear|mha|transformer|einsum|solve|cholesky|bmm|_dist$|cdist"
)


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What the hook does with one overload of an operation.

    Attributes:
        way: one of those above.
        name: qualified, without the overload: `aten::mm`.
        base: the name alone, without the `_` of operations in place.
        text: of its `Entry`.
        writes: the arguments that it writes to.
        multiplies: whether it would be a product, if it ran in a backward pass.
    """

    way: str
    name: str
    base: str
    text: str = ""
    writes: tuple[str, ...] = ()
    multiplies: bool = False


def _indexed() -> dict[tuple[str, str], Entry]:
    return {(entry.namespace, name): entry for entry in ENTRIES for name in entry.names}


_BY_NAME = _indexed()
_BY_NAMESPACE = {entry.namespace: entry for entry in ENTRIES if not entry.names}


@cache
def handling_of(func: Any) -> Handling:
    """How the hook treats an operation, a `torch._ops.OpOverload`."""
    schema = func._schema
    name = schema.name
    namespace, _, plain = name.partition("::")
    writes = tuple(a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write)
    way, text = _way(func, namespace, plain)
    return Handling(
        way=way,
        name=name,
        base=plain.removesuffix("_"),
        text=text,
        writes=writes if schema.is_mutable else (),
        multiplies=way not in (NO_PRODUCT, COMPOSITE, OUTSIDE),
    )


def _way(func: Any, namespace: str, plain: str) -> tuple[str, str]:
    base = plain.removesuffix("_")
    entry = _BY_NAME.get((namespace, base)) or _BY_NAME.get((namespace, plain))
    if entry is None and namespace in _BY_NAMESPACE:
        entry = _BY_NAMESPACE[namespace]
    if entry is not None:
        return entry.way, entry.text
    if _is_composite(func):
        return COMPOSITE, "PyTorch takes it apart"
    if namespace not in NO_PRODUCT_NAMESPACES:
        return OUTSIDE, "not an operation of PyTorch"
    if namespace == "aten" and could_multiply(func):
        if _comes_apart(func._overloadpacket):  # its form with `out=` does by its own kernel alone
            return OPENED, "PyTorch takes it apart"
        return NOT_COUNTED, "not in the table of operations"
    return NO_PRODUCT, ""


def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    if not torch._C._dispatch_has_kernel(func.name()):  # sizes and strides, asked of subclasses
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _comes_apart(packet: Any) -> bool:
    return "default" in packet.overloads() and _is_composite(packet.default)


def could_multiply(func: Any) -> bool:
    """Whether an operation of ATen that the table lacks could hide a product, by its schema."""
    plain = func._schema.name.partition("::")[2]
    base = plain.removesuffix("_")
    if base in NO_PRODUCT_NAMES or plain in NO_PRODUCT_NAMES:
        return False
    if base.startswith(FAMILIES_WITHOUT) or base.endswith("_copy"):
        return False
    if "backward" in base:
        return bool(_LIKE_A_PRODUCT.search(base))
    if torch.Tag.pointwise in func.tags or _reads(func) == 0:
        return False
    return _reads(func) > 1 or bool(_LIKE_A_PRODUCT.search(base))


def _reads(func: Any) -> int:
    """Tensors that an operation computes from; a list of them counts as two."""
    count = 0
    if not any("Tensor" in str(result.type) for result in func._schema.returns):
        return 0
    for argument in func._schema.arguments:
        kind = str(argument.type)
        if "Tensor" in kind and not (argument.kwarg_only and argument.alias_info):
            count += 2 if "List" in kind or "[]" in kind else 1
    return count
