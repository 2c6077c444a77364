"""Differences that are multiplied and added: Riera, CBInfer's fine form, DeltaCNN, Diffy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import (
    AddressList,
    ConfigError,
    DifferenceUnit,
    Dram,
    Reconstructor,
    ResultAdder,
    SramBuffer,
    preset,
)
from simulator import (
    Decisions,
    Differences,
    FineChanges,
    PerforationReuse,
    PerLayer,
    PositionDifferences,
    QuantisedDifferences,
    SpatialDifferences,
    Together,
    decide_stream,
    effectual_bits,
    incremental,
    load_memory,
    remembered_bytes,
    save_memory,
    simulate,
)
from simulator.decisions.columns import ColumnDecisions
from simulator.policies.activations import Activations
from simulator.policies.spatial_differences import packed_bits
from simulator.running.executor import execute
from simulator.running.product import product
from simulator.testing.reference import reference_macs, reference_product
from simulator.timing.engines.engine import COMPILED
from simulator.timing.layer import LayerTiming
from simulator.timing.pipeline import Run, layer_timing, stages_of
from simulator.timing.remaining import Remaining
from simulator.timing.remembering import with_room
from simulator.timing.tiling import tilings
from tests.builders import buffer, convolution_layer, matrix_layer, roomy_design
from workloads import Quantisation, capture
from workloads.traces.layer import Gemm, Layer

UNITS = {
    "difference_unit": DifferenceUnit(lanes=16, latency_cycles=4),
    "result_adder": ResultAdder(width=16),
}
DESIGN = roomy_design(**UNITS, dram=Dram(bandwidth_bytes_per_cycle=65536, burst_bytes=16))
RANGE = {"low": np.zeros(1, np.float32), "high": np.full(1, 31, np.float32)}


def run(policy, layer, frames, weights, state=None, memory=None):
    """What becomes of frames in a row, each a batch."""
    found = []
    for frame in frames:
        made = execute(
            policy,
            layer,
            Activations(layer, np.asarray(frame, np.float32)),
            state or {},
            memory,
            lambda: weights,
            wants_result=True,
            centroids=True,
        )
        memory = made.memory
        found.append(made)
    return found


def random_frames(layer, frames, seed=0, changed=0.2):
    """Frames of a few integers of which a fifth changes from one to the next."""
    rng = np.random.default_rng(seed)
    found = [rng.integers(-3, 4, layer.input_shape)]
    for _ in range(frames - 1):
        moves = rng.random(layer.input_shape) < changed
        found.append(np.where(moves, rng.integers(-3, 4, layer.input_shape), found[-1]))
    return [each.astype(np.float32) for each in found]


def test_two_levels_of_four_take_half_of_the_products_and_weights():
    # Riera's rule by hand: k = 4, n = 3, two levels changed: 6 products and 6 weights, not 12.
    layer = matrix_layer("fc", m=1, n=3, k=4)
    weights = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    frames = [[[[1, 2, 3, 4]]], [[[1.3, 5, 2.8, 0]]], [[[1.1, 5.2, 3, 0.4]]]]
    first, second, third = run(QuantisedDifferences(levels=32), layer, frames, weights, RANGE)
    assert [each.decisions.macs for each in (first, second, third)] == [12, 6, 0]
    # Levels (1, 2, 3, 4), then (1, 5, 3, 0): + 3 w[1] - 4 w[3].
    np.testing.assert_array_equal(first.result[0, 0], [60, 70, 80])
    np.testing.assert_array_equal(second.result[0, 0], [60 + 9 - 36, 70 + 12 - 40, 80 + 15 - 44])
    np.testing.assert_array_equal(third.result, second.result)
    byte = replace(DESIGN, dram=Dram(bandwidth_bytes_per_cycle=65536, burst_bytes=1))
    moved = [layer_timing(layer, each.decisions, byte).dram_bytes for each in (second, third)]
    assert [each["weights"] for each in moved] == [6, 0]


def test_values_beyond_the_range_take_the_last_level_and_zero_is_one():
    layer = matrix_layer("fc", m=1, n=1, k=3)
    state = {"low": np.float32([-1.0]), "high": np.float32([2.0])}
    policy = QuantisedDifferences(levels=4)  # -1, 0, 1, 2
    made = policy.decide(layer, np.float32([[[-9, 0.4, 7]]]), state)
    np.testing.assert_array_equal(made.rows.differences, [[[-1, 0, 2]]])
    assert policy.remembered_bits == 2


@pytest.mark.parametrize(
    "policy",
    [
        FineChanges(threshold=0.0),
        PositionDifferences(threshold=0.0, refresh=5),
        QuantisedDifferences(levels=256),
        SpatialDifferences(),
    ],
)
def test_sums_of_integers_stay_those_of_dense_bit_for_bit(policy):
    layer = replace(
        convolution_layer(size=(5, 6), kernel=(3, 3), padding=(1, 1)),
        quantisation=Quantisation(scale=0.5, zero_point=0),
    )
    weights = np.random.default_rng(1).integers(-127, 128, (1, 36, 3)).astype(np.float32)
    state = {"low": np.float32([-6]), "high": np.float32([6])}
    frames = [0.5 * each for each in random_frames(layer, 12)]
    for frame, made in zip(frames, run(policy, layer, frames, weights, state), strict=True):
        dense = Activations(layer, frame).rows @ weights
        np.testing.assert_array_equal(made.result, dense)
        assert made.decisions.macs == reference_macs(made.decisions) <= layer.gemm.macs
        np.testing.assert_array_equal(
            reference_product(made.decisions, Activations(layer, frame).rows, weights), dense
        )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "policy",
    [
        FineChanges(threshold=1.5),
        PositionDifferences(threshold=4.5),
        QuantisedDifferences(levels=4),
        FineChanges(threshold=1.5, images="streams"),
        SpatialDifferences(),
    ],
)
def test_pixels_are_told_as_their_windows(policy, groups):
    # As they are stored, and unfolded: the same decisions.
    layer = convolution_layer(
        size=(5, 4), kernel=(3, 2), stride=(2, 1), padding=(1, 0), groups=groups, images=2
    )
    state = {"low": np.float32([-3]), "high": np.float32([3])}
    memories = [None, None]
    for frame in random_frames(layer, 3):
        given = Activations(layer, frame)
        (one, first), (other, second) = (
            policy.decide_given(layer, given, state, memories[0]),
            policy.decide_next(layer, given.rows, state, memories[1]),
        )
        memories = [first, second]
        for name in ("differences", "marks", "anew"):
            np.testing.assert_array_equal(getattr(one.rows, name), getattr(other.rows, name))
        assert one.rows.lag == other.rows.lag


def test_frames_of_one_batch_are_those_of_many():
    one = convolution_layer(size=(4, 5), kernel=(3, 3), padding=(1, 1))
    four = convolution_layer(size=(4, 5), kernel=(3, 3), padding=(1, 1), images=4)
    weights = np.random.default_rng(2).standard_normal((1, 36, 3)).astype(np.float32)
    frames = random_frames(one, 8)
    policy = FineChanges(threshold=2.0, refresh=3)
    alone = run(policy, one, frames, weights)
    whole = [np.concatenate(frames[:4]), np.concatenate(frames[4:])]
    together = run(policy, four, whole, weights)
    np.testing.assert_allclose(
        np.concatenate([each.result for each in together], axis=1),
        np.concatenate([each.result for each in alone], axis=1),
        1e-5,
        1e-5,
    )
    counts = np.concatenate([each.decisions.rows.terms[0] for each in together])
    np.testing.assert_array_equal(
        counts, np.concatenate([each.decisions.rows.terms[0] for each in alone])
    )
    # Frames 0, 3 and 6 are computed from nothing.
    anew = [bool(each.decisions.rows.anew.all()) for each in alone]
    assert anew == [True, False, False, True, False, False, True, False]


def test_images_that_are_streams_are_compared_with_their_own():
    layer = matrix_layer("fc", m=2, n=2, k=3, row_images=2)
    frames = [[[[1, 2, 3], [7, 8, 9]]]] * 2
    weights = np.ones((1, 3, 2), np.float32)
    for images, left in (("streams", [12, 0]), ("frames", [12, 12])):
        made = run(FineChanges(threshold=0.0, images=images), layer, frames, weights)
        assert [each.decisions.macs for each in made] == left
        np.testing.assert_array_equal(made[1].result[0], [[6, 6], [24, 24]])


def test_one_changed_pixel_is_met_by_nine_rows():
    layer = convolution_layer(size=(7, 7), kernel=(3, 3), padding=(1, 1))
    frames = [np.zeros((1, 4, 7, 7), np.float32) for _ in range(3)]
    frames[1][0, 2, 3, 3] = 1
    frames[2][0, 2, 3, 3] = 1
    frames[2][0, 1, 0, 0] = 1
    weights = np.ones((1, 36, 3), np.float32)
    _, middle, corner = run(PositionDifferences(threshold=0.5), layer, frames, weights)
    assert middle.decisions.rows.is_computed.sum() == 9 and middle.decisions.macs == 9 * 3
    assert corner.decisions.rows.is_computed.sum() == 4 and corner.decisions.macs == 4 * 3


def test_slow_changes_are_not_lost():
    # Feedback: each frame moves by half of the threshold; every third passes on what has grown.
    layer = matrix_layer("fc", m=1, n=1, k=4)
    weights = np.ones((1, 4, 1), np.float32)
    ramp = [np.full((1, 1, 4), 0.25 * step, np.float32) for step in range(9)]
    for policy in (FineChanges(threshold=0.5), PositionDifferences(threshold=0.5)):
        made = run(policy, layer, ramp, weights)
        results = np.array([each.result.item() for each in made])
        assert [each.decisions.macs for each in made] == [4, 0, 0, 4, 0, 0, 4, 0, 0]
        assert np.abs(results - np.arange(9)).max() <= 0.5 * 4


def test_a_result_errs_by_no_more_than_the_threshold_times_its_weights():
    layer = convolution_layer(size=(6, 6), kernel=(3, 3))
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((1, 36, 3)).astype(np.float32)
    frames = np.cumsum(rng.standard_normal((30, 1, 4, 6, 6)) * 0.1, axis=0).astype(np.float32)
    bound = 0.3 * np.abs(weights).sum(axis=1) + 1e-4
    for policy in (FineChanges(threshold=0.3), PositionDifferences(threshold=0.3)):
        for frame, made in zip(frames, run(policy, layer, frames, weights), strict=True):
            dense = Activations(layer, frame).rows @ weights
            assert (np.abs(made.result - dense) <= bound).all()


def test_rounding_grows_in_floating_point_until_the_next_refresh():
    layer = matrix_layer("fc", m=4, n=8, k=32)
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((1, 32, 8)).astype(np.float32)
    frames = rng.standard_normal((101, 1, 4, 32)).astype(np.float32) * 100

    def errors(refresh):
        made = run(FineChanges(threshold=0.0, refresh=refresh), layer, frames, weights)
        dense = [Activations(layer, frame).rows @ weights for frame in frames]
        return [np.abs(x.result - y).max() for x, y in zip(made, dense, strict=True)]

    never, often = errors(None), errors(10)
    assert often[100] == often[10] == 0  # those are dense
    assert np.mean(never[91:100]) > 2 * np.mean(often[91:100]) > 0
    assert max(never) < 1e-4 * np.abs(frames @ weights).max()


@pytest.mark.parametrize(("padding", "lines"), [(0, 1), (1, 3)])
def test_an_image_that_is_constant_along_lines_leaves_the_first_window(padding, lines):
    # Without padding one window of each line; with it the first, the second and the last differ.
    layer = convolution_layer(size=(6, 7), kernel=(3, 3), padding=(padding, padding))
    picture = np.random.default_rng(5).standard_normal((1, 4, 6, 1)).astype(np.float32)
    weights = np.random.default_rng(6).standard_normal((1, 36, 3)).astype(np.float32)
    frame = np.broadcast_to(picture, (1, 4, 6, 7))
    (made,) = run(SpatialDifferences(), layer, [frame], weights)
    height, width = layer.output_shape[2:]
    computed = made.decisions.rows.is_computed.reshape(height, width)
    assert computed.sum(axis=1).tolist() == [lines] * height
    if not padding:
        assert made.decisions.remaining_ratio == 1 / width
    np.testing.assert_allclose(made.result, Activations(layer, frame).rows @ weights, 1e-5, 1e-5)


def test_lines_are_packed_in_the_bits_that_their_differences_need():
    # 5, then nothing: 16 of 4 bits (a sign) and 4 that say so; then 3 zeros of no bits, and 4.
    assert packed_bits(np.full((1, 19), 5)) == 16 * 4 + 4 + 4
    # 0, 1, -1: in two's complement 2 bits and 1 bit; the widest is 2.
    assert packed_bits(np.array([[0, 1, 0]])) == 3 * 2 + 4
    assert packed_bits(np.zeros((2, 3, 16), int)) == 2 * 3 * 4
    # -4 fits 3 bits, 4 takes 4.
    assert packed_bits(np.array([[-4]])) == 3 + 4 and packed_bits(np.array([[4]])) == 4 + 4


def test_packed_inputs_load_fewer_bytes():
    layer = replace(
        convolution_layer(size=(16, 16), kernel=(3, 3), padding=(1, 1)),
        quantisation=Quantisation(scale=1.0, zero_point=0),
    )
    smooth = np.broadcast_to(np.arange(16, dtype=np.float32) * 4, (1, 4, 16, 16))
    weights = np.ones((1, 36, 3), np.float32)
    (made,) = run(SpatialDifferences(), layer, [smooth], weights)
    # Differences 0, then 4: 4 bits each and 4 a line.
    assert made.decisions.evidence.stored_bits == 64 * (16 * 4 + 4)
    timing = layer_timing(layer, made.decisions, DESIGN)
    assert timing.dram_bytes["inputs"] == 64 * (16 * 4 + 4) // 8 < layer.input_elements
    assert "remembered_inputs" not in timing.dram_bytes  # of no frame before


def test_effectual_bits_are_signed_digits():
    # 7 = 8 - 1, 5 = 4 + 1, -6 = -8 + 2, 0.
    assert effectual_bits(np.array([7, 5, -6, 0])) == (2 + 2 + 2 + 0) / 4
    assert effectual_bits(np.array([128, -1, 85])) == (1 + 1 + 4) / 3


def one_row(elements: int, n: int = 16) -> Decisions:
    """A row of 64 elements of which the first few differ."""
    gemm = Gemm(m=1, n=n, k=64)
    differences = np.zeros((1, 1, 64), np.float32)
    differences[..., :elements] = 1
    rows = incremental(gemm, differences, np.zeros((1, 1), bool), lag=1)
    return Decisions(layer="fc", gemm=gemm, rows=rows, evidence=Differences(quantises=True))


def test_a_row_of_few_differences_by_hand():
    layer = matrix_layer("fc", m=1, n=16, k=64)
    dense, few, none = (
        layer_timing(layer, each, DESIGN) for each in (None, one_row(16), one_row(0))
    )
    # A cycle to load, 64 / 16 cycles to compare and 4 until they are marked, a fold of 16 rows of
    # weights, 2 x 16 + 16 + 1 - 2 = 47, a cycle to add 16 sums, a cycle to store; dense: 4 folds.
    assert few.cycles == 1 + 4 + 4 + 47 + 1 + 1
    assert dense.cycles == 1 + 4 * 47 + 1
    assert few.macs == few.actions["array", "mac"] == 16 * 16
    assert few.dram_bytes["weights"] == 16 * 16 and dense.dram_bytes["weights"] == 64 * 16
    assert few.busy_cycles["difference_unit"] == 4 and few.busy_cycles["result_adder"] == 1
    assert few.actions["difference_unit", "subtract"] == 64
    assert few.actions["difference_unit", "mark"] == 8
    # Remembered: 64 inputs in and out; 16 sums of 32 bits, in and out if they change.
    assert few.dram_bytes["remembered_inputs"] == 2 * 64
    assert few.dram_bytes["remembered_sums"] == 2 * 64
    assert none.macs == none.busy_cycles["array"] == none.dram_bytes["weights"] == 0
    assert none.dram_bytes["remembered_sums"] == 0 and none.dram_bytes["kept_results"] == 16
    assert none.cycles < few.cycles


def test_weights_of_an_element_take_whole_bursts():
    layer = matrix_layer("fc", m=1, n=16, k=64)
    design = replace(DESIGN, dram=Dram(bandwidth_bytes_per_cycle=65536, burst_bytes=64))
    assert layer_timing(layer, one_row(16), design).dram_bytes["weights"] == 64 * 16
    assert layer_timing(layer, one_row(8), design).dram_bytes["weights"] == 8 * 64


def in_one_tile(layer: Layer, decisions: Decisions) -> LayerTiming:
    """The timing of a layer that is not cut."""
    left = Remaining.of(layer, decisions)
    many = tilings(left, DESIGN)
    whole = next(t for t in map(many.one, range(len(many.rows))) if t.rows == layer.gemm.m)
    stages = stages_of(left, DESIGN, COMPILED)
    return Run(left, DESIGN, COMPILED, stages, whole.tiles(left)).timing()


def rows_of(differences: np.ndarray, n: int) -> Decisions:
    gemm = Gemm(m=differences.shape[1], n=n, k=differences.shape[2])
    anew = np.zeros((1, gemm.m), bool)
    rows = incremental(gemm, differences.astype(np.float32), anew, lag=gemm.m)
    return Decisions(layer="fc", gemm=gemm, rows=rows, evidence=Differences())


def test_scattered_differences_save_no_cycle_and_whole_rows_or_elements_do():
    layer = matrix_layer("fc", m=64, n=16, k=64)
    rng = np.random.default_rng(7)
    scattered = rng.random((1, 64, 64)) < 0.25
    rows, elements = np.zeros((2, 1, 64, 64), bool)
    rows[:, :16], elements[:, :, :16] = True, True
    everything = rows_of(np.ones((1, 64, 64)), 16)
    found = {
        name: in_one_tile(layer, rows_of(each, 16))
        for name, each in (("scattered", scattered), ("rows", rows), ("elements", elements))
    }
    whole = in_one_tile(layer, everything)
    assert found["scattered"].busy_cycles["array"] == whole.busy_cycles["array"]
    assert found["scattered"].macs == scattered.sum() * 16
    assert found["rows"].macs == found["elements"].macs == 16 * 64 * 16
    # Four folds of 2 x 16 + 16 + 16 - 2 = 62; one of 2 x 16 + 16 + 64 - 2 = 110.
    assert found["rows"].busy_cycles["array"] == 4 * 62
    assert found["elements"].busy_cycles["array"] == 110


def test_a_first_frame_takes_at_least_dense_cycles():
    layer = convolution_layer(size=(8, 8), kernel=(3, 3), padding=(1, 1), n=20)
    frame = np.random.default_rng(8).standard_normal((1, 4, 8, 8))
    weights = np.ones((1, 36, 20), np.float32)
    for design in (DESIGN, preset("difference_16x16")):
        for policy in (FineChanges(threshold=9.0), SpatialDifferences()):
            (made,) = run(policy, layer, [frame], weights)
            reused = layer_timing(layer, made.decisions, design)
            assert reused.cycles >= layer_timing(layer, None, design).cycles


def test_what_is_remembered_lies_on_the_chip_where_it_fits():
    layers = [matrix_layer(name, m=1, n=16, k=64) for name in ("a", "b", "c")]
    made = [(layer, replace(one_row(16), layer=layer.name)) for layer in layers]
    # 64 inputs of 8 bits and 16 sums of 32.
    assert [remembered_bytes(*each, DESIGN) for each in made] == [128] * 3
    roomy = replace(DESIGN, state_buffer=SramBuffer(capacity_bytes=256, width_bits=128))
    placed = with_room(made, roomy)
    assert [each.rows.on_chip for _, each in placed] == [True, True, False]
    timing = layer_timing(*placed[0], roomy)
    assert "remembered_sums" not in timing.dram_bytes
    assert timing.actions["state_buffer", "read_byte"] == 128
    assert timing.actions["state_buffer", "write_byte"] == 128
    levels = replace(made[0][1], evidence=Differences(remembered_bits=5, quantises=True))
    assert remembered_bytes(layers[0], levels, DESIGN) == 64 * 5 // 8 + 64


class Tiny(nn.Module):
    """A convolution, a residual one, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.second(x))
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny().eval()


def street(frames: int) -> list[torch.Tensor]:
    """A bright square that moves over a still picture."""
    generator = torch.Generator().manual_seed(1)
    still = torch.rand(1, 3, 6, 6, generator=generator)
    found = []
    for step in range(frames):
        frame = still.clone()
        frame[:, :, 1:3, step % 5 : step % 5 + 2] = 1
        found.append(frame)
    return found


@pytest.mark.parametrize(
    "policy",
    [
        FineChanges(threshold=0.02),
        PositionDifferences(threshold=0.02),
        QuantisedDifferences(levels=256, refresh=3),
    ],
)
def test_a_stream_runs_a_model_and_goes_on_from_its_memory(tiny, policy, tmp_path):
    traces = [capture(tiny, frame) for frame in [*street(4), *street(4)[3:]]]
    runs = list(decide_stream(traces, policy, model=tiny))
    macs = [sum(each.macs for each in made.decisions.values()) for made in runs]
    assert macs[0] == sum(layer.gemm.macs for layer in traces[0].layers)
    assert max(macs[1:3]) < macs[0]
    if policy.refresh is None:
        assert macs[4] == 0  # the same frame again
    for made in runs:
        assert max(made.relative_mse.values()) < 0.01
    save_memory(runs[1].memory, tmp_path / "memory")
    resumed = decide_stream(traces[2:], policy, model=tiny, memory=load_memory(tmp_path / "memory"))
    for straight, again in zip(runs[2:], resumed, strict=True):
        assert straight.output_mse == again.output_mse
        assert {n: d.macs for n, d in straight.decisions.items()} == {
            n: d.macs for n, d in again.decisions.items()
        }


def test_a_stream_is_simulated_on_the_ready_design(tiny):
    design = preset("difference_16x16")
    traces = [capture(tiny, frame) for frame in street(3)]
    runs = list(decide_stream(traces, QuantisedDifferences(levels=32), model=tiny))
    reports = [simulate(trace, design, made) for trace, made in zip(traces, runs, strict=True)]
    first, *later = (each.reuse for each in reports)
    # All that is remembered fits the state buffer.
    assert "remembered_sums" not in first.dram_bytes
    assert first.cycles >= reports[0].dense.cycles
    assert all(sum(each.energy_pj.values()) < sum(first.energy_pj.values()) for each in later)
    away = replace(design, state_buffer=None)
    assert simulate(traces[1], away, runs[1]).reuse.dram_bytes["remembered_sums"] > 0


def test_positions_that_a_mask_leaves_are_added_to_earlier_results(tiny):
    # The same positions in every frame: each is compared with itself.
    policy = PerLayer(
        {
            "first": Together(PerforationReuse(computed=0.5), FineChanges(threshold=0.0)),
            "*": FineChanges(threshold=0.0),
        }
    )
    mask_alone = PerLayer({"first": PerforationReuse(computed=0.5)})
    traces = [capture(tiny, frame) for frame in street(3)]
    both, masked = (list(decide_stream(traces, each, model=tiny)) for each in (policy, mask_alone))
    for one, other in zip(both, masked, strict=True):
        assert one.output_mse == pytest.approx(other.output_mse, 1e-3)
    assert both[0].decisions["first"].macs == masked[0].decisions["first"].macs
    assert 0 < both[2].decisions["first"].macs < both[0].decisions["first"].macs
    design = replace(
        preset("difference_16x16"),
        address_list=AddressList(entries=64),
        reconstructor=Reconstructor(),
    )
    # What is decided on rows that another technique left is remembered as all else is.
    report = simulate(traces[2], design, both[2])
    assert "remembered_sums" not in report.reuse.dram_bytes
    away = simulate(traces[2], replace(design, state_buffer=None), both[2])
    assert away.reuse.dram_bytes["remembered_sums"] > 0
    with pytest.raises(ConfigError, match="must leave rows for which IncrementalRows have"):
        wrong = Together(FineChanges(threshold=0.0), PositionDifferences(threshold=0.0))
        list(decide_stream(traces, PerLayer({"first": wrong}), model=tiny))


def test_attention_and_lines_of_no_picture_are_left_alone():
    layer = replace(matrix_layer("fc", m=2, n=2, k=2), weights_are_parameters=False)
    assert not FineChanges(threshold=0.1).applies_to(layer)
    with pytest.raises(ConfigError, match="two-dimensional convolutions, got fc"):
        SpatialDifferences().check_layers([layer])


def test_what_has_no_meaning_is_refused():
    layer, made = matrix_layer("fc", m=1, n=16, k=64), one_row(4)
    with pytest.raises(ConfigError, match="add differences to whole results"):
        replace(made, columns=ColumnDecisions(gemm=made.gemm, sources=np.arange(16)[None]))
    with pytest.raises(ConfigError, match="must hold the differences and those results"):
        product(made.without_operands(), None, np.ones((1, 64, 16), np.float32))
    with pytest.raises(ConfigError, match="must have difference_unit, result_adder to run"):
        layer_timing(layer, made, roomy_design())
    plain = replace(DESIGN, difference_unit=DifferenceUnit(quantises=False))
    with pytest.raises(ConfigError, match=r"difference_unit\.quantises must be True for levels"):
        layer_timing(layer, made, plain)
    tight = replace(DESIGN, output_buffer=buffer(2 * 2 * 16 * 4 - 64))
    with pytest.raises(ConfigError, match="and of what is made of them, got 192; use 256"):
        layer_timing(layer, made, tight)
    with pytest.raises(ConfigError) as error:
        replace(made.rows, lag=2, anew=np.zeros(3, bool), marks=np.zeros((1, 8, 1)))
    assert [each.split(" must")[0] for each in error.value.violations] == [
        "IncrementalRows.lag",
        "IncrementalRows.anew",
        "IncrementalRows.marks",
    ]
    with pytest.raises(ConfigError, match="whose source is no row of this batch"):
        replace(made.rows, keeps=False)


def test_a_memory_of_other_frames_is_refused():
    layer, other = (matrix_layer("fc", m=1, n=2, k=k) for k in (4, 5))
    weights = np.ones((1, 4, 2), np.float32)
    (made,) = run(FineChanges(threshold=0.1), layer, [np.ones((1, 1, 4))], weights)
    with pytest.raises(ConfigError, match="must hold inputs of shape"):
        run(FineChanges(threshold=0.1), other, [np.ones((1, 1, 5))], weights, memory=made.memory)
    broken = {**made.memory, "results": made.memory["results"][..., :1]}
    with pytest.raises(ConfigError, match=r"must hold float32 results of shape .*\(1, 1, 2\)"):
        run(FineChanges(threshold=0.1), layer, [np.ones((1, 1, 4))], weights, memory=broken)
