"""Deep Reuse's Table V: does reuse still save on a compressed network?

Run it with `python studies/005_deep_reuse_table_5.py [--cifar10 ARCHIVE --cifarnet WEIGHTS]
[--alexnet WEIGHTS]`.

By default CifarNet is trained on scanned digits; AlexNet runs with weights given by path only.
It takes about a minute.

Answer, as printed on 2026-11-22 with `--cifar10` (200 JPEG test images) and `--cifarnet` (0.682 on
all 10,000 of them): compression changes nothing of r_c (0.0044 for 0.0043, the others the same to
four places), so nothing of the savings either, 2.28x and 3.71x to 3.85x for one layer and 3.4x to
3.5x for both. The compressed network is as accurate dense (0.655) and less tolerant: with both
layers reused centred it loses 14.5 points where the other loses 12.0, and conv2 alone 6.5 where
the other loses none; plain hashing loses 40 in both (the paper: none; study 002 says why).
Reuse and pruning save the same multiplications twice: against hardware that skips the zeros, which
hashing and adding up do not become cheaper by, conv2 saves 1.45x in place of 3.71x. The paper's
Table V is above the times of its Table II in every layer, and in conv2 to conv4 within 2 % of the
operations that Table II's r_c leave (3.29, 3.64, 3.45 for 3.25, 3.67, 3.42). It does not say what
the compressed network was timed against; these are figures of a dense one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import torch
from paper_tables import (
    HASHINGS,
    cifarnet,
    decided,
    lost_quality,
    options,
    paper_policies,
    points,
    published_value,
    remaining_operations,
    run_savings,
    show,
    table_2,
    write_figure,
)

from codesign import Workload, load_workload
from simulator import LshReuse
from workloads import WorkloadTrace, capture, prune, quantise

# Weights set to 0 in AlexNet's layers by Deep Compression (Han, Mao and Dally, ICLR 2016, table 4).
ALEXNET_ZEROS = {
    "features.0": 0.16,
    "features.3": 0.62,
    "features.6": 0.65,
    "features.8": 0.63,
    "features.10": 0.63,
    "classifier.1": 0.91,
    "classifier.4": 0.91,
    "classifier.6": 0.75,
}
# The same of CifarNet's first, second and linear layers, less in the linear ones: nothing is
# trained again here.
CIFARNET_ZEROS = {"conv1": 0.16, "conv2": 0.62, "fc*": 0.75}


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A network as it was, and pruned and quantised, on the same inputs."""

    plain: Workload
    pruned: Workload
    zeros: Mapping[str, float]


def compressed(workload: Workload, zeros: Mapping[str, float]) -> Compressed:
    """Prune, quantise with ranges from the calibration images, and capture again."""
    assert workload.model is not None
    assert workload.calibration is not None
    learned = _images(workload.calibration)
    small = quantise(prune(workload.model, zeros), learned)
    trace = workload.trace
    return Compressed(
        plain=workload,
        pruned=Workload(
            trace=capture(small, _images(trace), labels=trace.labels),
            model=small,
            calibration=capture(small, learned),
            name=f"{workload.name}, pruned, 8 bits",
        ),
        zeros=zeros,
    )


def _images(trace: WorkloadTrace) -> torch.Tensor:
    assert trace.inputs is not None
    return torch.from_numpy(np.array(trace.inputs[0]))


def layers_alone(
    pair: Compressed, network: str, names: list[str], scope: str
) -> list[dict[str, object]]:
    """Each layer reused alone at the paper's (H, L), before and after compression."""
    rows: list[dict[str, object]] = []
    for hashing in ("plain", "centred"):
        policies = paper_policies(network, names, scope=scope, **HASHINGS[hashing])
        for name, paper in zip(names, table_2(network), strict=True):
            before, after = (
                decided(workload, {name: policies[name]}) for workload in (pair.plain, pair.pruned)
            )
            r_c = [run.decisions[name].remaining_ratio for run in (before, after)]
            policy, kept = policies[name], 1 - pair.zeros[name]
            saved = [savings(policy, paper.m, each) for each in r_c]
            sparse = savings(policy, paper.m, r_c[1], kept=kept)
            rows.append(
                {
                    "layer": name,
                    "hashing": hashing,
                    "r_c": f"{r_c[0]:.4f}",
                    "compressed": f"{r_c[1]:.4f}",
                    "savings": f"{saved[0]:.2f}",
                    "compressed ": f"{saved[1]:.2f}",
                    "if zeros cost nothing": f"{sparse:.2f}",
                    "Table II": paper.speedup,
                    "AlexNet's, Table V": _table_5(network, paper.layer),
                    "points lost": points(lost_quality(before)),
                    "compressed  ": points(lost_quality(after)),
                }
            )
    return rows


def savings(policy: LshReuse, outputs: int, r_c: float, kept: float = 1.0) -> float:
    """The formula's, or against a dense layer that multiplies only the `kept` weights.

    Zeros make dense and centroid products cheaper, but not hashing and adding up.
    """
    assert policy.length is not None
    overhead = remaining_operations(
        hashes=policy.hashes, length=policy.length, outputs=outputs, r_c=0.0
    )
    return kept / (overhead + r_c * kept)


def _table_5(network: str, layer: str) -> object:
    """The paper compresses AlexNet only."""
    if network != "alexnet":
        return "-"
    return published_value("V", "alexnet_compressed", layer, "speedup")


def all_reused(
    pair: Compressed, network: str, names: list[str], scope: str
) -> list[dict[str, object]]:
    """All layers of Table II reused at once."""
    rows: list[dict[str, object]] = []
    for workload in (pair.plain, pair.pruned):
        for hashing in ("plain", "centred"):
            policies = paper_policies(network, names, scope=scope, **HASHINGS[hashing])
            run = decided(workload, policies)
            accuracy = run.accuracy if run.accuracy is not None else run.agreement
            rows.append(
                {
                    "network": workload.name,
                    "hashing": hashing,
                    "savings": f"{run_savings(workload.trace.layers, run, policies):.2f}",
                    "dense accuracy": "-" if run.accuracy is None else run.dense_accuracy,
                    "accuracy or agreement": accuracy,
                    "points lost": points(lost_quality(run)),
                }
            )
    return rows


def figure_of(rows: list[dict[str, object]], name: str) -> go.Figure:
    """Savings of each layer before and after."""
    names = [f"{row['layer']}, {row['hashing']}" for row in rows]
    columns = {
        "uncompressed": "savings",
        "compressed": "compressed ",
        "compressed, if zeros cost nothing": "if zeros cost nothing",
    }
    figure = go.Figure(
        [
            go.Bar(name=label, x=names, y=[float(str(row[column])) for row in rows])
            for label, column in columns.items()
        ]
    )
    figure.add_hline(y=1, line_dash="dot")
    figure.update_layout(
        title=f"{name}: operation savings at the paper's (H, L)",
        yaxis_title="x dense",
        template="plotly_white",
    )
    return figure


def paper_row() -> list[dict[str, object]]:
    """Table V beside Table II, both times on a GPU."""
    return [
        {
            "AlexNet": paper.layer,
            "Table II": paper.speedup,
            "Table V, compressed": _table_5("alexnet", paper.layer),
            "savings from Table II's r_c": f"{1 / paper.remaining:.2f}",
        }
        for paper in table_2("alexnet")
    ]


def main() -> None:
    """Compress, measure, print, plot."""
    parser = options(__doc__)
    parser.add_argument("--alexnet", metavar="WEIGHTS")
    args = parser.parse_args()
    show("The paper's AlexNet", paper_row())
    plans = [("cifarnet", cifarnet(args), CIFARNET_ZEROS, "batch")]
    if args.alexnet:
        video = load_workload(
            model="alexnet", inputs="bikes", images=4, calibration_images=2, weights=args.alexnet
        )
        plans.append(("alexnet", video, ALEXNET_ZEROS, "image"))
    for network, workload, zeros, scope in plans:
        pair = compressed(workload, zeros)
        names = [layer.name for layer in workload.trace.layers if layer.kind == "conv"]
        rows = layers_alone(pair, network, names, scope)
        show(f"{workload.name}: each layer alone, {scope} scope", rows)
        show("All of them reused", all_reused(pair, network, names, scope))
        write_figure(figure_of(rows, workload.name), f"005_deep_reuse_table_5_{network}")


if __name__ == "__main__":
    main()
