"""A Ray cluster of several nodes on this machine, and a search on it that can be watched.

`main` is the search, as a process of its own that joins the cluster. Its arguments: the cluster's
address, the study's directory, and a log.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import codesign.study.runner
from codesign import Constraints
from codesign.evaluation.evaluator import Evaluator
from codesign.study.runner import RayRunner
from tests.small_search import small_search

ROOT = Path(__file__).parents[1]
# How long an evaluation waits: long enough to be killed in the middle.
SECONDS = 1.0
TRIALS = 10
# Of the small space's designs, those with so many columns fail, those above the area are too large.
BROKEN_COLUMNS, MAX_AREA_MM2 = 64, 2.35


def children_of(pids: set[int]) -> dict[int, str]:
    """Process id -> name of these processes and all that descend from them, but not of the dead."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        stat = text_of(entry / "stat")
        state, _, parent = stat.rpartition(")")[2].partition(" ")[2].partition(" ")
        if stat and state not in "ZX":
            child = int(stat.split()[0])
            parents[child] = int(parent.split()[0])
            names[child] = stat[stat.index("(") + 1 : stat.rindex(")")]
    found = pids & names.keys()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: names[pid] for pid in found}


def text_of(path: Path) -> str:
    """What a file of /proc says; nothing where the process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A head without processors and nodes with one each.

    Attributes:
        address: of the head.
        environment: to join it with.
        nodes: those with a processor.
    """

    address: str
    environment: dict[str, str]
    nodes: list[subprocess.Popen]

    def node_of(self, pid: int) -> subprocess.Popen:
        """The node on which a worker runs."""
        return next(node for node in self.nodes if pid in children_of({node.pid}))


def kill(process: subprocess.Popen) -> None:
    """Kill a process and all that descend from it, as if its machine had lost its power."""
    for pid in sorted(children_of({process.pid})):
        kill_pid(pid)
    process.wait()


def kill_pid(pid: int) -> None:
    """SIGKILL, unless it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """Start a cluster that asks for a token; end it by killing what was started."""
    # Not pytest's directory: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="ray-") as directory:
        token = Path(directory) / "token"
        token.write_text(secrets.token_hex(32))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("RAY_ADDRESS", None)
        started: list[subprocess.Popen] = []

        def start(*options: str) -> subprocess.Popen:
            command = [Path(sys.executable).with_name("ray"), "start", "--block"]
            command += ["--disable-usage-stats", "--object-store-memory=100000000", *options]
            log = Path(directory) / f"{len(started)}.log"
            with log.open("w") as file:
                process = subprocess.Popen(
                    command, env=environment, cwd=ROOT, stdout=file, stderr=file
                )
            started.append(process)
            wait_until(lambda: "Ray runtime started" in log.read_text(), [process])
            return process

        try:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            address = f"127.0.0.1:{port}"
            start(
                "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false",
                f"--temp-dir={directory}",
            )  # fmt: skip
            workers = [start(f"--address={address}", "--num-cpus=1") for _ in range(nodes)]
            yield Cluster(address=address, environment=environment, nodes=workers)
        finally:
            for process in reversed(started):
                kill(process)


def wait_until(condition, running: list[subprocess.Popen], seconds: float = 300) -> None:
    """Wait for a condition while these processes run."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert all(process.poll() is None for process in running), "a process ended"
        time.sleep(0.05)


class WatchedEvaluator:
    """Evaluates slowly and writes down when it starts and ends; fails on some designs.

    Args:
        evaluator: what evaluates.
        log: gets a line with process and parameters at each start and each end.
    """

    pickled = 0  # how often one was packed, to be sent to a worker

    def __init__(self, evaluator: Evaluator, log: Path) -> None:
        self._evaluator = evaluator
        self._log = log

    @property
    def model(self):
        """The model that runs."""
        return self._evaluator.model

    def __getstate__(self) -> dict:
        WatchedEvaluator.pickled += 1
        return self.__dict__

    def __call__(self, parameters):
        """Evaluate one setting."""
        self._write("start", parameters)
        time.sleep(SECONDS)
        evaluator = self._evaluator
        if parameters["array.columns"] == BROKEN_COLUMNS:
            evaluator = replace(evaluator, space=None)
        outcome = evaluator(parameters)
        self._write("end", parameters)
        return outcome

    def _write(self, step: str, parameters) -> None:
        line = json.dumps({"step": step, "pid": os.getpid(), "design": key_of(parameters)})
        with self._log.open("a") as file:  # lines of this length are written whole
            file.write(line + "\n")


def key_of(parameters) -> str:
    """Equal for equal parameters."""
    return json.dumps(dict(parameters), sort_keys=True)


def main() -> None:
    """Search on the cluster; at the end, print how often the workload was packed."""
    address, storage, log = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

    class WatchedRunner(RayRunner):
        def __init__(self, evaluator, *rest) -> None:
            super().__init__(WatchedEvaluator(evaluator, log), *rest)

    codesign.study.runner.RayRunner = WatchedRunner
    small_search(
        storage,
        trials=TRIALS,
        executor="ray",
        workers=2,
        ray_address=address,
        optimiser="random",
        constraints=Constraints(area_mm2=MAX_AREA_MM2),
    )
    print(WatchedEvaluator.pickled)
