"""What do techniques that must be trained keep of the accuracy, and what do they save?

Run it with `python studies/022_trained_techniques.py --train ARCHIVE --test ARCHIVE --weights FILE`
(CIFAR-10's images, ResNet-20's weights); it prints a table and keeps the trained weights in
`studies/out/022/`, which a further run reads. `--images` and `--epochs` make it shorter.

Feature boosting (FBS) is trained with a density that falls from stage to stage, beside the plain
network under the same plan; SubFlow's sub-network is trained with the channels that it leaves held
at 0; OctConv's network and the plain one begin at random weights, under the same plan. Settings
are learned on training images, accuracies are of test images.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.utils import prune

from accelerators import preset
from codesign.evaluation.threads import single_thread
from simulator import FeatureBoosting, NoReuse, ReusePolicy, SubFlow, calibrate, decide, simulate
from workloads import ImageSet, capture, cifar10, train_classifier
from workloads.models import ResNet20, load, save_weights
from workloads.models.boosting import boost, set_density
from workloads.models.octconv import OctaveResNet20
from workloads.training.classifier import accuracy_of

OUT = Path(__file__).parent / "out" / "022"
DESIGN = "columns_16x16"
# Density of the channels, and the part of the epochs that is trained at it.
STAGES = ((0.875, 0.15), (0.75, 0.15), (0.625, 0.15), (0.5, 0.55))
BUDGETS = (0.75, 0.5)
ALPHAS = (0.25, 0.5)
# Images that a technique is timed on, and those that its settings are learned from.
TIMED, LEARNED_FROM = 8, 100
TUNING_RATE, FIRST_RATE = 1e-3, 3e-3


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network under a technique.

    Attributes:
        name: of both.
        accuracy: on the test images.
        plain: of the plain network after the same training.
        left: of the plain network's multiplications.
        cycles, energy: over those of the plain network on the same array.
    """

    name: str
    accuracy: float
    plain: float
    left: float
    cycles: float
    energy: float


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What networks learn from, and are judged on."""

    train: ImageSet
    test: ImageSet
    epochs: int

    def taught(
        self, name: str, make: Callable[[], nn.Module], rate: float, parts: float
    ) -> nn.Module:
        """A network trained for a part of the epochs, or read if it is there already."""
        plan = f"{len(self.train.images)}_{self.epochs}"
        path, network = OUT / plan / f"{name}.safetensors", make()
        if path.exists():
            network.load_state_dict(load_tensors(path))
            return network.eval()
        train_classifier(
            network, self.train, self.test, epochs=max(1, round(parts * self.epochs)),
            learning_rate=rate, batch_size=64, augment="shift_flip",
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(network, path)
        return network.eval()


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file."""
    from safetensors.torch import load_file

    return load_file(path)


def measured(
    name: str, network: nn.Module, plain: nn.Module, policy: ReusePolicy, lessons: Lessons
) -> Row:
    """A network under a policy beside the plain one."""
    images = lessons.test.images[:TIMED]
    run = decide(
        trace := capture(network, images), policy, model=network,
        calibration=capture(network, lessons.train.images[:LEARNED_FROM]), layer_errors=False,
    )  # fmt: skip
    report = simulate(trace, preset(DESIGN), run)
    dense = simulate(capture(plain, images), preset(DESIGN), NoReuse()).dense
    macs = sum(layer.timing.macs for layer in dense.layers)
    return Row(
        name=name,
        accuracy=accuracy_of(network, lessons.test),
        plain=accuracy_of(plain, lessons.test),
        left=sum(layer.timing.macs for layer in report.reuse.layers) / macs,
        cycles=report.reuse.cycles / dense.cycles,
        energy=report.reuse.total_energy_pj / dense.total_energy_pj,
    )


def boosted(lessons: Lessons, weights: Path) -> list[Row]:
    """FBS from dense to half of the channels, and the plain network beside it."""
    found = []
    own, plain = boost(load("resnet20", weights)), load("resnet20", weights)
    for density, part in STAGES:
        set_density(own, density)
        own, plain = (
            lessons.taught(f"{name}_{density:g}", partial(_itself, each), TUNING_RATE, part)
            for name, each in (("boosted", own), ("plain", plain))
        )
        policy = FeatureBoosting(density=density)
        found.append(measured(f"FBS, density {density:g}", own, plain, policy, lessons))
    return found


def _itself(network: nn.Module) -> nn.Module:
    """A network that goes on learning."""
    return network


def sub_flows(lessons: Lessons, weights: Path) -> list[Row]:
    """Sub-networks of a budget, trained with the channels that are left out held at 0."""
    found = []
    for budget in BUDGETS:
        plain = lessons.taught("plain_sub", lambda: load("resnet20", weights), TUNING_RATE, 0.3)
        policy = SubFlow(budget=budget)

        make = partial(_masked, load("resnet20", weights), policy, lessons)
        own = lessons.taught(f"sub_flow_{budget:g}", make, TUNING_RATE, 0.3)
        for module in own.modules():
            if isinstance(module, nn.Conv2d) and prune.is_pruned(module):
                prune.remove(module, "weight")
        found.append(measured(f"SubFlow, budget {budget:g}", own, plain, policy, lessons))
    return found


def _masked(network: nn.Module, policy: SubFlow, lessons: Lessons) -> nn.Module:
    """A network whose channels that a policy leaves out stay at 0 in training."""
    trace = capture(network, lessons.train.images[:LEARNED_FROM])
    states, modules = calibrate(trace, policy), dict(network.named_modules())
    for layer in trace.layers:
        if not policy.applies_to(layer):
            continue
        made = policy.decide(layer, trace.rows(layer.name), states.get(layer.name, {}))
        if made is not None and made.columns is not None:
            module = modules[layer.name]
            kept = torch.from_numpy(made.columns.is_computed[0]).float()[:, None, None, None]
            prune.custom_from_mask(module, "weight", kept.expand_as(module.weight).clone())
    return network


def octaves(lessons: Lessons) -> list[Row]:
    """OctConv's networks from random weights, and the plain one under the same plan."""
    torch.manual_seed(0)
    plain = lessons.taught("plain_first", ResNet20, FIRST_RATE, 0.4)
    found = []
    for alpha in ALPHAS:
        torch.manual_seed(0)
        name = f"octave_{alpha:g}"
        own = lessons.taught(name, partial(OctaveResNet20, alpha), FIRST_RATE, 0.4)
        found.append(measured(f"OctConv, alpha {alpha:g}", own, plain, NoReuse(), lessons))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="CIFAR-10's training images")
    parser.add_argument("--test", type=Path, required=True, help="CIFAR-10's test images")
    parser.add_argument("--weights", type=Path, required=True, help="ResNet-20's, on CIFAR-10")
    parser.add_argument("--images", type=int, default=6000, help="to train on")
    parser.add_argument("--judged", type=int, default=1000, help="test images")
    parser.add_argument("--epochs", type=int, default=13, help="of the longest training")
    given = parser.parse_args()
    train, test = (
        cifar10(path, split, count, normalise="imagenet")
        for path, split, count in (
            (given.train, "train", given.images),
            (given.test, "test", given.judged),
        )
    )
    lessons = Lessons(train=train, test=test, epochs=given.epochs)
    with single_thread():
        rows = [
            *boosted(lessons, given.weights),
            *sub_flows(lessons, given.weights),
            *octaves(lessons),
        ]
    _print(rows)


def _print(rows: Sequence[Row]) -> None:
    table = Table(title=f"Trained techniques on {DESIGN}, the same array, {TIMED} images")
    for heading in ("network", "accuracy %", "plain %", "products left", "cycles", "energy"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.name, f"{100 * row.accuracy:.1f}", f"{100 * row.plain:.1f}", f"{row.left:.3f}",
            f"{row.cycles:.2f}x", f"{row.energy:.2f}x",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
