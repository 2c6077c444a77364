"""The study of Treasure's table: its figures on a network and clips whose answer is known."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from simulator import LshReuse, NoReuse, PerLayer, ReusedForward, decide
from workloads import capture
from workloads.streams import StreamError
from workloads.streams.clips import ClipSet

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(STUDIES))
    yield import_module("014_treasure_table")
    sys.path.remove(str(STUDIES))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 2, 1)
    ).eval()


def clips(count=4, *, flat=True):
    """Frames of one grey (or of noise), half of class 0 and half of class 1."""
    pixels = torch.full((count, 3, 4, 4), 100, dtype=torch.uint8)
    if not flat:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=generator)
    labels = torch.zeros(count, 4, 4, dtype=torch.uint8)
    labels[:, :2] = 1
    return ClipSet(
        pixels=pixels, labels=labels, starts=range(0, count, 2), length=2,
        classes=("below", "above"), source="drawn",
    )  # fmt: skip


@pytest.fixture
def setup(study, tmp_path):
    return study.Setup(
        train=clips(8, flat=False), choose=clips(4, flat=False), judge=clips(4, flat=False),
        out=tmp_path, epochs=(1, 1, 1), trials=0, frames=4, judged=4,
    )  # fmt: skip


def test_frames_all_alike_leave_one_row_each(study):
    # The first layer runs dense. 16 rows of each frame are one: of inputs with 3, 4 and 8 columns,
    # 16 * 3 + 4 + 8 of 16 * 15 elements are left.
    trace = study.traced(network(), clips(), 4)
    policy = study.uniform(trace, 6, 64)
    assert list(policy.policies) == ["2", "3"]
    assert [each.length for each in policy.policies.values()] == [4, 8]
    run = decide(trace, policy)
    assert study.removed(trace, run) == pytest.approx(1 - 60 / 240)
    # Columns 4, 8, 2: macs 12, 32, 16 a row; H / n + r_c + 1 / L of the last two.
    left = 12 + 32 * (6 / 8 + 1 / 16 + 1 / 4) + 16 * (6 / 2 + 1 / 16 + 1 / 8)
    assert study.operations(trace, run, policy) == pytest.approx(left / 60)


def test_nothing_reused_is_all_left(study):
    trace = study.traced(network(), clips(), 2)
    policy = PerLayer({}, NoReuse())
    run = decide(trace, policy)
    assert study.removed(trace, run) == 0
    assert study.operations(trace, run, policy) == 1


def test_frames_are_spread_over_the_clips(study):
    given = clips(8, flat=False)
    chosen = study.spread(given, 3)
    assert torch.equal(chosen.images, given.images(8).images[[0, 2, 4]])


def test_largest_compression_within_a_point_is_chosen(study, setup, monkeypatch):
    offered = [PerLayer({"2": LshReuse(hashes=hashes, length=4)}, NoReuse()) for hashes in (40, 1)]
    monkeypatch.setattr(study, "candidates", lambda *_: iter(offered))
    # As many points may be lost as there are: the coarser hash removes more. None: the finer one.
    found = study.tuned(network(), setup, setup.out / "any", original=-1.0, trials=0)
    assert found["best"]["settings"] == {"2": [1, 4]}
    assert found["within"]
    assert found["points"][1]["removed"] > found["points"][0]["removed"]
    none = study.tuned(network(), setup, setup.out / "none", original=2.0, trials=0)
    assert not none["within"]
    assert found["best"]["dense"] == pytest.approx(capture_score(study, setup), abs=1e-9)
    # What is there is read, not made again.
    monkeypatch.setattr(study, "candidates", None)
    assert study.tuned(network(), setup, setup.out / "any", original=2.0, trials=0) == found


def capture_score(study, setup):
    frames = study.spread(setup.judge, 4)
    trace = capture(network(), frames.images, labels=frames.labels, score="miou")
    return decide(trace, NoReuse(), model=network()).dense_accuracy


def test_what_is_learned_under_reuse_gives_the_outputs_it_was_learned_with(study, setup):
    model, frames = network(), study.spread(setup.train, 8).images
    policy = study.uniform(study.traced(model, setup.train, 8), 2, 4)
    reuse = ReusedForward(policy)
    with torch.no_grad():
        learned_with = reuse(model, frames)
        dense = model(frames)
    assert set(reuse.states) == {"2", "3"}
    run = decide(capture(model, frames), policy, model=model, calibration=reuse.states)
    expected = float((learned_with - dense).square().mean())
    assert expected > 0
    assert run.output_mse == pytest.approx(expected, rel=1e-4)


def test_training_goes_on_from_what_is_there(study, setup):
    aware = study.plan(1, rate=0.01)
    first = study.trained(network(), setup, setup.out / "net", aware)
    again = study.trained(network(), setup, setup.out / "net", aware)
    assert first.seconds == again.seconds
    before = dict(network().named_parameters())
    for name, weight in first.model.named_parameters():
        assert torch.equal(weight, again.model.get_parameter(name))
    assert not torch.equal(first.model.get_parameter("3.weight"), before["3.weight"])


def test_without_frames_it_explains_itself(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["014_treasure_table.py"])
    with pytest.raises(SystemExit) as stopped:
        study.main()
    assert stopped.value.code == 2
    assert "give --camvid FOLDER" in capsys.readouterr().err


def test_missing_frames_are_named(study, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["014", "--camvid", str(tmp_path)])
    with pytest.raises(StreamError, match="train_1hz must hold CamVid's frames"):
        study.main()
