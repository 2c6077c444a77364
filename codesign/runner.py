"""Runs evaluations: on Ray, on one machine or a cluster, or one after the other in this process."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from accelerators import ConfigError
from codesign.evaluate import Evaluation

if TYPE_CHECKING:
    import torch

MIB = 2**20
EXECUTORS = ("ray", "inline")
# Of a trial whose worker or machine died, or whose worker ran out of memory.
RETRIES = 3

# Trial number and what the evaluator takes, taken one by one as there is room for them.
Jobs = Iterable[tuple[int, Mapping[str, Any]]]
Run = Callable[[Jobs], Iterator[tuple[int, Evaluation]]]


class Evaluates(Protocol):
    """What a runner runs: an evaluator, or another that answers as one."""

    @property
    def model(self) -> torch.nn.Module | None:
        """The model it runs, if any: its class is sent along."""

    def __call__(self, job: Mapping[str, Any], /) -> Evaluation:
        """Evaluate one job."""


class Runner(Protocol):
    """Evaluates settings."""

    def run(self, jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        """Evaluate every job and hand each over as it finishes, in any order."""

    def close(self) -> None:
        """Give back what was started."""


class InlineRunner:
    """Evaluates in this process, for small runs and tests."""

    def __init__(self, evaluator: Evaluates) -> None:
        self._evaluator = evaluator

    def run(self, jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        """Evaluate one job after the other."""
        for number, parameters in jobs:
            yield number, self._evaluator(parameters)

    def close(self) -> None:
        """Nothing was started."""


class RayRunner:
    """Evaluates as Ray tasks of one CPU each; the workload travels once.

    A worker or machine that dies has its task run again elsewhere, `RETRIES` times at the most;
    the trial is `failed` then. An error of the evaluation itself is not tried again.

    Args:
        evaluator: what runs.
        workers: evaluations at a time.
        address: a Ray cluster to join, such as "192.168.0.1:6379"; `None` starts Ray on this
            machine. Where Ray is running in this process already, it is used as it is, and not
            shut down afterwards.

    Raises:
        ConfigError: there is no cluster at the address.
    """

    def __init__(self, evaluator: Evaluates, workers: int, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # By default Ray never stops to run again what runs out of memory. Read when it is imported.
        os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
        import ray  # here, as it takes two seconds

        self._ray = ray
        self._workers = workers
        self._pending: dict[Any, int] = {}
        _send_user_modules(ray, evaluator)
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
                ray.init(address=address or "local", **settings)
            except ConnectionError as error:
                raise ConfigError(
                    f"ray_address must be that of a running Ray cluster, got {address!r} "
                    f"({error}); start one with: ray start --head. One that asks for a token needs "
                    "the same RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH here"
                ) from error
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_evaluate)
        self._evaluator = ray.put(evaluator)

    def run(self, jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        """Keep as many tasks running as there are workers; take the next job while they run."""
        waiting = iter(jobs)
        ahead = next(waiting, None)
        while ahead is not None or self._pending:
            while ahead is not None and len(self._pending) < self._workers:
                number, parameters = ahead
                self._pending[self._task.remote(self._evaluator, parameters)] = number
                ahead = next(waiting, None)
            done, _ = self._ray.wait(list(self._pending), num_returns=1)
            for reference in done:
                number = self._pending.pop(reference)
                yield number, self._result(reference)

    def _result(self, reference: Any) -> Evaluation:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the worker died, or could not start
            return Evaluation(state="failed", reason=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Stop what runs, and Ray too if it was started here."""
        if self._started:
            self._ray.shutdown()
            return
        for reference in self._pending:
            self._ray.cancel(reference)
        self._pending.clear()


def _check_reachable(address: str) -> None:
    """Somebody must listen at the address: Ray itself tries for minutes before it gives up."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"ray_address must be HOST:PORT of a running Ray cluster, got {address!r} ({error}); "
            "start one with: ray start --head"
        ) from error


def _evaluate(evaluator: Evaluates, parameters: Mapping[str, Any]) -> Evaluation:
    """The Ray task."""
    return evaluator(parameters)


def _send_user_modules(ray: Any, evaluator: Evaluates) -> None:
    """A model class from a user's file is sent along: workers cannot import it by name."""
    for module in evaluator.model.modules() if evaluator.model is not None else ():
        name = type(module).__module__
        if name.startswith("_model_file_"):
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])


@contextmanager
def running(
    executor: str, evaluator: Evaluates, workers: int, ray_address: str | None
) -> Iterator[Run]:
    """Gives what runs jobs, as `Runner.run` does; started with the first, closed at the end."""
    runner: Runner | None = None

    def run(jobs: Jobs) -> Iterator[tuple[int, Evaluation]]:
        nonlocal runner
        waiting = iter(jobs)
        for first in waiting:
            runner = runner or _make_runner(executor, evaluator, workers, ray_address)
            yield from runner.run(chain([first], waiting))

    try:
        yield run
    finally:
        if runner is not None:
            runner.close()


def _make_runner(
    executor: str, evaluator: Evaluates, workers: int, ray_address: str | None
) -> Runner:
    """The runner of that name."""
    match executor:
        case "ray":
            return RayRunner(evaluator, workers, ray_address)
        case "inline":
            return InlineRunner(evaluator)
        case _:
            raise ConfigError(f"executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
