"""A page for each design worth a look: its whole simulation, and itself as Python to paste."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from plotly.offline import get_plotlyjs

from codesign.tables import design_python
from codesign.trials import StudyResult, Trial
from simulator import PixelAnswers
from simulator.report.files import write_atomically
from simulator.report.simulation_page import simulation_html

# One copy for all pages of a folder; each would be a hundred times larger with its own.
PLOTLY_FILE = "plotly.min.js"


def page_addresses(page: Path, trials: Iterable[Trial]) -> dict[int, str]:
    """Number of a trial -> address of its page, relative to the search's own page."""
    return {
        trial.number: f"{quote(_folder(page).name)}/{trial.number:03d}.html" for trial in trials
    }


def write_design_pages(
    page: Path,
    result: StudyResult,
    trials: Iterable[Trial],
    pixels: Mapping[int, PixelAnswers],
) -> list[Path]:
    """Write a page for each trial, and remove those that an earlier report left behind.

    Args:
        page: the search's own page; the folder beside it has its name and `_designs`.
        result: the search.
        trials: complete ones.
        pixels: number of a trial -> its pictures.

    Returns:
        The pages.
    """
    folder, trials = _folder(page), list(trials)
    pages = []
    if trials:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PLOTLY_FILE, get_plotlyjs())
    for trial in trials:
        path = folder / f"{trial.number:03d}.html"
        pages.append(write_atomically(path, _html(page, result, trial, pixels.get(trial.number))))
    for path in folder.glob("*.html"):
        if re.fullmatch(r"\d{3,}\.html", path.name) and path not in pages:
            path.unlink()
    return pages


def _folder(page: Path) -> Path:
    return page.with_name(f"{page.stem}_designs")


def _html(page: Path, result: StudyResult, trial: Trial, pixels: PixelAnswers | None) -> str:
    workload: Mapping = result.specification["workload"]
    return simulation_html(
        {**trial.summary, "workload": workload},
        pixels=pixels,
        kind=f"Trial {trial.number} of the search {result.name}",
        python=design_python(*result.design_of(trial)),
        back=f"../{quote(page.name)}",
        plotly_file=PLOTLY_FILE,
    )
