"""How much each parameter matters for each objective, over the trials of a search."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from codesign.evaluation.objective import values_of
from codesign.evaluation.threads import single_thread
from codesign.optimisers.quiet import quiet_optuna
from codesign.study.result import StudyResult

# With fewer complete trials than this the trees fit noise.
LEAST_TRIALS = 10
_SEED = 0


def parameter_importance(result: StudyResult) -> dict[str, Mapping[str, float] | None]:
    """Share of an objective's variance that each parameter explains on its own (fANOVA).

    Random forests are fitted to the complete trials, and their variance is split by parameter
    (Hutter, Hoos and Leyton-Brown, ICML 2014), as Optuna does it. The search tries good regions
    more often than others, and of few trials the shares are rough.

    Args:
        result: the search.

    Returns:
        Objective -> parameter -> share of the explained variance, in falling order, summing to 1.
        An objective is `None` where this is undefined: it is the same in every trial, no parameter
        varies, or fewer than `LEAST_TRIALS` trials are complete.
    """
    trials = result.of_state("complete")
    shares: dict[str, Mapping[str, float] | None] = {}
    space, objectives = result.space, result.objectives
    with quiet_optuna():
        study = optuna.create_study(directions=["minimize"] * len(objectives))
    for trial in trials:
        assert trial.values is not None, "complete trials have values"
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=values_of(trial.values, objectives),
                params=space.encode(trial.parameters),
                distributions=space.distributions,
            )
        )
    varied = [p.name for p in space.parameters if len({t.parameters[p.name] for t in trials}) > 1]
    for index, objective in enumerate(objectives):
        found = {(trial.values or {})[objective.name] for trial in trials}
        if len(trials) < LEAST_TRIALS or len(found) < 2 or not varied:
            shares[objective.name] = None
            continue
        with single_thread():
            explained = get_param_importances(
                study,
                evaluator=FanovaImportanceEvaluator(seed=_SEED),
                params=varied,
                target=partial(_value, index),
            )
        shares[objective.name] = {name: float(share) for name, share in explained.items()}
    return shares


def _value(index: int, trial: FrozenTrial) -> float:
    return trial.values[index]
