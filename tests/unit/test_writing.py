"""What can't be written leaves what was there, nothing beside it, and names what was given."""

import errno
import os
import stat
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch

from accelerators import read_baselines, write_baselines
from accelerators.baselines import baselines
from codesign.boards.measure.pack import pack
from simulator import LshReuse
from simulator.running.stream_memory import StreamMemory, save_memory
from tests.builders import matrix_layer
from tests.full_disk import contents, largest_file
from tests.small_search import small_workload
from workloads import TraceError, WorkloadTrace, capture
from workloads.models.errors import ModelError
from workloads.models.weights import save_tensors
from workloads.training import TrainingError
from workloads.training.curves import write_curves_csv, write_curves_html
from workloads.training.plan import SimilarityEpoch
from workloads.writing import naming, replacing, write_atomically

EPOCH = SimilarityEpoch(
    epoch=1, epochs=1, learning_rate=0.1, loss=1.0, task=1.0, intra=None, inter=None,
    cluster_average=None, removed_fraction=None, score={"x": 1.0}, validation=None, duration_s=1.0,
)  # fmt: skip
MEMORY = StreamMemory(
    policy=LshReuse(hashes=3, length=4).describe(),
    states={"fc": {"mean": np.zeros((1, 4000), np.float32)}},
    tables={},
)
TRACE = small_workload().trace
WRITERS = {
    "rows.csv": lambda path: write_baselines(path, baselines()),
    "pack.pyz": pack,
    "page.html": lambda path: write_atomically(path, "x" * 5000),
    "memory": lambda path: save_memory(MEMORY, path),
    "tensors.safetensors": lambda path: save_tensors({"x": torch.zeros(4000)}, path),
    "curves.csv": lambda path: write_curves_csv([EPOCH] * 100, path),
    "curves.html": lambda path: write_curves_html([EPOCH], path),
    "trace": lambda path: TRACE.save(path, overwrite=True),
    "captured": lambda path: capture(
        torch.nn.Linear(8, 8), torch.ones(500, 8), path=path, overwrite=True
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(tmp_path, name):
    path, write = tmp_path / name, WRITERS[name]
    for there in (False, True):
        before = contents(tmp_path)
        assert bool(before) == there
        with largest_file(1000), pytest.raises((OSError, ModelError, TrainingError)) as caught:
            write(path)
        assert str(path) in str(caught.value) and "File too large" in str(caught.value)
        assert f"{name}." not in str(caught.value) and ".new" not in str(caught.value)
        assert contents(tmp_path) == before
        write(path)


def test_a_full_temporary_directory_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with largest_file(1000), pytest.raises(OSError, match="File too large") as caught:
        capture(torch.nn.Linear(8, 8), torch.ones(500, 8))
    assert caught.value.filename.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    for own, fix in ((tmp_path, "set TMPDIR to a folder"), (tmp_path / "x", "write to another")):
        told = pytest.raises(OSError, match=f"No space .*; make room there, or {fix}")
        with told, naming(tmp_path, own):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to("file")
    write_atomically(link, "new")
    assert link.is_symlink() and file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_names_as_long_as_can_be_and_texts_without_utf8(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, "caf\udce9")
    assert path.read_text() == "caf\\udce9"
    write_baselines(tmp_path / ("b" * 255), baselines()[:1])
    TRACE.save(tmp_path / ("t" * 255))
    with pytest.raises(OSError, match="File name too long"):
        write_atomically(tmp_path / ("n" * 256), "")


def test_a_read_only_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("mine")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(PermissionError) as caught:
        write_atomically(path, "yours")
    assert caught.value.filename == str(path) and path.read_text() == "mine"


def test_what_is_no_file_is_written_to_directly():
    write_atomically("/dev/null", "gone")
    write_baselines("/dev/null", baselines()[:1])
    save_memory(MEMORY, "/dev/null")
    for write in (
        lambda: write_atomically("/dev/full", "x"),
        lambda: write_baselines("/dev/full", baselines()[:1]),
        lambda: save_memory(MEMORY, "/dev/full"),
    ):
        with pytest.raises(OSError, match=r"No space left on device.*/dev/full"):
            write()
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_pipe_is_written_to_directly():
    """A pipe as standard output, where /dev/stdout is a link to no path."""
    reader, writer = os.pipe()
    try:
        write_atomically(f"/dev/fd/{writer}", "first")
        assert os.read(reader, 100) == b"first"
        write_baselines(f"/dev/fd/{writer}", baselines()[:1])
        assert os.read(reader, 100).startswith(b"device,")
    finally:
        os.close(reader)
        os.close(writer)


def test_the_mode_of_baselines_is_kept(tmp_path):
    path = tmp_path / "rows.csv"
    path.touch(0o600)
    write_baselines(path, baselines()[:1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_errors_of_other_files_keep_their_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "page") as new:
        new.write_text("half")
        (tmp_path / "absent").read_text()
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(KeyError), replacing(tmp_path / "page") as new:
        new.write_text("half")
        raise KeyError("a bug")
    assert list(tmp_path.iterdir()) == []


def test_baselines_and_packs_are_as_before(tmp_path):
    rows = baselines()[:3]
    write_baselines(tmp_path / "rows.csv", rows)
    assert read_baselines(tmp_path / "rows.csv") == tuple(rows)
    pack(tmp_path / "m.pyz")
    assert (tmp_path / "m.pyz").read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.access(tmp_path / "m.pyz", os.X_OK)
    with zipfile.ZipFile(tmp_path / "m.pyz") as made:
        names = made.namelist()
    assert {"__main__.py", "codesign/__init__.py", "codesign/cli/outputs.py"} <= set(names)
    assert not any("__pycache__" in name or "codesign/cli/app" in name for name in names)
    assert len(names) == len(set(names))


def test_a_trace_goes_through_a_link_to_an_empty_directory(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    saved = TRACE.save(tmp_path / "link")
    assert WorkloadTrace.load(saved).layers and (tmp_path / "real" / "trace.json").is_file()
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(TraceError, match="must not exist, got a trace"):
        TRACE.save(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_layers_of_a_trace_that_is_not_captured(tmp_path):
    trace = WorkloadTrace.from_gemms([("fc", matrix_layer("fc", 4, 4, 4).gemm)])
    with largest_file(10), pytest.raises(OSError, match="File too large") as caught:
        trace.save(tmp_path / "t")
    assert caught.value.filename == str(tmp_path / "t") and list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_write(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        f".page.html.{gone.pid}.new": 61,  # goes
        f".page.html.{os.getppid()}.new": 61,  # its process lives
        f".other.html.{gone.pid}.new": 61,
        f".page.html.x.{gone.pid}.new": 61,
        f"page.html.{gone.pid}.new": 61,
    }
    for name, age_s in names.items():
        (tmp_path / name).write_text("half")
        then = time.time() - age_s
        os.utime(tmp_path / name, (then, then))
    write_atomically(tmp_path / "page.html", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {*list(names)[1:], "page.html"}
    young = tmp_path / f".page.html.{gone.pid}.new"
    young.write_text("half")
    write_atomically(tmp_path / "page.html", "whole")
    assert young.exists()
