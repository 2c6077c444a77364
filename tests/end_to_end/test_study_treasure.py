"""The studies of Treasure: their figures on a network and clips whose answer is known."""

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn

from accelerators import ConfigError
from codesign import Workload
from simulator import ReusedForward, decide
from workloads.models.load import MODELS
from workloads.streams import StreamError
from workloads.streams.clips import ClipSet
from workloads.training.tasks import SceneParsing


@pytest.fixture(scope="module")
def shared():
    """What the studies share."""
    return import_module("streets")


@pytest.fixture(scope="module")
def table(shared):
    return import_module("014_treasure_table")


@pytest.fixture(scope="module")
def designs(shared):
    return import_module("treasure_designs")


@pytest.fixture(scope="module")
def terms(shared):
    return import_module("016_treasure_terms")


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
def streets(shared):
    noise = clips(4, flat=False)
    return shared.Streets(
        task=SceneParsing(classes=noise.classes), score="miou", train=clips(8, flat=False),
        choose=noise, judge=noise,
    )  # fmt: skip


@pytest.fixture
def tiny(shared, monkeypatch):
    """Trains the small network, for one epoch, whatever is asked for."""
    for name in ("resnet18_any", "resnet18_scenes"):
        monkeypatch.setitem(MODELS, name, lambda **_: network())
    monkeypatch.setattr(shared, "DENSE", {"resnet18": (1, 0.01)})


def test_frames_all_alike_leave_one_row_each(shared, streets):
    # The first layer runs dense. 16 rows of each frame are one: of inputs with 3, 4 and 8 columns,
    # 16 * 3 + 4 + 8 of 16 * 15 elements are left.
    trace = shared.traced(network(), streets, clips(), 4)
    settings = shared.uniform(trace, 6, 64)
    assert settings == {"2": (6, 4), "3": (6, 8)}
    run = decide(trace, shared.policy_of(settings))
    assert shared.removed(trace, run) == pytest.approx(1 - 60 / 240)
    # Columns 4, 8, 2: macs 12, 32, 16 a row; H / n + r_c + 1 / L of the last two.
    left = 12 + 32 * (6 / 8 + 1 / 16 + 1 / 4) + 16 * (6 / 2 + 1 / 16 + 1 / 8)
    assert shared.operations(trace, run, settings) == pytest.approx(left / 60)


def test_nothing_reused_is_all_left(shared, streets):
    found = shared.tried(network(), streets, streets.judge, 4, {})
    assert found["removed"] == 0
    assert found["operations"] == 1
    assert found["score"] == found["dense"]


def test_frames_are_spread_over_the_clips(shared):
    given = clips(8, flat=False)
    chosen = shared.spread(given, 3)
    assert torch.equal(chosen.images, given.images(8).images[[0, 2, 4]])


def test_hashing_learns_from_what_reuse_leaves(shared, streets):
    model, frames = network(), shared.spread(streets.train, 8).images
    settings = shared.uniform(shared.traced(model, streets, streets.train, 8), 2, 4)
    reuse = ReusedForward(shared.policy_of(settings))
    with torch.no_grad():
        learned_with = reuse(model, frames)
        dense = model(frames)
    _, run = shared.decided(model, streets, streets.train, 8, settings)
    expected = float((learned_with - dense).square().mean())
    assert expected > 0
    assert run.output_mse == pytest.approx(expected, rel=1e-4)


def test_normalisation_is_estimated_under_reuse(shared, streets):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    settings = {"1": (1, 4)}
    frames = shared.spread(streets.train, 8).images
    anew = shared.normalised(model, streets, settings)
    with torch.no_grad():
        seen = ReusedForward(shared.policy_of(settings))(model[:2].eval(), frames)
        assert torch.allclose(anew[2].running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-5)
        assert torch.allclose(anew[2].running_var, seen.var(dim=(0, 2, 3)), rtol=1e-4)
        assert float(seen.var()) < float(model[:2](frames).var())  # averages vary less
    assert torch.equal(model[2].running_mean, torch.zeros(4))
    assert torch.equal(anew[1].weight, model[1].weight)


def test_training_goes_on_from_what_is_there(shared, streets, tmp_path, tiny):
    first = shared.dense_network("resnet18_any", streets, tmp_path / "a" / "b" / "net")
    again = shared.dense_network("resnet18_any", streets, tmp_path / "a" / "b" / "net")
    assert first.seconds == again.seconds
    before = dict(network().named_parameters())
    for name, weight in first.model.named_parameters():
        assert torch.equal(weight, again.model.get_parameter(name))
    assert not torch.equal(first.model.get_parameter("3.weight"), before["3.weight"])


def points(*pairs):
    return [{"score": score, "removed": removed} for score, removed in pairs]


def test_settings_are_chosen_by_score_and_compression(table):
    found = points((0.5, 0.0), (0.491, 0.3), (0.49, 0.4), (0.489, 0.45), (0.4, 0.6), (0.3, 0.9))
    assert table.within_a_point(found, 0.5)["removed"] == 0.4  # exactly a point lost still counts
    assert table.within_a_point(found, 0.6) is None
    assert table.to_train_with(found)["removed"] == 0.6


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_row_is_trained_tuned_and_judged(table, streets, tmp_path, tiny, monkeypatch, precision):
    monkeypatch.setattr(table, "UNIFORM", ((1, 4), (8, 4)))
    monkeypatch.setattr(table, "WANTED", 0.1)
    effort = table.Effort(quantised=1, aware=1, trials=2, frames=4, judged=4)
    row = table.table_row(streets, tmp_path, "resnet18_scenes", precision, effort)
    lines = row["lines"]
    assert lines["dense"]["removed"] == 0
    assert lines["to train with"]["settings"] == lines["SA-trained"]["settings"]
    assert lines["SA-trained"]["removed"] > 0
    shown = table.told(row)
    assert [each[""] for each in shown][:3] == ["dense", "tuned", "to train with"]
    assert shown[0]["points lost"] == "0.0"
    assert table.figure([row]).data
    # What is there is read, not made again.
    monkeypatch.setattr(table, "tried", None)
    assert table.table_row(streets, tmp_path, "resnet18_scenes", precision, effort) == row


def test_the_search_starts_from_what_was_trained(shared, designs, streets):
    trace = shared.traced(network(), streets, streets.choose, 2)
    settings = shared.uniform(trace, 7, 6)  # neither is among the usual choices
    workload = Workload(trace=trace, name="drawn")
    space = designs.space_of(workload, ("2", "3"), settings, tuple(designs.SHARING))
    assert [*space.start][:3] == ["start", "dense", "dense_equal_area"]
    design, policy = space.build(space.start[designs.TRAINED])
    assert policy.policies == shared.policy_of(settings).policies
    assert design.has_reuse
    _, usual = space.build(space.start["start"])
    assert {each.scope for each in usual.policies.values()} == {"tile"}
    switch = next(each for each in space.parameters if each.name == "3.technique")
    assert switch.choices == ("dense", "lsh", "leaders", "neighbours")
    alone = designs.hardware_of(space)
    choices = {each.name: len(each.choices) for each in alone.parameters}
    assert choices["array.rows"] > 1
    assert choices["lsh.length"] == choices["3.technique"] == choices["3.lsh.hashes"] == 1
    assert alone.build(alone.start[designs.TRAINED]) == space.build(space.start[designs.TRAINED])
    # Of each layer's own settings, the longest length; hashes are the group's.
    own = designs.space_of(workload, ("2", "3"), {"2": (8, 4), "3": (12, 4)}, ("lsh",))
    _, policy = own.build(own.start[designs.TRAINED])
    assert [(each.hashes, each.length) for each in policy.policies.values()] == [(8, 4), (12, 4)]


def test_designs_of_a_row_are_searched_without_training(
    table, designs, streets, tmp_path, tiny, monkeypatch
):
    monkeypatch.setattr(table, "UNIFORM", ((1, 4), (8, 4)))
    monkeypatch.setattr(table, "WANTED", 0.1)
    monkeypatch.setitem(designs.GROUPS, "resnet18", ("2", "3"))
    monkeypatch.setattr(designs, "SEARCHED_FRAMES", 2)
    effort = table.Effort(quantised=1, aware=1, trials=0, frames=4, judged=4)
    plain = table.table_row(streets, tmp_path, "resnet18_scenes", "float32", effort)
    monkeypatch.setattr(designs, "SHARING", ("lsh",))
    effort = replace(effort, designs=4)
    monkeypatch.setattr(sys.modules["streets"], "similarity_aware_training", None)
    row = table.table_row(streets, tmp_path, "resnet18_scenes", "float32", effort)
    found = row["designs"]
    assert found["trained"]["techniques"] == ["lsh"]
    assert found["trained"]["score"] == pytest.approx(plain["lines"]["SA-trained"]["score"])
    assert found["best"]["techniques"]
    assert {each[""] for each in table.told(row)} == {*plain["lines"]}
    assert [each["design"] for each in designs.told_designs(row)] == [
        "policy of the training", "best that reuses",
    ]  # fmt: skip
    beside = designs.beside_the_paper(row)
    assert beside["speed"] == f"{found['best']['speed']:.2f}x"
    assert beside["paper: original"] == ""  # it has no ResNet-18 on scenes


def test_of_what_keeps_to_a_point_the_cheapest_is_taken(designs):
    def trial(number, accuracy, speed, technique="lsh"):
        summary = {"energy_ratio_equal_area": 1.0, "speedup_equal_area": speed}
        return argparse.Namespace(
            number=number, values={"accuracy": accuracy}, summary=summary,
            parameters={"a.technique": technique},
        )  # fmt: skip

    tried = [
        trial(0, 0.9, 9.0, "dense"), trial(1, 0.5, 3.0), trial(2, 0.495, 4.0), trial(3, 0.48, 8.0)
    ]  # fmt: skip
    other = argparse.Namespace(judged=[trial(4, 0.5, 3.5)])
    studies = (argparse.Namespace(judged=tried), other)
    assert designs.cheapest(studies, ("a",), 0.5)[1].number == 2
    # All lose more than a point: the least, and of these the cheapest.
    study, chosen = designs.cheapest(studies, ("a",), 0.6)
    assert study is other and chosen.number == 4


def test_our_row_stands_beside_the_papers(designs):
    lines = {
        "dense": {"score": 0.512},
        "SA-trained": {"score": 0.5, "removed": 0.55, "area": 0.25},
    }
    row = {"network": "resnet38_scenes int8", "lines": lines}
    assert designs.beside_the_paper(row) == {
        "row": "resnet38_scenes int8",
        "original": "51.2",
        "SA-trained": "50.0",
        "removed": "55.0%",
        "speed": "0.25x",
        "paper: original": "63.5",
        "paper: SA-trained": "64.5",
        "paper: removed": "56.3%",
        "paper: speed, Pi 3": "1.51x",
    }


def test_every_network_of_the_papers_table_has_a_row(table, designs):
    found = [designs.row_of_the_paper(*row.split(":")) for row in table.ROWS]
    assert len([each for each in found if each]) == 10
    assert len({each["model"] + each["task"] for each in found if each}) == 10


def test_terms_and_numbers_of_frames_are_compared(terms, streets, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(terms, "UNIFORM", ((2, 4), (8, 4)))
    monkeypatch.setattr(terms, "TRAINED_WITH", (2, 4))
    monkeypatch.setattr(terms, "STEPS", (2, 1))
    given = argparse.Namespace(out=tmp_path, epochs=1, frame_epochs=2, frames=4, judged=4, seed=0)
    found = terms.ablation(streets, given)
    assert list(found)[2:] == list(terms.TERMS)
    learned = {
        name: json.loads((tmp_path / "terms_0" / place / "judged.json").read_text())
        for name, place in (("reuse alone", "reuse_alone"), ("R1 and R2", "R1_and_R2"))
    }
    assert learned == {name: found[name] for name in learned}
    rows = terms.told(found)
    assert rows[0]["trained with"] == "nothing"
    lost = found["nothing"]["judged"]["dense"] - found["R1 and R2"]["judged"]["score"]
    assert rows[-2]["points lost"] == f"{100 * lost:.1f}"
    frames = terms.frame_thresholds(streets, given)
    assert {count: len(scores) for count, scores in frames.items()} == {4: 2, 8: 2}
    assert len(terms.figure(found, frames).data) == len(terms.TERMS) + 4


@pytest.mark.parametrize("name", ["014_treasure_table", "016_treasure_terms"])
def test_without_frames_it_explains_itself(shared, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as stopped:
        import_module(name).main()
    assert stopped.value.code == 2
    assert "give --camvid FOLDER" in capsys.readouterr().err


def test_missing_frames_and_unknown_rows_are_named(table, monkeypatch, tmp_path):
    scenes = ["--rows", "resnet18_scenes:float32"]
    monkeypatch.setattr(sys, "argv", ["014", "--camvid", str(tmp_path), *scenes])
    with pytest.raises(StreamError, match="train_1hz must hold CamVid's frames"):
        table.main()
    monkeypatch.setattr(sys, "argv", ["014", "--camvid", str(tmp_path), "--rows", "resnet18"])
    with pytest.raises(ConfigError, match="--rows must be of"):
        table.main()


def test_lanes_are_labelled_once(shared, tmp_path, monkeypatch):
    drawn = clips(4, flat=False)
    monkeypatch.setattr(shared, "camvid", lambda *_, **__: replace(drawn, labels=None))
    monkeypatch.setattr(shared, "load", lambda *_: network())
    labelled = []

    def label(_teacher, given, *, size):
        labelled.append(size)
        return replace(given, labels=drawn.labels, classes=("other", "lane"))

    monkeypatch.setattr(shared, "lane_labels_by", label)
    first = shared.lanes(tmp_path, tmp_path / "weights", tmp_path, ("a", "b", "c"), (4, 4))
    again = shared.lanes(tmp_path, tmp_path / "weights", tmp_path, ("a", "b", "c"), (4, 4))
    assert labelled == [(4, 4)] * 3
    assert torch.equal(first.judge.labels, again.judge.labels)
    assert first.score == "f1"
    assert first.train.classes == ("other", "lane")
