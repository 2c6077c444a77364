"""Every rule of `workloads.rules`: what it keeps, and what it says of the rest."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from workloads import TraceError
from workloads.rules import (
    LARGEST_LAYER,
    flag,
    instance_of,
    integer,
    keep_fields,
    kept_by,
    number,
    one_of,
    problems,
    true_of,
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    left: int = field(metadata=integer(1))
    right: int = field(default=0, metadata=integer(0, 9))
    free: object = None

    def __post_init__(self):
        keep_fields(self, "Pair", TraceError)


def said_of(rule, value):
    return problems("f.", {"x": value}, {"x": rule})


def test_fields_are_kept_as_pythons_own_types():
    pair = Pair(left=np.int64(3), right=np.uint8(9), free=np.int64(1))
    assert (type(pair.left), pair.left) == (int, 3)
    assert (type(pair.right), pair.right) == (int, 9)
    assert isinstance(pair.free, np.int64)  # it has no rule


def test_all_broken_fields_are_told_together():
    with pytest.raises(TraceError) as caught:
        Pair(left=0, right=10)
    assert str(caught.value).splitlines() == [
        "Pair.left must be a whole number of at least 1, got 0; use 1",
        "Pair.right must be an integer from 0 to 9, got 10; use 0",
    ]


@pytest.mark.parametrize(
    ("rule", "value", "said"),
    [
        (integer(1), True, "be a whole number of at least 1, got True; use 1"),
        (integer(1), 2.0, "be a whole number of at least 1, got 2.0; use 1"),
        (integer(1), LARGEST_LAYER + 1, f"be a whole number of at most {LARGEST_LAYER}, got"),
        (integer(1, fix="give it"), None, "got None; give it"),
        (number(fix="use 0"), float("nan"), "be a finite number >= 0, got nan; use 0"),
        (number(fix="use 0"), float("inf"), "be a finite number >= 0, got inf; use 0"),
        (number(above=0, fix="use 1"), 0, "be a finite number above 0, got 0; use 1"),
        (number(below=1, fix="use 0"), 1, "be a finite number >= 0 and below 1, got 1; use 0"),
        (number(fix="use 0"), True, "got True; use 0"),
        (one_of(("adam", "sgd")), "adamm", "be one of adam, sgd, got 'adamm'; use 'adam'"),
        (one_of(("adam", "sgd")), 3, "be one of adam, sgd, got 3; use one of these"),
        (flag(), 1, "be True or False, got 1; use one of these"),
        (instance_of(Pair), None, "be a Pair, got None; use Pair(left=..., right=..., free=...)"),
        (instance_of(Pair, optional=True, fix="make one"), 1, "be a Pair or None, got 1; make one"),
        (true_of(str.isupper, "be loud", "shout"), "no", "be loud, got 'no'; shout"),
        (kept_by({1: 2}.get, "be 1", "use 1"), 3, "be 1, got 3; use 1"),
    ],
)
def test_a_message_tells_path_rule_value_and_fix(rule, value, said):
    (message,) = said_of(rule, value)
    assert message.startswith("f.x must ") and said in message


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (integer(0), 0),
        (integer(1), LARGEST_LAYER),
        (number(fix=""), 0.0),
        (number(above=0, fix=""), 1e-300),
        (number(below=1, fix=""), 0),
        (one_of(("adam", "sgd")), "sgd"),
        (flag(), np.False_),
        (instance_of(Pair, optional=True), None),
        (kept_by({1: 2}.get, "", ""), 1),
    ],
)
def test_what_is_right_is_told_nothing_of(rule, value):
    assert said_of(rule, value) == []
