"""A network and a design space so small that a whole search takes a second."""

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from accelerators import preset
from codesign import DesignSpace, StudyResult, Workload, search
from workloads import capture

IMAGES = 6
TRIALS = 14  # in batches of four; the Gaussian process takes over at the twelfth
# What stays to be chosen; everything else is as in the base design.
KEPT = ("array.columns", "cache.entries", "first.reuse", "first.hashes", "second.hashes")


class SmallNetwork(nn.Module):
    """Two convolutions and a linear layer on `(n, 3, 12, 12)` images."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.second = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.answers = nn.Linear(16 * 6 * 6, 5)

    def forward(self, images):
        x = nn.functional.max_pool2d(torch.relu(self.first(images)), 2)
        return self.answers(torch.relu(self.second(x)).flatten(1))


class SmallSegmenter(nn.Module):
    """Two convolutions that give every pixel of `(n, 3, 12, 12)` images one of five classes."""

    class_names = ("sky", "road", "car")  # the last two have no name

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.second = nn.Conv2d(8, 5, kernel_size=3, padding=1)

    def forward(self, images):
        return self.second(torch.relu(self.first(images)))


def small_workload(model: nn.Module | None = None, *, labels: bool = True) -> Workload:
    """Noise on `SmallNetwork`; the labels are what it answers, but for the last image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model or SmallNetwork().eval()
        images = torch.randn(2 * IMAGES, 3, 12, 12)
    judged, others = images[:IMAGES], images[IMAGES:]
    with torch.no_grad():
        answers = model(judged).argmax(dim=1)
    answers[-1] = (answers[-1] + 1) % 5
    return Workload(
        trace=capture(model, judged, labels=answers if labels else None, source="noise"),
        model=model,
        calibration=capture(model, others, source="other noise"),
        name=f"SmallNetwork on {IMAGES} images of noise",
    )


def small_space(workload: Workload) -> DesignSpace:
    """The space around `reuse_16x16` with most choices taken away."""
    space = DesignSpace.for_workload(workload.trace, preset("reuse_16x16"))
    start = next(iter(space.start.values()))
    return replace(
        space,
        start={"start": start},
        parameters=tuple(
            p if p.name in KEPT else replace(p, choices=(start[p.name],)) for p in space.parameters
        ),
    )


def small_search(storage: Path, workload: Workload | None = None, **settings) -> StudyResult:
    """The search that several tests run in different ways."""
    workload = workload or small_workload()
    settings = {"trials": TRIALS, "executor": "inline", **settings}
    return search(workload, small_space(workload), storage=storage, **settings)


def table(result: StudyResult) -> list[tuple]:
    """Everything about the trials but how long they took."""
    return [
        (t.number, t.state, t.origin, t.parameters, t.values, t.summary, t.reason, t.repeat_of)
        for t in result.trials
    ]


def main() -> None:
    """Run the search on Ray as a process of its own; a line on standard output for each trial.

    Arguments: the study's directory, after how many trials to wait for a line of input, and
    `interrupt` to get a Ctrl-C a moment after that line, while the search goes on.
    """

    # What a shell runs in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def report(trial, finished, trials):
        print(trial.number, flush=True)
        if finished == int(sys.argv[2]):
            sys.stdin.readline()
            if sys.argv[3:] == ["interrupt"]:
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    small_search(Path(sys.argv[1]), executor="ray", workers=2, on_progress=report)


if __name__ == "__main__":
    main()
