"""Says on the log which evaluations take long: nothing else bounds the time of one.

The log is `codesign.study.slow`; without a logging set-up, Python shows it on standard error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Of an evaluation when it is first told of; then again after twice the time, and so on.
SLOW_S = 60.0

# Names a job in a message, by its number and what the evaluator takes.
Called = Callable[[int, Mapping[str, Any]], str]

_log = logging.getLogger(__name__)


class SlowNotes:
    """Tells of the evaluations that run for long, at most once in `SLOW_S`.

    Args:
        called: names a job.
    """

    def __init__(self, called: Called) -> None:
        self._called = called
        self._names: dict[int, str] = {}
        self._started: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._longest: float | None = None
        self._told = float("-inf")

    def start(self, number: int, job: Mapping[str, Any]) -> None:
        """A job begins."""
        self._names[number] = self._called(number, job)
        self._due[number] = SLOW_S
        self._started[number] = time.monotonic()

    def end(self, number: int) -> None:
        """A job has ended."""
        seconds = time.monotonic() - self._started.pop(number)
        self._longest = max(self._longest or 0.0, seconds)

    def tell(self) -> None:
        """Say which jobs are slow, if it is time to."""
        now = time.monotonic()
        ages = {number: now - start for number, start in list(self._started.items())}
        if now - self._told < SLOW_S or all(age < self._due[n] for n, age in ages.items()):
            return
        self._told = now
        slow = {number: age for number, age in ages.items() if age >= SLOW_S}
        for number, age in slow.items():
            self._due[number] = 2 * age
        others = (
            "none has finished yet"
            if self._longest is None
            else f"finished ones took {_seconds(self._longest)} at most"
        )
        running = [
            f"{self._names[number]} has been running for {_seconds(age)}"
            for number, age in slow.items()
        ]
        _log.warning(
            "%s; %s; Ctrl-C stops the search, and resuming it keeps what is finished",
            ", ".join(running),
            others,
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Tell from a thread while this one is busy with a job."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(SLOW_S / 10):
                self.tell()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
