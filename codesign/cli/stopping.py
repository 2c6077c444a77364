"""SIGINT, SIGTERM and SIGHUP end a command in one way: a message, then exit code 128 + the signal.

For the command line alone: in Python, a process's handlers are left as they are. This is in force
before anything else is imported, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A signal that comes so soon after another is the same wish: `timeout` sends two.
_SAME_S = 2.0


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end."""


class _Command:
    """Where the command of this process stands.

    Attributes:
        phase: `loading`, where nothing is to be cleaned up, or `running`.
        received: the signal that asked it to end, if any.
        at: when the last was taken, as `time.monotonic` tells.
    """

    phase = "loading"
    received: int | None = None
    at = 0.0


def install() -> None:
    """Take the signals that are not ignored, as `nohup` has it."""
    for each in SIGNALS:
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, _take)
    sys.unraisablehook = _unraisable


@contextmanager
def running() -> Iterator[None]:
    """Around a command: a signal raises `Stopped` inside.

    After it, all that is left is to clean up, and signals are ignored: Python would pass over them
    in one half of its own end, and die of them in the other.
    """
    _Command.phase = "running"
    try:
        yield
    finally:
        for each in SIGNALS:
            if signal.getsignal(each) is _take:
                signal.signal(each, signal.SIG_IGN)


def is_stopping() -> bool:
    """Whether a signal came: what is raised after it may have come of it."""
    return _Command.received is not None


def exit_code() -> int:
    """Of a command that was stopped."""
    return 128 + (_Command.received or signal.SIGINT)


def _take(number: int, _frame: Any) -> None:
    now = time.monotonic()
    is_new = _Command.received is None or now - _Command.at > _SAME_S
    _Command.received, _Command.at = _Command.received or number, now
    if _Command.phase == "loading":
        # Libraries turn an exception raised in the middle of their import into errors of their own.
        with suppress(OSError):
            os.write(2, b"Stopped.\n")
        os._exit(exit_code())
    if is_new:
        raise Stopped


def _unraisable(raised: Any) -> None:
    """A signal that came while Python called a destructor is lost in it: send it once more."""
    if issubclass(raised.exc_type, Stopped) and _Command.received is not None:
        number, _Command.received = _Command.received, None
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(raised)
