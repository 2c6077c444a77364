"""The small policies of columns, depth, positions, frames and tokens, and models under them."""

import numpy as np
import pytest
import torch

from accelerators import ConfigError
from simulator import (
    DecisionCache,
    DroppedColumns,
    DroppedTokens,
    EveryNthFrame,
    LshReuse,
    PerLayer,
    RegionOfInterest,
    ReusedForward,
    ReusePolicy,
    SkippedOutputs,
    Static,
    VirtualPooling,
    calibrate,
    decide,
    decide_stream,
    load_memory,
    save_memory,
)
from simulator.decisions.frames import KEEP, FrameDecisions
from simulator.kernels.grouping import group_equal
from simulator.running.product import product
from workloads import capture, digits, quantise, trained_cifarnet
from workloads.traces.layer import Convolution, Gemm, Layer


def conv_layer(height, width, images=1):
    return Layer(
        name="conv",
        kind="conv",
        gemm=Gemm(m=images * height * width, n=2, k=9),
        images=images,
        row_images=images,
        convolution=Convolution(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
        input_shape=(images, 1, height, width),
        output_shape=(images, 2, height, width),
        weights_are_parameters=True,
    )


@pytest.fixture(scope="module")
def network():
    return trained_cifarnet("digits")[0]


@pytest.fixture(scope="module")
def frames():
    """Eight frames: four digits, each seen twice."""
    return digits("test").take(4).images.repeat_interleave(2, dim=0)


def test_virtual_pooling_is_exact_on_a_linear_map():
    # A row is (y, x, 1, 0 ...): a product is linear in y and x, inside of the last computed place.
    layer = conv_layer(5, 6)
    rows = np.zeros((1, 30, 9), np.float32)
    rows[0, :, 0], rows[0, :, 1] = np.divmod(np.arange(30), 6)
    rows[0, :, 2] = 1
    weights = np.random.default_rng(0).standard_normal((1, 9, 2)).astype(np.float32)
    made = VirtualPooling().decide(layer, rows, {})
    assert made.rows.computed.tolist() == [0, 2, 4, 12, 14, 16, 24, 26, 28]
    assert made.macs == 9 * 9 * 2
    # Position (1, 1) lies between four, (0, 1) between two; column 5 repeats column 4.
    assert sorted(made.rows.weights[7]) == [0.25] * 4
    assert sorted(made.rows.weights[1]) == [0, 0, 0.5, 0.5]
    result = product(made, rows, weights).reshape(5, 6, 2)
    dense = (rows @ weights).reshape(5, 6, 2)
    np.testing.assert_allclose(result[:, :5], dense[:, :5], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result[:, 5], result[:, 4])


def test_a_region_is_computed_and_the_rest_is_kept(network, frames):
    policy = PerLayer({"conv1": RegionOfInterest(region=(0, 0, 0.5, 1))})
    pair = [capture(network, frames[index : index + 1]) for index in (0, 2)]
    first, second = decide_stream(pair, policy, model=network)
    rows = second.decisions["conv1"].rows
    assert first.decisions["conv1"].remaining_ratio == 1
    assert second.decisions["conv1"].remaining_ratio == 0.5
    assert rows.kept[0].reshape(32, 32)[16:].all() and not rows.kept[0].reshape(32, 32)[:16].any()
    gemms = [trace.rows("conv1") @ trace.weights("conv1") for trace in pair]
    kept = second.memory.tables["conv1"]["results"]
    np.testing.assert_array_equal(kept[0, 512:], gemms[0][0, 512:])
    np.testing.assert_allclose(kept[0, :512], gemms[1][0, :512], rtol=1e-5, atol=1e-5)


def test_kept_results_are_saved_and_go_on_the_same(network, frames, tmp_path):
    policy = PerLayer({"conv*": RegionOfInterest(region=(0.25, 0.25, 0.75, 0.75))})
    traces = [capture(network, frames[index : index + 2]) for index in (0, 2, 4)]
    *_, straight = decide_stream(traces, policy, model=network)
    *_, half = decide_stream(traces[:2], policy, model=network)
    save_memory(half.memory, tmp_path / "memory")
    (resumed,) = decide_stream(
        traces[2:], policy, model=network, memory=load_memory(tmp_path / "memory")
    )
    assert resumed.output_mse == straight.output_mse
    for name, table in straight.memory.tables.items():
        np.testing.assert_array_equal(resumed.memory.tables[name]["results"], table["results"])
    other = [capture(network, frames[:1])]
    with pytest.raises(ConfigError, match=r"memory of layer 'conv1' must hold float32 results"):
        list(decide_stream(other, policy, model=network, memory=half.memory))


def test_dropped_columns_are_those_of_a_pruned_network(network, frames):
    trace = capture(network, frames)
    policy = PerLayer({"conv*": DroppedColumns(columns={"conv1": [0, 5], "conv2": [1]})})
    run = decide(trace, policy, model=network)
    pruned = trained_cifarnet("digits")[0]
    with torch.no_grad():
        pruned.conv1.weight[[0, 5]] = 0
        pruned.conv2.weight[1] = 0
        answers = pruned(frames).argmax(dim=1).numpy()
    np.testing.assert_array_equal(run.answers, answers)
    assert run.decisions["conv1"].macs == trace.layer("conv1").gemm.macs * 62 // 64
    with pytest.raises(ConfigError, match=r"conv1.* must be less than n=64, got 64; name"):
        decide(trace, PerLayer({"conv1": DroppedColumns(columns={"conv1": (64,)})}))


def test_a_fraction_drops_the_smallest_filters(network, frames):
    trace = capture(network, frames)
    run = decide(trace, PerLayer({"conv2": DroppedColumns(fraction=0.5)}), model=network)
    magnitudes = network.conv2.weight.detach().abs().sum(dim=(1, 2, 3)).numpy()
    (sources,) = run.decisions["conv2"].columns.sources
    assert magnitudes[sources < 0].max() < magnitudes[sources >= 0].min()
    assert (sources < 0).sum() == 32


def test_skipped_outputs_are_zero_of_every_image(network, frames):
    mask = np.zeros((1024, 64), bool)
    mask[100, 3] = mask[0] = True
    trace = capture(network, frames)
    policy = SkippedOutputs(masks={"conv1": mask})
    run = decide(trace, policy, model=network)
    made = run.decisions["conv1"]
    result = product(made, trace.rows("conv1"), trace.weights("conv1")).reshape(8, 1024, 64)
    assert not result[:, mask].any() and result[:, 101].any()
    assert made.macs == trace.layer("conv1").gemm.macs - 8 * 65 * made.gemm.k
    assert run.decisions["conv2"] is None


def test_every_second_frame_gives_the_answer_of_the_one_before(network, frames):
    trace = capture(network, frames)
    run = decide(trace, EveryNthFrame(n=2), model=network)
    # Every digit is seen twice, so nothing is lost by remembering.
    assert run.agreement == 1 and run.output_mse < 1e-9
    shifted = frames.roll(1, dims=0)
    run = decide(capture(network, shifted), EveryNthFrame(n=2), model=network)
    answers = network(shifted[::2]).argmax(dim=1).repeat_interleave(2).numpy()
    np.testing.assert_array_equal(run.answers, answers)
    for layer in trace.layers:
        assert run.decisions[layer.name].macs == layer.gemm.macs // 2
    assert run.frames.answers.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_one_layer_may_wait_while_the_others_run(network, frames):
    class Waits(EveryNthFrame):
        def frames(self, trace):
            made = super().frames(trace)
            answers = np.arange(trace.images)
            layers = {"conv2": made.layers["conv2"]}
            return FrameDecisions(frames=made.frames, layers=layers, answers=answers)

    shifted = frames.roll(1, dims=0)
    trace = capture(network, shifted)
    run = decide(trace, Waits(n=4), model=network)
    assert run.decisions["conv1"] is None
    assert run.decisions["conv2"].macs == trace.layer("conv2").gemm.macs // 4
    kept = {}

    def replaced(module, inputs, output):
        kept["seen"] = output[torch.arange(8) // 4 * 4]
        return kept["seen"]

    with torch.no_grad():
        handle = network.conv2.register_forward_hook(replaced)
        expected = network(shifted).argmax(dim=1).numpy()
        handle.remove()
    np.testing.assert_array_equal(run.answers, expected)


def test_frames_that_nothing_here_can_run_are_refused(network, frames):
    class Keeps(EveryNthFrame):
        def frames(self, trace):
            layers = {"conv1": np.array([0] + [KEEP] * 7), "conv9": np.zeros(8, int)}
            return FrameDecisions(frames=8, layers=layers, answers=np.arange(8))

    with pytest.raises(ConfigError) as caught:
        decide(capture(network, frames), Keeps(n=2), model=network)
    (unknown,) = caught.value.violations
    assert "must name layers, got 'conv9'" in unknown
    with pytest.raises(ConfigError, match="must decide on layers alone"):
        PerLayer({"conv1": EveryNthFrame(n=2)})
    with pytest.raises(ConfigError, match=r"ReusedForward\.policy must decide on layers alone"):
        ReusedForward(EveryNthFrame(n=2))


def test_rows_are_shared_in_the_frames_that_run(network, frames):
    class Both(LshReuse):
        def frames(self, trace):
            return EveryNthFrame(n=2).frames(trace)

    trace = capture(network, frames)
    run = decide(trace, Both(hashes=8, length=10, scope="batch"), model=network)
    made = run.decisions["conv1"]
    assert made.rows.kept.mean() == 0.5
    assert made.then.gemm.m == made.gemm.m // 2 and made.macs == made.then.macs


def test_cached_frames_are_told_apart_from_others(network, frames):
    trace, cache = capture(network, frames.roll(1, dims=0)), DecisionCache(2**28)
    runs = [
        decide(trace, EveryNthFrame(n=n), model=network, cache=cache, workload="digits")
        for n in (2, 4, 2)
    ]
    assert cache.hits == len(trace.layers) + 1
    assert runs[0].output_mse == runs[2].output_mse != runs[1].output_mse


def small_vit(depth=3):
    from workloads.models.vision_transformers import ViTS16

    class Small(ViTS16):
        width, heads = 24, 3

    torch.manual_seed(0)
    model = Small(num_classes=5, image_size=48, depth=depth).eval()
    with torch.no_grad():  # random weights, but attention that chooses
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def block_layer(trace, block):
    """The first product of a block."""
    return next(layer.name for layer in trace.layers if f"layers.{block}." in layer.name)


@pytest.mark.parametrize("images", [1, 3])
def test_a_vision_transformer_without_tokens_is_one_that_never_had_them(images):
    model = small_vit()
    given = torch.randn(images, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    trace = capture(model, given)
    dropped = (2, 3, 7)
    policy = DroppedTokens(first_layer=block_layer(trace, 1), dropped=dropped)
    run = decide(trace, policy, model=model)
    living = [token for token in range(10) if token not in dropped]
    with torch.no_grad():
        hidden = model.vit.embeddings(given)
        for place, block in enumerate(model.vit.layers):
            hidden = block(hidden[:, living] if place == 1 else hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        expected = model.classifier(model.vit.layernorm(hidden)[:, 0]).numpy()
    known = trace.outputs
    assert np.isclose(run.output_mse, np.square(expected - known).mean(), rtol=1e-3)
    assert run.output_mse > 1e-8  # the tokens mattered
    for layer in trace.layers:
        made, gemm = run.decisions[layer.name], layer.gemm
        if "layers.1." not in layer.name and "layers.2." not in layer.name:
            assert made is None
        elif layer.kind.startswith("attention"):
            assert made.macs == gemm.macs * 49 // 100
        else:
            assert made.macs == gemm.macs * 7 // 10


def test_images_may_lose_different_tokens():
    class Own(DroppedTokens):
        def tokens(self, trace):
            plan = super().tokens(trace)
            (name,) = plan.stands_for
            plan.stands_for[name][0] = np.arange(10)  # the first image keeps all
            return plan

    model = small_vit()
    given = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    trace = capture(model, given)
    first = block_layer(trace, 1)
    both = decide(trace, DroppedTokens(first_layer=first, dropped=(2, 3)), model=model)
    run = decide(trace, Own(first_layer=first, dropped=(2, 3)), model=model)
    assert np.isclose(run.output_mse, both.output_mse / 2, rtol=0.9)
    scores = next(x for x in trace.layers if x.kind == "attention_scores" and "1." in x.name)
    assert run.decisions[scores.name].macs == scores.gemm.macs * 164 // 200  # (100 + 64) / 200


def test_tokens_that_are_not_there_are_refused():
    model = small_vit(depth=1)
    trace = capture(model, torch.zeros(1, 3, 48, 48))
    for first, dropped in (("nowhere", (1,)), (block_layer(trace, 0), (10,))):
        with pytest.raises(ConfigError, match="must be a layer with attention of more than"):
            decide(trace, DroppedTokens(first_layer=first, dropped=dropped), model=model)
    assert not ReusePolicy.is_above_layers.fget(VirtualPooling())


def test_a_subclass_is_clustered_as_it_says_not_as_it_inherits(network, frames):
    class FirstOnly(LshReuse):
        """Every row in a cluster of its own, whatever the signatures."""

        def clusterer(self, layer, groups, state):
            def cluster(index, columns, order):
                sub_matrices = self.sub_matrices_in(layer)
                keys = np.tile(np.arange(columns.shape[1], dtype=np.uint64), (sub_matrices, 1))
                return group_equal(keys, columns[order], self.length, groups, "first")

            return cluster

        def evidence(self, layer, signatures):
            return Static()

    trace = capture(network, frames[:2])
    for policy in (FirstOnly(hashes=2, length=15), PerLayer({"*": FirstOnly(hashes=2, length=15)})):
        run = decide(trace, policy, model=network)
        assert run.decisions["conv1"].remaining_ratio == 1
        assert run.output_mse < 1e-6
    run = decide(trace, LshReuse(hashes=2, length=15), model=network)
    assert run.decisions["conv1"].remaining_ratio < 0.1


def test_an_order_of_ones_own_is_read_from_a_feature_map_too(network, frames):
    class Backwards(LshReuse):
        def column_order(self, layer):
            return np.arange(layer.gemm.k)[::-1].copy() if layer.kind == "conv" else None

    trace = capture(network, frames[:2])
    policy = Backwards(hashes=6, length=15, scope="batch")
    states = calibrate(trace, policy)
    run = decide(trace, policy, calibration=states)
    for name in ("conv1", "conv2"):
        layer = trace.layer(name)
        made = policy.decide(layer, trace.rows(name), states[name])
        np.testing.assert_array_equal(run.decisions[name].rows.ids, made.rows.ids)


def test_an_integer_array_keeps_whole_results(network, frames):
    quantised = quantise(trained_cifarnet("digits")[0], frames)
    pair = [capture(quantised, frames[index : index + 1]) for index in (0, 2)]
    policy = PerLayer({"conv*": RegionOfInterest(region=(0, 0, 0.5, 1))})
    _, run = decide_stream(pair, policy, model=quantised)
    kept, layer = run.memory.tables["conv1"]["results"], pair[1].layer("conv1")
    steps = [layer.quantisation.steps(each.rows("conv1")) for each in pair]
    dense = [each @ pair[0].weights("conv1") for each in steps]
    np.testing.assert_allclose(kept[:, :512], dense[1][:, :512], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(kept[:, 512:], dense[0][:, 512:], rtol=1e-5, atol=1e-3)
