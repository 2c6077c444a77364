"""What similarity-aware training is told to do, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from workloads.rules import flag, integer, keep_fields, number, one_of
from workloads.training.classifier import TrainingError
from workloads.training.similarity_terms import DIRECTIONS

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
# In which the forward pass of a network of float32 weights is computed, where it is not in those.
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHT = number(fix="use 0 to leave it out")


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
        precision: `float32`; `bfloat16` or `float16`, in which PyTorch's `autocast` runs what it
            may of the forward pass, with losses, weights and what reuse decides in float32, and
            for `float16` losses scaled so that gradients fit (Micikevicius et al., ICLR 2018); or
            `int8`: weights and inputs of layers are on 8-bit grids while they learn (see
            `workloads.quantisation_aware`). The paper's quantisation-aware training before
            SA-training is a plan of its own with all weights 0.
    """

    epochs: int = field(default=50, metadata=integer(1, 10**6))
    optimizer: str = field(default="sgd", metadata=one_of(OPTIMIZERS))
    learning_rate: float = field(default=0.01, metadata=number(above=0, fix="try 0.01"))
    momentum: float = field(default=0.9, metadata=number(below=1, fix="try 0.9"))
    weight_decay: float = field(default=0.0, metadata=_WEIGHT)
    schedule: str = field(default="constant", metadata=one_of(SCHEDULES))
    batch: int = field(default=8, metadata=integer(1, 10**6))
    flips: bool = field(default=False, metadata=flag())
    seed: int = field(default=0, metadata=integer(0, 2**31 - 1))
    intra_weight: float = field(default=0.001, metadata=_WEIGHT)
    inter_weight: float = field(default=0.001, metadata=_WEIGHT)
    temperature: float = field(default=1.0, metadata=number(above=0, fix="try 1"))
    direction: str = field(default="from_output", metadata=one_of(DIRECTIONS))
    cluster_average_weight: float = field(default=0.0, metadata=_WEIGHT)
    cluster_hashes: int = field(default=4, metadata=integer(1, 62))
    precision: str = field(default="float32", metadata=one_of(PRECISIONS))

    def __post_init__(self) -> None:
        keep_fields(self, "TrainingPlan", TrainingError)

    def learning_rate_at(self, done: float) -> float:
        """Of the step that begins when the fraction `done` of all steps, 0 to 1, is done."""
        match self.schedule:
            case "constant":
                return self.learning_rate
            case "cosine":
                return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
            case _:
                raise TrainingError(f"no schedule {self.schedule!r} is known")

    @property
    def half(self) -> torch.dtype | None:
        """The type of 16 bits that the forward pass is computed in, if any."""
        return _HALVES.get(self.precision)

    def optimizer_for(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A new one that changes the parameters."""
        rate, decay = self.learning_rate, self.weight_decay
        match self.optimizer:
            case "sgd":
                return torch.optim.SGD(parameters, rate, momentum=self.momentum, weight_decay=decay)
            case "adamw":
                return torch.optim.AdamW(parameters, rate, weight_decay=decay)
            case _:
                raise TrainingError(f"no optimizer {self.optimizer!r} is known")


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
