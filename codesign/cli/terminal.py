"""What the command line shows: results on standard output, notes and progress on standard error."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

import functools
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from accelerators import ConfigError
from codesign.cli import stopping, supervision
from simulator.results.tables import NOTHING, shown
from workloads.errors import InputError, NotCountedWarning, plain, told
from workloads.scratch import clear_temporary
from workloads.user_files import raised_in

if TYPE_CHECKING:
    from codesign.evaluation.allotting import OnMeasured
    from codesign.study.search import OnProgress
    from codesign.study.trial import Trial

UNEXPECTED = 1
# All went well, but no design that was tried is an answer.
NOTHING_FOUND = 3
# Width of a table where the output is no terminal.
_PIPE_COLUMNS = 160

Given = ParamSpec("Given")


def results() -> Console:
    """Where results go."""
    return _console(sys.stdout, stderr=False)


def notes() -> Console:
    """Where notes and progress go."""
    return _console(sys.stderr, stderr=True)


def _console(stream: Any, *, stderr: bool) -> Console:
    width = None if stream.isatty() else _PIPE_COLUMNS
    # Names of users' layers may look like rich's markup.
    return Console(stderr=stderr, width=width, soft_wrap=False, highlight=False, markup=False)


def say(text: str) -> None:
    """A line of result, as it is."""
    results().print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A line beside the results. Where nobody can read it any more, it is dropped."""
    try:
        notes().print(text, markup=False, soft_wrap=True)
    except BrokenPipeError:
        raise
    except OSError:  # the terminal is gone
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for as long as the process


def table(columns: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the columns and rows that a page would show."""
    made = Table(header_style="bold", show_edge=False)
    for column in columns:
        unit = f"\n{column['unit']}" if column["unit"] else ""
        made.add_column(
            f"{column['name']}{unit}",
            justify="left" if column["text"] else "right",
            overflow="fold",
        )
    for row in rows:
        style = "bold" if row.get("marked") else None
        cells = [shown(row.get(column["key"], "")) for column in columns]
        made.add_row(*cells, style=style)
    results().print(made)


def working(text: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal; nothing in a pipe."""
    console = notes()
    return console.status(text) if console.is_terminal else nullcontext()


@contextmanager
def trial_progress(total: int) -> Iterator[tuple[OnProgress | None, OnMeasured | None]]:
    """A bar with done, rate and time left on a terminal; nothing in a pipe.

    Gives what `search` calls after each trial, and what it calls as it measures its starts before.
    """
    console = notes()
    if not console.is_terminal:
        yield None, None
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[of]}"),
        TimeRemainingColumn(),
        TextColumn("left{task.fields[best]}"),
        console=console,
        transient=True,
    )
    fastest = 0.0
    with progress:
        measuring = progress.add_task(
            "measuring what layers bear", total=None, visible=False, of="settings,", best=""
        )
        searching = progress.add_task(
            "searching", total=total, of="trials,", best=f", best speed {NOTHING}"
        )

        def measured(done: int, runs: int) -> None:
            progress.update(searching, visible=done == runs)
            progress.update(
                measuring, completed=done, total=runs, visible=done < runs, refresh=True
            )

        def advance(trial: Trial, done: int, _total: int) -> None:
            nonlocal fastest
            fastest = max(
                fastest, trial.summary.get("speedup_equal_area", 0.0) if trial.values else 0.0
            )
            speed = progress.tasks[searching].speed
            progress.update(
                searching,
                completed=done,
                of=f"trials, {speed:.2f} a second" if speed else "trials,",
                best=f", best speed {fastest:.2f}×",
            )

        yield advance, measured


@contextmanager
def point_progress(text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal; nothing in a pipe. Gives what is told how many are done, of how many."""
    console = notes()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def command_line() -> str:
    """The command as it was given."""
    return shlex.join(["codesign", *sys.argv[1:]])


def resume_command() -> str:
    """The command that goes on where this one stopped."""
    given = command_line()
    return given if "--resume" in sys.argv else f"{given} --resume"


@contextmanager
def resumable(kept: str, is_kept: Callable[[], bool]) -> Iterator[None]:
    """Around work whose finished parts are kept: where it is cut off, say so, and how to go on.

    Args:
        kept: what is kept, and how to go on.
        is_kept: whether there is anything yet.
    """
    from codesign.study.runner import RayDiedError

    try:
        yield
    except RayDiedError as error:
        if stopping.is_stopping():  # some schedulers stop Ray's processes too
            _leave(_with("Stopped", kept, is_kept), stopping.exit_code())
        _leave(_with(error.what, kept, is_kept), supervision.RAY_DIED)
    except (KeyboardInterrupt, Exception) as error:
        if _is_stop(error):
            _leave(_with("Stopped", kept, is_kept), stopping.exit_code())
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError) and is_kept():
            note(f"Mend the error below; {kept}")
        raise


def guarded(command: Callable[Given, None]) -> Callable[Given, None]:
    """Turn what went wrong into one message and an exit code."""

    @functools.wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        # Commands say so beside their results.
        warnings.simplefilter("ignore", NotCountedWarning)
        try:
            with stopping.running():
                clear_temporary()
                command(*args, **kwargs)
        except KeyboardInterrupt:
            _leave("Stopped.", stopping.exit_code())
        except Exception as error:
            if _is_stop(error):
                _leave("Stopped.", stopping.exit_code())
            if isinstance(error, BrokenPipeError):  # the reader has seen enough
                raise
            if isinstance(error, OSError | ConfigError | InputError):
                _leave(f"Error: {_told(error)}", supervision.WRONG_INPUT)
            if _is_exit(error):
                raise
            # What a user's code raised may hold anything.
            note("\n".join(map(plain, traceback.format_exc().splitlines())))
            place = raised_in(error)
            if place is not None:
                _leave(
                    f"Error: your code at {plain(place)} must not raise, got {plain(told(error))}; "
                    "mend the file",
                    supervision.WRONG_INPUT,
                )
            note("This is a bug in codesign, not in what you gave it.")
            supervision.farewell(UNEXPECTED)
            raise typer.Exit(UNEXPECTED) from error

    return run


def _leave(message: str, code: int) -> NoReturn:
    note(message)
    supervision.farewell(code)
    raise typer.Exit(code) from None


def _with(what: str, kept: str, is_kept: Callable[[], bool]) -> str:
    return f"{what}; {kept if is_kept() else 'nothing is kept yet.'}"


def _is_stop(error: BaseException) -> bool:
    """Whether a signal came of which the error is: a library may have made another of it."""
    is_late = stopping.is_stopping() and not _is_exit(error)
    return isinstance(error, KeyboardInterrupt) or is_late


def _is_exit(error: BaseException) -> bool:
    """Whether an error stands for an exit, or for wrong usage."""
    return type(error).__module__.startswith(("typer", "click"))


def _told(error: Exception) -> str:
    """One message, of bounded length, that a terminal can show."""
    if isinstance(error, OSError) and error.filename is not None:
        return plain(f"{error.filename}: {error.strerror}")
    return plain(str(error))
