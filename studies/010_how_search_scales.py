"""How many trials a second does a search make with more workers, and what bounds it?

Run it with `python studies/010_how_search_scales.py`; it takes seven minutes on two busy cores,
prints three tables and writes a figure to `studies/out/`. On busy cores the processor-bound rows
measure the others' work too: the load is printed with them.

The search is the real one, with its default optimiser, store and Ray. Three kinds of evaluation:
`waiting`, a small network that sleeps two seconds in each, as if the work were done elsewhere;
`CifarNet, 100 images` and `CifarNet, 10 images`, which take a core for all of their time. Rates
leave out the start of Ray and of the workers: they begin when the first batch is told.

What bounds a search is its driver, which asks, submits and stores one trial after the other. The
model: a batch takes the first question, and then the longer of the other questions (with storing
and submitting) and the evaluations, `ceil(batch / workers)` of them one after the other.

Answer, as printed on 2026-11-22, on two cores under a load of 5 to 11: with evaluations that wait
two seconds, two workers make 1.90x one worker's trials a second with the default optimiser (0.40
and 0.77 a second; the model says 0.39 and 0.72) and 1.73x with random points. Evaluations that take
the processor, of CifarNet on 100 images (1.0 s) and on 10 (0.4 s), made 1.74x and 1.79x. A question
takes 0.06 to 0.08 s of processor time with 12 to 40 trials known, storing a trial 18 ms, a task 4
ms, and the workload (8 MB) goes to the object store once, in 14 ms. So questions bound a search of
many workers. Projected, not measured: at most 10 trials a second, which 64 workers reach with
evaluations of 2 s (2.1 a second at 30 s, all workers busy) and 1,024 with those of 30 s (3.4 a
second at 300 s).
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from optuna.trial import FrozenTrial, TrialState, create_trial
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table
from torch import nn

from accelerators import preset
from codesign import OBJECTIVES, DesignSpace, Workload, load_workload, search
from codesign.evaluation.evaluator import Evaluation, Evaluator
from codesign.optimisers.optimiser import Problem
from codesign.optimisers.quiet import quiet_optuna
from codesign.optimisers.registry import ask
from codesign.study.records import Records
from codesign.study.runner import RayRunner
from codesign.study.store import SPECIFICATION, open_study, read_study, study_place
from workloads import capture, models
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"
WAIT_SECONDS = 1.0  # an evaluation asks the model twice: does it answer as captured, and how now
BATCH = 4
WORKERS = tuple(2**power for power in range(11))
SHOWN = (1, 2, 64, 1024)
KNOWN = (12, 40)  # trials that the optimiser knows when it is asked
BASE = preset("reuse_16x16")


class Waiting(nn.Module):
    """Two convolutions and a linear layer; an answer takes a second, and no processor.

    With two layers hardly two trials have the same reuse: workers would answer from what they keep.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.second = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.answer = nn.Linear(8 * 64, 5)

    def forward(self, images):
        time.sleep(WAIT_SECONDS)
        return self.answer(torch.relu(self.second(torch.relu(self.first(images)))).flatten(1))


def waiting_workload() -> Workload:
    """`Waiting` on noise; loaded as a user's file is, so that the workers get its class."""
    torch.manual_seed(0)
    model = models.load(f"{Path(__file__)}:Waiting")
    trace = capture(model, torch.randn(4, 3, 8, 8), source="noise")
    return Workload(trace=trace, model=model, name="a network that waits")


def space_of(workload: Workload) -> DesignSpace:
    return DesignSpace.for_workload(workload.trace, BASE)


def throughput(
    workload: Workload, optimiser: str, workers: int, trials: int, seed: int
) -> tuple[float, float]:
    """Trials a second after the first batch, and the mean seconds of an evaluation."""
    told: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        result = search(
            workload, space_of(workload), trials=trials, batch=BATCH, workers=workers,
            optimiser=optimiser, seed=seed, storage=directory,
            on_progress=lambda *_: told.append(time.perf_counter()),
        )  # fmt: skip
    rate = (trials - BATCH) / (told[-1] - told[BATCH - 1])
    return rate, statistics.mean(trial.seconds for trial in result.trials[BATCH:])


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Seconds of the driver.

    Attributes:
        question: trials known -> the default optimiser's time for the next, median of three.
        processor: the same as processor time, which others on the machine do not stretch.
        store: of the lines that ask for a trial and tell it, each flushed to disk.
        trip: of a task that does nothing and gives back a trial's summary.
        put: of the workload into the object store, once a search.
        megabytes: that it has there.
    """

    question: dict[int, float]
    processor: dict[int, float]
    store: float
    trip: float
    put: float
    megabytes: float

    def rate(self, batch: int, workers: int, evaluation: float, question: float) -> float:
        """The model's trials a second, of batches, for evaluations and questions so long."""
        of_trial = question + self.store + self.trip
        evaluations = of_trial + math.ceil(batch / workers) * evaluation
        return batch / max(batch * of_trial, evaluations)


def measure_driver(workload: Workload, tasks: int = 1000) -> Driver:
    """Take the parts of a search one by one, on trials of a random search."""
    evaluator = Evaluator.of(workload, space_of(workload))
    with tempfile.TemporaryDirectory() as directory:
        search(
            workload, evaluator.space, trials=max(KNOWN), storage=directory, optimiser="random",
            executor="inline",
        )  # fmt: skip
        study = read_study(study_place(directory))
        trials = study.get_trials()
        store = store_seconds(study.user_attrs[SPECIFICATION], evaluator, trials)
        complete = next(trial for trial in trials if trial.state == TrialState.COMPLETE)
        outcome = Records(
            study=study, place=study_place(directory), space=evaluator.space,
            objectives=evaluator.objectives,
        ).measured(complete)  # fmt: skip
    problem = Problem(
        distributions=evaluator.space.distributions,
        maximise=tuple(objective.maximise for objective in OBJECTIVES),
        reference_point=(1.0, evaluator.baseline["energy_uj_per_image"], 0.0),
    )
    question, processor = {}, {}
    for known in KNOWN:
        took = []
        for seed in range(3):
            start = time.perf_counter(), time.process_time()
            with quiet_optuna():
                ask("gp", problem, trials[:known], seed=seed)
            took.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        question[known], processor[known] = map(statistics.median, zip(*took, strict=True))
    runner = RayRunner(Nothing(outcome), workers=2)
    list(runner.run((number, {}) for number in range(20)))  # the workers start
    trip = seconds(lambda: list(runner.run((n, {}) for n in range(tasks)))) / tasks
    put = seconds(ray.put, evaluator)
    megabytes = len(ray.cloudpickle.dumps(evaluator)) / 1e6
    runner.close()
    return Driver(
        question=question, processor=processor, store=store, trip=trip, put=put, megabytes=megabytes
    )


class Nothing:
    """Stands for an evaluator: its answer is given."""

    model = None

    def __init__(self, outcome: Evaluation) -> None:
        self._outcome = outcome

    def __call__(self, job) -> Evaluation:
        return self._outcome


def store_seconds(specification, evaluator: Evaluator, trials: Sequence[FrozenTrial]) -> float:
    """Of asking for these trials and telling them once more, each."""
    with tempfile.TemporaryDirectory() as directory:
        place = study_place(directory)
        with open_study(place, specification, resume=False) as study:
            records = Records(
                study=study, place=place, space=evaluator.space,
                objectives=evaluator.objectives, baseline=evaluator.baseline,
            )  # fmt: skip

            start = time.perf_counter()
            for number, trial in enumerate(trials):
                asked = create_trial(
                    state=TrialState.RUNNING, params=trial.params,
                    distributions=trial.distributions, user_attrs={"origin": "sampler"},
                )  # fmt: skip
                study.add_trial(asked)
                records.tell(number, records.measured(trial), None)
            return (time.perf_counter() - start) / len(trials)


def seconds(work, *arguments, **settings) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work(*arguments, **settings)
    return time.perf_counter() - start


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers with three figures."""
    made = Table(*columns, title=title)
    for row in rows:
        made.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=120).print(made)


def main() -> None:
    """Measure, print, plot."""
    hundred, ten = (
        load_workload(model="cifarnet", inputs="digits", images=images) for images in (100, 10)
    )
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    driver = measure_driver(ten)
    show("The driver's seconds", ("what", "seconds"), [
        *((f"question with {known} trials known", driver.question[known]) for known in KNOWN),
        *((f"of it on a processor, {known} known", driver.processor[known]) for known in KNOWN),
        ("ask for a trial and tell it in the store", driver.store),
        ("task there and back", driver.trip),
        (f"put the workload, {driver.megabytes:.2f} MB, once a search", driver.put),
    ])  # fmt: skip
    rates: dict[tuple[str, int], float] = {}
    rows = []
    waiting = waiting_workload()
    for name, workload, optimiser, trials in (
        ("waiting 2 s", waiting, "random", 16),
        ("waiting 2 s", waiting, "gp", 16),
        ("CifarNet, 100 images", hundred, "gp", 12),
        ("CifarNet, 10 images", ten, "gp", 16),
    ):
        for workers in (1, 2):
            load = os.getloadavg()[0]
            # Another seed for each search: workers keep the decisions of those before.
            rate, evaluation = throughput(workload, optimiser, workers, trials, len(rows))
            rates[f"{name}, {optimiser}", workers] = rate
            question = driver.question[KNOWN[0]] if optimiser == "gp" else 0.0
            model = driver.rate(BATCH, workers, evaluation, question)
            gain = rate / rates[f"{name}, {optimiser}", 1]
            rows.append((name, optimiser, workers, evaluation, rate, gain, model, load))
    columns = (
        "evaluation", "optimiser", "workers", "its seconds", "trials/s", "x 1 worker", "model",
        "load",
    )  # fmt: skip
    show(f"Measured, batches of {BATCH}, {os.cpu_count()} cores", columns, rows)
    projected = {
        length: [
            driver.rate(max(BATCH, workers), workers, length, driver.processor[KNOWN[-1]])
            for workers in WORKERS
        ]
        for length in (2.0, 30.0, 300.0)
    }
    show(
        "Projected by the model, not measured: trials/s, batches as large as there are workers",
        ("an evaluation takes", *(f"{workers} workers" for workers in SHOWN)),
        [
            (f"{length:g} s", *(found[WORKERS.index(workers)] for workers in SHOWN))
            for length, found in projected.items()
        ],
    )
    print(f"wrote {plot(rates, projected)}")


def plot(rates, projected) -> Path:
    """Measured rates beside the projection."""
    figure = make_subplots(
        cols=2, subplot_titles=("measured", "projected by the model, batch = workers")
    )
    names = list(dict.fromkeys(name for name, _ in rates))
    for workers in (1, 2):
        found = [rates[name, workers] for name in names]
        figure.add_bar(
            x=names, y=found, name=f"{workers} worker{'s' * (workers > 1)}",
            text=[f"{rate:.2f}" for rate in found], row=1, col=1,
        )  # fmt: skip
    for length, found in projected.items():
        figure.add_scatter(x=WORKERS, y=found, name=f"evaluation of {length:g} s", row=1, col=2)
    figure.update_yaxes(title_text="trials per second", row=1, col=1)
    figure.update_xaxes(type="log", title_text="workers", row=1, col=2)
    figure.update_yaxes(type="log", title_text="trials per second", row=1, col=2)
    figure.update_layout(template="plotly_white", title="Throughput of a search")
    OUT.mkdir(exist_ok=True)
    path = OUT / "010_how_search_scales.html"
    write_atomically(path, figure.to_html(include_plotlyjs=True))
    return path


if __name__ == "__main__":
    main()
