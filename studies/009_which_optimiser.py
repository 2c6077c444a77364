"""Which optimiser finds the best designs of CifarNet in 100 evaluations, and what does it cost?

Run it with `python studies/009_which_optimiser.py [--cifar10 ARCHIVE --cifarnet WEIGHTS]`; scanned
digits without them. It takes hours of processor time and goes on where it was cut off. Every run is
a study of its own under `studies/out/009/`, which `codesign report` opens too.

The space is the joint one that `codesign search` takes: hardware, and H and L of both layers, 20
parameters. All optimisers start from the paper's setting and the fastest dense design, and are
asked in batches of four. The hypervolume is that of `StudyResult.hypervolume`: beyond no speed,
twice the energy of dense and no image right. The best front known is that of all trials of all
runs. Own time is what a run takes beside its evaluations: asking, and storing every trial; what
random points take is the storing.

Answer, as printed on 2026-11-22 with `--images 25` on CIFAR-10 JPEGs, five seeds to 100 trials (two
seeds of NSGA-II to 400, one of GPSampler): shares of the best front known, median and range. `gp`
0.82 (0.64 to 0.88), TPE 0.53 (0.49 to 0.70), random 0.39 (0.30 to 0.49), NSGA-II 0.39 (0.27 to
0.50), Optuna's GPSampler 0.42. So `gp` finds 2.1x the hypervolume of random points and of NSGA-II
and 1.6x that of TPE, and more than each in all five seeds; it is short of the 0.95 aimed at, which
no single run reaches: the best front is that of all runs' trials together. NSGA-II at 400 has 0.67
in both seeds, which `gp` passes at 100 in four of five. A trial's own time was 0.46 s for `gp` and
7.5 s for GPSampler, an evaluation's 3.0 and 1.1 s, on a machine that did much else: of processor
time `gp` takes 0.06, 0.13 and 0.20 s a question after 10, 50 and 100 trials, GPSampler 4.2 s after
100. That is why `gp` is our own. It was tuned on this space, with seeds 0 and 1; seeds 2 to 4 had
no part in it. In the space of that day the largest layer always reused, and no dense design was
tried first; today both layers may run dense, and a run gives other numbers.
On problems whose front is known (`python -m tests.bench.optimisers --evaluations 100 --seeds 3`,
the same day), shares of the largest hypervolume for `gp`, TPE, NSGA-II and random: ZDT2 1.000,
0.888, 0.821, 0.750; DTLZ2 0.972, 0.817, 0.346, 0.433; Branin-Currin 0.991, 0.902, 0.578, 0.578.
Measured before for GPSampler: 0.914, 0.701, 0.979. BoTorch was not
compared: on the loaded machine its first question did not come in time.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, qualitative
from rich.console import Console
from rich.table import Table

from accelerators import preset
from codesign import (
    OBJECTIVES,
    DesignSpace,
    StudyResult,
    Trial,
    Workload,
    load_study,
    load_workload,
    search,
)
from codesign.evaluation.front import hypervolumes, non_dominated
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"
DEFAULT, LONG = "gp", "nsga2"
RIVALS = ("random", "nsga2", "tpe")
# Dearest first, so that no worker is left alone with one at the end.
OPTIMISERS = ("botorch", "nsga2", "gp", "gpsampler", "tpe", "sobol", "random")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search to be made.

    Attributes:
        optimiser: a key of `codesign.OPTIMISERS`.
        seed: of the search.
        trials: how many.
        inputs: as in `load_workload`, as are the next two.
        weights: of the model.
        images: how many to judge on.
        out: where all runs are.
    """

    optimiser: str
    seed: int
    trials: int
    inputs: str = "digits"
    weights: str | None = None
    images: int = 50
    out: Path = OUT / "009"

    @property
    def directory(self) -> Path:
        """Where it is kept."""
        return self.out / f"{self.optimiser}_{self.seed}"

    @property
    def clock(self) -> Path:
        """A line for each trial: number, seconds of its evaluation, seconds of all else.

        The last is left out where the search was just begun or gone on with: it calibrates first.
        """
        return self.directory / "seconds.csv"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a run found: its study, and own seconds after each trial that was timed."""

    run: Run
    result: StudyResult
    own_seconds: dict[int, float]


@cache
def workload(inputs: str, weights: str | None, images: int) -> Workload:
    """CifarNet on these images, once a process."""
    return load_workload(model="cifarnet", inputs=inputs, weights=weights, images=images)


def make(run: Run) -> Found:
    """Make a run, or go on with it, or read what it found."""
    begun = (run.directory / "study.journal").is_file()
    if not begun or len(load_study(run.directory).trials) < run.trials:
        last: float | None = None

        def note(trial: Trial, finished: int, trials: int) -> None:
            nonlocal last
            own = "" if last is None else f"{time.perf_counter() - last - trial.seconds:.4f}"
            with run.clock.open("a") as file:
                file.write(f"{trial.number},{trial.seconds:.4f},{own}\n")
            last = time.perf_counter()

        judged = workload(run.inputs, run.weights, run.images)
        search(
            judged,
            DesignSpace.for_workload(judged.trace, preset("reuse_16x16")),
            trials=run.trials,
            seed=run.seed,
            optimiser=run.optimiser,
            storage=run.directory,
            resume=begun,
            executor="inline",
            on_progress=note,
        )
    with run.clock.open(newline="") as file:
        own = {int(number): float(seconds) for number, _, seconds in csv.reader(file) if seconds}
    return Found(run=run, result=load_study(run.directory), own_seconds=own)


def best_hypervolume(found: Sequence[Found]) -> float:
    """That of the front of all trials of all runs."""
    result = found[0].result
    scale = np.array([1.0, result.baseline["energy_uj_per_image"], 1.0])
    points = [
        [trial.values[objective.name] for objective in OBJECTIVES]
        for each in found
        for trial in each.result.judged
        if trial.values
    ]
    reference = np.array([result.reference_point[objective.name] for objective in OBJECTIVES])
    directions = [objective.maximise for objective in OBJECTIVES]
    front = np.array(points)[non_dominated(np.array(points), directions)]
    return hypervolumes(front / scale, reference / scale, directions)[-1]


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Median, least and most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def at(found: Sequence[Found], optimiser: str, trials: int) -> dict[int, float]:
    """Seed -> hypervolume after so many trials, of the runs that have them."""
    return {
        each.run.seed: each.result.hypervolume[trials - 1]
        for each in found
        if each.run.optimiser == optimiser and len(each.result.hypervolume) >= trials
    }


def table_of(found: Sequence[Found], evaluations: int, best: float) -> Table:
    """A line for each optimiser: hypervolume, and seconds for a question."""
    table = Table(title=f"{found[0].result.name}: share of the best hypervolume known, {best:.4f}")
    for name in (
        "optimiser", "seeds", f"at {evaluations // 2}", f"at {evaluations}", "in the end",
        "own s a trial", "own s a trial, last 20", "evaluation s",
    ):  # fmt: skip
        table.add_column(name)
    for optimiser in dict.fromkeys(each.run.optimiser for each in found):
        runs = [each for each in found if each.run.optimiser == optimiser]
        shares = [
            [value / best for value in at(found, optimiser, trials).values()]
            for trials in (evaluations // 2, evaluations)
        ]
        last = [each.result.hypervolume[-1] / best for each in runs]
        longer = len(runs[0].result.trials)
        own = [
            [seconds for number, seconds in each.own_seconds.items() if low <= number < evaluations]
            for low in (0, evaluations - 20)
            for each in runs
        ]
        means = [statistics.fmean(seconds) for seconds in own if seconds]
        judged = [t.seconds for each in runs for t in each.result.trials if t.seconds]
        table.add_row(
            optimiser, str(len(runs)), *map(spread, shares),
            f"{longer}: {spread(last)}" if longer > evaluations else "",
            f"{statistics.median(means[: len(runs)]):.2f}",
            f"{statistics.median(means[len(runs) :]):.2f}",
            f"{statistics.fmean(judged):.2f}",
        )  # fmt: skip
    return table


def targets(found: Sequence[Found], evaluations: int, best: float) -> list[str]:
    """What was aimed at, and whether it was met."""
    own = at(found, DEFAULT, evaluations)
    if not own:
        return []
    middle = statistics.median(own.values())
    lines = []
    for rival in RIVALS:
        others = at(found, rival, evaluations)
        if others:
            won = sum(own[seed] > others[seed] for seed in own.keys() & others.keys())
            ratio = middle / statistics.median(others.values())
            lines.append(
                f"{DEFAULT} over {rival} at {evaluations}: median {ratio:.3f}x, better in {won} of "
                f"{len(own.keys() & others.keys())} seeds"
            )
    longest = max((len(e.result.trials) for e in found if e.run.optimiser == LONG), default=0)
    if longest > evaluations:
        there = at(found, LONG, longest)
        ratio = middle / statistics.median(there.values())
        lines.append(
            f"{DEFAULT} at {evaluations} over {LONG} at {longest} ({len(there)} seeds of it): "
            f"median {ratio:.3f}x"
        )
    lines.append(f"{DEFAULT} at {evaluations}: {middle / best:.3f} of the best front known")
    return lines


def draw(found: Sequence[Found], best: float) -> go.Figure:
    """Hypervolume over evaluations: median and range of the seeds."""
    figure = go.Figure()
    names = list(dict.fromkeys(each.run.optimiser for each in found))
    for name, colour in zip(names, qualitative.Plotly, strict=False):
        curves = [each.result.hypervolume for each in found if each.run.optimiser == name]
        shares = np.array([curve[: min(map(len, curves))] for curve in curves]) / best
        count = np.arange(1, shares.shape[1] + 1)
        figure.add_scatter(
            x=[*count, *count[::-1]], y=[*shares.max(axis=0), *shares.min(axis=0)[::-1]],
            fill="toself", fillcolor=f"rgba{(*hex_to_rgb(colour), 0.12)}", line_width=0,
            mode="lines", legendgroup=name, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=count, y=np.median(shares, axis=0), name=name, legendgroup=name,
            mode="lines", line_color=colour,
        )  # fmt: skip
    figure.update_layout(
        title=f"{found[0].result.name}: hypervolume found, median and range of the seeds",
        xaxis_title="evaluations",
        xaxis_type="log",
        yaxis_title="share of the hypervolume of the best front known",
        template="plotly_white",
    )
    return figure


def main() -> None:
    """Search, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", help="archive of CIFAR-10; scanned digits without it")
    parser.add_argument("--cifarnet", help="CifarNet's weights for it")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--long", type=int, default=400, help=f"evaluations of {LONG}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--optimisers", nargs="+", choices=OPTIMISERS, default=OPTIMISERS)
    parser.add_argument("--workers", type=int, default=2, help="searches at a time, a thread each")
    parser.add_argument("--out", type=Path, default=OUT / "009")
    given = parser.parse_args()
    runs = [
        Run(
            optimiser=optimiser,
            seed=seed,
            trials=given.long if optimiser == LONG else given.evaluations,
            inputs=f"cifar10:{given.cifar10}" if given.cifar10 else "digits",
            weights=given.cifarnet,
            images=given.images,
            out=given.out,
        )
        for optimiser in given.optimisers
        for seed in range(given.seeds)
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(given.workers) as pool:
        found = list(pool.map(make, runs))
    best = best_hypervolume(found)
    Console(width=170).print(table_of(found, given.evaluations, best))
    print("\n".join(targets(found, given.evaluations, best)))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    path = given.out.with_name("009_which_optimiser.html")
    write_atomically(path, draw(found, best).to_html(include_plotlyjs=True))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
