"""A command that runs on Ray is a child of a small process that outlives whatever Ray does to it.

Ray ends the process that started it, without a word that says so, where its own processes die; and
it takes SIGTERM for itself while it starts. So the process that was started waits: it passes on
that it should stop, says in one message what became of the child, and leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from codesign.cli import stopping

WRONG_INPUT, RAY_DIED = 2, 4
# For a command that was asked to stop, Ray's own end included.
GRACE_S = 60
_SHOWN_LINES, _SHOWN_CHARACTERS = 20, 2000
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class _Line:
    """What ties a child to its supervisor: a pipe, and a file for what is not for the terminal."""

    tell: int | None = None
    aside: Any = None


def supervise() -> None:
    """Go on in a child, in a session of its own; this process ends with the child's exit code."""
    listen, tell = os.pipe()
    try:
        aside = tempfile.TemporaryFile()  # noqa: SIM115  for as long as the process
    except OSError as error:
        _say(f"Error: {error.strerror}; set TMPDIR to a folder that can be written to.", None)
        sys.exit(WRONG_INPUT)
    parent = os.getpid()
    # Whoever ignores it, as some schedulers do, is not told how a child ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    child = os.fork()
    if child:
        os.close(tell)
        _attend(child, listen, aside, usual)
    os.setsid()  # signals of the terminal come from the parent, and reach none of Ray's processes
    os.close(listen)
    _end_with(parent)
    _Line.tell, _Line.aside = tell, aside
    # Python's own words go where they went; what is written to 2 beside them can be led aside.
    sys.stderr = os.fdopen(
        os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the parent ignores it
    stopping.install()
    signal.pthread_sigmask(signal.SIG_SETMASK, usual)


@contextmanager
def on_ray(kept: str) -> Iterator[None]:
    """Around a search on Ray in a supervised command; elsewhere this does nothing.

    Args:
        kept: what to say if Ray ends this process: what is kept, and how to go on.
    """
    if _Line.tell is None:
        yield
        return
    _tell(kept=kept)
    shown, output = os.dup(2), sys.stdout
    os.dup2(_Line.aside.fileno(), 2)
    # Ray's thread for errors prints to standard output, in the middle of results.
    sys.stdout = os.fdopen(os.dup(_Line.aside.fileno()), "w", errors="replace")
    try:
        yield
    finally:
        sys.stdout = output
        os.dup2(shown, 2)
        os.close(shown)
        _tell(kept=None)


def farewell(code: int) -> None:
    """The command has ended with this code, and said why; whatever comes is no part of it."""
    if _Line.tell is not None:
        _tell(code=code)


def _tell(**message: Any) -> None:
    assert _Line.tell is not None
    with suppress(OSError):  # the supervisor is gone, and so will this process be
        os.write(_Line.tell, (json.dumps(message) + "\n").encode())


def _attend(child: int, listen: int, aside: Any, usual: Any) -> NoReturn:
    """Wait for the child, passing on what this process is asked."""
    asked: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        if not asked:
            asked.append(number)
            signal.alarm(GRACE_S)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)  # Ray takes SIGTERM for itself

    def pause(_number: int, _frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGSTOP)
        # As if it were not taken: a group that no shell looks after is not stopped for good.
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, pause)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGCONT)

    for each in stopping.SIGNALS:
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, stop)
    if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
        signal.signal(signal.SIGTSTP, pause)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_SETMASK, usual)
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    for each in stopping.SIGNALS:  # all that is left is quick
        signal.signal(each, signal.SIG_IGN)
    told: dict[str, Any] = {}
    kept = None  # still, where Ray's end comes while the command says so itself
    with os.fdopen(listen, "rb") as lines:
        os.set_blocking(listen, False)
        for line in (lines.read() or b"").splitlines():
            told |= json.loads(line)
            kept = told.get("kept") or kept
    code = told.get("code")
    if code is None:
        ended = os.waitstatus_to_exitcode(status)
        code, words = _outcome(ended, asked, kept if asked else told.get("kept"))
        _say(words, aside if code > 128 and not asked else None)
    elif asked and code == 128 + signal.SIGINT:
        code = 128 + asked[0]
    if code != 0:
        _end_session(child)
        from workloads.scratch import clear_temporary

        clear_temporary()
    os._exit(code)


def _outcome(status: int, asked: list[int], kept: str | None) -> tuple[int, str]:
    """Exit code and message for a child that did not say how it ended.

    Args:
        status: its exit code, or minus the signal that ended it.
        asked: the signal that asked it to stop, if any.
        kept: as `on_ray` was given, if Ray was running.
    """
    rest = f"; {kept}" if kept else "."
    if asked:
        # While it was still being loaded, it has said so itself.
        is_said = status == 128 + signal.SIGINT
        return 128 + asked[0], "" if is_said else f"Stopped{rest}"
    if kept and status in (1, -signal.SIGABRT):  # how Ray ends a process that it cannot serve
        return RAY_DIED, f"Ray has died{rest}"
    if status == -signal.SIGKILL:
        return 128 - status, f"Killed, perhaps for want of memory{rest}"
    if status < 0:
        return 128 - status, f"Ended by {signal.Signals(-status).name}{rest}"
    return status, f"Ended with exit code {status}{rest}" if kept else ""


def _say(words: str, aside: Any) -> None:
    """The message, after the last lines that were led aside, if any."""
    shown = ""
    if aside is not None:
        aside.seek(max(0, aside.seek(0, os.SEEK_END) - _SHOWN_CHARACTERS))
        lines = aside.read().decode(errors="replace").splitlines()[-_SHOWN_LINES:]
        shown = "".join(
            "".join(c if c.isprintable() else "?" for c in line) + "\n" for line in lines
        )
    if words:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, f"{shown}{words}\n".encode())


def _end_session(child: int) -> None:
    """Kill what the child left in its session: Ray's processes, some in groups of their own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with suppress(OSError):
        for name in os.listdir("/proc") if sys.platform == "linux" else ():
            with suppress(OSError, ValueError):
                pid = int(name)
                if os.getsid(pid) == child:
                    os.kill(pid, signal.SIGKILL)


def _end_with(parent: int) -> None:
    """End this process, which only its parent can stop, when the parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
