"""What the studies of Deep Reuse's tables share: its published figures, its formulas, inputs.

The paper is L. Ning and X. Shen, "Similarities in Neuron Vectors and The Implications to CNN
Inferences"; its tables are kept in `studies/data/`.
"""

import argparse
import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

from codesign import Workload, load_workload
from simulator import LshReuse, PerLayer, ReusePolicy, ReuseRun, decide
from workloads import Layer
from workloads.writing import write_atomically

DATA = Path(__file__).parent / "data"
OUT = Path(__file__).parent / "out"

# The paper's hashes: Gaussian hyperplanes, on rows as TensorFlow unfolds them, (kh, kw, c).
AS_PAPER = {"projection": "int8", "order": "channels_last"}
# Each changes one thing. "Lengths kept": a cluster shares a direction and each member keeps its
# own length, as the paper's angular distance, between normalised vectors, suggests.
HASHINGS = {
    "plain": {"thresholds": "zero"},
    "centred": {"thresholds": "mean"},
    "spread": {"thresholds": "spread"},
    "plain, lengths kept": {"thresholds": "zero", "normalised": True},
    "centred, lengths kept": {"thresholds": "mean", "normalised": True},
}

# Output positions of each convolution, on images of 32x32 for CifarNet and 224x224 else. AlexNet's
# are those of TF-slim, the paper's framework (`alexnet_v2`: no padding in conv1 and the pools).
POSITIONS = {
    "cifarnet": (32**2, 16**2),
    "alexnet": (54**2, 26**2, 12**2, 12**2, 12**2),
    "vgg19": (224**2,) * 2 + (112**2,) * 2 + (56**2,) * 4 + (28**2,) * 4 + (14**2,) * 4,
}


@dataclass(frozen=True, kw_only=True)
class PaperLayer:
    """One row of Table II: LSH's H, L and r_c, the hyper-cubes' L and r_c, measured speed-ups."""

    network: str
    layer: str
    k: int
    m: int
    hypercube_length: int
    hypercube_r_c: float
    hypercube_speedup: float
    hashes: int
    length: int
    r_c: float
    speedup: float
    cluster_reuse_speedup: float

    @property
    def remaining(self) -> float:
        """The fraction of operations that the paper's own r_c leaves."""
        return remaining_operations(
            hashes=self.hashes, length=self.length, outputs=self.m, r_c=self.r_c
        )


def published(name: str) -> list[dict[str, str]]:
    """The rows of a published table."""
    lines = (DATA / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def table_2(network: str) -> tuple[PaperLayer, ...]:
    """The layers of one network, in order."""
    return tuple(
        PaperLayer(
            network=network,
            layer=row["layer"],
            k=int(row["K"]),
            m=int(row["M"]),
            hypercube_length=int(row["hypercube_L"]),
            hypercube_r_c=float(row["hypercube_rc"]),
            hypercube_speedup=float(row["hypercube_speedup"]),
            hashes=int(row["lsh_H"]),
            length=int(row["lsh_L"]),
            r_c=float(row["lsh_rc"]),
            speedup=float(row["lsh_speedup"]),
            cluster_reuse_speedup=float(row["cluster_reuse_speedup"]),
        )
        for row in published("deep_reuse_table_2.csv")
        if row["network"] == network
    )


def published_value(table: str, network: str, row: str, metric: str) -> float:
    """One figure of Tables III to V."""
    found = [
        float(each["value"])
        for each in published("deep_reuse_tables_3_4_5.csv")
        if (each["table"], each["network"], each["row"], each["metric"])
        == (table, network, row, metric)
    ]
    (value,) = found
    return value


def remaining_operations(*, hashes: int, length: int, outputs: int, r_c: float) -> float:
    """H/M + r_c + 1/L: hashing, multiplying, adding, over N K M (Deep Reuse, V-A)."""
    return hashes / outputs + r_c + 1 / length


def weighted_savings(parts: Iterable[tuple[float, float]]) -> float:
    """Dense over remaining operations, of layers given as (MACs, remaining fraction)."""
    known = list(parts)
    return sum(macs for macs, _ in known) / sum(macs * remaining for macs, remaining in known)


def run_savings(
    layers: Iterable[Layer],
    run: ReuseRun,
    policies: Mapping[str, LshReuse],
    *,
    whole_network: bool = False,
) -> float:
    """MAC-weighted savings of the layers under `policies`; or of all, the others dense."""
    parts = []
    for layer in layers:
        made, policy = run.decisions[layer.name], policies.get(layer.name)
        if made is None or policy is None:
            parts += [(layer.gemm.macs, 1.0)] * whole_network
            continue
        remaining = remaining_operations(
            hashes=policy.hashes,
            length=made.shared.sub_vector_length,
            outputs=layer.gemm.n,
            r_c=made.remaining_ratio,
        )
        parts.append((layer.gemm.macs, remaining))
    return weighted_savings(parts)


def paper_policies(network: str, names: Iterable[str], **how: object) -> dict[str, LshReuse]:
    """The paper's (H, L) of each layer, hashed `how`, by the layers' names in order."""
    return {
        name: LshReuse(hashes=layer.hashes, length=layer.length, **{**AS_PAPER, **how})
        for name, layer in zip(names, table_2(network), strict=True)
    }


def decided(workload: Workload, policies: Mapping[str, ReusePolicy]) -> ReuseRun:
    """The model run under these policies; other layers run dense."""
    return decide(
        workload.trace,
        PerLayer(policies),
        model=workload.model,
        calibration=workload.calibration,
    )


def options(doc: str) -> argparse.ArgumentParser:
    """The command line of a study: the weights and images that it can't get itself."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--cifar10", metavar="ARCHIVE", help="CIFAR-10 images instead of digits")
    parser.add_argument("--cifarnet", metavar="WEIGHTS", help="CifarNet's, trained on CIFAR-10")
    parser.add_argument("--images", type=int, default=200, help="to judge on")
    return parser


def cifarnet(args: argparse.Namespace) -> Workload:
    """CifarNet on CIFAR-10, or trained here on scanned digits."""
    return load_workload(
        model="cifarnet",
        inputs=f"cifar10:{args.cifar10}" if args.cifar10 else "digits",
        weights=args.cifarnet if args.cifar10 else None,
        images=args.images,
        calibration_images=100,
    )


def resnet(name: str, weights: str, archive: str, images: int) -> Workload:
    """A ResNet of CIFAR-10 with real weights."""
    return load_workload(
        model=name,
        inputs=f"cifar10:{archive}",
        weights=weights,
        images=images,
        calibration_images=100,
    )


def show(title: str, rows: list[dict[str, object]]) -> None:
    """Print rows as a table; floats have been written as they shall be read."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=150).print(table)


def points(lost: float | None) -> str:
    """A loss of accuracy (or of agreement with the dense model) in percentage points."""
    return "unknown" if lost is None else f"{100 * lost:+.1f}"


def lost_quality(run: ReuseRun) -> float | None:
    """Lost accuracy; without labels, the share of images whose answer changed."""
    if run.accuracy is not None and run.dense_accuracy is not None:
        return run.dense_accuracy - run.accuracy
    return None if run.agreement is None else 1 - run.agreement


def write_figure(figure: go.Figure, name: str) -> None:
    """Keep a figure in `studies/out/`."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.html"
    write_atomically(path, figure.to_html(include_plotlyjs=True))
    print(f"wrote {path}")
