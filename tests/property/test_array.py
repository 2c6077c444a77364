"""What must hold for a product on any array, whatever its dataflow and fold timing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerators import DATAFLOWS, FOLD_TIMINGS, SystolicArray
from simulator.timing.dataflows.dataflow import dataflow_of, gemm_cycles
from simulator.timing.transfers import ceil_div


def folds(array, m, n, k):
    """How often the array takes a new stationary tile."""
    return dataflow_of(array).folds(array, m, n, k)


# Small numbers, and for sizes some sides' multiples, so that folds are full, partial and alone.
sides = st.one_of(st.integers(1, 8), st.integers(1, 300), st.just(4096))
sizes = st.one_of(st.integers(1, 24), st.integers(1, 3000), st.sampled_from([4095, 4096, 4097]))
products = st.tuples(sizes, sizes, sizes)
arrays = st.builds(
    SystolicArray,
    rows=sides,
    columns=sides,
    dataflow=st.sampled_from(DATAFLOWS),
    fold_timing=st.sampled_from(FOLD_TIMINGS),
)
small_arrays = st.builds(
    SystolicArray,
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    dataflow=st.sampled_from(DATAFLOWS),
    fold_timing=st.sampled_from(FOLD_TIMINGS),
)
small_products = st.tuples(*[st.integers(1, 13)] * 3)
cases = st.one_of(st.tuples(arrays, products), st.tuples(small_arrays, small_products))


def total(array: SystolicArray, m, n, k):
    """Cycles of a product alone, to its last result."""
    occupancy, latency = gemm_cycles(array, m, n, k)
    return occupancy + latency


@given(cases)
def test_no_faster_than_every_unit_busy(case):
    array, (m, n, k) = case
    occupancy, latency = gemm_cycles(array, m, n, k)
    assert occupancy >= ceil_div(m * n * k, array.rows * array.columns)
    assert latency >= 0
    assert folds(array, m, n, k) >= 1
    assert occupancy >= folds(array, m, n, k)


@given(cases, st.integers(0, 2), st.one_of(st.integers(1, 4), st.integers(1, 500)))
def test_a_larger_product_is_never_faster(case, grown, more):
    array, product = case
    larger = list(product)
    larger[grown] += more
    assert total(array, *larger) >= total(array, *product)
    # The latency alone may fall: a longer last fold hides more of it.
    assert gemm_cycles(array, *larger)[0] >= gemm_cycles(array, *product)[0]
    assert folds(array, *larger) >= folds(array, *product)


def operands(array: SystolicArray, product) -> tuple[int, int, int, int]:
    """Of a product: along rows, along columns, streamed; and cycles to load all rows."""
    m, n, k = product
    return {
        "weight_stationary": (k, n, m, array.rows),
        "output_stationary": (m, n, k, 0),
        "input_stationary": (k, m, n, array.rows),
    }[array.dataflow]


@given(cases)
def test_overlapped_folds_are_never_slower(case):
    array, product = case
    sequential = replace(array, fold_timing="sequential")
    overlapped = replace(array, fold_timing="overlapped")
    along_rows, _, streamed, load = operands(array, product)
    longest, drained = gemm_cycles(sequential, *product)
    assert drained == 0
    assert gemm_cycles(overlapped, *product)[0] <= longest
    # A product's last fold also waits for the next product's tile, where that takes longer than
    # its own operand streams: it delays a fold that is alone, more folds save more than that.
    waits = max(0, min(load, along_rows) - streamed) if folds(array, *product) == 1 else 0
    assert total(overlapped, *product) <= longest + waits


@given(arrays, sizes)
def test_one_full_fold_takes_as_long_in_either_timing(array, streamed):
    rows, columns = array.rows, array.columns
    product = {
        "weight_stationary": (streamed, columns, rows),
        "output_stationary": (rows, columns, streamed),
        "input_stationary": (columns, streamed, rows),
    }[array.dataflow]
    load = operands(array, product)[3]
    # Load, stream, skew.
    expected = load + streamed + rows + columns - 2
    assert folds(array, *product) == 1
    assert total(replace(array, fold_timing="sequential"), *product) == expected
    overlapped = total(replace(array, fold_timing="overlapped"), *product)
    assert expected <= overlapped <= expected + max(0, load - streamed)


@given(small_arrays, small_products)
def test_overlapped_folds_one_by_one(array, product):
    # What the closed form adds up: each fold by itself, in order.
    array = replace(array, fold_timing="overlapped")
    along_rows, along_columns, streamed, load = operands(array, product)
    occupancy = 0
    for _ in range(0, along_columns, array.columns):
        for start in range(0, along_rows, array.rows):
            used = min(array.rows, along_rows - start)
            occupancy += max(streamed, used if load else 0)
    assert gemm_cycles(array, *product)[0] == occupancy


@given(cases)
def test_weights_and_inputs_trade_places_by_transposition(case):
    array, (m, n, k) = case
    weights = replace(array, dataflow="weight_stationary")
    inputs = replace(array, dataflow="input_stationary")
    assert gemm_cycles(weights, m, n, k) == gemm_cycles(inputs, n, m, k)
    assert folds(weights, m, n, k) == folds(inputs, n, m, k)


@given(cases)
def test_outputs_transpose_with_the_array(case):
    array, (m, n, k) = case
    upright = replace(array, dataflow="output_stationary", fold_timing="sequential")
    turned = replace(upright, rows=array.columns, columns=array.rows)
    assert gemm_cycles(upright, m, n, k) == gemm_cycles(turned, n, m, k)


@given(arrays, st.lists(products, min_size=1, max_size=6))
def test_arrays_equal_their_scalars(array, several):
    m, n, k = np.array(several, np.int64).T
    occupancy, latency = gemm_cycles(array, m, n, k)
    expected = [gemm_cycles(array, *product) for product in several]
    assert occupancy.tolist() == [pair[0] for pair in expected]
    assert np.broadcast_to(latency, occupancy.shape).tolist() == [pair[1] for pair in expected]
    assert occupancy.dtype == np.int64
    assert folds(array, m, n, k).tolist() == [folds(array, *product) for product in several]


@given(arrays, products, st.lists(sizes, min_size=1, max_size=4))
def test_rows_and_columns_broadcast(array, product, rows):
    # As tiles of a layer do: rows along one axis, columns along the other, k alone.
    _, n, k = product
    columns = np.array([n, n + 1])[None, :]
    occupancy, latency = gemm_cycles(array, np.array(rows)[:, None], columns, k)
    shape = (len(rows), 2)
    grid = np.broadcast_to(occupancy, shape), np.broadcast_to(latency, shape)
    for i, m in enumerate(rows):
        for j in range(2):
            expected = gemm_cycles(array, m, n + j, k)
            assert (grid[0][i, j], grid[1][i, j]) == expected


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("fold_timing", FOLD_TIMINGS)
@given(
    side=st.sampled_from([1, 16, 256, 4096]),
    exponents=st.tuples(*[st.integers(0, 40)] * 3).filter(lambda e: sum(e) <= 48),
)
def test_huge_sizes_fit_64_bits(dataflow, fold_timing, side, exponents):
    # Products of up to 2^48 multiply-accumulates, the most that a topology may ask for.
    array = SystolicArray(rows=side, columns=side, dataflow=dataflow, fold_timing=fold_timing)
    product = [2**exponent for exponent in exponents]
    exact = gemm_cycles(array, *product)
    assert exact[0] < 2**63
    occupancy, latency = gemm_cycles(array, *np.array(product, np.int64)[:, None])
    assert int(occupancy[0]) == exact[0]
    assert int(np.broadcast_to(latency, (1,))[0]) == exact[1]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("fold_timing", FOLD_TIMINGS)
def test_one_array_stands_for_many(dataflow, fold_timing):
    # The search for a dense design of equal area gives arrays of rows and columns.
    rows, columns, m = np.array([4, 16, 33]), np.array([8, 16, 5]), np.array([7, 100, 40])
    kind = {"dataflow": dataflow, "fold_timing": fold_timing}
    many = gemm_cycles(SystolicArray(rows=rows, columns=columns, **kind), m, 50, 70)
    for i in range(3):
        one = SystolicArray(rows=int(rows[i]), columns=int(columns[i]), **kind)
        found = tuple(int(np.broadcast_to(part, 3)[i]) for part in many)
        assert found == gemm_cycles(one, int(m[i]), 50, 70)
