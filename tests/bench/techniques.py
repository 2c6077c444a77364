"""Speed of deciding, for every technique that a policy decides: a frame over its dense inference.

`python -m tests.bench.techniques` prints every technique, the slowest first; `make bench` the
slowest. Network: the small segmenter that is shipped, on frames in a row of a sample video.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.bench.target import Target, cpu_seconds, median_ratio

if TYPE_CHECKING:
    from codesign import Workload
    from simulator import ReusePolicy

FRAMES, RUNS = 8, 5
# Not meant for hardware: clusters that take seconds to find, as their pages say.
OFFLINE = ("hyper_cube", "k_means")


def policies(
    workload: "Workload", chosen: tuple[str, ...] = ()
) -> Iterator[tuple[str, "ReusePolicy", dict]]:
    """Each technique that fits the network, with the settings that a search tries first, and what
    it learned; of some names those alone.

    Sub-vectors are no longer than the shortest row. What needs more than such settings (numbers of
    layers, repeating weights, gates in the network, tokens) is left out.
    """
    from accelerators import ConfigError
    from simulator import calibrate
    from simulator.policies.technique import techniques

    shortest = min(layer.gemm.k for layer in workload.trace.layers)
    for name, technique in techniques().items():
        if technique.policy is None or name in OFFLINE or (chosen and name not in chosen):
            continue
        start = dict(technique.start)
        if start.get("length"):
            start["length"] = min(start["length"], shortest)
        try:
            policy = technique.policy(**start)
            policy.check_layers(workload.trace.layers)
            states = calibrate(workload.calibration, policy)
        except (ConfigError, TypeError) as error:
            print(f"{name:22} left out: {str(error)[:90]}", file=sys.stderr)
            continue
        yield name, policy, dict(states)


def ratios(chosen: tuple[str, ...] = ()) -> dict[str, float]:
    """Technique -> processor time of deciding and running over dense inference, in pairs."""
    import torch

    from codesign import load_workload
    from simulator import decide

    torch.set_num_threads(1)
    workload = load_workload(
        model="resnet18_camvid", inputs="bikes", images=FRAMES, calibration_images=2
    )
    model, trace = workload.model, workload.trace
    images = torch.tensor(trace.inputs[0])

    def dense() -> None:
        with torch.no_grad():
            model(images)

    found = {}
    for name, policy, states in policies(workload, chosen):

        def reuse(policy=policy, states=states) -> None:
            decide(trace, policy, model=model, calibration=states, layer_errors=False)

        found[name] = median_ratio(reuse, dense, runs=RUNS, clock=cpu_seconds)
        print(f"{name:22} {found[name]:6.2f} x", file=sys.stderr, flush=True)
    return found


def slowest() -> float:
    """The largest ratio; says whose it is."""
    found = ratios()
    name = max(found, key=lambda each: found[each])
    over = sum(ratio > TECHNIQUES[0].limit for ratio in found.values())
    print(f"slowest of {len(found)} techniques: {name}; {over} above the target", file=sys.stderr)
    return found[name]


TECHNIQUES = (
    Target(
        name="decide_techniques",
        what="a frame of the small segmenter decided and run under the slowest technique, 8 in a "
        "batch, over dense inference, 1 thread; python -m tests.bench.techniques tells each",
        unit="x",
        limit=2,
        measure=slowest,
    ),
)


def main() -> None:
    """Print every technique's ratio, or those named on the command line."""
    found = ratios(tuple(sys.argv[1:]))
    for name, ratio in sorted(found.items(), key=lambda each: -each[1]):
        print(f"{name:22} {ratio:6.2f} x", flush=True)


if __name__ == "__main__":
    main()
