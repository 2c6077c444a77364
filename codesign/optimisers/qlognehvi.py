"""BoTorch's qLogNEHVI with a reference point, which Optuna does not have."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from codesign.optimisers.cube import UnitCube
from codesign.optimisers.optimiser import Problem, SamplerOptimiser
from codesign.optimisers.whole_space import STARTUP_TRIALS, WholeSpaceSampler

# Draws over which qLogNEHVI averages, and its search for the best point.
_DRAWS, _RESTARTS, _RAW_SAMPLES, _STEPS = 64, 3, 64, 40


class QLogNehviOptimiser(SamplerOptimiser):
    """`botorch`."""

    words = (
        "Gaussian processes with noisy expected hypervolume improvement (BoTorch's "
        "qLogNEHVI) over the dense baseline"
    )
    package = "botorch"

    def sampler(self, problem: Problem, *, seed: int, own_seed: int) -> QLogNehviSampler:
        """See `SamplerOptimiser`."""
        return QLogNehviSampler(problem, seed=own_seed)


class QLogNehviSampler(WholeSpaceSampler):
    """BoTorch's noisy expected hypervolume improvement, in logarithms, over a relaxed space.

    Each objective and constraint has a Gaussian process of its own. The point that promises most is
    looked for in the unit cube and rounded to the choices. The reference point is given: one
    inferred from a front of one point freezes the search. Source: Daulton, Balandat and Bakshy,
    Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected Hypervolume
    Improvement (NeurIPS 2021), in the form of Ament et al., Unexpected Improvements to Expected
    Improvement (NeurIPS 2023).

    Args:
        problem: what is searched.
        seed: of the draws and of the search for the best point.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point that promises most; random ones at first."""
        import torch
        from botorch.exceptions import ModelFittingError

        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < STARTUP_TRIALS or not search_space:
            return {}
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        pending = [each for each in running if each.number != trial.number]
        unit = UnitCube(search_space)
        signs = [1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in study.directions]

        def cube(trials: Sequence[FrozenTrial]) -> torch.Tensor:
            return torch.tensor(np.array([unit.point(each.params) for each in trials]))

        results = [
            [*(np.array(each.values) * signs), *each.constraints.values()] for each in complete
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            try:
                point = self._best(
                    cube(complete),
                    torch.tensor(results, dtype=torch.double),
                    torch.tensor(np.array(self._problem.reference_point) * signs),
                    cube(pending) if pending else None,
                )
            except ModelFittingError as error:
                warnings.warn(f"a point is drawn at random: {error}", stacklevel=2)
                return {}
        return unit.decode(point.numpy())

    def _best(self, points: Any, results: Any, reference: Any, pending: Any) -> Any:
        """The point of the unit cube with the largest acquisition.

        Args:
            points: `(n, d)` double tensor, tried.
            results: `(n, objectives + constraints)` double tensor; objectives to be maximised,
                constraints met where at most 0.
            reference: `(objectives,)` double tensor.
            pending: `(n', d)` double tensor of points under way, or None.

        Returns:
            `(d,)` double tensor.
        """
        import torch
        from botorch.acquisition.multi_objective.logei import (
            qLogNoisyExpectedHypervolumeImprovement,
        )
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.optim import optimize_acqf
        from botorch.sampling.normal import SobolQMCNormalSampler
        from gpytorch.mlls import SumMarginalLogLikelihood

        count = len(reference)
        # Botorch standardises each result itself.
        models = [SingleTaskGP(points, column[:, None]) for column in results.T]
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=reference,
            X_baseline=points,
            sampler=SobolQMCNormalSampler(torch.Size([_DRAWS]), seed=self._seed),
            objective=IdentityMCMultiOutputObjective(outcomes=list(range(count))),
            constraints=[partial(_column, index) for index in range(count, results.shape[1])]
            or None,
            X_pending=pending,
            prune_baseline=True,
        )
        cube = torch.stack([torch.zeros(points.shape[1]), torch.ones(points.shape[1])]).double()
        best, _ = optimize_acqf(
            acquisition,
            bounds=cube,
            q=1,
            num_restarts=_RESTARTS,
            raw_samples=_RAW_SAMPLES,
            options={"seed": self._seed, "maxiter": _STEPS},
        )
        return best[0]


def _column(index: int, found: Any) -> Any:
    """One result of each draw."""
    return found[..., index]
