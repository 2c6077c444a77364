"""A page for each design worth a look: its whole simulation, and itself as Python to paste."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from plotly.offline import get_plotlyjs

from codesign.report.tables import design_python
from codesign.study.result import StudyResult
from codesign.study.trial import Trial
from simulator import PixelAnswers
from simulator.pages.simulation_page import simulation_html
from workloads.writing import naming, replacing

# One copy for all pages of a folder; each would be a hundred times larger with its own.
PLOTLY_FILE = "plotly.min.js"


def page_addresses(page: Path, trials: Iterable[Trial]) -> dict[int, str]:
    """Number of a trial -> address of its page, relative to the search's own page."""
    return {
        trial.number: f"{quote(_folder(page).name)}/{trial.number:03d}.html" for trial in trials
    }


@contextmanager
def design_pages(
    page: Path,
    result: StudyResult,
    trials: Iterable[Trial],
    pixels: Mapping[int, PixelAnswers],
) -> Iterator[None]:
    """Write a page for each trial beside those that are there, which it replaces at the end.

    The search's own page is written inside, and put into its place after: it leads to pages that
    are there, and if it can't be written, or one of these, those of an earlier report stay.

    Args:
        page: the search's own page; the folder beside it has its name and `_designs`.
        result: the search.
        trials: complete ones.
        pixels: number of a trial -> its pictures.

    Raises:
        OSError: a page can't be written; with `page` as its filename.
    """
    folder, trials = _folder(page), list(trials)
    was_there = folder.exists()
    texts = {f"{each.number:03d}.html": (each, pixels.get(each.number)) for each in trials}
    try:
        with naming(page, folder), ExitStack() as files:
            if trials:
                folder.mkdir(parents=True, exist_ok=True)
                plotly = files.enter_context(replacing(folder / PLOTLY_FILE))
                plotly.write_text(get_plotlyjs(), encoding="utf-8")
            for name, (trial, pictures) in texts.items():
                text = _html(page, result, trial, pictures).encode(errors="backslashreplace")
                files.enter_context(replacing(folder / name)).write_bytes(text)
            yield
    except BaseException:
        if not was_there and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise


def remove_other_pages(page: Path, trials: Iterable[Trial]) -> None:
    """Remove the pages of designs that an earlier report left behind, to which nothing leads."""
    kept = {f"{trial.number:03d}.html" for trial in trials}
    for path in _folder(page).glob("*.html"):
        if re.fullmatch(r"\d{3,}\.html", path.name) and path.name not in kept:
            path.unlink()


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
