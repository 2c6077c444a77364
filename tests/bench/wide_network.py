"""Speed of reuse on the network of full width that is shipped: ResNet-18 that labels pixels."""

from functools import cache
from typing import TYPE_CHECKING

from tests.bench.target import Target, median_ratio

if TYPE_CHECKING:
    from codesign import Workload

RUNS = 9


@cache
def wide_network() -> "Workload":
    """ResNet-18 of full width with the weights that it is shipped with, on a frame of a street
    video, resized as for any user; thresholds come from two frames before it.

    Random weights would tell another story: trained layers leave more of the work.
    """
    import torch

    from codesign import load_workload

    torch.set_num_threads(1)
    return load_workload(
        model="resnet18_w64_camvid", inputs="bikes", images=1, calibration_images=2, every=20
    )


def functional_ratio(technique: str) -> float:
    """The network under reuse by `lsh` or by `leaders`, as in the demo, over dense inference."""
    import torch

    from simulator import LeaderReuse, LshReuse, calibrate, decide

    workload = wide_network()
    model, trace = workload.model, workload.trace
    policy = {
        "lsh": LshReuse(hashes=24, length=64, look_once=True),
        "leaders": LeaderReuse(tolerance=0.1, look_once=True),
    }[technique]
    states = calibrate(workload.calibration, policy)
    images = torch.tensor(trace.inputs[0])

    def dense() -> None:
        with torch.no_grad():
            model(images)

    def reuse() -> None:
        decide(trace, policy, model=model, calibration=states, layer_errors=False)

    return median_ratio(reuse, dense, runs=RUNS)


def look_once_ratio(order: str) -> float:
    """Time of deciding on the network's 3x3 layers tap by tap, over that of pixels.

    Where rows are cut in the order (kh, kw, c) as well, three kernel rows share what was hashed
    (`simulator.kernels.fused`), so that there is no more than a third of it to be saved.
    """
    from simulator import LshReuse, calibrate
    from simulator.policies.activations import Activations
    from simulator.running.executor import execute

    workload = wide_network()
    trace = workload.trace
    layers = [
        layer
        for layer in trace.layers
        if layer.convolution.kernel == (3, 3) and layer.input_shape[1] >= 64
    ]
    inputs = {layer.name: trace.given(layer.name) for layer in layers}
    once = LshReuse(hashes=24, length=64, look_once=True)
    by_tap = LshReuse(hashes=24, length=64, order=order)
    states = calibrate(workload.calibration, once)

    def decide_by(policy: LshReuse) -> None:
        for layer in layers:
            execute(
                policy, layer, Activations(layer, inputs[layer.name]), states[layer.name], None,
                lambda: None, wants_result=False, centroids=False,
            )  # fmt: skip

    return median_ratio(lambda: decide_by(by_tap), lambda: decide_by(once), runs=RUNS)


def _functional(name: str, technique: str, what: str) -> Target:
    return Target(
        name=name,
        what=f"ResNet-18 of full width at 240x320 under reuse, {what}, a pixel looked at once, "
        "over dense inference, 1 thread, a video's frame, its shipped weights",
        unit="x",
        limit=1.5,
        measure=lambda: functional_ratio(technique),
    )


WIDE_NETWORK = (
    _functional("functional_wide", "lsh", "H=24, L=64"),
    _functional("functional_leaders", "leaders", "leaders within a tolerance of 0.1"),
    Target(
        name="look_once",
        what="deciding on that network's 3x3 layers tap by tap, over a pixel looked at once",
        unit="x",
        limit=4,
        at_least=True,
        measure=lambda: look_once_ratio("channels_first"),
    ),
    Target(
        name="look_once_ordered",
        what="the same with taps in the order (kh, kw, c), of which kernel rows share hashes",
        unit="x",
        limit=None,
        measure=lambda: look_once_ratio("channels_last"),
    ),
)
