"""CifarNet and its inputs, batch by batch, for the studies of Deep Reuse's figures."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch

from codesign import load_workload
from workloads import WorkloadTrace, capture
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, kw_only=True)
class Batches:
    """A model, a trace of each batch, and one of other images to calibrate on."""

    model: torch.nn.Module
    traces: list[WorkloadTrace]
    calibration: WorkloadTrace
    name: str


def options(question: str, *, batches: int, batch: int) -> ArgumentParser:
    """Options that both studies take."""
    parser = ArgumentParser(description=question)
    parser.add_argument("--cifar10", help="archive of CIFAR-10; scanned digits without it")
    parser.add_argument("--cifarnet", help="CifarNet's weights for it")
    parser.add_argument("--batches", type=int, default=batches)
    parser.add_argument("--batch", type=int, default=batch, help="images of a batch")
    parser.add_argument("--calibration", type=int, default=50, help="images to take means from")
    return parser


def load(chosen: Namespace) -> Batches:
    """Trained CifarNet on as many batches as asked for."""
    workload = load_workload(
        model="cifarnet",
        inputs=f"cifar10:{chosen.cifar10}" if chosen.cifar10 else "digits",
        weights=chosen.cifarnet,
        images=chosen.batches * chosen.batch,
        calibration_images=chosen.calibration,
    )
    model, trace = workload.model, workload.trace
    assert model is not None and trace.inputs is not None and trace.labels is not None
    assert workload.calibration is not None
    images, labels = (
        torch.tensor(each).split(chosen.batch) for each in (trace.inputs[0], trace.labels)
    )
    return Batches(
        model=model,
        traces=[capture(model, x, labels=y) for x, y in zip(images, labels, strict=True)],
        calibration=workload.calibration,
        name=workload.name,
    )


def write(figure: go.Figure, name: str) -> None:
    """Write a study's figure beside the others."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.html"
    figure.update_layout(template="plotly_white")
    write_atomically(path, figure.to_html(include_plotlyjs=True))
    print(f"wrote {path}")
