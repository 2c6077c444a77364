"""`codesign train` on a few small frames in CamVid's layout."""

import csv
import json
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from codesign.cli import app as cli
from workloads import WorkloadTrace
from workloads.models import load, load_weights, read_metadata, save_weights
from workloads.training import similarity

NETWORK = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, num_classes=11):
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A network's file and a drive of six frames."""
    path = tmp_path_factory.mktemp("camvid")
    (path / "tiny.py").write_text(NETWORK)
    write_drive(path)
    return path


def write_drive(path):
    """Six frames in CamVid's layout: road below, sky above."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (path / folder).mkdir()
    for number in range(6):
        pixels = rng.integers(0, 100, (12, 16, 3), np.uint8)
        pixels[:6] += 150
        labels = np.full((12, 16), 3, np.uint8)
        labels[:6] = 0
        Image.fromarray(pixels).save(path / "images" / f"a_{number:03}.png")
        Image.fromarray(labels).save(path / "labels" / f"a_{number:03}.png")


def train(place, out, *more: str, code: int = 0):
    arguments = ["train", "--data", f"camvid:{place}", "--model", f"{place / 'tiny.py'}:Tiny"]
    arguments += ["--size", "12x16", "--batch", "2", "--out", str(out), *more]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def test_trains_under_reuse_and_goes_on(place, tmp_path):
    reuse = ("--hashes", "4", "--length", "8", "--layer", "0=dense", "--learning-rate", "0.1")
    _, told = train(place, tmp_path / "out", *reuse, "--epochs", "2", "--limit", "4")
    assert "epoch 2/2: loss" in told
    assert "removed fraction 0." in told
    shown, told = train(
        place, tmp_path / "out", *reuse, "--epochs", "3", "--limit", "4", "--resume",
        "--validation", f"camvid:{place}",
    )  # fmt: skip
    assert "Tiny on 2 clips" in shown
    assert "epoch 3/3" in shown
    assert "validation miou" in shown
    with (tmp_path / "out" / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    weights = tmp_path / "out" / "weights.safetensors"
    assert "CamVid" in read_metadata(weights)["clips"]
    assert told.splitlines()[-1].endswith(
        f"codesign simulate TRACE --model {place / 'tiny.py'}:Tiny --weights {weights} "
        "--hashes 4 --length 8 --layer 0=dense --calibrate-under-reuse"
    )


def test_trains_under_a_policy_by_name_in_mixed_precision(place, tmp_path):
    reuse = ["--policy", "LshReuse"]
    for each in ("hashes=4", "length=3", "look_once=true", "scope=tile", "tile_rows=48"):
        reuse += ["--policy-set", each]
    reuse += ["--layer", "2=dense"]
    out = tmp_path / "out"
    _, told = train(place, out, *reuse, "--epochs", "1", "--precision", "bfloat16")
    assert "removed fraction 0." in told
    reused = json.loads(read_metadata(out / "weights.safetensors")["reuse"])
    assert reused["default"]["look_once"] is True
    assert told.splitlines()[-1].endswith(shlex.join([*reuse, "--calibrate-under-reuse"]))
    # Leaders learn nothing, and `simulate` refuses to calibrate what learns nothing.
    leaders = ["--policy", "LeaderReuse", "--policy-set", "tolerance=0.2", "--layer", "2=dense"]
    _, told = train(place, tmp_path / "leaders", *leaders, "--epochs", "1")
    assert told.splitlines()[-1].endswith(shlex.join(leaders))
    _, told = train(place, tmp_path / "both", *reuse, "--hashes", "4", code=2)
    assert "--policy must stand without --hashes" in told
    _, told = train(place, tmp_path / "idle", "--policy-set", "hashes=4", code=2)
    assert "--policy-set must come with --policy" in told


@pytest.mark.slow
def test_the_small_segmenter_learns_under_look_once_reuse_in_tiles(place, tmp_path):
    reuse = ["--policy", "LshReuse", "--layer", "conv1=dense"]
    for each in ("hashes=16", "length=16", "look_once=true", "scope=tile", "tile_rows=160"):
        reuse += ["--policy-set", each]
    _, told = train(
        place, tmp_path / "out", "--model", "resnet18_camvid", "--size", "60x80", *reuse,
        "--epochs", "6", "--optimizer", "adamw", "--learning-rate", "0.001",
    )  # fmt: skip
    with (tmp_path / "out" / "curves.csv").open() as file:
        losses = [float(row["task"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 2
    assert "removed fraction 0." in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_told_at_once(tmp_path):
    _, told = train(tmp_path / "no clips", tmp_path / "out", "--device", "cuda", code=2)
    assert "device must be auto or one that PyTorch has here, got 'cuda'" in told


def test_settings_for_random_weights(place, tmp_path):
    every = tmp_path / "drive"
    shutil.copytree(place / "images", every / "images")
    (every / "labels").mkdir()
    labels = (np.arange(12 * 16).reshape(12, 16) // 4 % 12).astype(np.uint8)
    labels[6:9] = 0  # of classes that show alike, balanced weights would be alike
    for image in every.glob("images/*"):
        Image.fromarray(labels).save(every / "labels" / image.name)
    settings = ("--optimizer", "adamw", "--weight-decay", "0.01", "--flips", "--epochs", "1")
    found = {}
    for name, more in (("plain", []), ("balanced", ["--balanced"])):
        train(place, tmp_path / name, *settings, *more, "--data", f"camvid:{every}")
        path = tmp_path / name / "weights.safetensors"
        plan = json.loads(read_metadata(path)["plan"])
        assert (plan["optimizer"], plan["weight_decay"], plan["flips"]) == ("adamw", 0.01, True)
        found[name] = json.loads(read_metadata(path)["last_epoch"])["task"]
    assert found["plain"] != found["balanced"]


def test_classes_never_labelled(place, tmp_path):
    train(place, tmp_path, "--epochs", "1", "--classes", "12")
    load_weights(
        load(f"{place / 'tiny.py'}:Tiny", num_classes=12), tmp_path / "weights.safetensors"
    )


def test_similarity_aware_after_quantisation_aware(place, tmp_path):
    plain = ("--precision", "int8", "--intra-weight", "0", "--inter-weight", "0")
    _, told = train(place, tmp_path / "plain", *plain, "--epochs", "1")
    assert "intra-frame" not in told and "cluster average" not in told
    first = tmp_path / "plain" / "weights.safetensors"
    _, told = train(
        place, tmp_path / "aware", "--precision", "int8", "--weights", str(first), "--epochs", "1",
        "--cluster-average-weight", "0.1",
    )  # fmt: skip
    assert "intra-frame" in told and "cluster average" in told
    # Captured and simulated with these weights, the network is on the grids that it learned on.
    weights, trace = tmp_path / "aware" / "weights.safetensors", tmp_path / "trace"
    model = ["--model", f"{place / 'tiny.py'}:Tiny", "--weights", str(weights)]
    frames = ["--inputs", f"camvid:{place}", "--images", "2"]
    result = CliRunner().invoke(cli.app, ["capture", *model, *frames, "--out", str(trace)])
    assert result.exit_code == 0, result.output
    assert all(layer.quantisation for layer in WorkloadTrace.load(trace).layers)
    simulated = ["simulate", str(trace), *model, "--hashes", "4", "--length", "8"]
    result = CliRunner().invoke(cli.app, [*simulated, "--calibrate-under-reuse"])
    assert result.exit_code == 0, result.output
    assert "mean IoU" in result.output


def test_interrupted_training_tells_how_to_go_on(place, tmp_path, monkeypatch):
    """In the second epoch there is something to go on from, in the first there is not."""
    whole = similarity._Training.epoch
    before = 1

    def stop(training, *given):
        if len(training.reports) == before:
            raise KeyboardInterrupt
        return whole(training, *given)

    monkeypatch.setattr(similarity._Training, "epoch", stop)
    _, told = train(place, tmp_path / "second", "--epochs", "3", code=130)
    assert "the last whole epoch is kept. Go on with: codesign" in told
    before = 0
    _, told = train(place, tmp_path / "first", code=130)
    assert "Stopped; nothing is kept yet." in told
    assert "--resume" not in told


@pytest.fixture(scope="module")
def lanes(tmp_path_factory):
    """Two sequences in TvtLane's layout: a bright column is the lane."""
    path = tmp_path_factory.mktemp("tvtlane")
    for folder in ("image", "truth"):
        (path / folder).mkdir()
    mask = np.zeros((16, 32), np.uint8)
    mask[:, 12:16] = 255
    for sequence in (1, 2):
        for frame in range(9, 14):
            Image.fromarray(np.stack([mask] * 3, -1)).save(path / f"image/{sequence}_{frame}.jpg")
        Image.fromarray(mask).save(path / f"truth/{sequence}_13.jpg")
    return path


def test_lanes_labelled_by_people(place, lanes, tmp_path):
    _, told = train(place, tmp_path, "--data", f"tvtlane:{lanes}", "--epochs", "1")
    assert "training f1" in told
    assert (
        "Tiny on 2 clips"
        in train(place, tmp_path, "--data", f"tvtlane:{lanes}", "--epochs", "1", "--resume")[0]
    )


def test_lanes_labelled_by_a_teacher(place, lanes, tmp_path):
    """Scenes become lanes, and lanes labelled by people stay as they are."""
    teacher = tmp_path / "teacher.safetensors"
    save_weights(load("twinlitenet"), teacher)
    data = ("--teacher", str(teacher), "--limit", "2", "--epochs", "1")
    _, told = train(place, tmp_path / "out", *data, "--validation", f"tvtlane:{lanes}")
    assert "validation f1" in told
    source = read_metadata(tmp_path / "out" / "weights.safetensors")["clips"]
    assert "labelled by TwinLiteNet (teacher.safetensors, SHA-256" in source
    _, told = train(place, tmp_path / "no", *data, "--data", f"tvtlane:{lanes}", code=2)
    assert "--teacher must come with clips that lack lanes, got --data tvtlane" in told


def test_validation_with_other_classes_is_refused(place, lanes, tmp_path):
    _, told = train(place, tmp_path, "--validation", f"tvtlane:{lanes}", code=2)
    assert "--validation must have the classes of --data, sky, building" in told
    assert "got other, lane; give clips of the same kind" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data", "kitti:somewhere"],
            "--data must be KIND:FOLDER with KIND camvid, apolloscape_scenes",
        ),
        (["--data", "camvid:nowhere"], "nowhere must hold CamVid's frames"),
        (["--validation", "camvid"], "--validation must be KIND:FOLDER"),
        (["--size", "12"], "--size must be HEIGHTxWIDTH, got '12'"),
        (["--classes", "3"], "--classes must be at least the 11 of the clips, got 3"),
        (["--balanced"], "every class must occur in the training clips, got no pixel of building"),
        (["--epochs", "0"], "TrainingPlan.epochs must be an integer from 1"),
        (["--hashes", "4"], "--hashes and --length must be given together"),
        (["--resume"], "has no checkpoint to go on from"),
        (["--learning-rate", "1e30"], "must stay finite, got NaN or infinity at epoch"),
    ],
)
def test_wrong_input_gets_one_message(place, tmp_path, options, message):
    _, told = train(place, tmp_path, *options, code=2)
    assert message in told
    assert "Traceback" not in told
