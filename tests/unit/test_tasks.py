"""Losses and scores of pixel tasks, by hand."""

import math

import numpy as np
import pytest
import torch

from accelerators import preset
from simulator import NoReuse, decide, simulate
from workloads import TraceError, capture
from workloads.streams import Clip
from workloads.traces.scores import confusion, f1, mean_iou, score
from workloads.training import TrainingError
from workloads.training.tasks import LaneDetection, SceneParsing, balanced_weights

SCENES = SceneParsing(classes=("a", "b", "c"))


def answering(classes, count):
    """Outputs whose largest is the class, `(1, count, h, w)`."""
    return torch.nn.functional.one_hot(torch.tensor([classes]), count).permute(0, 3, 1, 2).float()


def labelled(classes):
    return torch.tensor([classes])


class TestSceneParsing:
    def test_loss_is_the_mean_over_labelled_pixels(self):
        # Equal logits: ln 3 for each pixel, whatever its class; ignored ones do not count.
        outputs = torch.zeros(1, 3, 1, 4)
        assert float(SCENES.loss(outputs, labelled([[0, 1, 255, 2]]))) == pytest.approx(math.log(3))

    def test_weights_count_pixels_more(self):
        # Losses 0 (right for certain) and ln 3, of weights 1 and 3: 3 ln 3 / 4.
        outputs = torch.tensor([[100.0, 0], [0, 0], [0, 0]]).reshape(1, 3, 1, 2)
        task = SceneParsing(classes=SCENES.classes, class_weights=(1.0, 3.0, 1.0))
        loss = task.loss(outputs, labelled([[0, 1]]))
        assert float(loss) == pytest.approx(3 * math.log(3) / 4)

    def test_mean_iou(self):
        seen = SCENES.score()
        seen.add(answering([[0, 0, 1, 1]], 3), labelled([[0, 0, 0, 1]]))
        seen.add(answering([[2, 1, 0, 0]], 3), labelled([[1, 1, 255, 255]]))
        # a: 2 of 3; b: hits 2, labelled 3, answered 3: 2 of 4; c: answered, never labelled.
        assert seen.values() == pytest.approx(
            {"miou": (2 / 3 + 1 / 2) / 2, "pixel_accuracy": 4 / 6}
        )
        assert seen.by_class() == pytest.approx({"a": 2 / 3, "b": 1 / 2, "c": None})

    def test_nothing_labelled_is_no_score_and_no_loss(self):
        with pytest.raises(TrainingError, match="labelled pixels, got none"):
            SCENES.score().values()
        with pytest.raises(TrainingError, match="labelled pixel, got none in the whole batch"):
            SCENES.loss(torch.zeros(1, 3, 1, 1), labelled([[255]]))

    def test_class_out_of_range_and_other_shapes_are_refused(self):
        with pytest.raises(TrainingError, match="classes 0 to 2 or 255, got 3 to 3"):
            SCENES.loss(torch.zeros(1, 3, 1, 1), labelled([[3]]))
        with pytest.raises(TrainingError, match=r"\(1, 2, 1, 1\) for \(1, 1, 1\).*num_classes=3"):
            SCENES.loss(torch.zeros(1, 2, 1, 1), labelled([[0]]))

    def test_weights_must_fit(self):
        with pytest.raises(TrainingError, match="class_weights must be 3 numbers above 0"):
            SceneParsing(classes=SCENES.classes, class_weights=(1.0, 0.0, 1.0))


class TestLaneDetection:
    LABEL = ((0, 1, 0, 0, 0), (0, 1, 0, 0, 0))
    ANSWER = ((1, 0, 0, 0, 0), (0, 1, 0, 0, 1))

    @pytest.mark.parametrize(
        ("tolerance", "right", "found"),
        [(0, 1, 1), (1, 2, 2), (3, 3, 2)],  # of 3 answered and 2 labelled
    )
    def test_f1(self, tolerance, right, found):
        seen = LaneDetection(tolerance=tolerance).score()
        seen.add(answering(self.ANSWER, 2), labelled(self.LABEL))
        precision, recall = right / 3, found / 2
        assert seen.values() == pytest.approx(
            {
                "f1": 2 * precision * recall / (precision + recall),
                "precision": precision,
                "recall": recall,
            }
        )

    def test_f1_is_the_one_of_a_workload(self):
        generator = np.random.default_rng(0)
        answers, labels = generator.integers(0, 2, (2, 3, 8, 8))
        seen = LaneDetection().score()
        for answer, label in zip(answers, labels, strict=True):
            seen.add(answering(answer.tolist(), 2), labelled(label.tolist()))
        assert seen.values()["f1"] == pytest.approx(score("f1", answers, labels))

    def test_ignored_pixels_do_not_count(self):
        seen = LaneDetection().score()
        seen.add(answering([[1, 1]], 2), labelled([[1, 255]]))
        assert seen.values()["precision"] == 1

    def test_nothing_answered_is_zero_and_nothing_labelled_is_refused(self):
        seen = LaneDetection().score()
        with pytest.raises(TrainingError, match="labelled lane pixels, got none"):
            seen.values()
        seen.add(answering([[0]], 2), labelled([[1]]))
        assert seen.values() == {"f1": 0, "precision": 0, "recall": 0}


class TestBalancedWeights:
    def clip(self, labels):
        return Clip(frames=torch.zeros(2, 3, 1, 4), labels=torch.tensor([[labels]] * 2))

    def test_rare_classes_weigh_more(self):
        # Shares 3/4 and 1/4: 1 / ln 1.77 and 1 / ln 1.27, over their mean.
        common, rare = 1 / math.log(1.77), 1 / math.log(1.27)
        mean = (common + rare) / 2
        weights = balanced_weights([self.clip([0, 0, 0, 1])], ("a", "b"))
        assert weights == pytest.approx((common / mean, rare / mean))

    def test_larger_offset_weighs_classes_more_alike(self):
        clips = [self.clip([0, 0, 0, 1])]
        sharp, soft = (balanced_weights(clips, ("a", "b"), offset=x) for x in (1.02, 1.10))
        assert sharp[0] < soft[0] < soft[1] < sharp[1]
        with pytest.raises(TrainingError, match="offset must be above 1, got 1"):
            balanced_weights(clips, ("a", "b"), offset=1)

    def test_class_never_shown_is_named(self):
        with pytest.raises(TrainingError, match="no pixel of b, c"):
            balanced_weights([self.clip([0, 0, 255, 0])], ("a", "b", "c"))

    def test_clip_without_labels_is_named(self):
        with pytest.raises(TrainingError, match="clip 1 must have labels"):
            clips = [self.clip([0, 0, 0, 0]), Clip(frames=torch.zeros(2, 3, 1, 4))]
            balanced_weights(clips, ("a",))


class TestScores:
    def test_labels_of_images_may_be_any_class(self):
        # One label an image: class 255 is a class; one a pixel: it is ignored.
        assert score("accuracy", np.array([255, 1]), np.array([255, 0])) == 0.5
        pixels = np.array([[[255, 1]]])
        assert score("accuracy", np.array([[[0, 1]]]), pixels) == 1.0

    def test_nothing_counted_is_no_number(self):
        nothing = np.full((1, 1, 2), 255)
        for name in ("accuracy", "miou", "f1"):
            assert math.isnan(score(name, np.zeros((1, 1, 2), int), nothing))

    def test_counts_of_batches_add_up(self):
        answers, labels = np.array([[[0, 1, 1]]]), np.array([[[1, 1, 0]]])
        both = confusion(answers, labels, 2) + confusion(labels, answers, 2)
        # a: hits 0; b: hits 2, 4 labelled, 4 answered.
        assert mean_iou(both) == pytest.approx((0 + 2 / 6) / 2)
        assert f1(both) == pytest.approx(4 / 8)

    def test_unknown_scores_and_other_shapes_are_refused(self):
        one = np.zeros((1, 1, 1), int)
        with pytest.raises(TraceError, match="score must be one of accuracy, miou, f1, got 'iou'"):
            score("iou", one, one)
        with pytest.raises(TraceError, match=r"shape \(1, 1, 1\), got \(1,\)"):
            score("miou", one, np.zeros(1, int))


class TestWorkloadScore:
    def captured(self, score):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = torch.nn.Conv2d(3, 2, 3, padding=1).eval()
            images = torch.randn(2, 3, 6, 6)
        labels = torch.zeros(2, 6, 6, dtype=torch.int64)
        labels[:, 2:4] = 1
        labels[:, 0] = 255
        return model, images, labels, capture(model, images, labels=labels, score=score)

    @pytest.mark.parametrize("name", ["miou", "f1"])
    def test_dense_run_has_the_tasks_score(self, name, tmp_path):
        model, images, labels, trace = self.captured(name)
        trace.save(tmp_path / "trace")
        trace = type(trace).load(tmp_path / "trace")
        assert trace.score == name
        run = decide(trace, NoReuse(), model=model)
        with torch.no_grad():
            answers = model(images).argmax(1).numpy()
        assert run.accuracy == run.dense_accuracy == score(name, answers, labels.numpy())
        report = simulate(trace, preset("reuse_16x16"), run)
        assert {"miou": "mean IoU", "f1": "F1"}[name] in report.verdict

    def test_unknown_score_is_refused(self):
        with pytest.raises(TraceError, match="score must be one of"):
            self.captured("iou")
