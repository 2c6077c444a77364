"""Figures that papers published of techniques, each with its source and kind of evidence."""

import csv
from collections.abc import Sequence
from functools import cache
from importlib import resources


def published_figures(names: Sequence[str]) -> list[dict[str, str]]:
    """Rows of `published_techniques.csv`.

    Args:
        names: techniques, as papers call them; the order of rows is the file's.

    Returns:
        `network`, `data`, `metric`, `value` (with its unit), `note` and `source` of each.
    """
    return [
        {
            "network": row["network"],
            "data": row["data_set"],
            "metric": row["metric"],
            "value": f"{row['value']} {row['unit']}",
            "note": row["note"],
            "source": row["source"],
        }
        for row in _rows()
        if row["technique"] in names
    ]


@cache
def _rows() -> tuple[dict[str, str], ...]:
    """All rows."""
    file = resources.files("simulator") / "data" / "published_techniques.csv"
    return tuple(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
