"""Deep reuse in software beside PyTorch's own convolution, on the layers of Deep Reuse's Table II.

`python -m tests.bench.software` prints every layer; `make bench` a mean over each network. Both
convolutions run in turn in one process with as many threads; times are medians. Inputs are real:
scanned digits through CifarNet trained on them (or CIFAR-10 with weights, by path), frames of a
video through AlexNet and VGG-19 with RANDOM weights, so their r_c need not be the paper's.
"""

import argparse
import csv
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.bench.target import Target, seconds

# Ning, Guan and Shen, ICDE 2019, Table II (VGG-19's K corrected: 4068 is 4608): network, layer,
# K, M, hyper-cube's columns, then LSH's H, L, r_c and speedup, without and with cluster reuse.
TABLE = Path(__file__).parents[2] / "studies" / "data" / "deep_reuse_table_2.csv"
# Kernel, stride, padding, and pooling after the layer, of AlexNet (Krizhevsky's one-tower form,
# the one that Table II's K and M fit) and VGG-19 (3x3, pooled where the size changes).
ALEXNET = ((11, 4, 2, True), (5, 1, 2, True), (3, 1, 1, False), (3, 1, 1, False), (3, 1, 1, True))
VGG19_POOLED = (2, 4, 8, 12)
BATCHES = {"cifarnet": 100, "alexnet": 8, "vgg19": 1}
RUNS = 7


@cache
def table() -> list[dict[str, str]]:
    """Rows of Table II."""
    with TABLE.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _cifarnet_inputs(weights: str | None, images: str | None) -> Iterator[tuple]:
    """Input, weight, stride and padding of CifarNet's convolutions."""
    import torch

    from workloads import CifarNet, cifar10, digits, trained_cifarnet
    from workloads.models import load_weights

    if weights and images:
        model = CifarNet().eval()
        load_weights(model, weights)
        given = cifar10(images, "test", BATCHES["cifarnet"]).images
    else:
        model, _ = trained_cifarnet("digits")
        given = digits("test").take(BATCHES["cifarnet"]).images
    with torch.no_grad():
        yield given, model.conv1.weight.detach(), 1, 2
        hidden = model.norm1(model.pool1(torch.relu(model.conv1(given)))).contiguous()
        yield hidden, model.conv2.weight.detach(), 1, 2


def _random_inputs(network: str) -> Iterator[tuple]:
    """The same of a network with random weights (He et al. 2015), on frames of a video."""
    import torch
    from torch import nn

    from workloads import video_frames

    torch.manual_seed(0)
    frames = video_frames("bikes", size=(224, 224), count=BATCHES[network], every=5)
    hidden = frames.images.contiguous()
    rows = [row for row in table() if row["network"] == network]
    for place, row in enumerate(rows, 1):
        if network == "vgg19":
            kernel, stride, padding, pooled = 3, 1, 1, place in VGG19_POOLED
        else:
            kernel, stride, padding, pooled = ALEXNET[place - 1]
        layer = nn.Conv2d(hidden.shape[1], int(row["M"]), kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(layer.weight)
        yield hidden, layer.weight.detach(), stride, padding
        with torch.no_grad():
            hidden = torch.relu(layer(hidden))
            if pooled:
                hidden = nn.functional.max_pool2d(hidden, 2 if network == "vgg19" else 3, 2)


def measure_layers(
    network: str, *, threads: int, thresholds: str = "zero", weights=None, images=None
) -> Iterator[tuple]:
    """Yield Table II's row, dense and reused seconds, and the last `SoftwareRun`, of each layer."""
    import torch

    from simulator import LshReuse
    from simulator.boards.software import reused_convolution
    from workloads.traces.unfold import rows_of

    torch.set_num_threads(threads)
    inputs = _cifarnet_inputs(weights, images) if network == "cifarnet" else _random_inputs(network)
    rows = [row for row in table() if row["network"] == network]
    for row, (given, kernel, stride, padding) in zip(rows, inputs, strict=True):
        layer = _layer(row["layer"], given, kernel, stride, padding)
        policy = LshReuse(
            hashes=int(row["lsh_H"]),
            length=int(row["lsh_L"]),
            scope="batch",
            thresholds=thresholds,
            order="channels_last",
        )
        arrays = given.numpy(), kernel.numpy()
        state = policy.calibrate(layer, rows_of(layer, arrays[0]))
        reused = reused_convolution(layer, arrays[1], policy, state)

        def dense(given=given, kernel=kernel, stride=stride, padding=padding):
            with torch.no_grad():
                torch.nn.functional.conv2d(given, kernel, stride=stride, padding=padding)

        def run(reused=reused, images=arrays[0]):
            return reused(images, threads=threads)

        done = run()
        dense()
        times = [(_rested(dense), _rested(run)) for _ in range(RUNS)]
        dense_s, reused_s = (statistics.median(column) for column in zip(*times, strict=True))
        yield row, dense_s, reused_s, done
    torch.set_num_threads(1)


def _rested(function) -> float:
    """Time of a call once the other's threads are idle: OpenMP's spin for a while after work."""
    time.sleep(0.02)
    return seconds(function)


def _layer(name, given, kernel, stride, padding):
    """The convolution as a layer, named as in the table."""
    from workloads.traces.layer import Convolution, Gemm, Layer

    geometry = Convolution(
        kernel=tuple(kernel.shape[2:]),
        stride=(stride,) * 2,
        padding=(padding,) * 2,
        dilation=(1, 1),
    )
    images = len(given)
    height, width = geometry.output_size(tuple(given.shape[2:]))
    return Layer(
        name=name,
        kind="conv",
        gemm=Gemm(m=images * height * width, n=len(kernel), k=kernel[0].numel()),
        images=images,
        row_images=images,
        convolution=geometry,
        input_shape=tuple(given.shape),
        output_shape=(images, len(kernel), height, width),
        weights_are_parameters=True,
    )


def mean_speedup(network: str) -> float:
    """Geometric mean of the speedups of a network's layers, one thread."""
    return statistics.geometric_mean(
        dense / reused for _, dense, reused, _ in measure_layers(network, threads=1)
    )


# Whole networks under reuse; images of a batch, and the same for `capture`.
FUNCTIONAL_IMAGES = {"cifarnet": 100, "alexnet": 8, "vgg19": 4}


def functional_ratio(network: str, *, scope: str, layer_errors: bool = False) -> float:
    """A network, its convolutions reused at Table II's (H, L): functional path over inference.

    CifarNet is trained on digits; the others have random weights and see frames of a video.
    """
    import torch

    from simulator import LshReuse, PerLayer, calibrate, decide
    from tests.bench.target import median_ratio
    from workloads import capture, digits, models, trained_cifarnet, video_frames

    torch.set_num_threads(1)
    count = FUNCTIONAL_IMAGES[network]
    if network == "cifarnet":
        model, _ = trained_cifarnet("digits")
        images = digits("test").take(count).images
    else:
        torch.manual_seed(0)
        model = models.load(network).eval()
        images = video_frames("bikes", size=(224, 224), count=count, every=5).images
    trace = capture(model, images)
    rows = [row for row in table() if row["network"] == network]
    layers = [layer.name for layer in trace.layers if layer.kind == "conv"]
    policy = PerLayer(
        {
            name: LshReuse(hashes=int(row["lsh_H"]), length=int(row["lsh_L"]), scope=scope)
            for name, row in zip(layers, rows, strict=True)
        }
    )
    states = calibrate(trace, policy)

    def dense() -> None:
        with torch.no_grad():
            model(images)

    def reuse() -> None:
        decide(trace, policy, model=model, calibration=states, layer_errors=layer_errors)

    return median_ratio(reuse, dense, runs=RUNS)


# Unfolding, calibration and decisions of VGG-19's convolutions, a layer in memory at a time.
VGG19 = """
import os
os.environ["OMP_NUM_THREADS"] = "1"
import time, torch
torch.set_num_threads(1)
from simulator import LshReuse
from tests.bench.software import _layer, _random_inputs, table
from workloads.traces.unfold import rows_of
rows = [row for row in table() if row["network"] == "vgg19"]
taken, warm = 0.0, False
for row, (given, *shape) in zip(rows, _random_inputs("vgg19")):
    layer = _layer(row["layer"], given, *shape)
    policy = LshReuse(hashes=int(row["lsh_H"]), length=int(row["lsh_L"]))
    if not warm:
        unfolded = rows_of(layer, given.numpy())
        policy.decide(layer, unfolded, policy.calibrate(layer, unfolded))
        warm = True
    start = time.perf_counter()
    unfolded = rows_of(layer, given.numpy())
    policy.decide(layer, unfolded, policy.calibrate(layer, unfolded))
    taken += time.perf_counter() - start
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(taken, int(peak[0].split()[1]) * 1024 / 1e6)
"""


@cache
def vgg19_decisions() -> tuple[float, float]:
    """Seconds, and peak megabytes of the process, Python and PyTorch included."""
    done = subprocess.run([sys.executable, "-c", VGG19], check=True, capture_output=True, text=True)
    taken, peak = map(float, done.stdout.split())
    return taken, peak


def print_layers(networks: Sequence[str], threads: Sequence[int], thresholds: str, **paths) -> None:
    """Print a line a layer."""
    for network in networks:
        for count in threads:
            found = []
            for row, dense, reused, run in measure_layers(
                network, threads=count, thresholds=thresholds, **paths
            ):
                found.append(dense / reused)
                target = float(row["lsh_speedup"])
                total = sum(run.seconds.values())
                shares = " ".join(
                    f"{step} {100 * taken / total:.0f}%" for step, taken in run.seconds.items()
                )
                print(
                    f"{network:8} {row['layer']:6} threads {count} dense {1e3 * dense:7.2f} ms "
                    f"reused {1e3 * reused:7.2f} ms measured {dense / reused:5.2f} x target >= "
                    f"{target:4.2f} {'ok' if found[-1] >= target else 'short':5} "
                    f"r_c {run.remaining_ratio:.3f} (paper {row['lsh_rc']}) {shares}",
                    flush=True,
                )
            mean = math.exp(statistics.mean(map(math.log, found)))
            print(f"{network:8} threads {count} geometric mean {mean:.2f} x", flush=True)


def _software(network: str, limit: float, inputs: str) -> Target:
    return Target(
        name=f"software_{network}",
        what=f"PyTorch's convolution over ours, mean over {network}'s layers, 1 thread, {inputs}; "
        "target the paper's mean",
        unit="x",
        limit=limit,
        at_least=True,
        measure=lambda: mean_speedup(network),
    )


def _functional(network: str, scope: str, limit: float) -> Target:
    inputs = "trained on digits" if network == "cifarnet" else "random weights, video"
    return Target(
        name=f"functional_{network}_{scope}",
        what=f"{network} under reuse of its convolutions, Table II's H and L, within the {scope}, "
        f"over dense inference, 1 thread, {inputs}",
        unit="x",
        limit=limit,
        measure=lambda: functional_ratio(network, scope=scope),
    )


SOFTWARE = (
    _software("cifarnet", 2.05, "trained on digits"),
    _software("alexnet", 2.41, "random weights, video"),
    _software("vgg19", 2.26, "random weights, video"),
    _functional("cifarnet", "batch", 2),
    _functional("cifarnet", "image", 2),
    _functional("alexnet", "batch", 1),
    _functional("vgg19", "batch", 1),
    Target(
        name="functional_errors",
        what="functional_cifarnet_batch with each layer's error, which runs it dense as well",
        unit="x",
        limit=None,
        measure=lambda: functional_ratio("cifarnet", scope="batch", layer_errors=True),
    ),
    Target(
        name="vgg19_decisions",
        what="unfolding, calibration and decisions of VGG-19, 224x224, one frame",
        unit="s",
        limit=3,
        measure=lambda: vgg19_decisions()[0],
    ),
    Target(
        name="vgg19_decisions_mb",
        what="peak memory of the same, inference included",
        unit="MB",
        limit=1000,
        measure=lambda: vgg19_decisions()[1],
    ),
)


def main() -> None:
    """Print every layer's time beside PyTorch's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(BATCHES), help=", ".join(BATCHES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--thresholds", default="zero", help="of the hashes: zero, mean, spread")
    parser.add_argument("--cifar10", help="archive of CIFAR-10; digits without it")
    parser.add_argument("--cifarnet", help="CifarNet's weights for it")
    given = parser.parse_args()
    print_layers(
        given.networks,
        given.threads,
        given.thresholds,
        weights=given.cifarnet,
        images=given.cifar10,
    )


if __name__ == "__main__":
    main()
