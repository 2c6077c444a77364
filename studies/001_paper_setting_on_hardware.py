"""Does Deep Reuse's own setting of CifarNet pay on an array, and what stands in its way?

Run it with `python studies/001_paper_setting_on_hardware.py`; it takes about a minute, prints a
table and writes a figure to `studies/out/`.

The setting is Table II of Deep Reuse: conv1 H=15, L=5; conv2 H=10, L=10. It is run on the design
`reuse_16x16`, on 100 scanned digits, with what the paper leaves to the hardware varied one by one:
the scope of clusters, how folds follow each other, and whether partial sums and results fit.

Answer, as printed on 2026-11-22: on the same array it is 0.27x to 2.7x as fast, at equal area it is
nowhere faster (0.06x to 0.26x), because the reuse units' silicon buys a larger dense array. Within
an image the preset runs at 0.93x, bound by the array; folds that overlap give 1.01x, bound by the
cache, and room for a batch 1.7x. Sharing within the batch leaves a hundredth of the
multiplications, yet is the slowest: its partial sums do not fit and travel for every sub-vector
(0.29x), unless 96 MiB of buffers hold them (1.9x, with four lanes 2.7x).
"""

from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

from accelerators import Accelerator, preset
from simulator import LshReuse, PerLayer, ReuseRun, calibrate, decide, simulate
from workloads import capture, digits, trained_cifarnet
from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out"
MIB = 2**20


def policy(scope: str) -> PerLayer:
    """Deep Reuse, Table II, CifarNet."""
    return PerLayer(
        {
            "conv1": LshReuse(hashes=15, length=5, scope=scope),
            "conv2": LshReuse(hashes=10, length=10, scope=scope),
        }
    )


def decisions() -> tuple:
    """The trace of CifarNet on 100 test images, and decisions within images and the batch."""
    model, _ = trained_cifarnet("digits")
    images = digits("test").take(100)
    trace = capture(model, images.images, labels=images.labels)
    states = calibrate(capture(model, digits("train").take(50).images), policy("image"))
    runs = {
        scope: decide(trace, policy(scope), model=model, calibration=states)
        for scope in ("image", "batch")
    }
    return trace, runs


def designs() -> dict[str, Accelerator]:
    """The preset, then one change after the other."""
    base = preset("reuse_16x16")
    overlapped = replace(base, array=replace(base.array, fold_timing="overlapped"))
    roomy = replace(
        overlapped,
        output_buffer=replace(base.output_buffer, capacity_bytes=64 * MIB),
        centroid_buffer=replace(base.centroid_buffer, capacity_bytes=32 * MIB),
    )
    quick = replace(
        roomy,
        front_end=replace(base.front_end, lanes=4),
        cache=replace(base.cache, banks=4),
        activation_buffer=replace(base.activation_buffer, ports=4),
        output_buffer=replace(roomy.output_buffer, ports=8),
        centroid_buffer=replace(roomy.centroid_buffer, ports=4),
        reconstructor=replace(base.reconstructor, ports=4),
    )
    return {
        "preset": base,
        "folds overlap": overlapped,
        "and a batch fits the buffers": roomy,
        "and four lanes, banks and ports": quick,
    }


def main() -> None:
    """Simulate, print, plot."""
    trace, runs = decisions()
    table = Table(title="CifarNet at Deep Reuse's setting, 100 scanned digits, 16x16 array")
    for name in (
        "scope", "r_c conv1, conv2", "accuracy", "design", "area mm2",
        "speed, equal array", "speed, equal area", "energy, equal area", "bound by",
    ):  # fmt: skip
        table.add_column(name)
    bars: dict[str, list[float]] = {}
    for scope, run in runs.items():
        for name, design in designs().items():
            report = simulate(trace, design, run)
            bars.setdefault(scope, []).append(report.speedup_equal_array)
            table.add_row(
                scope, remaining(run), f"{run.accuracy:.2f} (dense {run.dense_accuracy:.2f})",
                name, f"{report.reuse.area_mm2:.1f}", f"{report.speedup_equal_array:.2f}x",
                f"{report.speedup_equal_area:.2f}x", f"{report.energy_ratio_equal_area:.2f}x",
                report.reuse.bound_by,
            )  # fmt: skip
    Console(width=160).print(table)
    figure = go.Figure([go.Bar(name=f"{s} scope", x=list(designs()), y=y) for s, y in bars.items()])
    figure.update_layout(
        title="Speed against the dense design with the same array (above 1 is faster)",
        yaxis_title="x dense",
        template="plotly_white",
    )
    figure.add_hline(y=1, line_dash="dot")
    OUT.mkdir(exist_ok=True)
    path = OUT / "001_paper_setting_on_hardware.html"
    write_atomically(path, figure.to_html(include_plotlyjs=True))
    print(f"wrote {path}")


def remaining(run: ReuseRun) -> str:
    """r_c of the reused layers."""
    return ", ".join(f"{made.remaining_ratio:.3f}" for made in run.decisions.values() if made)


if __name__ == "__main__":
    main()
