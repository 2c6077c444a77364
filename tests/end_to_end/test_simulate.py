"""From a model to a report: one decision feeds accuracy, timing and cost."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from accelerators import ConfigError, preset
from simulator import (
    HyperCubeReuse,
    KMeansReuse,
    LshReuse,
    NoReuse,
    PerforationReuse,
    PerLayer,
    calibrate,
    decide,
    simulate,
)
from workloads import WorkloadTrace, capture


class TwoLayers(nn.Module):
    """A convolution and a classifier, small enough for a test."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, padding=2)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        return self.head(torch.relu(self.conv(images)).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TwoLayers().eval()


@pytest.fixture(scope="module")
def images():
    smooth = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(smooth, size=16, mode="bilinear")


@pytest.fixture(scope="module")
def trace(model, images):
    return capture(model, images, labels=np.arange(6) % 4)


def reused_by_hand(model, images, policy, state):
    """The model's outputs with the convolution's rows replaced by their centroids."""
    rows = nn.functional.unfold(images, 5, padding=2).permute(0, 2, 1).reshape(-1, 75).numpy()
    projections, mean = policy.projections("conv"), state["conv"]["mean"][0]
    for image in range(len(images)):
        part = rows[image * 256 : (image + 1) * 256]
        for first in range(0, 75, policy.length):
            columns = slice(first, first + policy.length)
            width = part[:, columns].shape[1]
            bits = (part[:, columns] - mean[columns]) @ projections[:, :width].T > 0
            _, cluster = np.unique(bits, axis=0, return_inverse=True)
            for index in np.unique(cluster):
                part[cluster == index, columns] = part[cluster == index, columns].mean(axis=0)
    weights = model.conv.weight.detach().numpy().reshape(8, 75)
    result = torch.from_numpy(rows @ weights.T + model.conv.bias.detach().numpy())
    feature_map = result.reshape(len(images), 256, 8).permute(0, 2, 1).reshape(-1, 8, 16, 16)
    return model.head(torch.relu(feature_map).mean(dim=(2, 3))).detach().numpy()


def test_outputs_are_those_of_shared_rows(model, images, trace):
    policy = LshReuse(hashes=6, length=10, thresholds="mean")
    states = calibrate(trace, policy)
    run = decide(trace, PerLayer({"conv": policy}), model=model, calibration=states)
    expected = reused_by_hand(model, images, policy, states)
    error = ((expected - trace.outputs) ** 2).mean()
    # The model's float32 outputs differ in the last bits, and so does their small error.
    assert run.output_mse == pytest.approx(error, rel=1e-3)
    assert run.agreement == (expected.argmax(1) == trace.outputs.argmax(1)).mean()
    assert run.accuracy == (expected.argmax(1) == trace.labels).mean()
    assert run.dense_accuracy == (trace.outputs.argmax(1) == trace.labels).mean()
    assert 0 < run.relative_mse["conv"] < 1


def test_error_of_a_layer_leaves_out_the_bias(model, trace):
    policy = PerLayer({"conv": LshReuse(hashes=6, length=10)})
    run = decide(trace, policy, model=model)
    # The first layer sees the recorded rows in both ways; float32 sums in two orders.
    recorded = decide(trace, policy)
    assert run.relative_mse == pytest.approx(recorded.relative_mse, rel=1e-3)
    plain = decide(trace, policy, model=model, layer_errors=False)
    assert plain.relative_mse == {}
    assert plain.output_mse == run.output_mse
    np.testing.assert_array_equal(plain.decisions["conv"].rows.ids, run.decisions["conv"].rows.ids)


def test_model_whose_images_depend_on_each_other_is_checked_on_all():
    class Centred(TwoLayers):
        def forward(self, images):
            return super().forward(images - images.mean(dim=0))

    torch.manual_seed(0)
    model = Centred().eval()
    trace = capture(model, torch.randn(3, 3, 16, 16))
    policy = PerLayer({"conv": LshReuse(hashes=6, length=10)})
    assert decide(trace, policy, model=model).agreement is not None
    with pytest.raises(ConfigError, match="must answer as it did"):
        decide(trace, policy, model=Centred().eval())


def test_timing_replays_the_decisions_of_the_functional_path(model, trace):
    policy = PerLayer({"conv": LshReuse(hashes=6, length=10)})
    run = decide(trace, policy, model=model)
    design = preset("reuse_16x16")
    report, again = simulate(trace, design, run), simulate(trace, design, policy, model=model)
    assert report.to_dict() == again.to_dict()
    conv = report.reuse.layers[0]
    assert conv.timing.macs == run.decisions["conv"].macs < conv.layer.gemm.macs
    assert conv.remaining_ratio == run.decisions["conv"].remaining_ratio
    head = report.reuse.layers[1]
    assert head.remaining_ratio is None
    assert head.timing.macs == head.layer.gemm.macs


def test_without_the_model_accuracy_is_unknown(trace):
    policy = PerLayer({"conv": LshReuse(hashes=6, length=10)})
    report = simulate(trace, preset("reuse_16x16"), policy)
    assert report.accuracy is None
    assert report.agreement is None
    assert report.reuse.layers[0].relative_mse is not None


def test_many_hashes_on_whole_clusters_change_nothing(model, trace):
    # With 62 hashes on sub-vectors of one element, only rows on one side of every threshold share.
    run = decide(trace, PerLayer({"conv": LshReuse(hashes=62, length=75)}), model=model)
    dense = decide(trace, NoReuse(), model=model)
    assert dense.output_mse == 0
    assert dense.agreement == 1
    assert (
        run.output_mse
        < decide(trace, PerLayer({"conv": LshReuse(hashes=4, length=75)}), model=model).output_mse
    )


def test_saved_trace_gives_the_same_report(model, trace, tmp_path):
    trace.save(tmp_path / "trace")
    loaded = WorkloadTrace.load(tmp_path / "trace")
    policy = PerLayer({"conv": LshReuse(hashes=6, length=10)})
    design = preset("reuse_16x16")
    assert (
        simulate(loaded, design, policy, model=model).to_dict()
        == simulate(trace, design, policy, model=model).to_dict()
    )


def test_report_files(model, trace, tmp_path):
    report = simulate(
        trace, preset("reuse_16x16"), PerLayer({"conv": LshReuse(hashes=6, length=10)}), model=model
    )
    stored = json.loads(report.write_json(tmp_path / "report.json").read_text())
    assert stored["speedup_equal_area"] == report.speedup_equal_area
    for design in stored["designs"].values():
        assert sum(design["area_by_part_mm2"].values()) == pytest.approx(design["area_mm2"])
        assert sum(layer["cycles"] for layer in design["layers"]) == design["cycles"]
        assert sum(design["energy_pj"].values()) == pytest.approx(
            sum(sum(layer["energy_pj"].values()) for layer in design["layers"])
        )
    lines = report.write_csv(tmp_path / "report.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2
    assert lines[0].startswith("design,layer,kind,m,n,k,")


def test_a_policy_for_layers_that_do_not_exist_is_refused(trace):
    policy = PerLayer({"convolution*": LshReuse(hashes=4, length=5)})
    with pytest.raises(ConfigError, match=r"'convolution\*' must match a .* are conv, head"):
        simulate(trace, preset("reuse_16x16"), policy)


def test_a_calibration_of_another_model_is_refused(trace):
    other = capture(nn.Linear(4, 4), torch.randn(2, 4))
    with pytest.raises(ConfigError, match="calibration must hold every layer"):
        decide(trace, PerLayer({"conv": LshReuse(hashes=4, length=5)}), calibration=other)


def test_another_model_is_refused(trace):
    with pytest.raises(ConfigError, match="model must run the layers of the trace"):
        decide(trace, NoReuse(), model=nn.Sequential(nn.Conv2d(3, 8, 5)))


def test_a_model_with_other_weights_is_refused(trace):
    torch.manual_seed(1)
    with pytest.raises(ConfigError, match="model must answer as it did"):
        decide(trace, NoReuse(), model=TwoLayers().eval())


def test_decisions_made_on_another_trace_are_refused(model, trace):
    run = decide(trace, PerLayer({"conv": LshReuse(hashes=6, length=10)}), model=model)
    fewer = capture(model, torch.zeros(2, 3, 16, 16))
    with pytest.raises(ConfigError) as caught:
        simulate(fewer, preset("reuse_16x16"), run)
    assert len(caught.value.violations) == 2
    assert "decisions on layer 'conv'" in caught.value.violations[0]
    assert "on 2 images, got 6" in caught.value.violations[1]
    other = capture(nn.Linear(4, 4), torch.randn(6, 4))
    with pytest.raises(ConfigError, match="got none; make them with decide"):
        simulate(other, preset("reuse_16x16"), run)


def test_a_model_beside_decisions_is_refused(model, trace):
    run = decide(trace, NoReuse(), model=model)
    with pytest.raises(ConfigError, match=r"pass them to decide\(\) instead"):
        simulate(trace, preset("reuse_16x16"), run, model=model)


def test_wrong_arguments_are_all_named():
    with pytest.raises(ConfigError) as caught:
        simulate("trace", "reuse_16x16", (10, 10))
    assert [message.split()[0] for message in caught.value.violations] == [
        "simulate.trace",
        "simulate.accelerator",
        "simulate.policy",
    ]


def test_the_verdict_does_not_praise_what_costs_accuracy(model, trace):
    design = preset("reuse_16x16")
    report = simulate(trace, design, PerLayer({"conv": LshReuse(hashes=1, length=75)}), model=model)
    lossy = replace(report, accuracy=0.5, dense_accuracy=0.9, intervals={})
    assert lossy.verdict.startswith("Reuse costs too much accuracy here")
    assert "accuracy 50.0 % (-40.0 points)" in lossy.verdict
    unknown = replace(report, accuracy=None, agreement=None, output_mse=None)
    assert "accuracy unknown (the model was not run)" in unknown.verdict


def test_outputs_without_a_class_dimension_have_no_accuracy():
    torch.manual_seed(0)
    tokens = nn.Linear(8, 8)
    trace = capture(tokens, torch.randn(4, 5, 8))
    run = decide(trace, LshReuse(hashes=8, length=4), model=tokens)
    assert run.agreement is None
    assert run.output_mse > 0


def test_huge_activations_give_finite_errors():
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    trace = capture(layer, 1e25 * torch.randn(16, 8))
    run = decide(trace, LshReuse(hashes=4, length=4, scope="batch"), model=layer)
    assert 0 < run.relative_mse[trace.layers[0].name] < 2
    assert np.isfinite(run.output_mse)


@pytest.mark.parametrize(
    "policy",
    [
        LshReuse(hashes=8, length=9, learning="task", order="channels_last"),
        LshReuse(hashes=8, length=9, normalised=True, representative="first"),
        KMeansReuse(clusters=0.2, length=9),
        HyperCubeReuse(bins=4, dimensions=3, length=9),
        PerforationReuse(computed=0.5),
    ],
    ids=lambda policy: policy.describe()["policy"],
)
def test_every_clustering_runs_under_a_model(trace, model, policy):
    run = decide(trace, PerLayer({"conv": policy}), model=model)
    # Smooth images: sharing results among like rows keeps most of the layer's answer.
    assert 0 < run.relative_mse["conv"] < 0.5
    assert run.decisions["conv"].remaining_ratio < 1
    design = preset("reuse_16x16")
    lacking = [unit for unit in run.decisions["conv"].units if not getattr(design, unit, None)]
    if not lacking:
        simulate(trace, design, run)
    else:
        with pytest.raises(ConfigError, match=rf"{lacking[0]}.*") as caught:
            simulate(trace, design, run)
        assert "decisions of layer 'conv'" in str(caught.value)


@pytest.mark.parametrize("counted", [True, False])
def test_a_captured_model_whose_weights_are_written_is_asked_again(counted):
    torch.manual_seed(0)
    model = TwoLayers().eval()
    trace = capture(model, torch.randn(2, 3, 16, 16))
    decide(trace, NoReuse(), model=model)
    weight = next(model.parameters())
    if counted:
        with torch.no_grad():
            weight[-1, -1, -1, -1] += 10
    else:
        weight.data.mul_(2)
    with pytest.raises(ConfigError, match="must answer as it did"):
        decide(trace, NoReuse(), model=model)


def test_a_captured_model_is_run_densely_once_before_it_is_reused():
    torch.manual_seed(0)
    model = TwoLayers().eval()
    trace = capture(model, torch.randn(1, 3, 16, 16))
    runs = []
    model.register_forward_hook(lambda *_: runs.append(None))
    for _ in range(3):
        decide(trace, NoReuse(), model=model)
    assert len(runs) == 4
