"""Speed of the hardware model, beside its peers."""

import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.bench.target import Target, cpu_seconds, seconds

TOPOLOGY = Path(__file__).parents[1] / "crosscheck" / "data" / "scale_sim" / "resnet18.csv"
# SCALE-Sim 3.0.0's own run of this topology on 32x32 took 271 to 418 CPU seconds for the three
# dataflows on a machine of two cores (recorded beside its cycles, tests/crosscheck/data). It is
# not installed here: it needs NumPy < 2. The fastest of its runs is taken.
SCALE_SIM_RECORDED_S = 271

# VGG-19's products at 224x224: rows, columns, reduction.
VGG19 = """
from workloads import Gemm, WorkloadTrace
from accelerators import preset
from simulator import simulate
channels = [(224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 128, 256)]
channels += [(56, 256, 256)] * 3 + [(28, 256, 512)] + [(28, 512, 512)] * 3 + [(14, 512, 512)] * 4
gemms = [(f"conv{i}", Gemm(m=s * s, n=n, k=9 * c)) for i, (s, c, n) in enumerate(channels, 1)]
gemms += [("fc6", Gemm(m=1, n=4096, k=25088)), ("fc7", Gemm(m=1, n=4096, k=4096))]
gemms += [("fc8", Gemm(m=1, n=1000, k=4096))]
print(simulate(WorkloadTrace.from_gemms(gemms), preset("reuse_32x32")).dense.cycles)
"""


def _network_seconds() -> float:
    from accelerators import preset
    from simulator.timing.dense_baseline import time_dense
    from workloads import read_topology

    layers, design = read_topology(TOPOLOGY).layers, preset("dense_32x32")
    time_dense(layers, design)  # compile
    return statistics.median(seconds(lambda: time_dense(layers, design)) for _ in range(15))


def scale_sim_ratio() -> float:
    """SCALE-Sim's recorded time over ours, ResNet-18 at 224x224, dense, 32x32."""
    return SCALE_SIM_RECORDED_S / _network_seconds()


def macs_per_second() -> float:
    """Simulated multiply-accumulates per second of one core."""
    from workloads import read_topology

    return read_topology(TOPOLOGY).macs / _network_seconds()


@cache
def resnet18_run():
    """ResNet-18's real decisions on a frame of a video; its weights are random."""
    import torch

    from simulator import LshReuse, PerLayer, decide
    from workloads import capture, video_frames
    from workloads.models import ResNet18

    torch.manual_seed(0)
    trace = capture(ResNet18().eval(), video_frames("bikes", size=(224, 224), count=1).images)
    policy = PerLayer(
        {"conv1": LshReuse(hashes=15, length=7), "layer*": LshReuse(hashes=10, length=16)}
    )
    return trace, decide(trace, policy)


def reused_layers():
    """ResNet-18's layers under reuse, with their decisions."""
    trace, run = resnet18_run()
    pairs = [(layer, run.decisions[layer.name]) for layer in trace.layers]
    return [(layer, decisions) for layer, decisions in pairs if decisions is not None]


def reuse_seconds() -> float:
    """Timing of ResNet-18's layers under recorded decisions."""
    from accelerators import preset
    from simulator.timing.pipeline import layer_timing

    design = preset("reuse_32x32")

    def network() -> None:
        for layer, decisions in reused_layers():
            layer_timing(layer, decisions, design)

    network()
    return statistics.median(seconds(network) for _ in range(9))


def design_points_per_second() -> float:
    """Reuse design with both dense baselines, ResNet-18, decisions made before."""
    from accelerators import preset
    from simulator import simulate

    trace, run = resnet18_run()
    design = preset("reuse_32x32")
    simulate(trace, design, run)
    return 1 / statistics.median(seconds(lambda: simulate(trace, design, run)) for _ in range(5))


def engines_ratio() -> float:
    """Time of the event engine over the compiled one, same schedule: conv2 of 100 images."""
    from simulator.timing.engines import compiled, event
    from simulator.timing.pipeline import layer_timing
    from tests.builders import cifarnet_conv2, even_decisions, roomy_design

    layer = cifarnet_conv2(images=100)
    decisions = even_decisions(layer, length=10, clusters=60, groups=100)
    schedule = layer_timing(layer, decisions, roomy_design()).schedule
    assert event.run(schedule) == compiled.run(schedule)
    return statistics.median(
        cpu_seconds(lambda: event.run(schedule)) / cpu_seconds(lambda: compiled.run(schedule))
        for _ in range(3)
    )


@cache
def _engine_seconds() -> list[dict[str, tuple[float, float]]]:
    """Of each of ResNet-18's reuse layers, by engine: processor seconds of `layer_timing`, and of
    those, in the engine itself, replaying the cache and running the schedules of all plans."""
    from accelerators import preset
    from simulator.timing.engines.engine import COMPILED, EVENT, Engine
    from simulator.timing.pipeline import layer_timing

    design = preset("reuse_32x32")

    def once(layer, decisions, engine: Engine) -> tuple[float, float]:
        own = []

        def timed(function):
            def call(*arguments, **options):
                start = time.process_time()
                result = function(*arguments, **options)
                own.append(time.process_time() - start)
                return result

            return call

        watched = replace(engine, run=timed(engine.run), replay=timed(engine.replay))
        return cpu_seconds(lambda: layer_timing(layer, decisions, design, watched)), sum(own)

    found = []
    for layer, decisions in reused_layers():
        layer_timing(layer, decisions, design)  # compile
        runs = [once(layer, decisions, COMPILED) for _ in range(7)]
        whole, own = (statistics.median(each) for each in zip(*runs, strict=True))
        found.append({"compiled": (whole, own), "event": once(layer, decisions, EVENT)})
    return found


def layers_ratio() -> float:
    """Event over compiled: whole reuse layers, with what both share; median of the layers.

    What is shared bounds it. Of the compiled engine's 29 ms on these 20 layers, a profile gives 3
    to the cache, 1.5 to the schedules' recurrence and the rest to describing tiles: 75 plans, two
    to five a layer, at 0.3 ms each in NumPy calls on small arrays
    (`simulator.timing.passes.Passes.tiles` and `simulator.timing.pipeline.Run`). The event engine
    takes 10 ms to 1 s a layer.
    """
    return statistics.median(
        times["event"][0] / times["compiled"][0] for times in _engine_seconds()
    )


def engines_on_layers_ratio() -> float:
    """Event over compiled: the cache and the schedules of the same layers; median of the layers."""
    return statistics.median(
        times["event"][1] / times["compiled"][1] for times in _engine_seconds()
    )


def vgg19_megabytes() -> float:
    """Peak memory of a process that simulates VGG-19, Python and libraries included.

    From Linux's /proc: the peak that getrusage gives a child includes its parent's before `exec`.
    """
    code = f"{VGG19}\nprint(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


HARDWARE_MODEL = (
    Target(
        name="scale_sim",
        what=f"recorded {SCALE_SIM_RECORDED_S} CPU s of SCALE-Sim 3.0.0 over ours: ResNet-18, "
        "224x224, dense, 32x32",
        unit="x",
        limit=10_000,
        at_least=True,
        measure=scale_sim_ratio,
    ),
    Target(
        name="reuse_resnet18",
        what="timing of ResNet-18 under recorded decisions",
        unit="s",
        limit=0.1,
        measure=reuse_seconds,
    ),
    Target(
        name="engines_schedule",
        what="event engine over compiled engine, CifarNet conv2, 100 images, 16,000 tiles",
        unit="x",
        limit=1000,
        at_least=True,
        measure=engines_ratio,
    ),
    Target(
        name="engines_reuse",
        what="event engine over compiled engine, cache and schedules of ResNet-18's reuse layers",
        unit="x",
        limit=1000,
        at_least=True,
        measure=engines_on_layers_ratio,
    ),
    Target(
        name="layers_reuse",
        what="the same, whole timing of a layer, with what the engines share",
        unit="x",
        limit=1000,
        at_least=True,
        measure=layers_ratio,
    ),
    Target(
        name="vgg19_memory",
        what="peak memory of VGG-19, 224x224, from shapes",
        unit="MB",
        limit=300,
        measure=vgg19_megabytes,
    ),
    Target(
        name="simulated_macs",
        what="multiply-accumulates simulated per second and core, dense ResNet-18",
        unit="/s",
        limit=None,
        measure=macs_per_second,
    ),
    Target(
        name="design_points",
        what="ResNet-18 design points per second and core, with both baselines",
        unit="/s",
        limit=None,
        measure=design_points_per_second,
    ),
)
