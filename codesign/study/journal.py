"""The file of a study: Optuna's journal, a line a step, each with a checksum of all before it.

What was not written by this program, or was changed since, is found before anything is made of it.
The lines of before there were checksums are checked for what they must hold; a line with one
vouches for them too.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from accelerators import ConfigError
from accelerators.rules import show
from workloads.errors import told

# Every line begins so, also one that was not written whole.
_BEGINNING = b'{"op_code":'
_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"\}\n\Z')
# A trial's line is some thousand bytes for each layer; what is longer is no line.
_LONGEST_LINE = 2**26
# The steps that this program takes, as Optuna numbers them.
_CREATE_STUDY, _CREATE_TRIAL, _FINISH_TRIAL = 0, 4, 6
# Step -> what it must say, and of which types.
_FIELDS: Mapping[int, Mapping[str, tuple[type, ...]]] = {
    _CREATE_STUDY: {"study_name": (str,), "directions": (list,)},
    2: {"study_id": (int,), "user_attr": (dict,)},
    _CREATE_TRIAL: {
        "study_id": (int,),
        "state": (int,),
        "params": (dict,),
        "distributions": (dict,),
        "user_attrs": (dict,),
        "system_attrs": (dict,),
        "intermediate_values": (dict,),
    },
    _FINISH_TRIAL: {
        "trial_id": (int,),
        "state": (int,),
        "values": (list, type(None)),
        "datetime_complete": (str,),
    },
    8: {"trial_id": (int,), "user_attr": (dict,)},
    9: {"trial_id": (int,), "system_attr": (dict,)},
}
_STATES = frozenset(state.value for state in TrialState)


class CheckedJournal(BaseJournalBackend):
    """Reads and appends to a journal for Optuna's storage.

    Only one process may append, see `codesign.study.store.locked`; others may read meanwhile.

    Args:
        path: the file, which must be a regular one.
        only: the name that its one study must have, or `None` for any names.
    """

    def __init__(self, path: Path, *, only: str | None) -> None:
        self._path, self._only = path, only
        self._restart()

    def _restart(self) -> None:
        self._lines = self._offset = self._crc = 0  # of what was read
        self._has_checksums = False
        self._studies: list[str] = []
        self._finished: list[bool] = []  # for each trial of all studies
        self._rest = b""
        self._of_trial = ""

    @property
    def place(self) -> str:
        """The line that was read last, and the trial that it is of, for a message."""
        return f"line {self._lines}{self._of_trial}"

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The steps from that number on.

        Raises:
            ConfigError: a line is not what this program wrote.
        """
        if log_number_from != self._lines:  # Optuna goes on where it was, or begins anew
            self._restart()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
                yield self._step(line)
        self._rest = line
        self._check_rest()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write steps to the disk, each in a line."""
        lines, crc = [], self._crc
        for step in logs:
            body = json.dumps(step, separators=(",", ":"))[:-1].encode()
            line = b'%s,"crc32":"%08x"}\n' % (body, zlib.crc32(body, crc))
            lines.append(line)
            crc = zlib.crc32(line, crc)
        with self._path.open("ab") as file:
            if file.tell() != self._offset:
                raise ConfigError(
                    f"{self._path} must be written by one search at a time, got "
                    f"{file.tell()} bytes where this one knows {self._offset}; restore it"
                )
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def mend(self) -> None:
        """Cut a last line that was not written whole; every line before it stays."""
        if self._rest:
            with self._path.open("r+b") as file:
                file.truncate(self._offset)
            self._rest = b""

    def _step(self, line: bytes) -> dict[str, Any]:
        """What a line says, once it was checked."""
        self._lines += 1
        self._of_trial = _trial_named(line, len(self._finished))
        has_checksum = (found := _CHECKSUM.search(line)) is not None
        if found is not None:
            if int(found[1], 16) != zlib.crc32(line[: found.start()], self._crc):
                raise self._damaged("its checksum must be that of the file up to it, got another")
        elif self._has_checksums:
            raise self._damaged("it must have a checksum, got none")
        try:
            # A key that is there twice would hide what it said first.
            step = json.loads(line, object_pairs_hook=None if has_checksum else _without_repeats)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"it must be JSON, got {told(error)}") from error
        problem = self._problem(step)
        if problem is None and not has_checksum and "crc32" in step:
            problem = "it must end with its checksum and a line feed, got another end"
        if problem is not None:
            raise self._damaged(problem)
        self._has_checksums = has_checksum
        self._offset += len(line)
        self._crc = zlib.crc32(line, self._crc)
        return step

    def _problem(self, step: Any) -> str | None:
        """What keeps a step from being one that follows those before it."""
        kind = step.get("op_code") if type(step) is dict else None
        fields = _FIELDS.get(kind) if type(kind) is int else None
        if fields is None or any(type(step.get(key)) not in kinds for key, kinds in fields.items()):
            return f"it must be a step of a study, got {show(step)}"
        if kind == _CREATE_STUDY:
            return self._begun_study(step["study_name"])
        if "study_id" in step:
            problem = self._unknown_study(step["study_id"])
        else:
            problem = self._unknown_trial(step["trial_id"])
        is_whole = step.get("state", 0) in _STATES
        for key in ("user_attr", "system_attr"):
            is_whole &= len(step.get(key, "1")) == 1
        if kind == _CREATE_TRIAL:
            is_whole &= _are_params(step["params"], step["distributions"])
        if problem is not None or not is_whole:
            return problem or f"it must be a whole step of a study, got {show(step)}"
        if kind == _CREATE_TRIAL:
            self._finished.append(TrialState(step["state"]).is_finished())
        elif kind == _FINISH_TRIAL:
            self._finished[step["trial_id"]] = TrialState(step["state"]).is_finished()
        return None

    def _begun_study(self, name: str) -> str | None:
        if self._only is not None and name != self._only:
            return f"it must be of the study {self._only!r}, got {show(name)}"
        if name not in self._studies:  # before there were checksums, a resume said it again
            self._studies.append(name)
        return None

    def _unknown_study(self, study: int) -> str | None:
        if 0 <= study < len(self._studies):
            return None
        return f"it must be of a study that a line before it began, got number {show(study)}"

    def _unknown_trial(self, trial: int) -> str | None:
        if not 0 <= trial < len(self._finished):
            return f"it must be of a trial that a line before it began, got number {show(trial)}"
        return "it must be of a trial that is not finished" if self._finished[trial] else None

    def _check_rest(self) -> None:
        """What follows the last whole line: the beginning of one, or what a power cut left.

        Raises:
            ConfigError: it is neither, or there is no whole line.
        """
        rest = self._rest
        if not rest:
            return
        is_line = rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)
        if not self._lines or not (is_line or not rest.strip(b"\0")) or len(rest) >= _LONGEST_LINE:
            self._lines, self._of_trial = self._lines + 1, ""
            raise self._damaged(f"it must be a step of a study, got {show(rest[:100])}")

    def _damaged(self, problem: str) -> ConfigError:
        return ConfigError(
            f"{self._path} must be a study of this program, got a damaged or foreign file: in "
            f"{self.place}: {problem}; restore it or give another path"
        )


def _are_params(params: Mapping[str, Any], distributions: Mapping[str, Any]) -> bool:
    """Whether each parameter has a position and says, in a text, what it is drawn from."""
    return (
        params.keys() == distributions.keys()
        and all(type(value) in (int, float) and value % 1 == 0 for value in params.values())
        and all(type(text) is str for text in distributions.values())
    )


def _trial_named(line: bytes, begun: int) -> str:
    """Which trial a line is of, as far as it still says so; `begun` is how many came before."""
    if b'"distributions":' in line:
        return f" (trial {begun})"
    found = re.search(rb'"trial_id":\s*(\d{1,9})\b', line)
    return f" (trial {int(found[1])})" if found else ""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key that is there twice")
    return made
