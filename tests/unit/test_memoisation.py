"""Memoised multiplications and weights of few values, by hand and on a small network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelerators import ConfigError, cost_table
from simulator import RememberedProducts, multiply_memoisation, techniques
from simulator.analysis.memoisation import FLOAT32_MULTIPLY_PJ, lookup_pj, pair_counts
from simulator.policies.activations import Activations
from workloads import capture, digits, few_valued, quantise, trained_cifarnet
from workloads.errors import TraceError


@pytest.fixture(scope="module")
def trace():
    """A quantised network on two digits."""
    images = digits("test").take(2).images
    return capture(quantise(trained_cifarnet("digits")[0], images), images)


def test_the_model_of_one_multiplication():
    table = RememberedProducts(entries=4, hit_rate=0.25, lookup_pj=0.1, multiply_pj=0.2)
    assert table.energy_pj == pytest.approx(0.1 + 0.75 * 0.2)
    assert table.break_even_pj == 0.05 and not table.pays
    assert RememberedProducts(entries=4, hit_rate=0.6, lookup_pj=0.1, multiply_pj=0.2).pays


def test_pairs_are_counted_as_in_plain_loops(trace):
    total = np.zeros((256, 256), np.int64)
    for layer in trace.layers:
        rows = Activations(layer, trace.given(layer.name)).rows[0]
        activations = np.rint(rows + layer.quantisation.zero_point).astype(int)
        weights = trace.weights(layer.name)[0]
        steps = np.rint(weights / np.abs(weights).max(axis=0) * 127).astype(int) + 127
        for element in range(layer.gemm.k):
            for weight, times in zip(*np.unique(steps[element], return_counts=True), strict=True):
                values, counts = np.unique(activations[:, element], return_counts=True)
                total[values, weight] += times * counts
    found = pair_counts(trace)
    np.testing.assert_array_equal(found, total)
    assert found.sum() == sum(layer.gemm.macs for layer in trace.layers)


def test_a_look_up_is_the_cheaper_of_two():
    table = cost_table("horowitz_2014_45nm")
    # Four keys of 16 bits compared, and 16 bits read from a register.
    compared = 4 * table.energy_pj("comparator", "compare", bits=16)
    compared += table.energy_pj("register", "read", bits=16)
    assert lookup_pj(4, 8, table) == pytest.approx(compared)
    # 65,536 keys and products of 16 bits each: one read of 256 KiB.
    read = table.energy_pj("sram", "read", size_bytes=2**18, width_bits=32)
    read += table.energy_pj("comparator", "compare", bits=16)
    assert lookup_pj(2**16, 8, table) == pytest.approx(read)


@pytest.mark.parametrize("technology", ["horowitz_2014_45nm", "hwcomponents_45nm"])
def test_int8_at_45_nm_can_not_pay(trace, technology):
    # Even if every pair were found: one key compared and a product read from a register take about
    # as much as Horowitz's 0.2 pJ for an 8-bit multiplication; a table with all of them far more.
    found = multiply_memoisation(trace, technology=technology, entries=(1, 4, 64, 4096, 65536))
    rates = [each.hit_rate for each in found.tables]
    assert rates == sorted(rates) and rates[-1] == 1
    assert not any(each.pays for each in found.tables)
    assert "can't pay" in found.verdict and "would have to take" in found.verdict
    assert found.pairs <= 2**16


def test_what_would_have_to_be_true_of_floats(trace):
    found = multiply_memoisation(trace, operands="float32")
    for each in found.tables:
        assert each.multiply_pj == FLOAT32_MULTIPLY_PJ
        assert each.pays == (each.lookup_pj < each.hit_rate * FLOAT32_MULTIPLY_PJ)
    with pytest.raises(ConfigError, match="operands must be one of 'int8', 'float32'"):
        multiply_memoisation(trace, operands="int4")


def test_a_trace_of_floats_has_no_pairs_to_count():
    images = digits("test").take(1).images
    with pytest.raises(ConfigError, match="must have a quantised layer with weights"):
        multiply_memoisation(capture(trained_cifarnet("digits")[0], images))
    assert techniques()["multiply_memoisation"].policy is None


def test_pairs_of_wide_operands_are_not_counted(trace):
    first = trace.layers[0]
    wide = replace(first, quantisation=replace(first.quantisation, bits=9))
    with pytest.raises(ConfigError, match="8 bits or fewer, got 9"):
        pair_counts(replace(trace, layers=(wide, *trace.layers[1:])))


def test_weights_have_few_values_and_0_is_one():
    network = trained_cifarnet("digits")[0]
    before = [each.clone() for each in network.state_dict().values()]
    images = digits("test").take(200).images
    for values in (2, 5, 17):
        few = few_valued(network, values)
        for name, given in few.named_parameters():
            if given.ndim > 1:
                found = given.unique()
                assert len(found) <= values and 0 in found, name
            else:
                assert torch.equal(given, network.get_parameter(name))
    # As it was, with other weights; and 17 values are enough for digits.
    assert all(map(torch.equal, before, network.state_dict().values()))
    with torch.no_grad():
        agree = few(images).argmax(1) == network(images).argmax(1)
    assert agree.float().mean() > 0.9
    # Clustered weights keep their few values in 8 bits, column by column.
    column = quantise(few, images).get_parameter("conv1.weight")[0]
    assert len(column.unique()) <= 17
    with pytest.raises(TraceError, match=r"values must be an integer from 2 to 256, got 1"):
        few_valued(network, 1)


def test_a_layer_of_one_weight_stays():
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    assert torch.equal(few_valued(layer, 3).weight, layer.weight)
