"""Whatever a stream's file holds, it is read, or refused with the one error of its room."""

import io
import pickle
import random
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from tests.fuzzing import NASTY_VALUES, mutate_bytes
from workloads.streams import (
    StreamError,
    array_inputs,
    camvid,
    cifar10,
    pictures,
    video_frames,
)

av = pytest.importorskip("av")

ROUNDS = 400


def packed(tmp_path, files: dict[str, bytes], kind: str) -> bytes:
    path = tmp_path / f"made.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path.read_bytes()


def picture(kind: str, size=(32, 32)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def batch() -> bytes:
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    return pickle.dumps({b"data": pixels, b"labels": [1, 2]}, protocol=2)


def film(path) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in range(4):
            frame = np.full((32, 32, 3), 60 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Name -> a valid file's content, and what reads it from a path."""
    folder = tmp_path_factory.mktemp("good")
    images = {f"test/{each}/0.png": picture("PNG") for each in ("cat", "dog")}
    array = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, array)
    np.savez_compressed(npz, images=array, labels=np.arange(4))

    def inputs(path):
        return array_inputs(path, count=2)

    def test_split(path):
        return cifar10(path, "test")

    return {
        "a.npy": (npy.getvalue(), inputs),
        "a.npz": (npz.getvalue(), inputs),
        "a.safetensors": (safetensors.numpy.save({"images": array}), inputs),
        "batches.zip": (packed(folder, {"test_batch": batch()}, "zip"), test_split),
        "batches.tar": (packed(folder, {"test_batch": batch()}, "tar"), test_split),
        "images.tgz": (packed(folder, images, "tgz"), test_split),
        "0.png": (picture("PNG"), lambda path: pictures(path, count=1)),
        "0.jpg": (picture("JPEG"), lambda path: pictures(path, count=1)),
        "0.tif": (picture("TIFF"), lambda path: pictures(path, count=1)),
        "0.webp": (picture("WEBP"), lambda path: pictures(path, count=1)),
        "film.mp4": (film(folder / "film.mp4"), lambda path: video_frames(path, count=2)),
    }


def check(read, path) -> str:
    """What is told of a path; "" if it was read into finite numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = read(path)
        except StreamError as error:
            told = str(error)
            assert len(told) <= 2000
            assert "\x1b" not in told
            return told
    assert bool(found.images.isfinite().all())
    return ""


def attack(good, folder, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(rounds):
        name = chance.choice(list(good))
        content, read = good[name]
        path = folder / name
        path.write_bytes(mutate_bytes(content, chance))
        check(read, path)


def test_good_files_are_read(good, tmp_path, capfd):
    for name, (content, read) in good.items():
        (tmp_path / name).write_bytes(content)
        assert check(read, tmp_path / name) == "", name
    assert capfd.readouterr() == ("", "")


def test_damaged_files(good, tmp_path, capfd):
    attack(good, tmp_path, ROUNDS, seed=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_damaged_files(good, tmp_path, seed):
    attack(good, tmp_path, 2000, seed)


def test_nothing_and_text(good, tmp_path):
    for name, (_, read) in good.items():
        for content in (b"", b"text\n" * 100, b"\0" * 1000, b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"):
            (tmp_path / name).write_bytes(content)
            assert check(read, tmp_path / name), (name, content)


@pytest.mark.parametrize("key", [b"data", b"labels", "whole"])
def test_nasty_values_in_a_batch(tmp_path, key):
    tried = 0
    for name, make in NASTY_VALUES.items():
        content = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2]}
        value = make()
        for placed in (value, [value, 1, 2]):
            try:
                data = pickle.dumps(placed if key == "whole" else {**content, key: placed}, 2)
            except Exception:  # what can't be pickled can't be brought either
                continue
            (tmp_path / "test_batch").write_bytes(data)
            tried += 1
            told = check(lambda path: cifar10(path, "test"), tmp_path)
            # A list of three labels in range is as good as that which it replaces.
            assert told or (key == b"labels" and name in ("zero", "one", "seven", "list")), name
    assert tried > 60


def test_labels_of_a_folder(tmp_path):
    """Every kind of picture in place of a frame and of its labels."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    frame = tmp_path / "images" / "a_1.png"
    label = tmp_path / "labels" / "a_1.png"
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a_0.png")
    Image.new("L", (8, 6)).save(tmp_path / "labels" / "a_0.png")
    chance = random.Random(0)
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"):
        for size in ((8, 6), (6, 8), (1, 1)):
            Image.new("RGB", (8, 6)).save(frame)
            Image.new("L", (8, 6)).save(label)
            for file in (frame, label):
                Image.new(mode, size).save(file)
                for _ in range(2):
                    try:
                        camvid(tmp_path, size=None)
                    except StreamError as error:
                        assert "a_1.png" in str(error)
                    file.write_bytes(mutate_bytes(file.read_bytes(), chance))
