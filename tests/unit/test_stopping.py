"""Signals end a command in one way; a supervised one says so whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
INSTALLED = """
import gc, os, signal, sys, time
from codesign.cli import stopping
stopping.install()
def wait():
    print("ready", flush=True)
    time.sleep(60)
"""
COMMAND = """
from codesign.cli.terminal import guarded, note, resumable
import typer
"""
SUPERVISED = """
import os, signal, subprocess, sys, time
from codesign.cli import stopping
from codesign.cli import supervision
supervision.supervise()
def wait(*also):
    print("ready", os.getpid(), *also, file=sys.__stdout__, flush=True)
    time.sleep(60)
"""


def start(program: str, *, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen:
    """Python whose signals are as a terminal would have them, but for those ignored."""

    def before() -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN if each in ignored else signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509
    )


def ready(process: subprocess.Popen) -> list[str]:
    """What it says when it waits for a signal."""
    line = process.stdout.readline().split()
    assert line[:1] == ["ready"], process.communicate(timeout=10)
    return line[1:]


def told(process: subprocess.Popen, code: int) -> str:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    return errors


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_while_the_program_loads_ends_it_at_once(number, code):
    process = start(INSTALLED + "wait()")
    ready(process)
    process.send_signal(number)
    assert told(process, code) == "Stopped.\n"


def test_a_signal_stops_a_command_once():
    """A second one, as `timeout` sends it, does not cut the clean-up off."""
    process = start(
        INSTALLED + COMMAND + "def command():\n"
        "    try: wait()\n"
        "    finally: print('ready', flush=True); time.sleep(0.3); note('clean')\n"
        "app = typer.Typer(); app.command()(guarded(command)); app()"
    )
    ready(process)
    process.terminate()
    ready(process)
    process.terminate()
    assert told(process, 143) == "clean\nStopped.\n"


def test_what_is_ignored_stays_ignored():
    process = start(
        INSTALLED + "with stopping.running():\n"
        "    os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stopping.is_stopping(), flush=True); sys.exit(7)",
        ignored=(signal.SIGHUP, signal.SIGINT),
    )
    assert process.stdout.readline() == "False\n"
    assert told(process, 7) == ""


def test_a_signal_that_falls_into_a_destructor_is_not_lost():
    process = start(
        INSTALLED + "class Deaf:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.01)\n"
        "with stopping.running():\n"
        "    try: Deaf(); time.sleep(60)\n"
        "    except stopping.Stopped: sys.exit(stopping.exit_code())"
    )
    assert told(process, 143) == ""


def test_an_error_that_a_library_makes_of_a_signal_is_a_stop():
    process = start(
        INSTALLED + COMMAND + "def command():\n"
        "    try: wait()\n"
        "    except stopping.Stopped: raise ImportError('half a module')\n"
        "app = typer.Typer(); app.command()(guarded(command)); app()"
    )
    ready(process)
    process.send_signal(signal.SIGTERM)
    assert told(process, 143) == "Stopped.\n"


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@linux
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_supervised_command_is_stopped_and_nothing_of_it_is_left(number, code):
    process = start(
        SUPERVISED + "other = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        "with stopping.running(), supervision.on_ray('kept.'):\n"
        "    try: wait(other.pid)\n"
        "    except KeyboardInterrupt: print('Stopped; kept.', file=sys.stderr)\n"
        "supervision.farewell(stopping.exit_code()); os._exit(1)"
    )
    pids = [int(each) for each in ready(process)]
    process.send_signal(number)
    assert told(process, code) == "Stopped; kept.\n"
    assert all(gone(pid) for pid in pids)


@linux
def test_a_supervised_command_goes_with_its_supervisor():
    process = start(SUPERVISED + "wait()")
    (pid,) = map(int, ready(process))
    process.kill()
    assert gone(pid)
    told(process, -signal.SIGKILL)


def test_a_supervised_command_that_is_deaf_is_killed_in_time():
    program = SUPERVISED.replace(
        "supervision.supervise()", "supervision.GRACE_S = 1; supervision.supervise()"
    )
    process = start(
        program + "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with supervision.on_ray('trials are kept.'): wait()"
    )
    ready(process)
    process.terminate()
    assert told(process, 143) == "Stopped; trials are kept.\n"


def test_what_is_kept_is_told_where_ray_ends_the_command_as_it_stops():
    process = start(
        SUPERVISED + "try:\n"
        "    with stopping.running(), supervision.on_ray('trials are kept.'): wait()\n"
        "except KeyboardInterrupt: os._exit(1)"
    )
    ready(process)
    process.terminate()
    assert told(process, 143) == "Stopped; trials are kept.\n"


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ("os._exit(1)", 4, "Ray has died; trials are kept."),
        ("os.abort()", 4, "Ray has died; trials are kept."),
        ("os.kill(os.getpid(), 9)", 137, "Killed, perhaps for want of memory; trials are kept."),
        ("os.kill(os.getpid(), 11)", 139, "words\nresults?\nEnded by SIGSEGV; trials are kept."),
    ],
)
def test_the_supervisor_says_what_ended_the_command(end, code, message):
    process = start(
        SUPERVISED + "with supervision.on_ray('trials are kept.'):\n"
        f"    os.write(2, b'words\\n'); print('results?', flush=True); {end}"
    )
    printed, errors = process.communicate(timeout=60)
    # What Ray says is shown only where it may explain a crash.
    assert (process.returncode, printed) == (code, "")
    assert errors.splitlines()[-len(message.splitlines()) :] == message.splitlines()
    assert ("words" in errors) == (code > 128)


@pytest.mark.parametrize(
    ("before", "code", "message"),
    [
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", 3, ""),
        (
            "import tempfile; tempfile.tempdir = '/no/such/folder'",
            2,
            "Error: No such file or directory; set TMPDIR to a folder that can be written to.\n",
        ),
    ],
)
def test_a_supervised_command_in_surroundings_that_are_odd(before, code, message):
    process = start(SUPERVISED.replace("supervision.sup", f"{before}; supervision.sup") + "exit(3)")
    assert told(process, code) == message


def test_ray_that_is_stopped_with_the_command_has_not_died():
    process = start(
        SUPERVISED + COMMAND + "from codesign.study.runner import RayDiedError\n"
        "with stopping.running(), resumable('trials are kept.', lambda: True):\n"
        "    try: wait()\n"
        "    except KeyboardInterrupt: raise RayDiedError('Ray has died')\n"
    )
    ready(process)
    process.terminate()
    assert "Stopped; trials are kept.\n" in told(process, 143)


def test_a_supervised_command_ends_as_it_would_alone():
    process = start(SUPERVISED + "print('result'); print('note', file=sys.stderr); sys.exit(2)")
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed, errors) == (2, "result\n", "note\n")
    assert os.getpid() != process.pid
