"""Bits that partial sums of int8 products need, from the data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ConfigError, preset
from simulator import NoReuse, bits_of_sums, simulate
from simulator.running.sums import check_sums, most_bits
from tests.builders import matrix_layer
from tests.unit.test_technique_space import LAYERS, conv
from workloads import capture
from workloads.traces.trace import WorkloadTrace, _graph

NARROW = replace(preset("dense_16x16"), accumulator_bits=16)


def captured(weight, rows):
    """A linear layer with these weights, `(n, k)`, on these rows."""
    weight, rows = torch.tensor(weight), torch.tensor(rows)
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(weight)
    return capture(nn.Sequential(model), rows)


def test_bits_are_those_of_the_largest_sum_of_magnitudes():
    # Scaled to 127: |w| is 127, 127 and 127, 64 (of 1 and 0.5); the row is 127, 127.
    trace = captured([[2.0, -2.0], [1.0, 0.5]], [[3.0, 3.0], [0.0, 0.0]])
    # 2 x 127 x 127 = 32,258 needs 1 + ceil(log2(32,259)) = 16 bits, signs or not.
    assert bits_of_sums(trace) == {"0": 16}
    check_sums(trace, NARROW)


def test_bits_are_no_fewer_than_any_running_sum_needs():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 40)).astype(np.float32)
    weight = rng.standard_normal((7, 40)).astype(np.float32)
    trace = captured(weight, rows)
    a = np.rint(rows * (127 / np.abs(rows).max()))
    w = np.rint(weight * (127 / np.abs(weight).max(axis=1, keepdims=True)))
    running = np.abs(np.cumsum(a[:, None] * w[None], axis=2)).max()
    (bits,) = bits_of_sums(trace).values()
    assert 1 + np.ceil(np.log2(running + 1)) <= bits <= most_bits(trace.layers[0])


def test_sums_that_overflow_are_refused():
    ones = np.ones((3, 64), np.float32)
    trace = captured(ones, ones)  # 64 x 127 x 127 = 1,032,256: 1 + 20 bits
    with pytest.raises(
        ConfigError,
        match=r"hold the sums of layer '0', which need 21 bits .* got "
        r"16; use 24 or more",
    ):
        simulate(trace, NARROW, NoReuse())
    simulate(trace, replace(NARROW, accumulator_bits=24), NoReuse())


def test_what_holds_any_sum_needs_no_data():
    layers = (matrix_layer("fc", 4, 8, 512),)
    trace = WorkloadTrace(layers=layers, graph=_graph(layers, []), images=1)
    check_sums(trace, replace(NARROW, accumulator_bits=24))  # 1 + ceil(log2(512 x 16,129 + 1))
    with pytest.raises(ConfigError, match=r"of which no activations tell .* use 24, which holds"):
        check_sums(trace, NARROW)
    check_sums(trace, NARROW, {"fc": 16})
    check_sums(trace, replace(NARROW, operand_bits=16, accumulator_bits=32))


def test_the_largest_layer_is_named():
    layers = (LAYERS[1], conv("largest", 32, 32, 8))
    trace = WorkloadTrace(layers=layers, graph=_graph(layers, []), images=2)
    with pytest.raises(ConfigError, match=r"layer 'largest' and 1 more, which need 19 bits"):
        check_sums(trace, NARROW, {"stage1.0": 17, "largest": 19})
