"""Memories and reuse units as large as tiles need them."""

from dataclasses import replace

import numpy as np
import pytest

from accelerators import ConfigError, preset
from simulator import (
    Decisions,
    DepthDecisions,
    LshReuse,
    NoReuse,
    PerLayer,
    VirtualPooling,
    fitted_design,
)
from simulator.testing.examples import conv_layer
from simulator.timing.pipeline import layer_timing
from tests.builders import matrix_layer

KIB = 1024
# 512 rows of 64 elements by 64 columns, in four tiles of 128 rows.
LAYER = matrix_layer("linear", 512, 64, 64)
POLICY = LshReuse(hashes=20, length=32, scope="tile", tile_rows=128)


def test_every_memory_holds_a_tile_twice():
    design = fitted_design(preset("reuse_16x16"), [LAYER], POLICY, columns=32)
    # A tile loads 128 x 64 bytes, twice: 16 KiB.
    assert design.activation_buffer.capacity_bytes == 16 * KIB
    # All weights, 64 x 64 bytes, or twice those of 32 columns: 4 KiB.
    assert design.weight_buffer.capacity_bytes == 4 * KIB
    # 128 rows x 32 sums of 4 bytes, twice: 32 KiB.
    assert design.output_buffer.capacity_bytes == 32 * KIB
    # 96 of 128 centroids of 32 bytes and 32 results of 4, and ids of 8 bits: 2 x 15,488 bytes.
    assert design.centroid_buffer.capacity_bytes == 32 * KIB


def test_units_keep_up_with_the_array():
    design = fitted_design(preset("reuse_16x16"), [LAYER], POLICY, columns=32)
    # A vector takes the array 0.75 x ceil(32 / 16) x ceil(32 / 16) = 3 cycles: 7 of 20 hashes each.
    front_end = design.front_end
    assert (front_end.max_hashes, front_end.max_length, front_end.lanes) == (7, 32, 1)
    # 32 bytes in three cycles: no wider than the array's 16.
    assert design.activation_buffer.width_bits == 16 * 8
    cache = design.cache
    assert (cache.entries, cache.ways, cache.clear_entries_per_cycle) == (128, 8, 8)
    # A row takes 32 sums a vector, in 3 cycles: 16 a cycle.
    assert (design.reconstructor.ports, design.reconstructor.width) == (1, 16)
    # A centroid is read, what the first of two folds left of its result is read, and it is written.
    assert design.centroid_buffer.ports == 3
    assert (design.output_buffer.width_bits, design.output_buffer.ports) == (16 * 32, 2)


def test_short_products_want_several_lanes():
    wide = replace(preset("reuse_32x32"), accumulator_bits=24)
    design = fitted_design(wide, [LAYER], replace(POLICY, length=8), columns=16)
    # 0.75 x 1 x 1 cycles a vector: two lanes, each with all hashes, a bank for each.
    front_end = design.front_end
    assert (front_end.lanes, front_end.max_hashes, design.cache.banks) == (2, 20, 2)
    assert design.activation_buffer.ports == 2
    # 16 sums in 0.75 cycles.
    assert design.reconstructor.width * design.reconstructor.ports == 32


def test_dense_layers_are_fitted_too_and_units_stay_away():
    design = fitted_design(preset("dense_16x16"), [LAYER], NoReuse())
    assert not design.has_reuse
    # 4 x 32 rows of 16 sums of 4 bytes, twice; and of 64 inputs, twice.
    assert design.output_buffer.capacity_bytes == 16 * KIB
    assert design.activation_buffer.capacity_bytes == 16 * KIB
    # Twice 64 x 16 bytes of weights.
    assert design.weight_buffer.capacity_bytes == 2 * KIB


def test_images_do_not_make_memories_larger():
    one = fitted_design(preset("reuse_16x16"), [LAYER], POLICY)
    many = replace(LAYER, gemm=replace(LAYER.gemm, m=2048), input_shape=(2048, 64))
    many = replace(many, output_shape=(2048, 64), images=4, row_images=4)
    assert fitted_design(preset("reuse_16x16"), [many], POLICY) == one


def test_columns_are_counted():
    with pytest.raises(ConfigError, match=r"columns must be an integer of at least 1, got 0"):
        fitted_design(preset("reuse_16x16"), [LAYER], POLICY, columns=0)


def test_units_keep_up_with_what_remains():
    one = fitted_design(preset("reuse_16x16"), [LAYER], POLICY, columns=32, remaining=0.25)
    # A vector takes the array 0.25 x 2 x 2 cycles: all hashes at once, 32 sums a cycle.
    assert one.front_end.max_hashes == 20
    assert one.reconstructor.ports * one.reconstructor.width == 32
    # 32 of 128 centroids and their results, and ids: 2 x 5,248 bytes.
    assert one.centroid_buffer.capacity_bytes == 16 * KIB
    with pytest.raises(ConfigError, match=r"remaining must be above 0 and at most 1, got 0"):
        fitted_design(preset("reuse_16x16"), [LAYER], POLICY, remaining=0)


def test_a_port_is_no_wider_than_the_columns_of_a_pass():
    design = fitted_design(
        preset("reuse_32x32"), [LAYER], replace(POLICY, length=8), columns=8, remaining=0.25
    )
    # 8 sums a row in 0.25 cycles, of a row a port.
    assert (design.reconstructor.ports, design.reconstructor.width) == (4, 8)
    assert design.centroid_buffer.ports == 4


@pytest.mark.parametrize("name", ["lanes_16x16", "tables_16x16"])
def test_units_that_work_by_themselves_have_banks_of_their_own(name):
    given = preset(name)
    design = fitted_design(given, [LAYER], NoReuse())
    for buffer in ("activation_buffer", "weight_buffer", "output_buffer"):
        fitted, ready = getattr(design, buffer), getattr(given, buffer)
        assert (fitted.ports, fitted.width_bits) == (ready.ports, ready.width_bits)
        assert fitted.capacity_bytes >= fitted.bytes_per_cycle
    # Four times as many units, but no more banks than a buffer may have.
    large = fitted_design(
        replace(given, array=replace(given.array, rows=32, columns=32)), [LAYER], NoReuse()
    )
    weights = 32 if given.lanes is None else 1024 // 4
    assert large.activation_buffer.ports == 1024
    assert (large.weight_buffer.ports, large.output_buffer.ports) == (weights, 32)


def test_lanes_are_as_fast_with_fitted_buffers():
    given = preset("lanes_16x16")
    terms = np.random.default_rng(0).integers(0, 65, (1, 512, 64)).astype(np.int32)
    depth = DepthDecisions(gemm=LAYER.gemm, terms=terms)
    made = Decisions(layer=LAYER.name, gemm=LAYER.gemm, depth=depth)
    fitted = fitted_design(given, [LAYER], NoReuse())
    buffers = ("activation_buffer", "weight_buffer", "output_buffer")
    roomy = replace(
        fitted,
        **{
            name: replace(getattr(fitted, name), capacity_bytes=getattr(given, name).capacity_bytes)
            for name in buffers
        },
    )
    cycles = [layer_timing(LAYER, made, each).cycles for each in (roomy, given)]
    assert cycles[0] == cycles[1]


def test_units_that_pass_over_inputs_keep_up_with_what_is_left():
    base = replace(
        preset("difference_16x16"),
        change_detector=preset("change_32x32").change_detector,
        frame_differencer=preset("gated_16x16").frame_differencer,
        motion_estimator=preset("motion_32x32").motion_estimator,
        channel_gate=preset("columns_16x16").channel_gate,
    )
    design = fitted_design(base, [LAYER], NoReuse())
    # 0.75 x 512 x 64 x 64 / 256 = 6,144 cycles for 512 x 64 values: six a cycle, a power of two.
    assert design.change_detector.lanes == design.channel_gate.lanes == 8
    assert (design.change_detector.line_bits, design.change_detector.marks) == (1, 512)
    # Marks are of every row and element, 512 x 64 bits, a byte a lane: fewer than the values.
    assert design.difference_unit.lanes == 8
    assert design.result_adder.width == 16
    assert design.channel_gate.channels == 64
    # 512 x 64 inputs of a byte and as many sums of 4: 160 KiB; a row of 16 sums on each port.
    held = design.state_buffer
    assert (held.capacity_bytes, held.width_bits, held.ports) == (256 * KIB, 512, 2)
    # 25.6 bytes of DRAM a cycle.
    assert design.frame_differencer.lanes == 32
    assert design.motion_estimator.adders == 64
    # Half of the work takes the array half of the time.
    half = fitted_design(base, [LAYER], NoReuse(), remaining=0.375)
    assert half.change_detector.lanes == 16


def test_lanes_have_banks_of_their_own():
    design = fitted_design(preset("predictor_lanes_16x16"), [LAYER], NoReuse())
    ready = preset("predictor_lanes_16x16")
    for name in ("activation_buffer", "weight_buffer", "output_buffer"):
        fitted, known = getattr(design, name), getattr(ready, name)
        assert (fitted.ports, fitted.width_bits) == (known.ports, known.width_bits)
    assert design.sum_predictor.multipliers == 16 and design.sum_predictor.thresholds == 64
    # More banks than a buffer has can't be asked for.
    many = replace(ready, array=replace(ready.array, rows=64, columns=64))
    assert fitted_design(many, [LAYER], NoReuse()).activation_buffer.ports == 1024


def test_rows_that_are_filled_in_find_their_ports():
    """The fitted design hands them out no slower than the one that it is fitted to."""
    layer = conv_layer(images=1, channels=16, size=(24, 24), n=32)
    rows = np.zeros((1, layer.gemm.m, layer.gemm.k), np.float32)
    made = VirtualPooling(stride=2).decide(layer, rows, {})
    base = preset("every_64x64")
    fitted = fitted_design(base, [layer], PerLayer({layer.name: VirtualPooling(stride=2)}))
    buffer, unit = fitted.output_buffer, base.reconstructor
    # A result is read and one written on each of the reconstructor's ports, as wide as they are.
    assert buffer.bytes_per_cycle >= 2 * unit.ports * unit.width * base.accumulator_bits // 8
    ratio = layer_timing(layer, made, fitted).cycles / layer_timing(layer, made, base).cycles
    assert ratio < 1.2
