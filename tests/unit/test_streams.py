"""Streams: what they deliver, and how they refuse what they can't read."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from workloads.streams import (
    CIFAR10_CLASSES,
    NORMALISATIONS,
    ImageSet,
    StreamError,
    cifar10,
    digits,
    video_frames,
)
from workloads.streams.cifar_archive import holds_both_splits
from workloads.streams.image_set import normalisation

av = pytest.importorskip("av")


def image_set(n: int = 5, labels: bool = True) -> ImageSet:
    images = torch.arange(n, dtype=torch.float32)[:, None, None, None].expand(n, 3, 2, 2)
    return ImageSet(
        images=images.contiguous(),
        labels=torch.arange(n) % 2 if labels else None,
        classes=("even", "odd") if labels else (),
        source="counting",
    )


class TestImageSet:
    def test_take_and_batch_keep_order_and_labels(self):
        stream = image_set(5)
        assert len(stream) == 5
        assert stream.take(2).images[:, 0, 0, 0].tolist() == [0, 1]
        middle = stream.batch(2, 2)
        assert middle.images[:, 0, 0, 0].tolist() == [2, 3]
        assert middle.labels.tolist() == [0, 1]
        assert middle.classes == ("even", "odd")

    def test_batches_cover_everything_once(self):
        # 5 images by 2: 2 + 2 + 1
        assert [len(batch) for batch in image_set(5).batches(2)] == [2, 2, 1]

    def test_shuffling_keeps_images_and_labels_together(self):
        stream = image_set(20)
        shuffled = stream.shuffled(3)
        order = shuffled.images[:, 0, 0, 0].long()
        assert order.tolist() != list(range(20)) and sorted(order.tolist()) == list(range(20))
        assert torch.equal(shuffled.labels, order % 2)
        assert torch.equal(shuffled.images, stream.shuffled(3).images)
        assert not torch.equal(shuffled.images, stream.shuffled(4).images)
        assert image_set(3, labels=False).shuffled().labels is None

    @pytest.mark.parametrize("count", [0, -1, 6])
    def test_take_outside_is_refused(self, count):
        with pytest.raises(StreamError, match=f"between 1 and the 5 images of counting.*{count}"):
            image_set(5).take(count)

    @pytest.mark.parametrize(("start", "size"), [(4, 2), (-1, 2), (0, 0), (5, 1)])
    def test_batch_outside_is_refused(self, start, size):
        with pytest.raises(StreamError, match=f"start={start}, size={size}"):
            image_set(5).batch(start, size)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.zeros(2, 3, 4, 4, dtype=torch.float64), "float32 tensor, got torch.float64"),
            (np.zeros((2, 3, 4, 4), np.float32), "float32 tensor, got ndarray"),
            (torch.zeros(2, 1, 4, 4), r"shape \(n, 3, h, w\).*\(2, 1, 4, 4\)"),
            (torch.zeros(0, 3, 4, 4), "n, h, w >= 1"),
            (torch.full((1, 3, 4, 4), float("nan")), "finite"),
        ],
    )
    def test_bad_images_are_refused(self, images, message):
        with pytest.raises(StreamError, match=message):
            ImageSet(images=images, source="test")

    def test_all_label_violations_come_together(self):
        with pytest.raises(StreamError) as caught:
            ImageSet(
                images=torch.zeros(2, 3, 4, 4),
                labels=torch.tensor([0, 1, 7]),
                classes=("a", "b"),
                source="test",
            )
        assert "2 images, got 3 labels" in str(caught.value)
        assert "2 classes, got labels 0 to 7" in str(caught.value)


class TestNormalisations:
    @pytest.mark.parametrize(
        ("name", "pixel", "expected"),
        [
            ("unit", 255, 1.0),
            ("signed", 0, -1.0),
            ("signed", 255, 1.0),
            ("efficientnet_lite", 127, 0.0),
            ("efficientnet_lite", 255, 1.0),  # (255 - 127) / 128
        ],
    )
    def test_fixed_maps(self, name, pixel, expected):
        pixels = torch.full((1, 3, 2, 2), float(pixel))
        assert NORMALISATIONS[name](pixels).unique().tolist() == [expected]

    def test_standardised_image_has_mean_zero_and_deviation_one(self):
        # Half the elements 10, half 30: mean 20, deviation 10, so -1 and 1.
        pixels = torch.tensor([10.0, 30.0]).repeat(6).reshape(1, 3, 2, 2)
        assert NORMALISATIONS["standardised"](pixels).unique().tolist() == [-1.0, 1.0]

    def test_uniform_image_becomes_zeros(self):
        assert not NORMALISATIONS["standardised"](torch.full((1, 3, 2, 2), 9.0)).any()

    def test_unknown_name_suggests_the_nearest(self):
        with pytest.raises(StreamError, match="did you mean 'signed'"):
            normalisation("sined")


class TestDigits:
    def test_split_is_stratified_disjoint_and_repeatable(self):
        train, test = digits("train"), digits("test")
        assert (len(train), len(test)) == (1437, 360)  # 1,797 scans in all
        assert train.images.shape[1:] == (3, 32, 32)
        assert train.classes == tuple("0123456789")
        # Classes hold 174 to 183 scans, so 360/1797 of each is 34.9 to 36.7.
        assert set(test.labels.bincount(minlength=10).tolist()) <= {34, 35, 36, 37}
        assert torch.equal(digits("test").images, test.images)
        seen = {image.numpy().tobytes() for image in train.images}
        assert not any(image.numpy().tobytes() in seen for image in test.images)

    def test_pixels_are_the_scans_resized_by_four(self):
        from sklearn.datasets import load_digits

        image = digits("test").images[0]
        assert image.min() >= -1
        assert image.max() <= 1
        # Four pixels per scan pixel: the corners of the result lie outside all scan centres and
        # copy the scan's corners; inside, the mean of the 2x2 block around a scan pixel's centre
        # is (0.75 p + 0.25 * ...) of the neighbourhood, so only the corners are exact.
        corners = image[0, [0, 0, 31, 31], [0, 31, 0, 31]]
        scans = load_digits().images[:, [0, 0, 7, 7], [0, 7, 0, 7]] / 8 - 1
        assert (scans == corners.numpy().astype(float)).all(axis=1).any()

    def test_unknown_split(self):
        with pytest.raises(StreamError, match="'train' or 'test', got 'val'"):
            digits("val")


@pytest.fixture(scope="module")
def counting_video(tmp_path_factory) -> Path:
    """Twelve lossless 24x16 frames; frame i is grey 10 i, with a white left edge of 4 pixels."""
    path = tmp_path_factory.mktemp("video") / "counting.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
        for i in range(12):
            frame = np.full((16, 24, 3), 10 * i, np.uint8)
            frame[:, :4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def keep_pixels(pixels: torch.Tensor) -> torch.Tensor:
    return pixels


class TestVideo:
    def test_start_and_every_choose_exact_frames(self, counting_video):
        frames = video_frames(counting_video, count=3, start=2, every=4, normalise=keep_pixels)
        assert frames.images.shape == (3, 3, 16, 24)
        assert frames.images[:, 0, 8, 20].tolist() == [20, 60, 100]  # frames 2, 6, 10
        assert frames.images[:, 0, 8, 0].tolist() == [255] * 3
        assert frames.labels is None
        assert "counting.mkv" in frames.source

    def test_crop_keeps_the_middle(self, counting_video):
        # 24x16 cut to a square keeps columns 4 to 19: the white edge is gone.
        frames = video_frames(counting_video, count=1, start=3, size=(8, 8), normalise=keep_pixels)
        assert frames.images.flatten().tolist() == pytest.approx([30] * 192)  # 3*8*8

    def test_without_crop_the_frame_is_stretched(self, counting_video):
        frames = video_frames(
            counting_video, count=1, start=3, size=(8, 8), crop=False, normalise=keep_pixels
        )
        assert frames.images[0, 0, 0, 0] > 200
        assert frames.images[0, 0, 0, 7].item() == pytest.approx(30)

    def test_sample_video_is_real_and_normalised(self):
        frames = video_frames("bikes", size=(32, 32), count=2)
        assert frames.images.shape == (2, 3, 32, 32)
        assert -1 <= frames.images.min() < 0 < frames.images.max() <= 1
        assert not torch.equal(frames.images[0], frames.images[1])

    def test_too_few_frames_says_how_many_there_are(self, counting_video):
        # start=2, every=4 reaches frames 2, 6, 10 of 12
        with pytest.raises(StreamError, match=r"has 12 frames.*use count <= 3"):
            video_frames(counting_video, count=4, start=2, every=4)

    def test_start_beyond_the_end(self, counting_video):
        with pytest.raises(StreamError, match=r"has 12 frames.*use start < 12"):
            video_frames(counting_video, count=1, start=12)

    def test_video_without_frames(self, counting_video, tmp_path):
        empty = tmp_path / "empty.mkv"
        with av.open(str(empty), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
            container.start_encoding()
        with pytest.raises(StreamError, match=r"empty\.mkv"):
            video_frames(empty, count=1)

    @pytest.mark.parametrize("source", ["no/such.mp4", "http://localhost/video.mp4"])
    def test_missing_file_and_addresses(self, source):
        with pytest.raises(StreamError, match="existing file or one of bikes, bigbuckbunny"):
            video_frames(source, count=1)

    @pytest.mark.parametrize("name", ["noise.mp4", "notes.txt"])
    def test_file_that_is_no_video(self, tmp_path, name):
        path = tmp_path / name
        path.write_bytes(b"not a film\n" * 100)
        with pytest.raises(StreamError, match=name):
            video_frames(path, count=1)

    def test_empty_file(self, tmp_path):
        path = tmp_path / "nothing.mp4"
        path.touch()
        with pytest.raises(StreamError, match=r"nothing\.mp4"):
            video_frames(path, count=1)

    def test_playlist_cannot_reach_the_network(self, tmp_path):
        playlist = tmp_path / "list.m3u8"
        playlist.write_text(
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"
        )
        with pytest.raises(StreamError):
            video_frames(playlist, count=1)

    def test_all_bad_requests_come_together(self, counting_video):
        with pytest.raises(StreamError) as caught:
            video_frames(counting_video, count=0, every=0, start=-1, size=(0, 8))
        for name in ("count", "every", "start", "size"):
            assert f"video_frames {name}" in str(caught.value)


def pixels_of(index: int) -> np.ndarray:
    """A 3,072-byte image that tells its index from any pixel; channels differ."""
    planes = [np.full(1024, (7 * index + 50 * channel) % 256, np.uint8) for channel in range(3)]
    return np.concatenate(planes)


def python_batch(indices: range) -> bytes:
    batch = {
        b"batch_label": b"made for a test",
        b"data": np.stack([pixels_of(i) for i in indices]),
        b"labels": [i % 10 for i in indices],
        b"filenames": [f"{i}.png".encode() for i in indices],
    }
    return pickle.dumps(batch, protocol=2)


def binary_batch(indices: range) -> bytes:
    return b"".join(bytes([i % 10]) + pixels_of(i).tobytes() for i in indices)


def cifar_files(version: str) -> dict[str, bytes]:
    """Five training batches of four images (0 to 19) and a test batch of two (20, 21)."""
    folder, suffix, encode = {
        "python": ("cifar-10-batches-py", "", python_batch),
        "binary": ("cifar-10-batches-bin", ".bin", binary_batch),
    }[version]
    files = {
        f"{folder}/data_batch_{i + 1}{suffix}": encode(range(4 * i, 4 * i + 4)) for i in range(5)
    }
    # As in the real archives, the test batch comes somewhere in between.
    return {f"{folder}/test_batch{suffix}": encode(range(20, 22)), **files}


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def png(grey: int, size: tuple[int, int] = (32, 32)) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_files(prefix: str = "", count: int = 20) -> dict[str, bytes]:
    return {
        f"{prefix}{name}/{i:04d}.png": png(100 * label + i)
        for label, name in enumerate(("cat", "dog"))
        for i in range(count)
    }


class TestCifarBatches:
    @pytest.mark.parametrize("version", ["python", "binary"])
    @pytest.mark.parametrize("container", ["tar", "folder", "inner folder", "zip"])
    def test_all_versions_agree(self, tmp_path, version, container):
        files = cifar_files(version)
        match container:
            case "tar":
                path = write_tar(tmp_path / "cifar.tar.gz", files)
            case "folder":
                path = write_folder(tmp_path, files)
            case "inner folder":
                path = next(write_folder(tmp_path, files).iterdir())
            case "zip":
                path = write_zip(tmp_path / "cifar.zip", files)
        train = cifar10(path, "train", normalise=keep_pixels)
        test = cifar10(path, "test", normalise=keep_pixels)
        assert train.labels.tolist() == [i % 10 for i in range(20)]
        assert test.labels.tolist() == [0, 1]
        expected = np.stack([pixels_of(i) for i in range(20)]).reshape(-1, 3, 32, 32)
        assert np.array_equal(train.images.numpy(), expected.astype(np.float32))
        assert train.classes == CIFAR10_CLASSES
        assert holds_both_splits(path)

    def test_limit_reads_the_first_images(self, tmp_path):
        path = write_folder(tmp_path, cifar_files("binary"))
        assert cifar10(path, "train", 6).labels.tolist() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(StreamError, match=r"at most the 20 train images.*got 21"):
            cifar10(path, "train", 21)
        with pytest.raises(StreamError, match="limit must be at least 1"):
            cifar10(path, "train", 0)

    def test_default_normalisation_is_per_image(self, tmp_path):
        images = cifar10(write_folder(tmp_path, cifar_files("binary")), "test").images
        assert images.mean(dim=(1, 2, 3)).abs().max() < 1e-5
        assert torch.allclose(images.std(dim=(1, 2, 3), unbiased=False), torch.ones(2))

    def test_missing_batch_is_named(self, tmp_path):
        files = cifar_files("binary")
        del files["cifar-10-batches-bin/data_batch_3.bin"]
        with pytest.raises(StreamError, match=r"must hold data_batch_3\.bin"):
            cifar10(write_folder(tmp_path, files), "train")

    def test_cut_off_binary_batch(self, tmp_path):
        files = cifar_files("binary")
        files["cifar-10-batches-bin/test_batch.bin"] = binary_batch(range(2))[:-1]
        # 2 records of 3,073 bytes less one
        with pytest.raises(StreamError, match="records of 3073 bytes, got 6145"):
            cifar10(write_folder(tmp_path, files), "test")

    def test_label_out_of_range(self, tmp_path):
        files = {"test_batch.bin": bytes([99]) + pixels_of(0).tobytes()}
        with pytest.raises(StreamError, match=r"labels 0 to 9, got 99.*CIFAR-100"):
            cifar10(write_folder(tmp_path, files), "test")

    def test_truncated_tar(self, tmp_path):
        path = write_tar(tmp_path / "cifar.tar.gz", cifar_files("python"))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(StreamError, match=r"cifar\.tar\.gz"):
            cifar10(path)

    def test_missing_and_foreign_files(self, tmp_path):
        with pytest.raises(StreamError, match="existing file or folder"):
            cifar10(tmp_path / "none.tar.gz")
        foreign = tmp_path / "page.tar.gz"
        foreign.write_text("<html>not found</html>")
        with pytest.raises(StreamError, match="is none of these"):
            cifar10(foreign)
        with pytest.raises(StreamError, match="holds neither"):
            cifar10(write_zip(tmp_path / "other.zip", {"a.txt": b"hello"}))


class Spy:
    """Unpickled, this would call a function that the archive chose."""

    def __reduce__(self):
        return (print, ("executed",))


class TestPickleIsNotTrusted:
    @pytest.mark.parametrize(
        "payload",
        [
            pickle.dumps(Spy()),
            pickle.dumps({b"data": Spy(), b"labels": []}, protocol=2),
            b"cos\nsystem\n(S'true'\ntR.",
            pickle.dumps({b"data": np.array([object()], dtype=object), b"labels": [0]}),
        ],
    )
    def test_code_is_refused_and_not_run(self, tmp_path, capsys, payload):
        path = write_folder(tmp_path, {"test_batch": payload})
        with pytest.raises(StreamError, match="only plain containers and numeric arrays"):
            cifar10(path, "test")
        assert "executed" not in capsys.readouterr().out

    @pytest.mark.parametrize("payload", [b"", b"\x80\x02", b"garbage", python_batch(range(2))[:99]])
    def test_damage_is_told(self, tmp_path, payload):
        with pytest.raises(StreamError, match="test_batch"):
            cifar10(write_folder(tmp_path, {"test_batch": payload}), "test")

    @pytest.mark.parametrize(
        "batch",
        [
            [1, 2],
            {b"data": np.zeros((1, 5), np.uint8), b"labels": [0]},
            {b"data": np.zeros((1, 3072), np.int64), b"labels": [0]},
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": 0},
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]},
            {b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0]},
        ],
    )
    def test_plain_but_not_cifar(self, tmp_path, batch):
        path = write_folder(tmp_path, {"test_batch": pickle.dumps(batch, protocol=2)})
        with pytest.raises(StreamError, match="test_batch"):
            cifar10(path, "test")


class TestCifarImageFolders:
    @pytest.mark.parametrize("write", [write_zip, write_folder])
    def test_images_come_in_a_fixed_random_order(self, tmp_path, write):
        path = write(tmp_path / "images.zip", folder_files())
        stream = cifar10(path, normalise=keep_pixels)
        assert stream.classes == ("cat", "dog")
        assert len(stream) == 40
        # The grey level says which class an image came from.
        assert (stream.images[:, 0, 0, 0] >= 100).long().tolist() == stream.labels.tolist()
        assert stream.labels.tolist() != sorted(stream.labels.tolist())
        assert torch.equal(
            stream.images[:7], cifar10(path, "train", 7, normalise=keep_pixels).images
        )
        assert not holds_both_splits(path)

    def test_train_and_test_folders_are_the_splits(self, tmp_path):
        files = {**folder_files("data/train/", 3), **folder_files("data/test/", 2)}
        path = write_zip(tmp_path / "images.zip", {**files, "data/readme.txt": b"hello"})
        assert len(cifar10(path, "train")) == 6
        assert len(cifar10(path, "test")) == 4
        assert holds_both_splits(path)

    def test_wrong_size_and_damage_name_the_image(self, tmp_path):
        wide = write_zip(tmp_path / "wide.zip", {"cat/1.png": png(1, (64, 32))})
        with pytest.raises(StreamError, match=r"cat/1\.png must be 32x32 pixels, got 64x32"):
            cifar10(wide)
        broken = write_zip(tmp_path / "broken.zip", {"cat/1.png": png(1)[:40]})
        with pytest.raises(StreamError, match=r"cat/1\.png is not a readable image"):
            cifar10(broken)
