"""How training went, epoch by epoch, as a table and a picture."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workloads.training.classifier import TrainingError
from workloads.training.plan import SimilarityEpoch
from workloads.writing import write_atomically

# Panels of the picture, top to bottom, and the columns that each may show.
_LOSSES = ("loss", "task", "intra", "inter", "cluster_average")


def curve_points(epochs: Sequence[SimilarityEpoch]) -> list[dict[str, float | None]]:
    """A row per epoch: its plain figures, then `train_...` and `validation_...` scores."""
    return [
        {
            "epoch": each.epoch,
            "learning_rate": each.learning_rate,
            **{name: getattr(each, name) for name in _LOSSES},
            "removed_fraction": each.removed_fraction,
            "duration_s": each.duration_s,
            **{f"train_{name}": value for name, value in each.score.items()},
            **{f"validation_{name}": value for name, value in (each.validation or {}).items()},
        }
        for each in epochs
    ]


def _columns(rows: Sequence[dict[str, float | None]]) -> list[str]:
    """All of them: a training that goes on may be scored on other clips than before."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_curves_csv(epochs: Sequence[SimilarityEpoch], path: Path) -> None:
    """Write a row per epoch; what was left out is empty.

    Raises:
        TrainingError: the file can't be written.
    """
    rows, text = curve_points(epochs), io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(rows), restval="")
    writer.writeheader()
    writer.writerows(rows)
    with _told(path):
        write_atomically(path, text.getvalue())


def write_curves_html(epochs: Sequence[SimilarityEpoch], path: Path) -> None:
    """Draw losses above, scores and the removed fraction below; the page needs no network.

    Raises:
        TrainingError: the file can't be written.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    rows = curve_points(epochs)
    scores = [name for name in _columns(rows) if name.startswith(("train_", "validation_"))]
    titles = ("Loss and its terms (not weighted)", "Scores and removed fraction")
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09, subplot_titles=titles)
    for place, names in enumerate((_LOSSES, (*scores, "removed_fraction")), start=1):
        for name in names:
            values = [row.get(name) for row in rows]
            if any(value is not None for value in values):
                line = go.Scatter(
                    x=[row["epoch"] for row in rows],
                    y=values,
                    name=name.replace("_", " "),
                    mode="lines+markers",
                    legend="legend" if place == 1 else "legend2",
                )
                figure.add_trace(line, row=place, col=1)
    figure.update_yaxes(type="log", title_text="log scale", row=1, col=1)
    figure.update_yaxes(title_text="0 to 1", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    figure.update_layout(
        title="Similarity-aware training",
        template="plotly_white",
        height=820,
        legend={"y": 1, "yanchor": "top"},
        legend2={"y": 0.45, "yanchor": "top"},
    )
    with _told(path):
        write_atomically(path, figure.to_html(include_plotlyjs=True))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Name the file that can't be written: a full disk does not."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = os.strerror(error.errno) if error.errno else error.strerror
        raise TrainingError(
            f"curves can't be written to {path} ({why}); {'make room' if full else 'mend that'}, "
            "then resume"
        ) from error
