"""An evaluation that takes long is told of, once in a while."""

import logging
import threading

import pytest

from codesign.evaluation.evaluator import Evaluation
from codesign.study import runner, slow
from codesign.study.slow import SlowNotes


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(slow.time, "monotonic", lambda: Clock.now)
    return Clock


def test_notes_name_the_slow_at_doubled_intervals(clock, caplog):
    notes = SlowNotes(lambda number, _: f"trial {number}")
    notes.start(2, {})
    clock.now += 5
    notes.end(2)
    notes.start(3, {})
    heard = []
    for second in range(1, 601):
        clock.now += 1
        if second == 30:
            notes.start(4, {})
        notes.tell()
        if caplog.messages:
            heard.append((second, caplog.messages[0]))
            caplog.clear()
    # Trial 3 is 60 s old, then 120 s; trial 4, told of at 90 s, is 180 s old, then 360 s.
    assert [second for second, _ in heard] == [60, 120, 210, 390]
    assert heard[0][1] == (
        "trial 3 has been running for 60 s; finished ones took 5 s at most; "
        "Ctrl-C stops the search, and resuming it keeps what is finished"
    )
    assert "trial 3 has been running for 120 s, trial 4 has been running for 90 s" in heard[1][1]
    notes.end(3)
    notes.end(4)
    clock.now += 1000
    notes.tell()
    assert not caplog.messages


def test_inline_evaluations_are_told_of_too(monkeypatch, caplog):
    monkeypatch.setattr(slow, "SLOW_S", 0.02)
    told = threading.Event()

    class Told(logging.Handler):
        def emit(self, _):
            told.set()

    class Hanging:
        model = None

        def __call__(self, _job):
            assert told.wait(30)
            return Evaluation(state="complete")

    slow._log.addHandler(handler := Told())
    with runner.running("inline", Hanging(), 1, None) as run:
        ((number, outcome),) = run([(7, {})])
    slow._log.removeHandler(handler)
    assert (number, outcome.state) == (7, "complete")
    assert caplog.messages[0].startswith("trial 7 has been running for")
    assert "none has finished yet" in caplog.messages[0]
