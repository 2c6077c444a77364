"""What similarity-aware training is told to do, and what it reports."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from workloads.errors import show
from workloads.training.classifier import TrainingError, unknown_choice
from workloads.training.similarity_terms import DIRECTIONS

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "int8")
_LARGEST = 1e100


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The settings of similarity-aware training, by default Treasure's ("Setup").

    With all weights 0 it is plain training: what the paper pre-trains and compares with.

    Attributes:
        epochs: passes over the clips, >= 1.
        optimizer: `sgd`, the paper's, or `adamw` (Loshchilov and Hutter, 2019), which needs far
            fewer epochs from random weights; its learning rate is about a tenth of SGD's.
        learning_rate: of the optimizer, > 0.
        momentum: of SGD, 0 to below 1; the paper names momentum without a figure.
        weight_decay: L2 penalty given to SGD, or AdamW's decoupled one, >= 0.
        schedule: `constant`, or `cosine`: falls to zero along half a cosine, step by step.
        batch: clips a step, >= 1; 8 clips of 2 are the paper's 16 frames.
        flips: mirror each clip left to right with probability one half, each time it is met.
        seed: of shuffling, dropout and clusters, >= 0. Every epoch draws from its own seed, made of
            this one and its number.
        intra_weight: lambda of R1, equation 1; 0 leaves it out.
        inter_weight: lambda of R2, equation 2; 0 leaves it out.
        temperature: of the distributions in both, see `LayerOutputs`.
        direction: of the divergences in both: `from_output` or `from_reference`.
        cluster_average_weight: of `cluster_average_loss`; 0, the default, leaves it out.
        cluster_hashes: hyperplanes that cluster weights for it, 1 to 62.
        precision: `float32`, or `int8`: weights and inputs of layers are on 8-bit grids while they
            learn (see `workloads.quantisation_aware`). The paper's quantisation-aware training
            before SA-training is a plan of its own with all weights 0.
    """

    epochs: int = 50
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    batch: int = 8
    flips: bool = False
    seed: int = 0
    intra_weight: float = 0.001
    inter_weight: float = 0.001
    temperature: float = 1.0
    direction: str = "from_output"
    cluster_average_weight: float = 0.0
    cluster_hashes: int = 4
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Raise one `TrainingError` that lists every setting out of range."""
        broken = [
            f"TrainingPlan.{name} must be an integer from {low} to {high}, got {show(value)}"
            for name, low, high in (
                ("epochs", 1, 10**6),
                ("batch", 1, 10**6),
                ("seed", 0, 2**31 - 1),
                ("cluster_hashes", 1, 62),
            )
            if type(value := getattr(self, name)) is not int or not low <= value <= high
        ]
        broken += [
            f"TrainingPlan.{each.name} must be a finite number >= 0, got {show(value)}"
            for each in fields(self)
            if each.type == "float" and not _is_magnitude(value := getattr(self, each.name))
        ]
        broken += [
            f"TrainingPlan.{name} must be above 0, got 0"
            for name in ("learning_rate", "temperature")
            if _is_magnitude(value := getattr(self, name)) and value == 0
        ]
        if _is_magnitude(self.momentum) and self.momentum >= 1:
            broken.append(f"TrainingPlan.momentum must be below 1, got {self.momentum!r}; try 0.9")
        if type(self.flips) is not bool:
            broken.append(f"TrainingPlan.flips must be True or False, got {show(self.flips)}")
        broken += unknown_choice("TrainingPlan.optimizer", self.optimizer, OPTIMIZERS)
        broken += unknown_choice("TrainingPlan.schedule", self.schedule, SCHEDULES)
        broken += unknown_choice("TrainingPlan.direction", self.direction, DIRECTIONS)
        broken += unknown_choice("TrainingPlan.precision", self.precision, PRECISIONS)
        if broken:
            raise TrainingError("\n".join(broken))

    def learning_rate_at(self, done: float) -> float:
        """Of the step that begins when the fraction `done` of all steps, 0 to 1, is done."""
        match self.schedule:
            case "constant":
                return self.learning_rate
            case "cosine":
                return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
            case _:
                raise TrainingError("\n".join(unknown_choice("schedule", self.schedule, SCHEDULES)))


def _is_magnitude(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class SimilarityEpoch:
    """How one epoch of similarity-aware training went; losses are means over its clips.

    Attributes:
        epoch: 1 for the first.
        epochs: how many there will be.
        learning_rate: of its last step.
        loss: what was minimised: the task's loss and the weighted terms.
        task: the task's loss.
        intra: R1, not weighted, in nats; None if it was left out.
        inter: R2, likewise.
        cluster_average: the weights' distance to their clusters' averages; None likewise.
        removed_fraction: 1 - |X_c| / |X| under the reuse it was trained with; None without reuse.
        score: the task's figures on the training clips, as they were met.
        validation: on the validation clips after the epoch, under the same reuse; None without
            them.
        duration_s: wall-clock seconds, validation included.
    """

    epoch: int
    epochs: int
    learning_rate: float
    loss: float
    task: float
    intra: float | None
    inter: float | None
    cluster_average: float | None
    removed_fraction: float | None
    score: dict[str, float]
    validation: dict[str, float] | None
    duration_s: float
