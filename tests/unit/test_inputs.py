"""Inputs of a user's own: pictures and arrays, and what is refused before it is decoded."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from typer.testing import CliRunner

from accelerators import ConfigError
from codesign.cli.app import app
from codesign.evaluation.workload import load_workload
from workloads import TraceError
from workloads.models import ModelError
from workloads.streams import StreamError, array_inputs, camvid, cifar10, pictures, video_frames
from workloads.traces.trace import WorkloadTrace

SMALL = """\
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, stride=4), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


class Sized(Small):
    input_shape = (3, 12, 16)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.embed(x).mean(1))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Holds net.py, pictures 1, 2, 9 and 10, whose red is their number, and arrays of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(SMALL)
    (tmp_path / "pictures").mkdir()
    for number in (1, 2, 9, 10):
        Image.new("RGB", (16, 24), (number, 0, 0)).save(f"pictures/im{number}.png")
    (tmp_path / "pictures" / "readme.txt").write_text("made for a test")
    np.save("images.npy", np.arange(4 * 3 * 64, dtype=np.float32).reshape(4, 3, 8, 8))
    return tmp_path


def reds(images) -> list[float]:
    return images.images[:, 0, 0, 0].tolist()


def unchanged(pixels):
    return pixels


def bomb(side: int) -> bytes:
    """A PNG of some hundred bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


class TestPictures:
    def test_order_of_name_with_numbers_as_numbers(self, folder):
        assert reds(pictures(folder / "pictures", count=4, normalise=unchanged)) == [1, 2, 9, 10]
        chosen = pictures(folder / "pictures", count=2, start=1, every=2, normalise=unchanged)
        assert reds(chosen) == [2, 10]

    def test_size(self, folder):
        assert pictures("pictures", count=1).images.shape == (1, 3, 24, 16)
        assert pictures("pictures", count=1, size=(8, 10)).images.shape == (1, 3, 8, 10)
        Image.new("RGB", (8, 8)).save("pictures/im3.png")
        with pytest.raises(StreamError, match=r"im3\.png must have the size .* 24x16, got 8x8"):
            pictures("pictures", count=4)

    def test_photographs_are_turned_upright(self, folder):
        turned = Image.Exif()
        turned[0x112] = 6  # a quarter turn
        Image.new("RGB", (4, 8)).save("photo.jpg", exif=turned)
        assert pictures("photo.jpg", count=1).images.shape == (1, 3, 4, 8)

    @pytest.mark.parametrize(
        ("name", "make", "told"),
        [
            ("a.png", lambda p: Image.new("I;16", (4, 4)).save(p), "8 bits per channel.*I;16"),
            ("a.tif", lambda p: Image.new("F", (4, 4)).save(p), "8 bits per channel.*'F'"),
            ("a.png", lambda p: p.write_bytes(bomb(25000)), "67108864 pixels, got 25000x25000"),
            ("a.png", lambda p: p.write_bytes(bomb(10000)), "67108864 pixels, got 10000x10000"),
            ("a.png", lambda p: p.write_bytes(b"text"), "no picture of a known format"),
            ("a.png", lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "known format"),
            ("a.png", lambda p: p.mkdir(), "a folder"),
            ("a.png", os.mkfifo, "a device or a pipe"),
            ("a.png", lambda p: p.symlink_to("a.png"), "levels of symbolic links"),
            ("a.png", lambda p: p.symlink_to("/dev/zero"), "a device or a pipe"),
            (
                "a.txt",
                lambda p: p.touch(),
                r"must hold pictures .*got a\.txt; .*other folders give one",
            ),
        ],
    )
    def test_others_are_refused(self, name, make, told, tmp_path, recwarn):
        make(tmp_path / name)
        with pytest.raises(StreamError, match=told):
            pictures(tmp_path, count=1)
        assert not recwarn.list

    def test_moving_pictures(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (0, 200)]
        frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
        with pytest.raises(StreamError, match="single picture, got 2"):
            pictures(tmp_path, count=1)

    def test_bombs_in_data_sets(self, tmp_path, recwarn):
        for each in ("cat", "dog"):
            (tmp_path / "test" / each).mkdir(parents=True)
            (tmp_path / "test" / each / "0.png").write_bytes(bomb(10000))
        with pytest.raises(StreamError, match=r"must be 32x32 pixels, got 10000x10000"):
            cifar10(tmp_path, "test")
        for each in ("images", "labels"):
            (tmp_path / each).mkdir()
            for name in ("a_1.png", "a_2.png"):
                Image.new("RGB" if each == "images" else "L", (8, 6)).save(tmp_path / each / name)
        (tmp_path / "labels" / "a_2.png").write_bytes(bomb(25000))
        with pytest.raises(StreamError, match=r"size of its image, 6x8, got 25000x25000"):
            camvid(tmp_path)
        (tmp_path / "images" / "a_1.png").write_bytes(bomb(25000))
        with pytest.raises(StreamError, match="at most 67108864 pixels, got 25000x25000"):
            camvid(tmp_path)
        assert not recwarn.list


class TestArrays:
    @pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
    def test_rows_are_taken_in_order(self, suffix, tmp_path):
        values = np.arange(12, dtype=np.float32).reshape(6, 2)
        path = tmp_path / f"a.{suffix}"
        if suffix == "npy":
            np.save(path, values)
        elif suffix == "npz":
            np.savez(path, anything=values)
        else:
            safetensors.torch.save_file({"x": torch.from_numpy(values)}, path)
        found = array_inputs(path, count=2, start=1, every=3)
        assert found.images.tolist() == [[2, 3], [8, 9]]
        assert found.labels is None

    def test_labels(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, images=np.ones((3, 2), np.float32), labels=np.arange(3), extra=np.ones(1))
        found = array_inputs(path, count=2, start=1)
        assert found.labels.tolist() == [1, 2]

    def test_token_ids(self, tmp_path):
        np.save(tmp_path / "t.npy", np.arange(6, dtype=np.int32).reshape(2, 3))
        images = array_inputs(tmp_path / "t.npy", count=2).images
        assert images.dtype == torch.int64 and images.tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            (np.ones((2, 3)), r"got float64 \(2, 3\) .*convert them by \.astype\('float32'\)"),
            (np.ones((2, 4, 4, 3), np.uint8), r"got uint8 \(2, 4, 4, 3\)"),
            (np.full((2, 3), np.nan, np.float32), "got NaN or infinity"),
            (np.ones(2, np.float32), r"got float32 \(2,\)"),
            (np.ones((0, 3), np.float32), r"got float32 \(0, 3\)"),
            (np.ones((1, 3), np.float32), r"2 or more images .*got float32 \(1, 3\)"),
            (np.array([["a"], ["b"]]), "got <U1"),
            (np.full((2, 3), 2**64 - 1), "token ids below 2"),
        ],
    )
    def test_others_are_refused(self, values, told, tmp_path):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(StreamError, match=told):
            array_inputs(tmp_path / "a.npy", count=2)

    def test_objects_are_refused_unread(self, tmp_path):
        ran = tmp_path / "ran"

        class Malicious:
            def __reduce__(self):
                return ran.touch, ()

        np.save(tmp_path / "a.npy", np.array([[Malicious()]]), allow_pickle=True)
        ran.unlink(missing_ok=True)
        (tmp_path / "b.npy").write_bytes(pickle.dumps(Malicious()))
        np.savez(tmp_path / "c.npz", np.array([[Malicious()]]))
        for name in ("a.npy", "b.npy", "c.npz"):
            with pytest.raises(StreamError, match="file of numbers"):
                array_inputs(tmp_path / name, count=1)
        assert not ran.exists()

    def test_a_header_that_claims_terabytes(self, tmp_path):
        text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
        header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"
        (tmp_path / "a.npy").write_bytes(header)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("images.npy", header)
        for name in ("a.npy", "a.npz"):
            with pytest.raises(StreamError, match="file of numbers"):
                array_inputs(tmp_path / name, count=1)

    def test_which_of_several(self, tmp_path):
        np.savez(tmp_path / "a.npz", a=np.ones((2, 2)), b=np.ones(2))
        with pytest.raises(StreamError, match="one called 'images', got 'a', 'b' in"):
            array_inputs(tmp_path / "a.npz", count=1)


class TestArchives:
    def test_names_that_repeat(self, tmp_path, recwarn):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("test_batch.bin", b"x")
            archive.writestr("test_batch.bin", b"y")
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("test_batch.bin"))
        for name in ("a.zip", "a.tar"):
            with pytest.raises(StreamError, match=r"each file once, got test_batch\.bin twice"):
                cifar10(tmp_path / name, "test")

    @pytest.mark.parametrize(
        ("kind", "size", "told"),
        [
            (tarfile.REGTYPE, 5 * 2**30, "bytes unpacked, got 5368709120"),
            (tarfile.XHDTYPE, 2**31, "headers of at most 67108864 bytes, got 2147483648"),
        ],
    )
    def test_a_tar_that_claims_gigabytes(self, kind, size, told, tmp_path):
        member = tarfile.TarInfo("test_batch.bin")
        member.type, member.size = kind, size
        with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
            file.write(member.tobuf(tarfile.USTAR_FORMAT))
            file.write(bytes(2**20))
        with pytest.raises(StreamError, match=told):
            cifar10(tmp_path / "a.tar.gz", "test")

    def test_damaged_zips(self, tmp_path):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("test_batch.bin", bytes(3073))
        whole = buffer.getvalue()
        encrypted = bytearray(whole)
        encrypted[6] |= 1
        encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
        for content, told in (
            (whole.replace(bytes(3073), bytes(3072) + b"x"), "CRC"),
            (bytes(encrypted), "encrypted|password"),
            (whole.replace(b"PK\x01\x02", b"PK\x01\x07"), "can't be read"),
        ):
            (tmp_path / "a.zip").write_bytes(content)
            with pytest.raises(StreamError, match=told):
                cifar10(tmp_path / "a.zip", "test")

    @pytest.mark.parametrize("label", [10**30, -1, 10, True, 1.0, "1", b"1", None])
    def test_labels_of_a_batch(self, label, tmp_path):
        batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, label]}
        (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 2))
        with pytest.raises(StreamError, match="labels"):
            cifar10(tmp_path, "test")

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"\x80\x02Nr\xff\xff\xff\x7f.", "numbers more values than it has bytes"),
            (b"\x80\x02}K\x00" + b"\x85" * 100_000 + b"Ns.", "more than plain containers"),
            (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "not a readable pickle"),
        ],
    )
    def test_pickles_that_take_memory_or_stack(self, data, told, tmp_path):
        (tmp_path / "test_batch").write_bytes(data)
        with pytest.raises(StreamError, match=told):
            cifar10(tmp_path, "test")


class TestLoadWorkload:
    def capture(self, inputs, model="net.py:Small", **options):
        given = {"images": 2, "calibration_images": 0} | options
        return load_workload(model=model, inputs=inputs, **given)

    def test_pictures_calibrate_with_those_before(self, folder):
        made = self.capture("pictures", calibration_images=1, every=1)
        assert made.name.endswith(" on 2 pictures of pictures")
        assert made.trace.inputs[0].shape == (2, 3, 24, 16)
        assert made.calibration.images == 1

    def test_pictures_take_the_models_size(self, folder):
        made = self.capture("pictures", model="net.py:Sized")
        assert made.trace.inputs[0].shape == (2, 3, 12, 16)

    def test_arrays_are_what_the_model_sees(self, folder):
        trace = self.capture("images.npy", first_frame=1).trace
        assert np.array_equal(trace.inputs[0], np.load("images.npy")[1:3])

    def test_arrays_with_labels_are_scored(self, folder):
        np.savez("a.npz", images=np.load("images.npy"), labels=np.arange(4))
        assert self.capture("a.npz").trace.labels.tolist() == [0, 1]

    def test_token_ids(self, folder):
        np.save("t.npy", np.arange(12).reshape(3, 4))
        assert self.capture("t.npy", model="net.py:Text").trace.inputs[0].shape == (2, 4)

    @pytest.mark.parametrize(
        ("inputs", "options", "told"),
        [
            ("pictures", {"calibration_images": 3}, "too few for 2, .*after the first 3;"),
            ("images.npy", {"images": 5}, r"5 or more images .*\(4, 3, 8, 8\) in \S+; take fewer"),
            ("pictures", {"images": 5}, "holds 4 pictures: too few for 5; take fewer, or add"),
            ("images.npy", {"images": 10**5000}, r"images must be .* got an integer of \d+ bits"),
            ("nowhere", {}, r"\.npy, .*folder of pictures, .*capture\(model, tensor\) takes any"),
            ("/dev/zero", {}, "a device or a pipe"),
            ("net.py", {}, "must be a readable video"),
        ],
    )
    def test_one_message(self, inputs, options, told, folder):
        with pytest.raises((ConfigError, StreamError, TraceError), match=told):
            self.capture(inputs, **options)

    def test_a_model_of_other_channels(self, folder):
        np.save("grey.npy", np.ones((2, 1, 8, 8), np.float32))
        with pytest.raises((ModelError, TraceError), match=r"\(2, 1, 8, 8\)"):
            self.capture("grey.npy")

    @pytest.mark.parametrize("inputs", ["pictures", "images.npy", "pictures/im2.png"])
    def test_the_command(self, inputs, folder):
        count = "1" if inputs.endswith("png") else "2"
        options = ["--model", "net.py:Small", "--inputs", inputs, "--images", count]
        done = CliRunner().invoke(app, ["capture", *options, "--out", "trace"])
        assert done.exit_code == 0, done.output
        assert WorkloadTrace.load("trace").images == int(count)


def test_video_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(StreamError, match="a device or a pipe"):
        video_frames(tmp_path / "pipe.mp4", count=1)


def test_token_ids_reach_the_model_whole(tmp_path):
    np.save(tmp_path / "words.npy", np.arange(12).reshape(3, 4))
    (tmp_path / "words.py").write_text(
        "from torch import nn\n"
        "def Net():\n"
        "    return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(32, 5)).bfloat16()\n"
    )
    workload = load_workload(
        model=f"{tmp_path}/words.py:Net",
        inputs=f"{tmp_path}/words.npy",
        images=3,
        calibration_images=0,
    )
    (given,) = workload.trace.inputs
    assert given.dtype == np.int64 and given.tolist() == np.arange(12).reshape(3, 4).tolist()
