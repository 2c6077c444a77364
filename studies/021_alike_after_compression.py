"""Does quantisation make values more alike, and does pruning take what reuse lives on?

Run it with `python studies/021_alike_after_compression.py`, with `--camvid FOLDER` of consecutive
frames and `--cifar10 ARCHIVE` for networks with labels; it prints a table and writes a figure to
`studies/out/`.

The survey of data redundancy asks it last (Chen et al., section 7). Each network stands dense in
floating point, in 8 bits, with 20 and 35 % of each layer's smallest weights set to 0, and with 35 %
in 8 bits; nothing is trained again. What is alike is counted under three techniques at one setting
each, the same for all variants: leaders (distances relative to a vector's length), unchanged
positions (the threshold is one 8-bit step of each layer's inputs, so that it means the same in
both precisions), and weight repetition (what UCNN multiplies). Agreement is with the same variant
run dense, so that it tells what the technique costs and not what the compression does.

Answer, as printed on 2026-11-28 with `--images 16` and both data sets: 8 bits make values equal and
rows no more alike. On street frames the inputs that equal the frame before's rise from 34.0 to 38.7
%, and a filter's distinct weights fall from all of them to 45 % (24 % in CifarNet; VGG-16's weights
come on 8-bit grids, 7 %), so what counts equal values, differences and weight repetition, gains.
Leaders leave 0.466 of the work in either precision at the same agreement (0.891 and 0.892), and
positions unchanged within a step 0.996: a moving camera leaves none. Pruning does not take what
leaders live on: with 20 % of the weights gone they leave 0.472 (agreement 0.923), with 35 % 0.425,
where the network itself has lost 7.5 points of mean IoU; VGG-16 0.826, 0.826 and 0.822. Pruning
does leave fewer distinct weights, as many as it takes. 16 images cannot tell a few points of
agreement.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from rich.console import Console
from rich.table import Table

from codesign import load_workload
from codesign.evaluation.threads import single_thread
from simulator import ChangedPositions, LeaderReuse, PerLayer, ReusePolicy, decide
from workloads import WorkloadTrace, capture
from workloads.compressing.pruning import prune
from workloads.compressing.quantising import quantise
from workloads.traces.layer import Layer
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"
TOLERANCE = 0.2
LENGTH = 64
STEPS = 256
PRUNED = (0.2, 0.35)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One variant of a network.

    Attributes:
        network, variant: in words.
        own: score of the variant by labels, or its agreement with the network in float.
        equal_values: of a layer's inputs, those equal to that of the image before in every bit,
            weighted by multiplications; `None` where images are no frames.
        zero_inputs: of the inputs, those that are 0, likewise weighted.
        leaders: of the multiplications, those left; and the agreement with the variant run dense.
        unchanged: likewise; `None` where images are no frames.
        weights: of a filter's weights, distinct values other than 0 over all, by multiplications.
    """

    network: str
    variant: str
    own: float
    equal_values: float | None
    zero_inputs: float
    leaders: tuple[float, float]
    unchanged: tuple[float, float] | None
    weights: float


def variants(
    model: torch.nn.Module, calibration: torch.Tensor
) -> Iterator[tuple[str, torch.nn.Module]]:
    """What a network may be run as."""
    yield "float32", model
    yield "int8", quantise(model, calibration)
    for fraction in PRUNED:
        yield f"{fraction:.0%} pruned", prune(model, fraction)
    yield f"{PRUNED[-1]:.0%} pruned, int8", quantise(prune(model, PRUNED[-1]), calibration)


def _fitting(layers: tuple[Layer, ...], of: Mapping[str, ReusePolicy]) -> PerLayer:
    return PerLayer({layer.name: of[layer.name] for layer in layers if layer.name in of})


def leaders(trace: WorkloadTrace) -> PerLayer:
    """Leaders in blocks of a convolution's positions, in all layers but the first."""
    found: dict[str, ReusePolicy] = {
        layer.name: LeaderReuse(
            tolerance=TOLERANCE,
            length=min(LENGTH, layer.gemm.k),
            scope="tile",
            tile_rows=256,
            tile_shape="block",
            look_once=True,
            order="channels_last",
        )
        for layer in trace.layers[1:]
        if layer.convolution is not None and layer.convolution.groups == 1
    }
    return _fitting(trace.layers, found)


def unchanged(trace: WorkloadTrace) -> PerLayer:
    """Positions whose inputs moved by no more than one 8-bit step."""
    found: dict[str, ReusePolicy] = {}
    for layer in trace.layers:
        given = trace.given(layer.name)
        if layer.quantisation is not None:
            step = layer.quantisation.scale
        else:
            step = float(given.max() - given.min()) / (STEPS - 1)
        found[layer.name] = ChangedPositions(threshold=step)
    return _fitting(trace.layers, found)


def measured(
    name: str,
    variant: str,
    model: torch.nn.Module,
    trace: WorkloadTrace,
    reference: WorkloadTrace,
    *,
    frames: bool,
) -> Measured:
    """All that is counted of a variant."""
    macs = np.array([layer.gemm.macs for layer in trace.layers], float)

    def weighted(values: list[float]) -> float:
        return float(np.array(values) @ macs / macs.sum())

    equal, zeros, distinct = [], [], []
    for layer in trace.layers:
        given = trace.given(layer.name)
        zeros.append(float(np.mean(given == 0)))
        per_image = given.reshape(trace.images, -1)
        equal.append(float(np.mean(per_image[1:] == per_image[:-1])) if frames else 0.0)
        columns = trace.weights(layer.name).transpose(0, 2, 1).reshape(-1, layer.gemm.k)
        counts = [np.unique(column[column != 0]).size for column in columns]
        distinct.append(float(np.mean(counts)) / layer.gemm.k)
    runs = [leaders(trace)] + ([unchanged(trace)] if frames else [])
    left = []
    for policy in runs:
        run = decide(trace, policy, model=model, layer_errors=False)
        done = sum(
            layer.gemm.macs if made is None else made.macs
            for layer in trace.layers
            for made in (run.decisions[layer.name],)
        )
        assert run.agreement is not None
        left.append((done / macs.sum(), run.agreement))
        own = run.dense_accuracy
    return Measured(
        network=name,
        variant=variant,
        own=agreement_of(trace, reference) if own is None else own,
        equal_values=weighted(equal) if frames else None,
        zero_inputs=weighted(zeros),
        leaders=left[0],
        unchanged=left[1] if frames else None,
        weights=weighted(distinct),
    )


def agreement_of(trace: WorkloadTrace, reference: WorkloadTrace) -> float:
    """Of the answers, those that are the reference's."""
    assert trace.outputs is not None and reference.outputs is not None
    answers = [np.asarray(each.outputs) for each in (trace, reference)]
    return float(np.mean(answers[0].argmax(1) == answers[1].argmax(1)))


def rows_of(name: str, model: str, inputs: str, images: int, *, frames: bool) -> list[Measured]:
    """A line for each variant of a network."""
    workload = load_workload(model=model, inputs=inputs, images=images, calibration_images=4)
    assert workload.model is not None and workload.calibration is not None
    trace = workload.trace
    assert trace.inputs is not None and workload.calibration.inputs is not None
    images_of = torch.tensor(np.asarray(trace.inputs[0]))
    calibration = torch.tensor(np.asarray(workload.calibration.inputs[0]))
    found = []
    for variant, network in variants(workload.model, calibration):
        own = capture(network, images_of, labels=trace.labels, score=trace.score)
        found.append(measured(name, variant, network, own, trace, frames=frames))
    return found


def main() -> None:
    """Print the table and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camvid", type=Path, help="CamVid folder of consecutive frames, 15 Hz")
    parser.add_argument("--cifar10", type=Path, help="CIFAR-10 archive")
    parser.add_argument("--images", type=int, default=8, help="of each network")
    given = parser.parse_args()
    small = "bikes" if given.camvid is None else f"camvid:{given.camvid}"
    asked = [("small ResNet-18, street", "resnet18_camvid", small, True)]
    asked.append(("CifarNet, digits", "cifarnet", "digits", False))
    if given.cifar10 is not None:
        asked.append(("VGG-16, CIFAR-10", "vgg16_cifar10", f"cifar10:{given.cifar10}", False))
    found = []
    with single_thread():
        for name, model, inputs, frames in asked:
            found += rows_of(name, model, inputs, given.images, frames=frames)
    _print(found)
    _draw(found)


def _print(found: list[Measured]) -> None:
    table = Table(title="What is alike, before and after compression (parts of 1)")
    for heading in (
        "network", "variant", "score or agreement with float32", "inputs equal to the frame before",
        "inputs that are 0", "left by leaders", "agreement", "left by changes", "agreement",
        "distinct weights of a filter",
    ):  # fmt: skip
        table.add_column(heading)
    for each in found:
        changes = each.unchanged or (None, None)
        values = (
            each.own, each.equal_values, each.zero_inputs, *each.leaders, *changes, each.weights
        )  # fmt: skip
        table.add_row(
            each.network,
            each.variant,
            *("-" if value is None else f"{value:.3f}" for value in values),
        )
    Console(width=180).print(table)


def _draw(found: list[Measured]) -> None:
    figure = go.Figure()
    for name in dict.fromkeys(each.network for each in found):
        own = [each for each in found if each.network == name]
        figure.add_bar(
            name=f"{name}: left by leaders",
            x=[e.variant for e in own],
            y=[e.leaders[0] for e in own],
        )
        figure.add_bar(
            name=f"{name}: distinct weights",
            x=[e.variant for e in own],
            y=[e.weights for e in own],
        )
    figure.update_layout(
        barmode="group", yaxis_title="part of the dense work, or of a filter's weights"
    )
    path = OUT / "021_alike_after_compression.html"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, figure.to_html(include_plotlyjs=True))


if __name__ == "__main__":
    main()
