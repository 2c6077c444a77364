"""Which techniques a search chose, and what was second, in words."""

# ruff: noqa: RUF001  readers see the multiplication sign

from __future__ import annotations

from codesign.evaluation.objectives import ACCURACY
from codesign.space.technique_parameters import TECHNIQUE
from codesign.space.technique_space import TechniqueSpace
from codesign.space.techniques import DENSE, NETWORK
from codesign.study.result import StudyResult, energy_delay_ratio
from codesign.study.trial import Trial
from simulator.results.differences import ACCURACY_DROP, ratio_text


def chosen_text(result: StudyResult, best: Trial) -> list[str]:
    """Sentences on what the best trial's groups of layers chose, and on the best that chose other
    techniques; none where there was nothing to choose."""
    space = result.space
    if not isinstance(space, TechniqueSpace):
        return []
    found = [f"It chose {_groups_text(space, best)}."]
    own = space.techniques_in(best.parameters)
    least = result.baseline[ACCURACY] - ACCURACY_DROP
    others = [
        trial
        for trial in result.of_state("complete")
        if trial.values
        and trial.values[ACCURACY] >= least
        and space.techniques_in(trial.parameters) != own
    ]
    if not others:
        found.append("No trial with other techniques keeps the accuracy.")
        return found
    second = min(others, key=energy_delay_ratio)
    values = second.values or {}
    found.append(
        f"Second, of other techniques: {_groups_text(space, second)} (trial {second.number}), at "
        f"{ratio_text(second.summary['speedup_equal_area'])}× the speed and "
        f"{ratio_text(second.summary['energy_ratio_equal_area'])}× the energy of dense at equal "
        f"area, {100 * values[ACCURACY]:.1f} % {result.accuracy.phrase}."
    )
    return found


def _groups_text(space: TechniqueSpace, trial: Trial) -> str:
    """Each choice with the groups that have it; dense last, and alone where all are."""
    by_choice: dict[str, list[str]] = {}
    for group in space.choosing:
        choice = trial.parameters[f"{group}{TECHNIQUE}"]
        where = "the network's frames" if group == NETWORK else group
        if group != NETWORK or choice != DENSE:
            by_choice.setdefault(choice, []).append(where)
    dense = by_choice.pop(DENSE, None)
    texts = [f"{choice} in {_listed(groups)}" for choice, groups in by_choice.items()]
    if dense is not None:
        texts.append(f"none in {_listed(dense)}" if texts else "no technique in any group")
    return "; ".join(texts)


def _listed(names: list[str]) -> str:
    """Names as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
