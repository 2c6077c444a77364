"""Every operation that multiplies matrices is in the table: captured, refused or named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from workloads.capturing.handling import could_multiply, handling_of
from workloads.capturing.operation_table import (
    ATTENTION,
    COMPOSITE,
    CONVOLUTION,
    DISTANCE,
    ENTRIES,
    NO_PRODUCT,
    NO_PRODUCT_NAMES,
    NOT_COUNTED,
    OPENED,
    OUTSIDE,
    PRODUCT,
    REFUSED,
    markdown,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def overloads_of(namespace: str) -> list[torch._ops.OpOverload]:
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        operation, _, overload = name.partition(".")
        if operation.startswith(f"{namespace}::"):
            packet = getattr(getattr(torch.ops, namespace), operation.partition("::")[2])
            found.append(getattr(packet, overload or "default"))
    return found


def test_no_operation_of_aten_that_could_multiply_is_unknown():
    """One that a new PyTorch brings is warned of when it runs; here it asks to be looked at."""
    named = {name for entry in ENTRIES if entry.namespace == "aten" for name in entry.names}
    unknown = {
        func._schema.name
        for func in overloads_of("aten")
        if handling_of(func).way == NOT_COUNTED and handling_of(func).base not in named
    }
    assert not unknown, "classify these in workloads/capturing/operation_table.py"


def test_the_audit_finds_an_operation_that_is_not_in_the_table():
    """By its two tensors, or by its name; and not what is elementwise or a view."""
    library = torch.library.Library("aten", "FRAGMENT")
    library.define("_test_only_fancy_product(Tensor a, Tensor b) -> Tensor")
    library.define("_fancy_linear(Tensor a) -> Tensor")
    assert not could_multiply(torch.ops.aten._test_only_fancy_product.default)  # a family left out
    assert could_multiply(torch.ops.aten._fancy_linear.default)
    assert handling_of(torch.ops.aten._fancy_linear.default).way == NOT_COUNTED
    for harmless in ("add.Tensor", "view.default", "relu.default", "sum.dim_IntList"):
        name, overload = harmless.split(".")
        assert not could_multiply(getattr(getattr(torch.ops.aten, name), overload))


def test_what_the_flop_counter_of_pytorch_knows_is_handled():
    """Its registry is PyTorch's own list of what multiplies matrices."""
    seen = set()
    for packet in flop_registry:
        if isinstance(packet, torch._ops.HigherOrderOperator):
            continue  # flex_attention, which is run as in test_workloads_opening
        for overload in packet.overloads():
            handling = handling_of(getattr(packet, overload))
            seen.add(handling.way)
            assert handling.way not in (NO_PRODUCT, COMPOSITE, OUTSIDE), packet
    assert {PRODUCT, CONVOLUTION, ATTENTION, REFUSED} <= seen


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("mm", PRODUCT),
        ("convolution", CONVOLUTION),
        ("_euclidean_dist", DISTANCE),
        ("_grouped_mm", OPENED),
        ("_trilinear", REFUSED),
        ("linalg_inv_ex", NOT_COUNTED),
        ("linear", COMPOSITE),
        ("addr", NO_PRODUCT),
    ],
)
def test_ways(name, way):
    assert handling_of(getattr(torch.ops.aten, name).default).way == way


def test_operations_in_place_and_with_out_go_the_same_way():
    aten = torch.ops.aten
    assert handling_of(aten.addmm_.default).way == handling_of(aten.mm.out).way == PRODUCT
    assert handling_of(aten.addmm_.default).writes == ("self",)
    assert handling_of(aten.mm.out).writes == ("out",)


def test_namespaces():
    for namespace in ("quantized", "mkldnn", "onednn"):
        assert {handling_of(func).way for func in overloads_of(namespace)} <= {REFUSED, COMPOSITE}
    assert {handling_of(func).way for func in overloads_of("prims")} == {NO_PRODUCT}


def test_no_name_stands_on_both_sides():
    named = {name for entry in ENTRIES if entry.namespace == "aten" for name in entry.names}
    assert not named & NO_PRODUCT_NAMES


def test_the_document_is_current():
    """`python -m workloads.capturing.operation_table > docs/operations.md` writes it."""
    assert DOCUMENT.read_text() == markdown()
