"""Searches on a real Ray, cut off and gone on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import ray

from accelerators import ConfigError
from codesign import load_study, search
from codesign.evaluation.evaluator import Evaluation
from codesign.study.journal import _FINISH_TRIAL
from codesign.study.runner import RETRIES, RayRunner
from codesign.study.same_search import FIXED
from tests.small_search import TRIALS, small_search, small_space, small_workload, table
from workloads import models
from workloads.user_files import named_in

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(on_ray, tmp_path_factory):
    """An uninterrupted search with two workers."""
    return small_search(tmp_path_factory.mktemp("whole"), executor="ray", workers=2)


def test_workers_do_not_change_the_numbers(whole, tmp_path):
    assert [trial.state for trial in whole.trials] == ["complete"] * TRIALS
    assert table(small_search(tmp_path / "one", executor="ray", workers=1)) == table(whole)
    assert table(small_search(tmp_path / "none", executor="inline")) == table(whole)
    assert ray.is_initialized()  # it was running before, so it is left running


def start(*arguments: object) -> subprocess.Popen:
    """Python in a process of its own, with a Ray of its own if it asks for one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def cluster_of(pid: int) -> set[int]:
    """The Ray that descends from `pid`: its node manager and its control service."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        stat = _text(entry / "stat")
        if stat:
            child = int(stat.split()[0])
            parents[child] = int(stat.rpartition(")")[2].split()[1])
            names[child] = stat[stat.index("(") + 1 : stat.rindex(")")]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child for child in found if names.get(child) in ("raylet", "gcs_server")}


def wait_until_gone(pids: set[int], seconds: float = 30) -> None:
    """Ray ends with the process that started it."""
    end = time.monotonic() + seconds
    alive = pids
    while alive and time.monotonic() < end:
        time.sleep(0.2)
        states = {pid: _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() for pid in pids}
        alive = {pid for pid, state in states.items() if state and state[0] != "Z"}
    assert not alive


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_search_that_is_cut_off_goes_on_with_the_same_numbers(whole, tmp_path):
    search_process = ("-m", "tests.small_search")
    interrupted = start(*search_process, tmp_path / "interrupted", 1, "interrupt")
    killed = start(*search_process, tmp_path / "killed", 5)

    # Ctrl-C a moment after the first trial. The process sends it to itself: this one may be slow.
    assert interrupted.stdout.readline()
    cluster = cluster_of(interrupted.pid)
    assert len(cluster) == 2
    _, errors = interrupted.communicate("\n", timeout=60)
    assert interrupted.returncode != 0 and "KeyboardInterrupt" in errors
    wait_until_gone(cluster)
    kept = load_study(tmp_path / "interrupted").of_state("complete")
    assert 1 <= len(kept) < TRIALS
    assert table(small_search(tmp_path / "interrupted", resume=True)) == table(whole)

    # kill -9 in the middle of the second batch, and of a line.
    for _ in range(5):
        assert killed.stdout.readline()
    cluster = cluster_of(killed.pid)
    with pytest.raises(ConfigError, match="must not be in use, got a search that is running on it"):
        small_search(tmp_path / "killed", resume=True)
    killed.kill()
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    wait_until_gone(cluster)
    kept = load_study(tmp_path / "killed").of_state("complete")
    assert len(kept) == 5
    with (tmp_path / "killed" / "study.journal").open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"a-')
    result = small_search(tmp_path / "killed", executor="ray", workers=2, resume=True)
    assert table(result) == table(whole)
    # What was finished was not evaluated again.
    assert [result.trials[trial.number].seconds for trial in kept] == [t.seconds for t in kept]


ENDLESS = """
import sys
from pathlib import Path
from tests.small_search import small_search
small_search(
    Path(sys.argv[1]), trials=10_000, optimiser="tpe", resume=sys.argv[2] == "resume",
    on_progress=lambda trial, *_: print(trial.number, flush=True),
)
"""


def wait_for_growth(path: Path, process: subprocess.Popen) -> None:
    """Until the process has written to the journal."""
    before = path.stat().st_size
    while path.stat().st_size <= before:
        assert process.poll() is None
        time.sleep(0.002)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_change_nothing(tmp_path, kills):
    path = tmp_path / "killed" / "study.journal"
    moments = random.Random(0)
    kept = {}
    for kill in range(kills):
        process = start("-c", ENDLESS, path, "resume" if kill else "new")
        if kill % 2:
            wait_for_growth(path, process)  # as soon as anything is asked for
            time.sleep(moments.uniform(0, 0.05))
        else:
            assert process.stdout.readline()  # after a trial is told
            time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        found = load_study(path).trials
        finished = {trial.number: trial for trial in found if trial.state != "running"}
        assert [trial.number for trial in found] == list(range(len(found)))
        assert all(finished[number] == trial for number, trial in kept.items())
        kept = finished
    assert len(kept) >= kills // 2

    trials = len(load_study(path).trials) + 3
    settings = {"trials": trials, "optimiser": "tpe"}
    result = small_search(path, resume=True, **settings)
    whole = small_search(tmp_path / "whole", **settings)
    assert table(result) == table(whole)
    assert all(result.specification[key] == whole.specification[key] for key in FIXED)
    assert all(result.trials[number] == trial for number, trial in kept.items())
    # Each trial was finished by exactly one line.
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    ends = Counter(step["trial_id"] for step in steps if step["op_code"] == _FINISH_TRIAL)
    assert sorted(ends.values()) == [1] * trials


def test_a_model_from_a_users_file_reaches_the_workers(on_ray, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from tests.small_search import SmallNetwork\nclass Mine(SmallNetwork): pass\n")
    workload = small_workload(models.load(f"{file}:Mine"))
    result = search(workload, small_space(workload), trials=2, storage=tmp_path)
    assert [(trial.state, trial.reason) for trial in result.trials] == [("complete", None)] * 2


def test_what_a_users_file_defines_is_executed_on_the_workers_first(on_ray, tmp_path):
    """Here an evaluator, by reference; its file need not be where they are."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from codesign.evaluation.evaluator import Evaluation\n"
        "class Mine:\n"
        "    def __call__(self, job):\n"
        "        return Evaluation(state='complete', reason=type(self).__module__)\n"
    )
    mine = named_in(f"{file}:Mine", "evaluator")
    file.unlink()
    runner = RayRunner(mine(), workers=1)
    assert [each.reason for _, each in runner.run([(0, {})])] == [mine.__module__]
    runner.close()


class Deadly:
    """Stands for an evaluator one of whose jobs kills the process that runs it, every time."""

    def __call__(self, job):
        with Path(job["log"]).open("a") as log:
            log.write("tried\n")
        if job["deadly"]:
            os._exit(1)
        return Evaluation(state="complete", values={"one": 1.0})


def test_the_next_job_is_taken_while_the_workers_work(on_ray, tmp_path):
    taken = []

    def jobs():
        for number in range(5):
            taken.append(number)
            yield number, {"deadly": False, "log": str(tmp_path / "log")}

    runner = RayRunner(Deadly(), workers=2)
    outcomes = runner.run(jobs())
    first, _ = next(outcomes)
    assert taken == [0, 1, 2] and first in (0, 1)  # two for the workers, and one more
    assert {first, *(number for number, _ in outcomes)} == {0, 1, 2, 3, 4}
    runner.close()


def test_a_design_that_kills_its_workers_fails_after_a_few_retries(on_ray, tmp_path):
    runner = RayRunner(Deadly(), workers=2)
    jobs = {
        number: {"deadly": number == 4, "log": str(tmp_path / str(number))} for number in (3, 4, 5)
    }
    outcomes = dict(runner.run(jobs.items()))
    runner.close()
    tries = {number: (tmp_path / str(number)).read_text().count("tried") for number in jobs}
    assert tries == {3: 1, 4: 1 + RETRIES, 5: 1}
    assert outcomes[3].state == outcomes[5].state == "complete"
    assert outcomes[4].state == "failed" and "WorkerCrashedError" in outcomes[4].reason
