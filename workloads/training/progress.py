"""What training tells while it runs: a bar on a terminal, or a report after each epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Report = TypeVar("Report")


@dataclass(frozen=True, kw_only=True)
class EpochProgress(Generic[Report]):
    """Where a training loop tells how far it is.

    Attributes:
        epoch: gets the report of each epoch.
        step: gets the epochs done so far, a fraction after each step, and the step's loss.
    """

    epoch: Callable[[Report], None]
    step: Callable[[float, float], None]


@contextmanager
def epoch_progress(
    progress: bool | Callable[[Report], None], epochs: int
) -> Iterator[EpochProgress[Report]]:
    """Yield what a loop tells: the caller's function, a bar if stderr is a terminal, or nothing."""
    if callable(progress):
        yield EpochProgress(epoch=progress, step=_nothing)
    elif progress and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("training", total=epochs)

            def step(done: float, loss: float) -> None:
                bar.update(task, completed=done, description=f"training, loss {loss:.3f}")

            yield EpochProgress(epoch=_nothing, step=step)
    else:
        yield EpochProgress(epoch=_nothing, step=_nothing)


def _nothing(*_: Any) -> None:
    """Tell nobody."""
