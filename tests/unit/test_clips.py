"""Clips from files in each data set's layout, generated here, and how bad files are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from accelerators import ConfigError, preset
from codesign import DesignSpace, load_workload
from codesign.evaluation.evaluator import Evaluator
from workloads.streams import (
    APOLLOSCAPE_CLASSES,
    CAMVID_CLASSES,
    Clip,
    ClipSet,
    StreamError,
    apolloscape_lanes,
    apolloscape_scenes,
    camvid,
    lane_frames,
    tvtlane,
    video_clips,
)
from workloads.streams.drives import nearest_labels, thick_labels
from workloads.traces.scores import score
from workloads.training import TrainingError
from workloads.training.teacher import lane_labels_by


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)


def picture(value, size=(4, 6)):
    """A uniform RGB image."""
    return np.full((*size, 3), value)


def camvid_folder(path, names, size=(4, 6)):
    """Frame i is i grey, and its class i % 11."""
    for i, name in enumerate(names):
        save(path / "images" / f"{name}.png", picture(i, size))
        save(path / "labels" / f"{name}.png", np.full(size, i % 11))
    return path


def values(clips):
    """The grey value of each frame of each clip."""
    return [(clip.frames[:, 0, 0, 0] * 255).round().int().tolist() for clip in clips]


class TestClip:
    def test_one_frame_is_refused(self):
        with pytest.raises(StreamError, match="at least 2 frames, got 1"):
            Clip(frames=torch.zeros(1, 3, 4, 6))

    @pytest.mark.parametrize(
        ("frames", "labels", "message"),
        [
            (torch.zeros(2, 1, 4, 6), None, r"\(frames, 3, height, width\)"),
            (torch.zeros(2, 3, 4, 6).double(), None, "float32.*float64"),
            (torch.zeros(2, 3, 4, 6), torch.zeros(2, 4, 5).long(), r"shape \(2, 4, 6\)"),
            (torch.zeros(2, 3, 4, 6), torch.zeros(2, 4, 6), "int64.*float32"),
        ],
    )
    def test_other_shapes_are_refused(self, frames, labels, message):
        with pytest.raises(StreamError, match=message):
            Clip(frames=frames, labels=labels)


class TestClipSet:
    def clips(self, **changes):
        given = {
            "pixels": torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1).repeat(1, 3, 4, 6),
            "starts": [0, 4],
            "length": 4,
            "normalise": "unit",
            "source": "count",
        }
        return ClipSet(**given | changes)

    def test_a_lower_frame_rate_keeps_the_clips_apart(self):
        assert values(self.clips().every(3)) == [[0, 3], [4, 7]]
        with pytest.raises(StreamError, match="at least 2 frames, got length=1"):
            self.clips().every(4)
        with pytest.raises(StreamError, match="step must be at least 1, got 0"):
            self.clips().every(0)

    def test_images_are_frames_in_order(self):
        assert (self.clips().images(2, start=3).images[:, 0, 0, 0] * 255).tolist() == [3, 4]
        with pytest.raises(StreamError, match="has 8 frames, got count=3 from start=6"):
            self.clips().images(3, start=6)

    def test_images_may_be_some_frames_apart(self):
        chosen = self.clips().images(3, start=1, every=3)
        assert (chosen.images[:, 0, 0, 0] * 255).tolist() == [1, 4, 7]
        assert chosen.source == "count, every 3 frames"
        with pytest.raises(StreamError, match="got count=4 from start=1, every 3"):
            self.clips().images(4, start=1, every=3)

    @pytest.mark.parametrize("starts", [[], [0, 5]])
    def test_clips_lie_within_the_frames(self, starts):
        with pytest.raises(StreamError, match="must lie within its 8 frames"):
            self.clips(starts=starts)


class TestCamVid:
    def test_clips_stay_within_a_drive_and_its_numbering(self, tmp_path):
        names = [f"0001TP_{n:06}" for n in (30, 60, 90, 120, 151)]  # values 0 to 4
        names += [f"0001TP_{n:06}" for n in (300, 330)]  # 5, 6: a gap of 149 before
        names += ["Seq05VD_f00000", "Seq05VD_f00030", "Seq05VD_f00060"]  # 7, 8, 9
        folder = camvid_folder(tmp_path, names)
        clips = camvid(folder, normalise="unit")
        assert values(clips) == [[0, 1], [2, 3], [5, 6], [7, 8]]
        assert values(camvid(folder, length=3, step=1, normalise="unit")) == [
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [7, 8, 9],
        ]
        assert values(camvid(folder, limit=3, normalise="unit")) == [[0, 1]]
        assert [clip.labels.unique().tolist() for clip in clips][1] == [2, 3]
        assert clips.classes == CAMVID_CLASSES

    def test_numbers_without_leading_zeros_are_in_order(self, tmp_path):
        names = [f"a_{number}" for number in (8, 9, 10, 11)]  # as text, 8 comes last
        clips = camvid(camvid_folder(tmp_path, names), size=None, normalise="unit")
        assert values(clips) == [[0, 1], [2, 3]]

    def test_unlabelled_pixels_are_ignored(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        save(folder / "labels" / "a_1.png", [[11] * 6] * 2 + [[3] * 6] * 2)
        assert camvid(folder, size=None)[0].labels[0, :, 0].tolist() == [255, 255, 3, 3]

    def test_frames_and_labels_are_resized(self, tmp_path):
        clip = camvid(camvid_folder(tmp_path, ["a_1", "a_2"], (8, 12)), size=(4, 6))[0]
        assert clip.frames.shape == (2, 3, 4, 6)
        assert clip.labels.shape == (2, 4, 6)

    def test_missing_labels_are_named(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        (folder / "labels" / "a_2.png").unlink()
        with pytest.raises(StreamError, match=r"a_2\.png must hold the labels of a_2\.png, but is"):
            camvid(folder)

    def test_frames_of_differing_size_are_named(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        save(folder / "images" / "a_2.png", picture(0, (4, 8)))
        with pytest.raises(StreamError, match=r"a_2\.png must have the size.*4x6, got 4x8"):
            camvid(folder)

    def test_labels_of_another_size_are_named(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        save(folder / "labels" / "a_1.png", np.zeros((8, 6)))
        with pytest.raises(StreamError, match=r"labels/a_1\.png must have the size.*4x6, got 8x6"):
            camvid(folder)

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            (np.full((4, 6), 12), r"a_1\.png must hold classes 0 to 10, got 12"),
            (picture(3), r"a_1\.png: labels must be one class number of 8 bits.*\(4, 6, 3\)"),
        ],
    )
    def test_unknown_labels_are_named(self, tmp_path, label, message):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        save(folder / "labels" / "a_1.png", label)
        with pytest.raises(StreamError, match=message):
            camvid(folder)

    def test_damage_is_named(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        (folder / "images" / "a_2.png").write_bytes(b"\x89PNG cut")
        with pytest.raises(StreamError, match=r"a_2\.png must be a readable image"):
            camvid(folder)

    def test_labels_of_16_bits_are_named(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2"])
        wide = np.full((4, 6), 256, np.uint16)  # 0, cut to 8 bits
        Image.fromarray(wide).save(folder / "labels" / "a_2.png")
        with pytest.raises(StreamError, match=r"a_2\.png: labels must be one class .* of 8 bits"):
            camvid(folder)

    def test_too_few_frames_for_a_clip_are_told(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2", "b_1"])
        with pytest.raises(StreamError, match=r"3 consecutive frames.*drives of 2, 1 frames"):
            camvid(folder, length=3)
        with pytest.raises(StreamError, match="length >= 2"):
            camvid(folder, length=1)

    def test_folder_without_images_is_told(self, tmp_path):
        with pytest.raises(StreamError, match=r"frames in images/.*found no image"):
            camvid(tmp_path)

    def test_names_without_a_number_are_told(self, tmp_path):
        with pytest.raises(StreamError, match="must be called DRIVE_NUMBER"):
            camvid(camvid_folder(tmp_path, ["a_first", "a_second"]))

    def test_workload_is_scored_by_mean_iou(self, tmp_path):
        folder = camvid_folder(tmp_path, [f"a_{i}" for i in range(5)], (12, 16))
        asked = {"inputs": f"camvid:{folder}", "images": 3, "calibration_images": 2}
        workload = load_workload(model="resnet18_scenes", **asked)
        trace = workload.trace
        assert trace.labels.shape == (3, 120, 160)
        assert trace.labels[:, 0, 0].tolist() == [2, 3, 4]  # the frames before calibrate
        assert workload.calibration.labels[:, 0, 0].tolist() == [0, 1]
        evaluator = Evaluator.of(workload, DesignSpace.for_workload(trace, preset("reuse_16x16")))
        assert evaluator.quality == "miou"
        answers = trace.outputs.argmax(axis=1)
        assert evaluator.baseline["accuracy"] == score("miou", answers, trace.labels)

    def test_frames_of_a_workload_may_lie_apart(self, tmp_path):
        folder = camvid_folder(tmp_path, [f"a_{i}" for i in range(7)], (12, 16))
        workload = load_workload(
            model="resnet18_scenes", inputs=f"camvid:{folder}", images=2, calibration_images=1,
            held_out=1, every=2,
        )  # fmt: skip
        taken = workload.calibration, workload.trace, workload.held_out
        assert [trace.labels[:, 0, 0].tolist() for trace in taken] == [[0], [2, 4], [6]]

    def test_classifier_of_images_is_refused(self, tmp_path):
        folder = camvid_folder(tmp_path, ["a_1", "a_2", "a_3"], (32, 32))
        with pytest.raises(ConfigError, match=r"classes, 32, 32\), got \(2, 10\); use one that"):
            load_workload(
                model="resnet20", inputs=f"camvid:{folder}", images=2, calibration_images=1
            )


class TestApolloScape:
    CAMERA = "Record001/Camera 5"

    def scene_folder(self, path, label):
        for i in range(2):
            name = f"170908_06150240{i}_Camera_5"
            save(path / "road01_ins" / "ColorImage" / self.CAMERA / f"{name}.jpg", picture(100))
            save(path / "road01_ins" / "Label" / self.CAMERA / f"{name}_bin.png", label)
            save(  # instances are not read
                path / "road01_ins" / "Label" / self.CAMERA / f"{name}_instanceIds.png", label
            )
        return path

    def test_scenes(self, tmp_path):
        numbers = [[17] * 6, [33] * 6, [161] * 6, [99] * 6]  # sky, car, cars, tunnel
        clips = apolloscape_scenes(self.scene_folder(tmp_path, numbers), size=None)
        assert len(clips) == 1
        assert clips[0].labels[1, :, 0].tolist() == [0, 1, 1, 255]
        assert [APOLLOSCAPE_CLASSES[i] for i in (0, 1, 21)] == ["sky", "car", "vegetation"]

    def test_unknown_scene_numbers_are_named(self, tmp_path):
        folder = self.scene_folder(tmp_path, np.full((4, 6), 60))
        with pytest.raises(StreamError, match=r"_bin\.png: scene labels must be.*got 60"):
            apolloscape_scenes(folder)

    def lane_folder(self, path, label):
        for i in range(2):
            name = f"171206_02574229{i}_Camera_5"
            image = path / "ColorImage_road02" / "ColorImage" / self.CAMERA / f"{name}.jpg"
            save(image, picture(100))
            save(path / "Labels_road02" / "Label" / self.CAMERA / f"{name}_bin.png", label)
        return path

    def test_lanes(self, tmp_path):
        label = picture(0)
        label[1] = (70, 130, 180)  # a solid white line
        label[2] = (0, 153, 153)  # noise
        clips = apolloscape_lanes(self.lane_folder(tmp_path, label), size=None)
        assert clips[0].labels[0, :, 0].tolist() == [0, 1, 255, 0]
        assert clips.classes == ("other", "lane")

    def test_grey_lanes_are_refused(self, tmp_path):
        with pytest.raises(StreamError, match="lane labels must be coloured"):
            apolloscape_lanes(self.lane_folder(tmp_path, np.zeros((4, 6))))

    def test_other_layouts_are_told(self, tmp_path):
        with pytest.raises(StreamError, match=r"ColorImage/RECORD/CAMERA/\*\.jpg, found none"):
            apolloscape_scenes(tmp_path)


class TestLanes:
    def sequences(self, path):
        mask = np.zeros((4, 6))
        mask[:, 2] = 255
        for sequence in (1, 2):
            for frame in (7, 8, 9, 10, 11):  # 10 comes after 9
                save(path / "image" / f"{sequence}_{frame}.jpg", picture(10 * frame))
            save(path / "truth" / f"{sequence}_11.jpg", mask)
        return path

    def test_last_frame_of_each_sequence_is_labelled(self, tmp_path):
        clips = tvtlane(self.sequences(tmp_path), size=None, normalise="unit")
        assert values(clips) == [[70, 80, 90, 100, 110]] * 2
        assert (clips[1].labels[:4] == 255).all()
        assert clips[1].labels[4].unique().tolist() == [0, 1]
        assert values(tvtlane(tmp_path, length=2, size=None, normalise="unit")) == [[100, 110]] * 2

    def test_sequence_without_truth_is_named(self, tmp_path):
        (self.sequences(tmp_path) / "truth" / "2_11.jpg").unlink()
        with pytest.raises(StreamError, match=r"2_11\.jpg must hold the labels"):
            tvtlane(tmp_path)

    def test_single_frames(self, tmp_path):
        mask = np.zeros((4, 6))
        mask[0, 0] = 255
        save(tmp_path / "image" / "0000.jpg", picture(51))
        save(tmp_path / "gt_binary_image" / "0000.png", mask)
        frames = lane_frames(tmp_path, size=(2, 3), normalise="unit")
        assert frames.labels.tolist() == [[[1, 0, 0], [0, 0, 0]]]
        assert frames.images.unique().tolist() == pytest.approx([0.2])

    def test_masks_of_one_bit(self, tmp_path):
        mask = np.zeros((4, 6), bool)
        mask[1, 2] = True
        save(tmp_path / "image" / "0000.jpg", picture(51))
        (tmp_path / "gt_binary_image").mkdir()
        Image.fromarray(mask).save(tmp_path / "gt_binary_image" / "0000.png")
        assert lane_frames(tmp_path, size=(4, 6)).labels[0].tolist() == mask.astype(int).tolist()

    def test_video_is_cut_into_clips_without_labels(self):
        clips = video_clips("carphone", length=3, count=8, size=(16, 24))
        assert len(clips) == 2
        assert clips[1].frames.shape == (3, 3, 16, 24)
        assert clips[1].labels is None

    def test_teacher_labels_at_its_size(self):
        class Bright(nn.Module):
            """Lane where a pixel is bright."""

            normalise = "unit"

            def forward(self, images):
                return torch.stack([torch.full_like(images[:, 0], 0.5), images[:, 0]], dim=1)

        pixels = torch.zeros(2, 3, 4, 8, dtype=torch.uint8)
        pixels[:, :, 0, 0] = 200
        clips = ClipSet(pixels=pixels, starts=[0], length=2, source="drawn")
        taught = lane_labels_by(Bright(), clips, size=(2, 4))
        assert taught[0].labels[0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
        assert taught[0].frames.shape == (2, 3, 2, 4)
        assert taught.source == "drawn, labelled by Bright"
        with pytest.raises(TrainingError, match=r"shape \(1, 2, 4, 8\), got \(1, 3, 4, 8\)"):
            lane_labels_by(nn.Identity(), clips, size=(2, 4))
        dark = replace(clips, pixels=torch.zeros_like(pixels))
        with pytest.raises(TrainingError, match="Bright must see lanes in drawn, got none in 2"):
            lane_labels_by(Bright(), dark, size=(2, 4))


def test_shrinking_keeps_thin_lanes_and_middles_of_scenes():
    labels = torch.tensor([[[0, 0, 0, 1], [0, 0, 255, 0], [255, 255, 0, 0], [255, 255, 0, 0]]])
    labels = labels.to(torch.uint8)
    # Lane wins over other, other over unlabelled.
    assert thick_labels(labels, (2, 2)).tolist() == [[[0, 1], [255, 0]]]
    # Middles of 2x2 fall on their last pixel.
    assert nearest_labels(labels, (2, 2)).tolist() == [[[0, 0], [255, 0]]]
