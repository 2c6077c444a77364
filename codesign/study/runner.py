"""Runs evaluations: on Ray, on one machine or a cluster, or one after the other in this process."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from accelerators import ConfigError
from codesign.evaluation.evaluator import Evaluation
from codesign.study.slow import Called, SlowNotes
from workloads.errors import told
from workloads.user_files import UserFiles

MIB = 2**20
EXECUTORS = ("ray", "inline")
# Of a trial whose worker or machine died, or whose worker ran out of memory.
RETRIES = 3
# How often Ray's own processes are looked at, and for how long after an error that may be theirs.
_LOOK_S, _SUSPECT_S = 0.5, 2.0
# Those without which nothing runs.
_VITAL = ("gcs_server", "raylet")
_DIED = "Ray has died"

# Trial number and what the evaluator takes, taken one by one as there is room for them.
Jobs = Iterable[tuple[int, Mapping[str, Any]]]
Run = Callable[[Jobs], Iterator[tuple[int, Evaluation]]]
# What a runner runs: an evaluator, or another that answers as one.
Evaluates = Callable[[Mapping[str, Any]], Evaluation]


class RayDiedError(RuntimeError):
    """Ray itself has ended, not one of its workers, or could not be started.

    Args:
        what: happened.
        sign: how it is known.

    Attributes:
        what: as given.
    """

    def __init__(self, what: str, sign: str | None = None) -> None:
        known = f" ({sign})" if sign else ""
        super().__init__(f"{what}{known}; what is finished is kept, and resume=True goes on")
        self.what = what


class InlineRunner:
    """Evaluates in this process, for small runs and tests."""

    def __init__(self, evaluator: Evaluates, called: Called) -> None:
        self._evaluator = evaluator
        self._slow = SlowNotes(called)

    def run(self, jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        """Evaluate one job after the other."""
        for number, parameters in jobs:
            self._slow.start(number, parameters)
            with self._slow.watching():
                outcome = self._evaluator(parameters)
            self._slow.end(number)
            yield number, outcome

    def close(self) -> None:
        """Nothing was started."""


class RayRunner:
    """Evaluates as Ray tasks of one CPU each; the workload travels once.

    A worker or machine that dies has its task run again elsewhere, `RETRIES` times at the most;
    the trial is `failed` then. An error of the evaluation itself is not tried again. Where Ray
    itself ends, nothing more can be evaluated; some of its ends take this process along.

    Args:
        evaluator: what runs.
        workers: evaluations at a time.
        address: a Ray cluster to join, such as "192.168.0.1:6379"; `None` starts Ray on this
            machine. Where Ray is running in this process already, it is used as it is, and not
            shut down afterwards.
        called: names a job, where it is slow.

    Raises:
        ConfigError: there is no cluster at the address.
        RayDiedError: Ray cannot be started, or has ended.
    """

    def __init__(
        self,
        evaluator: Evaluates,
        workers: int,
        address: str | None = None,
        called: Called = lambda number, _: f"trial {number}",
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # By default Ray never stops to run again what runs out of memory. Read when it is imported.
        os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
        import ray  # here, as it takes two seconds

        self._ray = ray
        self._workers = workers
        self._pending: dict[Any, int] = {}
        self._slow = SlowNotes(called)
        self._started = not ray.is_initialized()
        if self._started:
            settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address is None:
                size = len(ray.cloudpickle.dumps(evaluator))
                settings |= {
                    "num_cpus": workers,
                    "include_dashboard": False,
                    "object_store_memory": 100 * MIB + 2 * size,
                }
            else:
                _check_reachable(address)
            try:
                with _own_sigterm():
                    ray.init(address=address or "local", **settings)
            except ConnectionError as error:
                raise ConfigError(
                    f"ray_address must be that of a running Ray cluster, got {address!r} "
                    f"({error}); start one with: ray start --head. One that asks for a token needs "
                    "the same RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH here"
                ) from error
            except Exception as error:  # Ray raises whatever it meets, and errors of no class
                ray.shutdown()
                places = "; it writes to the folders HOME and RAY_TMPDIR (/tmp)"
                fix = places if isinstance(error, OSError) else ""
                raise RayDiedError(f"Ray cannot be started ({told(error)}){fix}") from error
        self._vital = _vital_processes() if self._started and address is None else []
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_evaluate)
        with self._alive():
            self._evaluator = ray.put((UserFiles(), evaluator))

    def run(self, jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        """Keep as many tasks running as there are workers; take the next job while they run."""
        waiting = iter(jobs)
        ahead = next(waiting, None)
        while ahead is not None or self._pending:
            while ahead is not None and len(self._pending) < self._workers:
                number, parameters = ahead
                with self._alive():
                    self._pending[self._task.remote(self._evaluator, parameters)] = number
                self._slow.start(number, parameters)
                ahead = next(waiting, None)
            with self._alive():
                done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=_LOOK_S)
            self._slow.tell()
            for reference in done:
                number = self._pending.pop(reference)
                self._slow.end(number)
                yield number, self._result(reference)

    def _result(self, reference: Any) -> Evaluation:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.LocalRayletDiedError as error:
            raise RayDiedError(_DIED, "its raylet on this machine is gone") from error
        except exceptions.RayError as error:  # the worker died, or could not start
            end = time.monotonic() + (_SUSPECT_S if self._vital else 0.0)
            while time.monotonic() < end:  # where Ray ends, its workers may be the first to go
                self._look()
                time.sleep(_LOOK_S)
            return Evaluation(state="failed", reason=f"{type(error).__name__}: {error}")

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Around what Ray itself does: its errors and its end become one error."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise RayDiedError(_DIED, told(error)) from error
        self._look()

    def _look(self) -> None:
        gone = [each.name for each in self._vital if not each.is_alive()]
        if gone:
            raise RayDiedError(_DIED, f"its {' and '.join(gone)} is gone")

    def close(self) -> None:
        """Stop what runs, and Ray too if it was started here."""
        if self._started:
            self._ray.shutdown()
            return
        for reference in self._pending:
            self._ray.cancel(reference)
        self._pending.clear()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself as it starts; whose it was gets it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:  # one that was not set from Python
            signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True, kw_only=True)
class _Vital:
    """A process of the Ray that was started here."""

    name: str
    process: Any

    def is_alive(self) -> bool:
        """Whether it runs still."""
        import psutil

        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _vital_processes() -> list[_Vital]:
    """Those of the Ray that was started last by this process."""
    import psutil  # Ray brings it

    children = psutil.Process().children()
    return [
        _Vital(name=name, process=child)
        for child in children
        if (name := child.name()) in _VITAL and child.status() != psutil.STATUS_ZOMBIE
    ]


def _check_reachable(address: str) -> None:
    """Somebody must listen at the address: Ray itself tries for minutes before it gives up."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # of IPv6
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"ray_address must be HOST:PORT of a running Ray cluster, got {address!r} ({error}); "
            "start one with: ray start --head"
        ) from error


def _evaluate(sent: tuple[UserFiles, Evaluates], parameters: Mapping[str, Any]) -> Evaluation:
    """The Ray task: the user's files were executed as it was read, before the evaluator was."""
    _, evaluator = sent
    return evaluator(parameters)


@contextmanager
def running(
    executor: str,
    evaluator: Evaluates,
    workers: int,
    ray_address: str | None,
    called: Called = lambda number, _: f"trial {number}",
) -> Iterator[Run]:
    """Gives what runs jobs, as `RayRunner.run` does; started with the first, closed at the end."""
    runner: InlineRunner | RayRunner | None = None

    def run(jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        nonlocal runner
        waiting = iter(jobs)
        for first in waiting:
            if runner is None:
                match executor:
                    case "ray":
                        runner = RayRunner(evaluator, workers, ray_address, called)
                    case "inline":
                        runner = InlineRunner(evaluator, called)
                    case _:
                        known = ", ".join(EXECUTORS)
                        raise ConfigError(f"executor must be one of {known}, got {executor!r}")
            yield from runner.run(chain([first], waiting))

    try:
        yield run
    finally:
        if runner is not None:
            runner.close()
