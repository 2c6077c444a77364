"""Shapes are checked when they are made; messages name the rule, the value and the fix."""

from __future__ import annotations

import dataclasses
import json

import pytest

from workloads import Convolution, Gemm, Layer, TraceError

CONV2 = Layer(
    name="conv2",
    kind="conv",
    gemm=Gemm(m=25_600, n=64, k=1_600),
    images=100,
    row_images=100,
    convolution=Convolution(kernel=(5, 5), stride=(1, 1), padding=(2, 2), dilation=(1, 1)),
    input_shape=(100, 64, 16, 16),
    output_shape=(100, 64, 16, 16),
    weights_are_parameters=True,
)


def test_macs_and_elements_of_cifarnet_conv2():
    assert CONV2.gemm.macs == 25_600 * 1_600 * 64
    assert dataclasses.replace(CONV2.gemm, count=3).macs == 3 * CONV2.gemm.macs
    assert CONV2.input_elements == 100 * 64 * 16 * 16


def test_output_size():
    # (7 + 2*1 - 2*(3-1) - 1)//2 + 1 = 3; (8 + 0 - 1*(2-1) - 1)//1 + 1 = 7
    convolution = Convolution(kernel=(3, 2), stride=(2, 1), padding=(1, 0), dilation=(2, 1))
    assert convolution.output_size((7, 8)) == (3, 7)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None, float("nan")])
def test_gemm_takes_positive_whole_numbers(value):
    with pytest.raises(
        TraceError, match=r"Gemm.m must be a whole number of at least 1, got .*; give"
    ):
        Gemm(m=value, n=1, k=1)


def test_all_violations_are_reported_together():
    with pytest.raises(TraceError) as caught:
        Gemm(m=0, n=1, k=-2)
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(TraceError) as caught:
        Convolution(kernel=(0,), stride=(1,), padding=(-1,), dilation=(1,), groups=0)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, r"Layer\[''\].name must be a non-empty text"),
        ({"kind": "dense"}, "kind must be one of conv, .*got 'dense'"),
        ({"row_images": 7}, "row_images must divide gemm.m=25600, got 7; use 1"),
        ({"images": 0}, "images must be a whole number of at least 1, got 0"),
        ({"convolution": None}, "convolution must be given for conv"),
        ({"kind": "linear"}, "convolution must be given for conv"),
        ({"gemm": Gemm(m=25_600, n=64, k=1_601)}, r"must be \(25600, 64, 1600, 1\).*derive"),
        ({"output_shape": (100, 64, 15, 16)}, r"gemm \(m, n, k, count\) must be"),
        ({"input_shape": (100, 64, 16)}, "must have 4 dimensions"),
        ({"input_shape": (100, 64, 0, 16)}, "must hold sizes of at least 1"),
        ({"gemm": (1, 2, 3)}, "gemm must be a Gemm"),
    ],
)
def test_layer_rules(change, message):
    with pytest.raises(TraceError, match=message):
        dataclasses.replace(CONV2, **change)


def test_different_dimensions_are_refused():
    with pytest.raises(TraceError, match=r"as many dimensions as kernel=\(3, 3\)"):
        Convolution(kernel=(3, 3), stride=(1,), padding=(0, 0), dilation=(1, 1))


def test_layer_survives_json():
    assert Layer.from_dict(json.loads(json.dumps(CONV2.to_dict()))) == CONV2
    plain = dataclasses.replace(CONV2, kind="linear", convolution=None)
    assert Layer.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain


@pytest.mark.parametrize("damage", [{"extra": 1}, {"gemm": {}}, {"gemm": None}])
def test_wrong_descriptions_are_refused(damage):
    with pytest.raises(TraceError, match=r"must have the fields name, kind, .*; capture"):
        Layer.from_dict({**CONV2.to_dict(), **damage})
