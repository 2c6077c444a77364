"""The command `codesign report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelerators import ConfigError
from codesign.cli.outputs import check_files
from codesign.cli.terminal import guarded, note, say, table

if TYPE_CHECKING:
    from codesign.report.study_report import StudyReport

EPILOG = "Example: codesign report out/study --out report.html"


@guarded
def command(
    study: Annotated[
        str, typer.Argument(help="A study's journal, its directory, or the URL of its database.")
    ],
    out: Annotated[Path, typer.Option(help="The page; JSON and CSV go beside it.")] = Path(
        "report.html"
    ),
    accelerator: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="Where the class of the study's designs is, if it is one of your own (executed).",
        ),
    ] = None,
) -> None:
    """Write the report of a search, also while it is running."""
    from codesign import load_study
    from codesign.report.study_report import StudyReport
    from codesign.space.lookup import find_accelerator

    if out.suffix != ".html":
        raise ConfigError(f"--out must end in .html, got {str(out)!r}; name a page")
    check_files(out=out)
    check_files(out=out.with_suffix(".json"), inputs=[Path(study)])
    check_files(out=out.with_suffix(".csv"), inputs=[Path(study)])
    if accelerator is not None:
        find_accelerator(accelerator)  # executes the file, which defines the class of the designs
    tell(StudyReport(result=load_study(study)), out)


def tell(report: StudyReport, page: Path) -> None:
    """Show the front and the verdict, and write the page."""
    from codesign.report.chosen import chosen_text
    from codesign.report.tables import front_columns, front_rows
    from codesign.report.verdict import best_trial

    paths = report.write(page)
    result = report.result
    best = best_trial(result)
    if result.front:
        table(front_columns(result), front_rows(result, best))
    if result.failures is not None and result.unanswered is None:
        note(result.failures)
    chosen = [] if best is None else chosen_text(result, best)
    say("\n".join(["", report.verdict, *([" ".join(chosen)] if chosen else []), report.costs]))
    note(f"wrote {', '.join(map(str, paths))}")
