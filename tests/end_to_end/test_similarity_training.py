"""Similarity-aware training: learning, repeating, resuming, stopping, and reuse in the forward."""

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from accelerators import ConfigError
from simulator import (
    ClusterCache,
    LshReuse,
    NoReuse,
    PerLayer,
    ReusedForward,
    ReusePolicy,
    calibrate,
    decide,
)
from workloads import TraceError, capture, load_quantised, quantise
from workloads.models import load_weights, read_metadata
from workloads.models.integer_grid import quantisation_of
from workloads.streams import StreamError
from workloads.streams.clips import IGNORED, Clip
from workloads.training import (
    SimilarityEpoch,
    TrainingError,
    TrainingPlan,
    score_of,
    similarity_aware_training,
)
from workloads.training.tasks import LaneDetection, SceneParsing

TASK = SceneParsing(classes=("dark", "bright"))
PLAN = TrainingPlan(epochs=2, learning_rate=0.1, batch=2)
MERGING = LshReuse(hashes=3, length=8)
ONCE = LshReuse(hashes=3, length=4, look_once=True, scope="tile", tile_rows=12)


class Drives(list):
    """Clips of noise whose bright pixels are of class 1."""

    def __init__(self, count: int = 5, *, size: int = 6, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            frames = torch.randn(2, 3, size, size, generator=generator)
            labels = (frames.mean(dim=1) > 0).long()
            labels[:, 0, 0] = IGNORED
            self.append(Clip(frames=frames, labels=labels))


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Conv2d(8, 2, 1),
    )


def trained(plan: TrainingPlan = PLAN, clips=None, **options):
    clips = Drives() if clips is None else clips
    return similarity_aware_training(small_network(), clips, TASK, plan=plan, **options)


def figures(epochs: tuple[SimilarityEpoch, ...]) -> list[dict]:
    """Reports without times."""
    return [asdict(replace(each, duration_s=0.0)) for each in epochs]


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


class Stops(Drives):
    """Clips whose reading is interrupted after so many."""

    def __init__(self, reads: int):
        super().__init__()
        self.left = reads

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)


class TestLearning:
    def test_learns_its_task_and_leaves_the_model_alone(self):
        model, clips = small_network(), Drives(8)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        result = similarity_aware_training(
            model, clips, TASK, plan=replace(PLAN, epochs=15), validation=Drives(3, seed=1)
        )
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        first, last = result.epochs[0], result.epochs[-1]
        # Guessing between two classes has a loss of ln 2.
        assert last.task < math.log(2) / 2
        assert last.loss < first.loss
        assert last.validation["pixel_accuracy"] > 0.9
        assert not result.model.training
        assert result.duration_s == sum(each.duration_s for each in result.epochs)
        scored = score_of(result.model, Drives(3, seed=1), TASK)
        assert scored == pytest.approx(last.validation)

    @pytest.mark.parametrize("term", ["intra", "inter"])
    def test_a_term_with_weight_gets_smaller_than_without(self, term):
        # So small a weight measures the term without moving it.
        measured = replace(PLAN, epochs=10, intra_weight=1e-30, inter_weight=1e-30)
        without = trained(measured).epochs[-1]
        with_it = trained(replace(measured, **{f"{term}_weight": 1.0})).epochs[-1]
        assert getattr(with_it, term) < getattr(without, term) / 2

    def test_cluster_average_draws_weights_together(self):
        plan = replace(PLAN, epochs=10, cluster_average_weight=1e-30, cluster_hashes=1)
        without = trained(plan).epochs[-1].cluster_average
        with_it = trained(replace(plan, cluster_average_weight=20.0)).epochs[-1].cluster_average
        assert with_it < without / 2

    def test_terms_of_no_weight_are_not_computed(self):
        plan = replace(PLAN, intra_weight=0, inter_weight=0)
        report = trained(plan).epochs[-1]
        assert report.intra is report.inter is report.cluster_average is None
        assert report.loss == report.task

    def test_loss_is_the_weighted_sum(self):
        plan = replace(PLAN, intra_weight=0.5, inter_weight=0.25, cluster_average_weight=2)
        report = trained(plan).epochs[0]
        terms = 0.5 * report.intra + 0.25 * report.inter + 2 * report.cluster_average
        assert report.loss == pytest.approx(report.task + terms, rel=1e-5)

    def test_cosine_schedule(self):
        plan = replace(PLAN, schedule="cosine", epochs=2)
        rates = [each.learning_rate for each in trained(plan).epochs]
        # 5 clips in batches of 2 are 3 steps an epoch; the rate is that before the last one.
        expected = [0.1 * (1 + math.cos(math.pi * done / 6)) / 2 for done in (2, 5)]
        assert rates == pytest.approx(expected)

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_mixed_precision_learns_in_float32_weights(self, precision):
        plan = replace(PLAN, epochs=12, precision=precision)
        result = trained(plan, Drives(8), validation=Drives(3, seed=1))
        assert {each.dtype for each in result.model.parameters()} == {torch.float32}
        assert result.epochs[-1].task < math.log(2) / 2
        # Halves round: the same steps in float32 end near by, but not there.
        exact = trained(replace(plan, precision="float32"), Drives(8))
        assert result.epochs[-1].task == pytest.approx(exact.epochs[-1].task, rel=0.1)
        assert not same_weights(result.model, exact.model)
        scored = score_of(result.model, Drives(3, seed=1), TASK)
        assert scored == result.epochs[-1].validation

    def test_a_loss_that_is_scaled_too_far_is_scaled_back(self, monkeypatch):
        scaled = []
        monkeypatch.setattr(
            torch.amp.GradScaler, "update", _counted_scale(torch.amp.GradScaler.update, scaled)
        )
        # 2^16, the first scale, times 1e6 is no half: steps are left out until it fits.
        result = trained(replace(PLAN, precision="float16", epochs=1, intra_weight=1e6))
        assert scaled[-1] < scaled[0]
        assert all(each.isfinite().all() for each in result.model.parameters())

    def test_int8_gives_a_quantised_network_that_learned(self):
        plan = replace(PLAN, epochs=15, precision="int8")
        result = trained(plan, Drives(8), validation=Drives(3, seed=1))
        assert all(
            quantisation_of(layer) is not None
            for layer in result.model
            if isinstance(layer, nn.Conv2d)
        )
        for weight in (result.model[0].weight, result.model[4].weight):
            steps = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127)
            torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        scored = score_of(result.model, Drives(3, seed=1), TASK)
        assert scored["pixel_accuracy"] > 0.9
        # Training went on from the grids it leaves: fixing them changes nothing.
        assert scored == pytest.approx(result.epochs[-1].validation, abs=1e-3)

    def test_quantised_network_is_saved_loaded_and_trained_on(self, tmp_path):
        plain = replace(PLAN, precision="int8", intra_weight=0, inter_weight=0)
        first = trained(plain, out=tmp_path)
        again = load_quantised(small_network(seed=9), tmp_path / "weights.safetensors")
        frames = Drives(1)[0].frames
        assert torch.equal(again(frames), first.model(frames))
        assert quantisation_of(again[0]) == quantisation_of(first.model[0])
        # Quantisation-aware training, then similarity-aware training, as the paper has it.
        plan = replace(PLAN, precision="int8", epochs=1, learning_rate=1e-9)
        second = similarity_aware_training(again, Drives(), TASK, plan=plan)
        difference = (second.model(frames) - first.model(frames)).abs().max()
        assert difference < 0.1 * first.model(frames).abs().max()
        assert second.epochs[0].intra is not None

    def test_quantised_network_does_not_learn_in_floating_point(self):
        quantised = quantise(small_network(), Drives(1)[0].frames)
        with pytest.raises(TrainingError, match="precision must be int8 for a quantised model"):
            similarity_aware_training(quantised, Drives(), TASK, plan=PLAN)

    def test_weights_in_floating_point_are_no_quantised_ones(self, tmp_path):
        trained(out=tmp_path)
        with pytest.raises(TraceError, match="must be of a quantised model, got no grid"):
            load_quantised(small_network(), tmp_path / "weights.safetensors")


class TestRepeating:
    def test_seed_decides_everything(self):
        first, again, other = (trained(replace(PLAN, seed=seed)) for seed in (3, 3, 4))
        assert same_weights(first.model, again.model)
        assert figures(first.epochs) == figures(again.epochs)
        assert not same_weights(first.model, other.model)

    def test_pytorchs_random_state_is_left_alone(self):
        model = small_network()
        before = torch.random.get_rng_state()
        similarity_aware_training(model, Drives(), TASK, plan=PLAN)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("precision", "policy"),
        [
            ("float32", None),
            ("float32", MERGING),
            ("float32", ONCE),
            ("bfloat16", ONCE),
            ("float16", ONCE),
            ("int8", None),
            ("int8", MERGING),
        ],
    )
    def test_resumed_training_ends_as_one_that_was_not_stopped(self, tmp_path, precision, policy):
        plan = replace(PLAN, epochs=3, precision=precision, schedule="cosine")

        def run(clips=None, **options):
            reuse = None if policy is None else ReusedForward(policy)
            return trained(plan, clips, reuse=reuse, validation=Drives(1, seed=1), **options)

        straight = run()
        with pytest.raises(KeyboardInterrupt):
            run(Stops(reads=14), out=tmp_path)  # 2 before, 5 an epoch: in the third
        told = []
        resumed = run(out=tmp_path, resume=True, progress=told.append)
        assert [report.epoch for report in told] == [3]
        assert same_weights(resumed.model, straight.model)
        assert figures(resumed.epochs) == figures(straight.epochs)

    @pytest.mark.parametrize(
        "change", [{"optimizer": "adamw", "weight_decay": 0.1}, {"flips": True}, {"momentum": 0.0}]
    )
    def test_resumed_with_what_the_optimizer_keeps(self, tmp_path, change):
        plan = replace(PLAN, epochs=3, schedule="cosine", learning_rate=0.01, **change)
        straight = trained(plan)
        with pytest.raises(KeyboardInterrupt):
            trained(plan, Stops(reads=13), out=tmp_path)
        resumed = trained(plan, out=tmp_path, resume=True)
        assert same_weights(resumed.model, straight.model)
        plain = replace(plan, **{name: getattr(PLAN, name) for name in change})
        assert not same_weights(straight.model, trained(plain).model)

    def test_first_step_of_adamw_moves_each_weight_by_the_learning_rate(self):
        # Of m / sqrt(v), both corrected, a first step leaves the gradient's sign.
        plan = replace(PLAN, epochs=1, batch=5, optimizer="adamw", learning_rate=1e-3)
        result = similarity_aware_training(small_network(), Drives(), TASK, plan=plan)
        before = dict(small_network().named_parameters())
        for name, weight in result.model.named_parameters():
            if name != "0.bias":  # taken out by the normalisation: its gradient is rounding
                moved = (weight - before[name]).detach().abs()
                assert moved.max() == pytest.approx(1e-3, rel=1e-2)

    def test_flipped_clips_keep_frames_and_labels_together(self):
        seen = set()

        class Watched(SceneParsing):
            def loss(self, outputs, labels):
                seen.add(bool((labels[:, 0, -1] == IGNORED).all()))
                assert ((labels[:, 0, 0] == IGNORED) | (labels[:, 0, -1] == IGNORED)).all()
                return super().loss(outputs, labels)

        task = Watched(classes=TASK.classes)
        plan = replace(PLAN, epochs=15, batch=1, flips=True)
        result = similarity_aware_training(small_network(), Drives(8), task, plan=plan)
        assert seen == {False, True}
        assert result.epochs[-1].score["pixel_accuracy"] > 0.9

    def test_more_epochs_of_the_same(self, tmp_path):
        straight = trained(replace(PLAN, epochs=3))
        trained(replace(PLAN, epochs=1), out=tmp_path)
        resumed = trained(replace(PLAN, epochs=3), out=tmp_path, resume=True)
        assert same_weights(resumed.model, straight.model)


class TestFiles:
    def test_weights_curves_and_checkpoint(self, tmp_path):
        result = trained(out=tmp_path / "new", validation=Drives(1, seed=1))
        fresh = small_network(seed=9)
        load_weights(fresh, tmp_path / "new" / "weights.safetensors")
        frames = Drives(1)[0].frames
        assert torch.equal(fresh.eval()(frames), result.model(frames))
        assert "learning_rate" in read_metadata(tmp_path / "new" / "weights.safetensors")["plan"]
        with (tmp_path / "new" / "curves.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["loss"]) for row in rows] == [each.loss for each in result.epochs]
        assert float(rows[-1]["validation_miou"]) == result.epochs[-1].validation["miou"]
        assert rows[0]["removed_fraction"] == ""  # unknown is not 0
        page = (tmp_path / "new" / "curves.html").read_text()
        assert "validation miou" in page
        assert 'src="http' not in page

    @pytest.mark.parametrize("name", ["curves.csv", "curves.html"])
    def test_full_disk_is_named_and_what_is_whole_kept(self, tmp_path, name):
        if not Path("/dev/full").exists():
            pytest.skip("no device that is always full")
        (tmp_path / name).symlink_to("/dev/full")
        with pytest.raises(TrainingError, match=rf"{name} \(No space left.*make room, then resume"):
            trained(out=tmp_path)
        (tmp_path / name).unlink()
        if name == "curves.html":  # the last thing written
            assert (tmp_path / "weights.safetensors").is_file()
        assert same_weights(trained(out=tmp_path, resume=True).model, trained().model)

    def test_weights_tell_of_task_and_reuse(self, tmp_path):
        trained(out=tmp_path, reuse=ReusedForward(MERGING))
        told = read_metadata(tmp_path / "weights.safetensors")
        assert json.loads(told["task"])["classes"] == list(TASK.classes)
        assert json.loads(told["reuse"]) == MERGING.describe()

    def test_bar_only_on_a_terminal(self, capsys):
        trained(progress=True)
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""


class Spoilt(Drives):
    """Clips that hold infinity from a given reading on."""

    def __init__(self, reads: int):
        super().__init__()
        self.left = reads

    def __getitem__(self, index):
        self.left -= 1
        clip = super().__getitem__(index)
        return clip if self.left >= 0 else replace(clip, frames=clip.frames * math.inf)


class TestBadInput:
    def test_infinite_loss_is_named_and_the_last_checkpoint_kept(self, tmp_path):
        with pytest.raises(TrainingError) as caught:
            trained(clips=Spoilt(reads=7), out=tmp_path)  # 2 before, 5 an epoch
        message = str(caught.value)
        assert "the task's loss must stay finite" in message
        assert "at epoch 2, step 1 with learning_rate=0.1; use a lower" in message
        assert f"the last whole epoch is kept in {tmp_path / 'checkpoint.safetensors'}" in message
        resumed = trained(out=tmp_path, resume=True)
        assert same_weights(resumed.model, trained().model)

    def test_diverging_training_is_stopped(self):
        with pytest.raises(TrainingError, match=r"must stay finite, got NaN or infinity at epoch"):
            trained(replace(PLAN, learning_rate=1e30))

    def test_clip_of_one_frame(self):
        with pytest.raises(StreamError, match="at least 2 frames, got 1"):
            Clip(frames=torch.zeros(1, 3, 4, 4))

    def test_frames_of_differing_size(self):
        clips = [*Drives(2), *Drives(1, size=7)]
        with pytest.raises(TrainingError, match=r"\(2, 3, 7, 7\) in clip 2 after \(2, 3, 6, 6\)"):
            trained(clips=clips)

    def test_missing_labels(self):
        clips = [*Drives(2), Clip(frames=torch.zeros(2, 3, 6, 6))]
        with pytest.raises(TrainingError, match="clip 2 must have labels, got none"):
            trained(clips=clips)

    def test_validation_is_looked_at_before_training(self):
        for wrong in ([], [Clip(frames=torch.zeros(2, 3, 6, 6))]):
            with pytest.raises(TrainingError, match="validation must h"):
                trained(clips=Stops(reads=1), validation=wrong)  # a second would be an interrupt

    def test_validation_that_has_no_score_costs_no_epoch(self):
        unlabelled = [replace(clip, labels=clip.labels.fill_(IGNORED)) for clip in Drives(1)]
        unknown = [replace(clip, labels=clip.labels + 1) for clip in Drives(1)]
        without_lanes = [replace(clip, labels=clip.labels * 0) for clip in Drives(1)]
        for clips, task, told in (
            (unlabelled, TASK, "a score needs labelled pixels"),
            (unknown, TASK, "labels must be classes 0 to 1"),
            ([*Drives(1), Clip(frames=torch.zeros(2, 3, 6, 6))], TASK, "clip 1 must have labels"),
            (without_lanes, LaneDetection(), "F1 needs labelled lane pixels"),
        ):
            with pytest.raises(TrainingError, match=f"validation: {told}"):
                similarity_aware_training(
                    small_network(), Stops(reads=1), task, plan=PLAN, validation=clips
                )

    def test_class_that_the_task_does_not_have(self):
        clips = Drives(2)
        clips[1].labels[0, 3, 3] = 2
        with pytest.raises(TrainingError, match="labels must be classes 0 to 1 or 255, got 0 to 2"):
            trained(clips=clips)

    def test_no_clips(self):
        with pytest.raises(TrainingError, match="at least one clip"):
            trained(clips=[])

    def test_nothing_to_train(self):
        with pytest.raises(TrainingError, match="requires a gradient"):
            similarity_aware_training(
                small_network().requires_grad_(False), Drives(), TASK, plan=PLAN
            )

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self):
        with pytest.raises(TrainingError, match=r"got 'cuda' \(.*\); use auto or cpu"):
            trained(device="cuda")

    def test_unknown_device(self):
        with pytest.raises(TrainingError, match=r"device must be auto or one .* got 'abacus'"):
            trained(device="abacus")

    def test_all_settings_out_of_range_come_together(self):
        with pytest.raises(TrainingError) as caught:
            TrainingPlan(
                epochs=0,
                learning_rate=0.0,
                momentum=1.0,
                weight_decay=math.nan,
                batch=True,
                seed=-1,
                intra_weight=-1,
                temperature=0.0,
                cluster_hashes=63,
                optimizer="adam",
                schedule="linear",
                direction="both",
                precision="int4",
            )
        for part in (
            "epochs must be an integer from 1",
            "learning_rate must be a finite number above 0",
            "momentum must be a finite number >= 0 and below 1, got 1.0",
            "weight_decay must be a finite number >= 0, got nan",
            "batch must be an integer",
            "seed must be an integer",
            "intra_weight must be a finite number >= 0, got -1",
            "temperature must be a finite number above 0",
            "cluster_hashes must be an integer from 1 to 62",
            "optimizer must be one of sgd, adamw, got 'adam'",
            "schedule must be one of constant, cosine, got 'linear'",
            "direction must be one of from_output, from_reference, got 'both'",
            "precision must be one of float32, bfloat16, float16, int8, got 'int4'",
        ):
            assert part in str(caught.value)


class TestCheckpointErrors:
    def test_start_where_there_is_one(self, tmp_path):
        trained(out=tmp_path)
        with pytest.raises(TrainingError, match="go on with resume, or name another folder"):
            trained(out=tmp_path)

    def test_resume_where_there_is_none(self, tmp_path):
        with pytest.raises(TrainingError, match="has no checkpoint to go on from"):
            trained(out=tmp_path, resume=True)
        with pytest.raises(TrainingError, match="resume must come with out"):
            trained(resume=True)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"learning_rate": 0.2}, "learning_rate=0.2 instead of 0.1"),
            ({"epochs": 1}, "epochs=1 instead of 2"),
        ],
    )
    def test_another_plan(self, tmp_path, change, message):
        trained(out=tmp_path)
        with pytest.raises(TrainingError, match=message):
            trained(replace(PLAN, **change), out=tmp_path, resume=True)

    def test_another_task(self, tmp_path):
        trained(out=tmp_path)
        task = replace(TASK, class_weights=(1.0, 2.0))
        with pytest.raises(TrainingError, match=r"class_weights=\[1.0, 2.0\] instead of None"):
            similarity_aware_training(
                small_network(), Drives(), task, plan=PLAN, out=tmp_path, resume=True
            )

    def test_another_reuse(self, tmp_path):
        trained(out=tmp_path, reuse=ReusedForward(MERGING))
        with pytest.raises(TrainingError, match=r"reuse=None instead of {.*'hashes': 3"):
            trained(out=tmp_path, resume=True)
        other = ReusedForward(replace(MERGING, hashes=4))
        with pytest.raises(TrainingError, match=r"'hashes': 4.* instead of {.*'hashes': 3"):
            trained(out=tmp_path, resume=True, reuse=other)

    def test_other_clips(self, tmp_path):
        trained(out=tmp_path)
        with pytest.raises(TrainingError, match="clips=4 instead of 5"):
            trained(clips=Drives(4), out=tmp_path, resume=True)

    def test_another_model(self, tmp_path):
        trained(out=tmp_path)
        with pytest.raises(TrainingError, match="model must be the one that the checkpoint is of"):
            similarity_aware_training(
                nn.Conv2d(3, 2, 1), Drives(), TASK, plan=PLAN, out=tmp_path, resume=True
            )

    @pytest.mark.parametrize("damage", ["cut", "foreign"])
    def test_damaged(self, tmp_path, damage):
        trained(out=tmp_path)
        path = tmp_path / "checkpoint.safetensors"
        content = path.read_bytes()[:1000]
        if damage == "foreign":
            content = (tmp_path / "weights.safetensors").read_bytes()
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"checkpoint.*(anew in another|another file)"):
            trained(out=tmp_path, resume=True)


class TestReusedForward:
    def test_gradients_are_the_dense_formulas_at_the_reused_values(self):
        torch.manual_seed(0)
        first, second = nn.Linear(4, 6), nn.Linear(6, 3)
        network = nn.Sequential(first, nn.ReLU(), second)
        x = torch.randn(2, 32, 4)
        g = torch.randn(2, 32, 3)
        reused = ReusedForward(
            PerLayer({"0": LshReuse(hashes=2, length=4), "2": LshReuse(hashes=2, length=6)})
        )
        middle: list[Tensor] = []
        with first.register_forward_hook(lambda *given: middle.append(given[2].detach().clone())):
            outputs = reused(network, x)
            dense = network(x)
        outputs.backward(g)
        (y, dense_y), h = middle, middle[0].relu()
        assert not torch.allclose(y, dense_y)
        assert not torch.allclose(outputs, dense)
        # Y2 = H W2' and H = relu(X W1'): what autograd would do with these values of H and Y1.
        torch.testing.assert_close(second.weight.grad, torch.einsum("fmo,fmi->oi", g, h))
        torch.testing.assert_close(second.bias.grad, g.sum(dim=(0, 1)))
        into_first = (g @ second.weight.detach()) * (y > 0)
        torch.testing.assert_close(first.weight.grad, torch.einsum("fmo,fmi->oi", into_first, x))

    @pytest.mark.parametrize("integers", [False, True])
    def test_it_computes_what_decide_decides(self, integers):
        frames = Drives(1)[0].frames
        model = small_network().eval()
        model = quantise(model, frames) if integers else model
        policy = LshReuse(hashes=3, length=4, thresholds="zero")  # nothing to calibrate
        trace = capture(model, frames)
        run = decide(trace, policy, model=model)
        reused = ReusedForward(policy)
        with torch.no_grad():
            difference = reused(model, frames) - model(frames)
        assert difference.square().mean().item() == pytest.approx(run.output_mse, rel=1e-5)
        elements = {layer.name: layer.gemm.m * layer.gemm.k for layer in trace.layers}
        left = sum(made.macs / made.gemm.n for made in run.decisions.values() if made is not None)
        assert reused.removed_fraction() == pytest.approx(1 - left / sum(elements.values()))

    def test_it_calibrates_on_the_first_batch_until_told_otherwise(self):
        layer, frames = nn.Linear(4, 2).eval(), torch.randn(2, 50, 4)
        policy = LshReuse(hashes=4, length=4, thresholds="mean")
        reused = ReusedForward(policy)

        def expected(seen: Tensor, calibration: Tensor) -> float:
            states = calibrate(capture(layer, calibration), policy)
            (made,) = decide(capture(layer, seen), policy, calibration=states).decisions.values()
            return 1 - made.remaining_ratio

        shifted = frames + 5  # far from the mean of the first: all signatures alike
        reused(layer, frames)
        assert reused.removed_fraction() == expected(frames, frames)
        reused(layer, shifted)
        both = (expected(frames, frames) + expected(shifted, frames)) / 2
        assert reused.removed_fraction() == pytest.approx(both)
        reused.recalibrate()
        assert reused.removed_fraction() is None
        reused(layer, shifted)
        assert reused.removed_fraction() == expected(shifted, shifted)
        assert expected(shifted, shifted) != expected(shifted, frames)

    @pytest.mark.parametrize(
        ("policy", "message"),
        [
            (LshReuse(hashes=3, length=100), "0"),
            (PerLayer({"conv9": MERGING}), "pattern 'conv9' must match a layer"),
            (
                LshReuse(
                    hashes=3, length=4, scope="stream", cache=ClusterCache(entries=16, ways=4)
                ),
                "must keep nothing over a stream",
            ),
        ],
    )
    def test_policies_that_do_not_fit(self, policy: ReusePolicy, message):
        with pytest.raises(ConfigError, match=message):
            ReusedForward(policy)(small_network(), Drives(1)[0].frames)

    def test_modes_are_kept(self):
        model = small_network()
        reused = ReusedForward(NoReuse())
        frames = Drives(1)[0].frames
        assert torch.equal(reused(model.eval(), frames), model(frames))
        before = model[1].running_mean.clone()
        reused(model.train(), frames)
        assert not torch.equal(model[1].running_mean, before)

    def test_training_under_reuse_learns_and_tells_what_it_removed(self):
        policy = PerLayer({"0": MERGING}, default=NoReuse())
        result = trained(replace(PLAN, epochs=12), Drives(8), reuse=ReusedForward(policy))
        assert result.epochs[-1].task < result.epochs[0].task
        assert 0 < result.epochs[-1].removed_fraction < 1
        # The same weights score otherwise without reuse.
        under = score_of(result.model, Drives(8), TASK, reuse=ReusedForward(policy))
        assert under != score_of(result.model, Drives(8), TASK)

    def test_learned_hyperplanes_follow_the_weights(self, monkeypatch):
        learned = []
        monkeypatch.setattr(
            LshReuse, "_learned", _counting(LshReuse._learned, learned), raising=True
        )
        policy = PerLayer({"4": LshReuse(hashes=2, length=8, learning="task")})
        trained(replace(PLAN, epochs=2), Drives(1), reuse=ReusedForward(policy))
        assert [tuple(each.shape) for each in learned] == [(2, 8), (2, 8)]
        assert not torch.equal(*map(torch.from_numpy, learned))


def _counted_scale(update, found: list):
    def updated(scaler):
        update(scaler)
        found.append(scaler.get_scale())

    return updated


def _counting(learn, found: list):
    def learned(*given):
        found.append(learn(*given))
        return found[-1]

    return learned
