"""Similarity-aware training: a network learns its task on clips, and to give similar frames and
pixels similar feature maps, so that more of its products can be reused (Treasure).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workloads.models.integer_grid import is_quantised, weighted_layers
from workloads.models.weights import dtype_of, note_weights, save_weights
from workloads.streams.clips import Clip, Clips
from workloads.training.checkpoints import Checkpoint, check_place
from workloads.training.classifier import (
    TrainingError,
    check_precision,
    device_named,
    device_of,
    diverged,
)
from workloads.training.clip_batches import (
    batches_of,
    check_clips,
    check_scored,
    epoch_seed,
    mirrored,
)
from workloads.training.curves import write_curves_csv, write_curves_html
from workloads.training.plan import SimilarityEpoch, TrainingPlan
from workloads.training.progress import EpochProgress, epoch_progress
from workloads.training.quantised import fix_grids, with_learned_grids
from workloads.training.similarity_terms import LayerOutputs, SimilarityTerms, cluster_average_loss
from workloads.training.tasks import Task

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
CURVES_CSV, CURVES_HTML = "curves.csv", "curves.html"


class ReuseInForward(Protocol):
    """Runs a network with reused results; `simulator.ReusedForward` is one."""

    def __call__(self, model: nn.Module, frames: Tensor) -> Tensor:
        """The network's outputs, with the gradients of the dense operations."""

    def recalibrate(self) -> None:
        """Learn from the next frames anew what does not follow the activations."""

    def state_dict(self) -> dict[str, Tensor]:
        """What follows the activations of training, for the checkpoint."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""

    def removed_fraction(self) -> float | None:
        """1 - |X_c| / |X| since `recalibrate`; None where nothing ran."""

    def describe(self) -> dict[str, Any]:
        """The reuse as plain values, for the checkpoint and the weights' metadata."""


@dataclass(frozen=True, kw_only=True)
class SimilarityResult:
    """What similarity-aware training made.

    Attributes:
        model: the trained network in evaluation mode, on the device of the one given; with
            `precision="int8"` as `workloads.quantise` makes it.
        epochs: one report per epoch, those before a resume included.
        duration_s: wall-clock seconds of all of them.
    """

    model: nn.Module
    epochs: tuple[SimilarityEpoch, ...]
    duration_s: float


def similarity_aware_training(
    model: nn.Module,
    clips: Clips,
    task: Task,
    *,
    plan: TrainingPlan,
    validation: Clips | None = None,
    reuse: ReuseInForward | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool | Callable[[SimilarityEpoch], None] = False,
) -> SimilarityResult:
    """Fine-tune a network on clips for task + lambda_1 R1 + lambda_2 R2 (Treasure, Fig. 5).

    With `reuse`, the forward pass computes with reused products and the backward pass is the dense
    one at those values (straight-through). What it learns of the activations follows them step by
    step where it can, and is learned anew at the start of each epoch where not (see
    `simulator.ReusedForward`). Validation is scored in float32.

    On the CPU with the same number of threads, results repeat, and a resumed training ends with the
    same weights, bit for bit, as one that was not stopped.

    Args:
        model: maps `(n, 3, height, width)` frames to the task's outputs; left as it was.
        clips: labelled clips of one size; `LayerOutputs` tells what it asks of the model's layers.
        task: loss and score.
        plan: the settings.
        validation: labelled clips to score after each epoch; never used for a choice.
        reuse: runs the network with reuse, also for the scores; None is the dense network.
        out: folder for the checkpoint (after each epoch), the curves (CSV and a page), and the
            trained weights.
        resume: go on from the checkpoint in `out`. Plan, task and reuse must be those it was
            started with, but for more epochs with a constant learning rate.
        device: `cpu`, `cuda` and so on; `auto` is a GPU where there is one.
        progress: a function called after every epoch; True shows a bar if stderr is a terminal.

    Raises:
        TrainingError: for clips that differ in size or lack labels, classes that the task doesn't
            have, a quantised model in floating point, a checkpoint that doesn't fit or can't be
            written, and if a loss or weights stop being finite, naming the term, epoch and step;
            the last checkpoint stays.
    """
    folder = None if out is None else Path(out)
    check_precision(model)
    check_place(None if folder is None else folder / CHECKPOINT, resume)
    check_clips("clips", clips)
    if validation is not None:
        check_clips("validation", validation)
        check_scored(validation, task)
    training = _Training(model, clips, task, plan, reuse, device_named(device))
    if resume:
        assert folder is not None
        training.restore(Checkpoint.load(folder / CHECKPOINT))
    elif folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(), epoch_progress(progress, plan.epochs) as tell:
        while len(training.reports) < plan.epochs:
            try:
                report = training.epoch(validation, tell)
                if folder is not None:
                    training.checkpoint().save(folder / CHECKPOINT)
                    write_curves_csv(training.reports, folder / CURVES_CSV)
            except TrainingError as error:
                raise _with_checkpoint(error, folder) from error
            tell.epoch(report)
    return training.finish(device_of(model), folder)


def score_of(
    model: nn.Module,
    clips: Clips,
    task: Task,
    *,
    reuse: ReuseInForward | None = None,
    batch: int = 1,
) -> dict[str, float]:
    """The task's figures on labelled clips, `batch` of them at a time; leaves eval mode.

    Raises:
        TrainingError: for clips that differ in size or lack labels.
    """
    device = device_of(model)
    model.eval()
    score = task.score()
    with torch.no_grad():
        for frames, labels in batches_of(clips, torch.arange(len(clips)), batch, device):
            seen = frames.flatten(0, 1).to(dtype_of(model))
            score.add(model(seen) if reuse is None else reuse(model, seen), labels.flatten(0, 1))
    return score.values()


class _Training:
    """A training between two epochs."""

    def __init__(
        self,
        model: nn.Module,
        clips: Clips,
        task: Task,
        plan: TrainingPlan,
        reuse: ReuseInForward | None,
        device: torch.device,
    ) -> None:
        first = clips[0]
        self.reports: list[SimilarityEpoch] = []
        self._clips, self._task, self._plan, self._reuse = clips, task, plan, reuse
        self._device = device
        self._shape = tuple(first.frames.shape)
        self._network = _prepared(model, first, plan).to(device)
        trained = {
            name: weight
            for name, weight in self._network.named_parameters()
            if weight.requires_grad
        }
        if not trained:
            raise TrainingError("model must have a parameter that requires a gradient, got none")
        self._parameters = trained
        self._optimizer = plan.optimizer_for(trained.values())
        self._scaler = torch.amp.GradScaler(device.type, enabled=plan.half is torch.float16)
        self._outputs = LayerOutputs(
            self._network,
            temperature=plan.temperature,
            direction=plan.direction,
            window=len(clips) * self._shape[0],
        )

    def epoch(
        self, validation: Clips | None, tell: EpochProgress[SimilarityEpoch]
    ) -> SimilarityEpoch:
        """Train for one pass over the clips."""
        started = time.perf_counter()
        plan, number = self._plan, len(self.reports) + 1
        steps = math.ceil(len(self._clips) / plan.batch)
        torch.manual_seed(epoch_seed(plan.seed, number))
        self._network.train()
        if self._reuse is not None:
            self._reuse.recalibrate()
        score, sums = self._task.score(), dict[str, float]()
        order = torch.randperm(len(self._clips))
        batches = batches_of(self._clips, order, plan.batch, self._device, self._shape)
        if plan.flips:
            batches = (mirrored(*each) for each in batches)
        for step, (frames, labels) in enumerate(batches, start=1):
            done = (number - 1 + (step - 1) / steps) / plan.epochs
            self._optimizer.param_groups[0]["lr"] = rate = plan.learning_rate_at(done)
            terms, outputs = self._step(frames, labels, number, step)
            score.add(outputs, labels.flatten(0, 1))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value * len(frames)
            tell.step(number - 1 + step / steps, terms["loss"])
        if not all(bool(weight.isfinite().all()) for weight in self._parameters.values()):
            raise diverged("weights", number, steps, plan.learning_rate)
        means = {name: value / len(self._clips) for name, value in sums.items()}
        removed = None if self._reuse is None else self._reuse.removed_fraction()
        scored = None
        if validation is not None:
            scored = score_of(
                self._network, validation, self._task, reuse=self._reuse, batch=plan.batch
            )
        report = SimilarityEpoch(
            epoch=number,
            epochs=plan.epochs,
            learning_rate=rate,
            loss=means["loss"],
            task=means["task"],
            intra=means.get("intra"),
            inter=means.get("inter"),
            cluster_average=means.get("cluster_average"),
            removed_fraction=removed,
            score=score.values(),
            validation=scored,
            duration_s=time.perf_counter() - started,
        )
        self.reports.append(report)
        return report

    def _step(
        self, frames: Tensor, labels: Tensor, epoch: int, step: int
    ) -> tuple[dict[str, float], Tensor]:
        """Take one gradient step; the losses by name, and the outputs.

        Args:
            frames: `(clips, frames, 3, height, width)`.
            labels: `(clips, frames, height, width)`.
            epoch, step: to be named if a loss is not finite.
        """
        plan, network = self._plan, self._network
        count, length = frames.shape[:2]
        frames, labels = frames.flatten(0, 1).to(dtype_of(network)), labels.flatten(0, 1)
        wanted = {"intra": plan.intra_weight > 0, "inter": plan.inter_weight > 0}
        halves = torch.autocast(self._device.type, plan.half, enabled=plan.half is not None)
        with self._outputs.watch(clips=count, frames=length, **wanted) as terms, halves:
            outputs = network(frames) if self._reuse is None else self._reuse(network, frames)
        outputs = outputs if plan.half is None else outputs.float()
        losses = {"task": self._task.loss(outputs, labels), **self._regularisers(terms)}
        loss = losses["task"] + sum(
            getattr(plan, f"{name}_weight") * value
            for name, value in losses.items()
            if name != "task"
        )
        values = {name: float(each.detach()) for name, each in (losses | {"loss": loss}).items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise diverged(_SPOKEN[name], epoch, step, plan.learning_rate)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return values, outputs.detach()

    def _regularisers(self, terms: SimilarityTerms) -> dict[str, Tensor]:
        """The terms of the plan by the name of their weight."""
        plan = self._plan
        average = None
        if plan.cluster_average_weight > 0:
            layers = weighted_layers(self._network)
            average = cluster_average_loss(layers, hashes=plan.cluster_hashes, seed=plan.seed)
        found = {"intra": terms.intra, "inter": terms.inter, "cluster_average": average}
        return {name: value for name, value in found.items() if value is not None}

    def checkpoint(self) -> Checkpoint:
        """All that the epochs to come depend on; random numbers follow from seed and epoch."""
        states: dict[str, dict[str, Tensor]] = {}
        for name, weight in self._parameters.items():
            for key, value in self._optimizer.state[weight].items():
                if value is not None:  # SGD's buffer without momentum
                    states.setdefault(_STATE + key, {})[name] = value
        return Checkpoint(
            tensors={
                "model": self._network.state_dict(),
                "mean": self._outputs.means,
                "reuse": {} if self._reuse is None else self._reuse.state_dict(),
                **states,
            },
            facts={
                **self._beginning(),
                "seen": self._outputs.seen,
                "scaler": self._scaler.state_dict(),
                "epochs": [asdict(report) for report in self.reports],
                "torch": torch.__version__,
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: it is of another plan, task or reuse, other clips or another model.
        """
        facts, tensors = checkpoint.facts, checkpoint.tensors
        self._check_same(facts)
        try:
            self._network.load_state_dict(tensors["model"])
            for group, named in tensors.items():
                if group.startswith(_STATE):
                    self._restore_state(group.removeprefix(_STATE), named)
            if self._reuse is not None:
                self._reuse.load_state_dict(tensors.get("reuse", {}))
        except (RuntimeError, KeyError) as error:
            raise TrainingError(
                f"model must be the one that the checkpoint is of, got another ({error}); build it "
                "with the same arguments"
            ) from error
        means = tensors.get("mean", {})
        self._outputs.means = {name: mean.to(self._device) for name, mean in means.items()}
        self._outputs.seen = dict(facts["seen"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(facts["scaler"])
        self.reports = [SimilarityEpoch(**each) for each in facts["epochs"]]

    def _restore_state(self, key: str, named: Mapping[str, Tensor]) -> None:
        """What the optimizer kept of each parameter under one of its keys."""
        for name, value in named.items():
            weight = self._parameters[name]
            # A count of steps stays on the CPU, where the optimizer has it.
            moved = value.to(self._device) if value.shape == weight.shape else value
            self._optimizer.state[weight][key] = moved

    def _beginning(self) -> dict[str, Any]:
        """What a training began with and must go on with, as plain values."""
        task, reuse = self._task, self._reuse
        return {
            "plan": asdict(self._plan),
            "task": {
                "kind": type(task).__name__,
                **(asdict(task) if is_dataclass(task) and not isinstance(task, type) else {}),
            },
            "reuse": None if reuse is None else reuse.describe(),
            "clips": len(self._clips),
            "clip_shape": list(self._shape),
        }

    def _check_same(self, facts: Mapping[str, Any]) -> None:
        began = json.loads(json.dumps(self._beginning()))  # as a checkpoint keeps it
        kept = [name for name in began if name in facts]  # older checkpoints lack some
        now, then = (_flat({name: each[name] for name in kept}) for each in (began, facts))
        done = len(facts["epochs"])
        if self._plan.schedule == "constant" and self._plan.epochs >= done:
            then["epochs"] = self._plan.epochs  # more of the same
        other = [
            f"{name}={now.get(name)!r} instead of {then.get(name)!r}"
            for name in now | then
            if now.get(name) != then.get(name)
        ]
        if other:
            raise TrainingError(
                f"resume must go on as the training began, got {', '.join(other)}; give what it "
                f"was started with, or start anew in another folder ({done} epochs are done)"
            )

    def finish(self, device: torch.device, folder: Path | None) -> SimilarityResult:
        """The trained network, and what is written of it."""
        network, last = self._network, self.reports[-1]
        fix_grids(network)
        network.to(device)
        source = getattr(self._clips, "source", f"{len(self._clips)} clips")
        note_weights(network, f"trained {last.epoch} epochs on {source}, seed {self._plan.seed}")
        result = SimilarityResult(
            model=network,
            epochs=tuple(self.reports),
            duration_s=sum(report.duration_s for report in self.reports),
        )
        if folder is not None:
            began = self._beginning()
            metadata = {
                "model": type(network).__name__,
                "clips": source,
                **{name: json.dumps(began[name]) for name in ("plan", "task", "reuse")},
                "last_epoch": json.dumps(asdict(last)),
                "training_s": f"{result.duration_s:.1f}",
                "torch": torch.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            save_weights(network, folder / WEIGHTS, metadata=metadata)
            write_curves_html(self.reports, folder / CURVES_HTML)
        return result


# Before the name of what the optimizer keeps of each parameter, in a checkpoint.
_STATE = "optimizer."
_SPOKEN = {
    "task": "the task's loss",
    "intra": "the intra-frame term",
    "inter": "the inter-frame term",
    "cluster_average": "the cluster-average term",
    "loss": "the sum of the losses",
}


def _prepared(model: nn.Module, first: Clip, plan: TrainingPlan) -> nn.Module:
    """A copy of the model to train."""
    if plan.precision == "int8":
        return with_learned_grids(model, first.frames.to(device_of(model)))
    if is_quantised(model):
        raise TrainingError(
            f"TrainingPlan.precision must be int8 for a quantised model, got {plan.precision}: its "
            "weights would leave their grid; use precision='int8', or weights in floating point"
        )
    return copy.deepcopy(model)


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with those of the plan and the task by their own names."""
    nested = (facts.get("plan", {}), facts.get("task", {}))
    rest = {name: value for name, value in facts.items() if name not in ("plan", "task")}
    return {**nested[0], **{f"task.{name}": value for name, value in nested[1].items()}, **rest}


def _with_checkpoint(error: TrainingError, folder: Path | None) -> TrainingError:
    """The error, and what is left of the training."""
    if folder is None or not (folder / CHECKPOINT).is_file():
        return error
    return TrainingError(f"{error}\nthe last whole epoch is kept in {folder / CHECKPOINT}")
