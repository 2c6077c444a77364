"""Bits that partial sums of int8 products need, from the data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ConfigError, preset
from simulator import LeaderReuse, LshReuse, NoReuse, bits_of_sums, decide, simulate
from simulator.running.sums import check_sums, most_bits
from tests.builders import matrix_layer
from tests.unit.test_technique_space import LAYERS, conv
from workloads import TraceError, capture
from workloads.traces.trace import WorkloadTrace, _graph

NARROW = replace(preset("dense_16x16"), accumulator_bits=16)


def captured(weight, rows):
    """A linear layer with these weights, `(n, k)`, on these rows."""
    weight, rows = torch.tensor(weight), torch.tensor(rows)
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(weight)
    return capture(nn.Sequential(model), rows)


def captured_convolution():
    torch.manual_seed(0)
    model = nn.Conv2d(8, 6, 3, padding=1, bias=False).eval()
    return capture(nn.Sequential(model), torch.randn(1, 8, 6, 6))


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
    check_sums(trace, NARROW, known={("fc",): 16})
    check_sums(trace, replace(NARROW, operand_bits=16, accumulator_bits=32))


def test_the_largest_layer_is_named():
    layers = (LAYERS[1], conv("largest", 32, 32, 8))
    trace = WorkloadTrace(layers=layers, graph=_graph(layers, []), images=2)
    with pytest.raises(ConfigError, match=r"layer 'largest' and 1 more, which need 19 bits"):
        check_sums(trace, NARROW, known={("stage1.0",): 17, ("largest",): 19})


def test_parts_of_rows_may_add_up_to_more_than_any_row():
    """16 rows, each large in a part of its own: representatives of parts may all be large."""
    rows = np.zeros((16, 32), np.float32)
    for row in range(16):
        rows[row, 2 * row : 2 * row + 2] = 1
    trace = captured(np.ones((1, 32), np.float32), rows)
    # Of a row 2 x 127 x 127 = 32,258: 16 bits. Of parts 16 times that: 20 bits.
    run = decide(trace, LshReuse(hashes=1, length=2, scope="batch"))
    assert bits_of_sums(trace) == {"0": 16}
    assert bits_of_sums(trace, run.decisions) == {"0": 20}
    whole = decide(trace, LshReuse(hashes=1, length=32, scope="batch"))
    assert bits_of_sums(trace, whole.decisions) == {"0": 16}
    narrow = replace(preset("reuse_16x16"), accumulator_bits=16)
    with pytest.raises(ConfigError, match="need 20 bits"):
        check_sums(trace, narrow, run.decisions)
    with pytest.raises(ConfigError, match="need 20 bits"):
        simulate(trace, narrow, run)
    check_sums(trace, narrow, whole.decisions)


def test_parts_are_cut_as_they_are_looked_at():
    """Of a pixel that is looked at once, tap by tap; the bound is the largest of each part."""
    trace = captured_convolution()
    run = decide(trace, LeaderReuse(tolerance=0.5, length=4, look_once=True, order="channels_last"))
    (layer,) = trace.layers
    (rows,), (weights,) = trace.rows(layer.name), trace.weights(layer.name)
    a = np.rint(np.abs(rows) * (127 / np.abs(rows).max()))
    w = np.rint(np.abs(weights) * (127 / np.abs(weights).max(axis=0)))
    by_tap = np.arange(layer.gemm.k).reshape(8, 9)  # (channel, tap)
    parts = [by_tap[half : half + 4, tap] for tap in range(9) for half in (0, 4)]
    bound = sum((a[:, part] @ w[part]).max(axis=0) for part in parts).max()
    assert bits_of_sums(trace, run.decisions) == {layer.name: 1 + np.ceil(np.log2(bound + 1))}


def test_without_tensors_parts_have_a_bit_more_than_rows():
    ones = np.ones((3, 64), np.float32)
    trace = captured(ones, ones)
    run = decide(trace, LshReuse(hashes=1, length=8, scope="batch"))
    bare = WorkloadTrace(layers=trace.layers, graph=trace.graph, images=trace.images)
    assert bits_of_sums(bare, run.decisions, known={("0",): 17}) == {"0": 18}
    with pytest.raises(TraceError):
        bits_of_sums(bare, run.decisions)
