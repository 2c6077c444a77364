"""Measures each speed target: `make bench`, or `python -m tests.bench NAME ...` for some.

Prints a line a target: name, measured, target, `ok` or `short`. Ratios are medians of several runs,
taken in turn in one process with one thread; machines are shared and noisy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"

from tests.bench.hardware_model import HARDWARE_MODEL
from tests.bench.optimisers import OPTIMISER_TARGETS
from tests.bench.software import SOFTWARE
from tests.bench.target import Target, median_ratio, seconds
from tests.bench.techniques import TECHNIQUES
from tests.bench.wide_network import WIDE_NETWORK

if TYPE_CHECKING:
    from simulator import ReusePolicy


def decide_over_convolution() -> float:
    """CifarNet conv2 (K=1600, H=10, L=10), 100 real images: decisions over the convolution."""
    import torch

    from simulator import LshReuse
    from workloads import capture, digits, trained_cifarnet

    torch.set_num_threads(1)
    model, _ = trained_cifarnet("digits")
    trace = capture(model, digits("test").take(100).images)
    layer, rows = trace.layer("conv2"), trace.rows("conv2")
    policy = LshReuse(hashes=10, length=10, scope="batch")
    state = policy.calibrate(layer, rows)
    feature_map = torch.relu(torch.randn(100, 64, 16, 16))
    weight = torch.randn(64, 64, 5, 5)

    def dense() -> None:
        with torch.no_grad():
            torch.nn.functional.conv2d(feature_map, weight, padding=2)

    return median_ratio(lambda: policy.decide(layer, rows, state), dense)


def training_seconds() -> float:
    """CifarNet on scanned digits, from nothing."""
    script = "from workloads import trained_cifarnet; print(trained_cifarnet('digits')[1])"
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "SIMILARITY_CODESIGN_CACHE": cache}
        environment.pop("OMP_NUM_THREADS")
        return seconds(
            lambda: subprocess.run([sys.executable, "-c", script], env=environment, check=True)
        )


def training_step_over_dense(policy: "ReusePolicy") -> float:
    """ResNet-18's segmenter (width 16) on 4 frames of 120x160 of a video, under a policy but for
    conv1: forward and backward pass, over dense ones.
    """
    import torch

    from simulator import NoReuse, PerLayer, ReusedForward
    from workloads import video_frames
    from workloads.models import load

    torch.set_num_threads(1)
    network = load("resnet18_camvid").train()
    frames = video_frames("bikes", size=(120, 160), count=4, every=5).images
    reuse = ReusedForward(PerLayer({"conv1": NoReuse()}, policy))

    def step(outputs: torch.Tensor) -> None:
        network.zero_grad()
        outputs.square().mean().backward()

    return median_ratio(lambda: step(reuse(network, frames)), lambda: step(network(frames)))


def lsh_training_step() -> float:
    """H=16, L=16 in strips of 160 pixels that are looked at once."""
    from simulator import LshReuse

    return training_step_over_dense(
        LshReuse(hashes=16, length=16, scope="tile", tile_rows=160, look_once=True)
    )


def leader_training_step() -> float:
    """Up to 16 leaders in blocks of 256 pixels that are looked at once."""
    from simulator import LeaderReuse

    return training_step_over_dense(
        LeaderReuse(tolerance=0.05, look_once=True, scope="tile", tile_rows=256, tile_shape="block")
    )


def design_point_seconds() -> float:
    """Timing, cost and both dense baselines of one design point; decisions are made before."""
    from accelerators import preset
    from simulator import LshReuse, PerLayer, decide, simulate
    from workloads import capture, digits, trained_cifarnet

    model, _ = trained_cifarnet("digits")
    trace = capture(model, digits("test").take(100).images)
    conv1, conv2 = LshReuse(hashes=15, length=5), LshReuse(hashes=10, length=10)
    policy = PerLayer({"conv1": conv1, "conv2": conv2})
    run = decide(trace, policy)
    design = preset("reuse_16x16")
    simulate(trace, design, run)
    return statistics.median(seconds(lambda: simulate(trace, design, run)) for _ in range(7))


def demo_seconds() -> float:
    """The whole demo, training included, on an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SIMILARITY_CODESIGN_CACHE": str(Path(folder) / "cache")}
        environment.pop("OMP_NUM_THREADS")
        command = [str(Path(sys.executable).parent / "codesign"), "demo", "--no-open"]
        command += ["--out", str(Path(folder) / "out")]
        return seconds(
            lambda: subprocess.run(
                command, env=environment, check=True, capture_output=True, timeout=1200
            )
        )


TARGETS = (
    *HARDWARE_MODEL,
    *SOFTWARE,
    *WIDE_NETWORK,
    *OPTIMISER_TARGETS,
    *TECHNIQUES,
    Target(
        name="decide_conv2",
        what="decisions of CifarNet conv2, batch of 100, over PyTorch's dense convolution",
        unit="x",
        limit=3,
        measure=decide_over_convolution,
    ),
    Target(
        name="design_point",
        what="timing, cost and baselines of CifarNet on one design",
        unit="s",
        limit=1,
        measure=design_point_seconds,
    ),
    Target(
        name="train_step",
        what="training step under look-once reuse in tiles over a dense one, ResNet-18 segmenter",
        unit="x",
        limit=2.5,
        measure=lsh_training_step,
    ),
    Target(
        name="train_leaders",
        what="the same under leaders in blocks",
        unit="x",
        limit=2.5,
        measure=leader_training_step,
    ),
    Target(
        name="train_digits",
        what="train CifarNet on scanned digits",
        unit="s",
        limit=60,
        measure=training_seconds,
    ),
    Target(name="demo", what="make demo after install", unit="s", limit=240, measure=demo_seconds),
)


def main() -> None:
    """Measure the targets named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("names", nargs="*", choices=[[], *names], help=", ".join(names))
    chosen = parser.parse_args().names or names
    for target in TARGETS:
        if target.name in chosen:
            print(target.line(), flush=True)


if __name__ == "__main__":
    main()
