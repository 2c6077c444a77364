"""Commands that are stopped, hung up on or killed, as processes of their own."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from codesign import load_nested, load_study
from tests.cluster import children_of, kill_pid, text_of
from tests.end_to_end.test_train_command import NETWORK, write_drive
from tests.small_search import table
from workloads.training.similarity import CHECKPOINT

ROOT = Path(__file__).parents[2]
SIGNALS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -signal.SIGKILL}
MOMENTS, SEED = 10, 13
MODEL = """
import os, time
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.answers = nn.Linear(4 * 8 * 8, 10)

    def forward(self, images):
        if "RAY_RAYLET_PID" in os.environ:  # in a worker of Ray
            time.sleep(float(os.environ.get("SLEEP", 0)))
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.first(images)), 8)
        return self.answers(x.flatten(1))
"""
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for processes in /proc"
)


@dataclass
class Place:
    """Where a command runs.

    Attributes:
        folder: it runs in; holds `model.py`.
        temporary: for temporary files, with a short path, as Ray's sockets need it.
    """

    folder: Path
    temporary: Path

    def start(self, *command: object, **environment: str) -> subprocess.Popen:
        """A command line of its own, whose signals are as a terminal would have them."""

        def usual() -> None:
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_DFL)

        given = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)}
        given.pop("RAY_ADDRESS", None)
        return subprocess.Popen(
            [sys.executable, "-m", "codesign", *map(str, command)],
            cwd=self.folder,
            env=given | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=usual,  # noqa: PLW1509
        )

    def left(self) -> list[str]:
        """What is of ours among the temporary files, and beside the outputs."""
        places = [*self.temporary.glob("trace-*"), *self.folder.rglob(".*.new*")]
        return [str(place) for place in places]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    with tempfile.TemporaryDirectory(prefix="s-") as temporary:
        yield Place(tmp_path, Path(temporary))


def ended(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, output and errors, in time."""
    try:
        printed, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, printed, errors


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def wait_until_gone(pids: set[int], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while alive := children_of(pids):
        assert time.monotonic() < end, alive
        time.sleep(0.1)


def search(out: str, trials: int = 8) -> list[object]:
    asked = ["search", "--model", "model.py:Small", "--inputs", "digits", "--images", 6]
    return [*asked, "--layers", 1, "--trials", trials, "--workers", 2, "--out", out]


def trials_run(journal: Path) -> Callable[[], bool]:
    """Whether a trial was told of, while others run."""
    return lambda: '"evaluation"' in text_of(journal)


def test_a_search_is_stopped_by_sigterm_and_by_sighup_as_by_ctrl_c(place):
    ends = {signal.SIGTERM: 143, signal.SIGHUP: 129}
    running = {each: place.start(*search(each.name), SLEEP="0.5") for each in ends}
    for number, process in running.items():
        wait_for(trials_run(place.folder / number.name / "study.journal"), process)
    families = {number: set(children_of({process.pid})) for number, process in running.items()}
    for number, process in running.items():
        process.send_signal(number)
    for number, process in running.items():
        code, printed, errors = ended(process)
        assert (code, printed) == (ends[number], "")
        assert errors.startswith("Stopped; finished trials are kept. Go on with: codesign search")
        assert errors.endswith(f"--out {number.name} --resume\n") and errors.count("\n") == 1
        wait_until_gone(families[number])
    assert place.left() == []


def test_a_capture_is_stopped_and_what_a_killed_one_left_goes_with_the_next(place):
    # Its model hangs while it is captured, with one product on disk.
    hanging = MODEL.replace("return", "open('ready', 'w').close(); time.sleep(60)\n        return")
    (place.folder / "hanging.py").write_text(hanging)
    ask = ["--inputs", "digits", "--images", 2, "--out", "trace"]
    for number, code in SIGNALS.items():
        process = place.start("capture", "--model", "hanging.py:Small", *ask)
        wait_for((place.folder / "ready").exists, process)
        (place.folder / "ready").unlink()
        assert place.left() != []
        process.send_signal(number)
        told = "" if number == signal.SIGKILL else "Stopped.\n"
        assert ended(process) == (code, "", told)
        assert (place.left() == []) == (number != signal.SIGKILL)
    assert ended(place.start("capture", "--model", "model.py:Small", *ask))[0] == 0
    assert place.left() == [] and (place.folder / "trace").is_dir()


def test_a_search_on_a_ray_that_dies_says_so_and_goes_on(place):
    process = place.start(*search("out"), SLEEP="0.5")
    wait_for(trials_run(place.folder / "out" / "study.journal"), process)
    family = children_of({process.pid})
    # Where one of its agents ends, a node of Ray ends itself, and the search with it.
    kill_pid(next(pid for pid, name in family.items() if name.startswith("ray::RuntimeEnv")))
    code, printed, errors = ended(process)
    assert (code, printed) == (4, "")
    assert errors.startswith("Ray has died; finished trials are kept. Go on with: codesign search")
    assert errors.count("\n") == 1
    wait_until_gone(set(family))
    code, printed, _ = ended(place.start(*search("out"), "--resume"))
    assert code == 0
    assert [each.state for each in load_study(place.folder / "out").trials] == ["complete"] * 8
    assert place.left() == []


def test_a_trial_that_hangs_is_told_of(place):
    (place.folder / "soon.py").write_text(
        "import sys; from codesign.study import slow; slow.SLOW_S = 1.0\n"
        "from codesign.__main__ import main; main()"
    )
    command = [sys.executable, "soon.py", *map(str, search("out", 2))]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(place.temporary),
        "SLEEP": "1000",
    }
    process = subprocess.Popen(
        command, cwd=place.folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    line = process.stderr.readline()
    process.terminate()
    assert line.startswith("trial 0 has been running for ")
    assert "none has finished yet; Ctrl-C stops the search" in line
    code, _, errors = ended(process)
    assert code == 143 and "Stopped; finished trials are kept" in errors


@dataclass(frozen=True)
class Case:
    """A command that is cut off again and again.

    Attributes:
        command: without `--resume`.
        kept: a file that is there once it can go on.
        result: what must be the same as of an undisturbed run, from the folder of its output.
        goes_on: whether it has `--resume`.
    """

    command: Callable[[str], list[object]]
    kept: str
    result: Callable[[Path], object]
    goes_on: bool = True


def fronts(out: Path) -> object:
    """Everything about the trials of a nested search but how long they took."""
    layers = load_nested(out).layers
    return [(each.layer, [(t.parameters, t.values) for t in each.trials]) for each in layers]


def nested(out: str) -> list[object]:
    asked = ["nested", "--model", "model.py:Small", "--inputs", "digits", "--images", 6]
    return [*asked, "--layers", 2, "--trials", 12, "--out", out]


def train(out: str) -> list[object]:
    asked = ["train", "--model", "tiny.py:Tiny", "--data", "camvid:.", "--size", "12x16"]
    reuse = ["--hashes", 4, "--length", 8, "--layer", "0=dense"]
    return [*asked, "--epochs", 200, "--batch", 2, *reuse, "--out", out]


def weights(out: Path) -> object:
    """Every weight that was learned."""
    tensors = load_file(out / "weights.safetensors")
    return {name: tensor.tolist() for name, tensor in tensors.items()}


CASES = {
    "search": Case(search, "study.journal", lambda out: table(load_study(out))),
    "nested": Case(nested, "nested.journal", fronts),
    "train": Case(train, CHECKPOINT, weights),
    "demo": Case(
        lambda out: ["demo", "--trials", 2, "--no-open", "--out", out],
        "demo.journal",
        lambda out: table(load_study(out / "demo.journal")),
        goes_on=False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_cut_off_at_random_moments_a_command_ends_as_if_it_had_not_been(name, place):
    case, draw = CASES[name], random.Random(f"{SEED} {name}")
    if name == "train":
        (place.folder / "tiny.py").write_text(NETWORK)
        write_drive(place.folder)
    start = time.monotonic()
    code, _, errors = ended(place.start(*case.command("whole")), 600)
    assert code == 0, errors
    longest = time.monotonic() - start
    out = place.folder / "out"

    def command() -> list[object]:
        goes_on = case.goes_on and (out / case.kept).is_file()
        return [*case.command("out"), *(["--resume"] if goes_on else [])]

    for _ in range(MOMENTS):
        number, moment = draw.choice(list(SIGNALS)), draw.uniform(0.3, longest)
        print(f"{name}: {number.name} after {moment:.2f} s")
        process = place.start(*command())
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            family = {
                pid
                for pid, name in children_of({process.pid}).items()
                # After kill -9 nobody ends Ray's agents: for a minute they look for a Ray.
                if number != signal.SIGKILL or not name.startswith("ray::")
            }
            process.send_signal(number)
        else:
            assert process.returncode == 0, process.communicate()
            family = set()
        code, _, errors = ended(process)
        assert code in (0, SIGNALS[number]), errors[-2000:]
        assert "Traceback" not in errors and "***" not in errors
        # One of Ray's agents may have got its name only after it was listed.
        wait_until_gone(family, 100 if number == signal.SIGKILL else 40)
        assert number == signal.SIGKILL or place.left() == []
    code, _, errors = ended(place.start(*command()), 600)
    assert code == 0, errors
    assert place.left() == []
    assert case.result(out) == case.result(place.folder / "whole")
