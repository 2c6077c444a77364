"""The report of a search: a page that opens without a network, and its numbers as JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from codesign.optimisers.registry import optimiser_words
from codesign.report.choices import Choice, Constraint, choices, measured, usual_constraints
from codesign.report.design_pages import design_pages, page_addresses, remove_other_pages
from codesign.report.front_sections import (
    choices_section,
    hypervolume_caption,
    importance_section,
    shape_figures,
    trial_link,
)
from codesign.report.importance import parameter_importance
from codesign.report.plots import hypervolume_figure, pareto_figure, plane_of, start_name
from codesign.report.tables import (
    best_section,
    front_columns,
    front_rows,
    space_columns,
    space_rows,
    study_cards,
)
from codesign.report.templates import TEMPLATES
from codesign.report.verdict import best_trial, verdict
from codesign.study.result import FINISHED, UNFINISHED, StudyResult
from codesign.study.store import plan_text
from codesign.study.trial import Trial
from simulator.analysis.pixel_answers import PixelAnswers
from simulator.pages.cards import RATIOS_TEXT, pixels_text
from simulator.pages.facts import facts, workload_line
from simulator.pages.page import figure_html, render
from simulator.pages.pixel_answers import pixel_answers_html
from simulator.pages.sections import design_sections
from simulator.results.costs import cost_sources, costs_line
from simulator.results.design_tables import DESIGN_COLUMNS, design_row
from simulator.results.differences import counted
from simulator.results.lookup import equal_area_design, given_design, reuses
from simulator.results.rows import write_rows
from simulator.results.tables import named
from workloads.traces.judged import judged_text
from workloads.writing import replacing, write_atomically


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A search, ready to be written.

    Attributes:
        result: the search.
        command: the command line that made it, for the record.
        about: what was searched, in a sentence or two for who knows nothing of it.
        pixels: number of a trial -> its answers for pixels, shown as pictures on its own page, and
            those of the best and of the first trial on the search's; see
            `codesign.report.pictures`.
        constraints: under which the best designs are told; `None` takes
            `codesign.report.choices.usual_constraints`.
    """

    result: StudyResult
    command: str | None = None
    about: str | None = None
    pixels: Mapping[int, PixelAnswers] = field(default_factory=dict)
    constraints: Sequence[Constraint] | None = None

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        return verdict(self.result)[0]

    @property
    def costs(self) -> str:
        """What prices every design of the search, in a line."""
        return costs_line(self.result.space.base)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The best designs under no constraint, under each, and under all."""
        result, given = self.result, self.constraints
        return choices(result, usual_constraints(result) if given is None else given)

    @cached_property
    def importance(self) -> Mapping[str, Mapping[str, float] | None]:
        """See `codesign.report.importance.parameter_importance`."""
        return parameter_importance(self.result)

    @cached_property
    def designs(self) -> tuple[Trial, ...]:
        """The trials with a page of their own: the front, what is chosen, and the first."""
        picked = [trial for choice in self.choices for trial in choice.best.values()]
        numbers = {trial.number for trial in (*self.result.front, *picked) if trial is not None}
        best = best_trial(self.result)
        numbers |= {0} | ({best.number} if best else set())
        return tuple(t for t in self.result.of_state("complete") if t.number in numbers)

    def write(self, page: str | Path) -> tuple[Path, Path, Path]:
        """Write the page with those of its designs, and beside it the numbers as JSON and CSV.

        Args:
            page: path of the page; the others have its name with `.json` and `.csv`.

        Returns:
            The three paths.
        """
        page = Path(page)
        page.parent.mkdir(parents=True, exist_ok=True)
        return (
            self.write_html(page),
            self.write_json(page.with_suffix(".json")),
            self.write_csv(page.with_suffix(".csv")),
        )

    def write_html(self, path: str | Path) -> Path:
        """Write the page, and a page for each of `designs` into the folder `NAME_designs`.

        All of them or none.
        """
        path = Path(path)
        pages = page_addresses(path, self.designs)
        text = render("study.html", TEMPLATES, self._context(pages))
        with replacing(path) as new, design_pages(path, self.result, self.designs, self.pixels):
            new.write_bytes(text.encode(errors="backslashreplace"))
        # After it: the pages of an earlier report go only once nothing leads there.
        remove_other_pages(path, self.designs)
        return path

    def write_json(self, path: str | Path) -> Path:
        """Write every trial, and those of `designs` in full."""
        return write_atomically(path, json.dumps(self.to_dict(), indent=1) + "\n")

    def write_csv(self, path: str | Path) -> Path:
        """Write a row for each trial."""
        return write_rows(path, trial_rows(self.result))

    def to_dict(self) -> dict[str, Any]:
        """The search as plain values."""
        result, best = self.result, best_trial(self.result)
        knee = result.knee
        full = {trial.number for trial in self.designs}
        return {
            "verdict": self.verdict,
            "progress": {
                "state": result.progress,
                "trials_asked_for": result.asked,
                "trials_told": len(result.trials) - len(result.of_state("running")),
            },
            "name": result.name,
            "seed": result.seed,
            "command": self.command,
            "quality": result.quality,
            "baseline": dict(result.baseline),
            "held_out": result.held_out and result.held_out.to_dict(),
            "reference_point": dict(result.reference_point),
            "best": None if best is None else best.number,
            "front": [trial.number for trial in result.front],
            "knee": None if knee is None else knee.number,
            "choices": [_choice_dict(choice) for choice in self.choices],
            "importance": {name: share and dict(share) for name, share in self.importance.items()},
            "hypervolume": list(result.hypervolume),
            "paying_point": dict(result.paying_point),
            "paying_hypervolume": list(result.paying_hypervolume),
            "trials": [self._trial_dict(trial, trial.number in full) for trial in result.trials],
            "specification": dict(result.specification),
        }

    def _trial_dict(self, trial: Trial, in_full: bool) -> dict[str, Any]:
        summary = dict(trial.summary)
        if not in_full:
            summary.pop("designs", None)
        following = self.result.space.following(trial.parameters)
        return {
            "number": trial.number,
            "state": trial.state,
            "origin": trial.origin,
            "parameters": dict(trial.parameters),
            **({"following": following} if following else {}),
            "values": trial.values and dict(trial.values),
            "summary": summary,
            "reason": trial.reason,
            "repeat_of": trial.repeat_of,
            "seconds": trial.seconds,
        }

    def _context(self, pages: Mapping[int, str]) -> dict[str, Any]:
        result, best = self.result, best_trial(self.result)
        first, more = verdict(result)
        rejected = [trial for trial in result.trials if trial.state in ("infeasible", "failed")]
        judged = judged_text(result.specification["workload"])
        return {
            "kind": "Search of designs and reuse together",
            "title": result.name,
            "subtitle": _subtitle(result) + (judged and f"; judged: {judged}"),
            "verdict": first,
            "verdict_more": more,
            "cards": study_cards(result, best) if best else [],
            "ratios_text": RATIOS_TEXT,
            "pareto": best
            and figure_html(pareto_figure(result, best, pages), "pareto", _pareto_caption(result)),
            "plane_text": _plane_text(result),
            "objective_words": _objective_words(result),
            "shapes": shape_figures(result, pages, self.importance) if best else [],
            "choices": best and choices_section(result, self.choices, pages),
            "importance": best and importance_section(result, self.importance),
            "hypervolume": best
            and figure_html(hypervolume_figure(result), "hypervolume", hypervolume_caption(result)),
            "designs": best and _designs(result, best),
            "best": best and best_section(result, best),
            "best_page": best and pages[best.number],
            "start_page": best and best.number != 0 and pages.get(0),
            "start_name": start_name(result),
            "about": self.about,
            "pictures": best and self._pictures(best),
            "start_pictures": best and best.number != 0 and self._pictures(result.start),
            "search_text": _search_text(result),
            "front_columns": front_columns(result),
            "front_rows": [
                row | {"trial": trial_link(result.trials[row["trial"]], pages)}
                for row in front_rows(result, best)
            ],
            "rejected": rejected,
            "rejected_title": f"The {len(rejected)} trials without values, and why",
            "facts": self._facts(),
            "space_columns": space_columns(),
            "space_rows": space_rows(result),
            "study_file": plan_text(plan) if (plan := result.specification["plan"]) else None,
        }

    def _pictures(self, trial: Trial) -> Markup | None:
        """What the network sees in a trial; `None` where that is not known."""
        pixels, workload = self.pixels.get(trial.number), self.result.specification["workload"]
        if pixels is None:
            return None
        text = pixels_text({**trial.summary, "workload": workload})
        return pixel_answers_html(pixels, text, f"pixels-{trial.number}")

    def _facts(self) -> dict[str, Any]:
        result = self.result
        specification = result.specification
        told: dict[str, Any] = {"command": self.command} if self.command else {}
        told |= {
            "seed": str(result.seed),
            "trials asked for at a time": specification["batch"],
            "accuracy means": result.accuracy.meaning,
            "optimiser": optimiser_words(specification["optimiser"]),
        }
        return facts(
            specification["workload"],
            result.space.base,
            {**told, "searched with": named(specification["versions"])},
        )


def _subtitle(result: StudyResult) -> str:
    """What was searched around what, on what; of a search that is not done, how far it is."""
    told = len(result.trials) - len(result.of_state("running"))
    trials = counted(told, "trial")
    if result.progress != FINISHED:
        of = "" if result.asked is None else f"of {result.asked} "
        words = "not finished" if result.progress == UNFINISHED else result.progress
        trials = f"{told} {of}trials so far, the search is {words};"
    workload = result.specification["workload"]
    return (
        f"{trials} around the design {result.space.base.name!r}, seed {result.seed}. "
        f"{workload_line(workload, workload['images'])}"
    )


def _objective_words(result: StudyResult) -> str:
    """All objectives, as a sentence lists them."""
    *others, last = (each.short for each in result.objectives)
    return f"{', '.join(others)} and {last}"


def _plane_text(result: StudyResult) -> str:
    """Where on the plot of the front the best designs are."""
    x, y = plane_of(result)
    return (
        f"Better in {x.short} is to the {'right' if x.maximise else 'left'}, better in {y.short} "
        f"is {'up' if y.maximise else 'down'}, brighter is more accurate."
    )


def _pareto_caption(result: StudyResult) -> str:
    return (
        "Speed is measured against a dense design that has the same silicon area as the point's "
        "own design. The dotted lines are the dense baseline: the dense design that has the area "
        "of the design which the search starts from. Ringed points are on the front: no other "
        f"trial beats them in {_objective_words(result)} at once. Colour is the "
        f"{result.accuracy.words}; hover over a point for its parameters, "
        "click on one of the front for its simulation."
    )


def trial_rows(result: StudyResult) -> list[dict[str, Any]]:
    """A flat row for each trial, as `StudyReport.write_csv` writes them."""
    front = {trial.number for trial in result.front}
    knee = result.knee
    text = judged_text(result.specification["workload"])
    judged = {"judged": text} if text else {}
    rows = []
    for trial in result.trials:
        values, summary = trial.values or {}, trial.summary
        reuse = given_design(summary) if summary else {}
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state,
                "origin": trial.origin,
                "on_front": trial.number in front,
                "is_knee": knee is not None and trial.number == knee.number,
                "speedup_equal_area": summary.get("speedup_equal_area"),
                "speedup_equal_array": summary.get("speedup_equal_array"),
                "energy_uj_per_image": reuse.get("energy_uj_per_image"),
                "energy_ratio_equal_area": summary.get("energy_ratio_equal_area"),
                "energy_ratio_equal_array": summary.get("energy_ratio_equal_array"),
                **{each.column: values.get(each.name) for each in result.objectives},
                **judged,
                "latency_ms_per_image": reuse.get("latency_ms_per_image"),
                "area_mm2": reuse.get("area_mm2"),
                "power_mw": measured(trial, "power_mw") if trial.values else None,
                "bound_by": reuse.get("bound_by"),
                **cost_sources(result.space.base),
                **trial.parameters,
                **result.space.following(trial.parameters),
                "repeat_of": trial.repeat_of,
                "evaluation_seconds": trial.seconds,
                "hypervolume": result.hypervolume[trial.number],
                "paying_hypervolume": result.paying_hypervolume[trial.number],
                "reason": trial.reason,
            }
        )
    return rows


def _choice_dict(choice: Choice) -> dict[str, Any]:
    return {
        "constraints": [asdict(constraint) for constraint in choice.constraints],
        "trials": [trial.number for trial in choice.trials],
        **{sense: trial and trial.number for sense, trial in choice.best.items()},
    }


def _designs(result: StudyResult, best: Trial) -> dict[str, Any]:
    """The plots of the designs compared, and a table of them."""
    compared = designs_compared(result, best)
    # A panel each would be small: the designs of the same array are left to the other plots.
    panels = {
        label: design for label, design in compared.items() if not label.startswith("dense, same")
    }
    return {
        "sections": design_sections(compared, panels),
        "columns": DESIGN_COLUMNS,
        "rows": [
            design_row(label, design) | {"marked": label == "best found"}
            for label, design in compared.items()
        ],
    }


def designs_compared(result: StudyResult, best: Trial) -> dict[str, Any]:
    """Designs by label: the first trial and the best, each below the dense one of equal area."""
    start = result.start
    compared: dict[str, Any] = {}
    if start.summary and start.number != best.number:
        name = start_name(result)
        compared["dense, same array as the start"] = start.summary["designs"]["dense"]
        compared[f"dense, area of the {name}"] = equal_area_design(start.summary)
        compared[name] = given_design(start.summary)
    if reuses(best.summary):
        compared["dense, area of best found"] = equal_area_design(best.summary)
    compared["best found"] = given_design(best.summary)
    return compared


def _search_text(result: StudyResult) -> str:
    counts = {state: len(result.of_state(state)) for state in ("infeasible", "failed", "running")}
    without = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    repeats = sum(trial.repeat_of is not None for trial in result.trials)
    seconds = sum(trial.seconds for trial in result.trials)
    return (
        f"{len(result.of_state('complete'))} of {len(result.trials)} trials are complete"
        + (f" ({without})" if without else ", none failed")
        + (f"; {repeats} repeated an earlier design and were answered from it" if repeats else "")
        + f". Evaluating them took {seconds:.0f} seconds of one processor core."
    )
