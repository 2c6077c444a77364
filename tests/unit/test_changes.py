"""Change-based inference: the positions that change, their results, and what hardware pays."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ChangeDetector, ConfigError, SramBuffer, preset
from simulator import (
    AnsweredRegions,
    ChangedPositions,
    Changes,
    Decisions,
    LeaderReuse,
    PerLayer,
    Together,
    decide,
    decide_stream,
    load_memory,
    remembered_bytes,
    save_memory,
    simulate,
    tuned_changes,
)
from simulator.decisions.rows import KeptRows
from simulator.pages.simulation_page import simulation_html
from simulator.policies.activations import Activations
from simulator.policies.patches import map_of, read_by, touched
from simulator.policies.reaching import positions_for
from simulator.policies.surroundings import Surroundings
from simulator.running.executor import Executed, execute
from simulator.testing.examples import conv_layer, example_weights
from simulator.testing.reference import reference_product
from simulator.timing.pipeline import layer_timing
from simulator.timing.remembering import with_room
from tests.builders import matrix_layer, roomy_design
from workloads import capture
from workloads.traces.layer import Convolution, Gemm, Layer

FORMS = ("feedback", "copy")


def batch(policy, layer: Layer, frames: np.ndarray, memory=None) -> Executed:
    """Some frames of a stream; weights are whole numbers, so that sums are exact in any order."""
    return execute(
        policy,
        layer,
        Activations(layer, frames),
        {},
        memory,
        lambda: np.rint(3 * example_weights(layer)),
        wants_result=True,
        centroids=True,
    )


def dense(layer: Layer, frames: np.ndarray) -> np.ndarray:
    return np.matmul(Activations(layer, frames).rows, np.rint(3 * example_weights(layer)))


def whole_frames(layer: Layer, seed: int, images: int) -> np.ndarray:
    """Frames of whole numbers in a row, each with some places unlike the one before."""
    rng = np.random.default_rng(seed)
    frames = [rng.integers(-4, 5, layer.input_shape[1:])]
    for _ in range(images - 1):
        moved = rng.random(layer.input_shape[2:]) < 0.03
        frames.append(np.where(moved, rng.integers(-4, 5, frames[0].shape), frames[-1]))
    return np.stack(frames).astype(np.float32)


def strided_layer(kernel, stride, padding, dilation, groups=1, size=(9, 11), channels=4):
    """A convolution of any geometry over one image."""
    geometry = Convolution(
        kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    made = geometry.output_size(size)
    taps = kernel[0] * kernel[1]
    return Layer(
        name="conv",
        kind="conv",
        gemm=Gemm(m=made[0] * made[1], n=2, k=channels // groups * taps, count=groups),
        images=1,
        row_images=1,
        convolution=geometry,
        input_shape=(1, channels, *size),
        output_shape=(1, 2 * groups, *made),
        weights_are_parameters=True,
    )


GEOMETRIES = {
    "same": strided_layer((3, 3), (1, 1), (1, 1), (1, 1)),
    "strided": strided_layer((3, 3), (2, 2), (1, 1), (1, 1)),
    "stem": strided_layer((7, 7), (2, 2), (3, 3), (1, 1)),
    "dilated": strided_layer((3, 3), (1, 1), (2, 2), (2, 2)),
    "unpadded": strided_layer((3, 2), (1, 1), (0, 0), (1, 1)),
    "point": strided_layer((1, 1), (2, 2), (0, 0), (1, 1)),
    "groups": strided_layer((3, 3), (1, 2), (1, 0), (1, 1), groups=2),
}
geometries = pytest.mark.parametrize("layer", GEOMETRIES.values(), ids=GEOMETRIES)


@geometries
def test_a_map_comes_back_from_its_patches(layer):
    frames = np.random.default_rng(0).standard_normal(layer.input_shape).astype(np.float32)
    rows = Activations(layer, frames).rows
    seen = read_by(layer, np.ones((1, *layer.output_shape[2:]), bool))
    np.testing.assert_array_equal(map_of(layer, rows)[:, 0], frames[0] * seen[0])
    # A place is read by the rows in which it is not 0.
    for place in ((0, 0), (4, 6), (8, 10)):
        alone = np.zeros_like(frames)
        alone[:, :, *place] = 1
        changed = np.zeros((1, 9, 11), bool)
        changed[:, *place] = True
        expected = Activations(layer, alone).rows.any(axis=(0, 2))
        np.testing.assert_array_equal(touched(layer, changed)[0], expected)


@geometries
@pytest.mark.parametrize("form", FORMS)
def test_threshold_0_is_dense_in_every_bit(layer, form):
    frames, memory, work = whole_frames(layer, 1, 6), None, 0
    for frame in frames[:, None]:
        made = batch(ChangedPositions(threshold=0, form=form), layer, frame, memory)
        np.testing.assert_array_equal(made.result, dense(layer, frame))
        memory, work = made.memory, work + made.decisions.macs
    assert layer.gemm.macs < work < 6 * layer.gemm.macs
    again = batch(ChangedPositions(threshold=0, form=form), layer, frames[-1:], memory)
    assert again.decisions.macs == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", [0, 2])
def test_frames_of_a_batch_are_as_one_after_the_other(form, threshold):
    policy = ChangedPositions(threshold=threshold, form=form)
    layer, frames = conv_layer(images=1, size=(6, 7)), None
    frames, memory, results, kept = whole_frames(layer, 2, 6), None, [], []
    for frame in frames[:, None]:
        made = batch(policy, layer, frame, memory)
        memory = made.memory
        results.append(made.result)
        kept.append(made.decisions.rows.kept)
    half = conv_layer(images=3, size=(6, 7))
    first = batch(policy, half, frames[:3])
    second = batch(policy, half, frames[3:], first.memory)
    np.testing.assert_array_equal(
        np.concatenate([first.result, second.result], axis=1), np.concatenate(results, axis=1)
    )
    np.testing.assert_array_equal(
        np.concatenate([first.decisions.rows.kept, second.decisions.rows.kept], axis=1),
        np.concatenate(kept, axis=1),
    )
    np.testing.assert_array_equal(second.memory["reference"], memory["reference"])
    for each, given in ((first, frames[:3]), (second, frames[3:])):
        rows = Activations(half, given).rows
        slow = reference_product(each.decisions, rows, np.rint(3 * example_weights(half)))
        np.testing.assert_array_equal(each.result, slow)


def convolutions(count: int, channels: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(count))
    ).eval()


@pytest.mark.parametrize(
    ("place", "rows"), [((5, 5), [9, 25, 49]), ((0, 0), [4, 9, 16]), ((0, 5), [6, 15, 28])]
)
def test_a_pixel_spreads_from_layer_to_layer(place, rows):
    network = convolutions(3)
    frames = torch.randn(1, 2, 11, 11, generator=torch.Generator().manual_seed(0))
    frames = frames.repeat(3, 1, 1, 1)
    frames[1:, 1, *place] += 1  # the last two frames are the same
    for policy in (ChangedPositions(threshold=0, form=form) for form in FORMS):
        runs = decide_stream(
            [capture(network, each[None]) for each in frames], policy, model=network
        )
        computed = [[made.rows.computed_rows for made in run.decisions.values()] for run in runs]
        assert computed == [[121] * 3, rows, [0] * 3]
        (at_once,) = decide_stream([capture(network, frames)], policy, model=network)
        total = [made.rows.computed_rows for made in at_once.decisions.values()]
        assert total == [121 + each for each in rows]
        assert at_once.output_mse < 1e-12  # PyTorch adds in another order


def test_what_is_multiplied_is_within_the_threshold_of_what_came():
    layer, threshold = conv_layer(images=1, size=(8, 8)), 0.3
    rng, memory = np.random.default_rng(3), None
    frame = rng.standard_normal(layer.input_shape).astype(np.float32)
    bound = threshold * np.abs(np.rint(3 * example_weights(layer))).sum(axis=1, keepdims=True)
    kept = 0
    for _ in range(12):
        frame = frame + rng.normal(0, 0.15, frame.shape).astype(np.float32)
        made = batch(ChangedPositions(threshold=threshold), layer, frame, memory)
        memory, kept = made.memory, kept + made.decisions.rows.kept.sum()
        assert (np.abs(made.result - dense(layer, frame)) <= bound * (1 + 1e-5)).all()
        assert np.abs(frame[0] - memory["reference"]).max() <= threshold
    assert kept > 0


def test_a_slow_ramp_escapes_copies_and_not_feedback():
    layer, step = conv_layer(images=1, channels=1, size=(5, 5)), 0.25
    errors: dict[str, list[float]] = {form: [] for form in FORMS}
    computed: dict[str, list[int]] = {form: [] for form in FORMS}
    for form in FORMS:
        memory = None
        for number in range(20):
            frame = np.full(layer.input_shape, number * step, np.float32)
            made = batch(ChangedPositions(threshold=2 * step, form=form), layer, frame, memory)
            memory = made.memory
            errors[form].append(float(np.abs(made.result - dense(layer, frame)).max()))
            computed[form].append(made.decisions.rows.computed_rows)
    assert computed["copy"] == [25] + [0] * 19
    # Each frame adds the same to the error, for ever.
    np.testing.assert_allclose(np.diff(errors["copy"]), errors["copy"][1], rtol=1e-5)
    # Two steps are not more than the threshold, three are.
    assert computed["feedback"] == [25 * (number % 3 == 0) for number in range(20)]
    assert max(errors["feedback"]) <= 2 * errors["copy"][1] * (1 + 1e-6)


def test_all_that_moves_is_computed():
    layer = conv_layer(images=1, channels=1, size=(12, 12))
    wave = np.sin(np.arange(40))
    picture = wave[:, None] * wave + 0.1 * wave[:, None]
    memory = None
    for shift in range(3):
        frame = picture[None, None, :12, shift : shift + 12].astype(np.float32)
        made = batch(ChangedPositions(threshold=0.01), layer, frame, memory)
        memory = made.memory
        assert made.decisions.rows.computed_rows == 144


def test_a_global_mean_changes_all():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 2, 3, padding=1)
            self.second = nn.Conv2d(2, 2, 1)

        def forward(self, frames):
            found = self.first(frames)
            return self.second(found * found.mean(dim=(2, 3), keepdim=True))

    torch.manual_seed(0)
    network = Squeezed().eval()
    frames = torch.randn(1, 2, 9, 9).repeat(2, 1, 1, 1)
    frames[1, 0, 4, 4] += 1
    run = decide(capture(network, frames), ChangedPositions(threshold=0), model=network)
    assert [made.rows.computed_rows - 81 for made in run.decisions.values()] == [9, 81]


def test_thresholds_of_their_own():
    network = convolutions(2)
    frames = torch.randn(2, 2, 9, 9)
    policy = ChangedPositions(threshold=0, thresholds={"1": 1e6})
    run = decide(capture(network, frames), policy, model=network)
    assert [made.rows.computed_rows for made in run.decisions.values()] == [162, 81]
    with pytest.raises(ConfigError, match=r"thresholds must name layers, got 2; layers are 0, 1"):
        decide(capture(network, frames), replace(policy, thresholds={"2": 1.0}), model=network)
    with pytest.raises(ConfigError, match="thresholds must be a mapping of layer names to numbers"):
        ChangedPositions(threshold=0, thresholds={"1": -1})


def test_products_of_two_activations_and_rows_of_no_image_run_dense():
    policy = ChangedPositions(threshold=1)
    assert policy.applies_to(matrix_layer("fc", m=4, n=2, k=3, row_images=4))
    attention = replace(
        matrix_layer("qk", m=4, n=2, k=3, row_images=4), weights_are_parameters=False
    )
    assert not policy.applies_to(attention)


def test_a_memory_of_other_maps_is_refused():
    layer, other = conv_layer(images=1), conv_layer(images=1, size=(5, 5))
    policy = ChangedPositions(threshold=0)
    made = batch(policy, other, whole_frames(other, 0, 1))
    with pytest.raises(ConfigError, match=r"'conv' must hold a float32 reference of shape"):
        batch(policy, layer, whole_frames(layer, 0, 1), made.memory)


def one_changed(form: str) -> tuple[Layer, Executed]:
    """A 4x5 map of four channels, of which place (1, 1) changes: 9 of 20 rows are computed."""
    layer = conv_layer(images=1)
    frames = whole_frames(layer, 0, 1)
    policy = ChangedPositions(threshold=0, form=form)
    memory = batch(policy, layer, frames).memory
    frames[0, 2, 1, 1] += 1
    return layer, batch(policy, layer, frames, memory)


def test_cycles_by_hand():
    layer, made = one_changed("feedback")
    assert made.decisions.evidence == Changes(
        compared=80, updated=4, line_bits=2 * 5, kept_elements=80 + 60
    )
    assert made.decisions.units == ("change_detector",)
    design = roomy_design(change_detector=ChangeDetector(lanes=4, line_bits=10, latency_cycles=3))
    timing = layer_timing(layer, made.decisions, design)
    # A cycle to load; 80 values, four a cycle, and 3 cycles to the last mark; three folds of up to
    # 16 of 36 elements a row, each 2 x 16 + 16 + 9 - 2 = 55 for 9 rows; a cycle to store.
    assert timing.busy_cycles["change_detector"] == 80 // 4
    assert timing.busy_cycles["array"] == 3 * 55
    assert timing.cycles == 1 + 20 + 3 + 3 * 55 + 1
    assert timing.schedule.stages == ("watching", "array")
    assert timing.macs == 9 * 36 * 3
    moved = {"references": 80, "new_references": 4, "kept_results": 11 * 3, "inputs": 80}
    assert {name: timing.dram_bytes[name] for name in moved} == moved
    assert "addresses" not in timing.dram_bytes and "marks" not in timing.dram_bytes
    done = {
        action: many for (part, action), many in timing.actions.items() if part == "change_detector"
    }
    assert done == {
        "compare": 80, "list": 9, "write_line": 1, "read_line": 2, "write_marks": 1,
        "read_marks": 1,
    }  # fmt: skip
    # With so many lanes, listing nine rows takes longest.
    wide = replace(design, change_detector=replace(design.change_detector, lanes=80))
    assert layer_timing(layer, made.decisions, wide).busy_cycles["change_detector"] == 9


def test_what_is_kept_stays_on_the_chip_where_it_fits():
    layer, made = one_changed("feedback")
    kept = 80 + 60  # the reference, and 20 results of 3 columns, a byte each
    detector = ChangeDetector(lanes=4, line_bits=10, latency_cycles=3)
    away = roomy_design(change_detector=detector)
    held = SramBuffer(capacity_bytes=kept, width_bits=32)
    here = replace(away, state_buffer=held)
    assert remembered_bytes(layer, made.decisions, here) == kept
    small = replace(here, state_buffer=replace(held, capacity_bytes=kept - 4))
    for design, fits in ((away, False), (small, False), (here, True)):
        ((_, placed),) = with_room([(layer, made.decisions)], design)
        assert placed.rows.on_chip == fits
        timing = layer_timing(layer, placed, design)
        travel = {"references": 80, "new_references": 4, "kept_results": 11 * 3, "outputs": 60}
        if fits:  # nine rows alone are stored; the next layer loads all of the map
            travel = {"kept_results": 0, "outputs": 9 * 3}
            assert "references" not in timing.dram_bytes
        assert {name: timing.dram_bytes[name] for name in travel} == travel
        moved = {
            action: many
            for (part, action), many in timing.actions.items()
            if part == "state_buffer"
        }
        # 80 values to compare with are read; the place that changed, and nine rows, are written.
        assert moved == ({"read_byte": 80, "write_byte": 4 + 9 * 3} if fits else {})
        # Comparing takes 20 cycles, the buffer's four bytes a cycle (80 + 4) / 4 = 21; and its
        # write of 27 bytes, 7 cycles, is hidden behind the array's 3 x 55.
        watching = 21 if fits else 20
        assert timing.cycles == 1 + watching + 3 + 3 * 55 + 1


def test_a_copy_on_the_chip_is_written_whole():
    layer, made = one_changed("copy")
    held = SramBuffer(capacity_bytes=256, width_bits=32)
    detector = ChangeDetector(lanes=4, line_bits=10)
    design = replace(roomy_design(change_detector=detector), state_buffer=held)
    ((_, placed),) = with_room([(layer, made.decisions)], design)
    timing = layer_timing(layer, placed, design)
    assert timing.actions["state_buffer", "write_byte"] == 80 + 9 * 3


def test_what_two_techniques_leave_is_updated_in_place():
    network = convolutions(2, channels=4)
    frames = torch.randn(1, 4, 24, 24).repeat(2, 1, 1, 1)
    frames[1, :, 3, 3] += 1
    trace = capture(network, frames)
    policy = Together(ChangedPositions(threshold=0), LeaderReuse(tolerance=0.0))
    run = decide(trace, policy, model=network)
    away = replace(preset("leader_32x32"), change_detector=preset("change_32x32").change_detector)
    here = replace(away, state_buffer=SramBuffer(capacity_bytes=2**16, width_bits=512, ports=2))
    before, after = (simulate(trace, design, run).reuse for design in (away, here))
    # Two layers: of the second frame 9 rows, then 25, of 4 columns are computed; of the first all.
    assert before.dram_bytes["kept_results"] == 4 * (2 * 576 - 9 - 25)
    assert after.dram_bytes["kept_results"] == 0
    assert after.dram_bytes["outputs"] == 4 * (2 * 576 + 9 + 25)
    actions = sum((layer.timing.actions for layer in after.layers), Counter())
    assert actions["state_buffer", "read_byte"] == 2 * 4 * 576
    assert after.dram_bytes["inputs"] == before.dram_bytes["inputs"]


def test_a_copy_writes_no_reference_and_a_first_frame_compares_nothing():
    layer, made = one_changed("copy")
    assert made.decisions.evidence.updated == 0
    first = batch(ChangedPositions(threshold=0), layer, whole_frames(layer, 0, 1))
    assert first.decisions.evidence.compared == 0
    assert first.decisions.evidence.updated == 80
    design = roomy_design(change_detector=ChangeDetector(lanes=4, line_bits=10))
    dense_cycles = layer_timing(layer, None, design).cycles
    assert layer_timing(layer, first.decisions, design).cycles >= dense_cycles


def test_a_detector_must_reach_over_the_kernel():
    layer, made = one_changed("copy")
    design = roomy_design(change_detector=ChangeDetector(lanes=4, line_bits=9))
    with pytest.raises(ConfigError, match=r"line_bits must hold .* 'conv' .*10 places, got 9"):
        layer_timing(layer, made.decisions, design)
    with pytest.raises(ConfigError, match="must have change_detector to run"):
        layer_timing(layer, made.decisions, preset("dense_16x16"))


def test_results_that_a_region_keeps_are_counted():
    layer = conv_layer(images=1)
    kept = np.ones((1, layer.gemm.m), bool)
    rows = KeptRows(gemm=layer.gemm, kept=kept)
    made = Decisions(layer=layer.name, gemm=layer.gemm, rows=rows)
    timing = layer_timing(layer, made, preset("listed_16x16"))
    assert timing.kept_bytes == layer.gemm.m * layer.gemm.n  # a byte each


def test_a_stream_on_its_design():
    network = convolutions(2, channels=8)
    frames = torch.randn(1, 8, 24, 24).repeat(3, 1, 1, 1)
    trace = capture(network, frames)
    run = decide(trace, ChangedPositions(threshold=0), model=network)
    report = simulate(trace, preset("change_32x32"), run)
    # One frame of three is computed, and kept results of two travel.
    assert sum(made.macs for made in run.decisions.values()) == trace.macs // 3
    assert report.reuse.dram_bytes["kept_results"] == 2 * 2 * 24 * 24 * 8
    assert report.reuse.dram_bytes["references"] == 2 * 2 * 24 * 24 * 8
    # Of each layer one frame's input and result, a byte each.
    told = report.to_dict()["designs"]["reuse"]
    assert [layer["kept_bytes"] for layer in told["layers"]] == 2 * [2 * 24 * 24 * 8]
    assert told["kept_bytes"] == report.reuse.kept_bytes == 4 * 24 * 24 * 8
    assert report.dense.kept_bytes == 0
    assert {row["kept_bytes"] for row in report.rows() if row["design"] == "reuse"} == {9216}
    page = simulation_html(report.to_dict())
    assert "kept from frame to frame" in page and "18 KiB" in page


class Pooled(nn.Module):
    """3x3, ReLU, a 2x2 pool, 1x1, and a sum of two 1x1 layers."""

    def __init__(self, between: nn.Module):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.between = between
        self.point = nn.Conv2d(4, 4, 1)
        self.side = nn.Conv2d(4, 4, 1, bias=False)
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, frames):
        found = self.between(torch.relu(self.first(frames)))
        return self.last(torch.relu(self.point(found) + self.side(found)))


def runs_of(between: nn.Module, **settings):
    torch.manual_seed(0)
    network = Pooled(between).eval()
    frames = torch.randn(1, 2, 12, 12).repeat(3, 1, 1, 1)
    frames[1:, 0, 5, 5] += 1
    traces = [capture(network, frame[None]) for frame in frames]
    policy = ChangedPositions(threshold=0, **settings)
    return [*decide_stream(traces, policy, model=network)], network, frames


def test_lists_are_passed_on_through_pools_and_sums():
    (first, second, third), network, frames = runs_of(nn.MaxPool2d(2))
    # A pixel changes rows 4 to 6 of the first layer, which lie in 2x2 windows 2 and 3.
    computed = {name: made.rows.computed_rows for name, made in second.decisions.items()}
    assert computed == {"first": 9, "point": 4, "side": 4, "last": 4}
    compared = {name: made.evidence.compared for name, made in second.decisions.items()}
    assert compared == {"first": 2 * 144, "point": 0, "side": 0, "last": 0}
    # Of those that take lists, results alone are kept.
    kept = {name: made.evidence.kept_elements for name, made in second.decisions.items()}
    assert kept == {"first": 6 * 144, "point": 4 * 36, "side": 4 * 36, "last": 3 * 36}
    assert {*second.memory.tables["point"]} == {"results"}
    assert all(run.output_mse < 1e-12 for run in (first, second, third))
    assert all(made.macs == 0 for made in third.decisions.values())
    # The same in a batch.
    policy = ChangedPositions(threshold=0)
    (at_once,) = decide_stream([capture(network, frames)], policy, model=network)
    assert at_once.decisions["last"].rows.computed_rows == 36 + 4
    assert at_once.output_mse < 1e-12


@pytest.mark.parametrize(
    "between",
    [nn.AvgPool2d(3, padding=1, stride=1), nn.Upsample(scale_factor=2), nn.MaxPool2d(3, 2)],
)
def test_what_mixes_positions_makes_a_layer_look(between):
    (_, second, _), _, _ = runs_of(between)
    compared = {name: made.evidence.compared > 0 for name, made in second.decisions.items()}
    assert compared == {"first": True, "point": True, "side": True, "last": False}
    assert second.output_mse < 1e-12


def test_lists_may_not_be_passed_on():
    (_, second, _), _, _ = runs_of(nn.MaxPool2d(2), passes_lists=False)
    assert all(made.evidence.compared > 0 for made in second.decisions.values())


def test_a_list_of_another_technique_is_not_taken():
    torch.manual_seed(0)
    network = Pooled(nn.Identity()).eval()
    trace = capture(network, torch.randn(2, 2, 12, 12))
    policy = PerLayer({"point": ChangedPositions(threshold=0)})
    run = decide(trace, policy, model=network)
    assert run.decisions["point"].evidence.compared > 0


def test_thresholds_are_tuned_front_to_back():
    network = convolutions(3, channels=3)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(1, 3, 10, 10, generator=generator) + 0.1 * torch.randn(
        5, 3, 10, 10, generator=generator
    )
    trace, told = capture(network, frames), []
    found = tuned_changes(
        trace,
        network,
        limit=1e-2,
        choices=(0.05, 0.1, 0.3, 1.0),
        loss=lambda run: run.output_error,
        on_layer=told.append,
    )
    assert [each.layer for each in told] == ["0", "1", "2"] == [*found.thresholds]
    assert found.thresholds["0"] > 0
    run = decide(trace, found, model=network)
    assert run.output_error == told[-1].loss <= 1e-2
    shares = [each.number / each.layers * 1e-2 for each in told]
    assert all(each.loss <= share for each, share in zip(told, shares, strict=True))
    # A higher one in the first layer loses more than its share.
    choices = (0.05, 0.1, 0.3, 1.0)
    higher = choices[choices.index(found.thresholds["0"]) + 1]
    bolder = ChangedPositions(threshold=0, thresholds={"0": higher})
    assert decide(trace, bolder, model=network).output_error > shares[0]
    with pytest.raises(ConfigError, match="choices ascend from above 0"):
        tuned_changes(trace, network, limit=0.1, choices=(0.2, 0.1))


def test_a_region_reaches_back_by_its_halo():
    network = convolutions(3)
    trace = capture(network, torch.randn(1, 2, 11, 11))
    region = np.zeros((11, 11), bool)
    region[5, 5] = True
    wanted = positions_for(region, Surroundings(trace=trace))
    assert [int(wanted[name].sum()) for name in "210"] == [1, 9, 25]
    region[5, 5], region[0, 0] = False, True
    wanted = positions_for(region, Surroundings(trace=trace))
    assert [int(wanted[name].sum()) for name in "210"] == [1, 4, 9]


class Segmenting(nn.Module):
    """Class 1 where the first channel is above 0, else class 0, at twice the size."""

    def __init__(self):
        super().__init__()
        self.smooth = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.classify = nn.Conv2d(2, 2, 1)

    def forward(self, frames):
        made = nn.functional.max_pool2d(torch.relu(self.smooth(frames)), 2)
        return nn.functional.interpolate(self.classify(made), scale_factor=2, mode="bilinear")


def segmenting():
    network = Segmenting().eval()
    with torch.no_grad():
        network.smooth.weight.zero_()
        network.smooth.weight[:, :, 1, 1] = torch.tensor([[1.0], [-1.0]])
        network.classify.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]])[..., None, None])
        network.classify.bias.copy_(torch.tensor([0.1, 0.0]))
    frames = -torch.ones(3, 1, 24, 24)
    frames[:, :, 10:14, 10:14] = 1  # a thing
    frames[1:, :, 2:4, 2:4] = 1  # another, where there was none
    return network, frames


@pytest.mark.parametrize("outside", ["keep", "zero"])
def test_regions_of_the_last_answer(outside):
    network, frames = segmenting()
    traces = [capture(network, frame[None]) for frame in frames]
    policy = AnsweredRegions(background=(0,), dilation=2, outside=outside)
    first, second, _ = decide_stream(traces, policy, model=network)
    assert first.agreement == 1 and second.memory.answers.shape == (24, 24)
    region = first.memory.answers == 1
    assert region[10:14, 10:14].all() and 16 <= region.sum() < 100
    wanted = positions_for(policy.region(first.memory.answers), Surroundings(trace=traces[1]))
    for name, made in second.decisions.items():
        np.testing.assert_array_equal(~made.rows.kept[0], wanted[name].ravel())
    # What is new lies outside, and is not seen.
    assert not (second.answers[0] == 1)[:6, :6].any()
    np.testing.assert_array_equal(second.answers[0][8:16, 8:16], first.answers[0][8:16, 8:16])
    fresh = [*decide_stream(traces, replace(policy, refresh=2), model=network)]
    assert fresh[2].agreement == 1 and fresh[2].decisions["smooth"].remaining_ratio == 1
    everywhere = AnsweredRegions(background=(), outside=outside)
    runs = [*decide_stream(traces, everywhere, model=network)]
    assert all(run.agreement == 1 and run.output_mse < 1e-12 for run in runs)
    assert all(each.remaining_ratio == 1 for run in runs for each in run.decisions.values())


def test_regions_are_saved_and_go_on_the_same(tmp_path):
    network, frames = segmenting()
    traces = [capture(network, frame[None]) for frame in frames]
    policy = AnsweredRegions(background=(0,), dilation=1)
    *_, straight = decide_stream(traces, policy, model=network)
    *_, half = decide_stream(traces[:2], policy, model=network)
    save_memory(half.memory, tmp_path / "memory")
    held = load_memory(tmp_path / "memory")
    (resumed,) = decide_stream(traces[2:], policy, model=network, memory=held)
    np.testing.assert_array_equal(resumed.answers, straight.answers)
    kept = [run.decisions["smooth"].rows.kept for run in (resumed, straight)]
    np.testing.assert_array_equal(*kept)
    with pytest.raises(ConfigError, match="must know the class of each pixel"):
        list(decide_stream(traces, policy))


def test_regions_on_their_design():
    network, frames = segmenting()
    traces = [capture(network, frame[None]) for frame in frames]
    runs = [*decide_stream(traces, AnsweredRegions(background=(0,), dilation=1), model=network)]
    design = preset("change_32x32")
    reports = [simulate(*each[:1], design, each[1]) for each in zip(traces, runs, strict=True)]
    assert reports[1].reuse.total_energy_pj < reports[0].reuse.total_energy_pj
    assert (
        "references" not in reports[1].reuse.dram_bytes
        or not (reports[1].reuse.dram_bytes["references"])
    )
