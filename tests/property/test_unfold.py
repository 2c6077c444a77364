"""Unfolded rows are what the definition of a convolution reads, element by element."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import Convolution, TraceError
from workloads.traces.unfold import ORDERS, k_major, unfold


@st.composite
def geometries(draw):
    """A convolution of one to three dimensions and images that it fits."""
    dims = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, padding, dilation = sizes(1, 3), sizes(1, 3), sizes(0, 2), sizes(1, 2)
    groups = draw(st.integers(1, 3))
    size = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 6))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    convolution = Convolution(
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    shape = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), *size)
    images = np.random.default_rng(draw(st.integers(0, 9))).standard_normal(shape)
    return convolution, images.astype(np.float32)


def read(image: np.ndarray, at: tuple[int, ...]) -> float:
    """One element, zero outside the image."""
    inside = all(0 <= a < size for a, size in zip(at, image.shape, strict=True))
    return float(image[at]) if inside else 0.0


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_every_element_is_the_one_the_definition_reads(case):
    convolution, images = case
    batch, channels, *size = images.shape
    output = convolution.output_size(tuple(size))
    per_group = channels // convolution.groups
    rows = unfold(images, convolution)
    last = unfold(images, convolution, order="channels_last")
    taps = list(itertools.product(*map(range, convolution.kernel)))
    positions = list(itertools.product(*map(range, output)))
    assert rows.shape == last.shape
    assert rows.shape == (convolution.groups, batch * len(positions), per_group * len(taps))
    assert rows.transpose(0, 2, 1).flags.c_contiguous and last.transpose(0, 2, 1).flags.c_contiguous
    for group, (b, (p, at)), (c, (t, tap)) in itertools.product(
        range(convolution.groups),
        itertools.product(range(batch), enumerate(positions)),
        itertools.product(range(per_group), enumerate(taps)),
    ):
        place = tuple(
            o * s + t * d - p
            for o, s, t, d, p in zip(
                at, convolution.stride, tap, convolution.dilation, convolution.padding, strict=True
            )
        )
        expected = read(images[b, group * per_group + c], place)
        row = b * len(positions) + p
        assert rows[group, row, c * len(taps) + t] == expected
        assert last[group, row, t * per_group + c] == expected


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_every_input_is_read_as_often_as_kernel_and_stride_say(case):
    """Unit stride, full padding: each element appears once per tap, so sums agree."""
    convolution, images = case
    full = Convolution(
        kernel=convolution.kernel,
        stride=(1,) * len(convolution.kernel),
        padding=tuple(
            d * (k - 1) for k, d in zip(convolution.kernel, convolution.dilation, strict=True)
        ),
        dilation=convolution.dilation,
        groups=convolution.groups,
    )
    rows = unfold(np.abs(images), full)
    taps = math.prod(convolution.kernel)
    assert rows.sum(dtype=np.float64) == pytest.approx(
        taps * np.abs(images).sum(dtype=np.float64), rel=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 300), st.integers(1, 20)),
    st.sampled_from(["C", "k_major", "sliced", "float64"]),
)
def test_k_major_keeps_values(shape, memory):
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if memory == "k_major":
        rows = np.ascontiguousarray(rows.transpose(0, 2, 1)).transpose(0, 2, 1)
    elif memory == "sliced":
        rows = np.repeat(rows, 2, axis=1)[:, ::2]
    elif memory == "float64":
        rows = rows.astype(np.float64)
    result = k_major(rows)
    assert (result == rows).all() and result.dtype == np.float32
    assert result.transpose(0, 2, 1).flags.c_contiguous
    if memory == "k_major":
        assert np.shares_memory(result, rows)


def test_unfold_refuses_what_does_not_fit():
    convolution = Convolution(kernel=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    with pytest.raises(TraceError, match=r"must have 4 dimensions .*got shape \(2, 3, 5\); give"):
        unfold(np.zeros((2, 3, 5)), convolution)
    with pytest.raises(TraceError, match=r"cover the kernel \(3, 3\), got shape \(1, 1, 2, 5\)"):
        unfold(np.zeros((1, 1, 2, 5)), convolution)
    with pytest.raises(TraceError, match=f"order must be one of {', '.join(ORDERS)}, got 'nhwc'"):
        unfold(np.zeros((1, 1, 5, 5)), convolution, order="nhwc")
