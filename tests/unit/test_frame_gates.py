"""NoScope, Clockwork and cached answers: hand examples, slow references, traps, cycles by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ConfigError, FeatureCache, preset
from simulator import (
    CachedAnswers,
    Clockwork,
    DroppedColumns,
    FrameDecisions,
    LshReuse,
    NoScope,
    Together,
    decide,
    simulate,
)
from simulator.decisions.frame_evidence import Features
from simulator.decisions.frames import KEEP, RUN
from simulator.timing.above import above_timings
from tests.builders import roomy_design
from workloads import capture, digits, trained_cifarnet


class Segmenter(nn.Module):
    """A shallow map and a deep one of a quarter of its size, joined."""

    def __init__(self):
        super().__init__()
        self.shallow = nn.Conv2d(3, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.deeper = nn.Conv2d(6, 5, 3, padding=1)
        self.skip = nn.Conv2d(4, 5, 1)

    def forward(self, images):
        shallow = torch.relu(self.shallow(images))
        deep = self.deeper(torch.relu(self.deep(shallow)))
        return self.skip(shallow) + nn.functional.interpolate(deep, scale_factor=2)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return Segmenter().eval()


@pytest.fixture(scope="module")
def network():
    return trained_cifarnet("digits")[0]


def moving(frames, step):
    """Frames whose every pixel grows by a step."""
    still = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return still + step * torch.arange(frames)[:, None, None, None]


def ran(run, layer="shallow"):
    made = run.frames.layers.get(layer)
    return list(range(run.frames.frames)) if made is None else np.flatnonzero(made == RUN).tolist()


def test_threshold_0_runs_all_that_differ_and_a_large_one_a_single_frame(segmenter):
    trace = capture(segmenter, moving(6, 0.1))
    every = decide(trace, NoScope(threshold=0), model=segmenter)
    assert ran(every) == [0, 1, 2, 3, 4, 5] and every.output_mse == 0
    for against in ("earlier", "first", "answered"):
        once = decide(trace, NoScope(threshold=1e30, against=against, distance=3), model=segmenter)
        assert ran(once) == [0] and once.frames.answers.tolist() == [0] * 6
        assert once.frames.evidence[0].comparisons.tolist() == [0, 1, 1, 1, 1, 1]


def test_a_slow_change_shows_against_the_last_answer_alone(segmenter):
    # Each frame is 0.1 brighter than the one before: 0.01 squared; 0.04 after two, 0.09 after 3.
    trace = capture(segmenter, moving(7, 0.1))
    earlier = decide(trace, NoScope(threshold=0.05), model=segmenter)
    assert ran(earlier) == [0]
    answered = decide(trace, NoScope(threshold=0.05, against="answered"), model=segmenter)
    assert ran(answered) == [0, 3, 6]
    first = decide(trace, NoScope(threshold=0.05, against="first"), model=segmenter)
    assert ran(first) == [0, 3, 4, 5, 6]
    two = decide(trace, NoScope(threshold=0.02, distance=2), model=segmenter)
    # The second is 0.01 from the first; all after it are 0.04 from the one two before.
    assert ran(two) == [0, 2, 3, 4, 5, 6] and two.frames.answers[1] == 0
    assert two.frames.evidence[0].places == 2
    assert answered.output_mse < earlier.output_mse


def test_of_skipped_frames_the_looked_at_one_answers(segmenter):
    trace = capture(segmenter, moving(7, 0.1))
    run = decide(trace, NoScope(threshold=0.05, against="answered", skip=2), model=segmenter)
    # Looked at are 0, 2, 4, 6: 0.04 from 0, 0.16 from 0, 0.04 from 4.
    assert run.frames.answers.tolist() == [0, 0, 0, 0, 4, 4, 4]
    assert run.frames.evidence[0].comparisons.tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert run.frames.evidence[0].held.tolist() == [True, False, False, False, True, False, False]


def test_blocks_see_what_the_whole_frame_does_not(segmenter):
    frames = moving(2, 0.0)
    frames[1, :, :2, 6:] += 1  # the upper right one of 4 x 4 blocks
    trace = capture(segmenter, frames)
    policy = NoScope(threshold=0.5, blocks=4, weights=(0, 0, 0, 1, *(0,) * 12))
    assert ran(decide(trace, policy, model=segmenter)) == [0, 1]
    assert ran(decide(trace, replace(policy, weights=()), model=segmenter)) == [0]
    # A 16th of the frame differs by 1, in all channels.
    both = trace.inputs[0]
    assert policy.difference(both[1], both[0]) == pytest.approx(1)
    assert replace(policy, weights=()).difference(both[1], both[0]) == pytest.approx(1 / 16)
    assert NoScope(threshold=0).difference(both[1], both[0]) == pytest.approx(1 / 16)
    # Blocks of unequal sizes are means of their own.
    thirds = NoScope(threshold=0, blocks=3)
    found = [
        np.square(both[1] - both[0])[:, top:bottom, left:right].mean()
        for top, bottom in ((0, 2), (2, 5), (5, 8))
        for left, right in ((0, 2), (2, 5), (5, 8))
    ]
    assert thirds.difference(both[1], both[0]) == pytest.approx(np.mean(found))
    with pytest.raises(ConfigError, match=r"blocks must be laid over .* use fewer"):
        decide(trace, NoScope(threshold=0, blocks=9))
    with pytest.raises(ConfigError, match=r"weights must be one for each .* got 3; give 4"):
        NoScope(threshold=0, blocks=2, weights=(1, 1, 1))


def test_the_cost_is_that_of_frames_that_run_and_of_looking(network):
    images = digits("test").take(3).images.repeat_interleave(2, dim=0)
    trace = capture(network, images)
    design = preset("gated_16x16")
    policy = NoScope(threshold=1e-6, against="answered")
    report = simulate(trace, design, policy, model=network)
    half = simulate(capture(network, images[::2]), design, model=network)
    (looking,) = report.reuse.above
    # f_s T_mse + f_m T_full: five comparisons of 3 x 32 x 32 pixels, 16 a cycle, and 8 cycles; of
    # six frames three run. Two frames of 3,072 bytes, at 25.6 bytes a cycle, take 240 cycles.
    assert looking.timing.cycles == 5 * (240 + 8)
    assert looking.timing.bound_by == "dram"
    assert report.reuse.cycles == half.reuse.cycles + looking.timing.cycles
    assert report.agreement == 1 and report.output_mse == pytest.approx(0, abs=1e-9)


def test_inputs_that_are_no_frames_are_refused(segmenter):
    assert NoScope(threshold=1).frames(capture(segmenter, moving(1, 0.1))) is None
    trace = replace(capture(segmenter, moving(2, 0.1)), inputs=None)
    with pytest.raises(ConfigError, match="NoScope must look at inputs of 2 frames, got none"):
        NoScope(threshold=1).frames(trace)


def slow_clockwork(model, frames, rates):
    """Outputs of a segmenter whose stages keep their last results, frame after frame."""
    outputs, last = [], {}
    for place, frame in enumerate(frames):

        def of(name, given, place=place):
            if place % rates.get(name, 1) == 0:
                last[name] = getattr(model, name)(given)
            return last[name]

        shallow = torch.relu(of("shallow", frame[None]))
        deep = of("deeper", torch.relu(of("deep", shallow)))
        outputs.append(of("skip", shallow) + nn.functional.interpolate(deep, scale_factor=2))
    return torch.cat(outputs).detach().numpy()


def test_deep_stages_are_kept_and_joined_with_shallow_ones_of_now(segmenter):
    frames = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    trace = capture(segmenter, frames)
    run = decide(trace, Clockwork(rates="deep=2 deeper=3"), model=segmenter)
    slow = slow_clockwork(segmenter, frames, {"deep": 2, "deeper": 3})
    assert run.output_mse == pytest.approx(np.square(slow - trace.outputs).mean(), rel=1e-4)
    assert ran(run, "deep") == [0, 2, 4, 6] and ran(run, "deeper") == [0, 3, 6]
    assert ran(run, "skip") == list(range(7)) and run.frames.evidence == ()
    macs = {layer.name: layer.gemm.macs for layer in trace.layers}
    assert run.decisions["deep"].macs == macs["deep"] * 4 // 7
    assert run.decisions["skip"] is None
    assert Clockwork(rates="deep*=1").frames(trace) is None
    # No unit is asked for at fixed rates; every row of a kept frame is left out.
    plain = simulate(trace, preset("dense_16x16"), Clockwork(rates="deep*=7"), model=segmenter)
    assert plain.reuse.cycles < plain.dense.cycles and plain.reuse.above == ()
    # The last one's 5 maps of 4 x 4 are joined; nobody reads those that they are made of.
    assert plain.reuse.kept_bytes == 5 * 4 * 4
    both = simulate(trace, preset("dense_16x16"), run)
    assert both.reuse.kept_bytes == 5 * 4 * 4 + 6 * 4 * 4  # read in the fourth frame


def test_stages_adapt_to_what_they_see(segmenter):
    # Four still frames, then another scene.
    one, other = moving(1, 0.0), -moving(1, 0.0)
    frames = torch.cat([one.expand(4, -1, -1, -1), other.expand(3, -1, -1, -1)]).contiguous()
    trace = capture(segmenter, frames)
    policy = Clockwork(changes="deep=0 deeper=0")
    run = decide(trace, policy, model=segmenter)
    assert ran(run, "deep") == ran(run, "deeper") == [0, 4]
    # Kept results are of other products of float32, which round otherwise.
    assert run.output_mse == pytest.approx(0, abs=1e-9)
    first, second = run.frames.evidence
    # The deeper one is looked at only where the deep one ran: else it sees what it saw.
    assert first.comparisons.tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert second.comparisons.tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert (first.elements, second.elements) == (4 * 8 * 8, 6 * 4 * 4)
    never = decide(trace, Clockwork(changes="deep=1e30"), model=segmenter)
    assert ran(never, "deep") == [0] and never.output_mse > 0
    report = simulate(trace, preset("gated_16x16"), policy, model=segmenter)
    assert [each.unit for each in report.reuse.above] == ["frame_differencer"] * 2
    held = [each.timing.kept_bytes for each in report.reuse.above]
    assert held == [first.places * 4 * 8 * 8, second.places * 6 * 4 * 4]
    # Behind a stage at a fixed rate, only its frames are looked at.
    mixed = decide(trace, Clockwork(rates="shallow=3", changes="deep=0"), model=segmenter)
    assert mixed.frames.evidence[0].comparisons.tolist() == [0, 0, 0, 1, 0, 0, 1]
    assert ran(mixed, "deep") == [0, 6]


@pytest.mark.parametrize("rates", ["deep", "deep=0", "deep=1.5", "=2", "deep=2 deep=3", 3])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(ConfigError, match=r"Clockwork.rates must be stages, got .*; try 'layer3"):
        Clockwork(rates=rates)


def test_patterns_that_match_nothing_are_refused(segmenter):
    trace = capture(segmenter, moving(2, 0.1))
    with pytest.raises(ConfigError, match=r"Clockwork.rates pattern 'dep\*' must match a layer"):
        decide(trace, Clockwork(rates="dep*=2"))


def test_the_same_image_stops_at_the_first_cached_layer(network):
    images = digits("test").take(2).images[[0, 1, 0, 1]]
    trace = capture(network, images)
    names = [layer.name for layer in trace.layers]
    policy = CachedAnswers(layers=f"{names[1]} {names[2]}", threshold=1)
    run = decide(trace, policy, model=network)
    assert run.frames.answers.tolist() == [0, 1, 0, 1]
    assert run.output_mse == pytest.approx(0, abs=1e-9)
    assert ran(run, names[0]) == [0, 1, 2, 3]
    assert ran(run, names[1]) == ran(run, names[-1]) == [0, 1]
    first, second = run.frames.evidence
    assert first.sums.tolist() == [1, 1, 1, 1] and second.sums.tolist() == [1, 1, 0, 0]
    # Itself, and as many as were kept.
    assert first.products.tolist() == [1, 2, 3, 3] and second.products.tolist() == [1, 2, 0, 0]
    assert first.kept.tolist() == [True, True, False, False]
    # Where one place is left, the oldest went.
    small = decide(trace, replace(policy, entries=1), model=network)
    assert small.frames.answers.tolist() == [0, 1, 2, 3] and small.output_mse == 0
    dense = decide(trace, replace(policy, threshold=1.01), model=network)
    assert dense.frames.answers.tolist() == [0, 1, 2, 3] and dense.output_mse == 0


def test_cosines_are_those_of_sums_of_maps(network):
    trace = capture(network, digits("test").take(6).images)
    name = trace.layers[1].name
    sums = trace.given(name).sum(axis=(2, 3), dtype=np.float64)
    cosines = sums @ sums.T / np.outer(*[np.linalg.norm(sums, axis=1)] * 2)
    above = np.max(np.tril(cosines, -1))
    low, high = (
        CachedAnswers(layers=name, threshold=float(each)) for each in (above - 1e-6, above + 1e-6)
    )
    assert (low.frames(trace).answers != np.arange(6)).any()
    assert (high.frames(trace).answers == np.arange(6)).all()
    with pytest.raises(ConfigError, match=r"layers must name layers, got 'conv9'; use 'conv"):
        decide(trace, CachedAnswers(layers="conv9", threshold=1))


def test_sums_of_maps_by_hand():
    places = np.arange(3)
    looks = Features(
        layer="conv2",
        channels=10,
        positions=33,
        sums=np.array([1, 1, 0]),
        products=np.array([1, 2, 0]),
        kept=np.array([True, True, False]),
        places=3,
    )
    made = FrameDecisions(
        frames=3,
        layers={"conv2": np.array([RUN, RUN, KEEP], np.int8)},
        answers=np.minimum(places, 1),
        evidence=(looks,),
    )
    unit = FeatureCache(lanes=16, macs=4, capacity_bytes=60, latency_cycles=5)
    ((name, timing),) = above_timings(made, (), roomy_design(feature_cache=unit))
    assert name == "feature_cache"
    # Ten maps of 33 elements, 16 a cycle: 3 cycles each. Features of 10 elements, 4 a cycle: 3
    # cycles a product. (30 + 3 + 5) + (30 + 6 + 5).
    assert timing.cycles == 79
    assert timing.dram_bytes["summed_maps"] == 660
    assert timing.actions["feature_cache", "add"] == 660
    assert timing.actions["feature_cache", "multiply"] == 30
    assert timing.actions["feature_cache", "test"] == 1
    assert timing.actions["feature_cache", "read_word"] == 10
    assert timing.actions["feature_cache", "write_word"] == 20
    small = roomy_design(feature_cache=replace(unit, capacity_bytes=59))
    with pytest.raises(ConfigError, match=r"capacity_bytes must hold 60 bytes .* conv2, got 59"):
        above_timings(made, (), small)


def test_frames_that_run_may_reuse_within(segmenter):
    trace = capture(segmenter, moving(4, 0.1))
    both = Together(NoScope(threshold=0.02, against="answered"), DroppedColumns(fraction=0.25))
    run = decide(trace, both, model=segmenter, calibration=trace)
    assert run.frames.evidence and ran(run) == [0, 2]
    assert run.decisions["shallow"].macs < trace.layer("shallow").gemm.macs // 2
    with pytest.raises(ConfigError, match=r"Together.second must decide on layers"):
        Together(LshReuse(hashes=4, length=9), NoScope(threshold=0.02))
