"""CifarNet on real digits in 8 bits: after training, by training, pruned, from the command line."""

import copy
import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from accelerators import ConfigError, preset
from codesign import load_workload
from codesign.cli.app import app
from simulator import LshReuse, PerLayer, decide, simulate
from workloads import (
    capture,
    digits,
    prune,
    quantisation_aware,
    quantise,
    trained_cifarnet,
)
from workloads.streams import ImageSet
from workloads.training import TrainingError, accuracy_of

POINT = 0.01


@pytest.fixture(scope="module")
def trained():
    return trained_cifarnet("digits")


@pytest.fixture(scope="module")
def quantised(trained):
    return quantise(trained[0], digits("train").take(50).images)


def test_8_bits_keep_the_accuracy(trained, quantised):
    assert accuracy_of(quantised, digits("test")) >= trained[1] - POINT


def test_reuse_on_integers_costs_no_more_than_on_floats(trained, quantised):
    """Rounding centroids adds at most a half step's error to that of sharing them."""
    images, others = digits("test").take(40), digits("train").take(20)
    policy = PerLayer({"conv*": LshReuse(hashes=10, length=10)})
    runs = []
    for model in (trained[0], quantised):
        trace = capture(model, images.images, labels=images.labels)
        runs.append(decide(trace, policy, model=model, calibration=capture(model, others.images)))
    in_floats, in_integers = runs
    assert in_integers.dense_accuracy == in_floats.dense_accuracy
    assert abs(in_integers.accuracy - in_floats.accuracy) <= 1 / 40 + 1e-9
    for name in ("conv1", "conv2"):
        floats, integers = (run.decisions[name].remaining_ratio for run in runs)
        assert integers == pytest.approx(floats, rel=0.1)


def test_the_report_says_what_the_accuracy_was_computed_in(quantised, tmp_path):
    images = digits("test").take(5)
    trace = capture(quantised, images.images, labels=images.labels)
    report = simulate(trace, preset("dense_16x16"))
    written = json.loads(report.write_json(tmp_path / "report.json").read_text())
    assert written["workload"]["precision"] == "int8"
    page = report.write_html(tmp_path / "report.html").read_text()
    assert "computed in" in page
    assert "weights that are 0" in page  # rounding made some


def test_pruned_weights_stay_zero_while_the_others_learn_in_8_bits(trained):
    model, accuracy = trained
    pruned = prune(model, 0.5)
    before = copy.deepcopy(pruned.state_dict())
    test = digits("test")
    learned, result = quantisation_aware(
        pruned, digits("train").take(320), test, epochs=1, batch_size=32
    )
    assert result.accuracy == accuracy_of(learned, test)
    assert result.accuracy >= accuracy - POINT
    trace = capture(learned, test.take(2).images)
    assert trace.provenance["precision"] == "int8"
    assert min(trace.provenance["zero_weights"].values()) >= 0.5
    assert (learned.conv2.weight[pruned.conv2.weight == 0] == 0).all()
    assert not torch.equal(learned.conv2.bias, pruned.conv2.bias)
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10), nn.Linear(10, 10))


def test_input_ranges_are_learned_from_training_images_alone():
    train, test = digits("train").take(64), digits("test").take(32)
    loud = ImageSet(
        images=50 * test.images, labels=test.labels, classes=test.classes, source="loud"
    )
    quiet, _ = quantisation_aware(small(), train, test, epochs=2, batch_size=16)
    other, _ = quantisation_aware(small(), train, loud, epochs=2, batch_size=16)
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in quiet.state_dict().items()
    )


def test_training_learns_through_the_rounding():
    """From random weights: only gradients that pass the rounding can teach the first layer."""
    train = digits("train").take(256)
    learned, result = quantisation_aware(
        small(), train, digits("test").take(64), epochs=10, batch_size=32, learning_rate=1e-2
    )
    assert result.accuracy > 0.8
    assert not learned.training
    # The same structure as quantisation after training gives.
    after = quantise(small(), train.images[:8])
    assert set(after.state_dict()) == set(learned.state_dict())


def test_bad_arguments_are_those_of_training():
    train, test = digits("train").take(8), digits("test").take(8)
    with pytest.raises(TrainingError, match="epochs must be a whole number of at least 1"):
        quantisation_aware(small(), train, test, epochs=0)
    with pytest.raises(TrainingError, match="batch_size must be a whole number of at least 1"):
        quantisation_aware(small(), train, test, epochs=1, batch_size=-1)
    with pytest.raises(TrainingError, match="must stay finite"):
        quantisation_aware(
            small(), train, test, epochs=3, batch_size=4, learning_rate=1e36, optimizer="sgd"
        )


def test_the_command_line_captures_and_replays_8_bits(trained, tmp_path):
    trace, out = tmp_path / "trace", tmp_path / "report.json"
    runner = CliRunner()

    def run(*words):
        return runner.invoke(app, [str(word) for word in words])

    done = run("capture", "--images", 10, "--out", trace, "--precision", "int8")
    assert done.exit_code == 0, done.output
    done = run("simulate", trace, "--layer", "conv2=10,10", "--model", "cifarnet", "--json", out)
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["workload"]["precision"] == "int8"
    assert report["accuracy"] >= 0.8
    done = run("capture", "--out", tmp_path / "other", "--precision", "int4")
    assert done.exit_code == 2
    assert "precision must be one of float32, int8, got 'int4'" in done.stderr


def test_ranges_need_images_of_their_own():
    with pytest.raises(ConfigError, match="calibration_images must be at least 1 for precision='i"):
        load_workload(
            model="cifarnet", inputs="digits", images=4, calibration_images=0, precision="int8"
        )
