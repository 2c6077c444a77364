"""Block motion on pixels, maps that it moves, the units for both, and policies of key frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ConfigError, Dram, MotionEstimator, Warper, preset
from simulator import (
    BlockMatching,
    DeepFeatureFlow,
    Eva2,
    FrameDecisions,
    Motion,
    decide,
    luma,
    simulate,
)
from simulator.decisions.frames import KEEP, RUN, WARP
from simulator.decisions.moved_maps import moved_maps, pixel_strides
from simulator.kernels.motion import move
from simulator.running import executor
from simulator.running.above import Above
from simulator.testing.reference import reference_moved
from simulator.timing.above import above_timings
from tests.builders import WIDE, roomy_design
from workloads import capture, quantise


class UShaped(nn.Module):
    """Two scales, a residual block, and a decoder that adds both."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.fine, self.coarse = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1)
        self.smooth = nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, images):
        fine = torch.relu(self.stem(images))
        fine = torch.relu(self.block(fine) + fine)
        coarse = torch.relu(self.down(fine))
        larger = nn.functional.interpolate(self.coarse(coarse), scale_factor=2.0)
        return self.head(torch.relu(self.smooth(self.fine(fine) + larger)))


def u_shaped():
    torch.manual_seed(0)
    return UShaped().eval()


def drifting(frames=4, size=(32, 48), step=(0, 2), seed=0):
    """`(frames, 3, *size)`: each frame shows the one before moved by `step` pixels down and right,
    with a scene beyond the borders."""
    rng = np.random.default_rng(seed)
    margin = 4 * frames
    scene = rng.standard_normal((3, size[0] + 2 * margin, size[1] + 2 * margin)).astype(np.float32)
    views = []
    for frame in range(frames):
        top, left = margin - frame * step[0], margin - frame * step[1]
        views.append(scene[:, top : top + size[0], left : left + size[1]])
    return torch.from_numpy(np.stack(views))


def outputs_under(policy, model, frames):
    """The run, the trace and what the model answered under the policy."""
    seen = []
    trace = capture(model, frames)
    handle = model.register_forward_hook(lambda module, given, made: seen.append(made.clone()))
    run = decide(trace, policy, model=model)
    handle.remove()
    return run, trace, seen[-1].numpy()


def left_macs(trace, run):
    made = run.decisions
    return sum(
        each.gemm.macs if made[each.name] is None else made[each.name].macs for each in trace.layers
    )


# Block matching


def test_work_of_a_search():
    motion = Eva2(max_error=255).motion(np.zeros((2, 120, 160), np.uint8))
    # 19,200 pixels x (2 x 8 / 2 + 1)^2 = 81 candidates
    assert motion.candidates == 81 and motion.differences == 1_555_200


def slow_match(frame, key, matching):
    """The same search, one tile and candidate after the other."""
    height, width = frame.shape
    rows, columns = -(-height // matching.tile), -(-width // matching.tile)
    sums = {}
    for down, across in matching.candidates:
        ys = np.clip(np.arange(height) + down, 0, height - 1)
        xs = np.clip(np.arange(width) + across, 0, width - 1)
        differences = np.abs(frame.astype(int) - key[np.ix_(ys, xs)].astype(int))
        for row, column in np.ndindex(rows, columns):
            tile = matching.tile
            part = differences[row * tile :, column * tile :][:tile, :tile]
            sums[down, across, row, column] = int(part.sum())
    vectors, total = np.zeros((rows, columns, 2), int), 0
    for row, column in np.ndindex(rows, columns):
        fields = {}
        for down, across in matching.candidates:
            around = [
                sums[down, across, y, x]
                for y in range(row - matching.reach, row + matching.reach + 1)
                for x in range(column - matching.reach, column + matching.reach + 1)
                if 0 <= y < rows and 0 <= x < columns
            ]
            fields[down, across] = sum(around)
        best = min(fields, key=lambda vector: (fields[vector], vector[0] ** 2 + vector[1] ** 2))
        vectors[row, column] = best
        total += sums[(*best, row, column)]
    return vectors, total / (height * width)


@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize(("radius", "step"), [(3, 1), (4, 2), (0, 1)])
def test_vectors_are_those_of_a_slow_search(reach, radius, step):
    rng = np.random.default_rng(radius)
    key = rng.integers(0, 256, (13, 18)).astype(np.uint8)
    frame = np.roll(key, (2, -1), (0, 1)) // 2 + rng.integers(0, 128, key.shape).astype(np.uint8)
    matching = BlockMatching(tile=4, reach=reach, radius=radius, step=step)
    vectors, error = matching.match(frame, key)
    expected, expected_error = slow_match(frame, key, matching)
    # Of vectors with equal sums and lengths either may be it.
    np.testing.assert_array_equal(np.square(vectors).sum(-1), np.square(expected).sum(-1))
    assert error == pytest.approx(expected_error, rel=1e-12)


def test_what_stands_still_has_no_vectors():
    flat = np.full((16, 16), 7, np.uint8)
    still = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    for frame in (flat, still):
        vectors, error = BlockMatching(tile=4).match(frame, frame)
        assert not vectors.any() and error == 0


def test_luma_is_8_bits_of_the_first_frame():
    frames = np.zeros((2, 3, 1, 3), np.float32)
    frames[0, :, 0, 1], frames[0, :, 0, 2] = 1, 0.5
    frames[1, 0], frames[1, 1, 0, 2] = 1, 5  # red alone is 0.299 of white; and one beyond it
    assert luma(frames).tolist() == [[[0, 255, 128]], [[76, 76, 255]]]
    assert luma(frames[:, :1])[1].tolist() == [[255, 255, 255]]
    assert not luma(np.ones((1, 3, 2, 2))).any()


def test_motion_explains_most_of_what_changes_in_a_film():
    """Mean absolute differences of 8x8 tiles in `bikes`, at the same place and at the best vector
    within 8 pixels, as measured once: 3.7 and 1.2 one frame apart, 10.5 and 4.9 four apart, to one
    decimal, of five pairs within its first 41 frames and none across a cut."""
    from workloads.streams.video import video_frames

    film = video_frames("bikes", size=(136, 320), count=37, normalise=lambda pixels: pixels)
    grey = np.rint(np.einsum("fchw,c->fhw", film.images.numpy(), [0.299, 0.587, 0.114]))
    grey = grey.astype(np.uint8)
    for apart, same, best in ((1, 3.7, 1.2), (4, 10.5, 4.9)):
        for radius, expected in ((0, same), (8, best)):
            matching = BlockMatching(tile=8, reach=0, radius=radius, step=1)
            found = [
                matching.match(grey[place + apart], grey[place])[1] for place in (0, 8, 16, 24, 32)
            ]
            assert np.mean(found) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 7, "step": 2}, r"Eva2\.radius must be a multiple of step=2.*use 6"),
        ({"tile": 0}, r"Eva2\.tile must be an integer from 1 to 1024"),
        ({"max_error": -1.0}, r"Eva2\.max_error must be a finite number from 0 to 255"),
    ],
)
def test_broken_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Eva2(**changes)


# Moved maps


def test_a_frame_that_stands_still_has_the_key_frames_answer_bit_for_bit():
    still = drifting(1).expand(3, -1, -1, -1).contiguous()
    for target in (None, "block", "stem", "coarse"):
        policy = Eva2(max_error=0, longest=8, tile=4, target=target)
        run, _, outputs = outputs_under(policy, u_shaped(), still)
        assert run.frames.motion.keys.tolist() == [0, 0, 0]
        assert not run.frames.motion.vectors.any()
        np.testing.assert_array_equal(outputs[1], outputs[0])
        np.testing.assert_array_equal(outputs[2], outputs[0])


def test_a_shift_by_the_targets_stride_is_exact_inside():
    # The stem's stride is 2: a frame moved by 2 pixels to the right moves its map by one position.
    frames = drifting(3, step=(0, 2))
    model = u_shaped()
    policy = DeepFeatureFlow(interval=3, target="block", tile=8, radius=4)
    trace = capture(model, frames)
    above = Above(trace, policy)
    # All tiles but those at the left border, where new content comes in.
    assert (above.frames.motion.vectors[1, :, 1:] == (0, -2)).all()
    assert (above.frames.motion.vectors[2, :, 1:] == (0, -4)).all()
    layer = trace.layer("fine")
    dense = trace.given("fine")
    moved = above.given(layer, dense)
    np.testing.assert_array_equal(moved[0], dense[0])
    inside = np.s_[:, 4:-4, 8:-4]
    for frame in (1, 2):
        np.testing.assert_allclose(moved[frame][inside], dense[frame][inside], atol=1e-5)
        np.testing.assert_array_equal(
            moved[frame][:, :, 8:], dense[0][:, :, 8 - frame : 24 - frame]
        )
    assert np.abs(moved[1] - dense[1])[:, :, :4].max() > 0.1  # the border is another matter


def test_layers_before_the_target_do_not_run_between_key_frames(monkeypatch):
    frames, model = drifting(7), u_shaped()
    multiplied = []
    matmul = np.matmul

    def counted(rows, weights, **more):
        multiplied.append(rows.shape[1] * rows.shape[2] * weights.shape[2])
        return matmul(rows, weights, **more)

    trace = capture(model, frames)
    policy = DeepFeatureFlow(interval=3, tile=8, radius=4)
    monkeypatch.setattr(executor.np, "matmul", counted)
    run = decide(trace, policy, model=model, layer_errors=False)
    monkeypatch.undo()
    skipped = [layer for layer in trace.layers if layer.name != "head"]
    # Key frames are 0, 3 and 6 of 7; the head runs in the model, in every frame.
    assert multiplied == [layer.gemm.macs * 3 // 7 for layer in skipped]
    for layer in skipped:
        assert run.decisions[layer.name].macs == layer.gemm.macs * 3 // 7
    assert run.decisions["head"] is None


def test_mean_work_is_that_of_key_frames_and_of_what_follows():
    # With p the rate of key frames: p x full + (1 - p) x suffix; for p = 1 / l that is
    # (F + (l - 1) tail) / l, beside motion and warping, which units do.
    frames, model = drifting(6), u_shaped()
    trace = capture(model, frames)
    full = trace.macs // 6
    for target, suffix in (("block", "down fine coarse smooth head"), ("smooth", "head")):
        tail = sum(trace.layer(name).gemm.macs // 6 for name in suffix.split())
        for interval in (2, 3, 6):
            policy = DeepFeatureFlow(interval=interval, target=target, tile=8)
            run = decide(trace, policy, model=model, layer_errors=False)
            assert left_macs(trace, run) * interval == 6 * (full + (interval - 1) * tail)


def test_relu_after_moving_is_less_by_the_smaller_part():
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((20, 5)).astype(np.float32)
    taps = rng.integers(0, 20, (30, 4)).astype(np.int32)
    weights = rng.dirichlet(np.ones(4), 30).astype(np.float32)

    def moved(values):
        found = np.empty((30, 5), np.float32)
        move(np.ascontiguousarray(values), taps, weights, found)
        return found

    positive, negative = moved(np.maximum(maps, 0)), moved(np.maximum(-maps, 0))
    lost = positive - np.maximum(moved(maps), 0)
    np.testing.assert_allclose(lost, np.minimum(positive, negative), atol=1e-6)
    np.testing.assert_allclose(moved(maps + 3), moved(maps) + 3, atol=1e-5)
    whole = np.eye(4, dtype=np.float32)[np.zeros(30, int)]
    found = np.empty((30, 5), np.float32)
    move(maps, taps, whole, found)
    np.testing.assert_array_equal(found, maps[taps[:, 0]])


def test_a_map_is_moved_as_by_plain_loops():
    rng = np.random.default_rng(4)
    maps = rng.standard_normal((3, 6, 9)).astype(np.float32)
    vectors = rng.integers(-6, 7, (2, 3, 4, 2)).astype(np.int16)
    motion = Motion(
        size=(12, 18), tile=5, reach=0, radius=6, candidates=1, vectors=vectors,
        keys=np.array([0, 0]), searched=np.array([False, True]), errors=np.zeros(2),
    )  # fmt: skip
    taps, weights = motion.taps(1, (6, 9), (2.0, 2.0))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    found = np.empty((54, 3), np.float32)
    move(np.ascontiguousarray(maps.reshape(3, -1).T), taps, weights, found)
    expected = reference_moved(maps, motion, 1, (2.0, 2.0))
    np.testing.assert_allclose(found.T.reshape(3, 6, 9), expected, atol=1e-5)


@pytest.mark.parametrize("target", ["stem", "block", "down", "fine", "coarse", "smooth", "head"])
def test_answers_are_those_of_maps_that_were_moved_by_hand(target):
    from simulator.testing import FrameSuite

    class Suite(FrameSuite):
        policy = DeepFeatureFlow(interval=3, target=target, tile=4, radius=3, step=1)

        def model(self):
            return u_shaped()

        def inputs(self):
            return drifting(4, size=(16, 24), step=(1, 1))

    Suite().test_outputs_are_those_of_the_slow_way()


@pytest.mark.parametrize(
    ("target", "crossing"),
    [
        # Its result and the input of what follows, twice: the block's and the sum's other part.
        ("stem", {("block", True, 4, 2.0), ("stem", False, 4, 2.0)}),
        # Two layers read the same map.
        ("block", {("down", True, 4, 2.0)}),
        ("down", {("fine", True, 4, 2.0), ("coarse", True, 6, 4.0)}),
        ("smooth", {("head", True, 5, 2.0)}),
        # The answer itself.
        ("head", {("head", False, 2, 2.0)}),
    ],
)
def test_what_crosses_is_what_runs_needs(target, crossing):
    trace = capture(u_shaped(), drifting(4))
    frames = Above(trace, DeepFeatureFlow(interval=2, target=target)).frames
    found = moved_maps(trace.layers, trace.graph, frames)
    inputs = {(each.layer, tuple(each.frames)) for each in found.inputs.values()}
    told = {
        (each.layer, (each.layer, tuple(each.frames)) in inputs, each.channels, each.strides[0])
        for each in found.crossing
    }
    assert told == crossing
    assert all(each.frames.tolist() == [False, True] * 2 for each in found.crossing)
    assert repr(frames.evidence[-1].maps) == repr(found.crossing)


def test_a_layer_without_positions_keeps_its_result():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gate = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)
            self.last = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, images):
            maps = self.first(images)
            return self.last(maps * self.gate(maps.mean(dim=(2, 3)))[:, :, None, None])

    torch.manual_seed(0)
    trace = capture(Gated().eval(), drifting(3, size=(8, 8)))
    frames = DeepFeatureFlow(interval=3, tile=4).frames(trace)
    assert frames.layers["gate"].tolist() == [RUN, KEEP, KEEP]
    assert frames.layers["first"].tolist() == frames.layers["last"].tolist() == [RUN, WARP, WARP]


def test_strides_are_followed_through_pooling_and_enlarging():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=2),  # 31 x 45 -> 14 x 21
        nn.MaxPool2d(3, stride=2),  # -> 6 x 10
        nn.Conv2d(4, 4, 3, stride=2, padding=1),  # -> 3 x 5
        nn.ConvTranspose2d(4, 4, 2, stride=2),  # -> 6 x 10
        nn.Upsample(size=(14, 21)),
        nn.Conv2d(4, 4, 1),
    )
    trace = capture(model.eval(), torch.randn(2, 3, 31, 45))
    found = pixel_strides(trace.layers, trace.graph, (31, 45))
    assert [found[layer.name][0][0] for layer in trace.layers] == [1, 4, 8, 2]
    assert [found[layer.name][1][0] for layer in trace.layers] == [2, 8, 4, 2]


def test_a_quantised_network_gets_whole_steps():
    model, frames = u_shaped(), drifting(4, step=(1, 1))
    quantised = quantise(model, frames)
    policy = DeepFeatureFlow(interval=2, target="block", tile=8, radius=2, step=1)
    run, trace, _ = outputs_under(policy, quantised, frames)
    layer = trace.layer("fine")
    moved = Above(trace, policy).given(layer, trace.given("fine"))
    steps = moved / np.float32(layer.quantisation.scale)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert (moved[1] != trace.given("fine")[0]).any() and run.output_mse > 0


# Key frames


def test_a_cut_is_a_key_frame():
    scenes = [drifting(3, seed=seed, step=(0, 2)) for seed in (0, 1)]
    frames = torch.cat(scenes)
    motion = Eva2(max_error=20, tile=8, longest=16).motion(luma(frames.numpy()))
    assert motion.keys.tolist() == [0, 0, 0, 3, 3, 3]
    assert motion.searched.tolist() == [False] + [True] * 5
    assert motion.errors[3] > 20 > motion.errors[[1, 2, 4, 5]].max()
    grey = luma(frames.numpy())
    assert Eva2(max_error=20, longest=2).motion(grey).keys.tolist() == [0, 0, 2, 3, 3, 5]
    # 2 pixels in the first frame after a key frame, but for the border; 4 in the next.
    slow = Eva2(max_error=20, max_motion=2.5, reach=0).motion(grey)
    assert slow.keys.tolist() == [0, 0, 2, 3, 3, 5]
    assert DeepFeatureFlow(interval=4).motion(grey).searched.tolist() == [
        False, True, True, True, False, True,
    ]  # fmt: skip


def test_more_error_is_borne_with_fewer_key_frames():
    grey = luma(drifting(12, step=(1, 3)).numpy())
    rates = [int(Eva2(max_error=most).motion(grey).is_key.sum()) for most in (0, 10, 40, 80, 255)]
    assert rates == sorted(rates, reverse=True) and rates[0] == 12 and rates[-1] == 1


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Eva2(target="nowhere.*"), r"Eva2\.target must be a layer of the workload, got 'nowhere"),
        (DeepFeatureFlow(interval=2), r"DeepFeatureFlow\.target must be .*larger than a pixel"),
    ],
)
def test_a_network_without_the_target_is_refused(policy, message):
    trace = capture(nn.Sequential(nn.Conv2d(3, 2, 1)), drifting(2))
    with pytest.raises(ConfigError, match=message):
        decide(trace, policy)


def test_motion_is_found_on_pictures_alone():
    trace = capture(nn.Sequential(nn.Conv1d(3, 2, 3)), torch.randn(2, 3, 9))
    with pytest.raises(ConfigError, match=r"trace\.inputs must hold 2 frames"):
        decide(trace, Eva2(target="0"))


def test_frames_that_are_moved_must_come_from_the_key_frame():
    motion = Eva2(max_error=255).motion(np.zeros((4, 16, 16), np.uint8))
    answers, made = np.arange(4), np.array([RUN, WARP, WARP, WARP])
    FrameDecisions(frames=4, layers={"conv": made}, answers=answers, evidence=(motion,))
    with pytest.raises(ConfigError, match="must be RUN or KEEP, got WARP without the Motion"):
        FrameDecisions(frames=4, layers={"conv": made}, answers=answers)
    later = np.array([RUN, WARP, RUN, WARP])
    with pytest.raises(ConfigError, match="must run in the key frame of each frame that is WARP"):
        FrameDecisions(frames=4, layers={"conv": later}, answers=answers, evidence=(motion,))
    with pytest.raises(ConfigError, match=r"Motion\.keys must name for each frame itself"):
        replace(motion, keys=np.array([0, 2, 2, 2])).check_frames(4)
    with pytest.raises(ConfigError, match=r"Motion\.vectors must be of shape \(4, 2, 2, 2\)"):
        replace(motion, vectors=motion.vectors[:2]).check_frames(4)


# On hardware


def moving_design(adders=16, pixels=4096, lanes=8, maps=4096, **changes):
    return roomy_design(
        motion_estimator=MotionEstimator(
            adders=adders, pixel_bytes=pixels, tiles=64, latency_cycles=5
        ),
        warper=Warper(lanes=lanes, capacity_bytes=maps, latency_cycles=3),
        **changes,
    )


def small_drive(interval=4):
    """Four frames of 24 x 32 pixels; one map of 4 channels and 12 x 16 positions crosses."""
    trace = capture(u_shaped(), drifting(4, size=(24, 32)))
    policy = DeepFeatureFlow(interval=interval, target="block", tile=8, radius=2, step=1)
    return trace, Above(trace, policy).frames


def test_cycles_by_hand():
    trace, frames = small_drive()
    design = moving_design(dram=Dram(bandwidth_bytes_per_cycle=4))
    motion, warping = above_timings(frames, trace.layers, design)
    assert (motion[0], warping[0]) == ("motion_estimator", "warper")
    # A search: 768 pixels x 25 candidates / 16 adders = 1,200 cycles; the consumer's 12 tiles x 25
    # candidates take less, and loads of 768 bytes (192 cycles; the first, with the key frame, 384)
    # as well. Each of three searches has a latency of 5.
    assert motion[1].cycles == 3 * (1200 + 5)
    assert motion[1].dram_bytes["pixels"] == 4 * 768
    assert motion[1].actions["motion_estimator", "difference"] == 3 * 19_200
    assert motion[1].actions["motion_estimator", "compare"] == 3 * 300
    # A read of 16 pixels for each 16 differences, and once for the frame's own tiles.
    assert motion[1].actions["motion_estimator", "read_pixels"] == 3 * (1200 + 48)
    # 768 values / 8 lanes = 96 cycles; 768 bytes are stored in 192, and a latency of 3.
    assert warping[1].cycles == 3 * (192 + 3)
    assert warping[1].bound_by == "dram"
    assert warping[1].dram_bytes["moved_maps"] == 3 * 768
    assert warping[1].dram_bytes["stored_maps"] == 0
    assert warping[1].actions["warper", "interpolate"] == 3 * 768
    assert warping[1].actions["warper", "read_map"] == 3 * 4 * 96
    assert warping[1].actions["warper", "write_map"] == 96  # in the key frame


def test_memories_that_are_too_small_load_again():
    trace, frames = small_drive()
    # A band of 12 rows of pixels and 8 of the frame fits; four rows of the map do.
    design = moving_design(pixels=20 * 32, maps=4 * 16 * 4)
    (_, motion), (_, warping) = above_timings(frames, trace.layers, design)
    assert motion.dram_bytes["pixels"] == 3 * 2 * 768
    assert warping.dram_bytes["stored_maps"] == 3 * 768
    assert warping.actions["warper", "write_map"] == 3 * 96
    with pytest.raises(ConfigError, match=r"pixel_bytes must hold .* 20 rows of 32 .*use 640"):
        above_timings(frames, trace.layers, moving_design(pixels=639))
    with pytest.raises(ConfigError, match=r"capacity_bytes must hold .* 4 of 16 .*use 256"):
        above_timings(frames, trace.layers, moving_design(maps=255))
    # Two of the four channels at a time, as there are lanes.
    (_, (_, slow)) = above_timings(frames, trace.layers, moving_design(lanes=2, maps=128))
    assert slow.dram_bytes["stored_maps"] == 3 * 768
    few = replace(design, motion_estimator=replace(design.motion_estimator, tiles=11))
    with pytest.raises(ConfigError, match=r"tiles must be those of a frame, 12 of 8 x 8 .*use 12"):
        above_timings(frames, trace.layers, few)


def test_a_key_frame_that_was_searched_is_at_hand():
    trace, frames = small_drive(interval=2)
    # Key frames 0 and 2 were not searched: each is loaded for the frame after it.
    timing = dict(above_timings(frames, trace.layers, moving_design()))["motion_estimator"]
    assert timing.dram_bytes["pixels"] == 4 * 768
    searched = Above(trace, Eva2(max_error=0, tile=8, radius=2)).frames
    # All frames became key frames by a search, and each is compared with the one before.
    timing = dict(above_timings(searched, trace.layers, moving_design()))["motion_estimator"]
    assert timing.dram_bytes["pixels"] == 4 * 768
    assert searched.motion.is_key.all()


def test_a_report_has_motion_and_warping_in_its_totals():
    model, frames = u_shaped(), drifting(4)
    trace = capture(model, frames)
    policy = Eva2(max_error=255, longest=4)
    design = preset("motion_32x32")
    run = decide(trace, policy, model=model)
    report = simulate(trace, design, run)
    above = {each.unit: each for each in report.reuse.above}
    assert [*above] == ["motion_estimator", "warper"]
    layers = sum(each.timing.cycles for each in report.reuse.layers)
    beside = sum(each.timing.cycles for each in above.values())
    assert report.reuse.cycles == layers + beside and beside > 0
    assert report.reuse.energy_pj["motion_estimator"] > 0 < report.reuse.energy_pj["warper"]
    assert report.reuse.dram_bytes["moved_maps"] > 0
    # The key frame's pixels, and what is moved of its maps.
    assert above["motion_estimator"].timing.kept_bytes == frames.shape[-1] * frames.shape[-2]
    moved = sum(
        each.elements for each in moved_maps(trace.layers, trace.graph, run.frames).crossing
    )
    assert above["warper"].timing.kept_bytes == moved
    areas = report.reuse.area_by_part_mm2
    assert areas["motion_estimator"] > 0 < areas["warper"]
    with pytest.raises(ConfigError, match="must have motion_estimator to run decisions on frames"):
        simulate(trace, preset("dense_32x32"), run)
    # Every frame a key frame: dense, and the searches in vain on top of it.
    all_keys = simulate(trace, design, decide(trace, Eva2(max_error=0), model=model))
    assert all_keys.output_mse == 0
    assert all_keys.reuse.cycles >= all_keys.dense.cycles + 3


def test_wider_units_are_no_slower():
    trace, frames = small_drive()
    slow = dict(above_timings(frames, trace.layers, moving_design(adders=16, lanes=4)))
    fast = dict(above_timings(frames, trace.layers, moving_design(adders=64, lanes=32)))
    for name, timing in slow.items():
        assert fast[name].cycles < timing.cycles
    # The consumer takes 300 cycles however many adders there are.
    most = dict(above_timings(frames, trace.layers, moving_design(adders=4096)))
    assert most["motion_estimator"].cycles == 3 * (300 + 5)
    assert WIDE.bytes_per_cycle > 768  # nothing else set the pace
