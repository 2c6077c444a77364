"""What a killed process leaves of a trace goes at the next start, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from workloads import TraceError, WorkloadTrace, capture, scratch
from workloads.scratch import MARK, Scratch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed(program: str, *arguments: object) -> None:
    """Run Python that kills itself."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def abandoned(temporary: Path) -> Path:
    """A directory of a process that was killed."""
    killed(
        "import os, sys, tempfile; from workloads.scratch import Scratch\n"
        "tempfile.tempdir = sys.argv[1]; made = Scratch.temporary()\n"
        "(made.path / 'trace').mkdir(); os.kill(os.getpid(), 9)",
        temporary,
    )
    left = max(temporary.glob(f"trace-*/{MARK}"), key=lambda mark: mark.stat().st_mtime_ns).parent
    assert (left / "trace").is_dir()
    return left


def test_a_directory_goes_with_its_last_reference(temporary):
    made = Scratch.temporary()
    path = made.path
    assert path.parent == temporary and path.is_dir()
    del made
    assert not path.exists()


def test_what_a_killed_process_left_goes_at_the_next_start(temporary):
    left = abandoned(temporary)
    kept = Scratch.temporary()  # of a living process
    assert not left.exists()
    scratch.clear_temporary()
    assert list(temporary.iterdir()) == [kept.path]


def test_nothing_of_anybody_else_goes(temporary, tmp_path_factory):
    own = temporary / "trace-resnet50"  # a user's trace, with a name as ours have
    own.mkdir()
    (own / "trace.json").touch()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "trace-abcdefgh"
    left = abandoned(temporary)
    left.rename(elsewhere)
    other = abandoned(temporary)
    (temporary / "trace-abcdefgh").symlink_to(elsewhere)
    mark = json.loads((other / MARK).read_text())
    (other / MARK).write_text(json.dumps(mark | {"host": "another machine"}))
    starting = temporary / "trace-starting"  # made, but not yet marked
    starting.mkdir()
    (starting / MARK).touch()
    scratch.clear_temporary()
    assert (own / "trace.json").is_file() and other.is_dir() and starting.is_dir()
    assert (elsewhere / "trace").is_dir()


def test_of_another_user_nothing_goes(temporary, monkeypatch):
    left = abandoned(temporary)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    scratch.clear_temporary()
    assert left.is_dir()


@pytest.mark.parametrize("moves", [1, 2])
def test_a_trace_that_was_being_replaced_is_not_lost(tmp_path, moves):
    """Killed after the old one was moved away, and after the new one has its place."""
    path, other = tmp_path / "trace", tmp_path / "other"
    for place in (path, other):
        capture(nn.Linear(3, 2), torch.ones(1, 3), path=place, source=place.name)
    killed(
        "import os, sys; from workloads import WorkloadTrace\n"
        "trace, move, moves = WorkloadTrace.load(sys.argv[2]), os.replace, []\n"
        "def moved(*given):\n"
        "    move(*given); moves.append(given)\n"
        f"    if len(moves) == {moves}: os.kill(os.getpid(), 9)\n"
        "os.replace = moved\n"
        "trace.save(sys.argv[1], overwrite=True)",
        path, other,
    )  # fmt: skip
    assert path.exists() == (moves == 2)
    found = WorkloadTrace.load(path)
    assert found.provenance["source"] == ("other" if moves == 2 else "trace")
    found.save(path, overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "trace"]


def test_a_name_that_no_file_can_have_is_left_to_who_opens_it(tmp_path):
    scratch.restore(tmp_path / ("x" * 300))
    with pytest.raises(TraceError, match="must exist and be readable"):
        WorkloadTrace.load(tmp_path / ("x" * 300))
