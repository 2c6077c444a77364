"""What a search's report says of its front: its shape, the designs to take, what matters."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from codesign.report.choices import KNEE, LEAST_ENERGY_DELAY, QUANTITIES, Choice, Constraint
from codesign.report.front_plots import (
    PARALLEL_PARAMETERS,
    importance_figure,
    parallel_figure,
    projections_figure,
    ranked_parameters,
    space_figure,
)
from codesign.report.importance import LEAST_TRIALS
from codesign.report.templates import TEMPLATES
from codesign.study.result import StudyResult, energy_delay_ratio
from codesign.study.trial import Trial
from simulator.pages.page import figure_html, fragment
from simulator.results.differences import ratio_text
from simulator.results.tables import NOTHING, column, number, percent

Pages = Mapping[int, str]
Shares = Mapping[str, Mapping[str, float] | None]


def trial_link(trial: Trial, pages: Pages, said: str = "") -> Markup:
    """A trial's number, which opens its page where it has one, after what is said of it."""
    context = {"number": trial.number, "page": pages.get(trial.number), "said": said}
    return fragment("trial.html", TEMPLATES, context)


def hypervolume_caption(result: StudyResult) -> str:
    """What the curves measure, with their reference points."""
    paying = result.paying_point
    return (
        "The volume that the front covers after each trial, in units of the dense baseline: "
        f"{' × '.join(each.gain for each in result.objectives)}. On the left its reference point "
        f"is {_point(result, result.reference_point)}: a worse design is of no interest. On the "
        f"right it is {_point(result, paying)}, the dense baseline with what accuracy a design "
        "may lose: a design that does not beat all of it adds nothing there. A curve grows with "
        "every trial that improves the front; once it stays flat, more trials find little. "
        f"After {len(result.trials)} trials: {number(result.hypervolume[-1])} and "
        f"{number(result.paying_hypervolume[-1])}."
    )


def _point(result: StudyResult, point: Mapping[str, float]) -> str:
    """Values, those that are no fractions also as so many times the dense baseline's."""
    told = []
    for each in result.objectives:
        value, baseline = point[each.name], result.baseline[each.name]
        if each.percent or not baseline:
            told.append(f"{each.short} {each.told(value)}")
        elif baseline == 1:
            told.append(f"{each.short} {value:g}")
        else:
            ratio = f"{each.short} {value / baseline:g}× the dense baseline's"
            told.append(f"{ratio} ({number(value)} {each.shown_unit})")
    return ", ".join(told)


def shape_figures(result: StudyResult, pages: Pages, shares: Shares) -> list[Markup]:
    """The front's other projections, the front in space, and parallel coordinates."""
    figures = [figure_html(projections_figure(result, pages), "projections", _PROJECTIONS)]
    if len(result.objectives) > 2:
        figures.append(figure_html(space_figure(result, pages), "space", _SPACE))
    names = ranked_parameters(shares) or _varied(result)
    if len(result.of_state("complete")) > 1 and names:
        figure = parallel_figure(result, names[:PARALLEL_PARAMETERS])
        figures.append(figure_html(figure, "parallel", _PARALLEL))
    return figures


_PROJECTIONS = (
    "The same trials, accuracy over each of the other objectives: up is more accurate. The dotted "
    "line joins the trials that no other beats in the two objectives of its panel alone; a trial "
    "on the front away from it is there for another."
)
_SPACE = "Three objectives at once; drag to turn, scroll to zoom. Coloured points are on the front."
_PARALLEL = (
    "Every complete trial as a line, those on the front coloured. The parameters shown are those "
    "that vary and matter most, the most important first. Drag along an axis to keep only the "
    "trials that pass there, drag an axis by its name to move it."
)


def _varied(result: StudyResult) -> list[str]:
    complete = result.of_state("complete")
    names = (parameter.name for parameter in result.space.parameters)
    return [name for name in names if len({t.parameters[name] for t in complete}) > 1]


def importance_section(result: StudyResult, shares: Shares) -> dict[str, Any]:
    """Which parameters matter for which objective, and where that can't be said."""
    unknown = [each.short for each in result.objectives if shares[each.name] is None]
    complete = len(result.of_state("complete"))
    text = (
        "How much of an objective's variance over the trials each parameter explains on its own, "
        f"by fANOVA on the {complete} complete trials. It tells where to look, not what causes "
        "what: of few trials the shares are rough, and the search tries good regions more often "
        "than others."
    )
    if len(unknown) == len(shares):
        why = (
            f"{complete} complete trials are too few, it takes {LEAST_TRIALS}"
            if complete < LEAST_TRIALS
            else "nothing varies"
        )
        return {"text": f"Not known: {why}.", "figure": None}
    if unknown:
        text += f" Undefined for {' and '.join(unknown)}, the same in every trial."
    figure = importance_figure(result, shares)
    return {"text": text, "figure": figure_html(figure, "importance", _IMPORTANCE)}


_IMPORTANCE = (
    "Main effects only, of a random forest fitted to the trials (Hutter, Hoos and Leyton-Brown, "
    "ICML 2014, as in Optuna); the shares of an objective add up to 100 %."
)


def choices_section(result: StudyResult, chosen: Sequence[Choice], pages: Pages) -> dict[str, Any]:
    """The best designs under each constraint, each a link to its page."""
    return {
        "columns": [
            column("constraint", "Constraint", text=True),
            column("met", "Trials", "that meet it"),
            *(column(each.sense, each.sense_words, each.shown_unit) for each in result.objectives),
            column(LEAST_ENERGY_DELAY, "Least energy-delay", "of dense, equal area"),
            column(KNEE, "Knee", ", ".join(each.short for each in result.objectives)),
        ],
        "rows": [
            {
                "constraint": _constraint_text(choice),
                "met": len(choice.trials),
                **{sense: _pick(result, choice, sense, pages) for sense in choice.best},
            }
            for choice in chosen
        ],
    }


def _constraint_text(choice: Choice) -> str:
    if not choice.constraints:
        return "none"
    if len(choice.constraints) > 1:
        return "all of these"
    return constraint_words(choice.constraints[0])


def constraint_words(constraint: Constraint) -> str:
    """A constraint in a line."""
    name, unit, at_least = QUANTITIES[constraint.quantity]
    if constraint.quantity == "accuracy":
        bound = f"{percent(constraint.bound)} %"
    else:
        bound = f"{number(constraint.bound)} {unit}"
    return f"{name} {'≥' if at_least else '≤'} {bound}, {constraint.reason}"


def _pick(result: StudyResult, choice: Choice, sense: str, pages: Pages) -> Any:
    """A trial's number, which is a link, and what it was picked for."""
    trial = choice.best[sense]
    if trial is None or trial.values is None:
        return NOTHING
    told = {each.sense: each.told(trial.values[each.name]) for each in result.objectives}
    said = {
        **told,
        LEAST_ENERGY_DELAY: f"{ratio_text(energy_delay_ratio(trial))}×",
        KNEE: ", ".join(told.values()),
    }[sense]
    return trial_link(trial, pages, said)
