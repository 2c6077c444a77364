"""What a speed target is, and how times are taken."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing measured.

    Attributes:
        name: on the command line.
        what: in words.
        unit: of the number.
        limit: the target; `None` for a rate that is only reported.
        measure: returns the number.
        at_least: whether the number must reach the limit; else it must not exceed it.
    """

    name: str
    what: str
    unit: str
    limit: float | None
    measure: Callable[[], float]
    at_least: bool = False

    def line(self) -> str:
        """Measure, and say it in a line."""
        measured = self.measure()
        if self.limit is None:
            return f"{self.name:18} measured {measured:12.5g} {self.unit:5} {self.what}"
        reached = measured >= self.limit if self.at_least else measured <= self.limit
        bound = ">=" if self.at_least else "<="
        return (
            f"{self.name:18} measured {measured:12.5g} {self.unit:5} target {bound} "
            f"{self.limit:<7g} {'ok' if reached else 'short':5} {self.what}"
        )


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cpu_seconds(function: Callable[[], object]) -> float:
    """Processor time of one call: for ratios of a long run and a short one, which a busy machine
    would stretch differently."""
    start = time.process_time()
    function()
    return time.process_time() - start


def median_ratio(function, baseline, runs: int = 15, clock=seconds) -> float:
    """Median over pairs of runs of the time of `function` over that of `baseline`; `clock` takes
    the time of a call."""
    function(), baseline()  # compile, warm up
    return statistics.median(clock(function) / clock(baseline) for _ in range(runs))
