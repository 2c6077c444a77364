"""Does the CPU model explain Treasure's speed-ups on a Raspberry Pi 3, given its compression?

Run it with `python studies/012_deep_reuse_on_a_pi.py`; it takes about a minute, prints tables and
writes a figure to `studies/out/`.

Treasure gives a compression c and a speed-up per model; not the input size, H, L, the framework,
the threads, or which layers are reused. Assumed here: 224x224 (PSANet 473x473, ResNet-38 480x640),
c on every product of more than one row with weights, attention dense, four threads of a Pi 3B+,
H=10, and three readings of L. "Bound" is 1/(1-c); "MACs" the formula M/(H + (1-c) M + M/L), summed
over layers.

Answer, as printed on 2026-11-22, and for ResNet-38 on 2026-11-28. With L = K, where a sub-vector is
a whole row, and against a dense run that unfolds as the reuse does (published in brackets):
ResNet-18 1.24 (1.59), 8 bit 1.12 (1.01); ResNeSt 1.67 (2.66), 8 bit 1.71 (2.31); Swin 1.63 (1.68),
8 bit 1.49 (1.45); ResNet-38 1.79 (2.40), 8 bit 1.85 (1.51); PSANet 1.17 (2.10), 8 bit 1.27 (1.36).
So the compression explains Swin and three of the 8-bit networks within 11 %, more than what is
published for ResNet-38 in 8 bits, and less for the others; ResNeSt, PSANet and ResNet-38 in
floating point are published above the bound 1/(1-c) itself, so something else than the removed work
is in them. Against ncnn's dense run only Swin, ResNet-38 and 8-bit ResNeSt gain, because centroids
lose Winograd's trick. Shorter sub-vectors lose everywhere: hashing, gathering and short products
cost more than they save. CifarNet at Deep Reuse's own H and L is 2.8 to 4.2 times slower than dense
on every Pi.

Products over few elements are extrapolated: fitted networks hold few of them, and a kernel written
for reuse could be better there. Nothing here is measured on a Pi; `codesign measure` is for that.
"""

from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
from paper_tables import published
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from accelerators import Processor, processor_preset
from simulator import LshReuse, PerLayer, ReuseCounts, calibrate, decide, predict, predict_layer
from workloads import Layer, capture, digits, run_with, trained_cifarnet
from workloads.models import load
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"
HASHES = 10
# How long a sub-vector is; the whole row is how Treasure's text reads ("sets of similar rows").
LENGTHS = {"L = K": 10**9, "L = 64": 64, "L = 10": 10}
# Treasure's names.
NETWORKS = {
    "resnet18": "resnet18",
    "resnest": "resnest50",
    "swin": "swin_t",
    "resnet38": "resnet38",
    "psanet": "psanet50",
}
BOARD = "Pi 3B+"
THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of Treasure's Table 2.

    Attributes:
        model: its name there, with `_8bit`.
        speedup: measured on a Raspberry Pi 3.
        compression: removed fraction of the rows.
    """

    model: str
    speedup: float
    compression: float

    @property
    def network(self) -> str:
        """This project's network."""
        return NETWORKS[self.model.removesuffix("_8bit")]

    @property
    def precision(self) -> str:
        """Of the arithmetic."""
        return "int8" if self.model.endswith("_8bit") else "fp32"

    @property
    def bound(self) -> float:
        """Speed-up if what remains cost nothing but its multiplications."""
        return 1 / (1 - self.compression)


def table_rows() -> list[Row]:
    """The ten networks of Table 2."""
    return [
        Row(
            model=row["model"],
            speedup=float(row["inference_speedup"]),
            compression=float(row["compression_percent"]) / 100,
        )
        for row in published("treasure_table_2.csv")
        if row["task"] != "ablation"
    ]


def layers_of(network: str) -> list[Layer]:
    """The shapes of a network for one image, on PyTorch's meta device."""
    found: list[Layer] = []
    with torch.device("meta"), torch.no_grad():
        model = load(network)
        run_with(
            model,
            torch.zeros(1, *model.input_shape),
            lambda call: found.append(call.layer),  # type: ignore[arg-type,func-returns-value]
        )
    return found


def counts(layer: Layer, remaining: float, length: int) -> ReuseCounts | None:
    """What a layer does when `remaining` of its rows are left; `None` where it runs dense."""
    gemm = layer.gemm
    if not layer.weights_are_parameters or gemm.m == 1 or gemm.n == 1:
        return None
    length = min(length, gemm.k)
    return ReuseCounts(
        m=gemm.m, n=gemm.n, k=gemm.k, products=gemm.count, length=length, hashes=HASHES,
        clusters=remaining * gemm.m * gemm.count * -(-gemm.k // length),
    )  # fmt: skip


def latencies(
    layers: list[Layer], row: Row, processor: Processor, length: int
) -> list[tuple[float, float, float]]:
    """(dense, dense without Winograd, under reuse) ms of each layer."""
    how = {"threads": THREADS, "precision": row.precision}
    found = []
    for layer in layers:
        made = counts(layer, 1 - row.compression, length)
        dense = predict_layer(layer, processor, **how).latency_ms
        unfolded = predict_layer(layer, processor, winograd=False, **how).latency_ms
        if made is None:
            found.append((dense, unfolded, dense))
        else:
            found.append((dense, unfolded, predict_layer(layer, processor, made, **how).latency_ms))
    return found


def macs_formula(layers: list[Layer], row: Row, length: int) -> float:
    """Speed-up by the papers' formula over the layers that reuse, weighted by operations."""
    dense = left = 0.0
    for layer in layers:
        made = counts(layer, 1 - row.compression, length)
        gemm = layer.gemm
        share = 1.0
        if made is not None:
            share = HASHES / gemm.n + (1 - row.compression) + 1 / made.length
        dense += gemm.macs
        left += gemm.macs * share
    return dense / left


def compare(rows: list[Row], processor: Processor) -> tuple[Table, dict[str, dict[str, float]]]:
    """The table, and speed-ups per reading of each model."""
    table = Table(title=f"Speed-ups, {processor.name}, {THREADS} threads, H={HASHES}")
    for name in ("model", "c", "published", "bound", "reading", "MACs", "against ncnn's dense",
                 "against unfolded dense", "reuse only where faster"):  # fmt: skip
        table.add_column(name)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        head = (row.model, f"{row.compression:.1%}", f"{row.speedup:.2f}", f"{row.bound:.2f}")
        found[row.model] = {"published": row.speedup, "bound": row.bound}
        layers = layers_of(row.network)
        for reading, length in LENGTHS.items():
            times = latencies(layers, row, processor, length)
            dense, unfolded, reuse = (sum(column) for column in zip(*times, strict=True))
            chosen = sum(min(own, reused) for _, own, reused in times)
            found[row.model][reading] = unfolded / reuse
            table.add_row(
                *head, reading, f"{macs_formula(layers, row, length):.2f}",
                f"{dense / reuse:.2f}", f"{unfolded / reuse:.2f}", f"{unfolded / chosen:.2f}",
            )  # fmt: skip
            head = ("", "", "", "")
    return table, found


def cifarnet_table() -> Table:
    """CifarNet's decisions of study 001, costed on every Pi."""
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(20)
    trace = capture(model, images.images, labels=images.labels)
    policy = PerLayer(
        {"conv1": LshReuse(hashes=15, length=5), "conv2": LshReuse(hashes=10, length=10)}
    )
    states = calibrate(capture(model, digits("train").take(50).images), policy)
    run = decide(trace, policy, model=model, calibration=states)
    table = Table(title="CifarNet on scanned digits at Deep Reuse's H and L, decided on real data")
    for name in ("board", "layer", "dense ms", "reuse ms", "speed-up", "of it, ms"):
        table.add_column(name)
    for board in ("Pi Zero 2 W", "Pi 3B+", "Pi 4B", "Pi 5"):
        processor = processor_preset(board)
        dense, reuse = predict(trace, processor), predict(trace, processor, run)
        for one, other in zip(dense.layers, reuse.layers, strict=True):
            if not other.stages_ms:
                continue
            stages = ", ".join(f"{name} {ms:.2f}" for name, ms in other.stages_ms.items())
            table.add_row(
                board, one.name, f"{one.latency_ms:.2f}", f"{other.latency_ms:.2f}",
                f"{one.latency_ms / other.latency_ms:.2f}", stages,
            )  # fmt: skip
        whole = (dense.latency_ms, reuse.latency_ms)
        table.add_row(
            board, "all", f"{whole[0]:.2f}", f"{whole[1]:.2f}", f"{whole[0] / whole[1]:.2f}", ""
        )
    return table


def figure(found: dict[str, dict[str, float]], processor: Processor) -> go.Figure:
    """Speed-ups per model, and of every layer of ResNet-18."""
    made = make_subplots(rows=2, subplot_titles=("Networks", "Layers of ResNet-18, L = K"))
    for name in ("published", "bound", *LENGTHS):
        values = [speedups.get(name) for speedups in found.values()]
        label = name if name in ("published", "bound") else f"predicted, {name}"
        made.add_bar(x=list(found), y=values, name=label, row=1, col=1)
    row = next(each for each in table_rows() if each.model == "resnet18")
    layers = layers_of("resnet18")
    times = latencies(layers, row, processor, LENGTHS["L = K"])
    names = [layer.name for layer in layers]
    for label, place in (("against ncnn's dense", 0), ("against unfolded dense", 1)):
        made.add_bar(x=names, y=[each[place] / each[2] for each in times], name=label, row=2, col=1)
    made.add_hline(y=1, line_dash="dot", row="all", col=1)
    made.update_yaxes(title_text="speed-up")
    made.update_layout(
        title=f"Deep reuse in software: Treasure's Raspberry Pi 3 and the model of a {BOARD}",
        template="plotly_white", height=900,
    )  # fmt: skip
    return made


def main() -> None:
    """Predict, print, plot."""
    processor = processor_preset(BOARD)
    console = Console(width=170)
    table, found = compare(table_rows(), processor)
    console.print(table)
    console.print(cifarnet_table())
    OUT.mkdir(exist_ok=True)
    path = OUT / "012_deep_reuse_on_a_pi.html"
    write_atomically(path, figure(found, processor).to_html(include_plotlyjs=True))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
