"""What every reader here asks of a path before it reads, and how a CSV file is read and refused."""

from __future__ import annotations

import csv
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator

from accelerators.rules import refuse

_MOST_VIOLATIONS = 20


def refuse_endless(path: str | bytes | os.PathLike[str]) -> None:
    """Raise an OSError for a device or a pipe, whose reading may not end; for nothing else."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a device or a pipe, no file", os.fsdecode(path))


def csv_rows(
    text: str, label: str, header_problems: Callable[[list[str]], list[str]], problems: list[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file that have every column, each with its place for messages.

    Args:
        text: the file's text.
        label: how messages call the file.
        header_problems: what is wrong with the names of the columns; there are no rows then.
        problems: what is wrong with the file is added here.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        found = header_problems(header)
        problems += found
        for row in () if found else reader:
            at = f"{label} line {reader.line_num}"
            if None in row or None in row.values():
                problems.append(
                    f"{at} must have {len(header)} columns, got "
                    f"{'more' if None in row else 'fewer'}; quote a text that holds a comma"
                )
                continue
            yield at, row
    except csv.Error as error:
        problems.append(
            f"{label} line {reader.line_num} must be comma-separated text, got {error}; save the "
            "table as CSV"
        )


def refuse_file(problems: list[str], label: str) -> None:
    """Raise one `ConfigError` with what is wrong with a file, if anything: at most 20 messages."""
    more = len(problems) - _MOST_VIOLATIONS
    tail = [f"{label} breaks {more} more rules; mend these first"] if more > 0 else []
    refuse(problems[:_MOST_VIOLATIONS] + tail)
