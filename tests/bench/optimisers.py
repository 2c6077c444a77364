"""How much each optimiser finds of known problems: `make bench`, or in full

python -m tests.bench.optimisers --evaluations 100 --seeds 5

Each line gives the share of the largest possible hypervolume, median of the seeds, the optimiser's
own time for a question, and what was measured before (tests/bench/data/search_reference.csv, with
Optuna 5.0 and BoTorch 0.18; its problems, so far as it tells, are those below: random search gives
its figure on ZDT2). `make bench` itself takes 30 evaluations, one seed, and leaves out BoTorch.
Points are asked for in batches of four, as a search does.

Problems: ZDT2 (Zitzler, Deb and Thiele, Evolutionary Computation 8(2), 2000), 6 variables; DTLZ2
(Deb, Thiele, Laumanns and Zitzler, CEC 2002), 6 variables and 2 objectives; Branin-Currin
(Belakaria, Deshwal and Doppa, NeurIPS 2019). Reference points are those of BoTorch.
"""

import argparse
import csv
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import moocore
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from codesign.optimisers.optimiser import Problem
from codesign.optimisers.registry import OPTIMISERS, ask
from tests.bench.target import Target

REFERENCE = Path(__file__).parent / "data" / "search_reference.csv"
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class TestFunction:
    """A problem whose front is known; both objectives are to be small.

    Attributes:
        function: `(variables,)` in the unit cube -> the objectives.
        variables: how many.
        reference: point beyond which nothing counts.
        largest: hypervolume of the whole front.
    """

    function: Callable[[np.ndarray], tuple[float, float]]
    variables: int
    reference: tuple[float, float]
    largest: float


def zdt2(x: np.ndarray) -> tuple[float, float]:
    """Equation 8 of its paper; on the front f2 = 1 - f1^2."""
    g = 1 + 9 * x[1:].mean()
    return x[0], g * (1 - (x[0] / g) ** 2)


def dtlz2(x: np.ndarray) -> tuple[float, float]:
    """A quarter of a circle is the front."""
    radius = 1 + ((x[1:] - 0.5) ** 2).sum()
    return radius * np.cos(x[0] * np.pi / 2), radius * np.sin(x[0] * np.pi / 2)


def branin_currin(x: np.ndarray) -> tuple[float, float]:
    """Two functions of two variables, each of its own authors."""
    u, v = 15 * x[0] - 5, 15 * x[1]
    bend = v - 5.1 / (4 * np.pi**2) * u**2 + 5 / np.pi * u - 6
    branin = bend**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(u) + 10
    a, b = x
    factor = 1 - np.exp(-1 / (2 * b)) if b > 0 else 1.0
    over = 2300 * a**3 + 1900 * a**2 + 2092 * a + 60
    return branin, factor * over / (100 * a**3 + 500 * a**2 + 4 * a + 20)


FUNCTIONS = {
    # The square up to the reference point without what lies below the front.
    "ZDT2": TestFunction(
        function=zdt2, variables=6, reference=(11.0, 11.0), largest=11.0**2 - 2 / 3
    ),
    "DTLZ2": TestFunction(
        function=dtlz2, variables=6, reference=(1.1, 1.1), largest=1.1**2 - np.pi / 4
    ),
    # As BoTorch states it.
    "BraninCurrin": TestFunction(
        function=branin_currin, variables=2, reference=(18.0, 6.0), largest=59.36011874867746
    ),
}


@cache
def run(name: str, optimiser: str, evaluations: int, seed: int) -> tuple[float, float]:
    """Share of the largest hypervolume, and seconds of the optimiser for a question."""
    chosen = FUNCTIONS[name]
    distributions = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(chosen.variables)}
    problem = Problem(
        distributions=distributions, maximise=(False, False), reference_point=chosen.reference
    )
    trials, spent = [], 0.0
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for number in range(evaluations):
        start = time.perf_counter()
        answer = ask(optimiser, problem, trials, seed=seed, known=number // BATCH * BATCH)
        spent += time.perf_counter() - start
        point = np.array([answer.parameters[key] for key in distributions])
        trials.append(
            create_trial(
                state=TrialState.COMPLETE,
                values=[float(value) for value in chosen.function(point)],
                params=answer.parameters,
                distributions=distributions,
                system_attrs=dict(answer.notes),
            )
        )
    found = np.array([trial.values for trial in trials])
    share = moocore.hypervolume(found, ref=chosen.reference) / chosen.largest
    return float(share), spent / evaluations


def measured_before(name: str) -> str:
    """What the reference table says of a problem at 100 evaluations."""
    with REFERENCE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["problem"] == name]
    return "; ".join(
        f"{row['optimiser']} {row['median_hypervolume']}; {row['note']}" for row in rows
    )


def line(name: str, optimiser: str, evaluations: int, seeds: int) -> str:
    """Shares of an optimiser on a problem, and its time."""
    results = [run(name, optimiser, evaluations, seed) for seed in range(seeds)]
    shares = [share for share, _ in results]
    return (
        f"{name:13} {optimiser:8} {statistics.median(shares):.3f} "
        f"({min(shares):.3f} to {max(shares):.3f}, {seeds} seeds, {evaluations} evaluations) "
        f"{statistics.median(spent for _, spent in results):7.3f} s a question"
    )


def _target(name: str, optimiser: str) -> Target:
    """A line of `make bench`, reported without a limit."""
    return Target(
        name=f"{name}_{optimiser}",
        what=f"share of {name}'s hypervolume by {optimiser} after 30; at 100, measured before: "
        f"{measured_before(name)}",
        unit="",
        limit=None,
        measure=partial(_share, name, optimiser),
    )


def _share(name: str, optimiser: str) -> float:
    return run(name, optimiser, 30, 0)[0]


def _question_seconds(optimiser: str) -> float:
    return run("ZDT2", optimiser, 30, 0)[1]


_QUICK = [name for name, each in OPTIMISERS.items() if each.package is None]
OPTIMISER_TARGETS = (
    *(_target(name, optimiser) for name in FUNCTIONS for optimiser in _QUICK),
    *(
        Target(
            name=f"ask_{optimiser}",
            what=f"{optimiser}'s own time for a question, mean of 30 on ZDT2",
            unit="s",
            limit=None,
            measure=partial(_question_seconds, optimiser),
        )
        for optimiser in _QUICK
    ),
)


def main() -> None:
    """Print a line for each problem and optimiser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--problems", nargs="*", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--optimisers", nargs="*", choices=OPTIMISERS, default=list(OPTIMISERS))
    given = parser.parse_args()
    for name in given.problems:
        for optimiser in given.optimisers:
            package = OPTIMISERS[optimiser].package
            if package and importlib.util.find_spec(package) is None:
                print(f"{name:13} {optimiser:8} not installed")
            else:
                print(line(name, optimiser, given.evaluations, given.seeds), flush=True)
        print(f"{name:13} measured before, at 100: {measured_before(name)}", flush=True)


if __name__ == "__main__":
    main()
